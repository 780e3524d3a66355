"""Training steps of the CIFAR network on the CPU, with the C library's own thresholds and with those of every training.

The thresholds hold for a process, hence a process for each, in turn. Times are processor times of one thread.
"""

import resource
import statistics
import subprocess
import sys
import time

import torch
from timing import arguments, report
from torch import nn
from torch.nn import functional as F

from lightning_repshape.networks import ConvNet
from lightning_repshape.performance import keep_freed_memory


def steps(kept: bool, count: int) -> tuple[float, float]:
    """Trains in this process.

    Args:
        kept: Whether freed memory is kept.
        count: How many steps are timed.

    Returns:
        Median seconds of a step, and page faults a step.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if kept:
        keep_freed_memory()
    body, head = ConvNet((3, 32, 32)).to(memory_format=torch.channels_last), nn.Linear(128, 10)
    x = torch.rand(100, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (100,))
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-6, fused=True)
    seconds: list[float] = []
    faults = 0
    for number in range(count + 2):  # the first two warm up
        if number == 2:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start = time.process_time()
        optimizer.zero_grad()
        F.cross_entropy(head(body(x)), y).backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return statistics.median(seconds[2:]), faults / count


def main() -> None:
    """Prints the table."""
    if sys.argv[1:2] == ["--one"]:
        print(*steps(sys.argv[2] == "kept", int(sys.argv[3])))
        return
    options = arguments(__doc__ or "")
    rounds, count = (1, 5) if options.quick else (5, 10)
    found: dict[str, list[tuple[float, float]]] = {"released": [], "kept": []}
    for _ in range(rounds):
        for name, own in found.items():
            printed = subprocess.run(
                [sys.executable, __file__, "--one", name, str(count)], check=True, capture_output=True, text=True
            ).stdout
            seconds, faults = (float(word) for word in printed.split())
            own.append((seconds, faults))
    medians = {name: [statistics.median(column) for column in zip(*own, strict=True)] for name, own in found.items()}
    report(
        "Training step of ConvNet, batch 100, by what happens to freed memory",
        [
            {
                "freed memory is": name,
                "ms": seconds * 1e3,
                "ratio to released": seconds / medians["released"][0],
                "page faults a step": faults,
            }
            for name, (seconds, faults) in medians.items()
        ],
    )


if __name__ == "__main__":
    main()
