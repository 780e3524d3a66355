"""The checks of arguments at their bounds: the last value that passes, and the first that does not."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_repshape.functional import checks

X, Y = torch.zeros(2, 3), torch.tensor([0, 2])

PASS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (checks.check_at_least, ("n", 2, 2)),
    (checks.check_not_negative, ("x", 0)),
    (checks.check_num_classes, (1,)),
    (checks.check_sizes, (1, 1)),
    (checks.check_columns, (X, 3, "they have")),
    (checks.check_features_and_vectors, (X, torch.zeros(5, 3))),
    (checks.check_activations, (X,)),
    (checks.check_scores, (torch.zeros(1), torch.tensor([True]))),
    (checks.check_shares, (torch.tensor([[0.5, 0.515]]),)),
    (checks.check_shares, (torch.tensor([[0.5, 0.485]]),)),
    (checks.check_label_range, (Y, 3)),
    (checks.check_label_range, (Y[:0], 3)),
    (checks.check_label_range, (torch.tensor([[0.0, 7.0]]), 2)),
    (checks.check_class_indices, (Y, 2, 3)),
]
FAIL: list[tuple[Callable[..., Any], tuple[Any, ...], type[Exception], str]] = [
    (checks.check_at_least, ("n", 1, 2), ValueError, "n must be at least 2, got 1"),
    (checks.check_at_least, ("n", True, 1), TypeError, "n must be an integer"),
    (checks.check_at_least, ("n", 2.0, 1), TypeError, "n must be an integer"),
    (checks.check_not_negative, ("x", -1e-9), ValueError, "x must be"),
    (checks.check_not_negative, ("x", math.inf), ValueError, "x must be"),
    (checks.check_not_negative, ("x", math.nan), ValueError, "x must be"),
    (checks.check_num_classes, (0,), ValueError, "num_classes must be at least 1"),
    (checks.check_sizes, (0, 1), ValueError, "not 0 and 1"),
    (checks.check_sizes, (1, 0), ValueError, "not 1 and 0"),
    (checks.check_columns, (X, 4, "they have"), ValueError, "3 columns, but they have 4"),
    (checks.check_columns, (X, 2, "they have"), ValueError, "3 columns, but they have 2"),
    (checks.check_features_and_vectors, (X, torch.zeros(5, 4)), ValueError, "are needed"),
    (checks.check_features_and_vectors, (X[0], torch.zeros(5, 3)), ValueError, "are needed"),
    (checks.check_features_and_vectors, (X, torch.zeros(3)), ValueError, "are needed"),
    (checks.check_activations, (X[0],), ValueError, "shape"),
    (checks.check_activations, (Y.view(1, 2),), TypeError, "floating point"),
    (checks.check_scores, (torch.zeros(0), torch.zeros(0, dtype=torch.bool)), ValueError, "at least one"),
    (checks.check_scores, (torch.zeros(1, 1), torch.tensor([[True]])), ValueError, "P scores"),
    (checks.check_scores, (torch.zeros(2), torch.tensor([True])), ValueError, "P scores"),
    (checks.check_scores, (torch.tensor([math.nan, 1]), torch.tensor([True, False])), ValueError, "1 of 2"),
    (checks.check_scores, (Y, torch.tensor([True, False])), TypeError, "scores must be"),
    (checks.check_scores, (torch.zeros(2), Y), TypeError, "same must be"),
    (checks.check_shares, (torch.tensor([[0.5, 0.5], [0.5, 0.53]]),), ValueError, "from 1 to 1.03"),
    (checks.check_shares, (torch.tensor([[0.5, 0.47]]),), ValueError, "0.97"),
    (checks.check_label_range, (Y, 2), ValueError, "got 2"),
    (checks.check_label_range, (Y - 1, 3), ValueError, "got -1"),
    (checks.check_label_range, (torch.tensor([[-0.1, 1.1]]), 2), ValueError, "not negative"),
    (checks.check_label_range, (torch.tensor([[math.inf, 0]]), 2), ValueError, "finite"),
    (checks.check_class_indices, (Y, 3, 3), ValueError, "each of 3 rows"),
    (checks.check_class_indices, (Y, 2, 2), ValueError, "0..1"),
    (checks.check_class_indices, (X[:, 0], 2, 3), TypeError, "integers"),
    (checks.check_integers, ("y", Y > 0), TypeError, "y must be integers"),
    (checks.check_floating, ("x", Y), TypeError, "x must be floating"),
]


@pytest.mark.parametrize("check, given", PASS)
def test_the_last_that_passes(check: Callable[..., Any], given: tuple[Any, ...]) -> None:
    assert check(*given) is None


@pytest.mark.parametrize("check, given, kind, message", FAIL)
def test_the_first_that_does_not(
    check: Callable[..., Any], given: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        check(*given)


def test_which_labels_are_memberships() -> None:
    assert checks.check_labels(torch.zeros(2, 3), 2, 3) is True
    assert checks.check_labels(Y, 2, 3) is False
    for labels in (torch.zeros(3, 2), torch.zeros(2), Y.view(2, 1), Y[:1]):
        with pytest.raises(ValueError, match="must have shape"):
            checks.check_labels(labels, 2, 3)
    with pytest.raises(TypeError, match="integers or soft"):
        checks.check_labels(Y > 0, 2, 3)
