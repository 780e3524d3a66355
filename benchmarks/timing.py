"""Interleaved timing: candidates take turns, so that a drift of the machine's speed hits all of them alike."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int = 7,
    min_seconds: float = 0.05,
    clock: Literal["wall", "processor"] = "wall",
) -> dict[str, float]:
    """Median seconds per call of each candidate, measured in turn (A B C A B C ...).

    Args:
        candidates: Functions without arguments, by name.
        repeats: Rounds; each candidate is timed once a round. Default: 7.
        min_seconds: A timing repeats the call until about this long has passed. Default: 0.05.
        clock: ``"wall"`` (default), or ``"processor"``, the time that this process spends on processors, which other
            processes disturb far less; it tells nothing about GPUs, worker processes or the gain of threads.

    Returns:
        Seconds per call by name.
    """
    now = CLOCKS[clock]

    def timed(function: Callable[[], object], calls: int) -> float:
        _synchronize()
        start = now()
        for _ in range(calls):
            function()
        _synchronize()
        return (now() - start) / calls

    calls = {name: max(1, int(min_seconds / max(timed(function, 1), 1e-9))) for name, function in candidates.items()}
    calls = {name: min(calls[name], 100_000) for name in calls}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, function in candidates.items():
            seconds[name].append(timed(function, calls[name]))
    return {name: statistics.median(values) for name, values in seconds.items()}


def processor_clock(options: argparse.Namespace) -> Literal["wall", "processor"]:
    """The clock for candidates that run in one thread of this process, or on a GPU.

    Args:
        options: What :func:`arguments` returned.

    Returns:
        ``"processor"`` on the CPU with one thread, else ``"wall"``.
    """
    return "processor" if options.device == "cpu" and options.threads == 1 else "wall"


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


TABLES = "BENCHMARK_TABLES"
"""The environment variable that names the file to which :func:`report` adds its tables, a line of JSON each."""


def report(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Prints rows as a table; the columns are the first row's keys.

    Args:
        title: The table's heading.
        rows: One mapping a line.
    """
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(str(column), justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=140).print(table)
    if os.environ.get(TABLES):
        with Path(os.environ[TABLES]).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"title": title, "rows": [dict(row) for row in rows]}, default=str) + "\n")


def arguments(description: str, flags: Mapping[str, str] | None = None) -> argparse.Namespace:
    """Parses the flags that all benchmarks share, sets the number of threads and names the machine.

    Args:
        description: What the benchmark measures.
        flags: Further switches of one benchmark: their help by name.

    Returns:
        ``quick`` (fewer and smaller measurements), ``threads``, ``device`` and the further switches.
    """
    parser = argparse.ArgumentParser(description=description)
    for name, text in (flags or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller measurements")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1; more make ratios noisy)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s), device {options.device}")
    return options
