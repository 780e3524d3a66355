"""What the tests of analyses share."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _quick_figures(quick_figures: None, in_tmp: Path) -> None:
    """Figures are not what these tests are about, and lie in the test's own folder."""
