"""Analyses that draw features in two or three dimensions: principal components and t-SNE."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import SplitAnalysis
from lightning_repshape.analyses.inputs import AnalysisInputs, Split
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import percent, some_rows
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.numerics import unit_rows
from lightning_repshape.functional.projection import pca
from lightning_repshape.seeding import key_to_seed
from lightning_repshape.terminal.progress import task


@dataclass(eq=False)
class PrincipalComponents(SplitAnalysis):
    """Features on their first two and first three principal components, a colour a class, misclassified samples ringed.

    With ``before``, the three components stand beside those of the values before the activation function (AAAI 2019,
    Figures 2, 4 and 5).

    Logged: ``explained_2`` and ``explained_3``, the share of the variance that the picture shows; with ``before``,
    ``before_explained_2`` and ``before_explained_3`` too.

    Args:
        fit_on: Which samples give the components. Default: those that are drawn.
        normalize: Scale every feature vector to unit length first.
        max_points: How many samples are drawn at most.
        before: The layer before the activation function, drawn beside: ``features.pre`` for the default layer,
            ``NAME.pre`` for another that ends in an activation function, else any layer's name. Default: none.
    """

    kind = "pca"
    title = "Principal components"

    fit_on: Split | None = None
    normalize: bool = False
    max_points: int = 3000
    before: str | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.max_points < 1:
            raise ConfigError(f"max_points is {self.max_points}; at least 1 is needed")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Components and coordinates; ValueError if the features never change."""
        split, part, notes = self.shown(inputs, labels=False)
        basis = part if self.fit_on is None else inputs.features(self.fit_on)
        count = min(3, basis.features.shape[1], len(basis.labels) - 1)
        found = pca(basis.features, max(count, 1), normalize=self.normalize)
        shares = found.explained_variance_ratio.cpu()
        scalars = {f"explained_{k}": float(shares[:k].sum()) for k in (2, 3) if k <= len(shares)}
        chosen = some_rows(len(part.labels), self.max_points, "pca", inputs.seed)
        points = found.apply(part.features[chosen]).cpu().numpy()
        labels, names = part.labels[chosen].numpy(), inputs.class_names()
        wrong = _wrong(part, chosen)
        heading = f"{inputs.layer} of {len(chosen)} {split} samples{inputs.moment}"
        arrays = {"points": points.astype("float32"), "explained": shares.numpy(), "point_labels": labels}
        arrays |= {"rows": chosen.numpy(), **_predicted(part, chosen)}
        panels = {heading: (points, shares.numpy())}
        title = ""
        if self.before is not None:
            other = inputs.at(self.before)
            earlier = other.features(split)
            fitted = earlier.features if self.fit_on is None else other.features(self.fit_on).features
            first = pca(fitted, max(min(3, fitted.shape[1], len(fitted) - 1), 1), normalize=self.normalize)
            before = first.apply(earlier.features[chosen]).cpu().numpy()
            parts = first.explained_variance_ratio.cpu()
            scalars |= {f"before_explained_{k}": float(parts[:k].sum()) for k in (2, 3) if k <= len(parts)}
            arrays |= {"before_points": before.astype("float32"), "before_explained": parts.numpy()}
            title, panels = heading, {f"after it: {inputs.layer}": (points, shares.numpy())}
            if len(parts) >= 3:
                panels = {f"before the activation function: {self.before}": (before, parts.numpy()), **panels}
            else:
                notes.append(f"{self.before} has fewer than three directions and is not drawn")
        figures = {}
        if count >= 2:
            figures[""] = lambda: plots.plane_figure(points, labels, names, shares.numpy(), wrong, heading)
        else:
            notes.append("there is one direction only: nothing to draw in two dimensions")
        if count >= 3:
            figures["3d"] = lambda: plots.space_figure(panels, labels, names, title)
        rows = [
            {"component": k + 1, "variance": float(found.explained_variance[k]), "share (%)": percent(float(share))}
            for k, share in enumerate(shares)
        ]
        content = {
            "split": split,
            "fit_on": self.fit_on or split,
            "normalize": self.normalize,
            "explained": shares,
            "before": self.before,
            "class_names": names,
        }
        return AnalysisResult(scalars, content, {"variance along the components": rows}, figures, tuple(notes), arrays)


