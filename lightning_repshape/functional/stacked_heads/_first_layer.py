"""The first layer during descent, in primal or Gram form, and the samples that it reads.

Every gradient of the first layer is ``G^T X`` with ``G = dL/dZ`` of its n samples, so from initial numbers ``W0``
descent only ever reaches ``W = c W0 + A^T X``. The Gram form carries ``A`` (n x H) and ``c`` instead of ``W`` (H x D)
and needs the samples only through ``K = X X^T``. The bias obeys the same recurrence with a feature that is always 1,
so ``K + 1`` takes it in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lightning_repshape.functional.stacked_heads.heads import GramWeight, StackedHeads


def take(stacked: Tensor, rows: Tensor | None) -> Tensor:
    """Rows ``E x m`` of ``(1 or E) x N x ...``; None: all rows, as they are."""
    if rows is None:
        return stacked
    if stacked.shape[0] == 1:
        return stacked[0][rows]
    return stacked[torch.arange(len(rows), device=rows.device).unsqueeze(1), rows]


class Parameters:
    """Tensors that descend with momentum and decay, in one flat storage, so that a step is one operation for all.

    SGD's step for parameters p, velocities v and gradients g is ``v <- momentum v + g + 2 lam p; p <- p - rate v``:
    three passes over memory where one will do. Carry the anchors ``a = p + v / k`` instead of v, with k the small root
    of ``momentum rate k^2 + (1 - momentum - 2 lam rate) k + 2 lam = 0``. In them the step reads

        a <- keep a + take g;    p <- p + mix (a - p)

    with ``r = 1 - k rate, keep = r momentum, take = r / k, mix = -k rate / r``, and the first line goes into the matrix
    product that makes g. Without decay, or where k is not real (decay is strong against 1 - momentum), plain velocities
    are carried: ``keep = momentum, take = 1``. With Nesterov's momentum, ``p <- p - rate (g + 2 lam p + momentum v)``
    with the new v, no two tensors are enough: memories hold the gradient (``keep = 0, take = 1``), beside velocities.

    Attributes:
        values: The parameters, as views of the storage.
        memories: Their anchors or velocities, likewise; the caller turns m into ``keep m + take g``, then calls
            :meth:`move`.
        keep: See above.
        take: See above.
    """

    def __init__(
        self, tensors: Sequence[Tensor], rate: float, momentum: float, lam: float, nesterov: bool = False
    ) -> None:
        self._rate, self._decay, self._momentum = rate, 2 * lam, momentum
        slope = 1 - momentum - self._decay * rate
        square = slope * slope - 4 * momentum * rate * self._decay
        self._anchored = lam > 0 and slope > 0 and square >= 0 and not nesterov
        self._flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._velocity = torch.zeros_like(self._flat) if nesterov else None
        if self._anchored:
            root = -2 * self._decay / (slope + math.sqrt(square))
            growth = 1 - root * rate
            self.keep, self.take, self._mix = growth * momentum, growth / root, -root * rate / growth
            self._memory = self._flat.clone()
        else:
            self.keep, self.take, self._mix = 0.0 if nesterov else momentum, 1.0, 0.0
            self._memory = torch.zeros_like(self._flat)
        sizes = [tensor.numel() for tensor in tensors]
        self.values, self.memories = (
            [part.view(tensor.shape) for part, tensor in zip(torch.split(flat, sizes), tensors, strict=True)]
            for flat in (self._flat, self._memory)
        )

    def move(self) -> None:
        """Ends an update, once the memories have taken in the gradients."""
        if self._anchored:
            self._flat.lerp_(self._memory, self._mix)
        else:
            if self._decay > 0:
                self._memory.add_(self._flat, alpha=self._decay)
            if self._velocity is not None:
                self._velocity.mul_(self._momentum).add_(self._memory)
                self._flat.add_(self._velocity, alpha=-self._rate * self._momentum)
            self._flat.add_(self._memory, alpha=-self._rate)


@dataclasses.dataclass(frozen=True)
class Samples:
    """What the heads of a block learn from.

    Attributes:
        features: ``(1 or E) x N x D``; 1: shared by all heads.
        labels: ``(1 or E) x n``, of each head's own n samples.
        rows: ``E x n``, where a head's own samples lie among shared features; None: they are all N, in their order.
    """

    features: Tensor
    labels: Tensor
    rows: Tensor | None

    @property
    def count(self) -> int:
        """n, samples of a head."""
        return self.labels.shape[1]

    def block(self, heads: slice) -> Samples:
        """The same for some of the heads."""
        rows = None if self.rows is None else self.rows[heads]
        features, labels = (one if one.shape[0] == 1 else one[heads] for one in (self.features, self.labels))
        return Samples(features, labels, rows)


def choose_samples(
    features: Tensor, labels: Tensor, indices: Tensor | None, gram: bool, batch_size: int | None, width: int
) -> Samples:
    """Gathers each head's samples once, unless it is less work to keep them as rows of the shared ones.

    With ``gram``, one N x N kernel stands against E of n x n; minibatches (``batch_size``) in primal form are gathered
    when they come. ``width`` is H.
    """
    features = features if features.ndim == 3 else features.unsqueeze(0)
    labels = labels if labels.ndim == 2 else labels.unsqueeze(0)
    if indices is None:
        return Samples(features, labels, None)
    num_heads, count = indices.shape
    total = features.shape[1]
    shared_is_cheaper = total * (total + num_heads * width) <= num_heads * count * (count + width)
    keep_rows = shared_is_cheaper if gram else batch_size is not None
    if keep_rows:
        return Samples(features, labels[0][indices], indices)
    return Samples(features[0][indices], labels[0][indices], None)


class FirstLayer(Protocol):
    """What descent asks of the first layer; ``at`` are positions ``E x m`` among a head's own samples, None for all."""

    def parameters(self) -> list[Tensor]:
        """The tensors that descent moves, at the start."""

    def attach(self, values: Sequence[Tensor], memories: Sequence[Tensor]) -> None:
        """Hands over where these tensors and their memories lie during the descent."""

    def forward(self, at: Tensor | None, out: Tensor | None) -> Tensor:
        """Values before ReLU, ``E x m x H``."""

    def accumulate(self, gradient: Tensor, at: Tensor | None, keep: float) -> None:
        """Memories become keep * memory + gradient; given is the gradient with respect to the values."""

    def decay(self, rate: float, momentum: float, lam: float, nesterov: bool) -> None:
        """Decays what is no parameter."""

    def scales(self) -> Tensor:
        """``E``, what decay has left of the initial numbers."""

    def restore(self, scales: Tensor) -> None:
        """Takes back earlier scales, one a head."""

    def weight_and_bias(self, values: Sequence[Tensor], scales: Tensor) -> tuple[Tensor | GramWeight, Tensor]:
        """The layer that given parameters and scales stand for."""


