"""Run folders that version 0.1 wrote are read: tested, predicted with, analysed and gone on with.

``fixtures/run-of-0.1`` holds what ``fit --config FILE`` left after two epochs, but for TensorBoard's files and figures;
``resumed.json`` the figures after one more epoch, which change when an option of the config is lost.
"""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import close, differences, unrendered

from lightning_repshape.cli import main

RUNS = Path(__file__).parent / "fixtures" / "run-of-0.1"
pytestmark = pytest.mark.parametrize("name", ["supervised", "foca"])


def first_epoch(folder: Path) -> dict[str, float]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["epoch"] == "0.0" and row["val/loss"]]
    return {key: float(value) for key, value in rows[0].items() if value}


@pytest.fixture
def run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A copy of a run folder, in the folder where the test works."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RUNS / name, tmp_path / "old")
    with unrendered():
        yield "old"


def read(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_a_test_gives_the_figures_that_it_gave(run: str, name: str) -> None:
    wanted = {key: value for key, value in read("old/metrics.json").items() if key.startswith("test/")}
    assert len(wanted) > 6
    assert main(["test", "--run_dir", run]) == 0
    found = read("old/metrics.json")
    assert {key: found.get(key) for key, value in wanted.items() if not close(key, found.get(key), value)} == {}
    assert read("old/manifest.json")["sessions"][-1]["stage"] == "test"


def test_it_predicts(run: str, name: str) -> None:
    assert main(["predict", "--run_dir", run]) == 0
    with Path("old/predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300
    assert {row["predicted_class"] for row in rows} <= set("0123456789")
    wrong = sum(row["predicted_class"] != row["true_class"] for row in rows)
    assert close("error", wrong / len(rows), read("old/metrics.json")["test/error"])


def test_it_is_analysed_with_the_options_of_its_config(run: str, name: str) -> None:
    assert main(["analyze", "--run_dir", run, "--analyses", "pca,partial_retraining"]) == 0
    kept = read(str(RUNS / name / "analysis" / "partial_retraining.json"))["scalars"]
    found = read("old/analysis/partial_retraining.json")["scalars"]
    assert found.keys() - kept.keys() == {"loss_20", "code_length"}  # looked at since
    assert all(close(f"analyses {key}", found[key], value) for key, value in kept.items())
    assert Path("old/analysis/pca.json").is_file() and Path("old/analysis/index.html").is_file()


def test_its_training_goes_on(run: str, name: str) -> None:
    before = Path("old/metrics.csv").read_text(encoding="utf-8").splitlines()
    assert main(["fit", "--run_dir", run, "--ckpt_path", "last", "--trainer.max_epochs", "3"]) == 0
    assert main(["test", "--run_dir", run, "--ckpt_path", "last"]) == 0  # FOCA's new secondary head
    session, _, last = read("old/manifest.json")["sessions"][-3:]
    found = {"figures": read("old/metrics.json"), "last": last["figures"]}
    if name == "foca":
        assert 0 < found["figures"].pop("train/within_over_between")  # logged since
    since = {f"test/partial_retraining/{figure}" for figure in ("loss_20", "code_length")}
    for figures in found.values():
        assert since <= figures.keys()
        for figure in since:
            del figures[figure]
    assert differences(found, read(str(RUNS / "resumed.json"))[name], exact=False) == []
    assert session["stage"] == "fit" and session["first_epoch"] == 2 and session["epochs"] == 1
    assert len(Path("old/metrics.csv").read_text(encoding="utf-8").splitlines()) > len(before)
    assert sorted(path.name for path in Path("old/checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert not Path("runs").exists()


def test_its_config_trains_anew(run: str, name: str) -> None:
    config = yaml.safe_load(Path("old/config.yaml").read_text(encoding="utf-8"))
    assert config["trainer"]["max_epochs"] == 2
    assert main(["fit", "--config", "old/config.yaml", "--run_dir", "new", "--trainer.max_epochs", "1"]) == 0
    old, new = first_epoch(Path("old")), first_epoch(Path("new"))
    assert (
        len(new) > 6 and differences(new, {key: value for key, value in old.items() if key in new}, exact=False) == []
    )
