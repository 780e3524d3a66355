"""The metrics of pairs, on one process and on two."""

import pytest
import torch
from ddp_pool import GlooPool
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape.functional import (
    fold_verification,
)
from lightning_repshape.metrics import PairFeatures, VerificationMetric


def some_pairs() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    same = torch.arange(60) % 2 == 0
    return torch.randn(60, generator=random, dtype=torch.float64) + same, same, torch.arange(60) // 6


def _share_of_the_pairs(rank: int, world_size: int, empty_rank: bool) -> tuple[float, Tensor, float]:
    scores, same, folds = some_pairs()
    # Uneven shares, and pairs 0 and 1 twice, as samplers that pad repeat them; or a rank without any pair.
    rows = [*range(40), 0, 1] if rank == 0 else list(range(40, 60))
    if empty_rank:
        rows = list(range(60)) if rank == 0 else []
    metric = VerificationMetric()
    for start in range(0, len(rows), 16):
        index = torch.tensor(rows[start : start + 16])
        metric.update(scores[index], same[index], folds[index], index)
    result = metric.compute()
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(3))
    pairs = PairFeatures(6, 4)
    index = torch.arange(rank, 20, 2)
    pairs.update(features[index], index % 6)
    cosines, complete = pairs.scores(torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]))
    return result.accuracy, cosines, result.auc + len(complete)


@pytest.mark.parametrize("empty_rank", [False, True])
def test_two_processes_give_the_figures_of_one(gloo: GlooPool, empty_rank: bool) -> None:
    scores, same, folds = some_pairs()
    expected = fold_verification(scores, same, folds)
    features = F.normalize(torch.randn(20, 4, generator=torch.Generator().manual_seed(3)).double(), dim=1)
    means = torch.stack([features[item::6].mean(0) for item in range(6)])
    for accuracy, cosines, auc in gloo.run(_share_of_the_pairs, empty_rank):
        assert accuracy == expected.accuracy and auc == expected.auc + 3
        torch.testing.assert_close(cosines, F.cosine_similarity(means[:3], means[3:]), rtol=0, atol=1e-12)


def test_the_metric_counts_pairs_without_numbers_as_they_come() -> None:
    scores, same, folds = some_pairs()
    metric = VerificationMetric(fars=(0.1,)).half()
    metric.update(scores, same, folds)
    assert metric.compute().accuracy == fold_verification(scores, same, folds).accuracy
    assert list(metric.compute().tar) == [0.1]
    metric.reset()
    with pytest.raises(ValueError, match="at least one"):
        metric.compute()
    with pytest.raises(ValueError, match="one length"):
        metric.update(scores, same[1:], folds)
