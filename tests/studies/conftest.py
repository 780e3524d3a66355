from pathlib import Path

import pytest
from study_runs import TWO_METHODS, Results

from lightning_repshape.studies.reading import read_studies
from lightning_repshape.studies.rows import Study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    file = tmp_path / "small.yaml"
    file.write_text(TWO_METHODS, encoding="utf-8")
    return read_studies(file)[0]


@pytest.fixture
def results(tmp_path: Path, study: Study) -> Results:
    folder = tmp_path / "studies"
    folder.mkdir()
    return Results(folder, study)


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "trace.txt"
    path.touch()
    monkeypatch.setenv("STANDIN_TRACE", str(path))
    return path
