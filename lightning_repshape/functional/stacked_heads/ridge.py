"""Linear heads under the squared loss in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_at_least, check_choice, check_not_negative
from lightning_repshape.functional.stacked_heads.descent import HeadSolution
from lightning_repshape.functional.stacked_heads.heads import StackedHeads
from lightning_repshape.functional.stacked_heads.inputs import (
    Form,
    Reduction,
    as_solver_dtype,
    check_shapes,
    check_values,
    full_precision,
    loss_per_head,
    make_targets,
    num_classes_of,
)


def ridge(
    features: Tensor,
    labels: Tensor,
    *,
    num_outputs: int,
    lam: float,
    num_heads: int = 1,
    reduction: Reduction = "mean",
    indices: Tensor | None = None,
    form: Form = "auto",
    validate: bool = True,
) -> HeadSolution:
    """Linear heads that minimise mean (or sum) of ``|W f + b - t|^2`` plus ``lam |W|^2``; the bias is not penalised.

    FOCA's conditions (C3) to (C5) with one output for two classes. (C5) writes the sum of the losses plus
    ``lambda / 2 |W|^2``, Eq. 4 the mean plus ``lambda |W|^2``: the same heads for ``lambda_Eq4 = lambda_C5 / (2 n)``,
    which is ``lambda_C5 / 4`` for two classes with one sample each (n = 2). Targets are -1 and +1 with one output,
    else one-hot; losses are summed over outputs.

    Features and targets are centred first, which is what an unpenalised bias amounts to. Products are taken in the
    features' precision, the factorisation in float64.

    Args:
        features: ``N x D`` for all heads, or ``E x N x D``.
        labels: ``N`` integers, or ``E x N``.
        num_outputs: K, or 1 for two classes.
        lam: lambda of Eq. 4 (with ``reduction="sum"``: in front of the sum of losses), above 0.
        num_heads: E. Default: 1.
        reduction: ``"mean"`` (default) or ``"sum"`` over samples.
        indices: ``E x n``, each head's own samples among shared features; None (default): all of them.
        form: ``"gram"`` solves n x n, ``"primal"`` D x D, ``"auto"`` (default) the smaller one.
        validate: Look at the values too; see :func:`gradient_descent`. Default: True.

    Returns:
        The heads with their losses (without the decay term); NaN where a matrix was not positive definite, which means
        that ``lam`` is too small for the features' precision.

    Raises:
        ValueError: If ``lam`` is not above 0, or a value or shape cannot work; the message says which.
        TypeError: If features are not floating point, or labels or indices not integers.
    """
    check_choice("reduction", reduction, ("mean", "sum"))
    check_choice("form", form, ("auto", "primal", "gram"))
    check_at_least("num_heads (E)", num_heads, 1)
    check_at_least("num_outputs", num_outputs, 1)
    check_not_negative("lam (lambda)", lam)
    if lam == 0:
        raise ValueError("ridge needs lam (lambda) > 0: without it the solution is not unique")
    check_shapes(features, labels, num_heads, indices)
    with torch.no_grad(), full_precision(features):
        if validate:
            check_values(features, labels, num_classes_of(num_outputs, "squared"), indices)
        x = as_solver_dtype(features)
        if indices is not None:
            x, labels = x[indices], labels[indices]
        x = x if x.ndim == 3 else x.unsqueeze(0)
        targets = make_targets(labels if labels.ndim == 2 else labels.unsqueeze(0), num_outputs, "squared", x.dtype)
        mean, mean_target = x.mean(dim=1, keepdim=True), targets.mean(dim=1, keepdim=True)
        centred, aims = x - mean, targets - mean_target
        count, dim = x.shape[1:]
        penalty = lam * count if reduction == "mean" else lam
        if form == "gram" or (form == "auto" and count < dim):
            coefficients = _solve(torch.bmm(centred, centred.mT), penalty, aims)
            weight = torch.matmul(coefficients.mT, centred)
        else:
            weight = _solve(torch.bmm(centred.mT, centred), penalty, torch.matmul(centred.mT, aims)).mT
        bias = mean_target - torch.matmul(mean, weight.mT)
        losses = loss_per_head(torch.matmul(x, weight.mT) + bias, targets, "squared", reduction)
        heads = StackedHeads(weight.expand(num_heads, -1, -1).contiguous(), (), (bias[:, 0].expand(num_heads, -1),))
        updates = torch.zeros(num_heads, dtype=torch.int64, device=x.device)
    return HeadSolution(heads, losses.expand(num_heads), updates)


def _solve(scatter: Tensor, penalty: float, right: Tensor) -> Tensor:
    """``(S + penalty I)^-1 R`` for (1 or E) x d x d by Cholesky in float64; NaN where that fails."""
    system = scatter.double()
    system.diagonal(dim1=-2, dim2=-1).add_(penalty)
    factor, info = torch.linalg.cholesky_ex(system)  # unlike cholesky, it does not wait for the GPU to raise
    right = right.double().expand(len(system), -1, -1)
    solved = torch.cholesky_solve(right, factor)
    return torch.where((info == 0)[:, None, None], solved, torch.nan).to(scatter.dtype)
