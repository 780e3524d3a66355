"""Figures of the tests of analyses."""

import pytest


@pytest.fixture(autouse=True)
def _quick_figures(quick_figures: None) -> None:
    """Figures are not what these tests are about."""
