"""Batches: a split's images, fetched and augmented a whole batch at a time."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, get_worker_info

from lightning_repshape.data.images import (
    Draws,
    ImageStore,
    Normalizer,
    crop_and_flip,
    cut_out,
    draw_augmentation,
    draws_from,
)
from lightning_repshape.data.preprocessing import STATE_KEY, Preprocessing
from lightning_repshape.data.samplers import KeyedSampler
from lightning_repshape.errors import ConfigError

Augmentation = Literal["none", "flip", "shift", "crop-flip"]
SHIFTS = ("shift", "crop-flip")
FLIPS = ("flip", "crop-flip")


def most_processes() -> int:
    """The most processes that one is allowed to start: four a CPU core, above whose number PyTorch warns, or 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(16, 4 * cores)


class EpochDraws(NamedTuple):
    """The augmentation of a split's images in one epoch.

    Attributes:
        draws: Crops and mirrorings of all N images.
        first: int64 N, where these crops begin in the split's store; None where the store holds plain images, which are
            cropped after the transfer.
    """

    draws: Draws
    first: Tensor | None


class RawBatch(NamedTuple):
    """A batch as the loaders yield it: :meth:`to` makes ``(x, y)`` of it, and so do the data module's transfer hooks.

    Attributes:
        dataset: Where the images come from; None in a worker process.
        indices: int64 B, positions in the split.
        labels: int64 B.
        images: uint8 B x H x W x C not yet augmented, where a worker process has fetched them; None: they are fetched
            on transfer, together with their crops, in one gather.
        augmentation: That of the epoch; None: no augmentation.
        like: An empty tensor of the inputs' dtype. A trainer converts what floating-point tensors a batch has before
            it is moved, with a data module or with loaders alone; so it chooses the precision.
    """

    dataset: "SplitDataset | None"
    indices: Tensor
    labels: Tensor
    images: Tensor | None
    augmentation: EpochDraws | None
    like: Tensor = torch.zeros(0)

    def to(self, device: torch.device | str) -> tuple[Tensor, ...]:
        """Fetches, moves, augments and normalises: ``(x, y)``, or ``(x, y, index)`` for prediction."""
        return self.move(torch.device(device)).finish()

    def move(self, device: torch.device) -> "DeviceBatch":
        """Fetches the images that no worker process has fetched, and moves the batch, still uint8."""
        dataset, indices, labels, images, augmentation, like = self
        if dataset is None:
            raise TypeError("a batch of a worker process belongs to no data set; take it from an ImageLoader")
        draws: Draws | None = None
        if images is None and augmentation is not None and augmentation.first is not None and device.type == "cpu":
            images = dataset.split.store.gather(augmentation.first.index_select(0, indices))
            holes = augmentation.draws.holes
            draws = None if holes is None else Draws(None, None, holes.index_select(0, indices))
        else:
            if augmentation is not None:
                draws = augmentation.draws.select(indices)
            if images is None:
                images = dataset.split.images(indices)
        if device.type != "cpu":
            images, labels, indices = (part.to(device, non_blocking=True) for part in (images, labels, indices))
        return DeviceBatch(dataset, indices, labels, images, draws, like.dtype)


class DeviceBatch(NamedTuple):
    """A batch on its device, between the two transfer hooks.

    Attributes:
        dataset: Where the images come from.
        indices: int64 B, positions in the split.
        labels: int64 B.
        images: uint8 B x H x W x C.
        draws: Crops and mirrorings that are still to be done; None: none.
        dtype: Of the inputs.
    """

    dataset: "SplitDataset"
    indices: Tensor
    labels: Tensor
    images: Tensor
    draws: Draws | None
    dtype: torch.dtype

    def finish(self) -> tuple[Tensor, ...]:
        """Augments and normalises, on the batch's device: ``(x, y)``, or ``(x, y, index)`` for prediction."""
        dataset, indices, labels, images, draws, dtype = self
        if draws is not None:
            images = crop_and_flip(images, draws, dataset.padding)
        x = dataset.normalizer(images).to(dtype)
        if draws is not None and draws.holes is not None:
            x = cut_out(x, draws.holes, dataset.cutout)
        return (x, labels, indices) if dataset.with_index else (x, labels)


@dataclass
class Split:
    """The images that a split uses, in their order.

    Attributes:
        name: "train", "val", "test" or "predict".
        store: Where the images are.
        rows: int64 N, rows of the store, where it holds more than this split; else None.
        labels: int64 N.
        origin: int64 N, positions in the split as published.
        names: Names of the images, where they have some.
        mapped: Key of the memory-mapped file that the images are in; None: they are in memory.
    """

    name: str
    store: ImageStore
    rows: Tensor | None
    labels: Tensor
    origin: Tensor
    names: Sequence[str] | None
    mapped: str | None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def images(self, index: Tensor) -> Tensor:
        """Images by their positions, uint8 B x H x W x C, a copy."""
        rows = index if self.rows is None else self.rows.index_select(0, index)
        return self.store.gather(self.store.first_pixels(rows))

    def hash_of_images(self) -> str:
        """Hash of the images' bytes: 32 hexadecimal digits (BLAKE2b)."""
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, len(self), 4096):
            index = torch.arange(start, min(start + 4096, len(self)))
            digest.update(self.images(index).flatten().numpy().data)
        return digest.hexdigest()


