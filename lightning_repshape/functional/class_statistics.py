"""Counts, sums, means and spread by class: the only place that groups samples by label.

Labels are either integers of shape (N,) in 0..K-1 or soft memberships of shape (N, K): non-negative weights of every
sample in every class, such as mixup or label smoothing produce. Integer labels are memberships with a single one in
each row. Labels of another kind are a TypeError, shapes that do not fit and labels out of range a ValueError.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_label_range, check_labels
from lightning_repshape.moved import elsewhere

__getattr__ = elsewhere(__name__, "functional.checks")  # names of earlier versions


class ClassMoments(NamedTuple):
    """First and second moments of every class, see :func:`class_moments`; zero for a class without samples.

    Attributes:
        counts: (K,) samples (or total membership) of each class.
        means: (K, I) class means.
        squares: (K, I) sums of squared deviations from the class mean.
    """

    counts: Tensor
    means: Tensor
    squares: Tensor


def memberships(labels: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Labels as an (N, K) matrix of memberships: one-hot rows for integers, soft labels as they are.

    On the CPU a label out of range is an error here; on an accelerator, where reading it back would make the host wait,
    the device's own index check reports it.

    Args:
        labels: (N,) integers or (N, K) memberships.
        num_classes: K.
        dtype: Floating-point type of the result.

    Returns:
        (N, K) memberships.

    Raises:
        TypeError: If the labels are neither integers nor memberships.
        ValueError: If shape or values do not fit.
    """
    soft = check_labels(labels, labels.shape[0] if labels.ndim else 0, num_classes)
    if soft:
        if labels.device.type == "cpu":
            check_label_range(labels, num_classes)
        return labels.detach().to(dtype)
    matrix = torch.zeros(labels.shape[0], num_classes, dtype=dtype, device=labels.device)
    index = labels if labels.dtype == torch.int64 else labels.long()
    try:
        return matrix.scatter_(1, index.unsqueeze(1), 1.0)
    except RuntimeError:
        check_label_range(labels, num_classes)  # the reason in nearly every case, said in words
        raise


def class_indices(labels: Tensor) -> Tensor:
    """N class indices: of N x K memberships the class of the largest, of equal ones the first; others as they are."""
    return labels.argmax(dim=1) if labels.dim() == 2 else labels


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Samples of each class (soft labels: total membership).

    Args:
        labels: (N,) integers or (N, K) memberships.
        num_classes: K.

    Returns:
        (K,) counts, int64 for integer labels.

    Raises:
        TypeError: If the labels are neither integers nor memberships.
        ValueError: If shape or values do not fit.
    """
    if check_labels(labels, labels.shape[0] if labels.ndim else 0, num_classes):
        check_label_range(labels, num_classes)
        return labels.detach().sum(0)
    check_label_range(labels, num_classes)
    return torch.bincount(labels, minlength=num_classes)


def class_sums(rows: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Counts and sums of rows by class, in full precision whatever ``torch.set_float32_matmul_precision`` says.

    On the CPU a label out of range is an error here; on an accelerator, where reading it back would make the host wait,
    the device's own index check reports it.

    Args:
        rows: (N, I).
        labels: (N,) int64 in 0..K-1, or (N, K) memberships.
        num_classes: K.

    Returns:
        (K,) counts in the type of the rows, (K, I) sums.

    Raises:
        ValueError: If a label is out of range (on the CPU).
    """
    if not labels.is_floating_point():
        try:
            sums = rows.new_zeros(num_classes, rows.shape[1]).index_add_(0, labels, rows)
            return rows.new_zeros(num_classes).index_add_(0, labels, rows.new_ones(rows.shape[0])), sums
        except (IndexError, RuntimeError):
            check_label_range(labels, num_classes)  # the reason in nearly every case, said in words
            raise
    if labels.device.type == "cpu":
        check_label_range(labels, num_classes)
    weights = labels.to(rows.dtype)
    counts = weights.sum(0)
    # The rows' mean is taken out and put back, so that a product of reduced precision sees deviations only.
    center = rows.mean(0) if rows.shape[0] else rows.new_zeros(rows.shape[1])
    return counts, weights.t() @ (rows - center) + counts.unsqueeze(1) * center


def class_groups(labels: Tensor, num_classes: int) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Walks over the classes that have samples.

    Args:
        labels: (N,) integers in 0..K-1, or (N, K) memberships.
        num_classes: K.

    Yields:
        Class, (n,) positions of its samples in ascending order, and their memberships (None for integer labels).
    """
    if labels.is_floating_point():
        for k in range(num_classes):
            column = labels[:, k]
            index = column.nonzero().squeeze(1)
            if index.numel():
                yield k, index, column.index_select(0, index)
        return
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    start = 0
    for k, count in enumerate(counts):
        if count:
            yield k, order[start : start + count], None
        start += count


def class_moments(
    activations: Tensor, labels: Tensor, num_classes: int, *, dtype: torch.dtype = torch.float64
) -> ClassMoments:
    """Counts, means and sums of squared deviations of every class, in two passes over centred values.

    Divide ``squares`` by ``counts`` for the biased class-wise variance v^k_i (AAAI 2019, Eq. 6).

    Args:
        activations: (N, I), or more dimensions, which are flattened.
        labels: (N,) integers or (N, K) memberships.
        num_classes: K.
        dtype: Type of the arithmetic and of the result.

    Returns:
        The moments.

    Raises:
        TypeError: If the labels are neither integers nor memberships.
        ValueError: If a shape does not fit or a label is out of range.
    """
    if activations.ndim < 2:
        raise ValueError(f"activations must have shape (samples, units, ...), got {tuple(activations.shape)}")
    rows = activations.detach().flatten(1)
    check_labels(labels, rows.shape[0], num_classes)
    check_label_range(labels, num_classes)
    counts = torch.zeros(num_classes, dtype=dtype, device=rows.device)
    means = torch.zeros(num_classes, rows.shape[1], dtype=dtype, device=rows.device)
    squares = torch.zeros_like(means)
    for k, index, weights in class_groups(labels, num_classes):
        part = rows.index_select(0, index).to(dtype)
        if weights is None:
            counts[k] = index.numel()
            means[k] = part.mean(0)
            squares[k] = (part - means[k]).square_().sum(0)
        else:
            share = weights.to(dtype)
            counts[k] = share.sum()
            means[k] = share @ part / counts[k]
            squares[k] = share @ (part - means[k]).square_()
    return ClassMoments(counts, means, squares)


def within_over_between(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Scatter within classes over scatter between them, tr S_W / tr S_B: near 0 where each class is a point.

    Nothing waits for an accelerator.

    Args:
        features: (N, D).
        labels: (N,) int64 in 0..K-1; a class may be missing.
        num_classes: K.

    Returns:
        A number without dimensions; infinite where all class means are one.
    """
    counts, sums = class_sums(features.detach(), labels, num_classes)
    means = sums / counts.clamp_min(1).unsqueeze(1)
    between = ((means - features.mean(dim=0)).square().sum(dim=1) * counts).sum()
    return (features - means.index_select(0, labels)).square().sum() / between
