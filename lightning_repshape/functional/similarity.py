"""How alike two representations of the same samples are, whatever rotation, shift and scale lies between them."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_at_least, check_matrix
from lightning_repshape.functional.numerics import (
    at_least_float32,
    eigh,
    float64_device,
    full_precision,
    rounding,
    unit_rows,
)

_ROWS = 512  # whose cosines with all others are held at a time


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Debiased linear centred kernel alignment of two representations (Kornblith et al. 2019; Song et al. 2012).

    The Hilbert-Schmidt independence criteria are the unbiased estimates, so that unrelated representations give 0 on
    average however many features they have; the plain estimate tends to 1 where features outnumber samples.

    Args:
        x: Features of N >= 4 samples, N x D.
        y: Features of the same samples in the same order, N x E.

    Returns:
        A float64 scalar: 1 for representations equal up to rotation, shift and scale, about 0 for unrelated ones (it
        may be slightly negative).

    Raises:
        TypeError: If they are no floating-point tensors.
        ValueError: If they are no matrices of equally many samples, at least 4, or one of them is too constant to tell.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 3.0], [4.0, 1.0], [1.0, 5.0]])
        >>> round(float(linear_cka(x, 3 * x.flip(1) + 1)), 6)
        1.0
    """
    a, b = _pair(x, y, least=4)
    return _cka(a, b, _dependence(a, a), _dependence(b, b))


def linear_cka_matrix(representations: list[Tensor]) -> Tensor:
    """:func:`linear_cka` of all pairs of R representations of the same samples, R x R float64, ones on the diagonal."""
    pairs = [_pair(part, representations[0], least=4)[0] for part in representations]
    own = [_dependence(part, part) for part in pairs]
    found = torch.eye(len(pairs), dtype=torch.float64, device=pairs[0].device)
    for i in range(len(pairs)):
        for j in range(i):
            found[i, j] = found[j, i] = _cka(pairs[i], pairs[j], own[i], own[j])
    return found


def procrustes_distance(x: Tensor, y: Tensor) -> Tensor:
    """Procrustes distance of two representations' shapes (Williams et al. 2021).

    Both are centred and scaled to unit Frobenius norm; the distance is what the best rotation or reflection leaves,
    min over Q of ||X - Y Q||_F = sqrt(2 - 2 ||X^T Y||_*). Where the widths differ, the narrower has zeros added.

    Args:
        x: Features of N >= 2 samples, N x D.
        y: Features of the same samples in the same order, N x E.

    Returns:
        A float64 scalar between 0 (the same shape) and sqrt(2); a metric on shapes.

    Raises:
        TypeError: If they are no floating-point tensors.
        ValueError: If they are no matrices of equally many samples, at least 2, or one of them never changes.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 3.0]])
        >>> round(float(procrustes_distance(x, 3 * x.flip(1) + 1)), 6)
        0.0
    """
    found: Tensor = (2 - 2 * _overlap(*_pair(x, y, least=2))).clamp_min(0).sqrt()
    return found


def procrustes_rotation(x: Tensor, y: Tensor) -> Tensor:
    """The rotation or reflection Q, E x D float64, with which centred ``y`` N x E lies nearest to centred ``x`` N x D.

    Raises as :func:`procrustes_distance`.
    """
    a, b = _pair(x, y, least=2)
    u, _, vh = torch.linalg.svd(b.mT @ a, full_matrices=False)
    rotation: Tensor = u @ vh
    return rotation


