"""The heads themselves: their parameters on a leading dimension, initial numbers, and the forward pass."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.functional.checks import check_at_least, check_choice
from lightning_repshape.functional.stacked_heads.inputs import (
    Form,
    Loss,
    full_precision,
    loss_per_head,
    make_targets,
)
from lightning_repshape.seeding import generator, key_to_seed


@dataclasses.dataclass(frozen=True, eq=False)
class GramWeight:
    """First-layer weights ``W_e = scale_e W0_e + A_e^T X_e`` that are not multiplied out.

    Gradient descent moves the first layer within the span of its samples only, so these factors are what its Gram form
    ends with, exactly.

    Attributes:
        initial: ``W0``, ``E x H x D``; expanded (stride 0) where all heads began with the same first layer.
        scale: ``E``, what the decay has left of the initial numbers.
        coefficients: ``A``, ``E x n x H``.
        samples: ``X``, ``n x D``, or ``E x n x D`` where each head has samples of its own.
    """

    initial: Tensor
    scale: Tensor
    coefficients: Tensor
    samples: Tensor

    def dense(self) -> Tensor:
        """The weights multiplied out: ``E x H x D``."""
        if self.samples.ndim == 3:
            moved = torch.bmm(self.coefficients.mT, self.samples)
        else:
            num_heads, count, width = self.coefficients.shape
            moved = (self.coefficients.mT.reshape(num_heads * width, count) @ self.samples).view(num_heads, width, -1)
        return moved.addcmul_(self.initial, self.scale[:, None, None])

    def apply(self, features: Tensor) -> Tensor:
        """``F W^T`` by the factors: ``c F W0^T + (F X^T) A``, for ``N x D`` or ``E x N x D``. Gives ``E x N x H``."""
        start = _apply_dense(self.initial, features)
        if self.samples.ndim == 2:
            kernel = features @ self.samples.T
            kernel = kernel if kernel.ndim == 3 else kernel.expand(len(self.scale), -1, -1)
        else:
            kernel = _apply_dense(self.samples, features)
        return torch.baddbmm(start * self.scale[:, None, None], kernel, self.coefficients)

    def multiplications(self, count: int, shared: bool) -> int:
        """Multiplications that :meth:`apply` needs for ``count`` samples a head, and that ``dense`` would save."""
        num_heads, width, dim = self.initial.shape
        starts = 1 if shared and _is_shared(self.initial) else num_heads
        kernels = 1 if shared and self.samples.ndim == 2 else num_heads
        per_feature = starts * width + kernels * self.samples.shape[-2]
        return count * (per_feature * dim + num_heads * self.samples.shape[-2] * width)


def _is_shared(stacked: Tensor) -> bool:
    return stacked.shape[0] > 1 and stacked.stride(0) == 0


def _apply_dense(weight: Tensor, features: Tensor) -> Tensor:
    """``F W_e^T`` for weights ``E x H x D``; features that all heads share cost one big product."""
    num_heads, width, dim = weight.shape
    if features.ndim == 3:
        return torch.bmm(features, weight.mT)
    if _is_shared(weight):
        return F.linear(features, weight[0]).expand(num_heads, -1, -1)
    return F.linear(features, weight.reshape(num_heads * width, dim)).view(-1, num_heads, width).transpose(0, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class StackedHeads:
    """E heads of one shape, linear or multi-layer with ReLU, their parameters on a leading dimension.

    Weights lie as in ``nn.Linear``: ``E x out x in``. The heads are constants: gradient flows through :meth:`forward`
    to the features only (unless the caller built them from tensors that require it).

    Attributes:
        first: First-layer weights ``E x H x D``, or their factors after a solve in Gram form.
        later: The other layers' weights, ``E x out x in`` each; empty for linear heads.
        biases: One ``E x out`` for each layer.
    """

    first: Tensor | GramWeight
    later: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @functools.cached_property
    def weights(self) -> tuple[Tensor, ...]:
        """All layers' weights, ``E x out x in`` each; factors are multiplied out once and kept."""
        return (self.first.dense() if isinstance(self.first, GramWeight) else self.first, *self.later)

    @property
    def num_heads(self) -> int:
        """E."""
        return self.biases[0].shape[0]

    @property
    def num_features(self) -> int:
        """D."""
        return (self.first.initial if isinstance(self.first, GramWeight) else self.first).shape[-1]

    @property
    def num_outputs(self) -> int:
        """Width of the last layer."""
        return self.biases[-1].shape[1]

    def forward(self, features: Tensor, form: Form = "auto") -> Tensor:
        """Logits of every head, ``E x N x K``; differentiable in the features.

        Args:
            features: ``N x D`` for all heads, or ``E x N x D``. Computed in the heads' precision, also under autocast.
            form: ``"primal"`` multiplies the first layer out (once; it is kept), ``"gram"`` applies its factors to the
                features, ``"auto"`` takes what needs fewer multiplications. Heads without factors have one form only,
                and any choice means that one.
        """
        check_choice("form", form, ("auto", "primal", "gram"))
        if features.ndim not in (2, 3) or features.shape[-1] != self.num_features:
            raise ValueError(
                f"heads on {self.num_features} features need N x {self.num_features} or E x N x {self.num_features}, "
                f"got shape {tuple(features.shape)}"
            )
        if features.ndim == 3 and features.shape[0] != self.num_heads:
            raise ValueError(f"features of {features.shape[0]} heads were given to {self.num_heads} heads")
        with full_precision(features):
            features = features.to(self.biases[0].dtype)
            if isinstance(self.first, GramWeight) and (form == "gram" or (form == "auto" and self._prefers(features))):
                z = self.first.apply(features)
            else:
                z = _apply_dense(self.weights[0], features)
            z = z + self.biases[0].unsqueeze(1)
            for weight, bias in zip(self.later, self.biases[1:], strict=True):
                z = torch.baddbmm(bias.unsqueeze(1), z.relu(), weight.mT)
        return z

    __call__ = forward

    def _prefers(self, features: Tensor) -> bool:
        """Whether factors serve these features with fewer multiplications than multiplied-out weights do."""
        if not isinstance(self.first, GramWeight) or "weights" in self.__dict__:
            return False
        passes = 2 if features.requires_grad and torch.is_grad_enabled() else 1
        count = features.shape[-2]
        width = self.biases[0].shape[1]
        form_weights = self.num_heads * self.first.samples.shape[-2] * width * self.num_features
        multiplied_out = form_weights + passes * count * self.num_heads * width * self.num_features
        return passes * self.first.multiplications(count, features.ndim == 2) < multiplied_out

    def predict(self, features: Tensor) -> Tensor:
        """Class numbers ``E x N`` (int64); with one output, class 1 where it is positive."""
        return self.classes(self.forward(features))

    def classes(self, logits: Tensor) -> Tensor:
        """The class numbers of logits ``E x N x K``."""
        return (logits[..., 0] > 0).long() if self.num_outputs == 1 else logits.argmax(dim=-1)

    def scaled_features(self, scale: float | Tensor) -> StackedHeads:
        """Heads that give for ``f`` what these give for ``scale * f``: the scale moves into the first layer.

        It is a number, or a tensor of one element (then nothing waits for the GPU). The new heads share the other
        layers and the biases with these.
        """
        first = self.first
        if isinstance(first, GramWeight):
            moved = dataclasses.replace(first, scale=first.scale * scale, coefficients=first.coefficients * scale)
            return StackedHeads(moved, self.later, self.biases)
        return StackedHeads(first * scale, self.later, self.biases)

    def multiplied_out(self) -> StackedHeads:
        """The same heads with plain first-layer weights, so that samples and initial numbers need not be kept."""
        return StackedHeads(self.weights[0], self.later, self.biases)

    def select(self, heads: slice) -> StackedHeads:
        """Some of the heads, such as ``slice(0, 4)``, as views: a stack of their own."""
        first = self.first
        if isinstance(first, GramWeight):
            samples = first.samples if first.samples.ndim == 2 else first.samples[heads]
            first = GramWeight(first.initial[heads], first.scale[heads], first.coefficients[heads], samples)
        else:
            first = first[heads]
        return StackedHeads(
            first, tuple(weight[heads] for weight in self.later), tuple(bias[heads] for bias in self.biases)
        )

    def linear_layers(self, head: int = 0) -> list[nn.Linear]:
        """Copies of one head's layers in forward order (ReLU goes between) as ``nn.Linear`` that require gradient."""
        layers = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            layer = nn.Linear(weight.shape[2], weight.shape[1], device="meta")
            layer.weight = nn.Parameter(weight[head].detach().clone())
            layer.bias = nn.Parameter(bias[head].detach().clone())
            layers.append(layer)
        return layers

    def state_dict(self, head: int = 0) -> dict[str, Tensor]:
        """Copies of one head's state under the keys of ``nn.Sequential(Linear, ReLU, Linear, ...)``."""
        state = {}
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            state[f"{2 * number}.weight"] = weight[head].detach().clone()
            state[f"{2 * number}.bias"] = bias[head].detach().clone()
        return state

    @classmethod
    def from_linear_layers(cls, heads: Sequence[Sequence[nn.Linear]]) -> StackedHeads:
        """Stacks copies of heads that were built elsewhere: of each its ``nn.Linear`` layers in forward order.

        All heads must have the same layer shapes and every layer a bias, or a ValueError says so.
        """
        shapes = {tuple(tuple(layer.weight.shape) for layer in layers) for layers in heads}
        if len(shapes) != 1 or not heads[0] or any(layer.bias is None for layers in heads for layer in layers):
            raise ValueError(
                "from_linear_layers needs one or more heads of the same layer shapes, each layer with a bias"
            )
        weights = [torch.stack([layer.weight.detach() for layer in layers]) for layers in zip(*heads, strict=True)]
        biases = [torch.stack([layer.bias.detach() for layer in layers]) for layers in zip(*heads, strict=True)]
        return cls(weights[0], tuple(weights[1:]), tuple(biases))


