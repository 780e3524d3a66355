"""The scatter of features, gathered chunk by chunk: the one state behind LDA, PCA and effective rank.

Features that are not floating-point and labels that are no integers are a TypeError; shapes that do not fit, labels out
of range and values that are not finite a ValueError.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

from lightning_repshape.functional.checks import (
    check_at_least,
    check_class_indices,
    check_columns,
    check_features,
    check_num_classes,
)
from lightning_repshape.functional.class_statistics import class_counts
from lightning_repshape.functional.numerics import (
    CHUNK_ELEMENTS,
    chunks,
    float64_device,
    full_precision,
    sums_by_class,
)

# Columns of a block of the scatter matrix. Blocks below the diagonal are never computed: little more than half the
# multiplications of X^T X are left, so that products in float64 cost what one float32 X^T X does.
_BLOCK = 256


class ScatterState:
    """Counts, sums by class and total scatter of features, in float64, from any number of chunks.

    States add: ``a.merge(b)`` is the state of both sets of rows, exactly. Rows are taken about a rough mean (that of
    the first rows seen), so that a large common offset costs no digits. For a sum over processes bring all states about
    the same point first, with :meth:`about`; ``counts``, ``sums`` and ``outer`` then simply add. The products run in
    float64 too, and in exchange only the upper triangle of the scatter is computed. Memory: 8 D^2 bytes and one chunk.

    Args:
        num_features: D.
        num_classes: K; labels are not needed for 1.
        normalize: Divide every row by its length first.
        device: Where the state lives; chunks move there. Default: where the first rows are.

    Attributes:
        counts: Samples of each class, K (int64).
        shift: The point about which rows are taken, D, or None before the first rows.
        sums: Sums of the shifted rows of each class, K x D.
        outer: Sum of the shifted rows' outer products, D x D; only its upper triangle has a meaning.

    Raises:
        ValueError: Fewer than one feature or class; later, where a mean or scatter is asked for and no row was seen.
    """

    _products = torch.float64

    def __init__(
        self,
        num_features: int,
        num_classes: int = 1,
        *,
        normalize: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        check_at_least("num_features", num_features, 1)
        check_num_classes(num_classes)
        self.num_features = num_features
        self.num_classes = num_classes
        self.normalize = normalize
        self.shift: Tensor | None = None
        home = None if device is None else float64_device(torch.device(device))
        self._placed = home is not None
        self.counts = torch.zeros(num_classes, dtype=torch.int64, device=home)
        self.sums = torch.zeros(num_classes, num_features, dtype=torch.float64, device=home)
        self.outer = torch.zeros(num_features if home else 0, num_features, dtype=torch.float64, device=home)

    def update(self, features: Tensor, labels: Tensor | None = None) -> Self:
        """Adds rows N x D and returns itself; labels None are all 0, which only a state of one class takes."""
        check_features(features)
        check_columns(features, self.num_features, "the state has")
        if labels is None:
            if self.num_classes != 1:
                raise ValueError(f"a state of {self.num_classes} classes needs labels")
            labels = torch.zeros(features.shape[0], dtype=torch.int64, device=features.device)
        check_class_indices(labels, features.shape[0], self.num_classes)
        self._place(float64_device(features.device))
        with full_precision(self.counts.device):
            self._add(features, labels.to(self.counts.device, torch.int64))
        return self

    def merge(self, other: Self) -> Self:
        """Adds another state's rows to this one, which is returned; the other stays as it is.

        Raises:
            ValueError: The states are not of the same features, classes and normalisation.
        """
        mine, theirs = ((s.num_features, s.num_classes, s.normalize) for s in (self, other))
        if mine != theirs:
            raise ValueError(f"states differ in (features, classes, normalize): {mine} and {theirs}")
        if other.shift is None:
            return self
        self._place(other.counts.device)
        if self.shift is None:
            self.shift = other.shift.to(self.counts.device)
        sums, outer = other._moments_about(self.shift)
        self.counts += other.counts.to(self.counts.device)
        self.sums += sums
        self.outer += outer
        return self

    def about(self, shift: Tensor) -> Self:
        """Expresses sums and scatter about another point, as zeros or a mean over all processes; returns itself."""
        if shift.shape != (self.num_features,):
            raise ValueError(f"shift must be {self.num_features} numbers, but the shape is {tuple(shift.shape)}")
        if self.shift is None:
            self._place(float64_device(shift.device))
            self.shift = shift.to(self.counts.device, torch.float64)
            return self
        self.sums, self.outer = self._moments_about(shift)
        self.shift = shift.to(self.counts.device, torch.float64)
        return self

    @property
    def total(self) -> int:
        """Number of rows seen."""
        return int(self.counts.sum())

    def mean(self) -> Tensor:
        """The mean of all rows, D."""
        return self._seen() + self.sums.sum(dim=0) / self.total

    def class_means(self) -> Tensor:
        """The mean of each class, K x D; NaN for classes that were not seen."""
        return self._seen() + self.sums / self.counts.unsqueeze(1)

    def total_scatter(self) -> Tensor:
        """The scatter about the mean, D x D: the sum of (x - mean)(x - mean)^T, not divided by the number of rows."""
        self._seen()
        total = self.sums.sum(dim=0)
        scatter = self.outer.clone().addr_(total, total, alpha=-1 / self.total)
        for block in _blocks(self.num_features):
            scatter[block, block] = scatter[block, block].triu() + scatter[block, block].triu(1).T
            scatter[block.stop :, block] = scatter[block, block.stop :].T
        return scatter

    def constant_features(self) -> Tensor:
        """Which features never change, D booleans, dead units for example: they vary by no more than rounding."""
        shift, total, eps = self._seen(), self.sums.sum(dim=0), torch.finfo(torch.float64).eps
        squares = self.outer.diagonal()
        spread = squares - total.square() / self.total
        return spread <= 64 * eps * squares + self.total * (8 * eps * shift).square()

    def _add(self, features: Tensor, labels: Tensor) -> None:
        for span, chunk in chunks(features, self.normalize, self.counts.device):
            if self.shift is None:
                # rounded to float32, so that a constant column of float32 features becomes exactly zero
                self.shift = chunk.mean(dim=0).float().double()
            chunk -= self.shift
            self.counts += class_counts(labels[span], self.num_classes)
            self.sums += sums_by_class(chunk, labels[span], self.num_classes)
            rows = chunk.to(self._products)
            for block in _blocks(self.num_features):
                # no addmm_: it adds row after row to the whole sum, and the last digits go
                upper = self.outer[block, block.start :]
                upper += rows[:, block].T @ rows[:, block.start :]

    def _seen(self) -> Tensor:
        if self.shift is None or self.total == 0:
            raise ValueError("the state has seen no rows yet")
        return self.shift

    def _place(self, device: torch.device) -> None:
        if not self._placed:
            self._placed = True
            self.counts, self.sums = self.counts.to(device), self.sums.to(device)
            self.outer = self.sums.new_zeros(self.num_features, self.num_features)

    def _moments_about(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Sums and outer products with every row taken about another point."""
        move = self._seen().to(shift.device) - shift
        sums, counts = self.sums.to(shift.device), self.counts.to(shift.device)
        total = sums.sum(dim=0)
        outer = self.outer.to(shift.device, copy=True).addr_(total, move).addr_(move, total + self.total * move)
        return sums + counts.unsqueeze(1) * move, outer


