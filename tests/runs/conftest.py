from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to ``runs/`` in the working directory."""
    monkeypatch.chdir(tmp_path)
