"""Checks of what a caller hands in, the targets and losses made of it, and the precision it is computed in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape.functional.checks import check_integers

Loss = Literal["cross_entropy", "squared"]
Reduction = Literal["mean", "sum"]
Form = Literal["auto", "primal", "gram"]


@contextlib.contextmanager
def full_precision(tensor: Tensor) -> Iterator[None]:
    """Switches autocast off on the tensor's device: heads are small, and their solve needs all of float32's digits."""
    with torch.autocast(device_type=tensor.device.type, enabled=False):
        yield


def as_solver_dtype(features: Tensor) -> Tensor:
    """Features without graph, in the precision of the solve: half becomes float32, float32 and float64 stay."""
    features = features.detach()
    return features if features.dtype in (torch.float32, torch.float64) else features.float()


def check_shapes(features: Tensor, labels: Tensor, num_heads: int, indices: Tensor | None = None) -> None:
    """Checks what can be checked without looking at a value (on a GPU: without waiting for it)."""
    if not features.is_floating_point():
        raise TypeError(f"features must be floating point, got {features.dtype}")
    if features.ndim not in (2, 3) or features.shape[-2] == 0:
        raise ValueError(f"features must be N x D or E x N x D with N >= 1, got shape {tuple(features.shape)}")
    if features.ndim == 3 and features.shape[0] != num_heads:
        raise ValueError(f"features of {features.shape[0]} heads were given for {num_heads} heads")
    check_integers("labels", labels)
    count = features.shape[-2]
    if tuple(labels.shape) not in ((count,), (num_heads, count)):
        raise ValueError(
            f"labels must have the shape ({count},) or ({num_heads}, {count}) to go with features of shape "
            f"{tuple(features.shape)}, got {tuple(labels.shape)}"
        )
    if indices is not None:
        if features.ndim != 2 or labels.ndim != 1:
            raise ValueError("indices choose samples from features N x D and labels N that all heads share")
        if indices.dtype != torch.int64:
            raise TypeError(f"indices must be int64, got {indices.dtype}")
        if indices.ndim != 2 or indices.shape[0] != num_heads or indices.shape[1] == 0:
            raise ValueError(
                f"indices must be E x n with E = {num_heads} heads and n >= 1, got shape {tuple(indices.shape)}"
            )


def check_values(features: Tensor, labels: Tensor, num_classes: int, indices: Tensor | None = None) -> None:
    """Checks the values: finite features, labels within the classes, indices within the samples."""
    # The sum shows nearly every NaN or infinity in one pass; only where it is not finite each value is looked at.
    if not bool(features.sum().isfinite()) and not bool(features.isfinite().all()):
        bad = int((~features.isfinite()).sum())
        raise ValueError(f"features hold {bad} values that are NaN or infinite, of {features.numel()}")
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got values from {low} to {high}")
    if indices is not None:
        low, high = (int(bound) for bound in indices.aminmax())
        if low < 0 or high >= features.shape[0]:
            raise ValueError(f"indices must lie in 0..{features.shape[0] - 1}, got values from {low} to {high}")


def make_targets(labels: Tensor, num_outputs: int, loss: Loss, dtype: torch.dtype) -> Tensor:
    """Targets ``... x N x outputs`` of labels ``... x N``: one-hot, or -1 and +1 for the squared loss of one output."""
    if num_outputs == 1 and loss == "squared":
        return (2 * labels - 1).to(dtype).unsqueeze(-1)
    classes = torch.arange(num_outputs, device=labels.device)
    return (labels.unsqueeze(-1) == classes).to(dtype)  # unlike one_hot, this never waits for the GPU


def loss_per_head(logits: Tensor, targets: Tensor, loss: Loss, reduction: Reduction) -> Tensor:
    """The ``E`` losses of logits ``E x N x K`` without decay; targets may be shared (1 x N x K).

    The squared loss is summed over outputs; ``reduction`` is over samples.
    """
    if loss == "cross_entropy":
        per_sample = -(F.log_softmax(logits, dim=-1) * targets).sum(dim=-1)
    else:
        per_sample = (logits - targets).square().sum(dim=-1)
    return per_sample.mean(dim=1) if reduction == "mean" else per_sample.sum(dim=1)


def num_classes_of(num_outputs: int, loss: Loss) -> int:
    """How many classes heads with ``num_outputs`` outputs tell apart; one output stands for two classes."""
    if num_outputs > 1:
        return num_outputs
    if loss == "cross_entropy":
        raise ValueError(
            "cross entropy needs one output per class; one output for two classes goes with loss='squared'"
        )
    return 2
