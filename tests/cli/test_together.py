"""Trainings that share a process make the same steps as each alone, and each ends in its own way."""

import csv
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_repshape.cli import together
from lightning_repshape.cli.main import main
from lightning_repshape.modules import stacked
from lightning_repshape.runs.files import read_json

METHODS: dict[str, list[str]] = {
    "plain": [],
    "strong": ["--config", "method/cw-vr", "--model.regularizers.weight", "10"],
    "weights": ["--config", "method/l2w", "--model.regularizers.weight", "0.1"],
    "diverging": ["--config", "method/cw-vr", "--model.regularizers.weight", "1e39"],
    "dropout": ["--config", "method/backbone-dropout"],
}


def words(name: str, folder: Path) -> list[str]:
    return [
        "fit", "--config", "base/digits-mlp", *METHODS[name], "--trainer.callbacks", "null",
        "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "5", "--then_test", "true",
        "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
        "--seed_everything", str(len(name)), "--run_dir", str(folder / name),
    ]  # fmt: skip


def stack(folder: Path, names: Sequence[str], *more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Trains in one process; its status, and how each ended."""
    folder.mkdir(exist_ok=True)
    trainings = [{"words": [*words(name, folder), *more], "log": str(folder / f"{name}.txt")} for name in names]
    (folder / "trainings.json").write_text(json.dumps({"trainings": trainings}))
    (folder / "ended.jsonl").unlink(missing_ok=True)
    status = together.main(folder)
    ends = [json.loads(line) for line in (folder / "ended.jsonl").read_text().splitlines()]
    return status, {names[end["number"]]: end for end in ends}


def figures(run: Path) -> list[list[str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    for name in ("plain", "strong", "weights"):
        assert main(words(name, folder)) == 0
    return folder


@pytest.fixture(scope="module")
def stacked_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("stacked")
    status, ends = stack(folder, list(METHODS))
    assert status == 0
    return folder, ends


def assert_same(run: Path, other: Path) -> None:
    names, *rows = figures(run)
    others = figures(other)
    assert names == others[0] and len(rows) + 1 == len(others)
    for row, theirs in zip(rows, others[1:], strict=True):
        assert [bool(value) for value in row] == [bool(value) for value in theirs]
        assert [float(v) for v in row if v] == pytest.approx([float(v) for v in theirs if v], abs=1e-5)
    mine, its = (torch.load(place / "checkpoints/last.ckpt", weights_only=True) for place in (run, other))
    torch.testing.assert_close(mine["state_dict"], its["state_dict"], atol=1e-5, rtol=0)
    torch.testing.assert_close(mine["optimizer_states"], its["optimizer_states"], atol=1e-5, rtol=1e-4)
    assert mine["loops"] == its["loops"] and mine["global_step"] == its["global_step"]


@pytest.mark.parametrize("name", ["plain", "strong", "weights"])
def test_equal_to_single_trainings(
    name: str, single: Path, stacked_runs: tuple[Path, dict[str, dict[str, Any]]]
) -> None:
    folder, ends = stacked_runs
    assert ends[name]["status"] == 0
    assert_same(folder / name, single / name)
    log = (folder / f"{name}.txt").read_text()
    assert log.count("accuracy") == 1 and str(folder / name) in log, "each prints to its own log"
    sessions = read_json(folder / name / "manifest.json")["sessions"]
    assert [own["status"] for own in sessions] == ["finished", "finished"]
    assert str(folder / name) in sessions[0]["command"]


def test_one_that_diverges_ends_alone(stacked_runs: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    folder, ends = stacked_runs
    assert ends["diverging"]["status"] == 1
    assert "the loss became" in (folder / "diverging.txt").read_text()
    assert read_json(folder / "diverging/manifest.json")["sessions"][-1]["status"] == "failed"


def test_one_that_cannot_be_stacked_is_left_as_it_was(stacked_runs: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    folder, ends = stacked_runs
    assert ends["dropout"]["apart"] == "its network has a Dropout" and not (folder / "dropout").exists()
    assert all(not end["apart"] for name, end in ends.items() if name != "dropout")


def test_goes_on_after_an_interrupt(tmp_path: Path, single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def train(cells: Sequence[stacked.Cell]) -> None:
        stacked.train(cells)
        steps.append([cell.trainer.current_epoch for cell in cells])
        if steps[-1] == [1, 1]:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(together, "steps_of", lambda: train)
        status, ends = stack(tmp_path, ["plain", "strong"])
    assert signal.getsignal(signal.SIGTERM) == before
    assert status == 143 and {end["status"] for end in ends.values()} == {143}
    sessions = read_json(tmp_path / "plain/manifest.json")["sessions"]
    assert sessions[-1]["status"] == "interrupted"
    status, ends = stack(tmp_path, ["plain", "strong"], "--ckpt_path", "last")
    assert status == 0 and {end["status"] for end in ends.values()} == {0}
    for name in ("plain", "strong"):
        assert_same(tmp_path / name, single / name)
