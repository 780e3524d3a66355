import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch is imported: small tests are slower with more threads, and figures need no screen.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from ddp_pool import GlooPool

torch.set_num_threads(1)
warnings.filterwarnings("ignore", message=".*does not have many workers.*")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's seed and folder reach other processes through the environment; a test must not see another's."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.delenv("LIGHTNING_REPSHAPE_RUN_DIR", raising=False)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the test's own folder the working directory, where runs go to ``runs/``; returns it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def gloo() -> Iterator[GlooPool]:
    """Processes that talk over gloo, started at the first use."""
    pool = GlooPool()
    yield pool
    pool.close()


@pytest.fixture
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


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once the module ``trap`` was imported."""
    mark = tmp_path / "sprung"
    (tmp_path / "trap.py").write_text(f"open({str(mark)!r}, 'w').close()\nfrom lightning_repshape import MLP\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    return mark
