"""An interrupted and resumed run equals an uninterrupted one, to the bit."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_runs import QUIET, checkpoint, rows, same

from lightning_repshape.cli import main

SUPERVISED = """
model:
  class_path: SupervisedModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [24, 24], dropout: 0.3, batch_norm: true}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 2.0e-3}}
    lr_scheduler: {class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 4}}
"""
FOCA = """
model:
  class_path: FOCAModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [24, 24], batch_norm: true}}
    weak:
      hidden: [16]
      updates: 8
    secondary:
      hidden: [16]
      updates: 20
    draw:
      num_classifiers: 2
    phi:
      accumulate: 3
      updates: 2
    val_classifiers: 2
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0e-2, momentum: 0.9}}
    lr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 2}}
"""
PLATEAU = SUPERVISED.replace(
    "{class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 4}}",
    "{class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {monitor: val/loss, patience: 0, threshold: 9}}",
)
REGULARIZED = """
model:
  class_path: RegularizedModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [24, 24]}}
    regularizers:
      - {class_path: ClasswiseCovariance, init_args: {weight: 1.0, warmup_epochs: 3.5}}
      - {class_path: L2Weight, init_args: {weight: 1.0e-3, scope: all}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 2.0e-3}}
"""
# Behind DATA, whose trainer they complete: the same inside a module that knows nothing of it.
PENALTIES = """
  callbacks:
    - class_path: LayerPenalty
      init_args:
        layer: backbone.fc1
        regularizer: {class_path: Variance, init_args: {weight: 1.0, warmup_epochs: 3.5}}
"""
DATA = """
data: {class_path: DigitsDataModule, init_args: {batch_size: 100, augment: shift}}
then_test: true
trainer:
  max_epochs: 4
  log_every_n_steps: 5
"""


@pytest.mark.parametrize(
    "method", [SUPERVISED, PLATEAU, FOCA, REGULARIZED], ids=["supervised", "plateau", "foca", "regularized"]
)
def test_interrupted_within_an_epoch_and_resumed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.yaml").write_text(method + DATA + (PENALTIES if method == REGULARIZED else ""))
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "whole"]) == 0

    from lightning_repshape.callbacks import Reseeding

    seed = Reseeding.on_train_batch_start

    def interrupt(self: Reseeding, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2 and batch_idx == 5:
            raise RuntimeError("the power failed")
        seed(self, trainer, module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Reseeding, "on_train_batch_start", interrupt)
        assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "parts"]) == 1
    assert checkpoint("parts")["epoch"] == 1
    assert main(["fit", "--run_dir", "parts", "--ckpt_path", "last", *QUIET]) == 0
    assert not Path("parts-2").exists()

    for name in ("last", "best"):
        whole, parts = checkpoint("whole", name), checkpoint("parts", name)
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            assert same(whole[key], parts[key]), (name, key)
    assert rows("whole") == rows("parts")


def test_killed_process_goes_on() -> None:
    Path("config.yaml").write_text(SUPERVISED + DATA)
    words = [sys.executable, "-m", "lightning_repshape.cli", "fit", "--config", "config.yaml", *QUIET]
    long = ["--trainer.max_epochs", "2000", "--run_dir", "killed", "--then_test", "false"]
    process = subprocess.Popen([*words, *long], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = Path("killed/checkpoints/last.ckpt")
    for _ in range(600):
        if last.is_file():
            break
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = checkpoint("killed")["epoch"]
    epochs = str(reached + 3)
    resumed = ["--run_dir", "killed", "--ckpt_path", "last", "--trainer.max_epochs", epochs]
    assert main(["fit", "--config", "config.yaml", *QUIET, *resumed]) == 0
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "whole", "--trainer.max_epochs", epochs]) == 0
    assert same(checkpoint("whole")["state_dict"], checkpoint("killed")["state_dict"])
    assert [row for row in rows("whole") if "train/error" in row] == [
        row for row in rows("killed") if "train/error" in row
    ]
    assert not list(Path("killed").rglob("*.part"))


def test_a_moved_run_keeps_its_best_checkpoint() -> None:
    Path("config.yaml").write_text(SUPERVISED + DATA)
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "here"]) == 0
    best = checkpoint("here", "best")
    score = float(best["callbacks"]["BestCheckpoint"]["best_model_score"])
    Path("here").rename("there")
    # Training that can only get worse: what was best has to stay.
    words = [
        "--run_dir",
        "there",
        "--ckpt_path",
        "last",
        "--trainer.max_epochs",
        "5",
        "--trainer.limit_val_batches",
        "1",
    ]
    assert main(["fit", *words, *QUIET]) == 0
    state = checkpoint("there")["callbacks"]["BestCheckpoint"]
    assert float(state["best_model_score"]) <= score
    assert Path(state["best_model_path"]) == Path("there/checkpoints/best.ckpt").resolve()
    assert not Path("here").exists()
