"""From features and labels to solved heads in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_at_least, check_choice
from lightning_repshape.functional.stacked_heads._first_layer import take
from lightning_repshape.functional.stacked_heads.descent import EarlyStopping, HeadSolution, gradient_descent
from lightning_repshape.functional.stacked_heads.heads import StackedHeads, head_seeds, init_heads
from lightning_repshape.functional.stacked_heads.inputs import (
    Form,
    Loss,
    Reduction,
    as_solver_dtype,
    check_shapes,
    check_values,
    loss_per_head,
    make_targets,
    num_classes_of,
)
from lightning_repshape.functional.stacked_heads.recipe import HeadRecipe
from lightning_repshape.functional.stacked_heads.ridge import ridge
from lightning_repshape.seeding import generator, key_to_seed

Solver = Literal["gd", "ridge"]


def solve_heads(
    features: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    num_heads: int = 1,
    hidden: Sequence[int] = (128, 128),
    num_outputs: int | None = None,
    solver: Solver = "gd",
    loss: Loss = "cross_entropy",
    reduction: Reduction = "mean",
    lam: float = 1e-3,
    updates: int = 32,
    rate: float = 0.05,
    momentum: float = 0.9,
    nesterov: bool = False,
    init_std: float = 0.1,
    seed: int | Sequence[int] = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
    early_stopping: EarlyStopping | None = None,
    form: Form = "auto",
    heads_at_once: int | None = None,
    validate: bool = True,
) -> HeadSolution:
    """Draws E heads afresh and solves them on fixed features: FOCA's weak classifiers (Eq. 4; Algorithm 1, line 5).

    Args:
        features: ``N x D`` for all heads, or ``E x N x D``.
        labels: ``N`` integers in 0..K-1, or ``E x N``.
        num_classes: K.
        num_heads: E. Default: 1.
        hidden: Widths of the hidden layers; empty for linear heads. Default: (128, 128), the paper's.
        num_outputs: K (None, the default), or 1 for two classes under the squared loss.
        solver: ``"gd"`` (default), see :func:`gradient_descent`; ``"ridge"``, see :func:`ridge`: closed form, for
            linear heads and the squared loss; it uses neither initial numbers nor updates.
        loss: ``"cross_entropy"`` (default) or ``"squared"``.
        reduction: ``"mean"`` (default) or ``"sum"`` over samples.
        lam: lambda of Eq. 4; under ``"gd"`` on weights and biases, under ``"ridge"`` on weights. Default: 1e-3
            (unpublished).
        updates: Updates of ``"gd"``. Default: 32 (the paper's for CIFAR-10; 64 for CIFAR-100).
        rate: Learning rate of ``"gd"``. Default: 0.05 (unpublished).
        momentum: Momentum of ``"gd"``. Default: 0.9 (unpublished).
        nesterov: Whether momentum is Nesterov's. Default: False.
        init_std: Standard deviation of the initial weights. Default: 0.1 (the paper's).
        seed: One integer, or E of them; decides initial numbers and minibatches. Default: 0.
        indices: ``E x n``, each head's own samples among shared features; None (default): all of them.
        batch_size: Samples of an update of ``"gd"``; None (default): full batch.
        early_stopping: For ``"gd"``; None (default): none.
        form: ``"auto"`` (default), ``"primal"`` or ``"gram"``.
        heads_at_once: Heads in one batched program of ``"gd"``; None (default): by the size of a CPU's cache.
        validate: Look at the values too; see :func:`gradient_descent`. Default: True.

    Returns:
        The solved heads with their losses.

    Raises:
        ValueError: If a value, a shape or a combination cannot work; the message says which.
        TypeError: If features are not floating point, or labels or indices not integers.
    """
    check_choice("solver", solver, ("gd", "ridge"))
    check_at_least("num_heads (E)", num_heads, 1)
    check_at_least("num_classes", num_classes, 2)
    num_outputs = num_classes if num_outputs is None else num_outputs
    if num_outputs != num_classes and not (num_outputs == 1 and num_classes == 2):
        raise ValueError(f"num_outputs must be num_classes = {num_classes} (or 1 for two classes), got {num_outputs}")
    num_classes_of(num_outputs, loss)
    if solver == "ridge":
        if loss != "squared":
            raise ValueError("solver='ridge' minimises the squared loss: it goes with loss='squared' alone")
        if len(hidden) > 0:
            raise ValueError(f"solver='ridge' solves linear heads: it needs hidden=(), got {tuple(hidden)}")
        if early_stopping is not None or batch_size is not None:
            raise ValueError("solver='ridge' makes no updates: it takes neither early_stopping nor batch_size")
        return ridge(
            features,
            labels,
            num_outputs=num_outputs,
            lam=lam,
            num_heads=num_heads,
            reduction=reduction,
            indices=indices,
            form=form,
            validate=validate,
        )
    seeds = head_seeds(seed, num_heads)
    initial = _fresh_heads(features, num_heads, hidden, num_outputs, init_std, seeds)
    return gradient_descent(
        initial,
        features,
        labels,
        lam=lam,
        updates=updates,
        rate=rate,
        momentum=momentum,
        nesterov=nesterov,
        loss=loss,
        reduction=reduction,
        indices=indices,
        batch_size=batch_size,
        early_stopping=early_stopping,
        form=form,
        seed=seeds,
        heads_at_once=heads_at_once,
        validate=validate,
    )


def _fresh_heads(
    features: Tensor, count: int, hidden: Sequence[int], outputs: int, init_std: float, seeds: Sequence[int]
) -> StackedHeads:
    """Heads as they are drawn, for these features, on their device and in the precision of their solve."""
    return init_heads(
        count,
        (features.shape[-1], *hidden, outputs),
        init_std=init_std,
        seed=seeds,
        device=features.device,
        dtype=torch.float64 if features.dtype == torch.float64 else torch.float32,
    )


def feature_scale(features: Tensor, norm: float) -> Tensor:
    """What to multiply features by, so that their mean L2 norm is ``norm``.

    Args:
        features: ``N x D``.
        norm: The mean norm wanted, above 0.

    Returns:
        A tensor without dimensions, detached, that nothing waited for. Features that are all zero give 1.

    Raises:
        ValueError: If ``norm`` is not above 0.
    """
    if not norm > 0:
        raise ValueError(f"norm must be above 0, got {norm}")
    mean = torch.linalg.vector_norm(as_solver_dtype(features.detach()), dim=-1).mean()
    return torch.where(mean > 0, norm / mean, torch.ones_like(mean))


def train_heads(
    initial: StackedHeads,
    features: Tensor,
    labels: Tensor,
    recipe: HeadRecipe,
    *,
    loss: Loss = "cross_entropy",
    form: Form = "auto",
    seed: int | Sequence[int] = 0,
    validate: bool = True,
) -> HeadSolution:
    """Trains E heads by a :class:`HeadRecipe`, on features that are brought to its ``feature_norm`` already.

    Args:
        initial: Where to start; left as it is.
        features: ``N x D`` for all heads, or ``E x N x D``. Where some are held out, each head gets a copy of its own.
        labels: ``N`` integers in 0..K-1, or ``E x N``.
        recipe: How they are trained.
        loss: ``"cross_entropy"`` (default) or ``"squared"``.
        form: As in :func:`gradient_descent`, for a fixed number of updates.
        seed: One integer, or E of them; decides which samples a head holds out, and its minibatches. Default: 0.
        validate: Look at the values too; see :func:`gradient_descent`. Default: True.

    Returns:
        The trained heads; their losses are those over the samples that were not held out, their updates those behind
        the parameters that were kept, of both rates together.

    Raises:
        ValueError: If a value, a shape or a combination cannot work; the message says which.
    """
    check_shapes(features, labels, initial.num_heads)
    count, norm = features.shape[-2], recipe.feature_norm or 5.0
    held = recipe.held_out(count)
    if not held:
        updates = 200 if recipe.updates is None else recipe.updates
        descend = _descent(recipe, loss)
        return descend(
            initial,
            features,
            labels,
            rate=recipe.rate,
            updates=updates,
            batch_size=recipe.batch_size,
            form=form,
            seed=seed,
            validate=validate,
        )
    if validate:
        check_values(features, labels, num_classes_of(initial.num_outputs, loss))
    seeds = head_seeds(seed, initial.num_heads)
    orders = [torch.randperm(count, generator=generator("held-out", one)) for one in seeds]
    order = torch.stack(orders).to(features.device)
    features = as_solver_dtype(take(features if features.ndim == 3 else features.unsqueeze(0), order))
    labels = take(labels if labels.ndim == 2 else labels.unsqueeze(0), order)
    targets = make_targets(labels[:, :held], initial.num_outputs, loss, features.dtype)
    mean, spread = _centre(features)
    divisor, ends, seen = torch.ones_like(spread), [], []
    for units in (torch.ones_like(spread), spread):
        divisor = divisor * units * _bring_to(norm, features.div_(units))
        solution = _until_done(initial, features, labels, held, recipe, loss, seeds)
        heads = solution.heads
        seen.append(loss_per_head(heads.forward(features[:, :held]), targets, loss, "mean"))
        weight = heads.weights[0] / divisor
        bias = heads.biases[0] - (weight @ mean.mT).squeeze(-1)
        heads = StackedHeads(weight, heads.later, (bias, *heads.biases[1:]))
        ends.append(HeadSolution(heads, solution.losses, solution.updates))
    diverged = ~ends[0].losses.isfinite() & ends[1].losses.isfinite()
    return _either((seen[1] < seen[0] - LEAST) | diverged, ends[1], ends[0])


MOST_EPOCHS = 200
"""Looks at one rate after which a head counts as done, whatever its loss on held-out samples does."""

LEAST = 1e-3
"""How much lower the loss on held-out samples must get to count: near 0, on fitted features, it falls without end."""

MIN_UPDATES = 20
"""Updates between two looks, where an epoch has fewer."""


def _descent(recipe: HeadRecipe, loss: Loss) -> Callable[..., HeadSolution]:
    """Descent with a recipe's options."""
    return functools.partial(
        gradient_descent, lam=recipe.weight_decay, momentum=recipe.momentum, nesterov=recipe.nesterov, loss=loss
    )


def _until_done(
    initial: StackedHeads, features: Tensor, labels: Tensor, held: int, recipe: HeadRecipe, loss: Loss, seeds: list[int]
) -> HeadSolution:
    """Descends on samples ``E x N x D`` behind the first, held-out ones until the loss on those falls no more."""
    batch = recipe.batch_size or 256
    epoch = max(MIN_UPDATES, (features.shape[1] - held) // batch)
    stopping = EarlyStopping(features[:, :held], labels[:, :held], epoch, recipe.patience, LEAST)
    descend, heads = _descent(recipe, loss), initial
    total = torch.zeros(initial.num_heads, dtype=torch.int64, device=features.device)
    for stage, rate in enumerate((recipe.rate, recipe.rate / 10)):
        solution = descend(
            heads,
            features[:, held:],
            labels[:, held:],
            rate=rate,
            updates=MOST_EPOCHS * epoch,
            batch_size=batch,
            early_stopping=stopping,
            form="primal",
            seed=[key_to_seed("stage", stage, one) for one in seeds],
            validate=False,
        )
        heads, total = solution.heads, total + solution.updates
    return HeadSolution(heads, solution.losses, total)


def _centre(features: Tensor) -> tuple[Tensor, Tensor]:
    """Brings features ``E x N x D``, where they lie, about their mean; gives it and each unit's spread, E x 1 x D.

    Features behind ReLU share one large direction, beside which descent hardly moves along all others. Units of a
    spread below a thousandth of the largest one count as that; what rounding leaves of constant features is no spread.
    """
    mean = features.mean(dim=1, keepdim=True)
    features.sub_(mean)
    spread = torch.linalg.vector_norm(features, dim=1, keepdim=True) / features.shape[1] ** 0.5
    largest = spread.amax(dim=2, keepdim=True)
    varies = largest > 100 * torch.finfo(features.dtype).eps * mean.abs().amax(dim=2, keepdim=True)
    features.mul_(varies)
    return mean, torch.where(varies, torch.maximum(spread, 1e-3 * largest), 1.0)


def _bring_to(norm: float, features: Tensor) -> Tensor:
    """Brings features ``E x N x D``, where they lie, to a mean norm; gives what they were divided by, E x 1 x 1."""
    length = torch.linalg.vector_norm(features, dim=2).mean(dim=1)
    divisor = torch.where(length > 0, length / norm, 1.0)[:, None, None]
    features.div_(divisor)
    return divisor


def _either(first: Tensor, one: HeadSolution, other: HeadSolution) -> HeadSolution:
    """Of each of E heads the one where ``first`` holds, else the other."""

    def chosen(ours: Tensor, theirs: Tensor) -> Tensor:
        return torch.where(first.view(-1, *[1] * (ours.ndim - 1)), ours, theirs)

    weight, *later = map(chosen, one.heads.weights, other.heads.weights)
    heads = StackedHeads(weight, tuple(later), tuple(map(chosen, one.heads.biases, other.heads.biases)))
    return HeadSolution(heads, chosen(one.losses, other.losses), chosen(one.updates, other.updates))


def solve_head(
    features: Tensor,
    labels: Tensor,
    recipe: HeadRecipe | None = None,
    *,
    num_classes: int,
    loss: Loss = "cross_entropy",
    form: Form = "auto",
    seed: int = 0,
) -> HeadSolution:
    """FOCA's secondary optimisation (Eq. 5): one head from scratch on the frozen features of the whole training set.

    Args:
        features: ``N x D``.
        labels: ``N`` integers in 0..K-1.
        recipe: How the head is trained; its scale of features is moved into the head, which takes features as they
            are. Default: ``HeadRecipe()``, that of partial-dataset retraining.
        num_classes: K.
        loss: ``"cross_entropy"`` (default) or ``"squared"``.
        form: ``"auto"`` (default), ``"primal"`` or ``"gram"``.
        seed: Of initial numbers, held-out samples and minibatches. Default: 0.

    Returns:
        A solution of one head (E = 1), multiplied out; ``solution.heads.linear_layers()`` gives its layers as modules.

    Raises:
        ValueError: If a value, a shape or a combination cannot work; the message says which.
        TypeError: If features are not floating point or labels not integers.
    """
    recipe = recipe or HeadRecipe()
    scale = None if recipe.feature_norm is None else feature_scale(features, recipe.feature_norm)
    initial = _fresh_heads(features, 1, recipe.hidden, num_classes, recipe.init_std, head_seeds(seed, 1))
    scaled = features if scale is None else as_solver_dtype(features) * scale
    solution = train_heads(initial, scaled, labels, recipe, loss=loss, form=form, seed=seed)
    heads = solution.heads if scale is None else solution.heads.scaled_features(scale)
    return HeadSolution(heads.multiplied_out(), solution.losses, solution.updates)
