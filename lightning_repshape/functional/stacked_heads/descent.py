"""Gradient descent with momentum and decay on stacked heads, with gradients derived by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_at_least, check_choice, check_not_negative
from lightning_repshape.functional.stacked_heads._first_layer import (
    FirstLayer,
    GramLayer,
    Parameters,
    PrimalLayer,
    Samples,
    choose_samples,
    take,
)
from lightning_repshape.functional.stacked_heads.heads import GramWeight, StackedHeads, head_seeds
from lightning_repshape.functional.stacked_heads.inputs import (
    Form,
    Loss,
    Reduction,
    as_solver_dtype,
    check_shapes,
    check_values,
    full_precision,
    loss_per_head,
    make_targets,
    num_classes_of,
)
from lightning_repshape.seeding import generator
from lightning_repshape.terminal.progress import task

# On a CPU heads are solved in blocks whose working set stays in a core's cache; on a GPU all at once.
_CACHE_BYTES = 4 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class HeadSolution:
    """Solved heads, and how well each fits.

    Attributes:
        heads: The E heads.
        losses: ``E``, each head's loss over its own samples at the end, reduced as asked, without the decay term. A
            head that diverged shows NaN or infinity here; nothing is raised, so that nothing waits for the GPU.
        updates: ``E`` (int64), the number of updates behind each head's parameters; fewer than asked for only under
            early stopping; 0 for the closed form.
    """

    heads: StackedHeads
    losses: Tensor
    updates: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class EarlyStopping:
    """Keeps each head's parameters of its best evaluation on held-out samples; the first one is that of the start.

    Attributes:
        features: Held-out samples, ``N x D`` for all heads, or ``E x N x D``.
        labels: Their ``N`` labels, or ``E x N``.
        every: Updates between two evaluations.
        least: How much lower than the lowest before a loss must be to count as an improvement (any lower one is kept).
        patience: Evaluations without improvement after which a head is finished; descent ends when all heads are (it
            looks once an evaluation, which on a GPU waits for the device).
    """

    features: Tensor
    labels: Tensor
    every: int = 10
    patience: int = 3
    least: float = 0.0

    def block(self, heads: slice) -> EarlyStopping:
        """The same for some of the heads."""
        features = self.features[heads] if self.features.ndim == 3 else self.features
        labels = self.labels[heads] if self.labels.ndim == 2 else self.labels
        return dataclasses.replace(self, features=features, labels=labels)


def gradient_descent(
    initial: StackedHeads,
    features: Tensor,
    labels: Tensor,
    *,
    lam: float = 0.0,
    updates: int = 32,
    rate: float = 0.05,
    momentum: float = 0.9,
    nesterov: bool = False,
    loss: Loss = "cross_entropy",
    reduction: Reduction = "mean",
    indices: Tensor | None = None,
    batch_size: int | None = None,
    early_stopping: EarlyStopping | None = None,
    form: Form = "auto",
    seed: int | Sequence[int] = 0,
    heads_at_once: int | None = None,
    validate: bool = True,
) -> HeadSolution:
    """Trains E heads at once on fixed features (FOCA, Algorithm 1, line 5; Eq. 4 and 5).

    Each head takes the very steps that ``torch.optim.SGD(lr=rate, momentum=momentum, weight_decay=2 * lam)``, with its
    ``nesterov``, would take on it alone. No autograd graph is built; autocast is switched off inside; half-precision
    features are solved in float32.

    Args:
        initial: Where to start; left as it is.
        features: ``N x D`` for all heads, or ``E x N x D``.
        labels: ``N`` integers in 0..K-1, or ``E x N``.
        lam: lambda of Eq. 4, in front of the sum of squares of all weights and biases. Default: 0.
        updates: Number of updates. Default: 32 (the paper's for CIFAR-10).
        rate: Learning rate. Default: 0.05.
        momentum: Momentum. Default: 0.9.
        nesterov: Whether momentum is Nesterov's. Default: False.
        loss: ``"cross_entropy"`` (default), or ``"squared"``: against one-hot targets, or against -1 and +1 where the
            heads have one output for two classes; summed over outputs.
        reduction: ``"mean"`` (default, Eq. 4) or ``"sum"`` (Algorithm 1) over samples.
        indices: ``E x n``, each head's own samples among shared features; None: every head takes all.
        batch_size: Samples of an update, drawn for each head by its seed: a fresh permutation each epoch, whose
            incomplete last batch is left out. None (default): full batch.
        early_stopping: Held-out samples that decide which update's parameters a head keeps; None (default): the last.
        form: ``"primal"`` carries the first layer's weights, ``"gram"`` their coefficients in the samples, and
            ``"auto"`` (default) takes what needs fewer multiplications: Gram while n (T H + D) < 2 T D H for T updates
            and first-layer width H, so n < 2 D for many updates. Both give the same heads.
        seed: Of the minibatches; as in :func:`init_heads`. Default: 0.
        heads_at_once: Heads in one batched program; None (default): what a CPU core's cache holds, all on a GPU.
        validate: Look at the values too (NaN features, labels out of range), which on a GPU waits for the device once
            or twice before the first update. Default: True.

    Returns:
        The solved heads with their losses. In Gram form the first layer is kept as factors.

    Raises:
        ValueError: If a value or shape cannot work; the message says which.
        TypeError: If features are not floating point, or labels or indices not integers.
    """
    check_choice("loss", loss, ("cross_entropy", "squared"))
    check_choice("reduction", reduction, ("mean", "sum"))
    check_choice("form", form, ("auto", "primal", "gram"))
    check_not_negative("lam (lambda)", lam)
    check_not_negative("rate", rate)
    check_not_negative("momentum", momentum)
    check_at_least("updates", updates, 0)
    num_heads = initial.num_heads
    num_classes = num_classes_of(initial.num_outputs, loss)
    check_shapes(features, labels, num_heads, indices)
    if features.shape[-1] != initial.num_features:
        raise ValueError(f"heads on {initial.num_features} features were given {features.shape[-1]}")
    count = features.shape[-2] if indices is None else indices.shape[1]
    if batch_size is not None:
        check_at_least("batch_size", batch_size, 1)
        batch_size = batch_size if batch_size < count else None
    if early_stopping is not None:
        check_at_least("early_stopping.every", early_stopping.every, 1)
        check_at_least("early_stopping.patience", early_stopping.patience, 1)
        check_shapes(early_stopping.features, early_stopping.labels, num_heads)
    if heads_at_once is not None:
        check_at_least("heads_at_once", heads_at_once, 1)
    with torch.no_grad(), full_precision(features):
        if validate:
            check_values(features, labels, num_classes, indices)
            if early_stopping is not None:
                check_values(early_stopping.features, early_stopping.labels, num_classes)
        x = as_solver_dtype(features)
        width = initial.biases[0].shape[1]
        gram = form == "gram" or (
            form == "auto" and prefers_gram(count, initial.num_features, width, updates, batch_size)
        )
        initial = StackedHeads(
            initial.weights[0].to(x),
            tuple(one.to(x) for one in initial.later),
            tuple(one.to(x) for one in initial.biases),
        )
        samples = choose_samples(x, labels, indices, gram, batch_size, width)
        seeds = head_seeds(seed, num_heads) if batch_size is not None else [0] * num_heads
        size = even_share(num_heads, heads_at_once or _block_size(initial, batch_size or count, gram, x))
        parts = []
        for start in range(0, num_heads, size):
            block = slice(start, start + size)
            held = early_stopping and early_stopping.block(block)
            rule = _Rule(lam, updates, rate, momentum, nesterov, loss, reduction, batch_size, held)
            parts.append(_Descent(initial.select(block), samples.block(block), seeds[block], rule, gram).run())
        return parts[0] if len(parts) == 1 else _join(parts, initial, samples)


def prefers_gram(count: int, dim: int, width: int, updates: int, batch_size: int | None = None) -> bool:
    """Whether Gram needs fewer multiplications than primal, the forming of K counted in: n m T H + n^2 D < 2 m T D H.

    ``count`` is n, samples of a head, ``dim`` D, ``width`` H, ``updates`` T and ``batch_size`` m (None: all n).
    """
    batch = batch_size or count
    return count * (updates * batch * width + count * dim) < 2 * updates * batch * dim * width


def even_share(total: int, most: int) -> int:
    """The size of blocks that share a total evenly, none above ``most``: 50 by 24 at most is 17, 17, 16."""
    return -(-total // -(-total // most))


def _block_size(initial: StackedHeads, batch: int, gram: bool, x: Tensor) -> int:
    """All heads on a GPU; on a CPU as many as a cache holds with their parameters, velocities and activations."""
    if x.device.type != "cpu":
        return initial.num_heads
    width = initial.biases[0].shape[1]
    first = batch * (width + batch) if gram else width * initial.num_features
    later = sum(weight[0].numel() for weight in initial.later)
    activations = batch * sum(bias.shape[1] for bias in initial.biases)
    return max(1, _CACHE_BYTES // (2 * (first + later + activations) * x.element_size()))


def _join(parts: Sequence[HeadSolution], initial: StackedHeads, samples: Samples) -> HeadSolution:
    """One stack of all blocks' heads; initial numbers and samples, of which blocks hold views, are not copied."""
    heads = [part.heads for part in parts]
    first: Tensor | GramWeight
    factors = [one.first for one in heads if isinstance(one.first, GramWeight)]
    if factors:
        features = samples.features[0] if samples.features.shape[0] == 1 else samples.features
        scale = torch.cat([one.scale for one in factors])
        first = GramWeight(initial.weights[0], scale, torch.cat([one.coefficients for one in factors]), features)
    else:
        first = torch.cat([one.weights[0] for one in heads])
    later = tuple(torch.cat(layer) for layer in zip(*(one.later for one in heads), strict=True))
    biases = tuple(torch.cat(layer) for layer in zip(*(one.biases for one in heads), strict=True))
    losses, updates = torch.cat([part.losses for part in parts]), torch.cat([part.updates for part in parts])
    return HeadSolution(StackedHeads(first, later, biases), losses, updates)


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What every update does."""

    lam: float
    updates: int
    rate: float
    momentum: float
    nesterov: bool
    loss: Loss
    reduction: Reduction
    batch_size: int | None
    early_stopping: EarlyStopping | None


class _Descent:
    """Descent of a block of heads, all in one batched program whose large results go into buffers made once."""

    def __init__(self, initial: StackedHeads, samples: Samples, seeds: list[int], rule: _Rule, gram: bool) -> None:
        self.rule, self.samples, self.seeds = rule, samples, seeds
        self.num_heads = initial.num_heads
        self.first: FirstLayer = (GramLayer if gram else PrimalLayer)(initial, samples)
        moving = self.first.parameters()
        skip, depth = len(moving), len(initial.later)
        self.parameters = Parameters(
            [*moving, *initial.later, *initial.biases[1:]], rule.rate, rule.momentum, rule.lam, rule.nesterov
        )
        self.first.attach(self.parameters.values[:skip], self.parameters.memories[:skip])
        self.of_weights, self.of_biases = slice(skip, skip + depth), slice(skip + depth, None)
        self.weights = self.parameters.values[self.of_weights]
        self.transposed = [weight.mT for weight in self.weights]
        self.biases = [bias.unsqueeze(1) for bias in self.parameters.values[self.of_biases]]
        self.weight_memories = self.parameters.memories[self.of_weights]
        self.bias_memories = [memory.unsqueeze(1) for memory in self.parameters.memories[self.of_biases]]

        x, batch = samples.features, rule.batch_size or samples.count
        self.values = [x.new_empty(self.num_heads, batch, bias.shape[1]) for bias in initial.biases]
        self.gradients = [torch.empty_like(value) for value in self.values]
        self.transposed_gradients = [gradient.mT for gradient in self.gradients]
        self.ones = x.new_ones(1, 1, batch).expand(self.num_heads, -1, -1)
        self.targets = make_targets(samples.labels, initial.num_outputs, rule.loss, x.dtype)
        # What memories take in is linear in the gradient at the logits, (answers - targets) * scale.
        factor = 2.0 if rule.loss == "squared" else 1.0
        self.scale = self.parameters.take * factor / (batch if rule.reduction == "mean" else 1)
        self.minus_targets = self.targets * -self.scale

    def run(self) -> HeadSolution:
        rule = self.rule
        batches = _Minibatches(self.seeds, self.samples, rule.batch_size) if rule.batch_size else None
        best = _Best(self, rule.early_stopping) if rule.early_stopping else None
        done = 0
        if best is not None:
            best.look(0)
        # those that make a given number of updates are FOCA's few, which take no time
        text = f"solving a head on {self.samples.count:,} samples, at most"
        with ExitStack() as stack:
            advance = None if best is None else stack.enter_context(task(text, rule.updates))
            while done < rule.updates:
                self.update(None if batches is None else batches[done])
                done += 1
                if best is not None and advance and (done % best.rule.every == 0 or done == rule.updates):
                    advance(min(best.rule.every, done))
                    best.look(done)
                    if best.all_finished():
                        break
        scales = self.first.scales()
        updates = torch.full((self.num_heads,), done, dtype=torch.int64, device=scales.device)
        if best is not None and done > 0:
            scales, updates = best.restore()
        losses = self.losses()
        if best is not None:  # a head that diverged keeps its start, which no loss may hide
            losses = losses.masked_fill((updates == 0) & ~best.latest.isfinite(), float("nan"))
        return HeadSolution(self.heads(scales), losses, updates)

    def update(self, at: Tensor | None) -> None:
        """One update on the samples at these positions, ``E x m`` (None: all)."""
        answers = self.forward(at, self.values)
        if self.rule.loss == "cross_entropy":
            answers = torch.softmax(answers, dim=-1, out=self.gradients[-1])
        gradient = torch.add(take(self.minus_targets, at), answers, alpha=self.scale, out=self.gradients[-1])
        keep = self.parameters.keep
        for layer in reversed(range(len(self.weights))):
            hidden = self.values[layer]
            self.weight_memories[layer].baddbmm_(self.transposed_gradients[layer + 1], hidden, beta=keep)
            self.bias_memories[layer].baddbmm_(self.ones, gradient, beta=keep)
            gradient = torch.bmm(gradient, self.weights[layer], out=self.gradients[layer])
            gradient.mul_(hidden.sign_())  # behind ReLU, the sign is its derivative
        self.first.accumulate(gradient, at, keep)
        self.parameters.move()
        self.first.decay(self.rule.rate, self.rule.momentum, self.rule.lam, self.rule.nesterov)

    def forward(self, at: Tensor | None, out: Sequence[Tensor | None]) -> Tensor:
        """Logits; on the way every hidden layer's values go through ReLU where they lie."""
        z = self.first.forward(at, out[0])
        for transposed, bias, buffer in zip(self.transposed, self.biases, out[1:], strict=True):
            z = torch.baddbmm(bias, z.relu_(), transposed, out=buffer)
        return z

    def losses(self) -> Tensor:
        """Each head's loss over all its samples; those of a descent by minibatches are taken in such portions."""
        loss, reduction, count = self.rule.loss, self.rule.reduction, self.samples.count
        if self.rule.batch_size is None:
            return loss_per_head(self.forward(None, self.values), self.targets, loss, reduction)
        total = self.ones.new_zeros(self.num_heads)
        nowhere = [None] * len(self.values)
        for part in torch.split(torch.arange(count, device=total.device), self.rule.batch_size):
            at = part.expand(self.num_heads, -1)
            total += loss_per_head(self.forward(at, nowhere), take(self.targets, at), loss, "sum")
        return total / count if reduction == "mean" else total

    def heads(self, scales: Tensor) -> StackedHeads:
        """The heads as they are; they share the parameters' storage."""
        values = self.parameters.values
        first, bias = self.first.weight_and_bias(values, scales)
        return StackedHeads(first, tuple(values[self.of_weights]), (bias, *values[self.of_biases]))


class _Minibatches:
    """Positions ``E x m`` of each update's samples, from a permutation for each head and epoch."""

    def __init__(self, seeds: list[int], samples: Samples, batch_size: int) -> None:
        self.seeds, self.count, self.batch_size = seeds, samples.count, batch_size
        self.device = samples.features.device
        self.epoch = -1

    def __getitem__(self, update: int) -> Tensor:
        per_epoch = self.count // self.batch_size
        epoch, number = divmod(update, per_epoch)
        if epoch != self.epoch:
            orders = [torch.randperm(self.count, generator=generator("minibatch", seed, epoch)) for seed in self.seeds]
            self.order, self.epoch = torch.stack(orders).to(self.device), epoch
        return self.order[:, number * self.batch_size : (number + 1) * self.batch_size]


class _Best:
    """Each head's parameters at its best evaluation on held-out samples."""

    def __init__(self, descent: _Descent, rule: EarlyStopping) -> None:
        self.descent, self.rule = descent, rule
        values, some = descent.parameters.values, descent.ones
        self.kept = [value.clone() for value in values]
        self.loss = some.new_full((descent.num_heads,), float("inf"))
        self.latest = self.loss
        self.scales = torch.ones_like(self.loss)
        self.updates = torch.zeros_like(self.loss, dtype=torch.int64)
        self.stale = torch.zeros_like(self.updates)
        features = rule.features.to(some)
        self.features = features
        num_outputs = descent.targets.shape[-1]
        self.targets = make_targets(rule.labels, num_outputs, descent.rule.loss, features.dtype)
        self.targets = self.targets if self.targets.ndim == 3 else self.targets.unsqueeze(0)

    def look(self, update: int) -> None:
        """Evaluates every head and keeps what is better than before; a finished head stays as it is."""
        scales = self.descent.first.scales()
        logits = self.descent.heads(scales).forward(self.features)
        loss = loss_per_head(logits, self.targets, self.descent.rule.loss, "mean")
        self.latest = loss
        unfinished = self.stale < self.rule.patience
        improved = loss < self.loss - self.rule.least
        better = unfinished & (loss < self.loss)
        for kept, value in zip(self.kept, self.descent.parameters.values, strict=True):
            kept.copy_(torch.where(better.view(-1, *[1] * (value.ndim - 1)), value, kept))
        self.loss = torch.where(better, loss, self.loss)
        self.scales = torch.where(better, scales, self.scales)
        self.updates = torch.where(better, update, self.updates)
        self.stale = torch.where(unfinished & improved, 0, self.stale + 1)

    def all_finished(self) -> bool:
        return bool((self.stale >= self.rule.patience).all())

    def restore(self) -> tuple[Tensor, Tensor]:
        """Puts every head's best parameters back; gives their scales and update numbers."""
        for kept, value in zip(self.kept, self.descent.parameters.values, strict=True):
            value.copy_(kept)
        self.descent.first.restore(self.scales)
        return self.scales, self.updates
