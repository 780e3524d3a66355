"""How many directions features use: intrinsic dimension by neighbours, and the spectrum of their scatter."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_repshape.functional.checks import (
    check_at_least,
    check_class_indices,
    check_features,
    check_floating,
    check_matrix,
)
from lightning_repshape.functional.class_statistics import class_moments
from lightning_repshape.functional.numerics import CHUNK_ELEMENTS, float64_device, rounding

_ROWS = 512  # whose distances to all others are held at a time
_SPARE = 8  # candidates beyond those that are wanted, since products of rows lose digits of short distances


class PowerLaw(NamedTuple):
    """A line through a spectrum on logarithmic axes.

    Attributes:
        exponent: alpha of the eigenvalues' decay as n^-alpha.
        first: The first eigenvalue that the line goes through, counted from 1.
        last: The last one.
    """

    exponent: float
    first: int
    last: int


def nearest_distances(x: Tensor, neighbours: int) -> Tensor:
    """Euclidean distances of every row of N x D to its nearest other rows, N x ``neighbours`` float64, ascending."""
    check_matrix("x", x)
    check_at_least("neighbours", neighbours, 1)
    count = len(x)
    if count <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more than {neighbours} rows, got {count}")
    rows = x.detach().to(float64_device(x.device)).double()
    if not bool(rows.isfinite().all()):
        raise ValueError("x must be finite")
    rows = rows - rows.mean(dim=0)
    squares = rows.square().sum(dim=1)
    candidates = min(neighbours + _SPARE, count - 1)
    few = max(1, CHUNK_ELEMENTS // 4 // (candidates * rows.shape[1]))  # rows whose candidates are gathered at a time
    found = rows.new_empty(count, neighbours)
    for start in range(0, count, _ROWS):
        own = rows[start : start + _ROWS]
        apart = torch.addmm(squares, own, rows.mT, alpha=-2)
        apart[torch.arange(len(own)), torch.arange(start, start + len(own))] = torch.inf
        near = apart.topk(candidates, largest=False).indices
        pieces = zip(torch.split(own, few), torch.split(near, few), strict=True)
        exact = torch.cat([(part.unsqueeze(1) - rows[at]).norm(dim=2) for part, at in pieces])
        found[start : start + len(own)] = exact.sort(dim=1).values[:, :neighbours]
    return found


def twonn_dimension(x: Tensor, discard: float = 0.1) -> Tensor:
    """Intrinsic dimension by the ratio of the distances to the two nearest neighbours (Facco et al. 2017).

    Where points lie locally uniformly on a manifold of dimension d, the ratio mu = r2 / r1 is distributed as
    F(mu) = 1 - mu^-d: a line through the origin of -log(1 - F) against log(mu) has the slope d. Rows that another row
    equals are left out.

    Args:
        x: Points, N x D, N >= 3.
        discard: Share of the largest ratios that the line does not go through, as in the paper.

    Returns:
        A float64 scalar.

    Raises:
        TypeError: If ``x`` is no floating-point tensor.
        ValueError: If it is no matrix of finite numbers, ``discard`` is not in [0, 1), or fewer than three rows differ.

    Example:
        >>> import torch
        >>> points = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
        >>> round(float(twonn_dimension(torch.cat([points, points.sin()], dim=1))), 1)
        2.0
    """
    if not 0 <= discard < 1:
        raise ValueError(f"discard must be at least 0 and below 1, got {discard}")
    check_matrix("x", x)
    if len(x) < 3:
        raise ValueError(f"two neighbours need at least 3 rows, got {len(x)}")
    first, second = nearest_distances(x, 2).unbind(dim=1)
    ratio = (second / first)[first > 0].log().sort().values
    count = len(ratio)
    kept = int(count * (1 - discard))
    if kept < 2 or not bool(ratio[kept - 1] > 0):
        raise ValueError(f"only {count} of {len(x)} rows differ from all others, by too few distances to tell")
    steps = torch.arange(1, kept + 1, dtype=torch.float64, device=ratio.device)
    height, ratio = -torch.log1p(-steps / count) if kept < count else -torch.log1p(-steps / (count + 1)), ratio[:kept]
    slope: Tensor = (ratio @ height) / (ratio @ ratio)
    return slope


def mle_dimension(x: Tensor, neighbours: int = 20) -> Tensor:
    """Intrinsic dimension by maximum likelihood over k neighbours (Levina and Bickel 2004).

    The inverse estimates are averaged over points, as MacKay and Ghahramani (2005) have it. Rows whose k-th neighbour
    is as near as the first are left out.

    Args:
        x: Points, N x D.
        neighbours: k, at least 3, below N.

    Returns:
        A float64 scalar.

    Raises:
        TypeError: If ``x`` is no floating-point tensor.
        ValueError: If it is no matrix of finite numbers with more than k rows, or too few rows differ.
    """
    check_at_least("neighbours", neighbours, 3)
    distances = nearest_distances(x, neighbours)
    distances = distances[distances[:, 0] > 0]
    inverse = (distances[:, -1:] / distances[:, :-1]).log().sum(dim=1) / (neighbours - 2)
    if not len(inverse) or not bool(inverse.mean() > 0):
        raise ValueError("too few rows differ from their neighbours to tell a dimension")
    found: Tensor = 1 / inverse.mean()
    return found


def participation_ratio(eigenvalues: Tensor) -> Tensor:
    """(sum of eigenvalues)^2 / sum of their squares: k equal ones give k (Gao et al. 2017).

    Args:
        eigenvalues: D of a scatter, not negative.

    Raises:
        ValueError: If they are no vector, one is negative, or all are zero.
    """
    values = _spectrum(eigenvalues)
    found: Tensor = values.sum().square() / values.square().sum()
    return found


def spectral_decay(eigenvalues: Tensor, first: int = 11, last: int | None = None) -> PowerLaw:
    """Exponent alpha of the eigenvalues' decay as n^-alpha, a line on logarithmic axes (Stringer et al. 2019).

    Args:
        eigenvalues: D of a scatter, in any order.
        first: The first that the line goes through, counted from 1; where there are too few, the first of all.
        last: The last one. Default: the last above rounding, at most the 500th.

    Raises:
        ValueError: If fewer than three eigenvalues are above rounding.
    """
    values = _spectrum(eigenvalues).sort(descending=True).values
    count = int((values > rounding(len(values)) * values[0]).sum())
    last = min(count, 500 if last is None else last)
    first = first if last - first >= 9 else 1
    if last - first < 2:
        raise ValueError(f"a decay needs at least three eigenvalues above rounding, there are {last}")
    x = torch.arange(first, last + 1, dtype=torch.float64, device=values.device).log()
    y = values[first - 1 : last].log()
    x = x - x.mean()
    return PowerLaw(-float((x @ y) / (x @ x)), first, last)


def lidar(x: Tensor, delta: float = 1e-4) -> Tensor:
    """LiDAR: how many directions tell samples apart, beyond what views of one sample differ in (Thilak et al. 2024).

    Every sample is a class of its own, its views are that class's samples. The effective rank (exponential of the
    entropy) of the eigenvalues of S_w^-1/2 S_b S_w^-1/2, with the covariance S_b of the samples' means and the mean
    covariance of a sample's views plus ``delta`` I, S_w.

    Args:
        x: Features of V >= 2 views of each of N >= 2 samples, N x V x D.
        delta: What is added to the diagonal of S_w, in the features' squared units.

    Returns:
        A float64 scalar, from 1 to min(N - 1, D).

    Raises:
        TypeError: If ``x`` is no floating-point tensor.
        ValueError: If it is no such array of finite numbers, ``delta`` is not above 0, or all samples have one mean.
    """
    if not 0 < delta < float("inf"):
        raise ValueError(f"delta must be a finite number above 0, got {delta}")
    if isinstance(x, Tensor) and (x.dim() != 3 or x.shape[0] < 2 or x.shape[1] < 2 or not x.shape[2]):
        raise ValueError(f"x must be N x V x D with two samples and two views at least, got {tuple(x.shape)}")
    check_floating("x", x)
    views = x.detach().to(float64_device(x.device)).double()
    if not bool(views.isfinite().all()):
        raise ValueError("x must be finite")
    samples, count, width = views.shape
    means = views.mean(dim=1)
    apart = (views - means.unsqueeze(1)).flatten(0, 1)
    within = apart.mT @ apart / (samples * count)
    within.diagonal().add_(delta)
    means = means - means.mean(dim=0)
    if not bool(means.abs().max() > 64 * torch.finfo(torch.float64).eps * views.abs().max()):
        raise ValueError("all samples have the same mean: there is no direction that tells them apart")
    # S_w^-1/2 S_b S_w^-1/2 has the squared singular values of the means that a Cholesky factor of S_w has whitened
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(within), means.mT, upper=False)
    values = torch.linalg.svdvals(white).square()
    values = values[values > rounding(max(samples, width)) * values[0]]
    found: Tensor = torch.special.entr(values / values.sum()).sum().exp()
    return found


def class_distance_variance(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Class-distance normalised variance (Galanti, Gyorgy and Hutter 2022), the mean over all pairs of classes.

    For two classes (v_i + v_j) / (2 d^2), with the mean squared distance v of a class's samples from their mean and the
    distance d of the two means: 0 where every class is a point.

    Args:
        features: N x D.
        labels: N class indices.
        num_classes: K; classes without samples are left out.

    Raises:
        TypeError, ValueError: If features or labels are of the wrong kind, fewer than two classes have samples, or two
            class means coincide.
    """
    check_features(features)
    check_class_indices(labels, len(features), num_classes)
    moments = class_moments(features, labels, num_classes)
    present = moments.counts > 0
    means = moments.means[present].double()
    if len(means) < 2:
        raise ValueError("at least two classes with samples are needed")
    spread = (moments.squares[present].sum(dim=1) / moments.counts[present]).double()
    apart = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist").square()
    upper = torch.triu_indices(len(means), len(means), offset=1)
    distances = apart[upper[0], upper[1]]
    if not bool((distances > 0).all()):
        raise ValueError("two class means coincide")
    found: Tensor = ((spread[upper[0]] + spread[upper[1]]) / (2 * distances)).mean()
    return found


def _spectrum(eigenvalues: Tensor) -> Tensor:
    if eigenvalues.dim() != 1 or not len(eigenvalues) or not eigenvalues.is_floating_point():
        raise ValueError(f"eigenvalues must be a vector of floating-point numbers, got {tuple(eigenvalues.shape)}")
    values = eigenvalues.double()
    if not bool((values >= -rounding(len(values)) * values.abs().max()).all()) or not bool((values > 0).any()):
        raise ValueError("eigenvalues of a scatter are not negative, and at least one is above zero")
    return values.clamp_min(0)
