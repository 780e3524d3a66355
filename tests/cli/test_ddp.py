"""Two processes give what one gives."""

from pathlib import Path

import pytest
import torch
from cli_runs import ONE, QUIET, TWO, metrics, run_process

from lightning_repshape.cli import main


def test_fit_and_test_on_two_ranks_then_on_one() -> None:
    # 300 test samples less one class (30) in batches of 64: neither two ranks nor the batches divide them evenly.
    words = ["--config", "quickstart", "--data.classes", "[0, 1, 2, 3, 4, 5, 6, 8, 9]", "--data.eval_batch_size", "64"]
    words += ["--data.val_size", "0.23", "--trainer.max_epochs", "3"]
    done = run_process("fit", *words, *TWO, "--run_dir", "two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not Path("two-2").exists()
    assert Path("two/analysis/features.png").is_file()
    one = [*words, *QUIET, *ONE, "--ckpt_path", "two/checkpoints/best.ckpt", "--run_dir", "one"]
    assert main(["test", *one]) == 0
    two, single = metrics("two"), metrics("one")
    samples = 270
    assert round(two["test/error"] * samples) == round(single["test/error"] * samples)
    assert two["test/error"] == single["test/error"]
    assert two["test/loss"] == pytest.approx(single["test/loss"], rel=1e-6)
    assert two["test/classwise_variance"] == pytest.approx(single["test/classwise_variance"], rel=1e-6)
    assert run_process("predict", "--run_dir", "two", *TWO).returncode == 0
    lines = Path("two/predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + 270
    assert main(["predict", "--run_dir", "two", *QUIET, *ONE]) == 0
    alone = Path("two/predictions.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in alone] == [line.split(",")[:2] for line in lines]


@pytest.mark.proof
def test_penalties_on_two_ranks_are_those_of_the_joined_batch() -> None:
    Path("penalties.yaml").write_text(
        """
model:
  class_path: RegularizedModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [24, 24]}}
    regularizers:
      - {class_path: ClasswiseVariance, init_args: {weight: 1.0, layer: fc1}}
      - {class_path: ClasswiseCovariance, init_args: {weight: 1.0, warmup_epochs: 2}}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
data: {class_path: DigitsDataModule, init_args: {train_size: 800}}
trainer:
  max_epochs: 2
  callbacks:
    - class_path: LayerPenalty
      init_args: {layer: backbone.fc2, regularizer: {class_path: ClasswiseVariance, init_args: {weight: 2.0}}}
    - class_path: LayerPenalty
      init_args: {layer: backbone.fc1, regularizer: {class_path: L2Weight, init_args: {weight: 1.0e-3}}}
"""
    )
    done = run_process("fit", "--config", "penalties.yaml", *TWO, "--data.batch_size", "40", "--run_dir", "two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert main(["fit", "--config", "penalties.yaml", *QUIET, "--data.batch_size", "80", "--run_dir", "one"]) == 0
    two, one = (torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for name in ("two", "one"))
    for name, value in one.items():
        if value.is_floating_point() and name.startswith(("backbone", "head")):
            torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.proof
def test_foca_on_two_ranks_keeps_them_identical_and_solves_one_head() -> None:
    Path("foca.yaml").write_text(
        """
model:
  class_path: FOCAModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [24, 24]}}
    weak:
      hidden: [16]
      updates: 8
    secondary:
      hidden: [16]
    phi:
      updates: 2
      accumulate: 2
    val_classifiers: 2
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0e-2, momentum: 0.9}}
data: {class_path: DigitsDataModule, init_args: {batch_size: 100}}
trainer: {max_epochs: 3}
then_test: true
"""
    )
    done = run_process("fit", "--config", "foca.yaml", *TWO, "--run_dir", "two")
    assert done.returncode == 0, done.stdout + done.stderr
    checkpoint = torch.load("two/checkpoints/best.ckpt", weights_only=True)
    assert bool(checkpoint["state_dict"]["head_trained"])
    assert main(["test", "--run_dir", "two", *QUIET, *ONE]) == 0
    assert metrics("two")["test/error"] < 0.5


@pytest.mark.proof
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_other_ways_to_start_two_processes(strategy: str) -> None:
    two = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", strategy]
    words = ["--config", "quickstart", "--trainer.callbacks", "null", "--trainer.max_epochs", "1", "--run_dir", "r"]
    done = run_process("fit", *words, *two)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path("r/checkpoints/best.ckpt").is_file() and not Path("r-2").exists()
    assert "test/error" in metrics("r")


@pytest.mark.proof
def test_more_ranks_than_samples_is_refused() -> None:
    done = run_process("fit", "--config", "quickstart", *TWO, "--data.train_size", "1", "--run_dir", "few")
    assert done.returncode == 1
    assert "ranks share 1 samples" in done.stderr
    assert "Traceback" not in done.stderr
