"""Analyses of where classes lie: linear discriminant analysis of every class against the rest, principal components."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis, AnalysisInputs, AnalysisResult, Split, When, percent
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.discriminant import (
    ClassVsRestLDA,
    class_vs_rest_lda,
    lda_from_scatter,
    threshold_errors,
)
from lightning_repshape.functional.projection import Projection, discriminant_plane, pca
from lightning_repshape.functional.scatter import ScatterState
from lightning_repshape.seeding import generator


class LDAEigenvalues(Analysis):
    """How far every class is apart from all others (FOCA, section 4.3, Table 1 and Figure 4).

    For each class against the rest: the largest eigenvalue of S_B v = lambda S_W v on training features, and the
    smallest error of a threshold on that axis over the test set. Infinite eigenvalues (no spread along the axis) are
    said to be so. The figure shows training and test samples in the plane of the chosen class's axis and, since two
    groups have one axis only, the first principal component orthogonal to it.

    Logged: ``eigenvalue`` and ``threshold_error`` of the chosen class, ``eigenvalue_median`` and ``eigenvalue_min``
    over all classes, ``separated_classes`` (how many are infinite) and ``rank``.

    Args:
        layer: See :class:`Analysis`.
        unpack: See :class:`Analysis`.
        when: See :class:`Analysis`.
        every_n_epochs: See :class:`Analysis`.
        loaders: See :class:`Analysis`.
        name: See :class:`Analysis`. Default: ``lda``.
        label: The class of the figure and of ``eigenvalue``. Default: 1, the paper's "class 1".
        normalize: Scale every feature vector to unit length first, as the paper does.
        max_points: How many samples of each split are drawn at most.

    Raises:
        ConfigError: If an option cannot work.
    """

    kind = "lda"
    title = "Linear discriminant analysis, each class against the rest"

    def __init__(
        self,
        layer: str = "features",
        unpack: tuple[int | str, int | str] = (0, 1),
        when: When = "test",
        every_n_epochs: int = 0,
        loaders: dict[str, Any] | None = None,
        name: str | None = None,
        label: int = 1,
        normalize: bool = True,
        max_points: int = 5000,
    ) -> None:
        super().__init__(layer, unpack, when, every_n_epochs, loaders, name)
        if label < 0 or max_points < 1:
            raise ConfigError(f"label ({label}) must be at least 0 and max_points ({max_points}) at least 1")
        self.label = label
        self.normalize = normalize
        self.max_points = max_points

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Eigenvalues on training features, threshold errors on test features.

        Args:
            inputs: Features of ``train`` and, where there is one, ``test``.

        Returns:
            The result.

        Raises:
            DataError: Fewer than two classes, or a chosen class that does not exist.
        """
        train, test = inputs.labelled("train"), inputs.optional("test")
        if test is not None:
            test = inputs.labelled("test", classes=1)
        names, classes = inputs.class_names(), inputs.num_classes()
        if self.label >= classes:
            raise DataError(f"label={self.label}, but the classes are 0 .. {classes - 1}")
        state, lda = _lda(train, classes, self.normalize, inputs.device)
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

        figures = {"classes": classes_figure}
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

            figures = {"": plane_figure, **figures}
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
            notes.append("there is no test set, hence no threshold error")
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


