"""Thresholds, curves and accuracies of scored pairs."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from lightning_repshape.functional import (
    area_under_curve,
    best_threshold,
    fold_verification,
    pair_cosines,
    roc_curve,
    tar_at_far,
)


def brute_force_threshold(scores: Sequence[float], same: Sequence[bool]) -> float:
    """Every cut, one by one: highest accuracy, then widest gap, then lowest."""
    values = sorted(set(scores))
    cuts = [(-math.inf, 0.0), *(((a + b) / 2, b - a) for a, b in itertools.pairwise(values)), (math.inf, 0.0)]

    def quality(cut: tuple[float, float]) -> tuple[int, float, float]:
        right = sum((score >= cut[0]) == label for score, label in zip(scores, same, strict=True))
        return right, cut[1], -cut[0]

    return max(cuts, key=quality)[0]


@pytest.mark.parametrize("seed", range(6))
def test_thresholds_are_those_of_a_search_over_all(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    same = torch.rand(40, generator=random) < 0.5
    scores = (torch.randn(40, generator=random, dtype=torch.float64) + same).mul(4).round().div(4)  # ties
    assert best_threshold(scores, same) == brute_force_threshold(scores.tolist(), same.tolist())


def test_thresholds_at_the_ends_and_between_neighbours() -> None:
    scores = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    assert best_threshold(scores, torch.tensor([True] * 3)) == -math.inf
    assert best_threshold(scores, torch.tensor([False] * 3)) == math.inf
    low = torch.tensor(0.5, dtype=torch.float64)
    high = torch.nextafter(low, torch.tensor(1.0, dtype=torch.float64))
    threshold = best_threshold(torch.stack([low, high]), torch.tensor([False, True]))
    assert low < threshold <= high


@pytest.mark.parametrize("ties", [False, True])
def test_curve_and_area_are_those_of_scikit_learn(ties: bool) -> None:
    from sklearn import metrics

    random = torch.Generator().manual_seed(0)
    same = torch.rand(500, generator=random) < 0.4
    scores = torch.randn(500, generator=random, dtype=torch.float64) + 1.5 * same
    scores = scores.mul(3).round() if ties else scores
    curve = roc_curve(scores, same)
    far, tar, thresholds = metrics.roc_curve(same.numpy(), scores.numpy(), drop_intermediate=False)
    np.testing.assert_allclose(curve.far.numpy(), far, atol=1e-15)
    np.testing.assert_allclose(curve.tar.numpy(), tar, atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds.numpy(), thresholds)
    assert area_under_curve(curve) == pytest.approx(metrics.roc_auc_score(same.numpy(), scores.numpy()), abs=1e-12)
    different = scores[~same]
    for allowed in (0.5, 0.1, 0.02, 1 / 291):
        # the laxest of all possible thresholds that lets no more than this share of different pairs in
        rates = [
            float((scores[same] >= t).double().mean())
            for t in scores
            if float((different >= t).double().mean()) <= allowed * (1 + 1e-12)
        ]
        assert tar_at_far(curve, allowed) == pytest.approx(max(rates, default=0.0), abs=1e-15)
    assert math.isnan(tar_at_far(curve, 1e-3, len(different)))
    assert not math.isnan(tar_at_far(curve, 1e-2, 100))


def test_accuracy_of_a_fold_uses_the_threshold_of_the_others() -> None:
    random = torch.Generator().manual_seed(1)
    same = torch.arange(200) % 2 == 0
    folds = torch.arange(200) // 20
    scores = torch.randn(200, generator=random, dtype=torch.float64) + 2 * same
    result = fold_verification(scores, same, folds)
    accuracies = []
    for fold in range(10):
        others = [i for i in range(200) if folds[i] != fold]
        threshold = brute_force_threshold([float(scores[i]) for i in others], [bool(same[i]) for i in others])
        assert float(result.thresholds[fold]) == threshold
        own = [i for i in range(200) if folds[i] == fold]
        accuracies.append(sum((float(scores[i]) >= threshold) == bool(same[i]) for i in own) / 20)
    np.testing.assert_allclose(result.fold_accuracies.numpy(), accuracies)
    assert result.accuracy == pytest.approx(np.mean(accuracies)) and result.std == pytest.approx(
        np.std(accuracies, ddof=1)
    )
    assert (result.same, result.different) == (100, 100)
    assert not math.isnan(result.tar[1e-2]) and math.isnan(result.tar[1e-3])
    # any increasing function of the scores leaves everything but the thresholds
    other = fold_verification(scores.exp(), same, folds)
    assert other.auc == result.auc and other.tar[1e-2] == result.tar[1e-2]


def test_bad_arguments_of_the_functions() -> None:
    same, folds = torch.tensor([True, False]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="NaN"):
        roc_curve(torch.tensor([0.0, math.nan]), same)
    with pytest.raises(ValueError, match="both kinds"):
        roc_curve(torch.tensor([0.0, 1.0]), torch.tensor([True, True]))
    with pytest.raises(ValueError, match="two folds"):
        fold_verification(torch.rand(2), same, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="floating"):
        best_threshold(torch.tensor([0, 1]), same)
    with pytest.raises(TypeError, match="booleans"):
        best_threshold(torch.rand(2), folds)
    with pytest.raises(ValueError, match="between 0 and 1"):
        tar_at_far(roc_curve(torch.rand(2), same), 1.0)
    assert pair_cosines(torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]])).tolist() == [
        1,
        0,
    ]
    for first, second in (((2, 3), (1, 3)), ((2, 3), (2, 4)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3))):
        with pytest.raises(ValueError, match="two P x D matrices"):
            pair_cosines(torch.zeros(first), torch.zeros(second))
