"""The statistics behind the regularizers and their gradients: found together, by hand, outside the autograd graph.

A kernel takes rows (N, I) and returns a :data:`Result`; :func:`differentiable` makes a scalar of it, whose backward
pass is one multiplication. Squared covariances never need a K x I x I array: sum_j c^k_ij z_j is also a product with
the class's n_k x n_k Gram matrix of centred activations, from which the diagonal's part v^k_i z_i is taken away.
Which of the equal forms is used (one Gram product under a same-class mask; Gram products of bins that hold whole
classes; class by class through the smaller of Gram and covariance matrix) follows from an estimate of their costs.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from lightning_repshape.functional.checks import check_label_range
from lightning_repshape.functional.class_statistics import class_groups, class_sums

Result = tuple[Tensor, Tensor, float, float]
"""(value, direction, factor, degree): the penalty is factor * value, its gradient degree * factor * direction."""

Kernel = Callable[[Tensor], Result]

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


# ------------------------------------------------------------------------------------------------------ differentiation


class _FirstDerivative(torch.autograd.Function):
    """Scalar of rows whose gradient was computed along with it."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, kernel: Kernel, scale: float) -> Tensor:
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


def differentiable(rows: Tensor, kernel: Kernel, scale: float) -> Tensor:
    """The kernel's penalty of the rows, times scale: a scalar with a first derivative."""
    value: Tensor = _FirstDerivative.apply(rows, kernel, scale)
    return value


def inner(left: Tensor, right: Tensor) -> Tensor:
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


def variance(rows: Tensor) -> Result:
    """VR."""
    centered = rows - rows.mean(0)
    size = rows.numel()
    return inner(centered, centered), centered, 1 / size, 2


def class_variance(rows: Tensor, *, labels: Tensor, num_classes: int) -> Result:
    """cw-VR of integer labels."""
    centered, counts, *_ = _center_by_class(rows, labels, num_classes)
    scaled = centered / counts
    size = num_classes * rows.shape[1]
    return inner(centered, scaled), scaled, 1 / size, 2


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


def soft_class_variance(rows: Tensor, *, labels: Tensor, num_classes: int) -> Result:
    """cw-VR of memberships."""
    size = num_classes * rows.shape[1]
    counts, sums = class_sums(rows, labels, num_classes)
    counts = nonzero(counts)
    value, direction = around_soft_means(rows, labels / counts, sums / counts.unsqueeze(1))
    return value, direction, 1 / size, 2


