"""Heads: what turns features into logits. Modules call ``head(num_features, num_classes)``; a config gives the rest."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_repshape.errors import CheckpointError, ConfigError
from lightning_repshape.functional.class_vectors import cosine_logits, largest_class_cosine
from lightning_repshape.functional.fixed_vectors import LAYOUTS, Layout, laid_out
from lightning_repshape.layers import (
    NamedActivations,
    check_choice,
    check_dropout,
    check_positive,
    check_scale,
    initialize,
    linear_layer,
)
from lightning_repshape.seeding import generator

HeadInit = Literal["torch", "normal", "glorot"]
Similarity = Literal["dot", "cosine"]

torch.fx.wrap("cosine_logits")  # a step of its own for FX, which cannot trace its autocast context


class Head(NamedActivations):
    """A classifier on features: the class that all heads share. An option out of its range is a :class:`ConfigError`.

    Args:
        num_features: Width of the features.
        num_classes: Number of outputs; 1 serves two classes with targets of +-1 under squared loss.
        steps: The layers by name, in forward order. The last one is ``output``, an :class:`~torch.nn.Linear`.

    Attributes:
        output: The last linear layer; ``head.output.weight`` is num_classes x (width of what enters it).
    """

    output: nn.Linear

    def __init__(self, num_features: int, num_classes: int, steps: Mapping[str, nn.Module]) -> None:
        super().__init__(steps)
        self.num_features = num_features
        self.num_classes = num_classes

    @property
    def linears(self) -> tuple[nn.Linear, ...]:
        """The linear layers in forward order, for solvers that read and write a head's parameters."""
        return tuple(module for module in self.modules() if isinstance(module, nn.Linear))


class LinearHead(Head):
    """One linear layer: ``output``.

    Args:
        num_features: Width of the features.
        num_classes: Number of outputs.
        bias: Whether the layer has a bias.
        init: ``torch`` leaves PyTorch's numbers; ``normal`` draws weights from N(0, init_std^2) and ``glorot``
            uniformly from +-sqrt(6 / (fan in + fan out)), both with zero biases.
        init_std: Standard deviation of ``init="normal"``; 0.1 in FOCA (Sato et al. 2019).
        detach: Whether the features are not trained by it: a probe beside a loss of their own, as SupCon's.

    Example:
        >>> import torch
        >>> LinearHead(8, 3)(torch.zeros(2, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        bias: bool = True,
        init: HeadInit = "torch",
        init_std: float = 0.1,
        detach: bool = False,
    ) -> None:
        check_positive("num_features", num_features)
        check_positive("num_classes", num_classes)
        linear = _DetachedLinear if detach else nn.Linear
        super().__init__(num_features, num_classes, {"output": linear(num_features, num_classes, bias=bias)})
        _initialize(self, init, init_std)


class MLPHead(Head):
    """Fully connected layers with ReLU between: ``fc1``, ``fc2``, ..., ``output``.

    The defaults are the secondary head of FOCA (Sato et al. 2019, section 5): features-128-128-classes. With
    ``dropout``, ``dropout1``, ``dropout2``, ... follow the hidden layers; with ``batch_norm``, the normalisation comes
    before ReLU.

    Args:
        num_features: Width of the features.
        num_classes: Number of outputs.
        hidden: Widths of the hidden layers; none makes a linear head.
        dropout: Share of the hidden activations set to zero in training.
        batch_norm: Whether hidden layers are batch-normalised.
        init: ``torch``, ``normal`` or ``glorot``, as in :class:`LinearHead`.
        init_std: Standard deviation of ``init="normal"``; 0.1 as FOCA draws its weak classifiers.

    Example:
        >>> MLPHead(4096, 10, dropout=0.5).activation_names
        ('fc1', 'dropout1', 'fc2', 'dropout2', 'output')
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.0,
        batch_norm: bool = False,
        init: HeadInit = "torch",
        init_std: float = 0.1,
    ) -> None:
        steps = _mlp_steps(num_features, num_classes, hidden, dropout, batch_norm, nn.Linear)
        super().__init__(num_features, num_classes, steps)
        _initialize(self, init, init_std)


