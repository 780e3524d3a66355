"""The checkpoints of a run: written whole, chosen by what is monitored, refused where they do not fit."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from cli_runs import SMALL, fit, metrics

from lightning_repshape.cli import main


def test_init_from_loads_weights_alone() -> None:
    assert fit("--then_test", "false") == 0
    last = "runs/quickstart/checkpoints/last.ckpt"
    assert fit("--init_from", last, "--trainer.max_epochs", "0", "--run_dir", "b", "--then_test", "false") == 0
    assert fit("--init_from", last, "--trainer.max_epochs", "1", "--run_dir", "c") == 0
    assert metrics("c")["epoch"] == 1  # training began anew
    assert metrics("c")["train/error"] < metrics("runs/quickstart")["train/error"]
    assert fit("--init_from", last, "--ckpt_path", last) == 2


def test_a_checkpoint_says_what_it_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--then_test", "false") == 0
    words = ["--ckpt_path", "runs/quickstart/checkpoints/last.ckpt", "--model.optimizer.lr", "0.5"]
    assert fit("--trainer.max_epochs", "3", *words) == 0
    assert "optimizer.init_args.lr" in capsys.readouterr().err.replace("\n", " ")


def test_without_validation_the_last_epoch_is_the_best() -> None:
    assert fit("--data.val_size", "0") == 0
    run = Path("runs/quickstart/checkpoints")
    best, last = (torch.load(run / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert best["epoch"] == last["epoch"] == 1


def test_checkpoints_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--then_test", "false") == 0
    best = "runs/quickstart/checkpoints/best.ckpt"
    capsys.readouterr()
    Path("text.ckpt").write_text("no checkpoint")
    assert main(["test", "--config", "quickstart", "--ckpt_path", "text.ckpt"]) == 1
    assert "cannot be read as a checkpoint" in capsys.readouterr().err
    torch.save({"weights": torch.zeros(1)}, "other.ckpt")
    assert main(["test", "--config", "quickstart", "--ckpt_path", "other.ckpt"]) == 1
    assert "no Lightning checkpoint" in capsys.readouterr().err
    assert main(["test", "--config", "quickstart", "--ckpt_path", "absent.ckpt"]) == 1
    assert "does not exist" in capsys.readouterr().err
    # Fewer classes, so another model.
    assert main(["test", "--config", "quickstart", "--data.classes", "4", "--ckpt_path", best]) == 1
    assert "another model" in capsys.readouterr().err
    assert fit("--init_from", best, "--model.backbone.widths", "[9]") == 1
    assert "another model" in capsys.readouterr().err
    Path("truncated.ckpt").write_bytes(Path(best).read_bytes()[:2000])
    assert main(["test", "--config", "quickstart", "--ckpt_path", "truncated.ckpt"]) == 1
    assert "cannot be read as a checkpoint" in capsys.readouterr().err


def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--run_dir", "good") == 0
    before = Path("good/checkpoints/last.ckpt").read_bytes()
    Path("bad.yaml").write_text(
        "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0e+30}}}}\n"
    )
    assert main(["fit", "--config", "quickstart", "--config", "bad.yaml", *SMALL, "--run_dir", "bad"]) == 1
    message = capsys.readouterr().err
    assert "epoch 0" in message
    assert "step" in message
    assert not list(Path("bad").glob("checkpoints/*.ckpt"))
    assert json.loads(Path("bad/manifest.json").read_text())["sessions"][-1]["status"] == "failed"
    assert Path("good/checkpoints/last.ckpt").read_bytes() == before


def test_a_full_disk_keeps_the_previous_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = torch.save
    calls = []

    def full(content: object, path: object, *args: object, **kwargs: object) -> None:
        calls.append(path)
        if len(calls) > 2:
            Path(str(path)).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        saved(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    assert fit() == 1
    assert "No space left on device" in capsys.readouterr().err
    content = torch.load("runs/quickstart/checkpoints/last.ckpt", weights_only=True)
    assert content["epoch"] == 0
    assert sorted(path.name for path in Path("runs/quickstart/checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_real_full_disk_is_named(tmp_path: Path) -> None:
    from lightning_repshape.errors import CheckpointError
    from lightning_repshape.runs import checkpoints

    @contextmanager
    def full(path: object) -> Iterator[Path]:
        yield Path("/dev/full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "written_atomically", full)
        with pytest.raises(CheckpointError, match="could not be written"):
            checkpoints.save_checkpoint({"state_dict": {"w": torch.zeros(100_000)}}, tmp_path / "last.ckpt")


def test_weights_broken_by_an_epochs_last_update_reach_no_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(
        "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0e+30}}}}"
    )
    for run, words in (("validated", []), ("unvalidated", ["--data.val_size", "0"])):
        batch = ["--data.batch_size", "1500", "--run_dir", run, *words]
        assert main(["fit", "--config", "quickstart", "--config", "bad.yaml", *SMALL, *batch]) == 1
        assert "epoch 0" in capsys.readouterr().err
        assert not list(Path(run).glob("checkpoints/*.ckpt"))


def test_a_checkpoint_from_python_is_tested_with_a_config() -> None:
    from lightning.pytorch import Trainer

    from lightning_repshape import MLP, DigitsDataModule, SupervisedModule

    data = DigitsDataModule()
    module = SupervisedModule(10, data.input_shape, backbone=lambda shape: MLP(shape, widths=(100, 100, 100)))
    trainer = Trainer(max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(module, data)
    trainer.save_checkpoint("mine.ckpt")
    words = ["--ckpt_path", "mine.ckpt", "--run_dir", "mine", "--trainer.enable_progress_bar", "false"]
    assert main(["test", "--config", "quickstart", *words]) == 0
    assert metrics("mine")["test/error"] == pytest.approx(trainer.test(module, data, verbose=False)[0]["test/error"])


def test_the_users_own_checkpoint_callback_and_no_logger() -> None:
    own = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {filename: mine, save_top_k: -1}}"
    best = "{class_path: BestCheckpoint, init_args: {monitor: val/loss}}"
    Path("own.yaml").write_text(f"trainer: {{logger: false, callbacks: [{own}, {best}]}}")
    assert fit("--config", "own.yaml") == 0
    found = torch.load("runs/quickstart+own/checkpoints/best.ckpt", weights_only=True)
    assert found["callbacks"]["BestCheckpoint"]["monitor"] == "val/loss"
    assert not Path("runs/quickstart+own/metrics.csv").exists()
    assert fit("--trainer.enable_checkpointing", "false", "--run_dir", "none") == 0
    assert "test/error" in metrics("none")


def test_a_module_that_logs_nothing_to_monitor_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("monitor.yaml").write_text(
        "trainer: {callbacks: [{class_path: BestCheckpoint, init_args: {monitor: val/eror}}]}"
    )
    assert fit("--config", "monitor.yaml") == 2
    assert "did you mean 'val/error'" in capsys.readouterr().err
