"""All analyses of one model's saved features: what each takes, figures apart, beside a bare pass that gives features.

Features like those of a network trained on CIFAR-10: 50,000 to train on and 10,000 to test with, of 512 numbers each,
ten classes, logits, and a second set of 10,000. Analyses that need the model itself are left out. The pass is that of a
ResNet-18, of a few images and scaled.
"""

import tempfile
import time
from pathlib import Path

import torch
from timing import arguments, interleaved, processor_clock, report
from torch import Tensor

from lightning_repshape.analyses import ANALYSES, FeatureInputs
from lightning_repshape.analyses.result import save_outcome
from lightning_repshape.features.passes import Features
from lightning_repshape.networks import ResNet18

CLASSES = 10
HEADS = ("partial_retraining", "geodesic")  # whose time is that of training heads


def sets(count: int, width: int, seed: int, weight: Tensor, shift: float = 0.0) -> Features:
    """Clusters behind a ReLU with a falling spectrum, and logits that are right for about nine in ten."""
    fixed, stream = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    spread = torch.randn(width, width, generator=fixed) * torch.arange(1, width + 1.0).pow(-0.75)[:, None]
    centers = torch.randn(CLASSES, width, generator=fixed) * 0.35
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, width, generator=stream)
    features = ((centers[labels] + noise + shift) @ spread + 0.2).relu()
    return Features(features, labels, features @ weight.T)


def main() -> None:
    """Prints the tables."""
    options = arguments(__doc__.partition("\n")[0])
    train, test, width = (5_000, 1_000, 128) if options.quick else (50_000, 10_000, 512)
    one = sets(train, width, 0, torch.zeros(CLASSES, width))
    means = torch.stack([one.features[one.labels == label].mean(dim=0) for label in range(CLASSES)])
    weight = means - means.mean(dim=0)
    parts = {"train": sets(train, width, 0, weight), "test": sets(test, width, 1, weight)}
    inputs = FeatureInputs(
        parts, CLASSES, weight=weight, device=options.device, other={"test": sets(test, width, 2, weight, 0.5)}
    )
    clock = time.process_time if processor_clock(options) == "processor" else time.perf_counter
    taken: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in sorted(ANALYSES, key=lambda kind: kind.kind in HEADS):
            start = clock()
            outcome = kind().run(inputs)
            computed = clock() - start
            if outcome.result is None:
                print(f"left out: {kind.kind} ({outcome.failure})")
                continue
            save_outcome(outcome, Path(folder), inputs.layer)
            taken[kind.kind] = computed, clock() - start - computed
            print(f"{kind.kind}: {computed:.2f} s, figures and files {taken[kind.kind][1]:.2f} s", flush=True)
    model, images = ResNet18((3, 32, 32)).to(options.device).eval(), torch.randn(32, 3, 32, 32, device=options.device)
    with torch.no_grad():
        batch = interleaved({"pass": lambda: model(images)}, 3, 0.0, processor_clock(options))["pass"]
    bare = batch * (train + 2 * test) / len(images)
    whole = sum(sum(pair) for pair in taken.values())
    heads = sum(taken[name][0] for name in HEADS)
    report(
        f"all analyses, {train:,} + {test:,} x {width} features, {CLASSES} classes",
        [
            {
                "analysis": name,
                "seconds": computed,
                "figures and files": drawn,
                "share (%)": 100 * (computed + drawn) / whole,
            }
            for name, (computed, drawn) in sorted(taken.items(), key=lambda item: -sum(item[1]))
        ],
    )
    report(
        "together",
        [
            {
                "all analyses (s)": whole,
                "of it heads' solves (s)": heads,
                "of it figures and files (s)": sum(drawn for _, drawn in taken.values()),
                "bare pass of a ResNet-18 (s, scaled)": bare,
                "pass and analyses / pass and heads": (bare + whole) / (bare + heads),
            }
        ],
    )


if __name__ == "__main__":
    main()
