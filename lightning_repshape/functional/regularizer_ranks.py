"""The regularizers of several processes' joined batch, as kernels that communicate in the forward pass alone.

Every process returns the same value, and sends W times its derivative into its own activations (W processes), because
DistributedDataParallel divides the sum of the processes' gradients by W. Counts, class sums and the value are reduced
in the forward pass; the backward pass communicates nothing, since the derivative of the joined statistic by one's own
activations needs the reduced statistics alone. Of covariances, either the matrices are reduced (where their K I^2
numbers are no more than the joined batch's N I activations) or the activations of all processes are gathered.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_repshape.functional.checks import check_label_range
from lightning_repshape.functional.class_statistics import class_groups, class_sums
from lightning_repshape.functional.regularizer_kernels import (
    Result,
    around_soft_means,
    inner,
    nonzero,
    shares_of,
    through_gram,
    weighted_mean,
)


def world_size(sync: bool, group: dist.ProcessGroup | None) -> int:
    """Number of processes whose batches are joined."""
    if sync and dist.is_available() and dist.is_initialized():
        return dist.get_world_size(group)
    return 1


def _joined_means(
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
    return counts, packed[:, 1:] / nonzero(counts).unsqueeze(1)


def joined_variance(
    rows: Tensor, *, labels: Tensor | None = None, num_classes: int = 1, ranks: int, group: dist.ProcessGroup | None
) -> Result:
    """VR (labels None, one class) and cw-VR of the joined batch."""
    counts, means = _joined_means(rows, labels, num_classes, group)
    size = num_classes * rows.shape[1]
    if labels is not None and labels.is_floating_point():
        value, direction = around_soft_means(rows, labels / nonzero(counts), means)
    else:
        centered = rows - (means if labels is None else means.index_select(0, labels))
        own_counts = counts if labels is None else counts.index_select(0, labels)
        direction = centered / nonzero(own_counts).unsqueeze(1)
        value = inner(centered, direction)
    dist.all_reduce(value, group=group)
    return value, direction, 1 / size, 2 * ranks


def joined_covariance(
    rows: Tensor, *, labels: Tensor | None = None, num_classes: int = 1, ranks: int, group: dist.ProcessGroup | None
) -> Result:
    """CR (labels None, one class) and cw-CR of the joined batch."""
    if labels is None:
        labels = torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
    check_label_range(labels, num_classes)
    units = rows.shape[1]
    pairs = num_classes * units * (units - 1)
    sizes = _gather_sizes(rows, ranks, group)
    if num_classes * units <= sum(sizes):
        value, direction = _by_covariances(rows, labels, num_classes, group)
    else:
        value, direction = _by_gathering(rows, labels, num_classes, sizes, group)
    dist.all_reduce(value, group=group)
    return value, direction, 1 / pairs, 4 * ranks


def _by_covariances(
    rows: Tensor, labels: Tensor, num_classes: int, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """Reduces means, then the K covariance matrices, which are no larger here than the joined batch."""
    counts, means = _joined_means(rows, labels, num_classes, group)
    counts = nonzero(counts)
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
        value += inner(part, centered)
        direction.index_add_(0, index, part)
    return value, direction


def _by_gathering(
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
        shares = shares_of(index, weights, rows.dtype)
        centered = part - weighted_mean(part, shares)
        scaled = centered * shares.unsqueeze(1)
        part = through_gram(scaled.index_select(0, own), centered, scaled)
        value += inner(part, centered.index_select(0, own))
        direction.index_add_(0, index.index_select(0, own) - first, part)
    return value, direction


def joined_l1(rows: Tensor, *, ranks: int, group: dist.ProcessGroup | None) -> Result:
    """L1R of the joined batch."""
    total = torch.stack([rows.abs().sum(), rows.new_full((), rows.numel())])
    dist.all_reduce(total, group=group)
    return total[0] / total[1], rows.sign().div_(total[1]), 1.0, ranks


def joined_batch(
    rows: Tensor, *labels: Tensor, sync: bool = True, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, ...]:
    """Rows of all processes, and labels, for penalties by autograd: one's own rows are live, the others are numbers.

    A penalty of them is the same in all processes, and its gradient reaches one's own rows W times.
    """
    ranks = world_size(sync, group)
    if ranks == 1:
        return rows, *labels
    sizes, rank = _gather_sizes(rows, ranks, group), dist.get_rank(group)
    parts = list(torch.split(_gather_rows(rows.detach(), sizes, group), sizes))
    parts[rank] = rows + (ranks - 1) * (rows - rows.detach())
    return torch.cat(parts), *(_gather_rows(own, sizes, group) for own in labels)


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
