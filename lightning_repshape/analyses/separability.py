"""Class vectors and the features that they classify: e(W), patterns unit by unit, both in three dimensions."""

from dataclasses import dataclass
from typing import Any

import torch

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis, SplitAnalysis
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import class_vectors, some_rows, weight_of
from lightning_repshape.errors import ConfigError, DataError, did_you_mean
from lightning_repshape.functional.class_statistics import class_moments
from lightning_repshape.functional.numerics import unit_rows
from lightning_repshape.functional.projection import pca
from lightning_repshape.functional.reconstruction import weight_separability
from lightning_repshape.metrics.separability import too_few_features
from lightning_repshape.plots import SpacePanel


@dataclass(eq=False)
class WeightSeparability(Analysis):
    """How far the last layer's class vectors are from orthonormal: e(W) (feed-backward reconstruction, Eq. 6).

    Logged: ``raw`` (the paper's), ``unit`` (of class vectors of unit length), ``largest_cosine`` (over pairs of
        classes).

    Args:
        head: The name of the submodule whose weight holds the class vectors. Default: the last one with K x D entries.
    """

    kind = "weight_separability"
    title = "Separability of the class vectors"

    head: str | None = None

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """The two figures and the cosines; DataError without a layer with a matrix of class vectors."""
        weight, layer = weight_of(inputs, self.head)
        if not bool(weight.isfinite().all()):
            raise DataError(f"the weight of {layer} holds NaN or infinite values")
        classes, width = weight.shape
        raw, unit = (float(weight_separability(weight, normalize=normalize)) for normalize in (False, True))
        units = unit_rows(weight)
        cosines = units @ units.T
        scalars = {"raw": raw, "unit": unit}
        if classes > 1:
            scalars["largest_cosine"] = float(cosines[~torch.eye(classes, dtype=torch.bool)].max())
        notes = []
        if classes >= width:
            notes.append(
                f"e(W) is defined for more features than classes; {classes} class vectors of {width} features: of unit "
                f"length they have an e(W) of at least {classes / width - 1:.3g}"
            )
        lengths = torch.linalg.vector_norm(weight, dim=1)
        if not bool((lengths > 0).all()):
            notes.append(f"{int((lengths == 0).sum())} class vectors are zero")
        names = tuple(inputs.class_names()[k] if k < len(inputs.class_names()) else str(k) for k in range(classes))
        rows = [
            {
                "class vectors": f"{classes} x {width}",
                "e(W) as they are": raw,
                "e(W) of unit length": unit,
                "largest cosine": scalars.get("largest_cosine"),
                "shortest": float(lengths.min()),
                "longest": float(lengths.max()),
            }
        ]
        content = {"head": layer, "num_vectors": classes, "num_features": width, "lengths": lengths}
        if classes <= 200:
            content["cosines"] = cosines

        def draw() -> Any:
            return plots.cosines_figure(cosines.numpy(), names, f"class vectors ({layer}), e(W) = {raw:.3g}")

        tables, arrays = {f"class vectors of {layer}": rows}, {"cosines": cosines.numpy()}
        return AnalysisResult(scalars, content, tables, {"": draw}, tuple(notes), arrays)


