"""Representation characteristics of a layer, as in Table 5 of the class-wise regularizers paper.

Choi and Rhee, "Utilizing Class Information for Deep Network Representation Shaping", AAAI 2019, section "Quantitative
Analysis". The paper computes each "using only positive activations". Decided here: a unit's statistics are over the
samples where the unit is positive, a pair's over the samples where both units are; variances and covariances are biased
(1/n).

Everything follows from sums: for each unit and class the number, sum and sum of squares of its positive activations,
and for each pair (i, j) the sums over joint samples of 1, z_i, z_j, z_i^2, z_j^2 and z_i z_j: matrix products.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_activations, check_label_range, check_labels
from lightning_repshape.functional.class_statistics import class_groups

_ROUNDING = 1e-12  # a variance below this part of the mean square is rounding, hence none
_BLOCK = 2**22  # entries of one pair matrix that are held at a time (32 MiB each)


class Characteristics(NamedTuple):
    """Table 5's row of a layer, see :func:`representation_characteristics`; NaN where nothing could be averaged.

    Attributes:
        amplitude: Mean of the positive activations of all units.
        covariance: Mean ``|c_ij|`` over pairs i != j.
        correlation: Mean ``|r_ij|`` over pairs i != j.
        classwise_correlation: Mean over classes of the mean ``|r_ij|`` within the class.
        classwise_correlation_all: The same over all pairs, of which those that are left out count as 0.
        variance: Mean over units of v_i.
        normalized_classwise_variance: Mean over classes and units of v^k_i, each unit's range (minimum to maximum over
            the samples used) mapped to [0, 10].
        classwise_variance: The same without the mapping.
        units_left_out: Units without variance, or with fewer than two samples used.
        pairs_left_out: Unordered pairs left out of the covariance: of a unit that is left out, or with fewer than two
            joint samples.
        correlations_left_out: Unordered pairs left out of the correlation: those, and pairs of which one unit does not
            vary on the joint samples.
        class_units_left_out: (Class, unit) combinations with fewer than two samples used, or whose unit is left out.
        class_pairs_left_out: (Class, pair) combinations left out of the class-wise correlation, likewise.
        classes_left_out: Classes without any pair left.
    """

    amplitude: float
    covariance: float
    correlation: float
    classwise_correlation: float
    classwise_correlation_all: float
    variance: float
    normalized_classwise_variance: float
    classwise_variance: float
    units_left_out: int
    pairs_left_out: int
    correlations_left_out: int
    class_units_left_out: int
    class_pairs_left_out: int
    classes_left_out: int


class UnitSums(NamedTuple):
    """Additive statistics of single units, the samples used counted by class.

    Attributes:
        counts: (K, I) samples used.
        sums: (K, I) their activations, less the shift.
        squares: (K, I) squares of the same.
        low: (I,) smallest activation used; inf where there is none.
        high: (I,) largest activation used; -inf where there is none.
        positive_count: Scalar, positive activations of all units.
        positive_sum: Scalar, their sum (nothing taken off).
    """

    counts: Tensor
    sums: Tensor
    squares: Tensor
    low: Tensor
    high: Tensor
    positive_count: Tensor
    positive_sum: Tensor


class PairSums(NamedTuple):
    """Additive statistics of pairs (i, j) over their joint samples, for a block of B rows i of one class or of all.

    Each is (B, I): the number of joint samples, the sums of z_i and of z_j, of their squares and of their product, all
    less their shifts.
    """

    counts: Tensor
    sums: Tensor
    other_sums: Tensor
    squares: Tensor
    other_squares: Tensor
    products: Tensor


class PairMeans(NamedTuple):
    """What pair sums come to: sums over a block's pairs of ``|c_ij|`` and ``|r_ij|``, each with the number of pairs."""

    covariance: float
    covariance_pairs: int
    correlation: float
    correlation_pairs: int


