"""Heads on fixed features: FOCA's inner solve, many weak classifiers, ridge, partial-dataset retraining.

Naive is what users write: an ``nn.Module`` for each head, autograd and ``torch.optim.SGD``. Limit is the matrix
products that remain in the Gram form and nothing else. Initial numbers are drawn anew in every solve, on both sides.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from timing import arguments, interleaved, processor_clock, report
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.functional.partial_retraining import balanced_subset, partial_retraining
from lightning_repshape.functional.stacked_heads import (
    HeadRecipe,
    classification_error,
    gradient_descent,
    init_heads,
    ridge,
    solve_heads,
)
from lightning_repshape.performance import keep_freed_memory

DIM, BATCH, CLASSES, HIDDEN = 4096, 100, 10, (128, 128)
RATE, MOMENTUM, LAM = 0.01, 0.9, 1e-3
Clock = Literal["wall", "processor"]


def features_of(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Class means plus noise, at mean norm 10 as in FOCA's scale-free solve."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    features = torch.randn(CLASSES, DIM, generator=stream)[labels].add_(torch.randn(count, DIM, generator=stream))
    return features.mul_(10 / features.norm(dim=1).mean()).to(device), labels.to(device)


def naive_head(features: Tensor, labels: Tensor, updates: int) -> nn.Sequential:
    """One head as a module, by autograd and torch's optimizer."""
    sizes = (features.shape[1], *HIDDEN, CLASSES)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=features.device)
        nn.init.normal_(layer.weight, 0.0, 0.1)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=2 * LAM)
    for _ in range(updates):
        optimizer.zero_grad()
        F.cross_entropy(net(features), labels).backward()
        optimizer.step()
    return net


def bare_products(features: Tensor, num_heads: int, updates: int, at_once: int) -> Callable[[], None]:
    """The Gram form's products alone, with numbers that mean nothing."""
    count, device = len(features), features.device
    first, middle, last = HIDDEN[0], HIDDEN[1], CLASSES
    w1 = torch.randn(at_once * first, DIM, device=device)
    w2, w3 = torch.randn(at_once, middle, first, device=device), torch.randn(at_once, last, middle, device=device)
    a, h = torch.randn(at_once, count, first, device=device), torch.randn(at_once, count, middle, device=device)
    g = torch.randn(at_once, count, last, device=device)

    def run() -> None:
        kernel = (features @ features.T).expand(at_once, -1, -1)
        for _ in range(0, num_heads, at_once):
            _ = features @ w1.T
            for _ in range(updates):
                _ = torch.bmm(kernel, a), torch.bmm(a, w2.mT), torch.bmm(h, w3.mT)
                _ = torch.bmm(g.mT, h), torch.bmm(g, w3), torch.bmm(h.mT, a), torch.bmm(h, w2)

    return run


def inner_solves(device: str, repeats: int, clock: Clock) -> None:
    """FOCA's inner solve for one and for 16 weak classifiers."""
    x, y = features_of(BATCH, device)
    resampled = torch.randint(BATCH, (16, BATCH), device=device)

    def solve(num_heads: int, form: str = "auto", indices: Tensor | None = None) -> object:
        return solve_heads(
            x, y, num_classes=CLASSES, num_heads=num_heads, hidden=HIDDEN, lam=LAM, rate=RATE, indices=indices,
            form=form, validate=device == "cpu",
        )  # fmt: skip

    def phi_loss() -> None:
        z = x.clone().requires_grad_()
        F.cross_entropy(heads(z)[0], y).backward()

    heads, given = (init_heads(number, (DIM, *HIDDEN, CLASSES), device=device) for number in (1, 16))
    seconds = interleaved(
        {
            "nn.Module + SGD, one head": lambda: naive_head(x, y, 32),
            "one head": lambda: solve(1),
            "one head, primal form": lambda: solve(1, "primal"),
            "limit, one head": bare_products(x, 1, 32, 1),
            "E = 16": lambda: solve(16),
            "E = 16, initial numbers given": lambda: gradient_descent(given, x, y, lam=LAM, rate=RATE),
            "E = 16, own resample of b each": lambda: solve(16, indices=resampled),
            "limit, E = 16": bare_products(x, 16, 32, 8),
            "drawing 16 heads' initial numbers": lambda: init_heads(16, (DIM, *HIDDEN, CLASSES), device=device),
            "phi's loss through a head, forward and backward": phi_loss,
        },
        repeats=repeats,
        clock=clock,
    )
    naive = seconds["nn.Module + SGD, one head"]
    rows = [
        {"what": name, "ms": 1e3 * value, "naive / ours": naive / value, "ours / naive": value / naive}
        for name, value in seconds.items()
    ]
    report(f"Inner solve: D = {DIM}, b = {BATCH}, 32 updates, head {DIM}-128-128-{CLASSES}", rows)


