r"""Penalties on activations that are compared with the class-wise ones: SupCon, VCReg, RR and cw-RR.

For a minibatch of N samples (n_k of class k), I units and the task's K classes:

- :func:`supcon` ``-1/N sum_n 1/|P(n)| sum_{p in P(n)} log( exp(u_n u_p / t) / sum_{a != n} exp(u_n u_a / t) )``
- :func:`vcreg`  ``1/I sum_i max(0, 1 - s_i) + ratio/(I (I-1)) sum_{i != j} c_ij^2``
- :func:`rr`     ``|Z|_F^2 / (|Z|_1 |Z|_inf)``
- :func:`cw_rr`  ``1/K sum_k`` of the same for Z_k, the rows of class k

with rows u of unit length, P(n) the other samples of n's class, and s and c of VCReg with 1/(N-1).

With ``sync`` and an initialised ``torch.distributed`` they are those of the joined batch of all processes, whose
activations are gathered, and gradients are scaled for DistributedDataParallel's averaging. Under accumulation every
part of a batch is a batch of its own. Arithmetic is float32 for half-precision activations, inside autocast too.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_repshape.functional.checks import check_not_negative
from lightning_repshape.functional.class_statistics import memberships
from lightning_repshape.functional.numerics import full_precision, unit_rows
from lightning_repshape.functional.regularizer_ranks import joined_batch
from lightning_repshape.functional.regularizers import (
    Positions,
    _check_not_empty,
    _check_pairs,
    _rows,
    _rows_and_labels,
    cr,
)


def supcon(
    activations: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    temperature: float = 0.1,
    positions: Positions = "units",
    scale: float = 1.0,
    sync: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, Eq. 2, L_out): samples of a class against all others.

    The paper has two views of every image, and a projection network between, which goes after the training; here a
    sample's views are the batch's other samples of its class. One without any counts 0. With memberships, another
    sample is of the same class by the sum of their products.

    Args:
        activations: (N, I), or (N, C, H, W) and the like.
        labels: (N,) integers in 0..K-1, or (N, K) non-negative memberships.
        num_classes: K.
        temperature: t, above 0; 0.1 as in the paper.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: positions are further samples.
        scale: Factor of the result.
        sync: Of the joined batch of all processes.
        group: Process group of these.

    Returns:
        Scalar.

    Raises:
        TypeError: If activations or labels have the wrong type.
        ValueError: If a shape, a label (on the CPU), ``temperature`` or ``positions`` is wrong.

    Example:
        >>> supcon(torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1]), 2, temperature=1.0)
        tensor(0.5514)
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"supcon: temperature must be a finite number above 0, got {temperature}")
    rows, labels, _ = _rows_and_labels(activations, labels, num_classes, positions, "supcon")
    with full_precision(rows.device):
        rows, labels = joined_batch(rows, labels, sync=sync, group=group)
        _check_not_empty(rows, "supcon")
        units = unit_rows(rows)
        shares = memberships(labels, num_classes, rows.dtype)
        itself = torch.eye(rows.shape[0], dtype=torch.bool, device=rows.device)
        others = (shares @ shares.T).masked_fill(itself, 0)
        # of one sample alone there is no other: the diagonal's logarithm must not be that of nothing
        logits = (units @ units.T / temperature).masked_fill(itself, torch.finfo(rows.dtype).min)
        apart = logits.logsumexp(dim=1, keepdim=True) - logits.masked_fill(itself, 0)
        counts = others.sum(dim=1)
        each = (others * apart).sum(dim=1) / counts.where(counts > 0, 1)
        return each.mean() * scale


def vcreg(
    activations: Tensor,
    *,
    ratio: float = 0.125,
    positions: Positions = "units",
    scale: float = 1.0,
    sync: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Variance-covariance regularization (Zhu et al. 2023): units that vary, and vary independently.

    The mean over units of max(0, 1 - s_i), s_i^2 = c_ii + 1e-4, plus ``ratio`` times the mean over pairs of squared
    covariances. The paper's alpha and beta are the weight of the whole and ``ratio`` times it.

    Args:
        activations: (N, I), or (N, C, H, W) and the like, of at least two units.
        ratio: Of the covariances' part to the variances', at least 0; ours 0.125, about as in the paper.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: positions are further samples.
        scale: Factor of the result.
        sync: Of the joined batch of all processes.
        group: Process group of these.

    Returns:
        Scalar; 1 for a single sample, which has no variance.

    Raises:
        TypeError: If the activations are no floating-point tensor.
        ValueError: If their shape, ``ratio`` or ``positions`` is wrong, or there is one unit only.

    Example:
        >>> vcreg(torch.tensor([[0.0, 0.0], [2.0, 1.0]]), ratio=1.0)
        tensor(1.1464)
    """
    check_not_negative("vcreg: ratio", ratio)
    rows, _ = _rows(activations, positions, "vcreg")
    _check_pairs(rows, "vcreg")
    with full_precision(rows.device):
        (rows,) = joined_batch(rows, sync=sync, group=group)
        _check_not_empty(rows, "vcreg")
        count = rows.shape[0]
        spread = (rows - rows.mean(dim=0)).square().sum(dim=0) / max(1, count - 1)
        found = (1 - (spread + 1e-4).sqrt()).relu().mean()
        if ratio and count > 1:
            found = found + cr(rows, scale=ratio * (count / (count - 1)) ** 2)
        return found * scale


