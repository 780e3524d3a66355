"""One pass a split for all, on one process and on two."""

from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_data import QUIET, Foreign, clusters, digits, module
from ddp_pool import GlooPool
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_repshape.callbacks import (
    LDAEigenvalues,
    NeuralCollapse,
    WeightSeparability,
)
from lightning_repshape.errors import DataError
from lightning_repshape.features.passes import Features, extract_features
from lightning_repshape.features.store import FeatureStore, analysis_loader, gather_features


def gathered_on_ranks(rank: int, world_size: int) -> tuple[Tensor, Tensor, Tensor | None, int]:
    from unittest.mock import patch

    part = clusters(count=61)
    own = Features(*(values[rank::world_size] for values in part if values is not None))
    sent: list[int] = []
    gather = torch.distributed.all_gather_object

    def measured(into: list[Any], given: Any) -> None:
        sent.append(max((len(value) for value in given if isinstance(value, Tensor)), default=0))
        gather(into, given)

    class Ranks:  # all that gathering asks a trainer for
        pass

    trainer: Any = Ranks()
    trainer.world_size = world_size
    with (
        patch.object(torch.distributed, "all_gather_object", measured),
        patch("lightning_repshape.features.store._ROWS", 7),
    ):
        whole = gather_features(own, trainer)
    return whole.features, whole.labels, whole.logits, max(sent)


def test_two_ranks_see_what_one_sees(gloo: GlooPool) -> None:
    whole = clusters(count=61)
    for features, labels, logits, most in gloo.run(gathered_on_ranks, world_size=2):
        assert torch.equal(features, whole.features) and torch.equal(labels, whole.labels)
        assert torch.equal(logits, whole.logits)
        assert most == 7  # no process sends its whole share at once


def test_large_arrays_are_mapped_to_memory() -> None:
    from lightning_repshape.features.passes import room_for

    for dtype in (torch.float32, torch.int64):
        small, large = room_for((50, 3), dtype), room_for((50, 3), dtype, spill_gb=1e-9)
        values = torch.arange(150).reshape(50, 3).to(dtype)
        for room in (small, large):
            assert room.shape == (50, 3) and room.dtype == dtype
            room[:] = values
            assert torch.equal(room, values)


def test_one_pass_a_split_serves_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Features:
        passes.append(1)
        return extract_features(*args, **kwargs)

    monkeypatch.setattr("lightning_repshape.features.store.extract_features", counted)
    data = digits()
    trainer = Trainer(
        default_root_dir=tmp_path, callbacks=[LDAEigenvalues(), NeuralCollapse(), WeightSeparability()], **QUIET
    )
    trainer.test(module(data), data, verbose=False)
    assert len(passes) == 2  # train and test
    assert sum(isinstance(callback, FeatureStore) for callback in trainer.callbacks) == 1


def test_a_missing_set_is_a_data_error() -> None:
    trainer = Trainer(**QUIET)
    trainer.strategy.connect(Foreign())
    with pytest.raises(DataError, match="there is no val set"):
        analysis_loader(trainer, "val")
