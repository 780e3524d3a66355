"""Run folders: each run has one of its own."""

from pathlib import Path

import pytest
from cli_runs import fit

from lightning_repshape.cli import main


def test_a_run_never_overwrites_another() -> None:
    assert fit() == 0
    before = (Path("runs/quickstart") / "metrics.csv").read_bytes()
    assert fit("--seed_everything", "1") == 0
    assert (Path("runs/quickstart") / "metrics.csv").read_bytes() == before
    assert Path("runs/quickstart-2/metrics.json").is_file()
    assert fit("--run_dir", "elsewhere/mine") == 0
    assert fit("--run_dir", "elsewhere/mine") == 0
    assert Path("elsewhere/mine-2/metrics.json").is_file()


def test_a_run_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert fit("--run_dir", "file/run") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_runs_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    from lightning_repshape.runs.folders import claim_folder

    (tmp_path / "made").mkdir()
    names = [claim_folder(tmp_path / name).name for name in ("run", "run", "run", "made", "made")]
    assert names == ["run", "run-2", "run-3", "made", "made-2"]


def test_a_config_in_a_project_folder_is_no_run() -> None:
    assert main(["configs", "copy", "quickstart", "config.yaml"]) == 0
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert main(["validate", "--config", "config.yaml", "--ckpt_path", "none", *quiet]) == 0
    assert not Path("manifest.json").exists()
