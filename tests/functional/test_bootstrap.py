"""The paired bootstrap, held against one that draws samples."""

import numpy as np
import pytest
import torch

from lightning_repshape.functional import bootstrap_share, paired_bootstrap


def test_interval_is_that_of_drawn_samples() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(400) < 0.2, rng.random(400) < 0.15
    found = paired_bootstrap(
        torch.from_numpy(first), torch.from_numpy(second), draws=20_000, generator=torch.Generator().manual_seed(0)
    )
    change = second.astype(float) - first.astype(float)
    drawn = change[rng.integers(0, 400, (20_000, 400))].mean(axis=1)
    assert found.difference == pytest.approx(change.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.003)


def test_equal_answers_differ_by_nothing() -> None:
    same = torch.tensor([True, False, True])
    assert paired_bootstrap(same, same) == (0, 0, 0)
    assert paired_bootstrap(torch.zeros(3).bool(), torch.ones(3).bool()) == (1, 1, 1)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="booleans"):
        paired_bootstrap(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"3.*2"):
        paired_bootstrap(torch.zeros(3).bool(), torch.zeros(2).bool())
    for options, words in (({"level": 1.0}, "level"), ({"draws": 0}, "draws")):
        with pytest.raises(ValueError, match=words):
            paired_bootstrap(torch.zeros(3).bool(), torch.zeros(3).bool(), **options)


def test_a_share_has_the_interval_of_drawn_samples() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(300) < 0.1
    found = bootstrap_share(torch.from_numpy(wrong), 0.9, 20_000, torch.Generator().manual_seed(0))
    drawn = wrong[rng.integers(0, 300, (20_000, 300))].mean(axis=1)
    assert found.value == pytest.approx(wrong.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.05, 0.95])), abs=0.004)