class NoisyMLPHead(Head):
    """An :class:`MLPHead` whose every parameter gets fresh noise at every training forward: FOCA's baseline "Noisy".

    Training computes with ``parameter + noise``, noise from N(0, noise_std^2) drawn from the global generator of the
    parameter's device; the gradient goes to the clean parameter. Evaluation uses the clean parameters. Keys and shapes
    are those of :class:`MLPHead`, so the weights fit either.

    Args:
        num_features: Width of the features.
        num_classes: Number of outputs.
        hidden: Widths of the hidden layers; none makes a linear head.
        noise_std: Standard deviation of the noise, for weights and biases alike; the paper's is unpublished.
        dropout: Share of the hidden activations set to zero in training.
        init: ``torch``, ``normal`` or ``glorot``, as in :class:`LinearHead`.
        init_std: Standard deviation of ``init="normal"``.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden: Sequence[int] = (128, 128),
        noise_std: float = 0.01,
        dropout: float = 0.0,
        init: HeadInit = "torch",
        init_std: float = 0.1,
    ) -> None:
        check_scale("noise_std", noise_std)
        linear = partial(_NoisyLinear, noise_std=noise_std)
        super().__init__(
            num_features, num_classes, _mlp_steps(num_features, num_classes, hidden, dropout, False, linear)
        )
        self.noise_std = noise_std
        _initialize(self, init, init_std)


class ClassVectorHead(Head):
    """Class vectors w_k, fixed at random or trained: logits S cos(f, w_k), or S (f·w_k + b_k).

    The paper "Redesigning the classification layer by randomizing the class representation vectors" (submitted to ICLR
    2021), Eq. 1 to 3. Fixed vectors are drawn from N(0, I), divided by their length, and have no bias (the paper's is 0
    and fixed); ``vectors`` names other layouts, see :mod:`lightning_repshape.functional.fixed_vectors`. They are a
    buffer: no gradient, weight decay or optimizer state ever reaches them, not even after ``requires_grad_(True)`` on
    the whole model; checkpoints hold them as ``output.weight``. They depend on ``vectors``, ``seed`` and their number
    and width alone, so all ranks and resumed runs have the same. Loading a checkpoint with other vectors
    (trained ones, or those of another seed) is a :class:`CheckpointError`; vectors of one's own are put in place by
    ``head.output.weight.copy_(vectors)``, before such a checkpoint is loaded.

    Trained vectors start as in :class:`~torch.nn.Linear`; ``dot`` has a bias then, ``cosine`` has none. The cosine is
    computed in float32 under 16-bit autocast; with features of zeros it is 0 and so is its gradient.

    Random vectors have entries of both signs. Features that end in ReLU have not, and no such feature comes nearer to a
    random vector than a cosine of about 0.71 (the root of one half, the share of its length in positive entries);
    ``embedding`` puts a linear layer between.

    Args:
        num_features: Width of the features.
        num_classes: K. More classes than the vectors' width are allowed; a warning says so, and how near to each other
            fixed vectors lie then.
        similarity: ``cosine`` or ``dot``.
        fixed: Whether the vectors stay as they were drawn.
        scale: S, above 0; with ``learn_scale`` what it starts from. 1 is the paper's main setting.
        learn_scale: Whether log S is trained (so S stays positive; weight decay pulls S towards 1).
        embedding: Width of a trained linear layer ``embed`` before the class vectors; ours, not the paper's. None: no
            such layer.
        seed: Of the draw of fixed vectors.
        vectors: How fixed vectors lie: ``random``, ``etf`` (a simplex turned at random), ``hadamard``, ``separated`` (a
            simplex by recursion, behind a linear layer of K - 1 outputs if ``embedding`` names no other width) or
            ``hypercube``; ``hadamard`` and ``separated`` draw nothing.

    Example:
        >>> import torch
        >>> head = ClassVectorHead(64, 10)
        >>> list(head.state_dict()), list(head.parameters())
        (['output.weight'], [])
        >>> float(head(torch.randn(5, 64)).abs().max()) <= 1.0
        True
    """

    output: "_ClassVectors"

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        similarity: Similarity = "cosine",
        fixed: bool = True,
        scale: float = 1.0,
        learn_scale: bool = False,
        embedding: int | None = None,
        seed: int = 0,
        vectors: Layout = "random",
    ) -> None:
        check_positive("num_features", num_features)
        check_positive("num_classes", num_classes)
        check_choice("similarity", similarity, ("dot", "cosine"))
        check_choice("vectors", vectors, LAYOUTS)
        # null in a config would pass for 'not fixed', and for a seed of its own
        for name, value in (("fixed", fixed), ("learn_scale", learn_scale)):
            if not isinstance(value, bool):
                raise ConfigError(f"{name}={value!r} must be true or false")
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise ConfigError(f"seed={seed!r} must be a whole number")
        if isinstance(scale, bool) or not isinstance(scale, Real) or not (scale > 0.0 and math.isfinite(scale)):
            raise ConfigError(f"scale={scale!r} must be a finite number above 0: logits are multiplied by it")
        if vectors != "random" and not fixed:
            raise ConfigError(
                f"vectors={vectors!r} says how fixed class vectors lie, and these are trained: fixed=True"
            )
        steps: dict[str, nn.Module] = {}
        width = num_features
        if vectors == "separated" and embedding is None and 1 < num_classes != num_features + 1:
            embedding = num_classes - 1
        if embedding is not None:
            check_positive("embedding", embedding)
            steps["embed"] = nn.Linear(num_features, embedding)
            width = embedding
        try:
            output = _ClassVectors(width, num_classes, similarity, fixed, scale, learn_scale, int(seed), vectors)
        except ValueError as error:
            advice = "embedding=WIDTH puts a layer of that many before" if num_classes > 1 else "take vectors='random'"
            raise ConfigError(f"ClassVectorHead: {error}; {advice}") from error
        steps["output"] = output
        super().__init__(num_features, num_classes, steps)
        self.similarity = similarity
        self.fixed = fixed
        if width < num_classes and vectors in ("random", "hypercube"):
            nearest = f"; the largest cosine between two is {float(largest_class_cosine(self.output.drawn())):.2f}"
            warnings.warn(
                f"{num_classes} {'fixed' if fixed else 'trained'} class vectors of width {width}: fewer features than "
                f"classes, so the vectors cannot all be at right angles{nearest if fixed else ''}. "
                "Wider features keep them further apart",
                stacklevel=2,
            )

    @property
    def scale(self) -> Tensor:
        """S as it is now, a scalar."""
        return self.output.scale


class _ClassVectors(nn.Linear):
    """The last layer: class vectors that are a parameter or, where they are fixed, a buffer."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        similarity: Similarity,
        fixed: bool,
        scale: float,
        learn_scale: bool,
        seed: int,
        layout: Layout = "random",
    ) -> None:
        super().__init__(in_features, out_features, bias=similarity == "dot" and not fixed)
        self.similarity = similarity
        self.fixed = fixed
        self.seed = seed
        self.layout = layout
        self.turns = False  # whether they may be turned as a whole, so that checkpoints hold them otherwise
        self.factor = float(scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale))) if learn_scale else None
        if fixed:
            weight = self.weight.detach()
            del self.weight
            self.register_buffer("weight", weight)
            self.register_load_state_dict_pre_hook(_refuse_other_vectors)  # type: ignore[no-untyped-call]
            self.reset_parameters()

    @property
    def scale(self) -> Tensor:
        """S."""
        return self.weight.new_tensor(self.factor) if self.log_scale is None else self.log_scale.exp()

    def reset_parameters(self) -> None:
        """Draws the vectors: fixed ones by their seed, others as PyTorch does."""
        if not getattr(self, "fixed", False):  # nn.Linear's constructor asks before it is known
            super().reset_parameters()
            return
        self.weight.copy_(self.drawn())

    def forward(self, input: Tensor) -> Tensor:
        logits = cosine_logits(input, self.weight) if self.similarity == "cosine" else super().forward(input)
        if self.log_scale is not None:
            return logits * self.log_scale.exp()
        return logits if self.factor == 1.0 else logits * self.factor

    def extra_repr(self) -> str:
        scale = "learned" if self.log_scale is not None else f"{self.factor:g}"
        layout = "" if self.layout == "random" else f"{self.layout}, "
        kind = f"fixed, {layout}seed={self.seed}" if self.fixed else "trained"
        return f"{super().extra_repr()}, {self.similarity}, {kind}, scale={scale}"

    def drawn(self) -> Tensor:
        seeded = generator("class vectors", self.seed)
        return laid_out(self.layout, self.out_features, self.in_features, seeded)


