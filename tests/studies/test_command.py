"""``lightning-repshape study``."""

import shutil
from pathlib import Path

import pytest
import yaml
from study_runs import STUDY

from lightning_repshape.cli import main
from lightning_repshape.runs.files import read_json


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "aaai19/table-77"], "did you mean 'aaai19/table-7'"),
        (["run", "none.yaml"], "there is no file of studies none.yaml"),
        (["run", "aaai19/table-7", "--filter", "cw_rv"], "did you mean 'cw_vr'"),
        (["run", "aaai19/table-7", "--budget", "2"], "fraction of the epochs in (0, 1]"),
        (["run", "aaai19/table-7", "--jobs", "0"], "--jobs is 0"),
        (["run", "aaai19/table-7", "--", "--trainer.max_epochs", "1"], "stands in the study's file"),
        (["run", "aaai19/table-7", "--", "-c", "other.yaml"], "-c changes what is trained"),
        (["run", "aaai19/table-7", "--gpus", "1"], "--gpus has no meaning with --executor local"),
        (["run", "aaai19/table-7", "--budget", "x"], "invalid float value"),
        (["list", "aaai19", "--", "--threads", "1"], "nothing stands behind '--'"),
        (["report", "aaai19/table-7", "--out", "nowhere"], "holds no results of studies"),
    ],
)
def test_wrong_calls_end_in_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_row_that_overrides_what_does_not_exist_ends_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(yaml.safe_dump({**STUDY, "overrides": {"trainer.epochs": 3}}))
    assert main(["study", "run", "my.yaml"]) == 2
    error = capsys.readouterr().err
    assert "my/default/baseline" in error and "'trainer.epochs'" in error
    assert not list(Path("studies").rglob("manifest.json"))


def test_list_show_and_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", "list", "--filter", "MNIST"]) == 0
    assert "aaai19/table-7" in capsys.readouterr().out
    assert main(["study", "list", "aaai19/table-7", "--rows", "--filter", "default+cw_vr"]) == 0
    assert capsys.readouterr().out.split() == ["aaai19/table-7/default/cw_vr"]
    assert main(["study", "show", "aaai19/table-7", "--commands"]) == 0
    shown = capsys.readouterr().out
    assert "2.42 ± 0.06" in shown and "fit --row aaai19/table-7/width-8/cw_vr" in shown
    assert (
        main(
            ["study", "run", "aaai19/table-7", "--dry_run", "--filter", "default+cw_vr", "--filter", "default+baseline"]
        )
        == 0
    )
    assert "15 trainings left" in capsys.readouterr().out
    assert not Path("studies").exists()


def test_shared_trainings_are_listed_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    figures = ["icml19/figure-2", "icml19/figure-3", "icml19/table-1"]
    for named, first in ((figures, "figure-2"), (figures[1:], "figure-3")):
        assert main(["study", "run", *named, "--filter", "cifar10_small", "--dry_run"]) == 0
        out = capsys.readouterr().out
        assert "5 trainings left" in out and out.count("/cifar10_small/") == 5
        assert out.count(f"icml19/{first}/cifar10_small/") == 5
    assert main(["study", "show", *figures[1:]]) == 0
    assert capsys.readouterr().out.count("20 trainings in all, those of icml19/figure-2\n") == 2


@pytest.mark.proof
@pytest.mark.timeout(240)
def test_a_study_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The guide's own example: data and network of the user's own, found beside the study's file.
    example = Path(__file__).parents[2] / "docs" / "examples" / "own_study"
    shutil.copytree(example, tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    words = ["own/wine.yaml", "--filter", "clean+baseline", "--filter", "clean+cw_vr"]
    content = yaml.safe_load(Path("own/wine.yaml").read_text())
    content["select"]["values"] = [1]
    Path("own/wine.yaml").write_text(yaml.safe_dump(content))
    assert main(["study", "run", *words, "--budget", "0.5", "--jobs", "2", "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "finished wine/clean/cw_vr/value-1_budget-0.5_seed-0" in printed and "report.html" in printed
    assert "wine: error (%)" in printed and "less than the whole budget" in printed
    manifest = read_json(Path("studies/wine/clean/cw_vr/value-1_budget-0.5_seed-0/manifest.json"))
    assert manifest["study"]["row"] == "wine/clean/cw_vr" and manifest["sessions"][0]["epochs"] == 10
    assert "--row own/wine.yaml:clean/cw_vr" in manifest["sessions"][0]["command"]
    assert main(["study", "report", "own/wine.yaml", "--check"]) == 0
    assert "every number has its run" in capsys.readouterr().out
