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

How it is computed. The statistic and its gradient are found together, by hand, outside the autograd graph; the backward
pass is one multiplication. Squared covariances never need a K x I x I array: sum_j c^k_ij z_j is also a product with
the class's n_k x n_k Gram matrix of centred activations, from which the diagonal's part v^k_i z_i is taken away.
Which of the equal forms is used (one Gram product under a same-class mask; Gram products of bins that hold whole
classes; class by class through the smaller of Gram and covariance matrix) follows from an estimate of their costs.

Arithmetic is float32 for half-precision activations, inside autocast too; float32 and float64 stay what they are.
Only first derivatives are defined: differentiating twice raises a RuntimeError.

Several processes (``sync=True`` and an initialised ``torch.distributed``): the penalty is that of the joined batch.
Every process returns the same value, and sends W times its derivative into its own activations (W processes), because
DistributedDataParallel divides the sum of the processes' gradients by W. Counts, class sums and the value are
reduced in the forward pass; the backward pass communicates nothing, since the derivative of the joined statistic by
one's own activations needs the reduced statistics alone. For ``cr`` and ``cw_cr`` either covariances are reduced (where
their K I^2 numbers are no more than the joined batch's N I activations) or the activations of all processes are
gathered. All processes of the group must call the function equally often; their batch sizes and classes may differ.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from lightning_repshape.functional.class_statistics import (
    check_label_range,
    check_labels,
    class_groups,
    class_sums,
)

Positions = Literal["units", "samples"]
"""What a position of a convolutional activation is: a unit of its own for every channel, or one more sample."""

# (value, direction, factor, degree): the penalty is factor * value, its gradient degree * factor * direction.
_Result = tuple[Tensor, Tensor, float, float]
_Kernel = Callable[[Tensor], _Result]

# Rough costs in nanoseconds on one CPU core, from which a form of cw-CR is chosen; only their ratios matter.
_NS_PER_MAC = 0.03  # one multiply-add of a big product
_NS_PER_PAIR = 0.5  # comparing the labels of two samples, and masking their product
_NS_PER_ELEMENT = 3.0  # gathering, centring, squaring and scattering one activation
_NS_PER_CLASS = 60_000.0  # the operations of one round of a loop over classes
_NS_BINS = 100_000.0  # packing classes into bins
_BIN = 16  # samples in a bin at least
_DOT = 2**16  # longest dot product
_MAX_MASK = 2**26  # entries of a masked N x N Gram matrix
_MAX_MACS_WITHOUT_SYNC = 2e10  # accelerators: below this, waiting for class counts costs more than it saves


