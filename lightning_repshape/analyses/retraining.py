"""Partial-dataset retraining: heads trained from scratch on few samples of frozen features."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import percent, present_classes
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.loss_data import loss_data_measures
from lightning_repshape.functional.partial_retraining import partial_retraining
from lightning_repshape.functional.stacked_heads import HeadRecipe

_PAPER_SIZES = (10, 100, 1_000, 10_000)
_SIZE_STEPS = ((10, 150), (100, 50), (1_000, 15), (10_000, 5))


@dataclass(eq=False)
class HeadAnalysis(Analysis):
    """Base of the analyses that train heads on frozen features, all by one rule, see :class:`HeadRecipe`.

    Args:
        hidden: Widths of the heads' hidden layers.
        updates: Updates of the heads. Default: until a head is done.
        rate: Learning rate.
        momentum: Momentum.
        lam: Penalty in front of the sum of squares of all parameters.
        init_std: Standard deviation of the initial weights.
        feature_norm: Mean length that features are scaled to, so that one recipe serves every method; None: as they
            are.
        batch_size: Samples of an update where there are more. Default: 256, or all of them with ``updates``.
    """

    _: KW_ONLY
    hidden: list[int] | tuple[int, ...] = (128, 128)
    updates: int | None = None
    rate: float = 0.02
    momentum: float = 0.9
    lam: float = 1e-4
    init_std: float = 0.1
    feature_norm: float | None = 5.0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        self.hidden = tuple(self.hidden)
        self.head_recipe()

    def recipe(self) -> dict[str, Any]:
        """How heads are trained, for what is written."""
        names = ("hidden", "feature_norm", "updates", "rate", "momentum", "lam", "init_std", "batch_size")
        return {name: getattr(self, name) for name in names}

    def head_recipe(self) -> HeadRecipe:
        """The same, for the functions that train them."""
        options = self.recipe()
        return HeadRecipe(weight_decay=options.pop("lam"), **options)


@dataclass(eq=False)
class PartialDatasetRetraining(HeadAnalysis):
    """Test error of heads trained from scratch on few samples of frozen features (FOCA, section 4.1, Figure 2).

    Logged: ``error_SIZE`` (mean test error) for each number of samples n', ``std_SIZE``, and ``joint_error``, the test
    error of the model's own predictions. And from the curve of the held-out loss against n' (Whitney et al. 2020), with
    the loss in nats: ``loss_SIZE`` (mean over the heads), ``code_length``, and for each epsilon ``surplus_EPSILON`` and
    ``samples_EPSILON``, see :func:`lightning_repshape.functional.loss_data_measures`.

    Args:
        sizes: Numbers of samples n', class-balanced, each from K up. Default: 10, 100, 1,000 and 10,000 as far as they
            lie between K and half the number of training samples, and the whole training set.
        repeats: Heads for each of ``sizes``. Default: the paper's, 150 for 10, 50 for 100, 15 for 1,000, 5 for 10,000,
            1 for more (in between: that of the next smaller one), and 1 for the whole set.
        epsilons: Held-out losses in nats that are good enough, for the surplus description length and the sample
            complexity.
    """

    kind = "partial_retraining"
    title = "Partial-dataset retraining"

    sizes: list[int] | None = None
    repeats: list[int] | None = None
    epsilons: list[float] | tuple[float, ...] = (0.5, 0.1)

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.repeats is not None and (self.sizes is None or len(self.repeats) != len(self.sizes)):
            raise ConfigError("repeats must be one number for each of sizes")
        for option, numbers in (("sizes", self.sizes), ("repeats", self.repeats)):
            for number in numbers or []:
                if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                    raise ConfigError(f"{option}: {number!r} is no whole number above 0")
        if not all(0 < epsilon < float("inf") for epsilon in self.epsilons):
            raise ConfigError(f"epsilons: {list(self.epsilons)} must be finite numbers above 0")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Trains and tests all heads; ValueError for a size below K or above what the classes hold."""
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
            self.head_recipe(),
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
        losses = {size: _mean_loss(found.test_losses[size]) for size in found.sizes}
        curve = {size: loss for size, loss in losses.items() if loss is not None}
        scalars |= {f"loss_{size}": loss for size, loss in curve.items()}
        measures = loss_data_measures(curve, len(kept), self.epsilons) if curve else None
        tables: dict[str, list[dict[str, Any]]] = {}
        if measures is not None:
            scalars["code_length"] = measures.code_length
            for epsilon in self.epsilons:
                if math.isfinite(measures.samples[epsilon]):
                    scalars[f"samples_{epsilon:g}"] = measures.samples[epsilon]
                if math.isfinite(measures.surplus[epsilon]):
                    scalars[f"surplus_{epsilon:g}"] = measures.surplus[epsilon]
            tables["loss against data (nats)"] = [
                {
                    "epsilon": epsilon,
                    "surplus description length": _bound(measures.surplus[epsilon], measures.surplus_so_far[epsilon]),
                    "samples n' to reach it": _bound(measures.samples[epsilon], float(max(curve))),
                }
                for epsilon in self.epsilons
            ] + [{"epsilon": "online code length", "surplus description length": f"{measures.code_length:,.1f}"}]
        if joint is not None:
            scalars["joint_error"] = joint
            rows.append({"training samples n'": "the model itself", "heads": 1, "test error (%)": percent(joint)})
        content = {
            "sizes": list(found.sizes),
            "repeats": [len(found.errors[size]) for size in found.sizes],
            "errors": {size: found.errors[size] for size in found.sizes},
            "test_losses": {size: found.test_losses[size] for size in found.sizes},
            "mean": found.mean,
            "std": found.std,
            "joint_error": joint,
            "recipe": {**self.recipe(), "seed": inputs.seed},
        }
        errors = {size: found.errors[size].numpy() for size in found.sizes}
        heading = f"heads on {inputs.layer}, {len(test.labels)} test samples"

        def draw() -> Any:
            return plots.retraining_figure(errors, joint, len(train.labels), heading)

        unseen = {size: found.test_losses[size].numpy() for size in curve}

        def draw_loss() -> Any:
            return plots.loss_data_figure(unseen, self.epsilons, math.log(len(kept)), len(train.labels), heading)

        tables = {"test error against the number of training samples": rows, **tables}
        figures = {"": draw, **({"loss": draw_loss} if unseen else {})}
        return AnalysisResult(scalars, content, tables, figures, tuple(notes))


def _mean_loss(losses: Tensor) -> float | None:
    """The mean over the heads that did not diverge, None where all did."""
    known = losses[losses.isfinite()]
    return float(known.mean()) if len(known) else None


def _bound(value: float, so_far: float) -> str:
    return f"{value:,.4g}" if math.isfinite(value) else f"above {so_far:,.4g}"


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
