"""Loggers of a config stand beside the run folder's own, and get the figures."""

import os
from pathlib import Path

import pytest
from cli_runs import fit, rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_repshape.cli import main

LOGGER = "--trainer.logger"


@pytest.fixture(autouse=True)
def _in_tmp(in_tmp: Path) -> None:
    """Every test works in its own folder."""


def images(folder: Path) -> set[str]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return set(found.Tags()["images"])


def test_a_logger_stands_beside_the_run_s_own_and_tensorboard_gets_figures() -> None:
    assert fit("--run_dir", "run", LOGGER, "lightning.pytorch.loggers.CSVLogger", f"{LOGGER}.save_dir", "csv") == 0
    assert len(rows("run")) == 3 and list(Path("csv").rglob("metrics.csv"))
    assert images(Path("run/tensorboard")) == {"curves", "features", "confusion"}
    assert main(["test", "--run_dir", "run"]) == 0


def test_tensorboard_of_one_s_own_is_the_only_one() -> None:
    words = (LOGGER, "TensorBoardLogger", f"{LOGGER}.save_dir", "boards")
    assert fit("--run_dir", "run", *words, "--then_test", "false") == 0
    assert rows("run") and not Path("run/tensorboard").exists()
    assert list(Path("boards").rglob("events*"))


def test_false_is_none() -> None:
    assert fit("--run_dir", "run", LOGGER, "false", "--then_test", "false") == 0
    assert not Path("run/metrics.csv").exists() and not Path("run/tensorboard").exists()


def test_wandb_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, os.path.abspath("kept"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = (LOGGER, "WandbLogger", f"{LOGGER}.offline", "true", f"{LOGGER}.save_dir", "run")
    assert fit("--run_dir", "run", *words, "--trainer.max_epochs", "1") == 0
    assert rows("run"), "the run's own curves are there, too"
    assert {path.name.partition("_")[0] for path in Path("run/wandb").rglob("*.png")} >= {"curves", "features"}


def test_mlflow_in_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    words = (LOGGER, "MLFlowLogger", f"{LOGGER}.tracking_uri", "file:./mlruns", f"{LOGGER}.experiment_name", "digits")
    assert fit("--run_dir", "run", *words, "--trainer.max_epochs", "1") == 0
    assert rows("run")
    assert {path.name for path in Path("mlruns").rglob("*.png")} == {"curves.png", "features.png", "confusion.png"}
    assert list(Path("mlruns").rglob("metrics/val/error"))


def test_a_figure_that_cannot_be_read_ends_no_run(tmp_path: Path) -> None:
    from lightning.pytorch import Trainer
    from lightning.pytorch.demos.boring_classes import BoringModel
    from lightning.pytorch.loggers import TensorBoardLogger

    from lightning_repshape.runs.curves import FigureLogger

    trainer = Trainer(logger=TensorBoardLogger(tmp_path), enable_checkpointing=False, enable_progress_bar=False)
    callback = FigureLogger(tmp_path)
    callback.setup(trainer, BoringModel(), "fit")
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "broken.png").touch()
    with pytest.warns(UserWarning, match=r"broken\.png was not handed to TensorBoardLogger"):
        callback.teardown(trainer, BoringModel(), "fit")
