"""Partial-dataset retraining: how well heads do that are trained from scratch on few samples of frozen features.

FOCA, section 4.1: features whose classes are nearly points need few samples. For every number n' of samples heads are
trained on class-balanced subsets, as often as r(n') says, and the test error's mean and standard deviation are held
against n'. All heads of one size are one batched program (:mod:`lightning_repshape.functional.stacked_heads`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_at_least
from lightning_repshape.functional.stacked_heads import (
    HeadRecipe,
    StackedHeads,
    feature_scale,
    held_out_scores,
    init_heads,
    train_heads,
)
from lightning_repshape.functional.stacked_heads.descent import even_share, prefers_gram
from lightning_repshape.functional.stacked_heads.heads import redraw_heads
from lightning_repshape.functional.stacked_heads.inputs import (
    Form,
    Loss,
    as_solver_dtype,
    check_shapes,
    check_values,
    full_precision,
)
from lightning_repshape.seeding import generator, key_to_seed
from lightning_repshape.terminal.progress import task

PAPER_REPEATS: Mapping[int, int] = {50_000: 1, 10_000: 5, 1_000: 15, 100: 50, 10: 150}
"""r(n'), the paper's repeats for each number of samples."""

# Heads of one size are drawn, trained and tested in groups of about this size, on a CPU and on a GPU.
_GROUP_BYTES, _GPU_GROUP_BYTES = 128 * 2**20, 4 * 2**30
_LEAST_COST = 5_000  # samples that go through a head between two looks at least


@dataclasses.dataclass(frozen=True, eq=False)
class PartialRetrainingResult:
    """Test errors of heads trained on parts of a data set, as float64 on the CPU.

    Attributes:
        sizes: The numbers of samples n', ascending.
        errors: For each size the ``r(n')`` test errors in [0, 1]. A head that diverged counts with the error that its
            logits make.
        losses: For each size the heads' final training losses; not finite where a head diverged.
        test_losses: For each size the heads' mean losses on the test set, without decay.
    """

    sizes: tuple[int, ...]
    errors: dict[int, Tensor]
    losses: dict[int, Tensor]
    test_losses: dict[int, Tensor] = dataclasses.field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """Mean test error of each size."""
        return torch.stack([self.errors[size].mean() for size in self.sizes])

    @property
    def std(self) -> Tensor:
        """Standard deviation of each size's test errors (divided by r - 1); 0 for a single repeat."""
        return torch.stack(
            [self.errors[size].std() if len(self.errors[size]) > 1 else torch.zeros(()).double() for size in self.sizes]
        )

    @property
    def diverged(self) -> dict[int, int]:
        """How many heads of each size ended with a loss that is not finite."""
        return {size: int((~self.losses[size].isfinite()).sum()) for size in self.sizes}


def balanced_subset(labels: Tensor, size: int, num_classes: int, generator: torch.Generator) -> Tensor:
    """Draws a class-balanced subset without replacement.

    Every class gives ``size // num_classes`` samples; what is left over comes from classes drawn at random, one sample
    each.

    Args:
        labels: ``N`` integers in 0..K-1, on the CPU.
        size: n', from K to N.
        num_classes: K.
        generator: CPU generator of the draw.

    Returns:
        ``size`` distinct indices (int64), ordered by class.

    Raises:
        ValueError: If ``size`` is below K, or a class has too few samples.
    """
    return _draw(_members(labels, num_classes), size, generator)


def _members(labels: Tensor, num_classes: int) -> list[Tensor]:
    """Indices of each class's samples."""
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    return list(torch.split(labels.argsort(stable=True), counts))


def _check_size(members: Sequence[Tensor], size: int) -> None:
    num_classes, total = len(members), sum(map(len, members))
    if size < num_classes:
        raise ValueError(
            f"a class-balanced subset of {num_classes} classes needs n' >= {num_classes} samples, got {size}"
        )
    if size > total:
        raise ValueError(f"a subset of n' = {size} samples was asked for, but there are {total}")
    if size < total:
        least = min(range(num_classes), key=lambda number: len(members[number]))
        need = -(-size // num_classes)
        if len(members[least]) < need:
            raise ValueError(
                f"a class-balanced subset of n' = {size} samples needs {need} of every class, "
                f"but class {least} has {len(members[least])}"
            )


def _draw(members: Sequence[Tensor], size: int, stream: torch.Generator) -> Tensor:
    _check_size(members, size)
    if size == sum(map(len, members)):
        return torch.cat(list(members))
    each, over = divmod(size, len(members))
    extra = set(torch.randperm(len(members), generator=stream)[:over].tolist())
    chosen = []
    for number, ours in enumerate(members):
        chosen.append(ours[torch.randperm(len(ours), generator=stream)[: each + (number in extra)]])
    return torch.cat(chosen)


def partial_retraining(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    sizes: Sequence[int] = (10, 100, 1_000, 10_000, 50_000),
    repeats: Mapping[int, int] | Sequence[int] = PAPER_REPEATS,
    recipe: HeadRecipe | None = None,
    *,
    num_classes: int | None = None,
    loss: Loss = "cross_entropy",
    share_first_layer: bool = False,
    form: Form = "auto",
    seed: int = 0,
    heads_at_once: int | None = None,
) -> PartialRetrainingResult:
    """Trains heads from scratch on class-balanced subsets of frozen features and tests each on the whole test set.

    One recipe serves every method, or the comparison is none: features scaled to one mean norm first (raw norms differ
    by 10 to 100 times between methods), weights from N(0, 0.1^2), and descent until the head is done, see
    :class:`HeadRecipe`. The paper publishes sizes, repeats and the head's widths only.

    A head's subset, initial numbers, held-out samples and minibatches depend on ``(seed, size, repeat)`` alone, so that
    more repeats, or other sizes beside it, leave it as it is.

    Args:
        train_features: ``N x D``.
        train_labels: ``N`` integers in 0..K-1.
        test_features: ``M x D``.
        test_labels: ``M`` integers in 0..K-1.
        sizes: Numbers of samples n', each from K to N; N itself stands for the whole set as it is, balanced or not.
            Default: the paper's for CIFAR-10.
        repeats: r(n'): a mapping from sizes, or one number for each of ``sizes``. Default: the paper's, 150 for 10, 50
            for 100, 15 for 1,000, 5 for 10,000, 1 for 50,000.
        recipe: How each head is trained, on features scaled by one number, found on the training features. Default:
            ``HeadRecipe()``.
        num_classes: K; None: one more than the largest training label.
        loss: ``"cross_entropy"`` or ``"squared"``.
        share_first_layer: Heads of one size begin with the same first layer; testing heads of few samples is then
            several times cheaper, but they are no longer independent.
        form: See :func:`gradient_descent`.
        seed: Of all draws.
        heads_at_once: Heads that are drawn, trained and tested together; None: about 128 MB of them on a CPU, 4 GB on
            a GPU.

    Returns:
        The errors, whose mean and standard deviation against ``sizes`` is the paper's Figure 2.

    Raises:
        ValueError: If a size is below K or above what the classes hold, a size has no repeats, features hold NaN, or
            another value or shape cannot work; the message says which.
        TypeError: If features are not floating point or labels not integers.
    """
    recipe = recipe or HeadRecipe()
    check_shapes(train_features, train_labels, 1)
    check_shapes(test_features, test_labels, 1)
    if train_features.ndim != 2 or test_features.ndim != 2 or train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            "training and test features must be N x D and M x D, got shapes "
            f"{tuple(train_features.shape)} and {tuple(test_features.shape)}"
        )
    num_classes = int(train_labels.max()) + 1 if num_classes is None else num_classes
    check_at_least("num_classes", num_classes, 2)
    check_values(train_features, train_labels, num_classes)
    check_values(test_features, test_labels, num_classes)
    times = _repeats_of(sizes, repeats)
    members = _members(train_labels.cpu(), num_classes)
    for size in times:
        _check_size(members, size)
    costs = {size: max(size, _LEAST_COST) for size in times}  # of a head: its time goes with its samples
    share = sum(times.values()) / sum(costs[size] * often for size, often in times.items())
    text = "retraining heads"
    with torch.no_grad(), full_precision(train_features), task(text, sum(times.values())) as advance:
        scale = 1.0 if recipe.feature_norm is None else float(feature_scale(train_features, recipe.feature_norm))
        errors, losses, tested = {}, {}, {}
        for size in sorted(times):
            widths = (train_features.shape[1], *recipe.hidden, num_classes)
            at_once = even_share(times[size], heads_at_once or _heads_at_once(size, widths, recipe, train_features))
            whole = size == len(train_features)  # then all heads share the features, and nothing is gathered
            fresh: StackedHeads | None = None
            error_parts, loss_parts, tested_parts = [], [], []
            for start in range(0, times[size], at_once):
                some = range(start, min(start + at_once, times[size]))
                seeds = [key_to_seed("partial-retraining", seed, size, repeat) for repeat in some]
                streams = [generator("subset", one) for one in seeds]
                chosen = torch.stack([_draw(members, size, stream) for stream in streams]).to(train_features.device)
                features = _scaled(train_features, None if whole else chosen, scale)
                if fresh is None or fresh.num_heads != len(some):
                    fresh = init_heads(
                        len(some),
                        widths,
                        init_std=recipe.init_std,
                        seed=seeds,
                        first_layer_seed=key_to_seed("partial-retraining", seed, size) if share_first_layer else None,
                        device=features.device,
                        dtype=features.dtype,
                    )
                else:
                    redraw_heads(fresh, seeds, recipe.init_std)
                own = train_labels if whole else train_labels[chosen]
                solution = train_heads(fresh, features, own, recipe, loss=loss, form=form, seed=seeds, validate=False)
                wrong, unseen = held_out_scores(solution.heads, test_features, test_labels, loss, scale=scale)
                error_parts.append(wrong)
                tested_parts.append(unseen)
                loss_parts.append(solution.losses)
                advance(share * costs[size] * len(some))
            errors[size] = torch.cat(error_parts).double().cpu()
            losses[size] = torch.cat(loss_parts).double().cpu()
            tested[size] = torch.cat(tested_parts).cpu()
    return PartialRetrainingResult(tuple(sorted(times)), errors, losses, tested)


def _repeats_of(sizes: Sequence[int], repeats: Mapping[int, int] | Sequence[int]) -> dict[int, int]:
    """The number of heads for each size."""
    if len(sizes) == 0 or len(set(sizes)) != len(sizes):
        raise ValueError(f"sizes must be one or more different numbers of samples, got {tuple(sizes)}")
    if isinstance(repeats, Mapping):
        missing = [size for size in sizes if size not in repeats]
        if missing:
            raise ValueError(f"repeats do not say how often to train on n' = {', '.join(map(str, missing))} samples")
        times = {size: repeats[size] for size in sizes}
    else:
        if len(repeats) != len(sizes):
            raise ValueError(f"repeats must be one number for each of the {len(sizes)} sizes, got {len(repeats)}")
        times = dict(zip(sizes, repeats, strict=True))
    for size, often in times.items():
        check_at_least("a size n'", size, 1)
        check_at_least(f"repeats of n' = {size}", often, 1)
    return times


def _heads_at_once(size: int, widths: Sequence[int], recipe: HeadRecipe, features: Tensor) -> int:
    """As many heads as fit in the room for a group, with samples, first layers (twice or thrice) and activations."""
    dim, width = widths[:2]
    batch = recipe.batch_size if recipe.batch_size is not None and recipe.batch_size < size else None
    held = recipe.held_out(size) > 0  # each head then has a copy of its samples
    gram = not held and prefers_gram(size, dim, width, recipe.updates or 200, batch)
    floats = (
        size * ((1 + held) * dim + 3 * sum(widths[1:]))
        + dim * width * (2 if gram else 3)
        + (size * size if gram else 0)
    )
    return max(1, (_GROUP_BYTES if features.device.type == "cpu" else _GPU_GROUP_BYTES) // (4 * floats))


def _scaled(features: Tensor, chosen: Tensor | None, scale: float) -> Tensor:
    """Scaled features ``N x D``, or those of chosen samples ``E x n x D``, with one copy at most."""
    if chosen is None:
        return as_solver_dtype(features) if scale == 1.0 else as_solver_dtype(features) * scale
    return as_solver_dtype(features[chosen]).mul_(scale)
