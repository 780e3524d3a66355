"""FOCA's options as they were called before they stood in groups."""

from collections.abc import Mapping
from typing import Any

RENAMED: Mapping[str, str] = {
    "hidden": "weak.hidden",
    "solver": "weak.solver",
    "inner_updates": "weak.updates",
    "inner_rate": "weak.rate",
    "inner_momentum": "weak.momentum",
    "weight_decay": "weak.weight_decay",
    "init_std": "weak.init_std",
    "reduction": "weak.reduction",
    "num_outputs": "weak.num_outputs",
    "feature_scale": "weak.feature_scale",
    "samples_per_class": "draw.samples_per_class",
    "replacement": "draw.replacement",
    "num_classifiers": "draw.num_classifiers",
    "shared_batch": "draw.shared_batch",
    "phi_updates": "phi.updates",
    "phi_draw": "phi.draw",
    "max_norm": "phi.max_norm",
    "clip_norm": "phi.clip_norm",
    "accumulate": "phi.accumulate",
    "hold_scale": "phi.hold_scale",
    "secondary_hidden": "secondary.hidden",
    "secondary_updates": "secondary.updates",
    "secondary_rate": "secondary.rate",
    "secondary_momentum": "secondary.momentum",
    "secondary_weight_decay": "secondary.weight_decay",
    "secondary_batch_size": "secondary.batch_size",
    "secondary_feature_norm": "secondary.feature_norm",
}
"""Old name -> new name. ``init_std`` was that of the secondary head, too."""


def current_options(init_args: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a FOCAModule, of a ``config.yaml`` or a checkpoint, under the names that they have now.

    A copy with the old ones in their groups; a value that stands in its group already is left alone.
    """
    options: dict[str, Any] = {name: value for name, value in init_args.items() if name not in RENAMED}
    for name, value in init_args.items():
        places = [RENAMED[name]] if name in RENAMED else []
        if name == "init_std":
            places.append("secondary.init_std")
        for place in places:
            group, _, option = place.partition(".")
            options[group] = {option: value, **(options.get(group) or {})}
    return options