def _refuse_other_vectors(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A hook before loading: fixed class vectors load no others."""
    theirs = state_dict.get(f"{prefix}weight")
    if not isinstance(module, _ClassVectors) or not isinstance(theirs, Tensor):
        return
    place = f"{prefix}weight: {module.out_features} fixed class vectors of width {module.in_features}, of seed"
    if theirs.shape != module.weight.shape:
        raise CheckpointError(
            f"{place} {module.seed}, do not fit the checkpoint, which has {tuple(theirs.shape)}: build the model "
            "with the classes and the width of the run that wrote it (its config.yaml)"
        )
    # Vectors of another draw differ by their own size; those of a 16-bit model by rounding alone.
    mine = module.drawn() if module.weight.is_meta else module.weight.double().cpu()
    theirs = theirs.detach().double().cpu()
    apart = (theirs @ theirs.T - mine @ mine.T if module.turns else theirs - mine).abs().max()
    if not float(apart) <= 0.01:
        raise CheckpointError(
            f"{place} {module.seed}, are not those of the checkpoint, whose vectors were trained or drawn with "
            "another seed: use the head's options (fixed, seed, vectors) of the run that wrote it (its config.yaml)"
        )


class _DetachedLinear(nn.Linear):
    """A linear layer whose gradient ends at its input."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.detach())


class _NoisyLinear(nn.Linear):
    """A linear layer that adds fresh noise to its parameters at every training forward."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, noise_std: float = 0.0) -> None:
        super().__init__(in_features, out_features, bias)
        self.noise_std = noise_std

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.noise_std == 0.0:
            return super().forward(input)
        weight = self.weight + self.noise_std * torch.randn_like(self.weight)
        bias = self.bias + self.noise_std * torch.randn_like(self.bias)
        return nn.functional.linear(input, weight, bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, noise_std={self.noise_std}"


def _mlp_steps(
    num_features: int,
    num_classes: int,
    hidden: Sequence[int],
    dropout: float,
    batch_norm: bool,
    linear: Callable[..., nn.Linear],
) -> dict[str, nn.Module]:
    check_positive("num_features", num_features)
    check_positive("num_classes", num_classes)
    check_positive("hidden", *hidden)
    check_dropout(dropout)
    steps: dict[str, nn.Module] = {}
    width = num_features
    for number, out in enumerate(hidden, start=1):
        steps[f"fc{number}"] = linear_layer(width, out, batch_norm=batch_norm, linear=linear)
        if dropout > 0:
            steps[f"dropout{number}"] = nn.Dropout(dropout)
        width = out
    steps["output"] = linear(width, num_classes)
    return steps


def _initialize(head: Head, init: HeadInit, init_std: float) -> None:
    check_choice("init", init, ("torch", "normal", "glorot"))
    check_scale("init_std", init_std)
    if init == "normal":
        for linear in head.linears:
            nn.init.normal_(linear.weight, std=init_std)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
    else:
        initialize(head, init)


__all__ = ["ClassVectorHead", "Head", "LinearHead", "MLPHead", "NoisyMLPHead"]