class PrincipalComponents(Analysis):
    """Features on their first two and first three principal components, a colour a class, misclassified samples ringed.

    With ``before``, the three components stand beside those of the values before the activation function (AAAI 2019,
    Figures 2, 4 and 5).

    Logged: ``explained_2`` and ``explained_3``, the share of the variance that the picture shows; with ``before``,
    ``before_explained_2`` and ``before_explained_3`` too.

    Args:
        layer: See :class:`Analysis`.
        unpack: See :class:`Analysis`.
        when: See :class:`Analysis`.
        every_n_epochs: See :class:`Analysis`.
        loaders: See :class:`Analysis`.
        name: See :class:`Analysis`. Default: ``pca``.
        split: Which samples are drawn.
        fit_on: Which samples give the components. Default: those that are drawn.
        normalize: Scale every feature vector to unit length first.
        max_points: How many samples are drawn at most.
        before: The layer before the activation function, drawn beside: ``features.pre`` for the default layer,
            ``NAME.pre`` for another that ends in an activation function, else any layer's name. Default: none.
    """

    kind = "pca"
    title = "Principal components"

    def __init__(
        self,
        layer: str = "features",
        unpack: tuple[int | str, int | str] = (0, 1),
        when: When = "test",
        every_n_epochs: int = 0,
        loaders: dict[str, Any] | None = None,
        name: str | None = None,
        split: Split = "test",
        fit_on: Literal["train", "val", "test"] | None = None,
        normalize: bool = False,
        max_points: int = 3000,
        before: str | None = None,
    ) -> None:
        super().__init__(layer, unpack, when, every_n_epochs, loaders, name)
        if max_points < 1:
            raise ConfigError(f"max_points is {max_points}; at least 1 is needed")
        self.split = split
        self.fit_on = fit_on
        self.normalize = normalize
        self.max_points = max_points
        self.before = before

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Components and coordinates.

        Args:
            inputs: Features of the split.

        Returns:
            The result.

        Raises:
            DataError: If there are no features of the split.
            ValueError: If the features never change.
        """
        split, notes = shown_split(inputs, self.split)
        part = inputs.labelled(split, classes=1)
        basis = part if self.fit_on is None else inputs.features(self.fit_on)
        count = min(3, basis.features.shape[1], len(basis.labels) - 1)
        found = pca(basis.features, max(count, 1), normalize=self.normalize)
        shares = found.explained_variance_ratio.cpu()
        scalars = {f"explained_{k}": float(shares[:k].sum()) for k in (2, 3) if k <= len(shares)}
        chosen = some_rows(len(part.labels), self.max_points, "pca", inputs.seed)
        points = found.apply(part.features[chosen]).cpu().numpy()
        labels, names = part.labels[chosen].numpy(), inputs.class_names()
        wrong = (part.logits[chosen].argmax(dim=1) != part.labels[chosen]).numpy() if part.logits is not None else None
        heading = f"{inputs.layer} of {len(chosen)} {split} samples{inputs.moment}"
        arrays = {"points": points.astype("float32"), "explained": shares.numpy(), "point_labels": labels}
        panels = {heading: (points, shares.numpy())}
        title = ""
        if self.before is not None:
            other = inputs.at(self.before)
            earlier = other.labelled(split, classes=1)
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


def some_rows(count: int, most: int, purpose: str, seed: int) -> Tensor:
    """Numbers of rows to draw: all, or a random choice that is the same in every call.

    Args:
        count: How many there are.
        most: How many are wanted at most.
        purpose: Keys the choice.
        seed: Keys it too.

    Returns:
        Ascending row numbers.
    """
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator("rows", purpose, seed))[:most].sort().values


def shown_split(inputs: AnalysisInputs, wanted: str) -> tuple[str, list[str]]:
    """The split asked for or, where there is no such set, the training set with a note.

    Args:
        inputs: What there is.
        wanted: The split asked for.

    Returns:
        The split and the notes.

    Raises:
        DataError: If there is neither.
    """
    if wanted == "train" or inputs.optional(wanted) is not None:
        return wanted, []
    inputs.features("train")
    return "train", [f"there is no {wanted} set: the training set is shown"]


def _lda(
    train: Features, classes: int, normalize: bool, device: torch.device
) -> tuple[ScatterState | None, ClassVsRestLDA]:
    if len(train.labels) <= train.features.shape[1]:  # no D x D matrix where the samples are fewer
        return None, class_vs_rest_lda(train.features.to(device), train.labels.to(device), classes, normalize)
    state = ScatterState(train.features.shape[1], classes, normalize=normalize, device=device)
    state.update(train.features, train.labels)
    return state, lda_from_scatter(state)


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
        rest = torch.nn.functional.normalize(rest, dim=1)
    rest = rest - lda.mean.cpu()
    rest = rest - (rest @ axis).unsqueeze(1) * axis
    second = pca(rest, 1)
    components = torch.stack([axis, second.components[0].cpu()])
    unknown = torch.full((2,), math.nan, dtype=torch.float64)
    plane = Projection(components, lda.mean.cpu(), unknown, unknown, lda.normalized)
    return plane, "first principal component orthogonal to it"