# ----------------------------------------------------------------------------------------------------- public functions


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
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: channels are units and positions count
            as further samples. Default: ``"units"``.
        scale: Factor of the result; cheaper than multiplying it afterwards. Default: 1.
        sync: Statistics of the joined batch of all processes; gradients are scaled for
            DistributedDataParallel's averaging. No effect without an initialised process group. Default: False.
        group: Process group. Default: the world.

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
    ranks = _world(sync, group)
    if ranks > 1:
        return _apply(rows, partial(_sync_variance, labels=None, num_classes=1, ranks=ranks, group=group), scale)
    _check_not_empty(rows, "vr")
    return _apply(rows, _variance, scale)


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
        labels: (N,) integers in 0..K-1, or (N, K) non-negative memberships (soft labels).
        num_classes: K, the task's number of classes, not the batch's.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: channels are units and positions count
            as further samples of their image's class. Default: ``"units"``.
        scale: Factor of the result; cheaper than multiplying it afterwards. Default: 1.
        sync: Statistics of the joined batch of all processes; gradients are scaled for
            DistributedDataParallel's averaging. No effect without an initialised process group. Default: False.
        group: Process group. Default: the world.

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
    ranks = _world(sync, group)
    if ranks > 1:
        return _apply(
            rows, partial(_sync_variance, labels=labels, num_classes=num_classes, ranks=ranks, group=group), scale
        )
    _check_not_empty(rows, "cw_vr")
    kernel = _soft_class_variance if soft else _class_variance
    return _apply(rows, partial(kernel, labels=labels, num_classes=num_classes), scale)


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
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: channels are units and positions count
            as further samples. Default: ``"units"``.
        scale: Factor of the result; cheaper than multiplying it afterwards. Default: 1.
        sync: Statistics of the joined batch of all processes; gradients are scaled for
            DistributedDataParallel's averaging. No effect without an initialised process group. Default: False.
        group: Process group. Default: the world.

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
    ranks = _world(sync, group)
    if ranks > 1:
        return _apply(rows, partial(_sync_covariance, labels=None, num_classes=1, ranks=ranks, group=group), scale)
    _check_not_empty(rows, "cr")
    return _apply(rows, _covariance, scale)


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
        labels: (N,) integers in 0..K-1, or (N, K) non-negative memberships (soft labels: slower).
        num_classes: K, the task's number of classes, not the batch's.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: channels are units and positions count
            as further samples of their image's class. Default: ``"units"``.
        scale: Factor of the result; cheaper than multiplying it afterwards. Default: 1.
        sync: Statistics of the joined batch of all processes; gradients are scaled for
            DistributedDataParallel's averaging. No effect without an initialised process group. Default: False.
        group: Process group. Default: the world.

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
    ranks = _world(sync, group)
    if ranks > 1:
        return _apply(
            rows, partial(_sync_covariance, labels=labels, num_classes=num_classes, ranks=ranks, group=group), scale
        )
    _check_not_empty(rows, "cw_cr")
    if soft:
        return _apply(rows, partial(_class_covariance_loop, labels=labels, num_classes=num_classes), scale)
    kernel = _choose_class_covariance(rows, labels, num_classes)
    return _apply(rows, partial(kernel, labels=labels, num_classes=num_classes), scale)


