"""A second data set, made ready for a model that was trained on the first."""

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_repshape.data.module import ImageDataModule
from lightning_repshape.data.preprocessing import Preprocessing


class ReadAs:
    """Batches ``(x, y)`` of a set's images in order, brought to another set's size, channels and normalisation.

    Args:
        data: Whose images they are; nothing is augmented.
        split: "train", "val" or "test".
        preprocessing: Of the set that the model was trained on.

    Attributes:
        dataset: The positions of the images, for whoever asks how many there are.
    """

    def __init__(
        self, data: ImageDataModule, split: Literal["train", "val", "test"], preprocessing: Preprocessing
    ) -> None:
        self.data, self.split, self.preprocessing = data, split, preprocessing
        self.labels = data.labels(split)
        self.dataset = range(len(self.labels))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of ``eval_batch_size``; DataError if the images have other channels than the model takes."""
        name = f"an image of {type(self.data).__name__}"
        for rows in torch.split(torch.arange(len(self.labels)), self.data.eval_batch_size):
            images = self.data.images(self.split, rows).permute(0, 3, 1, 2)
            yield self.preprocessing.inputs(images, name), self.labels[rows]


class SecondSet:
    """A second data module's batches, of each split one loader, in order and without augmentation.

    Sets of this package are read as ``first`` is (size, channels, normalisation), where that is of this package, too.
    Any other data module's own loader is wrapped anew without shuffling, and its transforms stay.

    Args:
        data: The second data module.
        first: The data module of the set that the model was trained on, where there is one.
    """

    def __init__(self, data: LightningDataModule, first: Any = None) -> None:
        self.data, self.first = data, first
        self._loaders: dict[str, Any] = {}
        self._stages: set[str] = set()

    def loader(self, split: Literal["train", "val", "test"]) -> Any:
        """Batches of a split; None: there is no such split. DataError: the set is missing."""
        if split not in self._loaders:
            own = isinstance(self.data, ImageDataModule)
            self._loaders[split] = self._of_images(split) if own else self._of_another(split)
        return self._loaders[split]

    def _of_images(self, split: Literal["train", "val", "test"]) -> Any:
        data = cast(ImageDataModule, self.data)
        if split == "val" and not data.has_split("val") and not data.val_size:
            return None
        if isinstance(self.first, ImageDataModule):
            return ReadAs(data, split, self.first.preprocessing())
        return data.analysis_dataloader(split, shard=False)

    def _of_another(self, split: str) -> Any:
        name, stage = f"{split}_dataloader", "test" if split == "test" else "fit"
        if getattr(type(self.data), name) is getattr(LightningDataModule, name):
            return None
        if not self._stages:
            self.data.prepare_data()
        if stage not in self._stages:  # a second setup could split the data anew
            self.data.setup(stage)
            self._stages.add(stage)
        loader = getattr(self.data, name)()
        loader = (loader[0] if loader else None) if isinstance(loader, list | tuple) else loader
        if not isinstance(loader, DataLoader):
            return loader
        return DataLoader(
            loader.dataset,
            batch_size=loader.batch_size or 256,
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
        )
