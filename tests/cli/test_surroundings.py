"""What surrounds a command: where its output goes, its environment, its folders, its system."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runs import QUIET, metrics
from PIL import Image

from lightning_repshape.cli import main

COMMAND = [sys.executable, "-m", "lightning_repshape.cli"]
FIT = ["fit", "--config", "quickstart", "--trainer.callbacks", "null", "--trainer.max_epochs", "1"]
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([*COMMAND, *words], env=environment, capture_output=True, text=True, timeout=240, check=False)


def finished(folder: str) -> bool:
    sessions = json.loads((Path(folder) / "manifest.json").read_text())["sessions"]
    return [session["status"] for session in sessions] == ["finished", "finished"] and "test/error" in metrics(folder)


@full
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_list_that_cannot_be_printed_is_an_error(unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as disk:
        done = subprocess.run(
            [*COMMAND, "configs", "list"], env=environment, stdout=disk, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written (No space left on device)\n"


def test_a_reader_may_leave() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "configs", "list"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.proof
@full
def test_a_training_does_not_die_of_its_printing() -> None:
    with open("/dev/full", "w") as disk:
        done = subprocess.run([*COMMAND, *FIT, "--run_dir", "r"], stdout=disk, stderr=disk, check=False)
    assert done.returncode == 0
    assert finished("r")


@pytest.mark.parametrize("name", ["LOCAL_RANK", "RANK", "SLURM_PROCID"])
def test_a_rank_that_is_none(name: str) -> None:
    done = run(*FIT, **{name: "x"})
    assert done.returncode == 2
    assert f"the environment variable {name} is 'x'" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not Path("runs").exists()


def test_a_backend_that_matplotlib_does_not_know() -> None:
    done = run(*FIT, MPLBACKEND="nope")
    assert done.returncode == 2
    assert "MPLBACKEND is 'nope'" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not Path("runs").exists()


def test_a_working_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = run(*FIT)
    monkeypatch.chdir(tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: the working directory does not exist any more; change to one that does\n"


@pytest.mark.proof
def test_without_what_windows_lacks_and_in_ascii() -> None:
    Path("windows.py").write_text(
        f"""
import sys
sys.modules.update(fcntl=None, resource=None, termios=None, pwd=None, grp=None)
import lightning_repshape
from lightning_repshape.cli import main
for name in lightning_repshape.__all__:
    getattr(lightning_repshape, name)
import lightning_repshape.studies.executors, lightning_repshape.data.cache
assert main({[*FIT, *QUIET, "--run_dir", "r"]}) == 0
assert main(["study", "run", "aaai19/table-7", "--out", "s"]) == 2
import torch
from pathlib import Path
from lightning_repshape.errors import ConfigError
try:
    lightning_repshape.data.cache.build_cache(torch.zeros(2, 2, 2, 1, dtype=torch.uint8), Path("cache"), "x")
except ConfigError as error:
    print(error, file=sys.stderr)
else:
    sys.exit("built without a lock")
"""
    )
    ascii_alone = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "windows.py"], env=ascii_alone, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and "error" in done.stdout
    assert finished("r")
    assert "peak_memory_mb" not in json.loads(Path("r/manifest.json").read_text())["sessions"][0]
    *_, study, cache = done.stderr.splitlines()
    assert study.startswith("error: study run: this needs file locks")
    assert cache.startswith("the cache of decoded images (raise memory_budget_gb to do without): this needs file locks")


def test_a_home_folder_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "a home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert main(["configs", "copy", "quickstart", "~/own.yaml"]) == 0
    own = ["--config=~/own.yaml", *FIT[3:], *QUIET]
    assert main(["fit", *own, "--run_dir", "~/r 1"]) == 0
    last = "~/r 1/checkpoints/last.ckpt"
    assert main(["fit", *own, "--run_dir=~/r 2", "--init_from", last]) == 0
    assert main(["test", "--ckpt_path", last, *QUIET]) == 0
    assert main(["test", "--run_dir", "~/r 2", *QUIET]) == 0
    torch.manual_seed(0)
    np.savez(home / "f.npz", features=torch.randn(40, 3).numpy(), labels=torch.arange(40).numpy() % 2)
    assert main(["analyze", "--features", "~/f.npz", "--run_dir", "~/r 3", "--analyses", "characteristics"]) == 0
    assert main(["study", "run", "aaai19/table-7", "--out", "~/s", "--dry_run"]) == 0
    made = sorted(path.name for path in home.glob("[!.]*"))  # libraries keep caches there
    assert made == ["f.npz", "own.yaml", "r 1", "r 2", "r 3"]
    assert [path.name for path in tmp_path.iterdir()] == ["a home"]
    capsys.readouterr()


def test_a_run_finds_its_data_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        for label in range(2):
            folder = tmp_path / "data" / split / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("L", (8, 8), 60 * (label + 1) + number).save(folder / f"{number}.png")
    words = ["--data", "ImageFolderDataModule", "--data.root", "data", "--data.image_size", "8"]
    model = ["--model", "SupervisedModule", "--model.backbone", "MLP", "--model.backbone.widths", "[4]"]
    assert main(["fit", *model, *words, "--trainer.max_epochs", "1", *QUIET, "--run_dir", "r"]) == 0
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    capsys.readouterr()
    assert main(["test", "--run_dir", "../r", *QUIET]) == 0
    assert f"data.root: data is not here; {tmp_path / 'data'} is taken" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "data")
    assert main(["test", "--run_dir", "../r", *QUIET]) == 1
    assert str(tmp_path / "other" / "data") in capsys.readouterr().err