def representation_characteristics(
    activations: Tensor, labels: Tensor, num_classes: int, positive_only: bool = True
) -> Characteristics:
    """Amplitude, covariance, correlation and variances of a layer's activations (AAAI 2019, Table 5).

    Computed in float64, class by class and in blocks of units, so that memory stays a few times that of the activations
    plus some hundred megabytes for wide layers. Costs O(N I^2).

    Args:
        activations: (N, I), or more dimensions, which are flattened; on any device that has float64.
        labels: (N,) integers in 0..K-1, on the activations' device.
        num_classes: K.
        positive_only: Statistics over positive activations alone, as in the paper. Otherwise over all samples; the
            amplitude is the mean of positive activations in either case.

    Returns:
        The characteristics and what was left out of them.

    Raises:
        TypeError: If the activations are no floating-point tensor or the labels no integers.
        ValueError: If a shape does not fit, a label is out of range or an activation is not finite.

    Example:
        >>> z = torch.tensor([[1.0, 2.0], [3.0, 4.0], [2.0, 0.0]])
        >>> found = representation_characteristics(z, torch.tensor([0, 0, 1]), 2)
        >>> found.amplitude, found.correlation
        (2.4, 1.0)
    """
    check_activations(activations)
    if activations.numel() == 0:
        raise ValueError(f"activations must have shape (samples, units, ...), got {tuple(activations.shape)}")
    rows = activations.detach().flatten(1)
    if check_labels(labels, rows.shape[0], num_classes):
        raise TypeError("characteristics need integer labels, got soft ones")
    labels = labels.long()
    check_label_range(labels, num_classes)
    shift = _unit_means(rows, positive_only)
    units = unit_sums(rows, labels, num_classes, shift, positive_only)
    usable = usable_units(units)
    totals: list[PairMeans] = []
    by_class: list[list[PairMeans]] = [[] for _ in range(num_classes)]
    for block in _blocks(rows.shape[1]):
        total: PairSums | None = None
        for k, index, _ in class_groups(labels, num_classes):
            sums = pair_sums(rows.index_select(0, index), shift, positive_only, block)
            by_class[k].append(pair_means(sums, block, usable))
            total = sums if total is None else PairSums(*(a.add_(b) for a, b in zip(total, sums, strict=True)))
        if total is not None:
            totals.append(pair_means(total, block, usable))
    return summarize(units, totals, by_class)


def unit_sums(rows: Tensor, labels: Tensor, num_classes: int, shift: Tensor, positive_only: bool) -> UnitSums:
    """Statistics of single units from rows (N, I) and labels (N,) int64; a ValueError if an activation is not finite.

    ``shift``, (I,) float64, is taken off every activation before it is squared: near the units' means for accuracy.
    """
    width = rows.shape[1]
    counts = shift.new_zeros(num_classes, width)
    sums, squares = torch.zeros_like(counts), torch.zeros_like(counts)
    low, high = shift.new_full((width,), float("inf")), shift.new_full((width,), -float("inf"))
    positive_count, positive_sum = shift.new_zeros(()), shift.new_zeros(())
    for start in _chunks(rows):
        part = rows[start].to(shift.dtype)
        if not bool(part.isfinite().all()):
            raise ValueError("activations must be finite")
        positive = part > 0
        used = positive if positive_only else torch.ones_like(positive)
        positive_count += positive.sum()
        positive_sum += part.clamp(min=0).sum()
        low = torch.minimum(low, torch.where(used, part, float("inf")).amin(0))
        high = torch.maximum(high, torch.where(used, part, -float("inf")).amax(0))
        deviation = torch.where(used, part - shift, 0.0)
        counts.index_add_(0, labels[start], used.to(shift.dtype))
        sums.index_add_(0, labels[start], deviation)
        squares.index_add_(0, labels[start], deviation.square_())
    return UnitSums(counts, sums, squares, low, high, positive_count, positive_sum)


def pair_sums(rows: Tensor, shift: Tensor, positive_only: bool, block: slice) -> PairSums:
    """Float64 sums of pairs (i, j), i in ``block``, j any unit, over those samples of (N, I) rows that use both."""
    width = rows.shape[1]
    height = len(range(*block.indices(width)))
    sums = PairSums(*(shift.new_zeros(height, width) for _ in PairSums._fields))
    for start in _chunks(rows):
        part = rows[start].to(shift.dtype)
        used = (part > 0 if positive_only else torch.ones_like(part)).to(shift.dtype)
        part = (part - shift) * used
        square = part.square()
        left, left_used, left_square = part[:, block].t(), used[:, block].t(), square[:, block].t()
        sums.counts.addmm_(left_used, used)
        sums.sums.addmm_(left, used)
        sums.other_sums.addmm_(left_used, part)
        sums.squares.addmm_(left_square, used)
        sums.other_squares.addmm_(left_used, square)
        sums.products.addmm_(left, part)
    return sums