def head_seeds(seed: int | Sequence[int], num_heads: int) -> list[int]:
    """One seed per head: hashed from ``(seed, head)``, or the given ones.

    Args:
        seed: A seed for all, or E seeds.
        num_heads: E.

    Returns:
        E integers.

    Raises:
        ValueError: If the number of seeds is not E.
    """
    if isinstance(seed, int):
        return [key_to_seed("stacked-heads", seed, head) for head in range(num_heads)]
    if len(seed) != num_heads:
        raise ValueError(f"{num_heads} heads need {num_heads} seeds, got {len(seed)}")
    return list(seed)


def init_heads(
    num_heads: int,
    sizes: Sequence[int],
    *,
    init_std: float = 0.1,
    seed: int | Sequence[int] | Sequence[torch.Generator] = 0,
    first_layer_seed: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> StackedHeads:
    """Fresh heads: weights from N(0, init_std^2), biases zero (FOCA, section 4: standard deviation 0.1).

    A head's numbers depend on its own seed alone, so head e of many equals a lone head with that seed. They are drawn
    where the heads live: a GPU's numbers are not the CPU's.

    Args:
        num_heads: E, at least 1.
        sizes: Widths from features to outputs: ``(D, *hidden, K)``.
        init_std: Standard deviation of the weights. Default: 0.1.
        seed: One integer for all (each head gets a seed hashed from it and its number), E integers, or E generators
            (which then decide the device of the draw). Default: 0.
        first_layer_seed: All heads begin with one first layer, drawn by this seed; evaluating many heads of few samples
            each is then much cheaper. None (default): each has its own.
        device: Where the heads live. Default: CPU.
        dtype: ``torch.float32`` (default) or ``torch.float64``.

    Returns:
        The heads.

    Raises:
        ValueError: If E < 1, a width is below 1, fewer than two widths are given, ``init_std`` is negative, or the
            number of seeds is not E.
    """
    check_at_least("num_heads (E)", num_heads, 1)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes must be (features, *hidden, outputs), all at least 1, got {tuple(sizes)}")
    if not (init_std >= 0 and math.isfinite(init_std)):
        raise ValueError(f"init_std must be a finite number >= 0, got {init_std}")
    generators = _generators(num_heads, seed, device)
    where = generators[0].device
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    alone = num_heads if first_layer_seed is None else 1
    first = torch.empty(alone, *shapes[0], dtype=dtype, device=where)
    later = [torch.empty(num_heads, *shape, dtype=dtype, device=where) for shape in shapes[1:]]
    if first_layer_seed is None:
        _draw([first, *later], generators, init_std)
    else:
        _draw([first], [generator("first-layer", first_layer_seed, device=where)], init_std)
        _draw(later, generators, init_std)
        first = first.expand(num_heads, -1, -1)
    biases = tuple(torch.zeros(num_heads, size, dtype=dtype, device=device) for size in sizes[1:])
    return StackedHeads(first.to(device), tuple(weight.to(device) for weight in later), biases)


def redraw_heads(heads: StackedHeads, seed: int | Sequence[int], init_std: float) -> None:
    """Draws heads of :func:`init_heads` anew where they lie, which spares the price of fresh memory.

    Biases must be zero and the device that of the draw; a first layer that all heads share stays as it is.
    """
    weights = heads.later if _is_shared(heads.weights[0]) else heads.weights
    _draw(weights, _generators(heads.num_heads, seed, heads.weights[0].device), init_std)


def _generators(
    num_heads: int, seed: int | Sequence[int] | Sequence[torch.Generator], device: torch.device | str
) -> list[torch.Generator]:
    generators: list[torch.Generator] = []
    for one in head_seeds(seed, num_heads) if isinstance(seed, int) else seed:
        generators.append(one if isinstance(one, torch.Generator) else generator("head", one, device=device))
    if len(generators) != num_heads:
        raise ValueError(f"{num_heads} heads need {num_heads} seeds, got {len(generators)}")
    return generators


def _draw(weights: Sequence[Tensor], generators: Sequence[torch.Generator], init_std: float) -> None:
    """Fills every head's weights, layer after layer, from its own generator."""
    for head, stream in enumerate(generators):
        for weight in weights:
            weight[head].normal_(0.0, init_std, generator=stream)


def classification_error(
    heads: StackedHeads, features: Tensor, labels: Tensor, *, scale: float | Tensor = 1.0, chunk_size: int | None = None
) -> Tensor:
    """Fraction of samples that each head gets wrong.

    Args:
        heads: E heads.
        features: ``N x D``.
        labels: ``N`` integers.
        scale: Features are multiplied by this. Default: 1.
        chunk_size: Samples taken at once; None (default) keeps the first layer's values near 64 MB.

    Returns:
        ``E`` error rates in [0, 1], in the features' precision.

    Raises:
        ValueError: If features and labels do not fit together.
    """
    return held_out_scores(heads, features, labels, None, scale=scale, chunk_size=chunk_size)[0]


def held_out_scores(
    heads: StackedHeads,
    features: Tensor,
    labels: Tensor,
    loss: Loss | None = "cross_entropy",
    *,
    scale: float | Tensor = 1.0,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Fraction of samples that each head gets wrong, and its mean loss on them, without decay, from one pass.

    Args:
        heads: E heads.
        features: ``N x D``.
        labels: ``N`` integers.
        loss: ``"cross_entropy"`` (nats), ``"squared"`` (summed over outputs), or None: zeros in its place.
        scale: Features are multiplied by this. Default: 1.
        chunk_size: Samples taken at once; None (default) keeps the first layer's values near 64 MB.

    Returns:
        ``E`` error rates in [0, 1], in the features' precision, and ``E`` losses, float64.

    Raises:
        ValueError: If features and labels do not fit together.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"features N x D and labels N are needed, got shapes {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    if chunk_size is None:
        chunk_size = max(64, 2**24 // (heads.num_heads * heads.biases[0].shape[1]))
    with torch.no_grad():
        heads = heads.scaled_features(scale) if isinstance(scale, Tensor) or scale != 1.0 else heads
        if isinstance(heads.first, GramWeight) and not heads._prefers(features):
            _ = heads.weights  # multiplied out once for all chunks
        wrong = torch.zeros(heads.num_heads, dtype=torch.int64, device=features.device)
        losses = torch.zeros(heads.num_heads, dtype=torch.float64, device=features.device)
        for part, truth in zip(torch.split(features, chunk_size), torch.split(labels, chunk_size), strict=True):
            logits = heads.forward(part)
            wrong += (heads.classes(logits) != truth).sum(dim=1)
            if loss is not None:
                targets = make_targets(truth, heads.num_outputs, loss, logits.dtype).unsqueeze(0)
                losses += loss_per_head(logits, targets, loss, "sum")
    return wrong.to(heads.biases[0].dtype) / len(labels), losses / len(labels)