class SplitDataset(Dataset[RawBatch]):
    """A split as a data set whose whole batches are fetched at once.

    Args:
        split: The images.
        normalizer: Makes inputs of them.
        seed: Seed of the augmentation.
        augment: What is done to the images.
        padding: Pixels of padding before the crop.
        cutout: Side of the square that is cut out; 0: none.
        with_index: Whether finished batches hold the index too.
        alternate_flips: Whether images are mirrored in every second epoch, instead of at random.
    """

    def __init__(
        self,
        split: Split,
        normalizer: Normalizer,
        seed: int = 0,
        augment: Augmentation = "none",
        padding: int = 0,
        cutout: int = 0,
        with_index: bool = False,
        alternate_flips: bool = False,
    ) -> None:
        self.split = split
        self.cutout = cutout
        self.normalizer = normalizer
        self.with_index = with_index
        self.padding = padding if augment in SHIFTS else 0
        self._seed = seed
        self._augment = augment
        self._alternate = alternate_flips
        store = split.store
        hole_in = (store.height, store.width) if cutout else None
        self._drawn = (self.padding, augment in FLIPS, hole_in)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.split)

    def __getitem__(self, index: int) -> RawBatch:
        """A batch of one image."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> RawBatch:
        """The batch of these positions in the split; its images are fetched here in worker processes only."""
        index = _as_tensor(indices)
        labels = self.split.labels.index_select(0, index)
        if get_worker_info() is None:
            return RawBatch(self, index, labels, None, None)
        return RawBatch(None, index, labels, self.split.images(index), None)

    def augmentation(self, epoch: int) -> EpochDraws | None:
        """The augmentation of all images in an epoch; None where there is none."""
        if self._augment == "none" and not self.cutout:
            return None
        draws = draw_augmentation(len(self), self._seed, epoch, *self._drawn, alternate=self._alternate)
        store = self.split.store
        return EpochDraws(draws, None if store.plain else store.first_pixels(torch.arange(len(self)), draws))

    def draws(self, source: torch.Generator, count: int) -> Draws:
        """What augmentation does to ``count`` images, from a CPU generator's next numbers."""
        return draws_from(source, count, *self._drawn)


def _as_tensor(indices: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.array(indices))  # several times faster than torch.tensor of a list


def unchanged(batch: Any) -> Any:
    """A collate function for samples that come as whole batches."""
    return batch


class ImageLoader(DataLoader[RawBatch]):
    """A DataLoader that adds the epoch's augmentation to its batches, in the main process.

    Nothing happens before the first batch is asked for: a trainer that resumes makes the iterator first and sets the
    sampler's epoch then, when worker processes would already have been sent the indices of epoch 0.
    """

    def __iter__(self) -> Iterator[RawBatch]:  # type: ignore[override]
        """The batches of the sampler's epoch."""
        dataset = self.dataset
        if not isinstance(dataset, SplitDataset) or self.batch_sampler is None:
            yield from super().__iter__()
            return
        augmentation = dataset.augmentation(getattr(self.sampler, "epoch", 0))
        if self.num_workers:
            for batch in super().__iter__():
                yield batch._replace(dataset=dataset, augmentation=augmentation)
            return
        # Without workers DataLoader's own iterator would do the same, and cost as much as the batch.
        sampler, size, labels = self.sampler, self.batch_size, dataset.split.labels
        if type(sampler) is KeyedSampler and type(self.batch_sampler) is BatchSampler and size is not None:
            order = sampler.order()
            order = order[: len(order) // size * size if self.drop_last else None]
            parts: Iterable[tuple[Tensor, Tensor]] = zip(
                torch.split(order, size), torch.split(labels.index_select(0, order), size), strict=True
            )
        else:
            parts = ((index, labels.index_select(0, index)) for index in map(_as_tensor, self.batch_sampler))
        for index, some in parts:
            yield RawBatch(dataset, index, some, None, augmentation)


class RawBatchDataModule(LightningDataModule):
    """A data module whose loaders yield :class:`RawBatch`: what moves them to a device."""

    def preprocessing(self) -> Preprocessing | None:
        """What the model's inputs are, for whoever has the checkpoint alone. Default: None, nothing is known."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints keep of the data: what the model's inputs are, as plain data."""
        inputs = self.preprocessing()
        return {} if inputs is None else {STATE_KEY: inputs.plain()}

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses the Trainer of the package pytorch_lightning, which would call no hook of this module."""
        if name == "trainer" and any(kind.__module__.startswith("pytorch_lightning.") for kind in type(value).__mro__):
            self.__iter__()
        super().__setattr__(name, value)

    def __iter__(self) -> NoReturn:
        """Refuses to be a loader, which the Trainer of the package pytorch_lightning takes it for by position."""
        raise ConfigError(
            f"{type(self).__name__} is a data module of lightning, no loader: use lightning.pytorch.Trainer, or hand "
            "its loaders to pytorch_lightning's: trainer.fit(model, data.train_dataloader(), data.val_dataloader())"
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves a batch of one of this module's loaders, still uint8; others are moved as they are."""
        if isinstance(batch, RawBatch):
            return batch.move(device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)
