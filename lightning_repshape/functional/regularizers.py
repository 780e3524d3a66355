r"""Class-wise representation regularizers and their all-class counterparts as functions of activations.

Choi and Rhee, "Utilizing Class Information for Deep Network Representation Shaping", AAAI 2019, Table 1. For a
minibatch of N samples (n_k of class k), I units, biased (1/N) statistics and the task's K classes:

- :func:`vr`     1/I * sum_i v_i
- :func:`cw_vr`  1/(K I) * sum_k sum_i v^k_i
- :func:`cr`     2/(I (I-1)) * sum_{i<j} c_ij^2
- :func:`cw_cr`  2/(K I (I-1)) * sum_k sum_{i<j} (c^k_ij)^2
- :func:`l1r`    1/(N I) * sum ``|z|``
- :func:`l1w`, :func:`l2w`  sum ``|w|``, sum w^2

A class without samples contributes 0, so does the variance of a single sample; K stays the task's number of classes.

With ``sync`` and an initialised ``torch.distributed`` the statistics are those of the joined batch of all processes,
and gradients are scaled for DistributedDataParallel's averaging. All processes must call the function equally often;
their batch sizes and classes may differ.

Arithmetic is float32 for half-precision activations, inside autocast too; float32 and float64 stay what they are.
Only first derivatives are defined: differentiating twice raises a RuntimeError.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_repshape.functional.checks import check_activations, check_labels
from lightning_repshape.functional.regularizer_kernels import (
    choose_class_covariance,
    class_covariance_loop,
    class_variance,
    covariance,
    differentiable,
    soft_class_variance,
    variance,
)
from lightning_repshape.functional.regularizer_ranks import joined_covariance, joined_l1, joined_variance, world_size

Positions = Literal["units", "samples"]
"""What a position of a convolutional activation is: a unit of its own for every channel, or one more sample."""


def vr(
    activations: Tensor,
    *,
    positions: Positions = "units",
    scale: float = 1.0,
    sync: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Variance regularizer: the mean over units of the biased variance over the batch.

    AAAI 2019, Table 1, Omega_VR = 1/I sum_i v_i, with gradient 2 (z - mu) / (N I).

    Args:
        activations: (N, I), or (N, C, H, W) and the like.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: positions are further samples.
        scale: Factor of the result.
        sync: Statistics of the joined batch of all processes.
        group: Process group of these.

    Returns:
        Scalar.

    Raises:
        TypeError: If the activations are no floating-point tensor.
        ValueError: If their shape or ``positions`` is wrong.

    Example:
        >>> vr(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        tensor(0.5000)
    """
    rows, _ = _rows(activations, positions, "vr")
    ranks = world_size(sync, group)
    if ranks > 1:
        return differentiable(rows, partial(joined_variance, ranks=ranks, group=group), scale)
    _check_not_empty(rows, "vr")
    return differentiable(rows, variance, scale)


