"""Statistics by class against plain loops."""

import pytest
import torch
from torch.nn import functional as F

import lightning_repshape.functional as functional
from lightning_repshape.functional.checks import check_label_range, check_labels, check_num_classes
from lightning_repshape.functional.class_statistics import (
    class_counts,
    class_groups,
    class_moments,
    class_sums,
    memberships,
)

Y = torch.tensor([2, 0, 2, 2, 4, 0])  # classes 1 and 3 are absent
Z = torch.arange(18.0).view(6, 3).square()
SOFT = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.75, 0.0]])


def test_counts() -> None:
    assert class_counts(Y, 5).tolist() == [2, 0, 3, 0, 1]
    assert class_counts(SOFT, 3).tolist() == [1.75, 1.25, 0.0]
    assert class_counts(Y[:0], 3).tolist() == [0, 0, 0]


def test_memberships() -> None:
    assert torch.equal(memberships(Y, 5), F.one_hot(Y, 5).float())
    assert torch.equal(memberships(Y.to(torch.uint8), 5, torch.float64), F.one_hot(Y, 5).double())
    assert torch.equal(memberships(SOFT, 3), SOFT)


def test_sums() -> None:
    counts, sums = class_sums(Z, Y, 5)
    assert counts.tolist() == [2, 0, 3, 0, 1]
    for k in range(5):
        torch.testing.assert_close(sums[k], Z[Y == k].sum(0))
    counts, sums = class_sums(Z[:3], SOFT, 3)
    torch.testing.assert_close(counts, SOFT.sum(0))
    torch.testing.assert_close(sums, SOFT.T @ Z[:3])
    assert class_sums(Z[:0], SOFT[:0], 3)[1].shape == (3, 3)


def test_groups() -> None:
    groups = list(class_groups(Y, 5))
    assert [(k, index.tolist(), weights) for k, index, weights in groups] == [
        (0, [1, 5], None),
        (2, [0, 2, 3], None),
        (4, [4], None),
    ]
    soft = [(k, index.tolist(), None if w is None else w.tolist()) for k, index, w in class_groups(SOFT, 3)]
    assert soft == [(0, [0, 1, 2], [0.5, 1.0, 0.25]), (1, [0, 2], [0.5, 0.75])]


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moments(offset: float) -> None:
    rows = (Z + offset).view(6, 3, 1)
    counts, means, squares = class_moments(rows, Y, 5)
    assert means.dtype == squares.dtype == torch.float64
    for k in range(5):
        part = rows.double()[Y == k].flatten(1)
        assert counts[k] == len(part)
        torch.testing.assert_close(means[k], part.mean(0) if len(part) else torch.zeros(3).double())
        torch.testing.assert_close(
            squares[k], (len(part) * part.var(0, correction=0)).nan_to_num(0), rtol=1e-12, atol=1e-9
        )
    hard = class_moments(rows, F.one_hot(Y, 5).double(), 5)
    for found, expected in zip(hard, (counts, means, squares), strict=True):
        torch.testing.assert_close(found, expected)


def test_bad_labels() -> None:
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.3 for 4 classes, got 4"):
        check_label_range(Y, 4)
    with pytest.raises(ValueError, match="got -1"):
        check_label_range(torch.tensor([0, -1, 2]), 2)
    with pytest.raises(ValueError, match="not negative"):
        check_label_range(torch.tensor([[0.5, float("nan")]]), 2)
    for function in (memberships, class_counts):
        with pytest.raises(ValueError, match="labels must lie in"):
            function(Y, 4)
    with pytest.raises(ValueError, match="labels must lie in"):
        class_sums(Z, Y, 4)
    with pytest.raises(ValueError, match="labels must lie in"):
        class_moments(Z, Y, 4)
    with pytest.raises(ValueError, match="needs labels"):
        check_labels(None, 6, 5)
    with pytest.raises(TypeError, match="tensor"):
        check_labels([0, 1], 2, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="floating point"):
        check_labels(F.one_hot(Y, 5), 6, 5)
    for wrong in (2.0, "3", True):
        with pytest.raises(TypeError, match="num_classes"):
            check_num_classes(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        check_num_classes(0)
    with pytest.raises(ValueError, match="shape"):
        class_moments(torch.ones(3), Y[:3], 5)


def test_functions_are_loaded_when_used() -> None:
    assert {"vr", "cw_vr", "cr", "cw_cr", "l1r"} <= set(dir(functional))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        functional.nothing  # noqa: B018
