"""Projections to two or three dimensions, principal components and the plane of a class's axis; effective rank.

Features that are not floating-point are a TypeError; shapes that do not fit, a number of components or a label out of
its range, values that are not finite and features that never change (or, where no mean is taken, are all zero) a
ValueError.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_columns, check_features
from lightning_repshape.functional.discriminant import ClassVsRestLDA
from lightning_repshape.functional.numerics import chunks, eigvalsh, leading_eigenvectors, orient, rounding, unit_rows
from lightning_repshape.functional.scatter import ScatterState, centered_columns, centered_gram, scatter_state


class Projection(NamedTuple):
    """Orthonormal directions and how much of the features' spread lies along each.

    Attributes:
        components: k x D, rows of unit length, orthogonal to each other.
        mean: D, the point that becomes the origin.
        explained_variance: Variance along each component, k (divided by N - 1).
        explained_variance_ratio: The same as a share of the variance of all D features, k.
        normalized: Whether rows were scaled to unit length first; :meth:`apply` then does so too.
    """

    components: Tensor
    mean: Tensor
    explained_variance: Tensor
    explained_variance_ratio: Tensor
    normalized: bool

    def apply(self, features: Tensor) -> Tensor:
        """M x k float64 coordinates of features M x D, of the set that gave the components or of any other."""
        check_features(features)
        check_columns(features, self.components.shape[1], "the components have")
        parts = chunks(features, self.normalized, self.components.device)
        return torch.cat([(chunk - self.mean) @ self.components.T for _, chunk in parts])


def pca(features: Tensor, k: int = 2, normalize: bool = False) -> Projection:
    """Principal components: the orthogonal directions of largest variance.

    Found from the D x D scatter, or from the N x N inner products where there are fewer rows than columns. The sign of
    a component makes its largest entry positive.

    Args:
        features: N x D.
        k: How many, 2 or 3 for a plot.
        normalize: Scale every row to unit length first.

    Returns:
        Components, mean and explained variance.

    Raises:
        TypeError: Features are not floating-point.
        ValueError: ``k`` above min(N - 1, D) or below 1, features that never change, values that are not finite.
    """
    check_features(features)
    rows, width = features.shape
    if rows > width:
        return pca_from_scatter(scatter_state(features, normalize=normalize), k)
    _check_k(k, rows, width)
    gram = centered_gram(features, normalize)
    total = float(gram.diagonal().sum())
    _check_spread(total)
    values, vectors = leading_eigenvectors(gram, k)
    values = values.clamp(min=0)
    components, mean = gram.new_zeros(k, width), gram.new_zeros(width)
    for span, columns, column_mean in centered_columns(features, normalize):
        components[:, span] = vectors @ columns
        mean[span] = column_mean
    # orthogonal already in exact arithmetic
    basis = torch.linalg.qr(components.T).Q
    components = orient(basis.T)
    return Projection(components, mean, values / (rows - 1), values / total, normalize)


def pca_from_scatter(state: ScatterState, k: int = 2) -> Projection:
    """The same from an accumulated state of any number of classes, see :func:`pca`.

    Args:
        state: Counts, sums and scatter.
        k: How many.

    Returns:
        Components, mean and explained variance.

    Raises:
        ValueError: ``k`` above min(N - 1, D) or below 1, or features that never change.
    """
    _check_k(k, state.total, state.num_features)
    scatter = _scatter(state)
    return _projection(state, scatter, *leading_eigenvectors(scatter, k))


def discriminant_plane(state: ScatterState, lda: ClassVsRestLDA, label: int) -> Projection:
    """A plane to look at one class in: its discriminant axis, and the first principal component orthogonal to that.

    Two groups have one discriminant axis only, hence the second direction; label the plot's axes accordingly.

    Args:
        state: Counts, sums and scatter of the features that gave the axes.
        lda: The discriminant analysis.
        label: The class, 0 .. K - 1.

    Returns:
        The axis, pointing from the rest to the class, and the component.

    Raises:
        ValueError: Fewer than two features, a class that does not exist or has no samples, a state of other features.
    """
    if not 0 <= label < len(lda.axes):
        raise ValueError(f"label must lie in 0 .. {len(lda.axes) - 1}, not {label}")
    if lda.axes.shape[1] != state.num_features or lda.normalized != state.normalize:
        raise ValueError("the state and the discriminant analysis are not of the same features")
    if int(lda.counts[label]) == 0:
        raise ValueError(f"class {label} has no samples, and so no axis")
    _check_k(2, state.total, state.num_features)
    scatter, axis = _scatter(state), lda.axes[label].to(state.counts.device)
    # the scatter of what is orthogonal to the axis v, and -v^T S v along it: v never is the leading eigenvector
    along = scatter @ axis
    spread = axis @ along
    rest = scatter.addr(along, axis, alpha=-1).addr_(axis, along, alpha=-1)
    value, component = leading_eigenvectors(rest, 1)
    component = component - (component @ axis).unsqueeze(1) * axis
    component = orient(unit_rows(component))
    return _projection(state, scatter, torch.stack([spread, value[0]]), torch.cat([axis.unsqueeze(0), component]))


def effective_rank(features: Tensor, center: bool = True, normalize: bool = False) -> float:
    """How many directions the features use: the exponential of the entropy of their singular values.

    The singular values, divided by their sum, are read as probabilities (Roy and Vetterli 2007): k equal ones give k.
    One number from 1 to min(N, D); directions within rounding of zero count as zero.

    Args:
        features: N x D.
        center: Take the mean away first, so that only spread counts.
        normalize: Scale every row to unit length first.

    Returns:
        The effective rank.

    Raises:
        TypeError: Features are not floating-point.
        ValueError: Features that never change (or, not centred, are all zero), values that are not finite.
    """
    check_features(features)
    if center:
        return _effective_rank(scatter_spectrum(features, normalize))
    return effective_rank_from_scatter(scatter_state(features, normalize=normalize), center)


def effective_rank_from_scatter(state: ScatterState, center: bool = True) -> float:
    """The same from an accumulated state, see :func:`effective_rank`.

    Args:
        state: Counts, sums and scatter.
        center: Take the mean away first.

    Returns:
        The effective rank.

    Raises:
        ValueError: Features that never change (or, not centred, are all zero).
    """
    if center:
        return _effective_rank(eigvalsh(_scatter(state)))
    return _effective_rank(eigvalsh(state.total_scatter().addr_(state.mean(), state.mean(), alpha=state.total)))


def scatter_spectrum(features: Tensor, normalize: bool = False) -> Tensor:
    """Eigenvalues of the scatter of features N x D about their mean, ascending: min(N, D) float64.

    ``normalize`` scales every row to unit length first. Raises as :func:`effective_rank`.
    """
    check_features(features)
    short = features.shape[0] <= features.shape[1]
    scatter = centered_gram(features, normalize) if short else _scatter(scatter_state(features, normalize=normalize))
    values = eigvalsh(scatter)
    _check_spread(float(values[-1]))
    return values


def _effective_rank(values: Tensor) -> float:
    _check_spread(float(values[-1]))
    singular = values[values > rounding(len(values)) * values[-1]].sqrt()
    shares = singular / singular.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


def _scatter(state: ScatterState) -> Tensor:
    """The total scatter with the rows and columns of features that never change exactly zero."""
    constant = state.constant_features()
    scatter = state.total_scatter().masked_fill_(constant, 0).masked_fill_(constant.unsqueeze(1), 0)
    _check_spread(float(scatter.diagonal().sum()))
    return scatter


def _projection(state: ScatterState, scatter: Tensor, spread: Tensor, components: Tensor) -> Projection:
    spread = spread.clamp(min=0)
    ratio = spread / scatter.diagonal().sum()
    return Projection(components, state.mean(), spread / max(state.total - 1, 1), ratio, state.normalize)


def _check_k(k: int, rows: int, width: int) -> None:
    most = min(rows - 1, width)
    if rows < 2:
        raise ValueError(f"principal components need at least two rows, got {rows}")
    if not 1 <= k <= most:
        raise ValueError(f"{rows} rows of {width} features have 1 to {most} components, not {k}")


def _check_spread(spread: float) -> None:
    if not spread > 0:
        raise ValueError("the features never change: there is no direction to look along")