class PrimalLayer:
    """Carries its weights, ``E x H x D``."""

    def __init__(self, initial: StackedHeads, samples: Samples) -> None:
        self._initial, self._samples = initial, samples

    def parameters(self) -> list[Tensor]:
        return [self._initial.weights[0], self._initial.biases[0]]

    def attach(self, values: Sequence[Tensor], memories: Sequence[Tensor]) -> None:
        self._weight, self._bias = values
        self._weight_memory, self._bias_memory = memories

    def forward(self, at: Tensor | None, out: Tensor | None) -> Tensor:
        rows = self._samples.rows
        if rows is not None:
            at = rows if at is None else rows.gather(1, at)
        self._batch = take(self._samples.features, at).expand(self._initial.num_heads, -1, -1)
        return torch.baddbmm(self._bias.unsqueeze(1), self._batch, self._weight.mT, out=out)

    def accumulate(self, gradient: Tensor, at: Tensor | None, keep: float) -> None:
        self._weight_memory.baddbmm_(gradient.mT, self._batch, beta=keep)
        torch.add(gradient.sum(dim=1), self._bias_memory, alpha=keep, out=self._bias_memory)

    def decay(self, rate: float, momentum: float, lam: float, nesterov: bool) -> None:
        """All numbers are parameters here."""

    def scales(self) -> Tensor:
        return self._bias.new_ones(self._initial.num_heads)

    def restore(self, scales: Tensor) -> None:
        """There are none."""

    def weight_and_bias(self, values: Sequence[Tensor], scales: Tensor) -> tuple[Tensor | GramWeight, Tensor]:
        return values[0], values[1]


