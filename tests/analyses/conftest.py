"""Figures of the tests of analyses."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def quick_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures without layout, but for the tests that look at files: drawing is most of the time."""
    if "real_figures" in request.fixturenames:
        return

    def save(figure: Any, path: Path, vector: bool = True) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.set_layout_engine("none")
        figure.savefig(path, dpi=20)
        return path

    monkeypatch.setattr("lightning_repshape.plots.save_figure", save)


@pytest.fixture
def real_figures() -> None:
    """Asks for figures as they are."""