def rr(
    activations: Tensor,
    *,
    positions: Positions = "units",
    scale: float = 1.0,
    sync: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Rank regularizer (RR): a cheap lower bound of the stable rank of the batch's activations Z.

    The stable rank is ``|Z|_F^2 / |Z|_2^2``, and ``|Z|_2^2`` is at most the largest column sum times the largest
    row sum of absolute values, which stand in its place: so in the code of Choi and Rhee (AAAI 2019), not in the paper.

    Args:
        activations: (N, I), or (N, C, H, W) and the like.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: positions are further samples.
        scale: Factor of the result.
        sync: Of the joined batch of all processes.
        group: Process group of these.

    Returns:
        Scalar, from 0 (nothing is active) to the rank.

    Raises:
        TypeError: If the activations are no floating-point tensor.
        ValueError: If their shape or ``positions`` is wrong.

    Example:
        >>> rr(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), rr(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
        (tensor(2.), tensor(1.))
    """
    rows, _ = _rows(activations, positions, "rr")
    with full_precision(rows.device):
        (rows,) = joined_batch(rows, sync=sync, group=group)
        _check_not_empty(rows, "rr")
        return _stable_ranks(rows, rows.new_ones(rows.shape[0], 1)).squeeze() * scale


def cw_rr(
    activations: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    positions: Positions = "units",
    scale: float = 1.0,
    sync: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Class-wise rank regularizer (cw-RR): the mean over classes of :func:`rr` of the class's samples.

    A class without samples counts 0, one of a single sample at least 1 / I. With memberships, rows count times their
    membership.

    Args:
        activations: (N, I), or (N, C, H, W) and the like.
        labels: (N,) integers in 0..K-1, or (N, K) non-negative memberships.
        num_classes: K, the task's number of classes, not the batch's.
        positions: ``"units"``: every channel-position is a unit; ``"samples"``: positions are further samples.
        scale: Factor of the result.
        sync: Of the joined batch of all processes.
        group: Process group of these.

    Returns:
        Scalar.

    Raises:
        TypeError: If activations or labels have the wrong type.
        ValueError: If a shape, a label (on the CPU) or ``positions`` is wrong.

    Example:
        >>> cw_rr(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 0, 1]), 2)
        tensor(1.5000)
    """
    rows, labels, _ = _rows_and_labels(activations, labels, num_classes, positions, "cw_rr")
    with full_precision(rows.device):
        rows, labels = joined_batch(rows, labels, sync=sync, group=group)
        _check_not_empty(rows, "cw_rr")
        return _stable_ranks(rows, memberships(labels, num_classes, rows.dtype)).mean() * scale


def _stable_ranks(rows: Tensor, shares: Tensor) -> Tensor:
    """Of every class's rows, times their shares N x K, the bound of the stable rank; 0 where all are zero."""
    sizes = rows.abs()
    squares = shares.square().T @ rows.square().sum(dim=1)
    columns = (shares.T @ sizes).amax(dim=1)
    longest = (shares * sizes.sum(dim=1, keepdim=True)).amax(dim=0)
    bound = columns * longest
    return squares / bound.where(bound > 0, 1)


__all__ = ["cw_rr", "rr", "supcon", "vcreg"]
