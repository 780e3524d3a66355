"""Nearest neighbours and the linear probe against scikit-learn, on features with a spectrum like a network's.

Run: python benchmarks/probes.py [--quick]. All sides have float32 and the same number of threads. faiss is timed where
it is installed (it is not needed for anything else).
"""

import argparse
import functools
import math
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from timing import arguments, interleaved, processor_clock, report
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape.functional.probes import cosine_neighbours, linear_probes, vote

CLASSES, WIDTH, NEIGHBOURS = 10, 512, 20


def features(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Gaussian classes behind a map with a falling spectrum and a ReLU: about 10 % error."""
    fixed, stream = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    spread = torch.randn(WIDTH, WIDTH, generator=fixed) * torch.arange(1, WIDTH + 1.0).pow(-0.75)[:, None]
    centers = torch.randn(CLASSES, WIDTH, generator=fixed) * 0.35
    labels = torch.randint(0, CLASSES, (count,), generator=stream)
    return ((centers[labels] + torch.randn(count, WIDTH, generator=stream)) @ spread + 0.2).relu(), labels


def objective(x: Tensor, y: Tensor, weight: Any, bias: Any, penalty: float) -> float:
    """Mean cross-entropy and the penalty's part, in float64."""
    w, b = (torch.as_tensor(part).double() for part in (weight, bias))
    return float(F.cross_entropy(x.double() @ w.T + b, y) + penalty / 2 * w.square().sum())


def neighbours(train: Tensor, labels: Tensor, test: Tensor, options: argparse.Namespace) -> list[dict[str, object]]:
    """Seconds and agreement of nearest neighbours."""
    peer = KNeighborsClassifier(NEIGHBOURS, metric="cosine", algorithm="brute").fit(train.numpy(), labels.numpy())
    units = [F.normalize(part).numpy() for part in (train, test)]
    euclid = KNeighborsClassifier(NEIGHBOURS, algorithm="brute").fit(units[0], labels.numpy())
    calls = {
        "ours": lambda: vote(labels[cosine_neighbours(train, test, NEIGHBOURS)], CLASSES, [NEIGHBOURS])[0].numpy(),
        "scikit-learn brute, cosine": lambda: peer.predict(test.numpy()),
        "scikit-learn brute, Euclidean on unit rows": lambda: euclid.predict(units[1]),
    }
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: left out")
    else:
        faiss.omp_set_num_threads(options.threads)

        def flat() -> Any:
            index = faiss.IndexFlatIP(WIDTH)
            index.add(units[0])
            near = torch.from_numpy(index.search(units[1], NEIGHBOURS)[1])
            return vote(labels[near], CLASSES, [NEIGHBOURS])[0].numpy()

        calls["faiss, IndexFlatIP on unit rows"] = flat
    seconds = interleaved(calls, 1 if options.quick else 2, 0.0, processor_clock(options))
    answers = {name: call() for name, call in calls.items()}
    return [
        {
            "way": name,
            "seconds": time,
            "over ours": time / seconds["ours"],
            "same answers": float(np.mean(answers[name] == answers["ours"])),
        }
        for name, time in seconds.items()
    ]


def regressions(train: Tensor, labels: Tensor, options: argparse.Namespace) -> list[dict[str, object]]:
    """Seconds, steps and objective of logistic regressions."""
    x = (train - train.mean(dim=0)) / math.sqrt(float(train.var(dim=0, unbiased=False).mean()))
    rows: list[dict[str, object]] = []
    for penalty in (1e-2, 1e-3, 1e-4):
        strength = {"C": 1 / (penalty * len(x)), "max_iter": 10_000}
        peers = {f"scikit-learn, tol {tol:g}": LogisticRegression(**strength, tol=tol) for tol in (1e-4, 3e-6)}
        calls: dict[str, Any] = {
            "ours": functools.partial(linear_probes, x, labels, CLASSES, [penalty], normalize=False),
            **{name: functools.partial(peer.fit, x.numpy(), labels.numpy()) for name, peer in peers.items()},
        }
        seconds = interleaved(calls, 1 if options.quick else 2, 0.0, processor_clock(options))
        probe = linear_probes(x, labels, CLASSES, [penalty], normalize=False)[0]
        found = {"ours": (probe.weight, probe.bias)} | {n: (peer.coef_, peer.intercept_) for n, peer in peers.items()}
        steps = {"ours": probe.iterations} | {name: int(peer.n_iter_[0]) for name, peer in peers.items()}
        rows += [
            {
                "way": f"{name}, penalty {penalty:g}",
                "seconds": time,
                "over ours": time / seconds["ours"],
                "steps": steps[name],
                "objective": f"{objective(x, labels, *found[name], penalty):.7f}",
            }
            for name, time in seconds.items()
        ]
    return rows


def path(train: Tensor, labels: Tensor, options: argparse.Namespace) -> list[dict[str, object]]:
    """Seconds of regressions of all penalties, each from the one before, as the choice on validation needs them."""
    x = (train - train.mean(dim=0)) / math.sqrt(float(train.var(dim=0, unbiased=False).mean()))
    penalties = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)

    def theirs() -> list[tuple[Any, Any]]:
        peer = LogisticRegression(warm_start=True, tol=3e-6, max_iter=10_000)
        found = []
        for penalty in penalties:
            peer.set_params(C=1 / (penalty * len(x))).fit(x.numpy(), labels.numpy())
            found.append((peer.coef_.copy(), peer.intercept_.copy()))
        return found

    def ours() -> list[tuple[Any, Any]]:
        probes = linear_probes(x, labels, CLASSES, penalties, normalize=False)
        return [(probe.weight, probe.bias) for probe in probes]

    answers: dict[str, list[tuple[Any, Any]]] = {}
    calls: dict[str, Any] = {"ours": ours, "scikit-learn, warm_start, tol 3e-06": theirs}
    kept = {name: functools.partial(lambda name: answers.update({name: calls[name]()}), name) for name in calls}
    seconds = interleaved(kept, 1, 0.0, processor_clock(options))
    reached = {
        name: [objective(x, labels, *one, penalty) for one, penalty in zip(found, penalties, strict=True)]
        for name, found in answers.items()
    }
    return [
        {
            "way": name,
            "seconds": time,
            "over ours": time / seconds["ours"],
            "objectives": ", ".join(f"{value:.6f}" for value in reached[name]),
        }
        for name, time in seconds.items()
    ]


def main() -> None:
    """Times both."""
    options = arguments(__doc__ or "")
    count, tests = (4000, 1000) if options.quick else (20_000, 5000)
    train, labels = features(count, 0)
    test, _ = features(tests, 1)
    shape = f"{count:,} x {WIDTH} training features"
    report(f"{tests:,} queries, {NEIGHBOURS} neighbours, {shape}", neighbours(train, labels, test, options))
    report(f"linear probes of penalties 1 to 0.0001, {shape}, {CLASSES} classes", path(train, labels, options))
    report(f"linear probe, {shape}, {CLASSES} classes", regressions(train, labels, options))


if __name__ == "__main__":
    main()