def mutual_neighbours(x: Tensor, y: Tensor, neighbours: int = 10) -> Tensor:
    """How many of a sample's nearest neighbours in one representation are so in the other, too (Huh et al. 2024).

    Nearest by cosine, as in the paper; the share of common neighbours, averaged over samples.

    Args:
        x: Features of N samples, N x D.
        y: Features of the same samples in the same order, N x E.
        neighbours: k, below N.

    Returns:
        A float64 scalar between 0 and 1; unrelated representations give k / (N - 1) on average.

    Raises:
        TypeError: If they are no floating-point tensors.
        ValueError: If they are no matrices of finite numbers of equally many samples, more than k.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> float(mutual_neighbours(x, 3 * x.flip(1), neighbours=1))
        1.0
    """
    check_at_least("neighbours", neighbours, 1)
    _check_pair(x, y, least=neighbours + 1)
    units = [unit_rows(part.detach().to(float64_device(part.device)).double()) for part in (x, y)]
    if not all(bool(part.isfinite().all()) for part in units):
        raise ValueError("x and y must be finite")
    count, common = len(x), 0
    for start in range(0, count, _ROWS):
        rows = torch.arange(start, min(start + _ROWS, count), device=units[0].device)
        near = []
        for part in units:
            cosines = part[rows] @ part.mT
            cosines[rows - start, rows] = -torch.inf
            near.append(cosines.topk(neighbours).indices)
        common += int((near[0].unsqueeze(2) == near[1].unsqueeze(1)).sum())
    return torch.tensor(common / (count * neighbours), dtype=torch.float64)


def regression_score(x: Tensor, y: Tensor, orthogonal: bool = False, adjusted: bool = False) -> Tensor:
    """Share of the variance of ``y`` that a linear map of ``x`` gives, R^2 (Kornblith et al. 2019).

    Both are centred. An orthogonal map, with a factor, gives ||X^T Y||_*^2 / (||X||_F^2 ||Y||_F^2), the same in both
    directions: (1 - d^2 / 2)^2 of the Procrustes distance d.

    Args:
        x: Features of N >= 2 samples, N x D.
        y: Features of the same samples in the same order, N x E.
        orthogonal: Whether the map may only turn, reflect and scale.
        adjusted: The adjusted R^2, without what as many unrelated features would give by chance, rank / (N - 1): it is
            about 0 for unrelated representations and may be slightly negative. Not with ``orthogonal``.

    Returns:
        A float64 scalar, 1 where the map exists.

    Raises:
        TypeError: If they are no floating-point tensors.
        ValueError: If they are no matrices of equally many samples, one of them never changes, or, ``adjusted``, x has
            as many independent features as there are samples, so that every y could be had.
    """
    if orthogonal and adjusted:
        raise ValueError("the score of an orthogonal map cannot be adjusted")
    a, b = _pair(x, y, least=2)
    if orthogonal:
        return _overlap(a, b).square()
    a, b = _unit(a), _unit(b)
    tall = len(a) > a.shape[1]
    values, vectors = eigh(a.mT @ a if tall else a @ a.mT)
    kept = values > rounding(max(a.shape)) * values[-1]
    along = (vectors[:, kept].mT @ (a.mT @ b if tall else b)).square().sum(dim=1)
    found: Tensor = (along / values[kept] if tall else along).sum().clamp_max(1)
    rank = int(kept.sum())
    left = len(a) - 1 - rank
    if adjusted and left < 1:
        raise ValueError(
            f"x has {rank} independent features of {len(a)} samples, so that a linear map gives any y; more "
            "samples are needed"
        )
    return found if not adjusted else found - (1 - found) * rank / left


class SimilarityMatrices(NamedTuple):
    """What several representations of the same samples have in common, pair by pair.

    Attributes:
        distance: :func:`procrustes_distance`, R x R float64.
        neighbours: :func:`mutual_neighbours`, R x R.
        regression: :func:`regression_score` of the row's map to the column, adjusted; NaN where the row has too many
            features for the samples.
    """

    distance: Tensor
    neighbours: Tensor
    regression: Tensor


