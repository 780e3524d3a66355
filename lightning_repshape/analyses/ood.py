"""Can samples of another set be told from the model's own? Scores of logits and features, and NC5."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import SplitAnalysis
from lightning_repshape.analyses.checked import with_labels
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import some_rows
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.ood import (
    class_orthogonality,
    detection,
    energy_score,
    logit_score,
    mahalanobis_score,
    neco_score,
    neighbour_score,
    softmax_score,
    vim_score,
)
from lightning_repshape.functional.verification import roc_curve

_LABELS = {
    "softmax": "largest softmax probability (Hendrycks and Gimpel 2017)",
    "logit": "largest logit (Hendrycks et al. 2022)",
    "energy": "energy (Liu et al. 2020)",
    "mahalanobis": "Mahalanobis, one scatter (Lee et al. 2018)",
    "mahalanobis_classwise": "Mahalanobis, a scatter a class",
    "neighbours": "nearest neighbours (Sun et al. 2022)",
    "vim": "ViM (Wang et al. 2022)",
    "neco": "NECO (Ben Ammar et al. 2024)",
}


@dataclass(eq=False)
class OutOfDistribution(SplitAnalysis):
    """How well scores tell samples of a second set, on which the model was not trained, from those of its own.

    Scores of the logits: largest softmax probability, largest logit, energy. Of the features, held against training
    features: Mahalanobis with one scatter and with one a class, nearest neighbours, ViM, NECO. What the model or the
    sets do not allow is left out, with a note. The second set needs no labels.

    Logged: ``auroc_SCORE`` and ``fpr95_SCORE``, the share of the second set that passes where 95 % of the own samples
    do; ``nc5``, how far the second set's mean is from orthogonal to the class means (Ben Ammar et al. 2024).

    Args:
        neighbours: k of the nearest neighbours; all of them where there are fewer.
        max_samples: How many training samples at most are looked through for neighbours: a random choice.
        neco_dimension: Principal components of NECO. Default: one less than there are classes.
    """

    kind = "ood"
    title = "Out of distribution"
    on_request = True
    reads_other: ClassVar[bool] = True

    neighbours: int = 50
    max_samples: int = 10_000
    neco_dimension: int | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        for name in ("neighbours", "max_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if self.neco_dimension is not None and self.neco_dimension < 1:
            raise ConfigError(f"neco_dimension is {self.neco_dimension}; at least 1 is needed")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """All scores; DataError without a second set, or if no score is possible."""
        if inputs.other is None:
            raise DataError(
                "give a second set, which the model was not trained on: --other CLASS or, with --features, --other FILE"
            )
        split, known, notes = self.shown(inputs, labels=False)
        theirs = "test"
        others = inputs.other.optional("test")
        if others is None:
            theirs, others = "train", inputs.other.features("train")
            notes.append("the second set has no test samples: its training samples are taken")
        train, count = inputs.features("train"), len(known.features)
        if others.features.shape[1] != known.features.shape[1]:
            raise DataError(
                f"the second set has {others.features.shape[1]} features a sample and the model's own "
                f"{known.features.shape[1]}; they must be of one layer of one model"
            )
        scores: dict[str, tuple[Tensor, Tensor]] = {}
        for name, way in self._ways(inputs, train, known, others, notes).items():
            try:
                found = way().cpu()
            except ValueError as error:
                notes.append(f"{_LABELS[name]} is left out: {error}")
            else:
                scores[name] = found[:count], found[count:]
        if not scores:
            raise DataError(f"no score is possible; {'; '.join(notes)}")
        measured = {name: detection(*pair) for name, pair in scores.items()}
        scalars = {f"auroc_{name}": found.auroc for name, found in measured.items()}
        scalars |= {f"fpr95_{name}": found.fpr95 for name, found in measured.items()}
        try:
            own = with_labels(train)
            if not len(own.labels):
                raise ValueError("the training set has no labels")
            scalars["nc5"] = class_orthogonality(
                own.features.to(inputs.device), own.labels, inputs.num_classes(), others.features.to(inputs.device)
            )
        except ValueError as error:
            notes.append(f"NC5 is left out: {error}")
        rows = [
            {"score": _LABELS[name], "AUROC (%)": 100 * found.auroc, "FPR at 95 % TPR (%)": 100 * found.fpr95}
            for name, found in measured.items()
        ]
        tables: dict[str, list[dict[str, Any]]] = {"scores": rows}
        if "nc5" in scalars:
            tables["orthogonality"] = [
                {"measure": "NC5, mean size of the cosine of class means and the second set's mean (0: orthogonal)",
                 "value": scalars["nc5"]}
            ]  # fmt: skip
        heading = f"{inputs.layer}: {count:,} own {split} samples, {len(others.features):,} of a second set"
        heading += inputs.moment
        content = {"split": split, "other_split": theirs, "samples": count, "other_samples": len(others.features)}

        def draw() -> Any:
            shown, curves = {}, {}
            for name, pair in scores.items():
                label = _LABELS[name].partition(" (")[0]
                shown[f"{label}: AUROC {100 * measured[name].auroc:.1f} %"] = (pair[0].numpy(), pair[1].numpy())
                curve = roc_curve(torch.cat(pair), torch.arange(sum(map(len, pair))) < count)
                curves[label] = (curve.far.numpy(), curve.tar.numpy())
            return plots.detection_figure(shown, curves, heading)

        arrays = {
            f"{side}_{name}": part.float().numpy()
            for name, pair in scores.items()
            for side, part in zip(("own", "other"), pair, strict=True)
        }
        return AnalysisResult(scalars, content, tables, {"": draw}, tuple(notes), arrays)

    def _ways(
        self, inputs: AnalysisInputs, train: Features, known: Features, others: Features, notes: list[str]
    ) -> dict[str, Callable[[], Tensor]]:
        """How each score is computed, of the own and then of the other samples; what cannot be is noted."""
        device, classes = inputs.device, inputs.num_classes()
        rows = torch.cat([known.features, others.features]).to(device)
        features, labelled = train.features.to(device), with_labels(train)
        ways: dict[str, Callable[[], Tensor]] = {}
        if known.logits is not None and others.logits is not None:
            logits = torch.cat([known.logits, others.logits])
            ways |= {
                "softmax": lambda: softmax_score(logits),
                "logit": lambda: logit_score(logits),
                "energy": lambda: energy_score(logits),
            }
        else:
            notes.append("there are no logits: softmax, largest logit and energy are left out")
        if len(labelled.labels):
            own, labels = labelled.features.to(device), labelled.labels.to(device)
            ways["mahalanobis"] = lambda: mahalanobis_score(rows, own, labels, classes)
            ways["mahalanobis_classwise"] = lambda: mahalanobis_score(rows, own, labels, classes, shared=False)
        else:
            notes.append("Mahalanobis is left out: the training set has no labels")
        chosen = features[some_rows(len(features), self.max_samples, "ood", inputs.seed)]
        if len(chosen) < len(features):
            notes.append(f"neighbours are those among {len(chosen):,} of {len(features):,} training samples")
        ways["neighbours"] = lambda: neighbour_score(rows, chosen, min(self.neighbours, len(chosen)))
        vectors = inputs.class_vectors()
        if vectors is not None and vectors.takes_features and not vectors.cosine:
            weight, bias = vectors.weight, vectors.bias
            ways["vim"] = lambda: vim_score(rows, features, weight, bias)
        else:
            reason = "there is no last linear layer" if vectors is None else f"{vectors.name} is no linear map of these"
            notes.append(f"ViM is left out: {reason}")
        dimension = max(classes - 1, 1) if self.neco_dimension is None else self.neco_dimension
        ways["neco"] = lambda: neco_score(rows, features, dimension)
        return ways
