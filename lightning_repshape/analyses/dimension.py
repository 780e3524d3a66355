"""How many directions a representation uses: intrinsic dimension, ranks and the decay of its spectrum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import SplitAnalysis
from lightning_repshape.analyses.checked import with_labels
from lightning_repshape.analyses.inputs import AnalysisInputs, Split
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import some_rows
from lightning_repshape.errors import ConfigError
from lightning_repshape.functional.dimension import (
    class_distance_variance,
    lidar,
    mle_dimension,
    participation_ratio,
    spectral_decay,
    twonn_dimension,
)
from lightning_repshape.functional.numerics import rounding
from lightning_repshape.functional.projection import effective_rank, scatter_spectrum

_LABELS = {
    "twonn": "intrinsic dimension, two nearest neighbours (Facco et al. 2017)",
    "mle": "intrinsic dimension, maximum likelihood (Levina and Bickel 2004)",
    "participation_ratio": "participation ratio of the spectrum (Gao et al. 2017)",
    "rankme": "RankMe, effective rank without centring (Garrido et al. 2023)",
    "lidar": "LiDAR, directions that tell samples from their views (Thilak et al. 2024)",
    "decay": "exponent of the spectrum's decay (Stringer et al. 2019)",
    "class_distance_variance": "class-distance normalised variance (Galanti et al. 2022)",
}


@dataclass(eq=False)
class RepresentationDimension(SplitAnalysis):
    """How many directions the features use, seen from near and from afar, and the spectrum of their scatter.

    Logged: ``twonn`` and ``mle``, intrinsic dimensions by neighbours; ``participation_ratio`` and ``rankme``, ranks;
    ``lidar``, the rank of what tells augmented views of one sample from those of another, where the data module
    augments; ``decay``, the exponent of the eigenvalues' decay; ``class_distance_variance``. What the features do not
    allow is left out, with a note.

    Args:
        max_samples: How many samples at most are held against their neighbours: a random choice, the same for the same
            seed. 5000 take some seconds.
        neighbours: Of the maximum-likelihood dimension.
        views: How many augmented views of each sample LiDAR takes; 0: no LiDAR.
        view_samples: Of how many training samples at most: a random choice.
    """

    kind = "dimension"
    title = "Dimension and spectrum"

    split: Split = "train"
    max_samples: int = 5000
    neighbours: int = 20
    views: int = 5
    view_samples: int = 1000

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.max_samples < 3 or self.neighbours < 3:
            raise ConfigError("max_samples and neighbours must be at least 3")
        if self.views < 0 or self.views == 1 or self.view_samples < 2:
            raise ConfigError(
                f"views ({self.views}) must be 0 or at least 2, and view_samples ({self.view_samples}) at least 2"
            )

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """All of them; ValueError if the features never change."""
        split, part, notes = self.shown(inputs, labels=False)
        features = part.features.to(inputs.device)
        chosen = features[some_rows(len(features), self.max_samples, "dimension", inputs.seed)]
        values = scatter_spectrum(features).flip(0).clamp_min(0) / max(len(features) - 1, 1)
        scalars: dict[str, float] = {}
        law, known = None, with_labels(part)
        ways: dict[str, Callable[[], Any]] = {
            "twonn": lambda: twonn_dimension(chosen),
            "mle": lambda: mle_dimension(chosen, min(self.neighbours, len(chosen) - 1)),
            "participation_ratio": lambda: participation_ratio(values),
            "rankme": lambda: effective_rank(features, center=False),
            "class_distance_variance": lambda: class_distance_variance(
                known.features.to(inputs.device), known.labels.to(inputs.device), inputs.num_classes()
            ),
        }
        if not len(known.labels):
            del ways["class_distance_variance"]
        augmented = inputs.views(self.view_samples, self.views) if self.views else None
        if augmented is not None:
            ways["lidar"] = lambda: lidar(augmented.to(inputs.device))
        elif self.views:
            notes.append("LiDAR is left out: there are no augmented views")
        for name, way in ways.items():
            try:
                scalars[name] = float(way())
            except ValueError as error:
                notes.append(f"{_LABELS[name]}: {error}")
        try:
            law = spectral_decay(values)
            scalars["decay"] = law.exponent
        except ValueError as error:
            notes.append(f"{_LABELS['decay']}: {error}")
        if len(chosen) < len(features):
            notes.append(f"neighbours are those among {len(chosen):,} of {len(features):,} samples")
        spectrum = values[values > rounding(len(values)) * values[0]].cpu().numpy()
        line = None if law is None else (law.first, law.last, law.exponent)
        heading = f"{inputs.layer} of {len(features):,} {split} samples{inputs.moment}"

        def draw() -> Any:
            return plots.spectrum_figure(spectrum, line, heading)

        rows = [{"measure": label, split: scalars.get(name)} for name, label in _LABELS.items() if name in scalars]
        content = {"split": split, "samples": len(chosen), "neighbours": self.neighbours, "decay_from_to": line}
        return AnalysisResult(
            scalars, content, {"dimension": rows}, {"": draw}, tuple(notes), {"eigenvalues": values.cpu().numpy()}
        )