def l1r(
    activations: Tensor,
    *,
    scale: float = 1.0,
    sync: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """L1 penalty of a representation: the mean of absolute activations, 1/(N I) sum ``|z|``.

    Args:
        activations: (N, I), or (N, C, H, W) and the like.
        scale: Factor of the result. Default: 1.
        sync: The mean over the joined batch of all processes, which differs from the mean of their means where batch
            sizes differ. No effect without an initialised process group. Default: False.
        group: Process group. Default: the world.

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
    ranks = _world(sync, group)
    if ranks > 1:
        return _apply(rows, partial(_sync_l1, ranks=ranks, group=group), scale)
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


# ------------------------------------------------------------------------------------------------------------ bad input


def _rows(activations: Tensor, positions: str, name: str) -> tuple[Tensor, int]:
    """Activations as (samples, units) in float32 or float64, and how often every sample's label repeats."""
    if not isinstance(activations, Tensor):
        raise TypeError(f"{name}: activations must be a tensor, got {type(activations).__name__}")
    if not activations.is_floating_point():
        raise TypeError(f"{name}: activations must be floating point, got {activations.dtype}")
    if activations.ndim < 2:
        raise ValueError(f"{name}: activations must have shape (samples, units, ...), got {tuple(activations.shape)}")
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


# ------------------------------------------------------------------------------------------------------ differentiation


class _FirstDerivative(torch.autograd.Function):
    """Scalar of rows whose gradient was computed along with it."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, kernel: _Kernel, scale: float) -> Tensor:
        ctx.set_materialize_grads(False)
        if torch.is_autocast_enabled(rows.device.type):
            with torch.autocast(rows.device.type, enabled=False):
                value, direction, factor, degree = kernel(rows)
        else:
            value, direction, factor, degree = kernel(rows)
        ctx.save_for_backward(direction)
        ctx.factor = degree * factor * scale  # type: ignore[attr-defined]
        return value.mul_(factor * scale)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_output: Tensor | None) -> tuple[Tensor | None, None, None]:
        if grad_output is None:  # of a graph that something else goes backward through
            return None, None, None
        (direction,) = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient = direction * (grad_output * ctx.factor)  # type: ignore[attr-defined]
        if torch.is_grad_enabled():  # only under create_graph=True
            gradient = _NoSecondDerivative.apply(gradient, torch.ones((), requires_grad=True))
        return gradient, None, None


class _NoSecondDerivative(torch.autograd.Function):
    """The identity, until somebody differentiates it."""

    @staticmethod
    def forward(ctx: FunctionCtx, gradient: Tensor, marker: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor, None]:
        raise RuntimeError(
            "vr, cw_vr, cr, cw_cr have first derivatives only, written by hand; they cannot be differentiated twice"
        )


def _apply(rows: Tensor, kernel: _Kernel, scale: float) -> Tensor:
    value: Tensor = _FirstDerivative.apply(rows, kernel, scale)
    return value


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Sum of products of two tensors of one shape."""
    if left.device.type != "cpu":
        return (left * right).sum()
    # A dot product needs no temporary, but over many millions of float32 numbers it loses digits: hence the pieces.
    left, right = left.reshape(-1), right.reshape(-1)
    if left.shape[0] <= _DOT:
        return torch.dot(left, right)
    pieces = zip(torch.split(left, _DOT), torch.split(right, _DOT), strict=True)
    return torch.stack([torch.dot(x, y) for x, y in pieces]).sum()


# ------------------------------------------------------------------------------------------------------------ variances


def _variance(rows: Tensor) -> _Result:
    centered = rows - rows.mean(0)
    size = rows.numel()
    return _inner(centered, centered), centered, 1 / size, 2


def _class_variance(rows: Tensor, *, labels: Tensor, num_classes: int) -> _Result:
    centered, counts, *_ = _center_by_class(rows, labels, num_classes)
    scaled = centered / counts
    size = num_classes * rows.shape[1]
    return _inner(centered, scaled), scaled, 1 / size, 2


class _Centered(NamedTuple):
    """Rows less their class means, and what was needed on the way."""

    rows: Tensor  # (N, I)
    counts: Tensor  # (N, 1) n_k of every sample's class
    labels: Tensor  # (N,), renumbered where there are more classes than samples
    num_classes: int


def _center_by_class(rows: Tensor, labels: Tensor, num_classes: int) -> _Centered:
    if num_classes > rows.shape[0] and rows.device.type == "cpu":
        check_label_range(labels, num_classes)
        labels = torch.unique(labels, return_inverse=True)[1]  # most classes are absent: leave them out
        num_classes = rows.shape[0]
    counts, sums = class_sums(rows, labels, num_classes)
    counts = counts.unsqueeze(1)
    means = sums.div_(counts).index_select(0, labels)  # nobody selects the 0/0 of an absent class
    centered = torch.sub(rows, means, out=means)
    return _Centered(centered, counts.index_select(0, labels), labels, num_classes)


def _soft_class_variance(rows: Tensor, *, labels: Tensor, num_classes: int) -> _Result:
    size = num_classes * rows.shape[1]
    counts, sums = class_sums(rows, labels, num_classes)
    counts = _nonzero(counts)
    value, direction = _around_soft_means(rows, labels / counts, sums / counts.unsqueeze(1))
    return value, direction, 1 / size, 2


def _around_soft_means(rows: Tensor, shares: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over n, k of share_nk |z_n - mu_k|^2 and half its gradient by z, one class at a time."""
    value = rows.new_zeros(())
    direction = torch.zeros_like(rows)
    for mean, share in zip(means, shares.t(), strict=True):
        deviation = rows - mean
        scaled = deviation * share.unsqueeze(1)
        value += _inner(deviation, scaled)
        direction += scaled
    return value, direction


def _nonzero(counts: Tensor) -> Tensor:
    """Counts with 1 in the place of 0, for dividing what is 0 anyway."""
    return torch.where(counts > 0, counts, 1)


# ---------------------------------------------------------------------------------------------------------- covariances
# The penalty is homogeneous of degree four in the centred activations, so that it is their inner product with a quarter
# of its gradient: no covariance needs to be squared for the value.


def _covariance(rows: Tensor) -> _Result:
    samples, units = rows.shape
    centered = rows - rows.mean(0)
    factor = 1 / (units * (units - 1) * samples**2)
    if units <= samples:
        direction = centered @ (centered.t() @ centered).fill_diagonal_(0)
    else:
        direction = (centered @ centered.t()) @ centered
        direction.addcmul_(centered.square().sum(0), centered, value=-1)
    return _inner(direction, centered), direction, factor, 4


def _choose_class_covariance(rows: Tensor, labels: Tensor, num_classes: int) -> Callable[..., _Result]:
    """The form of cw-CR that is estimated to cost least."""
    samples, units = rows.shape
    macs = 2 * samples * samples * units
    masked = macs * _NS_PER_MAC + samples * samples * _NS_PER_PAIR
    if rows.device.type != "cpu":
        if macs <= _MAX_MACS_WITHOUT_SYNC and samples * samples <= _MAX_MASK:
            return _class_covariance_masked
    elif masked <= _NS_BINS:
        return _class_covariance_masked
    check_label_range(labels, num_classes)
    counts = torch.bincount(labels, minlength=num_classes).tolist()  # waits for an accelerator
    present = [count for count in counts if count]
    width = max(_BIN, *present)
    elements = samples * units * _NS_PER_ELEMENT
    costs: dict[Callable[..., _Result], float] = {}
    if samples * samples <= _MAX_MASK:
        costs[_class_covariance_masked] = masked
    if 1.25 * samples * width <= _MAX_MASK:
        costs[_class_covariance_bins] = 3.75 * samples * width * units * _NS_PER_MAC + elements + _NS_BINS
    loop = elements + len(present) * _NS_PER_CLASS
    if not costs or loop < min(costs.values()):
        costs[_class_covariance_loop] = loop + sum(2 * n * min(n, units) * units for n in present) * _NS_PER_MAC
    return min(costs, key=lambda form: costs[form])


def _class_covariance_masked(rows: Tensor, *, labels: Tensor, num_classes: int) -> _Result:
    """One Gram product of all samples, pairs of different classes masked."""
    pairs = num_classes * rows.shape[1] * (rows.shape[1] - 1)
    centered, counts, labels, num_classes = _center_by_class(rows, labels, num_classes)
    scaled = centered / counts
    gram = (scaled @ centered.t()).mul_(_same_class(labels.to(rows.dtype)))
    direction = gram @ scaled
    # The diagonal's part, with the variances v^k_i, is taken away again.
    squares = centered * scaled
    variances = squares.new_zeros(num_classes, squares.shape[1]).index_add_(0, labels, squares)
    direction.addcmul_(variances.index_select(0, labels), scaled, value=-1)
    return _inner(direction, centered), direction, 1 / pairs, 4


def _class_covariance_bins(rows: Tensor, *, labels: Tensor, num_classes: int) -> _Result:
    """Small Gram products: samples are sorted by class and whole classes packed into bins of one width."""
    units = rows.shape[1]
    pairs = num_classes * units * (units - 1)
    samples, slots, classes = _pack(labels, num_classes, rows.dtype)
    bins = _center_by_class(rows, labels, num_classes).rows.index_select(0, samples).view(*classes.shape, units)
    # A pair of one class counts with 1 / n_k^2, every other one, and whatever stands in an empty place, with 0.
    weights = _same_class(classes)
    weights.mul_(weights.sum(2, keepdim=True).square_().reciprocal_().mul_((classes >= 0).unsqueeze(2)))
    gram = torch.bmm(bins, bins.transpose(1, 2)).mul_(weights)
    # The diagonal's part, with the variances v^k_i, is taken away again.
    squares = bins.square()
    spread = torch.bmm(weights, squares)
    direction = torch.bmm(gram, bins, out=squares).addcmul_(spread, bins, value=-1)
    value = _inner(direction, bins)
    return value, direction.view(-1, units).index_select(0, slots), 1 / pairs, 4


def _same_class(classes: Tensor) -> Tensor:
    """(..., N, N) ones where two of N classes are equal, zeros elsewhere.

    Classes come as floating-point numbers, and so does the mask: comparing integers, and multiplying by booleans, takes
    a CPU several times as long.
    """
    one, other = classes.unsqueeze(-1), classes.unsqueeze(-2)
    return torch.eq(one, other, out=classes.new_empty(*classes.shape, classes.shape[-1]))


def _pack(labels: Tensor, num_classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Packs whole classes into bins of one width.

    Args:
        labels: (N,) integers in 0..K-1.
        num_classes: K.
        dtype: Of the classes, numbers that are only compared.

    Returns:
        (B * width,) sample in each place of the bins (any sample where the place is empty), (N,) place of each sample,
        (B, width) class in each place (where it is empty, a negative number that no other place of the bin has).
    """
    counts = torch.bincount(labels, minlength=num_classes).tolist()  # the form's choice has checked the labels
    width = max(_BIN, *counts)
    moves: list[int] = []  # of a class: from its place among the sorted samples to its place in the bins
    start, end, bins = 0, 0, 1  # the samples before, the first free place, the bins so far
    for count in counts:
        if end + count > bins * width:
            end, bins = bins * width, bins + 1
        moves.append(end - start)
        start, end = start + count, end + count
    found, order = torch.sort(labels, stable=True)
    places = torch.tensor(moves, device=labels.device).index_select(0, found)
    places += torch.arange(len(labels), device=labels.device)
    samples = order.new_zeros(bins * width).index_copy_(0, places, order)
    classes = torch.arange(-bins * width, 0, device=labels.device, dtype=dtype).index_copy_(0, places, found.to(dtype))
    slots = torch.empty_like(order).index_copy_(0, order, places)
    return samples, slots, classes.view(bins, width)


def _class_covariance_loop(rows: Tensor, *, labels: Tensor, num_classes: int) -> _Result:
    """Class after class, each through its covariance or its Gram matrix, whichever is smaller; soft labels too."""
    pairs = num_classes * rows.shape[1] * (rows.shape[1] - 1)
    check_label_range(labels, num_classes)
    value = rows.new_zeros(())
    direction = torch.zeros_like(rows)
    for _, index, weights in class_groups(labels, num_classes):
        part = rows.index_select(0, index)
        shares = _shares(index, weights, rows.dtype)
        centered = part - _weighted_mean(part, shares)
        scaled = centered * shares.unsqueeze(1)
        if rows.shape[1] <= index.numel():
            part = scaled @ (centered.t() @ scaled).fill_diagonal_(0)
        else:
            part = _through_gram(scaled, centered, scaled)
        value += _inner(part, centered)
        direction.index_add_(0, index, part)
    return value, direction, 1 / pairs, 4


def _through_gram(own_scaled: Tensor, centered: Tensor, scaled: Tensor) -> Tensor:
    """For some rows of one class, and all its rows: share_n sum_{j != i} c_ij z_nj."""
    variances = (centered * scaled).sum(0)
    return ((own_scaled @ centered.t()) @ scaled).addcmul_(variances, own_scaled, value=-1)


def _shares(index: Tensor, weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Each sample's share in its class; they sum to 1."""
    if weights is None:
        return torch.full((index.numel(),), 1 / max(index.numel(), 1), dtype=dtype, device=index.device)
    return weights / weights.sum()


def _weighted_mean(part: Tensor, shares: Tensor) -> Tensor:
    """Mean of rows with these shares, about their plain mean, so that products of lower precision do little harm."""
    center = part.mean(0)
    return center + shares @ (part - center)


# ------------------------------------------------------------------------------------------------------- many processes


def _world(sync: bool, group: dist.ProcessGroup | None) -> int:
    """Number of processes whose batches are joined."""
    if sync and dist.is_available() and dist.is_initialized():
        return dist.get_world_size(group)
    return 1


def _sync_means(
    rows: Tensor, labels: Tensor | None, num_classes: int, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """(K,) counts and (K, I) class means of the joined batch."""
    if labels is None:
        counts, sums = rows.new_full((1,), rows.shape[0]), rows.sum(0, keepdim=True)
    else:
        counts, sums = class_sums(rows, labels, num_classes)
    packed = torch.cat([counts.unsqueeze(1), sums], dim=1)
    dist.all_reduce(packed, group=group)
    counts = packed[:, 0].clone()
    return counts, packed[:, 1:] / _nonzero(counts).unsqueeze(1)


def _sync_variance(
    rows: Tensor, *, labels: Tensor | None, num_classes: int, ranks: int, group: dist.ProcessGroup | None
) -> _Result:
    """VR (labels None, one class) and cw-VR of the joined batch."""
    counts, means = _sync_means(rows, labels, num_classes, group)
    size = num_classes * rows.shape[1]
    if labels is not None and labels.is_floating_point():
        value, direction = _around_soft_means(rows, labels / _nonzero(counts), means)
    else:
        centered = rows - (means if labels is None else means.index_select(0, labels))
        own_counts = counts if labels is None else counts.index_select(0, labels)
        direction = centered / _nonzero(own_counts).unsqueeze(1)
        value = _inner(centered, direction)
    dist.all_reduce(value, group=group)
    return value, direction, 1 / size, 2 * ranks


def _sync_covariance(
    rows: Tensor, *, labels: Tensor | None, num_classes: int, ranks: int, group: dist.ProcessGroup | None
) -> _Result:
    """CR (labels None, one class) and cw-CR of the joined batch."""
    if labels is None:
        labels = torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
    check_label_range(labels, num_classes)
    units = rows.shape[1]
    pairs = num_classes * units * (units - 1)
    sizes = _gather_sizes(rows, ranks, group)
    if num_classes * units <= sum(sizes):
        value, direction = _sync_by_covariances(rows, labels, num_classes, group)
    else:
        value, direction = _sync_by_gathering(rows, labels, num_classes, sizes, group)
    dist.all_reduce(value, group=group)
    return value, direction, 1 / pairs, 4 * ranks


def _sync_by_covariances(
    rows: Tensor, labels: Tensor, num_classes: int, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """Reduces means, then the K covariance matrices, which are no larger here than the joined batch."""
    counts, means = _sync_means(rows, labels, num_classes, group)
    counts = _nonzero(counts)
    covariances = rows.new_zeros(num_classes, rows.shape[1], rows.shape[1])
    parts = []
    for k, index, weights in class_groups(labels, num_classes):
        centered = rows.index_select(0, index) - means[k]
        scaled = (centered if weights is None else centered * weights.unsqueeze(1)) / counts[k]
        torch.mm(centered.t(), scaled, out=covariances[k])
        parts.append((k, index, centered, scaled))
    dist.all_reduce(covariances, group=group)
    covariances.diagonal(dim1=1, dim2=2).zero_()
    value = rows.new_zeros(())
    direction = torch.zeros_like(rows)
    for k, index, centered, scaled in parts:
        part = scaled @ covariances[k]
        value += _inner(part, centered)
        direction.index_add_(0, index, part)
    return value, direction


def _sync_by_gathering(
    rows: Tensor, labels: Tensor, num_classes: int, sizes: list[int], group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """Gathers all activations; each process multiplies its own samples with those of their class everywhere."""
    all_rows = _gather_rows(rows, sizes, group)
    all_labels = _gather_rows(labels, sizes, group)
    first = sum(sizes[: dist.get_rank(group)])
    value = rows.new_zeros(())
    direction = torch.zeros_like(rows)
    for _, index, weights in class_groups(all_labels, num_classes):
        own = (index >= first).logical_and_(index < first + rows.shape[0]).nonzero().squeeze(1)
        if not own.numel():
            continue
        part = all_rows.index_select(0, index)
        shares = _shares(index, weights, rows.dtype)
        centered = part - _weighted_mean(part, shares)
        scaled = centered * shares.unsqueeze(1)
        part = _through_gram(scaled.index_select(0, own), centered, scaled)
        value += _inner(part, centered.index_select(0, own))
        direction.index_add_(0, index.index_select(0, own) - first, part)
    return value, direction


def _sync_l1(rows: Tensor, *, ranks: int, group: dist.ProcessGroup | None) -> _Result:
    total = torch.stack([rows.abs().sum(), rows.new_full((), rows.numel())])
    dist.all_reduce(total, group=group)
    return total[0] / total[1], rows.sign().div_(total[1]), 1.0, ranks


def _gather_sizes(rows: Tensor, ranks: int, group: dist.ProcessGroup | None) -> list[int]:
    sizes = torch.zeros(ranks, dtype=torch.int64, device=rows.device)
    sizes[dist.get_rank(group)] = rows.shape[0]
    dist.all_reduce(sizes, group=group)
    return [int(size) for size in sizes.tolist()]


def _gather_rows(rows: Tensor, sizes: list[int], group: dist.ProcessGroup | None) -> Tensor:
    """Rows of all processes, in order; collectives want equal shapes, so shorter batches are padded on the way."""
    longest = max(sizes)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: rows.shape[0]] = rows
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded, group=group)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])