def similarity_matrices(representations: Sequence[Tensor], neighbours: int = 10) -> SimilarityMatrices:
    """Procrustes distance, common neighbours and regression of all pairs of R representations.

    Args:
        representations: Features of the same N >= 3 samples in the same order, each N x D of any width D.
        neighbours: k; N - 1 where that is less.

    Raises:
        TypeError, ValueError: As the functions of two representations.
    """
    count = len(representations[0])
    parts = [_no_wider(part) for part in representations]
    size = len(parts), len(parts)
    distance, near = torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64)
    regression = torch.ones(size, dtype=torch.float64)
    for i, j in combinations(range(len(parts)), 2):
        distance[i, j] = distance[j, i] = procrustes_distance(parts[i], parts[j])
        near[i, j] = near[j, i] = mutual_neighbours(parts[i], parts[j], min(neighbours, count - 1))
        for one, other in ((i, j), (j, i)):
            try:
                regression[one, other] = regression_score(parts[one], parts[other], adjusted=True)
            except ValueError:  # more features than samples
                regression[one, other] = torch.nan
    return SimilarityMatrices(distance, near, regression)


def _no_wider(x: Tensor) -> Tensor:
    """Rows N x D, where D is above N turned into N dimensions, float64: no angle or distance changes."""
    check_matrix("x", x)
    if x.shape[1] <= len(x):
        return x
    if not bool(x.isfinite().all()):
        raise ValueError("x must be finite")
    turned: Tensor = torch.linalg.qr(x.detach().mT.double(), mode="r").R.mT
    return turned


def sketched(x: Tensor, width: int) -> Tensor:
    """Rows N x D in at most ``width`` dimensions whose inner products are the same on average (Charikar et al. 2002).

    Each feature is added to one of them, drawn once and for all, with a random sign, which changes inner products by
    about sqrt(2 / width) of the lengths. Narrower ones stay as they are.
    """
    if x.shape[1] <= width:
        return x
    source = torch.Generator().manual_seed(x.shape[1])
    place = torch.randint(width, (x.shape[1],), generator=source).to(x.device)
    sign = (2 * torch.randint(2, (x.shape[1],), generator=source) - 1).to(x)
    return torch.zeros(len(x), width, dtype=x.dtype, device=x.device).index_add_(1, place, x * sign)


def unbiased_gram(x: Tensor) -> Tensor:
    """The Gram matrix of N >= 4 rows, N x N float64, centred so that it has no bias (Szekely and Rizzo 2014).

    Its diagonal is zero and its rows add up to zero; the sum of the elementwise products of two such matrices, over
    N (N - 3), is the unbiased Hilbert-Schmidt criterion of the two representations. Products are of the rows' own
    precision, of at least float32.

    Raises:
        TypeError, ValueError: If ``x`` is no matrix of finite floating-point numbers with at least 4 rows.
    """
    check_matrix("x", x)
    count = len(x)
    if count < 4:
        raise ValueError(f"at least 4 samples are needed, got {count}")
    rows = at_least_float32(x.detach())
    rows = rows - rows.mean(dim=0)
    with full_precision(rows.device):
        gram = (rows @ rows.mT).to(float64_device(rows.device)).double()
    if not bool(gram.isfinite().all()):
        raise ValueError("x must be finite")
    gram.fill_diagonal_(0)
    sums = gram.sum(dim=1) / (count - 2)
    gram -= sums.unsqueeze(1) + sums - sums.sum() / (count - 1)
    return gram.fill_diagonal_(0)