def closed_form(device: str, repeats: int, clock: Clock) -> None:
    """Ridge with fewer samples than features."""
    x, y = features_of(BATCH, device)
    targets = F.one_hot(y, CLASSES).float()

    def naive() -> Tensor:
        centred = x - x.mean(dim=0)
        system = centred.T @ centred + BATCH * LAM * torch.eye(DIM, device=device)
        return torch.linalg.solve(system, centred.T @ (targets - targets.mean(dim=0)))

    def limit() -> Tensor:
        return torch.linalg.cholesky_ex(x @ x.T + torch.eye(BATCH, device=device)).L

    ours = interleaved(
        {"ours": lambda: ridge(x, y, num_outputs=CLASSES, lam=LAM), "limit": limit},
        repeats=repeats,
        min_seconds=0.02,
        clock=clock,
    )
    plain = interleaved({"naive": naive}, repeats=min(repeats, 3), min_seconds=0, clock=clock)["naive"]
    truth = ridge(x.double(), y, num_outputs=CLASSES, lam=LAM).heads.weights[0][0].T

    def error(weight: Tensor) -> float:
        return float((weight - truth).norm() / truth.norm())

    differences = error(naive()), error(ridge(x, y, num_outputs=CLASSES, lam=LAM).heads.weights[0][0].T)
    rows = [
        {"what": "D x D solve", "ms": 1e3 * plain, "naive / ours": 1.0},
        {"what": "ridge", "ms": 1e3 * ours["ours"], "naive / ours": plain / ours["ours"]},
        {"what": "limit: X X^T and its Cholesky", "ms": 1e3 * ours["limit"], "naive / ours": plain / ours["limit"]},
    ]
    report(f"Ridge: n = {BATCH}, D = {DIM} (errors: D x D {differences[0]:.1g}, ours {differences[1]:.1g})", rows)


def seconds_of(function: Callable[[], object], clock: Clock) -> float:
    """One call's seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    now = time.perf_counter if clock == "wall" else time.process_time
    start = now()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return now() - start


def partial(device: str, rounds: int, cases: Sequence[tuple[int, int]], test_count: int, clock: Clock) -> None:
    """Partial-dataset retraining against the loop over heads, which is measured on a few heads and scaled."""
    x, y = features_of(20_000, device)
    few, few_labels = x[:CLASSES], y[:CLASSES]
    rows: list[dict[str, object]] = []
    for size, heads in cases:

        def ours(size: int = size, heads: int = heads) -> object:
            recipe = HeadRecipe(HIDDEN, rate=RATE, weight_decay=LAM)
            return partial_retraining(x, y, few, few_labels, [size], [heads], recipe)

        def naive(size: int = size) -> object:
            rows = balanced_subset(y.cpu(), size, CLASSES, torch.Generator().manual_seed(0)).to(device)
            return naive_head(x[rows] * 0.5, y[rows], 200)

        ours(), naive()
        pairs = [(seconds_of(ours, clock), heads * seconds_of(naive, clock)) for _ in range(rounds)]
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        products = bare_products(x[:size], heads, 200, min(heads, 8))
        limit = statistics.median(seconds_of(products, clock) for _ in range(rounds))
        rows.append(
            {
                "what": f"{heads} heads on n' = {size}", "ours s": mine, "naive s (scaled)": theirs, "limit s": limit,
                "naive / ours": theirs / mine, "ours / limit": mine / limit,
            }
        )  # fmt: skip
    report("Partial retraining: 200 updates, subsets, initial numbers and training; ten test samples", rows)

    evaluation(x, y, 30, test_count, rounds, clock)


def evaluation(x: Tensor, y: Tensor, heads: int, test_count: int, rounds: int, clock: Clock) -> None:
    """Testing heads of ten samples each, which costs more than training them."""
    test, truth = x[:test_count], y[:test_count]
    net = naive_head(x[:CLASSES], y[:CLASSES], 1)
    indices = torch.randint(len(x), (heads, CLASSES), device=x.device)
    solved = []
    for first_layer_seed in (None, 0):
        initial = init_heads(heads, (DIM, *HIDDEN, CLASSES), first_layer_seed=first_layer_seed, device=x.device)
        solved.append(gradient_descent(initial, x, y, indices=indices, updates=3, rate=RATE).heads)

    def naive() -> None:
        with torch.no_grad():
            for _ in range(heads):
                (net(test).argmax(dim=1) != truth).sum()

    seconds = interleaved(
        {
            "one head after the other": naive,
            "own first layers": lambda: classification_error(solved[0], test, truth),
            "one first layer at the start": lambda: classification_error(solved[1], test, truth),
        },
        repeats=rounds,
        min_seconds=0,
        clock=clock,
    )
    first = seconds["one head after the other"]
    rows = [{"what": name, "s": value, "naive / ours": first / value} for name, value in seconds.items()]
    report(f"Testing {heads} heads of n' = {CLASSES} on {test_count} samples", rows)


def main() -> None:
    """Runs all lines."""
    options = arguments(__doc__ or "")
    repeats = 3 if options.quick else 9
    clock = processor_clock(options)
    keep_freed_memory()  # as every module does before a training; here all candidates gain from it
    inner_solves(options.device, repeats, clock)
    closed_form(options.device, repeats, clock)
    cases = [(10, 30), (100, 10)] if options.quick else [(10, 150), (100, 50)]
    partial(options.device, 1 if options.quick else 3, cases, 1_000 if options.quick else 10_000, clock)


if __name__ == "__main__":
    main()
