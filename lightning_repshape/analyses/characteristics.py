"""Analysis of a layer's units: amplitude, covariance, correlation and variances (AAAI 2019, Table 5 and Figure 1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import SplitAnalysis
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import some_rows
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.functional.characteristics import representation_characteristics

_SHOWN = (
    ("amplitude", "activation amplitude"),
    ("covariance", "covariance"),
    ("correlation", "correlation"),
    ("classwise_correlation", "class-wise correlation"),
    ("classwise_correlation_all", "class-wise correlation, pairs without one as 0"),
    ("variance", "variance"),
    ("normalized_classwise_variance", "normalised class-wise variance"),
    ("classwise_variance", "class-wise variance"),
)


@dataclass(eq=False)
class RepresentationCharacteristics(SplitAnalysis):
    """Characteristics of a layer (class-wise regularizers, AAAI 2019, Table 5), and a picture of two of its units.

    A second one with ``when="fit_start"`` and the same ``units`` shows the layer at initialisation (Figure 1); the
    command ``compare`` draws both, and other runs, side by side.

    Logged: the fields of :class:`lightning_repshape.functional.Characteristics` up to ``classwise_variance``.

    Args:
        max_samples: How many of them at most; a random choice, the same in every call. Default: 10,000, as in the
            paper.
        positive_only: Statistics over positive activations alone, as in the paper.
        units: The two units that are drawn. Default: the two of the largest variance.
    """

    kind = "characteristics"
    title = "Representation characteristics"

    max_samples: int = 10_000
    positive_only: bool = True
    units: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.max_samples < 2:
            raise ConfigError(f"max_samples is {self.max_samples}; at least 2 are needed")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """The characteristics; DataError if the split has no features, or a unit does not exist."""
        split, part, notes = self.shown(inputs)
        chosen = some_rows(len(part.labels), self.max_samples, "characteristics", inputs.seed)
        features, labels = part.features[chosen], part.labels[chosen]
        found = representation_characteristics(
            features.to(inputs.device), labels.to(inputs.device), inputs.num_classes(), self.positive_only
        )._asdict()
        width = features.shape[1]
        scalars = {name: float(found[name]) for name, _ in _SHOWN if found[name] == found[name]}
        notes += self._notes(found, width, inputs.num_classes(), labels)
        if self.units is None:
            variance = features.double().var(dim=0, correction=0)
            units = variance.topk(min(2, width)).indices.sort().values.tolist()
        else:
            units = list(self.units)
            if not all(0 <= unit < width for unit in units):
                raise DataError(f"units={self.units}, but the layer has the units 0 .. {width - 1}")
        values, targets = features[:, units].double().numpy(), labels.numpy()
        names = inputs.class_names()
        heading = f"{inputs.layer}, {len(labels)} {split} samples{inputs.moment}"

        def draw() -> Any:
            return plots.units_figure(values, targets, units, names, heading)

        arrays = {"values": values.astype("float32"), "labels": targets, "units": np.array(units)}

        rows = [{"characteristic": label, "value": found[name]} for name, label in _SHOWN]
        content = {
            "split": split,
            "samples": len(labels),
            "num_units": width,
            "positive_only": self.positive_only,
            "units_drawn": units,
            "class_names": names,
            "left_out": {name: count for name, count in found.items() if "left_out" in name},
        }
        heading_of_table = f"{inputs.layer}: {width} units, {len(labels)} {split} samples"
        return AnalysisResult(scalars, content, {heading_of_table: rows}, {"": draw}, tuple(notes), arrays)

    def _notes(self, found: dict[str, Any], width: int, classes: int, labels: torch.Tensor) -> list[str]:
        notes = []
        if self.positive_only:
            notes.append("variances, covariances and correlations over positive activations only, as in the paper")
        if found["units_left_out"]:
            notes.append(f"{found['units_left_out']} of {width} units do not vary on the samples used and are left out")
        if found["units_left_out"] == width:
            raise DataError(
                f"none of the layer's {width} units varies on the samples used: there is nothing to describe"
            )
        pairs = width * (width - 1) // 2
        if found["correlations_left_out"]:
            notes.append(f"{found['correlations_left_out']} of {pairs} pairs of units are left out of the correlation")
        if found["classes_left_out"]:
            absent = classes - len(torch.unique(labels))
            notes.append(
                f"{found['classes_left_out']} of {classes} classes have too few samples for a correlation"
                + (f" ({absent} have none)" if absent else "")
            )
        return notes
