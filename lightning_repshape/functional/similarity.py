"""How alike two representations of the same samples are, whatever rotation, shift and scale lies between them."""

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_matrix


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
    a, b = (_unit(part) for part in _pair(x, y, least=2))
    # the nuclear norm of X^T Y from triangular factors, which are no larger than N x N or D x D
    u, v = (torch.linalg.qr(part.mT, mode="r").R.mT if part.shape[0] < part.shape[1] else part for part in (a, b))
    found: Tensor = (2 - 2 * torch.linalg.svdvals(u.mT @ v).sum()).clamp_min(0).sqrt()
    return found


def procrustes_rotation(x: Tensor, y: Tensor) -> Tensor:
    """The rotation or reflection Q, E x D float64, with which centred ``y`` N x E lies nearest to centred ``x`` N x D.

    Raises as :func:`procrustes_distance`.
    """
    a, b = _pair(x, y, least=2)
    u, _, vh = torch.linalg.svd(b.mT @ a, full_matrices=False)
    rotation: Tensor = u @ vh
    return rotation


def _pair(x: Tensor, y: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both, centred, in float64."""
    check_matrix("x", x)
    check_matrix("y", y, "N x E")
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"x and y must be of the same samples, but they have {x.shape[0]} and {y.shape[0]} rows")
    if x.shape[0] < least:
        raise ValueError(f"at least {least} samples are needed, got {x.shape[0]}")
    a, b = (part.double() - part.double().mean(dim=0) for part in (x, y))
    return a, b


def _unit(part: Tensor) -> Tensor:
    norm = part.norm()
    if not bool(norm > 0):
        raise ValueError("one of the representations never changes, so it has no shape")
    unit: Tensor = part / norm
    return unit


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
