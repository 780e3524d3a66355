from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_tmp(in_tmp: Path) -> None:
    """Every test works in its own folder."""
