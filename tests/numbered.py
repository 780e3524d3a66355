"""A data set whose images show their own position."""

from typing import Any

import torch
from torch import Tensor

from lightning_repshape.data import (
    ImageDataModule,
    ImageSet,
    SplitData,
)


class Numbered(ImageDataModule):
    """60 training and 13 test images that show their own position, in three classes of unequal size."""

    def describe(self) -> ImageSet:
        return ImageSet("numbered", ("a", "b", "c"), (3, 8, 8), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), largest=60)

    def load_split(self, split: Any) -> SplitData:
        count = 60 if split == "train" else 13
        images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 8, 8, 3)
        images[:, 0, 0] += 100  # a corner to tell directions by
        return SplitData(images, torch.tensor([0, 1, 1, 2, 2, 2] * 10)[:count])


def number_of(x: Tensor, module: ImageDataModule) -> Tensor:
    """The positions that a batch of Numbered shows."""
    mean, std = torch.tensor(module.mean).view(3, 1, 1), torch.tensor(module.std).view(3, 1, 1)
    return ((x * std + mean) * 255).round().long()[:, 0, 4, 4]