class GramLayer:
    """Carries its coefficients in the samples, ``E x n x H``, and the scale of its initial numbers."""

    def __init__(self, initial: StackedHeads, samples: Samples) -> None:
        self._initial, self._samples = initial, samples
        x, rows, weight = samples.features, samples.rows, initial.weights[0]
        num_heads, width, _ = weight.shape
        kernel = torch.bmm(x, x.mT).add_(1.0)
        if x.shape[0] == 1 and weight.stride(0) == 0:
            origin = (x @ weight[:1].mT) + initial.biases[0].unsqueeze(1)
        else:
            origin = torch.baddbmm(initial.biases[0].unsqueeze(1), x.expand(num_heads, -1, -1), weight.mT)
        if rows is not None:
            kernel = kernel[0][rows.unsqueeze(2), rows.unsqueeze(1)]
            origin = origin.gather(1, rows.unsqueeze(2).expand(-1, -1, width))
        self._kernel, self._origin = kernel.expand(num_heads, -1, -1), origin
        self._scale, self._scale_velocity = 1.0, 0.0
        self._largest = torch.finfo(x.dtype).max

    def parameters(self) -> list[Tensor]:
        return [torch.zeros_like(self._origin)]

    def attach(self, values: Sequence[Tensor], memories: Sequence[Tensor]) -> None:
        (self._coefficients,), (self._memory,) = values, memories

    def forward(self, at: Tensor | None, out: Tensor | None) -> Tensor:
        origin, kernel = take(self._origin, at), take(self._kernel, at)
        return torch.baddbmm(origin, kernel, self._coefficients, beta=self._scale, out=out)

    def accumulate(self, gradient: Tensor, at: Tensor | None, keep: float) -> None:
        if at is None:
            torch.add(gradient, self._memory, alpha=keep, out=self._memory)
        else:
            self._memory.mul_(keep).scatter_add_(1, at.unsqueeze(2).expand_as(gradient), gradient)

    def decay(self, rate: float, momentum: float, lam: float, nesterov: bool) -> None:
        """The initial numbers shrink by the recurrence of a parameter that has no gradient but its decay."""
        gradient = 2 * lam * self._scale
        self._scale_velocity = momentum * self._scale_velocity + gradient
        self._scale -= rate * (gradient + momentum * self._scale_velocity if nesterov else self._scale_velocity)
        if abs(self._scale) > self._largest:  # diverged; a number that the tensors' type cannot hold would raise
            self._scale = math.inf

    def scales(self) -> Tensor:
        return self._coefficients.new_full((self._initial.num_heads,), self._scale)

    def restore(self, scales: Tensor) -> None:
        self._origin, self._scale = self._origin * scales[:, None, None], 1.0

    def weight_and_bias(self, values: Sequence[Tensor], scales: Tensor) -> tuple[Tensor | GramWeight, Tensor]:
        coefficients, features = values[0], self._samples.features
        bias = coefficients.sum(dim=1).addcmul_(self._initial.biases[0], scales.unsqueeze(1))
        if self._samples.rows is not None:  # from a head's own samples back to the shared ones; repeated rows add up
            rows = self._samples.rows.unsqueeze(2).expand_as(coefficients)
            spread = coefficients.new_zeros(len(scales), features.shape[1], coefficients.shape[2])
            coefficients = spread.scatter_add_(1, rows, coefficients)
        features = features[0] if features.shape[0] == 1 else features
        return GramWeight(self._initial.weights[0], scales, coefficients, features), bias