class RoughScatterState(ScatterState):
    """The same with float32 products, in half the time: good to six digits or so, for results that are refined."""

    _products = torch.float32


def scatter_state(
    features: Tensor, labels: Tensor | None = None, num_classes: int = 1, normalize: bool = False
) -> ScatterState:
    """The state of one matrix of features.

    Args:
        features: N x D.
        labels: N integers in 0 .. K - 1. Default: none, for analyses that ask for no labels.
        num_classes: K.
        normalize: Divide every row by its length first.

    Raises:
        TypeError: Features are not floating-point, or labels not integers.
        ValueError: Shapes that do not fit, labels out of range, values that are not finite.
    """
    check_features(features)
    return ScatterState(features.shape[1], num_classes, normalize=normalize).update(features, labels)


class CenteredColumns(NamedTuple):
    """Columns ``span`` of a matrix about their mean: N x (length of the span), float64.

    A column that never changes is exactly zero.
    """

    span: slice
    values: Tensor
    mean: Tensor


def centered_columns(features: Tensor, normalize: bool = False) -> Iterator[CenteredColumns]:
    """Walks over the columns about their means, in float64, a bounded number of columns at a time."""
    device, eps = float64_device(features.device), torch.finfo(torch.float64).eps
    lengths = torch.cat([torch.linalg.vector_norm(chunk, dim=1, keepdim=True) for _, chunk in chunks(features)])
    lengths.masked_fill_(lengths == 0, 1)
    width = max(1, CHUNK_ELEMENTS // features.shape[0])
    for start in range(0, features.shape[1], width):
        span = slice(start, min(start + width, features.shape[1]))
        values = features[:, span].detach().to(device).to(torch.float64, copy=True)
        if normalize:
            values /= lengths
        mean = values.mean(dim=0)
        values -= mean
        values.masked_fill_(values.abs().amax(dim=0) <= 64 * eps * mean.abs(), 0)
        yield CenteredColumns(span, values, mean)


def centered_gram(features: Tensor, normalize: bool = False) -> Tensor:
    """Inner products N x N, float64, of the rows about their mean: short where there are fewer rows than columns."""
    rows = features.shape[0]
    gram = torch.zeros(rows, rows, dtype=torch.float64, device=float64_device(features.device))
    for _, values, _ in centered_columns(features, normalize):
        gram.addmm_(values, values.T)
    return gram


def _blocks(width: int) -> Iterator[slice]:
    for start in range(0, width, _BLOCK):
        yield slice(start, min(start + _BLOCK, width))
