"""What a run leaves behind, and what later commands leave alone."""

import csv
import json
from pathlib import Path

import pytest
import torch
from cli_runs import fit, metrics

from lightning_repshape.cli import main


def test_fit_tests_the_best_checkpoint_and_leaves_a_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    out = capsys.readouterr().out
    assert "run folder: runs/quickstart" in out
    assert "class-wise variance of features" in out
    run = Path("runs/quickstart")
    for name in (
        "config.yaml",
        "manifest.json",
        "metrics.json",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    ):
        assert (run / name).is_file(), name
    assert any((run / "tensorboard").iterdir())
    for figure in ("features", "confusion", "curves"):
        assert (run / "analysis" / f"{figure}.png").stat().st_size > 5000
        assert (run / "analysis" / f"{figure}.pdf").is_file()
    found = metrics("runs/quickstart")
    assert found["test/error"] + found["test/accuracy"] == pytest.approx(1)
    assert found["epoch"] == 2
    manifest = json.loads((run / "manifest.json").read_text())
    assert [session["stage"] for session in manifest["sessions"]] == ["fit", "test"]
    assert all(session["status"] == "finished" for session in manifest["sessions"])
    assert manifest["sessions"][0]["steps"] == 24
    assert manifest["sessions"][0]["steps_per_second"] > 0
    assert manifest["sessions"][0]["peak_memory_mb"] > 50
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert manifest["data"]["train.images"].startswith("blake2b:")
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows if row["train/loss"]] == ["0.0", "1.0"]
    for checkpoint in ("best", "last"):
        content = torch.load(run / "checkpoints" / f"{checkpoint}.ckpt", weights_only=True)
        assert content["hyper_parameters"]["_class_path"].endswith("SupervisedModule")


def test_what_the_first_step_finds_wrong_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", "quickstart", "--config", "method/cr", "--model.backbone.init_args.widths", "[8, 1]"]
    assert main([*words, "--run_dir", "run"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        line
        == "error: Covariance on layer 'features': cr: a covariance needs at least two units, the activations have one"
    )
    assert not Path("run").exists()


def test_later_commands_leave_the_runs_record_and_figures_alone() -> None:
    assert fit() == 0
    manifest = json.loads(Path("runs/quickstart/manifest.json").read_text())
    before, rows = metrics("runs/quickstart"), Path("runs/quickstart/metrics.csv").read_bytes()
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert main(["test", "--run_dir", "runs/quickstart", "--ckpt_path", "none", "--seed_everything", "7", *quiet]) == 0
    after = json.loads(Path("runs/quickstart/manifest.json").read_text())
    for key in ("seed", "data", "versions", "created", "machine"):
        assert after[key] == manifest[key]
    assert after["sessions"][-1]["seed"] == 7
    assert after["sessions"][-1]["checkpoint"] is None
    assert after["sessions"][-1]["figures"]["test/error"] > 0.5
    assert metrics("runs/quickstart") == before
    assert Path("runs/quickstart/metrics.csv").read_bytes() == rows


def test_a_session_is_finished_once_its_curves_are_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_repshape.runs import record

    found = {}
    write = record.write_json

    def look(path: Path, content: dict[str, object]) -> None:
        sessions = content.get("sessions", [{}])
        assert isinstance(sessions, list)
        if sessions[-1].get("status") == "finished":
            found[sessions[-1]["stage"]] = Path("runs/quickstart/metrics.csv").read_bytes()
        write(path, content)

    monkeypatch.setattr(record, "write_json", look)
    assert fit() == 0
    assert found["test"] == Path("runs/quickstart/metrics.csv").read_bytes()
    assert b"test/error" in found["test"]
