"""Figures as they are shown: the same unit everywhere."""

import math

import pytest

from lightning_repshape.analyses.headline import _KNOWN, headlines
from lightning_repshape.analyses.tables import cell_text, result_lines
from lightning_repshape.terminal.printing import figure_text, is_share


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("test/error", "12.50 %"),
        ("collapse/train_ncm_error", "12.50 %"),
        ("collapse/test_calibration_error", "12.50 %"),
        ("collapse/test_nc4", "12.50 %"),
        ("pca/explained_2", "12.50 %"),
        ("partial_retraining/std_10", "12.50 %"),
        ("corruptions/test/impulse_noise/1/error", "12.50 %"),
        ("mean_squared_error", "0.125"),
        ("threshold test error (%)", "0.125"),
        ("collapse/test_nc1", "0.125"),
        ("accurate", "0.125"),
    ],
)
def test_shares_are_percent(name: str, text: str) -> None:
    assert figure_text(name, 0.125) == text
    assert is_share(name) == text.endswith("%")


def test_tables_of_shares() -> None:
    rows = [{"measure": "accuracy of the model", "train": 0.5, "test": None}, {"measure": "NC1", "train": math.inf}]
    tables = {"measures": rows, "own": [{"accuracy": 0.25, "e(W)": 0.1}], "nothing found": []}
    html = "".join(result_lines([], tables, {"error_few": 0.75}))
    assert "nothing found" not in html
    for cell in ("50.00 %", "25.00 %", "75.00 %", "∞", ">0.1<", "–"):
        assert cell in html, cell
    assert [cell_text(value) for value in (1234, True, "a", math.nan)] == ["1,234", "yes", "a", "–"]


def test_heads_are_named_by_their_images() -> None:
    scalars = {f"partial_retraining/error_{size}": 0.1 for size in (10, 100, 1000)}
    labels = [[line.label for line in headlines(scalars, classes)] for classes in (10, 3)]
    assert labels == [["heads on 1 image a class", "heads on 10 images a class"], ["heads on 10 images"]]


def test_a_second_set_and_what_was_asked_for_are_among_the_figures() -> None:
    scalars = dict.fromkeys((*_KNOWN, *(f"dimension/{at}" for at in range(20)), "own/mean", "own/long_name"), 0.1)
    labels = [line.label for line in headlines(scalars, 10)]
    assert labels[-2:] == ["linear probe, second set", "second set told apart"] and len(labels) == 7
    scalars = {name: value for name, value in scalars.items() if name not in _KNOWN} | {"probes/knn_error": 0.2}
    labels = [line.label for line in headlines(scalars, 10, asked=["dimension", "probes", "own"])]
    assert labels == ["nearest neighbours", *(f"dimension/{at}" for at in range(4)), "own/mean", "own/long name"]