@dataclass(eq=False)
class ActivationPatterns(SplitAnalysis):
    """Mean activation of each class against its class vector (feed-backward paper, Fig. 6).

    Logged, as means over the classes with samples: ``euclidean``, the distance of mean activation and class vector;
    ``euclidean_unit``, the same with both of unit length; ``cosine``, their cosine, 1 for the same direction. The
    figure has both of unit length. So must the paper's: its pairs of numbers, such as 0.616 and 0.190, fulfil
    d^2 = 2 (1 - cos) if the second, which it calls cosine similarity, is 1 - cos.

    Args:
        layer: What enters the last linear layer. Default: the features, as for a linear head; ``head.fc2`` and the like
            for others.
        classes: Names or numbers of the classes that are drawn. Default: the first three with samples.
    """

    kind = "activation_patterns"
    title = "Mean activations against class vectors"
    on_request = True

    classes: list[str | int] | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.classes is not None and not self.classes:
            raise ConfigError("classes is empty: name at least one class to draw, or leave the option out")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Distances and cosines; DataError without fitting class vectors, or for an unknown class."""
        split, part, notes = self.shown(inputs)
        vectors = class_vectors(inputs, part.features)
        names = inputs.class_names()
        moments = class_moments(part.features, part.labels, inputs.num_classes())
        present = (moments.counts > 0).nonzero().flatten().tolist()
        means = moments.means.double().cpu()
        apart = torch.linalg.vector_norm(means - vectors, dim=1)
        units = unit_rows(means), unit_rows(vectors)
        cosines = (units[0] * units[1]).sum(dim=1)
        unit_apart = torch.linalg.vector_norm(units[0] - units[1], dim=1)
        if len(present) < len(names):
            notes.append(f"{len(names) - len(present)} classes have no samples and are left out")
        drawn = present[:3] if self.classes is None else [self._label(wanted, names) for wanted in self.classes]
        absent = [names[label] for label in drawn if label not in present]
        if absent:
            raise DataError(f"there are no {split} samples of the class {', '.join(absent)}, which was to be drawn")
        figures = {"euclidean": apart, "euclidean_unit": unit_apart, "cosine": cosines}
        rows = [
            {
                "class": names[label],
                "Euclidean": float(apart[label]),
                "Euclidean, unit length": float(unit_apart[label]),
                "cosine": float(cosines[label]),
            }
            for label in present
        ]
        means_drawn, vectors_drawn = (side[drawn].numpy() for side in units)

        def draw() -> Any:
            return plots.patterns_figure(
                means_drawn,
                vectors_drawn,
                [names[label] for label in drawn],
                unit_apart[drawn].tolist(),
                cosines[drawn].tolist(),
                f"{inputs.layer}, mean over the {split} samples of a class, and the class vector, both of unit length",
            )

        return AnalysisResult(
            {key: float(values[present].mean()) for key, values in figures.items()},
            {"split": split, "drawn": [names[label] for label in drawn]},
            {"mean activation against class vector": rows},
            {"": draw},
            tuple(notes),
            {"means": means.numpy(), "vectors": vectors.numpy()},
        )

    @staticmethod
    def _label(wanted: str | int, names: tuple[str, ...]) -> int:
        if isinstance(wanted, int) and 0 <= wanted < len(names):
            return wanted
        if str(wanted) in names:
            return names.index(str(wanted))
        raise DataError(f"there is no class {wanted!r}{did_you_mean(str(wanted), names)}")


@dataclass(eq=False)
class WeightSpace(SplitAnalysis):
    """Features and class vectors on the features' first three principal components (feed-backward paper, Fig. 4, 2).

    Logged: ``accuracy``, ``separability`` (e(W)), ``separability_unit`` (of class vectors of unit length),
    ``explained`` (share of the features' variance in the three components), ``vectors_explained`` (share of the class
    vectors' squared lengths in them). Points and vectors are in ``NAME.npz``.

    Args:
        layer: What enters the last linear layer. Default: the features, as for a linear head; ``head.fc2`` and the like
            for others.
        max_points: How many are drawn at most.
    """

    kind = "weight_space"
    title = "Features and class vectors in three dimensions"
    on_request = True

    max_points: int = 3000

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.max_points < 1:
            raise ConfigError(f"max_points is {self.max_points}; at least 1 is needed")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Components, coordinates and printed figures, of 3 features or more; ValueError if they never change."""
        split, part, notes = self.shown(inputs)
        vectors = class_vectors(inputs, part.features)
        if part.features.shape[1] < 3 or len(part.labels) < 4:
            raise DataError(
                "three components need at least 3 features and 4 samples, but there are "
                f"{part.features.shape[1]} features of {len(part.labels)} samples"
            )
        found = pca(part.features, 3)
        components, shares = found.components.double().cpu(), found.explained_variance_ratio.cpu()
        chosen = some_rows(len(part.labels), self.max_points, "weight space", inputs.seed)
        points = found.apply(part.features[chosen]).cpu().numpy()
        seen = vectors @ components.T
        raw, unit = (float(weight_separability(vectors, normalize=normalize)) for normalize in (False, True))
        if warning := too_few_features(vectors):
            notes.append(warning)
        scalars = {
            "separability": raw,
            "separability_unit": unit,
            "explained": float(shares.sum()),
            "vectors_explained": float(seen.square().sum() / vectors.square().sum().clamp(min=1e-300)),
        }
        text = f"e(W) {raw:#.3g}, of unit length {unit:#.3g}"
        if part.logits is not None:
            scalars["accuracy"] = float((part.logits.argmax(dim=1) == part.labels).double().mean())
            text = f"accuracy {100 * scalars['accuracy']:.2f} %, {text}"
        labels, names = part.labels[chosen].numpy(), inputs.class_names()
        panel = SpacePanel(points, labels, seen.numpy(), shares.numpy(), text)
        heading = f"{inputs.layer} of {len(chosen)} {split} samples"

        def draw() -> Any:
            return plots.weight_space_figure({heading: panel}, names)

        arrays = {"points": points, "labels": labels, "vectors": seen.numpy(), "shares": shares.numpy()}
        rows = [{"accuracy": scalars.get("accuracy"), "e(W) as it is": raw, "e(W) of unit length": unit}]
        content = {"split": split, "printed": text, "class_names": names}
        return AnalysisResult(scalars, content, {"accuracy and e(W)": rows}, {"": draw}, tuple(notes), arrays)