class MinibatchCKA:
    """Debiased linear CKA of L representations from batches, none of which is kept (Nguyen, Raghu, Kornblith 2021).

    Of each batch the unbiased Hilbert-Schmidt criteria of all pairs are one product of L Gram matrices with each other;
    their means over batches are unbiased whatever the batches' size, as long as these are random samples: batches of
    one class each would tell of that class alone. Memory: L batch x batch matrices.

    Example:
        >>> import torch
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> state = MinibatchCKA()
        >>> for part in x.split(100):
        ...     state.update([unbiased_gram(part), unbiased_gram(3 * part.flip(1) + 1)])
        >>> round(float(state.matrix()[0, 1]), 6)
        1.0
    """

    def __init__(self) -> None:
        self.criteria: Tensor | None = None
        self.samples = 0

    def update(self, grams: Sequence[Tensor]) -> None:
        """Adds a batch: :func:`unbiased_gram` of its n rows in every representation, always in the same order.

        Raises ValueError if they differ in size, or there are more or fewer than before.
        """
        if len({gram.shape for gram in grams}) != 1:
            raise ValueError(f"Gram matrices of the same samples are needed, not {[tuple(g.shape) for g in grams]}")
        count = len(grams[0])
        flat = torch.stack([gram.flatten() for gram in grams])
        found = flat @ flat.mT / (count - 3)  # n times the criteria
        if self.criteria is not None and self.criteria.shape != found.shape:
            raise ValueError(f"there were {len(self.criteria)} representations before, and there are {len(found)}")
        self.criteria = found if self.criteria is None else self.criteria + found
        self.samples += count

    def matrix(self) -> Tensor:
        """CKA of all pairs, L x L float64; NaN in the rows and columns of what never changes.

        Raises ValueError before the first batch.
        """
        if self.criteria is None:
            raise ValueError("there were no batches")
        own = self.criteria.diagonal()
        scale = torch.where(own > 0, own, torch.nan).sqrt()
        found: Tensor = self.criteria / scale / scale.unsqueeze(1)
        return found


def _check_pair(x: Tensor, y: Tensor, least: int) -> None:
    check_matrix("x", x)
    check_matrix("y", y, "N x E")
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"x and y must be of the same samples, but they have {x.shape[0]} and {y.shape[0]} rows")
    if x.shape[0] < least:
        raise ValueError(f"at least {least} samples are needed, got {x.shape[0]}")


def _pair(x: Tensor, y: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both, centred, in float64."""
    _check_pair(x, y, least)
    a, b = (part.double() - part.double().mean(dim=0) for part in (x, y))
    if not bool(a.isfinite().all()) or not bool(b.isfinite().all()):
        raise ValueError("x and y must be finite")
    return a, b


def _unit(part: Tensor) -> Tensor:
    norm = part.norm()
    if not bool(norm > 0):
        raise ValueError("one of the representations never changes, so it has no shape")
    unit: Tensor = part / norm
    return unit


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """||A^T B||_* of centred rows that are scaled to unit norm."""
    # from triangular factors, which are no larger than N x N or D x D
    u, v = (
        torch.linalg.qr(part.mT, mode="r").R.mT if part.shape[0] < part.shape[1] else part
        for part in map(_unit, (a, b))
    )
    found: Tensor = torch.linalg.svdvals(u.mT @ v).sum()
    return found


def _dependence(a: Tensor, b: Tensor) -> Tensor:
    """N (n - 3) times the unbiased Hilbert-Schmidt criterion of centred rows (Song et al. 2012, Eq. 5), N x N or D x D.

    With Gram matrices whose diagonals are zero: tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2 / (n-2) 1'KL1.
    """
    n = len(a)
    squares = a.square().sum(dim=1), b.square().sum(dim=1)
    if n < max(a.shape[1], b.shape[1]):
        trace = ((a @ a.mT) * (b @ b.mT)).sum() - squares[0] @ squares[1]
    else:
        trace = (a.mT @ b).square().sum() - squares[0] @ squares[1]
    # rows of a centred Gram matrix add up to zero, so that without the diagonal they add up to minus it
    totals = squares[0].sum() * squares[1].sum() / ((n - 1) * (n - 2))
    found: Tensor = trace + totals - 2 / (n - 2) * (squares[0] @ squares[1])
    return found


def _cka(a: Tensor, b: Tensor, own_a: Tensor, own_b: Tensor) -> Tensor:
    if not bool(own_a > 0) or not bool(own_b > 0):
        raise ValueError("one of the representations is too constant, or of too few samples, to compare")
    found: Tensor = _dependence(a, b) / (own_a * own_b).sqrt()
    return found