def cw_vr(
    activations: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    positions: Positions = "units",
    scale: float = 1.0,
    sync: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Class-wise variance regularizer: the mean over classes and units of the biased variance within the class.

    AAAI 2019, Table 1, Omega_cw-VR = 1/(K I) sum_k sum_i v^k_i, with gradient 2 (z - mu_k) / (K I n_k).

    Args:
        activations: (N, I), or (N, C, H, W) and the like.
        labels: (N,) integers in 0..K-1, or (N, K) non-negative memberships.
        num_classes: K, the task's number of classes, not the batch's.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: positions are further samples.
        scale: Factor of the result.
        sync: Statistics of the joined batch of all processes.
        group: Process group of these.

    Returns:
        Scalar.

    Raises:
        TypeError: If activations or labels have the wrong type.
        ValueError: If a shape, a label (on the CPU) or ``positions`` is wrong.

    Example:
        >>> cw_vr(torch.tensor([[0.0], [2.0], [7.0]]), torch.tensor([0, 0, 1]), 2)
        tensor(0.5000)
    """
    rows, labels, soft = _rows_and_labels(activations, labels, num_classes, positions, "cw_vr")
    classes: dict[str, Any] = {"labels": labels, "num_classes": num_classes}
    ranks = world_size(sync, group)
    if ranks > 1:
        return differentiable(rows, partial(joined_variance, **classes, ranks=ranks, group=group), scale)
    _check_not_empty(rows, "cw_vr")
    return differentiable(rows, partial(soft_class_variance if soft else class_variance, **classes), scale)


def cr(
    activations: Tensor,
    *,
    positions: Positions = "units",
    scale: float = 1.0,
    sync: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Covariance regularizer (DeCov): the mean over pairs of units of the squared covariance over the batch.

    AAAI 2019, Table 1, Omega_CR = 2/(I (I-1)) sum_{i<j} c_ij^2, with gradient
    4/(N I (I-1)) sum_{j != i} c_ij (z_j - mu_j). The table prints the sum over i != j; its gradient is that of i < j.

    Args:
        activations: (N, I), or (N, C, H, W) and the like, of at least two units.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: positions are further samples.
        scale: Factor of the result.
        sync: Statistics of the joined batch of all processes.
        group: Process group of these.

    Returns:
        Scalar.

    Raises:
        TypeError: If the activations are no floating-point tensor.
        ValueError: If their shape or ``positions`` is wrong, or there is one unit only.

    Example:
        >>> cr(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
        tensor(4.)
    """
    rows, _ = _rows(activations, positions, "cr")
    _check_pairs(rows, "cr")
    ranks = world_size(sync, group)
    if ranks > 1:
        return differentiable(rows, partial(joined_covariance, ranks=ranks, group=group), scale)
    _check_not_empty(rows, "cr")
    return differentiable(rows, covariance, scale)


def cw_cr(
    activations: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    positions: Positions = "units",
    scale: float = 1.0,
    sync: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Class-wise covariance regularizer: the mean over classes and pairs of units of the squared class covariance.

    AAAI 2019, Eq. 5 and Table 1, Omega_cw-CR = 2/(K I (I-1)) sum_k sum_{i<j} (c^k_ij)^2, with gradient
    4/(K I (I-1) n_k) sum_{j != i} c^k_ij (z_j - mu^k_j).

    Args:
        activations: (N, I), or (N, C, H, W) and the like, of at least two units.
        labels: (N,) integers in 0..K-1, or (N, K) non-negative memberships, which are slower.
        num_classes: K, the task's number of classes, not the batch's.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: positions are further samples.
        scale: Factor of the result.
        sync: Statistics of the joined batch of all processes.
        group: Process group of these.

    Returns:
        Scalar.

    Raises:
        TypeError: If activations or labels have the wrong type.
        ValueError: If a shape, a label (on the CPU) or ``positions`` is wrong, or there is one unit only.

    Example:
        >>> cw_cr(torch.tensor([[0.0, 0.0], [2.0, 4.0], [7.0, 9.0]]), torch.tensor([0, 0, 1]), 2)
        tensor(2.)
    """
    rows, labels, soft = _rows_and_labels(activations, labels, num_classes, positions, "cw_cr")
    _check_pairs(rows, "cw_cr")
    classes: dict[str, Any] = {"labels": labels, "num_classes": num_classes}
    ranks = world_size(sync, group)
    if ranks > 1:
        return differentiable(rows, partial(joined_covariance, **classes, ranks=ranks, group=group), scale)
    _check_not_empty(rows, "cw_cr")
    kernel = class_covariance_loop if soft else choose_class_covariance(rows, labels, num_classes)
    return differentiable(rows, partial(kernel, **classes), scale)


def l1r(
    activations: Tensor, *, scale: float = 1.0, sync: bool = False, group: dist.ProcessGroup | None = None
) -> Tensor:
    """L1 penalty of a representation: the mean of absolute activations, 1/(N I) sum ``|z|``.

    Args:
        activations: (N, I), or (N, C, H, W) and the like.
        scale: Factor of the result.
        sync: The mean over the joined batch of all processes, which differs from the mean of their means where batch
            sizes differ.
        group: Process group of these.

    Returns:
        Scalar.

    Raises:
        TypeError: If the activations are no floating-point tensor.
        ValueError: If their shape is wrong.

    Example:
        >>> l1r(torch.tensor([[1.0, -3.0]]))
        tensor(2.)
    """
    rows, _ = _rows(activations, "units", "l1r")
    ranks = world_size(sync, group)
    if ranks > 1:
        return differentiable(rows, partial(joined_l1, ranks=ranks, group=group), scale)
    _check_not_empty(rows, "l1r")
    return rows.abs().mean() * scale


def l1w(weights: Tensor | Iterable[Tensor]) -> Tensor:
    """L1 weight decay: the sum of absolute weights (AAAI 2019, baseline L1W).

    Args:
        weights: One weight tensor or several.

    Returns:
        Scalar.

    Raises:
        TypeError: If a weight is no floating-point tensor.
        ValueError: If there are none.

    Example:
        >>> l1w(torch.tensor([[1.0, -3.0]]))
        tensor(4.)
    """
    return torch.stack([weight.abs().sum() for weight in _weights(weights, "l1w")]).sum()


def l2w(weights: Tensor | Iterable[Tensor]) -> Tensor:
    """L2 weight decay: the sum of squared weights (AAAI 2019, baseline L2W).

    Args:
        weights: One weight tensor or several.

    Returns:
        Scalar.

    Raises:
        TypeError: If a weight is no floating-point tensor.
        ValueError: If there are none.

    Example:
        >>> l2w(torch.tensor([[1.0, -3.0]]))
        tensor(10.)
    """
    return torch.stack([weight.square().sum() for weight in _weights(weights, "l2w")]).sum()


def _rows(activations: Tensor, positions: str, name: str) -> tuple[Tensor, int]:
    """Activations as (samples, units) in float32 or float64, and how often every sample's label repeats."""
    check_activations(activations, f"{name}: ")
    if positions not in ("units", "samples"):
        raise ValueError(f"{name}: positions must be 'units' or 'samples', got {positions!r}")
    repeats = 1
    if activations.ndim > 2:
        # Flattening with the channels last is a view in channels_last memory; the order of units does not matter.
        if positions == "samples":
            repeats = activations[0, 0].numel() if activations.shape[0] and activations.shape[1] else 1
            activations = activations.movedim(1, -1).flatten(0, -2)
        elif activations.ndim == 4 and activations.is_contiguous(memory_format=torch.channels_last):
            activations = activations.permute(0, 2, 3, 1).flatten(1)
        else:
            activations = activations.flatten(1)
    if activations.shape[1] == 0:
        raise ValueError(f"{name}: activations have no units")
    if activations.dtype in (torch.float32, torch.float64):
        return activations, repeats
    return activations.float(), repeats


def _rows_and_labels(
    activations: Tensor, labels: Tensor, num_classes: int, positions: str, name: str
) -> tuple[Tensor, Tensor, bool]:
    """Rows as in :func:`_rows`, labels on their device, one a row, and whether the labels are soft."""
    rows, repeats = _rows(activations, positions, name)
    if labels is None:
        raise ValueError(f"{name} needs labels, got None")
    soft = check_labels(labels, activations.shape[0], num_classes)
    if labels.device != rows.device:
        raise ValueError(f"{name}: activations are on {rows.device}, labels on {labels.device}")
    labels = labels.detach().to(rows.dtype) if soft else labels.long()
    if repeats > 1:
        labels = labels.repeat_interleave(repeats, dim=0)
    return rows, labels, soft


def _check_not_empty(rows: Tensor, name: str) -> None:
    if rows.shape[0] == 0:
        raise ValueError(f"{name}: the batch is empty")


def _check_pairs(rows: Tensor, name: str) -> None:
    if rows.shape[1] < 2:
        raise ValueError(f"{name}: a covariance needs at least two units, the activations have one")


def _weights(weights: Tensor | Iterable[Tensor], name: str) -> list[Tensor]:
    listed = [weights] if isinstance(weights, Tensor) else list(weights)
    if not listed:
        raise ValueError(f"{name}: there are no weights")
    for weight in listed:
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            kind = getattr(weight, "dtype", type(weight).__name__)
            raise TypeError(f"{name}: weights must be floating-point tensors, got {kind}")
    half = any(weight.dtype in (torch.float16, torch.bfloat16) for weight in listed)
    return [weight.float() for weight in listed] if half else listed
