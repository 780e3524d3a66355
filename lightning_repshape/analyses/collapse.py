"""The yardstick that serves every method alike: neural collapse, rank, variance, calibration."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import class_vs_rest
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.last_layer import ClassVectors
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.class_statistics import class_moments
from lightning_repshape.functional.collapse import NeuralCollapse as Measures
from lightning_repshape.functional.collapse import neural_collapse
from lightning_repshape.functional.numerics import unit_rows
from lightning_repshape.functional.projection import effective_rank
from lightning_repshape.functional.reconstruction import weight_separability
from lightning_repshape.metrics.representation import RepresentationStatistics

_LEAST = 20  # samples of a bin of the confidence
_LABELS = {
    "nc1": "NC1, within-class variability (0: collapsed)",
    "nc2_norms": "NC2, spread of class-mean norms (0: equal)",
    "nc2_angles": "NC2, spread of angles between class means (0: equal)",
    "nc2_simplex": "NC2, distance of cosines from a simplex (0: simplex)",
    "nc3": "NC3, distance of class vectors from class means (0: same, up to 4)",
    "nc3_cosine": "NC3, mean cosine of class mean and class vector",
    "nc4": "NC4, agreement with nearest class mean",
    "ncm_error": "error of the nearest class mean",
    "effective_rank": "effective rank",
    "classwise_variance": "normalised class-wise variance",
    "lda_eigenvalue": "LDA eigenvalue, median over classes",
    "accuracy": "accuracy of the model",
    "calibration_error": "expected calibration error",
}


@dataclass(eq=False)
class NeuralCollapse(Analysis):
    """One yardstick for every method: neural collapse (Papyan, Han, Donoho 2020), rank, variance, calibration.

    Measured on training and, where there is one, test features: NC1 to NC4, the nearest class mean's error, effective
    rank, normalised class-wise variance, the median of the class-against-rest LDA eigenvalues (training only),
    accuracy and expected calibration error of the model's own predictions, and e(W) of its class vectors as they are
    and of unit length. What needs class vectors or predictions is left out where there are none.

    Logged: ``train_MEASURE`` and ``test_MEASURE``, and ``separability``, ``separability_unit``.

    Args:
        normalize: Scale every feature vector to unit length before NC1 to NC3 (the LDA eigenvalue takes unit length in
            any case, as the LDA analysis does).
        bins: Bins of the confidence for the calibration error.
    """

    kind = "collapse"
    title = "Neural collapse and the common yardstick"

    normalize: bool = False
    bins: int = 15

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.bins < 1:
            raise ConfigError(f"bins is {self.bins}; at least 1 is needed")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """All measures on every split; DataError below two classes, ValueError if all class means coincide."""
        classes, names = inputs.num_classes(), inputs.class_names()
        parts = {"train": inputs.labelled("train")}
        notes = []
        test = inputs.optional_labelled("test")
        if test is None:
            notes.append("there is no test set with labels: measured on the training set alone")
        else:
            parts["test"] = test
        vectors = inputs.class_vectors()
        head = vectors if vectors is not None and vectors.takes_features else None
        if head is None:
            reason = (
                "there is no last linear layer"
                if vectors is None
                else f"{vectors.name} takes other features than these"
            )
            notes.append(f"NC3 and NC4 are left out: {reason}")
        figures: dict[str, dict[str, float]] = {}
        for split, part in parts.items():
            try:
                figures[split] = self._measure(part, classes, head, inputs)
            except ValueError as error:
                if split == "train":
                    raise
                notes.append(f"test set: {error}")
        figures["train"]["lda_eigenvalue"] = _median_eigenvalue(parts["train"], classes, inputs)
        if figures["train"]["lda_eigenvalue"] == float("inf"):
            notes.append("LDA eigenvalue infinite: at least half of the classes are separated without any spread")
        if any(part.logits is None for part in parts.values()):
            notes.append("the model gave no logits: accuracy and calibration are left out")
        scalars = {f"{split}_{key}": value for split, found in figures.items() for key, value in found.items()}
        separability = None
        if vectors is not None:
            separability = {
                "separability": float(weight_separability(vectors.weight.double())),
                "separability_unit": float(weight_separability(vectors.weight.double(), normalize=True)),
            }
            scalars |= separability
        rows = [
            {"measure": label, **{split: found.get(key) for split, found in figures.items()}}
            for key, label in _LABELS.items()
            if any(key in found for found in figures.values())
        ]
        tables = {"measures": rows}
        if vectors is not None and separability is not None:
            tables[f"class vectors ({vectors.name})"] = [
                {
                    "e(W) as they are": separability["separability"],
                    "e(W) of unit length": separability["separability_unit"],
                }
            ]
        cosines = _mean_cosines(parts["train"], classes)
        reliability = {
            split: reliability_bins(part, self.bins) for split, part in parts.items() if part.logits is not None
        }
        errors = {split: found["calibration_error"] for split, found in figures.items() if "calibration_error" in found}
        content = {
            "normalize": self.normalize,
            "bins": self.bins,
            "measures": figures,
            "class_vectors": None
            if vectors is None
            else {"layer": vectors.name, "takes_features": vectors.takes_features},
            "cosines_of_class_means": cosines,
            "reliability": reliability,
        }

        def draw() -> Any:
            return plots.collapse_figure(cosines.numpy(), names, reliability, errors)

        return AnalysisResult(scalars, content, tables, {"": draw}, tuple(notes))

    def _measure(
        self, part: Features, classes: int, head: ClassVectors | None, inputs: AnalysisInputs
    ) -> dict[str, float]:
        features, labels = part.features.to(inputs.device), part.labels.to(inputs.device)
        weight, bias = (None, None) if head is None else (head.weight, head.bias)
        if head is not None and head.cosine:
            weight = unit_rows(head.weight)  # their lengths play no part in predictions
        found: Measures = neural_collapse(features, labels, classes, weight, bias, normalize=self.normalize)
        figures = {
            "nc1": found.within_class_variability,
            "nc2_norms": found.mean_simplex.norm_spread,
            "nc2_angles": found.mean_simplex.angle_spread,
            "nc2_simplex": found.mean_simplex.angle_deviation,
            "ncm_error": found.nearest_mean_error,
        }
        if found.self_duality is not None and found.mean_weight_cosine is not None:
            figures |= {"nc3": found.self_duality, "nc3_cosine": found.mean_weight_cosine}
        if found.nearest_mean_agreement is not None:
            figures["nc4"] = found.nearest_mean_agreement
        figures["effective_rank"] = effective_rank(features)
        statistics = RepresentationStatistics(classes, features.shape[1], characteristics=True).to(features.device)
        for chunk, own in zip(torch.split(features, 4096), torch.split(labels, 4096), strict=True):
            statistics.update(chunk, own)
        spread = float(statistics.compute()["characteristics/normalized_classwise_variance"])
        if spread == spread:
            figures["classwise_variance"] = spread
        if part.logits is not None:
            figures["accuracy"] = float((part.logits.argmax(dim=1) == part.labels).double().mean())
            figures["calibration_error"] = calibration_error(part.logits, part.labels, self.bins)
        return figures


def calibration_error(logits: Tensor, labels: Tensor, bins: int) -> float:
    """Mean distance of confidence and accuracy over equally wide bins of the confidence (Guo et al. 2017)."""
    confidences = logits.softmax(dim=1)
    return float(multiclass_calibration_error(confidences, labels, num_classes=logits.shape[1], n_bins=bins))


def reliability_bins(part: Features, bins: int) -> dict[str, list[float]]:
    """Means of ``confidence`` and ``accuracy``, the latter's 95 % interval, and ``share`` of the samples, by bins.

    Bins are equally wide in confidence; neighbours of fewer than 20 samples, whose accuracy is chance, are one.
    """
    if part.logits is None:
        return {name: [] for name in ("confidence", "accuracy", "low", "high", "share")}
    confidence, predicted = part.logits.double().softmax(dim=1).max(dim=1)
    right = (predicted == part.labels).double()
    place = (confidence * bins).long().clamp(max=bins - 1)
    place = _merged(torch.bincount(place, minlength=bins).tolist())[place]
    counts = torch.bincount(place).double()
    sums = [torch.zeros_like(counts).index_add_(0, place, values) for values in (confidence, right)]
    means = [total / counts for total in sums]
    low, high = _interval(means[1], counts)
    found = {"confidence": means[0], "accuracy": means[1], "low": low, "high": high, "share": counts / counts.sum()}
    return {name: values.tolist() for name, values in found.items()}


def _merged(counts: list[int]) -> Tensor:
    """The number of the bin that each bin becomes a part of, so that all have enough samples."""
    numbers, number, held = [], 0, 0
    for place, count in enumerate(counts):
        numbers.append(number)
        held += count
        if held >= _LEAST and sum(counts[place + 1 :]) >= _LEAST:
            number, held = number + 1, 0
    return torch.tensor(numbers)


def _interval(share: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Wilson's 95 % interval of shares of counts."""
    z = 1.96
    middle = (share + z * z / (2 * counts)) / (1 + z * z / counts)
    half = z / (1 + z * z / counts) * (share * (1 - share) / counts + (z / (2 * counts)).square()).sqrt()
    return middle - half, middle + half


def _mean_cosines(part: Features, classes: int) -> Tensor:
    """Cosines of the class means about their mean, K x K; NaN for classes without samples."""
    moments = class_moments(part.features, part.labels, classes)
    present = moments.counts > 0
    means = moments.means - moments.means[present].mean(dim=0)
    units = unit_rows(means)
    cosines = units @ units.T
    cosines[~present] = torch.nan
    cosines[:, ~present] = torch.nan
    return cosines.cpu()


def _median_eigenvalue(part: Features, classes: int, inputs: AnalysisInputs) -> float:
    _, lda = class_vs_rest(part, classes, True, inputs.device)
    known = lda.eigenvalues[~lda.eigenvalues.isnan()]
    return float(known.median())