@dataclass(eq=False)
class TSNE(SplitAnalysis):
    """Features in two dimensions by t-SNE (van der Maaten and Hinton 2008), a colour a class.

    scikit-learn's Barnes-Hut version, started from the principal components, on one thread, so that the same features
    give the same picture. Only neighbourhoods mean something in it: neither distances between groups nor their sizes.

    Logged: ``kl_divergence``, what t-SNE minimises.

    Args:
        max_samples: How many at most: a random choice, the same for the same seed. 2000 take some ten seconds.
        perplexity: About how many neighbours count for each sample; less where there are few samples.
        normalize: Scale every feature vector to unit length first: right for class vectors under the cosine.
    """

    kind = "tsne"
    title = "t-SNE"
    on_request = True

    max_samples: int = 2000
    perplexity: float = 30.0
    normalize: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.max_samples < 4:
            raise ConfigError(f"max_samples is {self.max_samples}; t-SNE needs at least 4")
        if not (self.perplexity > 0 and math.isfinite(self.perplexity)):
            raise ConfigError(f"perplexity is {self.perplexity}; it must be above 0, such as 30")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Coordinates; DataError with too few samples or features, or if they never change."""
        split, part, notes = self.shown(inputs, labels=False)
        chosen = some_rows(len(part.labels), self.max_samples, "tsne", inputs.seed)
        rows = part.features[chosen].float()
        if self.normalize:
            rows = unit_rows(rows)
        if len(rows) < 4 or rows.shape[1] < 2:
            raise DataError(f"t-SNE needs 4 samples of 2 features, but there are {len(rows)} of {rows.shape[1]}")
        if bool((rows == rows[0]).all()):
            raise DataError(f"all {len(rows)} {split} samples have the same features")
        # with more neighbours than that scikit-learn refuses, or every sample is everyone's neighbour
        perplexity = min(self.perplexity, (len(rows) - 1) / 3)
        if perplexity < self.perplexity:
            notes.append(f"perplexity {perplexity:.3g} in place of {self.perplexity:g}: there are {len(rows)} samples")
        points, divergence = _tsne(rows, perplexity, key_to_seed("tsne", inputs.seed) % 2**32)
        labels, names = part.labels[chosen].numpy(), inputs.class_names()
        wrong = _wrong(part, chosen)
        heading = f"t-SNE of {inputs.layer} of {len(rows)} {split} samples{inputs.moment}"
        content = {
            "split": split,
            "samples": len(rows),
            "perplexity": perplexity,
            "normalize": self.normalize,
            "class_names": names,
        }

        def draw() -> Any:
            return plots.map_figure(points, labels, names, wrong, heading)

        return AnalysisResult(
            {"kl_divergence": divergence},
            content,
            {},
            {"": draw},
            tuple(notes),
            {"points": points, "point_labels": labels, "rows": chosen.numpy(), **_predicted(part, chosen)},
        )


def _wrong(part: Features, rows: Tensor) -> Any:
    """Which samples the model takes for another class; None where that is not known."""
    labels = part.labels[rows]
    if part.logits is None or int(labels.max()) < 0:
        return None
    return ((part.logits[rows].argmax(dim=1) != labels) & (labels >= 0)).numpy()


def _predicted(part: Features, rows: Tensor) -> dict[str, Any]:
    """What the model takes samples for, where it is known."""
    return {} if part.logits is None else {"predicted": part.logits[rows].argmax(dim=1).numpy()}


def _tsne(rows: Tensor, perplexity: float, seed: int) -> tuple[Any, float]:
    from sklearn.manifold import TSNE as Embedding
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    # Several threads add the gradient up in an order that changes from call to call.
    with threadpool_limits(limits=1), task(f"t-SNE of {len(rows):,} samples"):
        embedding = Embedding(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
        points = embedding.fit_transform(rows.numpy())
    return points, float(embedding.kl_divergence_)
