"""Analyses that train heads on frozen features: partial-dataset retraining and the approximate geodesic distance."""

from typing import Any, Literal

import torch

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import (
    Analysis,
    AnalysisInputs,
    AnalysisResult,
    When,
    percent,
    present_classes,
)
from lightning_repshape.errors import ConfigError, DataError, DivergenceError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.geodesic import FisherLengths, fisher_geodesic
from lightning_repshape.functional.partial_retraining import balanced_subset, partial_retraining
from lightning_repshape.functional.stacked_heads import HeadRecipe, feature_scale, gradient_descent, init_heads
from lightning_repshape.seeding import generator

_PAPER_SIZES = (10, 100, 1_000, 10_000)
_SIZE_STEPS = ((10, 150), (100, 50), (1_000, 15), (10_000, 5))


class PartialDatasetRetraining(Analysis):
    """Test error of heads trained from scratch on few samples of frozen features (FOCA, section 4.1, Figure 2).

    Logged: ``error_SIZE`` (mean test error) for each number of samples n', ``std_SIZE``, and ``joint_error``, the test
    error of the model's own predictions.

    Args:
        layer: See :class:`Analysis`.
        unpack: See :class:`Analysis`.
        when: See :class:`Analysis`.
        every_n_epochs: See :class:`Analysis`.
        loaders: See :class:`Analysis`.
        name: See :class:`Analysis`. Default: ``partial_retraining``.
        sizes: Numbers of samples n', class-balanced, each from K up. Default: 10, 100, 1,000 and 10,000 as far as they
            lie between K and half the number of training samples, and the whole training set.
        repeats: Heads for each of ``sizes``. Default: the paper's, 150 for 10, 50 for 100, 15 for 1,000, 5 for 10,000,
            1 for more (in between: that of the next smaller one), and 1 for the whole set.
        hidden: Widths of the heads' hidden layers.
        updates: Updates of the heads, by full-batch gradient descent with momentum.
        rate: Learning rate.
        momentum: Momentum.
        lam: Penalty in front of the sum of squares of all parameters.
        init_std: Standard deviation of the initial weights.
        feature_norm: Mean length that features are scaled to, so that one recipe serves every method; None: as they
            are.
        batch_size: Samples of an update for sizes above it. Default: all of them.

    Raises:
        ConfigError: If an option cannot work.
    """

    kind = "partial_retraining"
    title = "Partial-dataset retraining"

    def __init__(
        self,
        layer: str = "features",
        unpack: tuple[int | str, int | str] = (0, 1),
        when: When = "test",
        every_n_epochs: int = 0,
        loaders: dict[str, Any] | None = None,
        name: str | None = None,
        sizes: list[int] | None = None,
        repeats: list[int] | None = None,
        hidden: list[int] | tuple[int, ...] = (128, 128),
        updates: int = 200,
        rate: float = 0.02,
        momentum: float = 0.9,
        lam: float = 1e-4,
        init_std: float = 0.1,
        feature_norm: float | None = 5.0,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(layer, unpack, when, every_n_epochs, loaders, name)
        if repeats is not None and (sizes is None or len(repeats) != len(sizes)):
            raise ConfigError("repeats must be one number for each of sizes")
        for option, numbers in (("sizes", sizes), ("repeats", repeats), ("updates", [updates])):
            for number in numbers or []:
                if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                    raise ConfigError(f"{option}: {number!r} is no whole number above 0")
        self.sizes = sizes
        self.repeats = repeats
        self.hidden = tuple(hidden)
        self.updates = updates
        self.rate = rate
        self.momentum = momentum
        self.lam = lam
        self.init_std = init_std
        self.feature_norm = feature_norm
        self.batch_size = batch_size

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Trains and tests all heads.

        Args:
            inputs: Features of ``train`` and ``test``.

        Returns:
            The result.

        Raises:
            DataError: Fewer than two classes, or no test set.
            ValueError: A size below K or above what the classes hold.
        """
        given, given_test = inputs.labelled("train"), inputs.labelled("test", classes=1)
        joint = _joint_error(given_test)
        train, test, kept, note = present_classes(given, given_test)
        if test is None:
            raise DataError("there is no test set to take errors on")
        sizes = self.sizes or _default_sizes(train, len(kept))
        repeats = self.repeats or [1 if size >= len(train.labels) else _paper_repeats(size) for size in sizes]
        device = inputs.device
        found = partial_retraining(
            train.features.to(device),
            train.labels.to(device),
            test.features.to(device),
            test.labels.to(device),
            sizes,
            repeats,
            HeadRecipe(
                self.hidden,
                self.updates,
                self.rate,
                self.momentum,
                self.lam,
                self.init_std,
                self.batch_size,
                self.feature_norm,
            ),
            num_classes=len(kept),
            seed=inputs.seed,
        )
        notes = [note] if note else []
        notes += [
            f"{count} of {len(found.errors[size])} heads on {size} samples diverged; lower rate"
            for size, count in found.diverged.items()
            if count
        ]
        scalars: dict[str, float] = {}
        rows: list[dict[str, Any]] = []
        for size, mean, std in zip(found.sizes, found.mean.tolist(), found.std.tolist(), strict=True):
            scalars[f"error_{size}"], scalars[f"std_{size}"] = mean, std
            rows.append(
                {
                    "training samples n'": size,
                    "heads": len(found.errors[size]),
                    "test error (%)": percent(mean),
                    "standard deviation (%)": percent(std) if len(found.errors[size]) > 1 else None,
                }
            )
        if joint is not None:
            scalars["joint_error"] = joint
            rows.append({"training samples n'": "the model itself", "heads": 1, "test error (%)": percent(joint)})
        content = {
            "sizes": list(found.sizes),
            "repeats": [len(found.errors[size]) for size in found.sizes],
            "errors": {size: found.errors[size] for size in found.sizes},
            "mean": found.mean,
            "std": found.std,
            "joint_error": joint,
            "recipe": {
                "hidden": self.hidden,
                "feature_norm": self.feature_norm,
                "updates": self.updates,
                "rate": self.rate,
                "momentum": self.momentum,
                "lam": self.lam,
                "init_std": self.init_std,
                "batch_size": self.batch_size,
                "seed": inputs.seed,
            },
        }
        errors = {size: found.errors[size].numpy() for size in found.sizes}
        heading = f"heads on {inputs.layer}, {len(test.labels)} test samples"

        def draw() -> Any:
            return plots.retraining_figure(errors, joint, len(train.labels), heading)

        tables = {"test error against the number of training samples": rows}
        return AnalysisResult(scalars, content, tables, {"": draw}, tuple(notes))


class FisherGeodesic(Analysis):
    """Approximate geodesic distance between heads trained on all and on few samples (FOCA, section 4.2, Eq. 14-16).

    Both heads start from the same initial numbers; the line between them is cut into segments whose Fisher lengths are
    measured on a random part of the training set, layer by layer and over all layers.

    Logged: ``layer_1``, ``layer_2``, ... (Eq. 15's total of each layer), ``full`` (all layers at once, with cross
    terms), ``length_full`` (the plain sum of its segments' lengths), ``error_all`` and ``error_few`` (test errors of
    both ends).

    Args:
        layer: See :class:`Analysis`.
        unpack: See :class:`Analysis`.
        when: See :class:`Analysis`.
        every_n_epochs: See :class:`Analysis`.
        loaders: See :class:`Analysis`.
        name: See :class:`Analysis`. Default: ``geodesic``.
        few: Samples of the smaller set, class-balanced. Default: 10, or one a class where there are more than ten
            classes.
        segments: P, how many pieces the line is cut into.
        part: The share of the training set that the Fisher matrix is a mean over.
        fisher: ``"empirical"``: over the samples' own labels (the paper's); ``"model"``: over the labels that the head
            itself holds possible.
        hidden: Widths of the heads' hidden layers.
        updates: Updates of the heads, by full-batch gradient descent with momentum.
        rate: Learning rate.
        momentum: Momentum.
        lam: Penalty in front of the sum of squares of all parameters.
        init_std: Standard deviation of the initial weights.
        feature_norm: Mean length that features are scaled to, so that one recipe serves every method; None: as they
            are.
        batch_size: Samples of an update of the head on all samples. Default: all of them.

    Raises:
        ConfigError: If an option cannot work.
    """

    kind = "geodesic"
    title = "Approximate geodesic distance"

    def __init__(
        self,
        layer: str = "features",
        unpack: tuple[int | str, int | str] = (0, 1),
        when: When = "test",
        every_n_epochs: int = 0,
        loaders: dict[str, Any] | None = None,
        name: str | None = None,
        few: int | None = None,
        segments: int = 15,
        part: float = 0.05,
        fisher: Literal["empirical", "model"] = "empirical",
        hidden: list[int] | tuple[int, ...] = (128, 128),
        updates: int = 200,
        rate: float = 0.02,
        momentum: float = 0.9,
        lam: float = 1e-4,
        init_std: float = 0.1,
        feature_norm: float | None = 5.0,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(layer, unpack, when, every_n_epochs, loaders, name)
        if not 0 < part <= 1:
            raise ConfigError(f"part is {part}; it must be above 0 and at most 1")
        if segments < 1:
            raise ConfigError(f"segments is {segments}; at least 1 is needed")
        self.few = few
        self.segments = segments
        self.part = part
        self.fisher = fisher
        self.hidden = tuple(hidden)
        self.updates = updates
        self.rate = rate
        self.momentum = momentum
        self.lam = lam
        self.init_std = init_std
        self.feature_norm = feature_norm
        self.batch_size = batch_size

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Trains both heads and measures the line between them.

        Args:
            inputs: Features of ``train`` and, where there is one, ``test``.

        Returns:
            The result.

        Raises:
            DataError: Fewer than two classes.
            DivergenceError: If a head did not end in finite numbers.
            ValueError: Fewer samples asked for than there are classes, or more than they hold.
        """
        given = inputs.labelled("train")
        given_test = inputs.labelled("test", classes=1) if inputs.optional("test") is not None else None
        train, test, kept, note = present_classes(given, given_test)
        notes = [note] if note else []
        classes, count, device = len(kept), len(train.labels), inputs.device
        few = self.few if self.few is not None else max(10, classes)
        chosen = balanced_subset(train.labels, few, classes, generator("geodesic-few", inputs.seed))
        features, labels = train.features.to(device), train.labels.to(device)
        scale = torch.ones(()) if self.feature_norm is None else feature_scale(features, self.feature_norm)
        features = features * scale.to(device)
        initial = init_heads(
            1, (features.shape[1], *self.hidden, classes), init_std=self.init_std, seed=inputs.seed, device=device
        )
        ends = []
        for which, own in (("all", None), (f"{few}", chosen.to(device))):
            solution = gradient_descent(
                initial,
                features if own is None else features[own],
                labels if own is None else labels[own],
                lam=self.lam,
                updates=self.updates,
                rate=self.rate,
                momentum=self.momentum,
                batch_size=self.batch_size,
                seed=inputs.seed,
            )
            if not bool(solution.losses.isfinite().all()):
                raise DivergenceError(
                    f"the head on {which} samples diverged; lower rate, or leave feature_norm at a number"
                )
            heads = solution.heads
            ends.append([(weight[0], bias[0]) for weight, bias in zip(heads.weights, heads.biases, strict=True)])
        some = max(1, round(self.part * count))
        drawn = torch.randperm(count, generator=generator("geodesic-part", inputs.seed))[:some].sort().values.to(device)
        found = fisher_geodesic(
            features[drawn],
            labels[drawn],
            ends[0],
            ends[1],
            segments=self.segments,
            fisher=self.fisher,
            test_features=None if test is None else test.features.to(device) * scale.to(device),
            test_labels=None if test is None else test.labels.to(device),
        )
        everything: dict[str, FisherLengths] = {**found.layers, "full": found.full}
        scalars = {f"layer_{name}": lengths.total for name, lengths in found.layers.items()}
        scalars |= {"full": found.full.total, "length_full": found.full.length}
        if found.errors is not None:
            scalars |= {"error_all": float(found.errors[0]), "error_few": float(found.errors[-1])}
        else:
            notes.append("there is no test set, hence no error along the line")
        rows = [
            {
                "layer": "all layers at once" if name == "full" else name,
                "distance (Eq. 15)": lengths.total,
                "sum of segment lengths": lengths.length,
            }
            for name, lengths in everything.items()
        ]
        content = {
            "segments": {name: lengths.segments for name, lengths in everything.items()},
            "totals": {name: lengths.total for name, lengths in everything.items()},
            "lengths": {name: lengths.length for name, lengths in everything.items()},
            "errors": found.errors,
            "num_segments": self.segments,
            "samples_all": count,
            "samples_few": few,
            "samples_fisher": some,
            "recipe": {
                "fisher": self.fisher,
                "hidden": self.hidden,
                "feature_norm": self.feature_norm,
                "updates": self.updates,
                "rate": self.rate,
                "momentum": self.momentum,
                "lam": self.lam,
                "init_std": self.init_std,
                "batch_size": self.batch_size,
                "seed": inputs.seed,
            },
        }
        lines = {name: lengths.segments.numpy() for name, lengths in everything.items()}
        errors = None if found.errors is None else found.errors.numpy()

        def draw() -> Any:
            return plots.geodesic_figure(lines, errors, count, few)

        return AnalysisResult(scalars, content, {"length of the line by layer": rows}, {"": draw}, tuple(notes))


def _default_sizes(train: Features, classes: int) -> list[int]:
    """The paper's sizes as far as the classes hold them, and the whole training set."""
    count = len(train.labels)
    least = int(torch.bincount(train.labels).min())
    return [size for size in _PAPER_SIZES if classes <= size <= count / 2 and -(-size // classes) <= least] + [count]


def _paper_repeats(size: int) -> int:
    """r(n') of the next smaller of the paper's sizes; its largest for sizes below all of them, and 1 from 50,000 on."""
    if size >= 50_000:
        return 1
    return next((often for least, often in reversed(_SIZE_STEPS) if size >= least), _SIZE_STEPS[0][1])


def _joint_error(test: Features) -> float | None:
    if test.logits is None:
        return None
    return float((test.logits.argmax(dim=1) != test.labels).double().mean())
