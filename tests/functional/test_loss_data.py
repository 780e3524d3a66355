"""Measures of loss against data: sums written out, and cases by hand."""

import math

import pytest
import torch

from lightning_repshape.functional.loss_data import loss_data_curve, loss_data_measures

LOSSES = {5: 1.2, 20: 0.4, 80: 0.05}


def _at(count: int) -> float:
    if count < 5:
        return math.log(3)
    before, after = (5, 20) if count <= 20 else (20, 80)
    share = math.log(count / before) / math.log(after / before)
    return (1 - share) * LOSSES[before] + share * LOSSES[after]


def test_the_curve_and_the_measures_are_their_sums() -> None:
    curve = loss_data_curve(LOSSES, 3)
    torch.testing.assert_close(curve, torch.tensor([_at(count) for count in range(81)]).double())
    found = loss_data_measures(LOSSES, 3, [0.3, 0.01])
    assert found.code_length == pytest.approx(sum(_at(count) for count in range(80)))
    assert found.surplus[0.3] == pytest.approx(sum(max(_at(count) - 0.3, 0) for count in range(1, 81)))
    assert found.samples[0.3] == next(count for count in range(1, 81) if _at(count) <= 0.3)
    assert found.samples[0.01] == found.surplus[0.01] == math.inf  # never reached
    assert found.surplus_so_far[0.01] == pytest.approx(sum(max(_at(count) - 0.01, 0) for count in range(1, 81)))


def test_one_size_and_perfect_features() -> None:
    found = loss_data_measures({1: 0.0}, 2, [0.1])
    assert found.samples[0.1] == 1 and found.surplus[0.1] == 0 and found.code_length == pytest.approx(math.log(2))
    easy = loss_data_measures({2: 3.0}, 2, [2.0, 0.69])  # worse than guessing is no help later on
    assert easy.samples[2.0] == 1 and easy.surplus[2.0] == math.inf


@pytest.mark.parametrize(
    ("losses", "classes", "epsilons", "words"),
    [
        ({}, 3, [0.1], "at least one size"),
        ({0: 1.0}, 3, [0.1], "a size"),
        ({3: math.nan}, 3, [0.1], "finite"),
        ({3: 1.0}, 1, [0.1], "num_classes"),
        ({3: 1.0}, 3, [0.0], "epsilons"),
    ],
)
def test_bad_arguments_are_refused(losses: dict[int, float], classes: int, epsilons: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loss_data_measures(losses, classes, epsilons)