def around_soft_means(rows: Tensor, shares: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over n, k of share_nk |z_n - mu_k|^2 and half its gradient by z, one class at a time."""
    value = rows.new_zeros(())
    direction = torch.zeros_like(rows)
    for mean, share in zip(means, shares.t(), strict=True):
        deviation = rows - mean
        scaled = deviation * share.unsqueeze(1)
        value += inner(deviation, scaled)
        direction += scaled
    return value, direction


def nonzero(counts: Tensor) -> Tensor:
    """Counts with 1 in the place of 0, for dividing what is 0 anyway."""
    return torch.where(counts > 0, counts, 1)


# ---------------------------------------------------------------------------------------------------------- covariances
# The penalty is homogeneous of degree four in the centred activations, so that it is their inner product with a quarter
# of its gradient: no covariance needs to be squared for the value.


def covariance(rows: Tensor) -> Result:
    """CR."""
    samples, units = rows.shape
    centered = rows - rows.mean(0)
    factor = 1 / (units * (units - 1) * samples**2)
    if units <= samples:
        direction = centered @ (centered.t() @ centered).fill_diagonal_(0)
    else:
        direction = (centered @ centered.t()) @ centered
        direction.addcmul_(centered.square().sum(0), centered, value=-1)
    return inner(direction, centered), direction, factor, 4


def choose_class_covariance(rows: Tensor, labels: Tensor, num_classes: int) -> Callable[..., Result]:
    """The form of cw-CR that is estimated to cost least."""
    samples, units = rows.shape
    macs = 2 * samples * samples * units
    masked = macs * _NS_PER_MAC + samples * samples * _NS_PER_PAIR
    if rows.device.type != "cpu":
        if macs <= _MAX_MACS_WITHOUT_SYNC and samples * samples <= _MAX_MASK:
            return class_covariance_masked
    elif masked <= _NS_BINS:
        return class_covariance_masked
    check_label_range(labels, num_classes)
    counts = torch.bincount(labels, minlength=num_classes).tolist()  # waits for an accelerator
    present = [count for count in counts if count]
    width = max(_BIN, *present)
    elements = samples * units * _NS_PER_ELEMENT
    costs: dict[Callable[..., Result], float] = {}
    if samples * samples <= _MAX_MASK:
        costs[class_covariance_masked] = masked
    if 1.25 * samples * width <= _MAX_MASK:
        costs[class_covariance_bins] = 3.75 * samples * width * units * _NS_PER_MAC + elements + _NS_BINS
    loop = elements + len(present) * _NS_PER_CLASS
    if not costs or loop < min(costs.values()):
        costs[class_covariance_loop] = loop + sum(2 * n * min(n, units) * units for n in present) * _NS_PER_MAC
    return min(costs, key=lambda form: costs[form])


def class_covariance_masked(rows: Tensor, *, labels: Tensor, num_classes: int) -> Result:
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
    return inner(direction, centered), direction, 1 / pairs, 4


def class_covariance_bins(rows: Tensor, *, labels: Tensor, num_classes: int) -> Result:
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
    value = inner(direction, bins)
    return value, direction.view(-1, units).index_select(0, slots), 1 / pairs, 4


def _same_class(classes: Tensor) -> Tensor:
    """(..., N, N) ones where two of N classes are equal, zeros elsewhere."""
    # Classes are floating-point numbers, and so is the mask: comparing integers, and multiplying by booleans, takes a
    # CPU several times as long.
    one, other = classes.unsqueeze(-1), classes.unsqueeze(-2)
    return torch.eq(one, other, out=classes.new_empty(*classes.shape, classes.shape[-1]))


def _pack(labels: Tensor, num_classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Packs whole classes into bins of one width: the sample in each place, each sample's place, each place's class."""
    # In an empty place stands any sample, and as its class a negative number that no other place of the bin has.
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


def class_covariance_loop(rows: Tensor, *, labels: Tensor, num_classes: int) -> Result:
    """Class after class, each through its covariance or its Gram matrix, whichever is smaller; soft labels too."""
    pairs = num_classes * rows.shape[1] * (rows.shape[1] - 1)
    check_label_range(labels, num_classes)
    value = rows.new_zeros(())
    direction = torch.zeros_like(rows)
    for _, index, weights in class_groups(labels, num_classes):
        part = rows.index_select(0, index)
        shares = shares_of(index, weights, rows.dtype)
        centered = part - weighted_mean(part, shares)
        scaled = centered * shares.unsqueeze(1)
        if rows.shape[1] <= index.numel():
            part = scaled @ (centered.t() @ scaled).fill_diagonal_(0)
        else:
            part = through_gram(scaled, centered, scaled)
        value += inner(part, centered)
        direction.index_add_(0, index, part)
    return value, direction, 1 / pairs, 4


def through_gram(own_scaled: Tensor, centered: Tensor, scaled: Tensor) -> Tensor:
    """For some rows of one class, and all its rows: share_n sum_{j != i} c_ij z_nj."""
    variances = (centered * scaled).sum(0)
    return ((own_scaled @ centered.t()) @ scaled).addcmul_(variances, own_scaled, value=-1)


def shares_of(index: Tensor, weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Each sample's share in its class; they sum to 1."""
    if weights is None:
        return torch.full((index.numel(),), 1 / max(index.numel(), 1), dtype=dtype, device=index.device)
    return weights / weights.sum()


def weighted_mean(part: Tensor, shares: Tensor) -> Tensor:
    """Mean of rows with these shares, about their plain mean, so that products of lower precision do little harm."""
    center = part.mean(0)
    return center + shares @ (part - center)
