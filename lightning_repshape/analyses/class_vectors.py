"""Cosines between class vectors, with samples, and against confusions."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import SplitAnalysis
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import percent, weight_of
from lightning_repshape.errors import DataError
from lightning_repshape.features.last_layer import ClassVectors
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.class_vectors import (
    class_vector_cosines,
    confusion_counts,
    confusion_pairs,
    cosine_logits,
    sample_cosines,
    spearman,
)

_LISTED = 10  # pairs of classes in the table


class _Confusions(NamedTuple):
    """Ordered pairs of different classes."""

    counts: Tensor  # K x K
    pairs: Tensor  # P x 2
    cosines: Tensor  # P
    numbers: Tensor  # P
    rho: float


@dataclass(eq=False)
class ClassVectorSimilarity(SplitAnalysis):
    """How near class vectors lie to each other, to the samples, and whether near classes are confused more often.

    The analyses of "Redesigning the classification layer by randomizing the class representation vectors" (Figures 2
    and 4, table 4) on any model whose last layer is linear: the K x K cosines of the class vectors; over the ordered
    pairs of classes i != j, how often i was taken for j against cos(w_i, w_j), with Spearman's rank correlation; the
    mean cosine of a sample's features with the vector of its own class and of the class it was taken for. What needs
    predictions, or the features that enter the layer, is left out where there are none.

    Logged: ``largest_cosine`` and ``mean_cosine`` over pairs of class vectors, ``spearman``, ``cosine_own`` and
    ``cosine_predicted`` of samples, ``error``.

    Args:
        layer: What enters the last linear layer. Default: the features, as for a linear head.
        head: The name of the submodule whose weight holds the class vectors. Default: the last one with K x D entries.
    """

    kind = "class_vectors"
    title = "Class vectors, samples and confusions"

    head: str | None = None

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Cosines, confusions and their correlation; DataError without class vectors or samples."""
        vectors = self._vectors(inputs)
        cosines = class_vector_cosines(vectors.weight)
        classes, names = len(cosines), inputs.class_names()
        names = tuple(names[k] if k < len(names) else str(k) for k in range(classes))
        scalars: dict[str, float] = {}
        others = cosines[~torch.eye(classes, dtype=torch.bool)]
        if classes > 1:
            scalars = {"largest_cosine": float(others.max()), "mean_cosine": float(others.mean())}
        split, part, notes = self.shown(inputs)
        zeros = int((torch.linalg.vector_norm(vectors.weight, dim=1) == 0).sum())
        if zeros:
            notes.append(f"{zeros} class vectors are zero: their cosines are 0")
        predicted = _predictions(part, vectors)
        if not vectors.takes_features:
            notes.append(
                f"cosines of samples are left out: {vectors.name} receives other features than those of layer "
                f"{inputs.layer!r}; name the layer that enters it"
            )
        else:
            scalars["cosine_own"] = float(sample_cosines(part.features, vectors.weight, part.labels.cpu()).mean())
            if predicted is not None:
                scalars["cosine_predicted"] = float(sample_cosines(part.features, vectors.weight, predicted).mean())
        content: dict[str, Any] = {"split": split, "head": vectors.name, "class_names": names}
        tables: dict[str, list[dict[str, Any]]] = {}
        arrays = {"cosines": cosines.numpy()}
        if classes <= 200:
            content["cosines"] = cosines
        heading = f"Cosines of class vectors ({vectors.name})"
        figures = {"": lambda: plots.cosines_figure(cosines.numpy(), names, heading)}
        found = None
        if predicted is None:
            notes.append("there are no predictions: confusions are left out")
        else:
            scalars["error"] = float((predicted != part.labels).double().mean())
            found = _confusions(part, predicted, cosines)
            arrays["confusions"] = found.counts.numpy()
            if math.isnan(found.rho):
                notes.append("no rank correlation: all cosines, or all confusion counts, are equal")
            else:
                scalars["spearman"] = found.rho
            absent = int((found.counts.sum(dim=1) == 0).sum())
            if absent:
                notes.append(f"{absent} classes have no {split} samples; pairs that begin with one are left out")
            tables["most confused pairs"] = _listed(found, names)
            drawn = found

            def draw() -> Any:
                pairs = [(names[i], names[j]) for i, j in drawn.pairs.tolist()]
                title = f"{len(part.labels)} {split} samples, error {100 * scalars['error']:.2f} %"
                return plots.confusion_cosine_figure(
                    drawn.cosines.numpy(), drawn.numbers.numpy(), pairs, drawn.rho, title
                )

            if len(drawn.pairs):
                figures["confusions"] = draw
        summary = {
            "class vectors": f"{classes} x {vectors.weight.shape[1]}",
            "largest cosine": scalars.get("largest_cosine"),
            "mean cosine": scalars.get("mean_cosine"),
            "sample and own class": scalars.get("cosine_own"),
            "sample and predicted class": scalars.get("cosine_predicted"),
            "Spearman, confusions": scalars.get("spearman"),
        }
        tables = {f"cosines of {vectors.name}": [summary], **tables}
        return AnalysisResult(scalars, content, tables, figures, tuple(notes), arrays)

    def _vectors(self, inputs: AnalysisInputs) -> ClassVectors:
        found = inputs.class_vectors()
        if found is None or (self.head is not None and self.head != found.name):
            weight, name = weight_of(inputs, self.head)
            width = self.shown(inputs)[1].features.shape[1]
            found = ClassVectors(weight, None, name, weight.shape[1] == width)
        if not bool(found.weight.isfinite().all()):
            raise DataError(f"the weight of {found.name} holds NaN or infinite values")
        if len(found.weight) < inputs.num_classes():
            raise DataError(
                f"{found.name} has {len(found.weight)} class vectors, but there are {inputs.num_classes()} classes"
            )
        return found._replace(weight=found.weight.double().cpu())


def _predictions(part: Features, vectors: ClassVectors) -> Tensor | None:
    """What the model took each sample for: by its logits, else by the class vectors themselves."""
    if part.logits is not None and part.logits.shape[1] == len(vectors.weight):
        return part.logits.argmax(dim=1)
    if not vectors.takes_features:
        return None
    if vectors.cosine:
        return cosine_logits(part.features, vectors.weight).argmax(dim=1)
    bias = 0 if vectors.bias is None else vectors.bias.double()
    return (part.features.double() @ vectors.weight.T + bias).argmax(dim=1)


def _confusions(part: Features, predicted: Tensor, cosines: Tensor) -> _Confusions:
    counts = confusion_counts(part.labels, predicted, len(cosines))
    pairs, near, numbers = confusion_pairs(cosines, counts)
    return _Confusions(counts, pairs, near, numbers, spearman(near, numbers))


def _listed(found: _Confusions, names: tuple[str, ...]) -> list[dict[str, Any]]:
    order = found.numbers.argsort(descending=True, stable=True)[:_LISTED].tolist()
    totals = found.counts.sum(dim=1)
    rows = []
    for place in order:
        i, j = found.pairs[place].tolist()
        number = int(found.numbers[place])
        if number:
            rows.append(
                {
                    "class": names[i],
                    "taken for": names[j],
                    "samples": number,
                    "share of the class (%)": percent(number / int(totals[i])),
                    "cosine of class vectors": float(found.cosines[place]),
                }
            )
    return rows
