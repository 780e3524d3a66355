import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_tmp(in_tmp: Path) -> None:
    """Every test works in its own folder."""


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once the module ``trap`` was imported."""
    mark = tmp_path / "sprung"
    (tmp_path / "trap.py").write_text(f"open({str(mark)!r}, 'w').close()\nfrom lightning_repshape import MLP\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    return mark
