"""What tests of the command line share: quiet options, runs as a process, and a look into run folders."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from lightning_repshape.cli import main

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SMALL = ["--trainer.max_epochs", "2", *QUIET]
# A run's own config asks for the devices that it was trained on; in this process, only one will do.
ONE = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
TWO = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]


def run_process(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lightning_repshape.cli", *words, *QUIET]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def fit(*words: str) -> int:
    return main(["fit", "--config", "quickstart", *SMALL, *words])


def metrics(folder: str) -> dict[str, float]:
    return json.loads((Path(folder) / "metrics.json").read_text())


def checkpoint(run: str, name: str = "last") -> dict[str, Any]:
    return torch.load(Path(run) / "checkpoints" / f"{name}.ckpt", weights_only=True)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def rows(run: str) -> list[dict[str, str]]:
    with (Path(run) / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
