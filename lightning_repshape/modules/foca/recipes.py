"""FOCA's options in groups: the weak classifiers, the draw of their batches, and phi's updates."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor

from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.functional.stacked_heads.recipe import Descent, check_above_zero, check_counts

Recipe = TypeVar("Recipe")


@dataclass(frozen=True)
class WeakRecipe(Descent):
    """How weak classifiers theta are drawn and solved (Algorithm 1, line 5; Eq. 4).

    Attributes:
        hidden: Widths of the hidden layers; empty for linear classifiers. The paper: (128, 128).
        updates: Updates of the solve. Default: 32; 20 under ``"early-stop"``. The paper: 32 on CIFAR-10, 64 on
            CIFAR-100.
        rate: Learning rate. Unpublished. ``"auto"``: 0.75 over the largest curvature that the loss of one sample has at
            the start, see :meth:`curvature`, so that it fits every width, depth and scale. (With raw features an
            accelerator has to wait for their norm at every step.)
        momentum: Momentum. Unpublished; the authors' later code has 0.9.
        nesterov: Whether momentum is Nesterov's, as in the authors' later code.
        weight_decay: lambda of Eq. 4, in front of the sum of squares of all parameters of theta (of the weights under
            ``"ridge"``). Must be above 0, except under ``"early-stop"``. Unpublished.
        init_std: Standard deviation of the initial weights. The paper: 0.1.
        solver: ``"gd"``, full-batch gradient descent with momentum; ``"ridge"``, closed form for linear classifiers and
            the squared loss; ``"early-stop"``, gradient descent on one large batch, stopped after few updates.
        reduction: Mean over b as in Eq. 4, or the sum of Algorithm 1's line 5.
        num_outputs: Outputs of a classifier. Default: K; 1 is possible for two classes under the squared loss.
        feature_scale: Features are brought to this mean norm, in the solve and in phi's loss alike, by a factor that is
            a constant of the step; the solve then works at every scale of the features. ``"auto"``: the norm at which
            initial logits have a spread of 1. None: the paper's raw features.

    Raises:
        ConfigError: If a value is out of its range, or values exclude each other.
    """

    prefix: ClassVar[str] = "FOCAModule: weak."
    automatic: ClassVar[bool] = True

    rate: float | Literal["auto"] = "auto"
    weight_decay: float = 1e-3
    solver: Literal["gd", "ridge", "early-stop"] = "gd"
    reduction: Literal["mean", "sum"] = "mean"
    num_outputs: int | None = None
    feature_scale: float | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        """Checks the values."""
        if not self.weight_decay >= 0 or (self.weight_decay == 0 and self.solver != "early-stop"):
            raise ConfigError(
                f"{self.prefix}weight_decay (lambda of Eq. 4) is {self.weight_decay}, but FOCA needs it above 0: "
                "without it the weak classifiers blow up where two features of b nearly coincide"
            )
        super().__post_init__()
        if self.feature_scale != "auto":
            check_above_zero(self.prefix, "'auto' or null", feature_scale=self.feature_scale)
        automatic = [name for name in ("feature_scale", "rate") if getattr(self, name) == "auto"]
        if self.init_std == 0 and automatic and (self.solver != "ridge" or "feature_scale" in automatic):
            raise ConfigError(
                f"{self.prefix}init_std is 0: initial logits have no spread, so give {' and '.join(automatic)} a number"
            )
        if self.solver == "ridge" and self.hidden:
            raise ConfigError(
                f"{self.prefix}solver 'ridge' solves linear classifiers; set weak.hidden to [], not {list(self.hidden)}"
            )

    @property
    def gain(self) -> float:
        """What hidden layers make of a feature's square: a logit's over that of features times ``init_std``."""
        return math.prod(self.init_std**2 * width / 2 for width in self.hidden)

    @property
    def wanted_norm(self) -> float | None:
        """The mean norm that features are brought to, None for raw ones."""
        if self.feature_scale != "auto":
            return self.feature_scale
        return 1.0 / (self.init_std * math.sqrt(self.gain))

    def curvature(self, norm: float, loss: str) -> float:
        """The largest curvature of one sample's loss at the start, over all parameters of a head.

        A logit of a ReLU network with L layers has the squared gradient L ``norm^2 gain`` (biases left out), and the
        Hessian of the loss over logits an eigenvalue of at most 1/2 (cross entropy) or 2 (squared loss).

        Args:
            norm: Mean norm of the features, as the heads see them.
            loss: ``"cross_entropy"`` or ``"squared"``.
        """
        return (len(self.hidden) + 1) * norm**2 * self.gain * (2.0 if loss == "squared" else 0.5)

    def rate_at(self, norm: Tensor, loss: str, samples: int) -> float:
        """The learning rate for raw features of this mean norm, and ``samples`` in b."""
        if self.rate != "auto":
            return self.rate
        curvature = self.curvature(float(norm) if self.wanted_norm is None else self.wanted_norm, loss)
        return 0.75 / curvature / (samples if self.reduction == "sum" else 1) if curvature > 0 else 1.0


@dataclass(frozen=True)
class Draw:
    """The batches b of a step, and the weak classifiers that are solved on them.

    Attributes:
        samples_per_class: k, samples of each class in b. Default: 10, the paper's; 100 under ``"early-stop"``.
        balanced: Whether every class has k samples, as in Algorithm 1; else b has K k samples of any class, as in the
            authors' later code. (Validation draws balanced batches.)
        augment: Whether samples of b are augmented as training samples are, which this package's data modules can; a
            data set of another kind gives samples as it always does.
        running_statistics: Whether the pass over b moves the running statistics of batch normalisation. (It uses its
            batch's own in any case.)
        replacement: Whether b is drawn with replacement, as Algorithm 1 does.
        num_classifiers: E, weak classifiers a step, whose losses are averaged.
        shared_batch: Whether all E see the same images of b (each a resample of its own where k > 1), which costs one
            backbone pass over b; else E batches are drawn.
    """

    samples_per_class: int | None = None
    balanced: bool = True
    augment: bool = False
    running_statistics: bool = False
    replacement: bool = True
    num_classifiers: int = 1
    shared_batch: bool = True

    def __post_init__(self) -> None:
        """Checks the values."""
        counts = {"samples_per_class": self.samples_per_class, "num_classifiers": self.num_classifiers}
        check_counts("FOCAModule: draw.", **counts)


@dataclass(frozen=True)
class PhiUpdates:
    """How phi is updated with the loss of the weak classifiers (Algorithm 1, lines 6 and 7).

    Attributes:
        updates: u, updates of phi for one theta. The paper: 1 on CIFAR-10, 8 on CIFAR-100.
        draw: Whether phi's samples are the epoch's shuffled ones, or drawn with replacement as in Algorithm 1.
        max_norm: c, the largest norm of an output unit's incoming weight vector; None for no bound. Unpublished.
        clip_norm: Largest norm of phi's gradient; None for no clipping. (The Trainer's own clipping and accumulation do
            not apply to manual optimization.)
        accumulate: Chunks whose gradients are averaged before phi is updated.
        hold_scale: Whether phi's gradient leaves the overall scale of the features alone, which the factor of
            ``weak.feature_scale`` undoes in any case. Without it, weak classifiers that are too sure of themselves make
            phi shrink its features step by step, until they vanish. The loss is the same. Raw features have no such
            scale.
    """

    updates: int = 1
    draw: Literal["epoch", "replacement"] = "epoch"
    max_norm: float | None = 4.0
    clip_norm: float | None = None
    accumulate: int = 1
    hold_scale: bool = True

    def __post_init__(self) -> None:
        """Checks the values."""
        check_counts("FOCAModule: phi.", updates=self.updates, accumulate=self.accumulate)
        check_above_zero("FOCAModule: phi.", "null", max_norm=self.max_norm, clip_norm=self.clip_norm)


def recipe_of(kind: type[Recipe], name: str, given: Recipe | Mapping[str, Any]) -> Recipe:
    """A recipe from what was given, the recipe or its values by name, as a checkpoint holds them.

    Raises ConfigError, with the option's ``name``, if there is no such value, or one is out of its range.
    """
    if isinstance(given, kind):
        return given
    known = getattr(kind, "__dataclass_fields__", {})
    if not isinstance(given, Mapping):
        raise ConfigError(f"FOCAModule: {name} must be a {kind.__name__}, got {given!r}")
    for key in given:
        if key not in known:
            raise ConfigError(f"FOCAModule: {name} has no option {key!r}{did_you_mean(str(key), known)}")
    return kind(**given)


def resolved(weak: WeakRecipe, draw: Draw, num_classes: int) -> tuple[WeakRecipe, Draw]:
    """Both recipes without None in ``updates``, ``num_outputs`` and ``samples_per_class``, for K classes."""
    early = weak.solver == "early-stop"
    updates = weak.updates if weak.updates is not None else 20 if early else 32
    outputs = num_classes if weak.num_outputs is None else weak.num_outputs
    samples = draw.samples_per_class if draw.samples_per_class is not None else 100 if early else 10
    return replace(weak, updates=updates, num_outputs=outputs), replace(draw, samples_per_class=samples)