def pair_means(sums: PairSums, block: slice, usable: Tensor) -> PairMeans:
    """Sums over a block's pairs of usable units; every unordered pair is counted once, at i < j."""
    width = sums.counts.shape[1]
    units = torch.arange(width, device=usable.device)
    first = units[block].unsqueeze(1)
    valid = (first < units) & (sums.counts >= 2) & usable[block].unsqueeze(1) & usable
    count = sums.counts.clamp(min=1)
    mean, other_mean = sums.sums / count, sums.other_sums / count
    square, other_square = sums.squares / count, sums.other_squares / count
    covariance = sums.products / count - mean * other_mean
    variance, other_variance = square - mean.square(), other_square - other_mean.square()
    varying = valid & (variance > _ROUNDING * square) & (other_variance > _ROUNDING * other_square)
    scale = torch.where(varying, variance * other_variance, 1.0).sqrt_()
    correlation = torch.where(varying, covariance / scale, 0.0).abs_().clamp_(max=1)
    return PairMeans(
        float(torch.where(valid, covariance, 0.0).abs_().sum()),
        int(valid.sum()),
        float(correlation.sum()),
        int(varying.sum()),
    )


def usable_units(units: UnitSums) -> Tensor:
    """(I,) booleans: units that take at least two values on the samples used; others are left out of everything."""
    return units.high > units.low


def summarize(
    units: UnitSums, totals: list[PairMeans] | None = None, by_class: list[list[PairMeans]] | None = None
) -> Characteristics:
    """Puts unit and pair statistics (lists of blocks) together; what needs pairs that are None is NaN."""
    classes, width = units.counts.shape
    usable = usable_units(units)
    count = units.counts.sum(0).clamp(min=1)
    variance = units.squares.sum(0) / count - (units.sums.sum(0) / count).square()
    class_valid = (units.counts >= 2) & usable
    class_count = units.counts.clamp(min=1)
    class_variance = (units.squares / class_count - (units.sums / class_count).square()).clamp_(min=0)
    scale = torch.where(usable, 10 / (units.high - units.low), 0.0)
    pairs = width * (width - 1) // 2
    covariance = correlation = classwise = classwise_all = float("nan")
    left_pairs = left_correlations = left_class_pairs = left_classes = 0
    if totals is not None:
        total = _joined(totals)
        covariance = _ratio(total.covariance, total.covariance_pairs)
        correlation = _ratio(total.correlation, total.correlation_pairs)
        left_pairs = pairs - total.covariance_pairs
        left_correlations = pairs - total.correlation_pairs
    if by_class is not None:
        joined = [_joined(parts) for parts in by_class]
        means = [part.correlation / part.correlation_pairs for part in joined if part.correlation_pairs]
        classwise = _ratio(sum(means), len(means))
        classwise_all = _ratio(sum(part.correlation for part in joined), classes * pairs)
        left_class_pairs = classes * pairs - sum(part.correlation_pairs for part in joined)
        left_classes = classes - len(means)
    return Characteristics(
        amplitude=_ratio(float(units.positive_sum), int(units.positive_count)),
        covariance=covariance,
        correlation=correlation,
        classwise_correlation=classwise,
        classwise_correlation_all=classwise_all,
        variance=_mean(variance, usable),
        normalized_classwise_variance=_mean(class_variance * scale.square(), class_valid),
        classwise_variance=_mean(class_variance, class_valid),
        units_left_out=width - int(usable.sum()),
        pairs_left_out=left_pairs,
        correlations_left_out=left_correlations,
        class_units_left_out=classes * width - int(class_valid.sum()),
        class_pairs_left_out=left_class_pairs,
        classes_left_out=left_classes,
    )


def _unit_means(rows: Tensor, positive_only: bool) -> Tensor:
    """(I,) float64 means of the samples used, up to rounding: they are only taken off before squaring."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    count = torch.zeros_like(total)
    for start in _chunks(rows):
        part = rows[start].to(torch.float64)
        total += part.clamp(min=0).sum(0) if positive_only else part.sum(0)
        count += (part > 0).sum(0) if positive_only else part.shape[0]
    return total / count.clamp_(min=1)


def _chunks(rows: Tensor) -> Iterator[slice]:
    """Slices of rows of about 32 MiB in float64."""
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, rows.shape[0], step):
        yield slice(start, min(start + step, rows.shape[0]))


def _blocks(width: int) -> Iterator[slice]:
    """Slices of units whose pair matrices hold a bounded number of entries."""
    step = max(1, _BLOCK // width)
    for start in range(0, width, step):
        yield slice(start, min(start + step, width))


def _joined(parts: list[PairMeans]) -> PairMeans:
    return PairMeans(
        sum(part.covariance for part in parts),
        sum(part.covariance_pairs for part in parts),
        sum(part.correlation for part in parts),
        sum(part.correlation_pairs for part in parts),
    )


def _ratio(total: float, count: int) -> float:
    return total / count if count else float("nan")


def _mean(values: Tensor, valid: Tensor) -> float:
    return _ratio(float(torch.where(valid, values, 0.0).sum()), int(valid.sum()))
