"""The order of samples over epochs and ranks."""

import pytest
import torch
from torch.utils.data import DistributedSampler

from lightning_repshape.data import KeyedSampler
from lightning_repshape.errors import DataError


def test_one_rank_sees_every_sample_once_in_an_order_of_its_own_each_epoch() -> None:
    sampler = KeyedSampler(range(100), seed=1)
    assert isinstance(sampler, DistributedSampler)  # or Lightning would replace it
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(100)) and len(sampler) == 100
        assert orders[-1] == list(sampler)
    assert orders[0] != orders[1] != orders[2]
    resumed = KeyedSampler(range(100), seed=1)
    resumed.set_epoch(2)
    assert list(resumed) == orders[2]
    assert list(KeyedSampler(range(100), seed=2)) != orders[0]


def test_the_global_generator_takes_no_part() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = list(KeyedSampler(range(50), seed=1))
    torch.manual_seed(99)
    assert list(KeyedSampler(range(50), seed=1)) == first
    torch.manual_seed(0)
    list(KeyedSampler(range(50), seed=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_training_ranks_have_equal_lengths_and_leave_nothing_out(ranks: int) -> None:
    parts = [KeyedSampler(range(100), ranks, rank, seed=4) for rank in range(ranks)]
    orders = [list(part) for part in parts]
    assert {len(order) for order in orders} == {-(-100 // ranks)} == {len(part) for part in parts}
    assert set().union(*map(set, orders)) == set(range(100))
    whole = list(KeyedSampler(range(100), seed=4))
    assert [sample for together in zip(*orders, strict=True) for sample in together][:100] == whole


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_evaluation_ranks_share_the_samples_without_repeating_one(ranks: int) -> None:
    parts = [KeyedSampler(range(100), ranks, rank, shuffle=False, pad=False) for rank in range(ranks)]
    orders = [list(part) for part in parts]
    assert [len(order) for order in orders] == [len(part) for part in parts]
    assert sorted(sample for order in orders for sample in order) == list(range(100))
    assert max(map(len, orders)) - min(map(len, orders)) <= 1


def test_more_ranks_than_samples_are_refused() -> None:
    KeyedSampler(range(3), 3, 2, pad=False)
    with pytest.raises(DataError, match=r"4 ranks share 3 samples.*use at most 3 devices"):
        KeyedSampler(range(3), 4, 0)
