"""Linear discriminant analysis of every class against the rest."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import class_vs_rest, percent, some_rows
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.discriminant import ClassVsRestLDA, threshold_errors
from lightning_repshape.functional.numerics import unit_rows
from lightning_repshape.functional.projection import Projection, discriminant_plane, pca
from lightning_repshape.functional.scatter import ScatterState


@dataclass(eq=False)
class LDAEigenvalues(Analysis):
    """How far every class is apart from all others (FOCA, section 4.3, Table 1 and Figure 4).

    For each class against the rest: the largest eigenvalue of S_B v = lambda S_W v on training features, and the
    smallest error of a threshold on that axis over the test set. Infinite eigenvalues (no spread along the axis) are
    said to be so. The figure shows training and test samples in the plane of the chosen class's axis and, since two
    groups have one axis only, the first principal component orthogonal to it.

    Logged: ``eigenvalue`` and ``threshold_error`` of the chosen class, ``eigenvalue_median`` and ``eigenvalue_min``
    over all classes, ``separated_classes`` (how many are infinite) and ``rank``.

    Args:
        label: The class of the figure and of ``eigenvalue``. Default: 1, the paper's "class 1".
        normalize: Scale every feature vector to unit length first, as the paper does.
        max_points: How many samples of each split are drawn at most.
    """

    kind = "lda"
    title = "Linear discriminant analysis, each class against the rest"

    label: int = 1
    normalize: bool = True
    max_points: int = 5000

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.label < 0 or self.max_points < 1:
            raise ConfigError(f"label ({self.label}) must be at least 0 and max_points ({self.max_points}) at least 1")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Eigenvalues on training, threshold errors on test features; DataError if there is no such class."""
        train, test = inputs.labelled("train"), inputs.optional_labelled("test")
        names, classes = inputs.class_names(), inputs.num_classes()
        if self.label >= classes:
            raise DataError(f"label={self.label}, but the classes are 0 .. {classes - 1}")
        state, lda = class_vs_rest(train, classes, self.normalize, inputs.device)
        errors = thresholds = torch.full((classes,), math.nan, dtype=torch.float64)
        if test is not None:
            found = threshold_errors(lda.scores(test.features).cpu(), test.labels)
            errors, thresholds = found.errors, found.thresholds
        values = lda.eigenvalues.cpu()
        known = values[~values.isnan()]
        scalars = {
            "eigenvalue": float(values[self.label]),
            "eigenvalue_median": float(known.median()),
            "eigenvalue_min": float(known.min()),
            "separated_classes": float(lda.separated.sum()),
            "rank": float(lda.rank),
        }
        if not bool(errors[self.label].isnan()):
            scalars["threshold_error"] = float(errors[self.label])
        notes = self._notes(inputs, lda, train, test)
        rows = [
            {
                "class": names[k],
                "training samples": int(lda.counts[k]),
                "eigenvalue": float(values[k]),
                "separated without spread": "yes" if bool(lda.separated[k]) else "no",
                "threshold test error (%)": percent(float(errors[k])),
            }
            for k in range(classes)
        ]
        content = {
            "label": self.label,
            "class": names[self.label],
            "normalize": self.normalize,
            "eigenvalues": values,
            "separated": lda.separated,
            "threshold_errors": errors,
            "thresholds": thresholds,
            "rank": lda.rank,
            "constant_features": lda.constant_features,
            "num_features": train.features.shape[1],
            "counts": lda.counts,
        }

        def classes_figure() -> Any:
            return plots.eigenvalues_figure(values.numpy(), errors.numpy(), names, self.label)

        figures: dict[str, Any] = {"classes": classes_figure}
        if bool(values[self.label].isnan()):
            notes.append(f"class {names[self.label]} has no training samples: it has no axis to draw")
        elif train.features.shape[1] < 2:
            notes.append("there is one feature only: no second axis, and no scatter plot")
        else:
            plane = _plane(state, lda, train, self.label)
            panels = {
                f"{split} samples": self._points(plane, part, split, inputs.seed)
                for split, part in (("training", train), ("test", test))
                if part is not None
            }

            def plane_figure() -> Any:
                return plots.discriminant_figure(
                    panels, names[self.label], scalars["eigenvalue"], plane[1], float(thresholds[self.label])
                )

            figures[""] = plane_figure
        return AnalysisResult(scalars, content, {"each class against the rest": rows}, figures, tuple(notes))

    def _notes(self, inputs: AnalysisInputs, lda: ClassVsRestLDA, train: Features, test: Features | None) -> list[str]:
        names, width = inputs.class_names(), train.features.shape[1]
        notes = []
        separated = [names[k] for k in lda.separated.nonzero().flatten().tolist()]
        if separated:
            which = "every class" if len(separated) == len(names) else f"class {', '.join(separated[:8])}"
            notes.append(f"eigenvalue infinite for {which}: no spread along the axis at all, separated exactly")
        if len(train.labels) <= width:
            notes.append(
                f"{len(train.labels)} training samples of {width} features: with no more samples than features "
                "some axis always separates them exactly, which says nothing of the classes"
            )
        elif lda.rank < width:
            notes.append(
                f"the scatter is singular: rank {lda.rank} of {width} features ({lda.constant_features} never change); "
                "solved on its range"
            )
        absent = [names[k] for k in (lda.counts == 0).nonzero().flatten().tolist()]
        if absent:
            notes.append(f"no training samples of class {', '.join(absent[:8])}{', ...' if len(absent) > 8 else ''}")
        if test is None:
            notes.append("there is no test set with labels, hence no threshold error")
        else:
            missing = sorted(set(range(len(names))) - set(torch.unique(test.labels).tolist()))
            if missing:
                shown = ", ".join(names[k] for k in missing[:8])
                notes.append(
                    f"no test samples of class {shown}{', ...' if len(missing) > 8 else ''}: no threshold error there"
                )
        return notes

    def _points(self, plane: tuple[Projection, str], part: Features, split: str, seed: int) -> tuple[Any, Any]:
        chosen = some_rows(len(part.labels), self.max_points, f"lda-{split}", seed)
        points = plane[0].apply(part.features[chosen]).cpu().numpy()
        return points, (part.labels[chosen] == self.label).numpy()


def _plane(state: ScatterState | None, lda: ClassVsRestLDA, train: Features, label: int) -> tuple[Projection, str]:
    """The plane of a class's axis, and what its second axis is."""
    if state is not None:
        try:
            return discriminant_plane(state, lda, label), "first principal component orthogonal to it"
        except ValueError as error:
            raise DataError(f"the plane of class {label} cannot be drawn: {error}") from error
    axis = lda.axes[label].cpu()
    rest = train.features.double()
    if lda.normalized:
        rest = unit_rows(rest)
    rest = rest - lda.mean.cpu()
    rest = rest - (rest @ axis).unsqueeze(1) * axis
    second = pca(rest, 1)
    components = torch.stack([axis, second.components[0].cpu()])
    unknown = torch.full((2,), math.nan, dtype=torch.float64)
    plane = Projection(components, lda.mean.cpu(), unknown, unknown, lda.normalized)
    return plane, "first principal component orthogonal to it"
