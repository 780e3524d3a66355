"""Batches: their order, augmentation and worker processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from numbered import Numbered, number_of
from torch import Tensor
from torchvision.transforms import functional as reference

from lightning_repshape.data import (
    ImageDataModule,
)
from lightning_repshape.errors import ConfigError
from lightning_repshape.seeding import generator


@pytest.mark.parametrize("augment", ["flip", "shift", "crop-flip"])
def test_augmented_batches_equal_torchvisions_for_the_same_draws(augment: Any) -> None:
    module = Numbered(augment=augment, crop_padding=3, batch_size=16, seed=5)
    loader = module.train_dataloader()
    loader.sampler.set_epoch(4)  # type: ignore[attr-defined]
    originals = module.images("train")
    places = set()
    for batch in loader:
        x, y = batch.to("cpu")
        assert x.is_contiguous(memory_format=torch.channels_last)
        draws = batch.augmentation.draws  # type: ignore[union-attr]
        for row, sample in enumerate(batch.indices.tolist()):
            image = originals[sample].permute(2, 0, 1)
            if draws.offsets is not None:
                top, left = draws.offsets[sample].tolist()
                places.add((top, left))
                image = reference.crop(reference.pad(image, [3]), top, left, 8, 8)
            if draws.flips is not None and draws.flips[sample]:
                image = reference.hflip(image)
            expected = reference.normalize(image / 255, list(module.mean), list(module.std))
            torch.testing.assert_close(x[row], expected, rtol=0, atol=1e-6)
            assert y[row] == module.labels("train")[sample]
    assert len(places) > 20 or augment == "flip"


def epoch_by_sample(module: ImageDataModule, epoch: int, **options: Any) -> Tensor:
    """The images of an epoch in the order of the samples, whatever the order of the batches."""
    loader = module._loader("train", module.batch_size, augment=True, shuffle=True, **options)
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    found = [(batch.indices, batch.to("cpu")[0]) for batch in loader]
    order = torch.cat([indices for indices, _ in found]).argsort()
    return torch.cat([x for _, x in found])[order]


def test_augmentation_depends_on_seed_epoch_and_sample_alone(tmp_path: Path) -> None:
    module = Numbered(augment="crop-flip", seed=1, batch_size=16)
    images = epoch_by_sample(module, 3)
    assert torch.equal(epoch_by_sample(module, 3), images)
    assert torch.equal(epoch_by_sample(Numbered(augment="crop-flip", seed=1, batch_size=7), 3), images)
    assert not torch.equal(epoch_by_sample(module, 4), images)
    assert not torch.equal(epoch_by_sample(Numbered(augment="crop-flip", seed=2), 3), images)
    in_turns = Numbered(augment="flip", seed=1, alternate_flips=True)
    first, second, third = (epoch_by_sample(in_turns, epoch) for epoch in range(3))
    assert torch.equal(second, first.flip(3)) and torch.equal(third, first)
    # Images too large for the memory are cropped after the transfer, with the same result.
    mapped = Numbered(root=str(tmp_path), augment="crop-flip", seed=1, memory_budget_gb=0)
    assert torch.equal(epoch_by_sample(mapped, 3), images)
    tight = Numbered(augment="crop-flip", seed=1, memory_budget_gb=60 * 8 * 8 * 3 / 1e9)
    assert torch.equal(epoch_by_sample(tight, 3), images)
    assert tight._splits["train"].store.plain and mapped._splits["train"].mapped is not None


def test_worker_processes_yield_the_same_batches_in_every_epoch() -> None:
    module = Numbered(augment="crop-flip", seed=1, batch_size=16)
    loader = Numbered(augment="crop-flip", seed=1, batch_size=16, num_workers=2).train_dataloader()
    for epoch in (2, 3):  # the workers live on, and must not keep the first epoch's draws
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        expected = list(module.batches("train", epoch=epoch))
        found = [batch.to("cpu") for batch in loader]
        assert len(found) == len(expected) == 4
        for (x, y), (other_x, other_y) in zip(found, expected, strict=True):
            assert torch.equal(x, other_x) and torch.equal(y, other_y)


def test_the_runs_seed_is_read_when_loaders_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Numbered()
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    assert torch.equal(next(module.batches())[0], next(Numbered(seed=11).batches())[0])
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    assert not torch.equal(next(module.batches())[0], next(Numbered(seed=11).batches())[0])


def test_evaluation_is_in_order_and_never_augmented() -> None:
    module = Numbered(augment="crop-flip", val_size=10, eval_batch_size=7)
    for split, count in (("train", 50), ("val", 10), ("test", 13)):
        batches = [batch.to("cpu") for batch in module.analysis_dataloader(split)]  # type: ignore[arg-type]
        numbers = torch.cat([number_of(x, module) for x, _ in batches])
        assert numbers.tolist() == (list(range(50, 60)) if split == "val" else list(range(count)))
        assert [len(y) for _, y in batches][:-1] == [7] * (len(batches) - 1)
    assert [batch.augmentation for batch in module.test_dataloader()] == [None, None]
    assert len(list(module.batches("test", augment=True))) == 2


def test_iterating_takes_no_number_of_the_global_generator() -> None:
    module = Numbered(augment="crop-flip", val_size=10)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for split in ("train", "val", "test"):
        list(module.batches(split))  # type: ignore[arg-type]
    module.draw_class_balanced(2, generator("draw"))
    assert torch.equal(torch.get_rng_state(), before)


def test_more_ranks_than_samples_and_whole_batches() -> None:
    with pytest.raises(ConfigError, match="batch_size=61 with drop_last leaves no training batch of 60"):
        Numbered(batch_size=61, drop_last=True).train_dataloader()
    assert [len(y) for _, y in Numbered(batch_size=25).batches()] == [25, 25, 10]
    assert [len(b.labels) for b in Numbered(batch_size=25, drop_last=True).train_dataloader()] == [25, 25]
