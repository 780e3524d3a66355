"""``export``: a run's weights for other programs."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from lightning_repshape import RepshapeModel
from lightning_repshape.cli import main

OLD = Path(__file__).parents[1] / "fixtures" / "run-of-0.1" / "supervised"
pytest.importorskip("safetensors")


@pytest.fixture
def run() -> str:
    shutil.copytree(OLD, "run")
    return "run"


def test_a_run_is_exported(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--run_dir", run]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["file", "size", "probabilities", "features"]
    assert printed[1].split()[0] == "model.safetensors" and printed[1].split()[-2:] == ["0", "0"]
    assert printed[2] == "largest differences from the original, on 64 test images"
    assert printed[3] == "export: run/export, with README.md"
    config = json.loads(Path("run/export/config.json").read_text(encoding="utf-8"))
    assert config["preprocessing"]["class_names"] == list("0123456789")
    assert RepshapeModel.from_run("run/export").class_names == tuple("0123456789")
    assert main(["export", "--ckpt_path", "last", "--run_dir", run, "--to", "there", "--format", "[safetensors]"]) == 0
    shutil.move("run/checkpoints/best.ckpt", "alone.ckpt")
    assert main(["export", "--run_dir", run]) == 1
    assert "there is no best checkpoint" in capsys.readouterr().err


def test_mistakes(run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words, message in (
        (["--run_dir", run, "--format", "tensorflow"], "there is no format 'tensorflow'"),
        (["--format", "onnx"], "export needs trained weights"),
        (["--run_dir", run, "--formt", "onnx"], "did you mean 'format'"),
    ):
        assert main(["export", *words]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert main(["export", "--run_dir", run]) == 2
    assert "this needs the package safetensors: pip install safetensors" in capsys.readouterr().err
    assert not Path("run/export").exists()
