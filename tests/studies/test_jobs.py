"""Folders of results and of runs: whose they are, and what state they are in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from study_runs import STUDY, cells, runner

from lightning_repshape.errors import ConfigError
from lightning_repshape.runs import read_json
from lightning_repshape.studies.jobs import Budget, open_results


def test_results_of_another_version_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "studies.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ConfigError, match="format 99, but this version"):
        open_results(tmp_path, create=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="holds something else"):
        open_results(tmp_path / "other", create=True)
    with pytest.raises(ConfigError, match="holds no results"):
        open_results(tmp_path / "nowhere")


def test_a_corrupt_run_folder_is_named_and_not_touched(tmp_path: Path, trace: Path) -> None:
    own = cells(tmp_path, Budget(seeds=1))[:1]
    folder = own[0].repeats(None)[0].folder
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{ half")
    (progress,) = runner(own).run()
    assert progress.count("failed") == 1 and str(folder) in progress.error
    assert (folder / "manifest.json").read_text() == "{ half"


def test_a_run_of_yesterdays_row_is_not_taken_for_todays(tmp_path: Path, trace: Path) -> None:
    real = cells(tmp_path, Budget(seeds=1))[:1]
    runner(real).run()
    file = real[0].repeats(None)[0].folder / "manifest.json"
    manifest = read_json(file)
    file.write_text(json.dumps({**manifest, "study": real[0].repeats(None)[0].about()}))
    assert runner(real).run()[0].count("finished") == 1
    (progress,) = runner(cells(tmp_path, Budget(seeds=1), overrides={"trainer.max_epochs": 7})[:1]).run()
    assert progress.count("failed") == 1 and "had other configs or overrides" in progress.error


def test_different_values_have_different_folders(tmp_path: Path) -> None:
    select = {**STUDY["select"], "values": [1, -1, [1], "a b", "a-b"]}
    choices = cells(tmp_path, select=select)[1].choices()
    assert len({job.leaf.lower() for job in choices}) == 5 and choices[0].leaf == "value-1_seed-0"
    with pytest.raises(ConfigError, match="names one twice"):
        cells(tmp_path, select={**select, "values": [1, 1.0]})


def test_many_may_begin_a_folder_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib; from lightning_repshape.studies import jobs; "
    code += "jobs.open_results(pathlib.Path(sys.argv[1]), create=True)"
    for number in range(3):
        words = [sys.executable, "-c", code, str(tmp_path / str(number))]
        begun = [subprocess.Popen(words, stderr=subprocess.PIPE) for _ in range(4)]
        assert [process.wait() for process in begun] == [0] * 4
