"""STL-10, the labelled part, in its binary files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_repshape.data import download
from lightning_repshape.data.files import read_lines, whole_number
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.errors import ConfigError, DataError

STL10 = ImageSet(
    name="STL-10",
    class_names=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    input_shape=(3, 96, 96),
    mean=(0.4467, 0.4398, 0.4066),
    std=(0.2603, 0.2566, 0.2713),
    val_size=0.1,
    val_split="stratified",
    largest=8_000,
)
_FOLDS = 10


class STL10DataModule(ImageDataModule):
    """STL-10's labelled part: 5,000 training and 8,000 test images of ten kinds of things, colour 96 x 96.

    ``root`` holds ``stl10_binary/``, or is that folder. Every file's MD5 sum is checked against the published one. By
    default a tenth of the training images, stratified, is the validation part.

    Args:
        root: Folder that holds the unpacked set.
        fold: Train on one of the ten published folds of 1,000 images each, 0..9. None: all 5,000.
        crop_padding: Pixels by which "shift" and "crop-flip" move an image at most.
        **kwargs: Every other option of :class:`ImageDataModule`.
    """

    def __init__(self, root: str = "data", fold: int | None = None, *, crop_padding: int = 12, **kwargs: Any) -> None:
        if fold is not None and not 0 <= fold < _FOLDS:
            raise ConfigError(f"{type(self).__name__}: fold={fold}, but STL-10 has the folds 0 to {_FOLDS - 1}")
        self.fold = fold
        super().__init__(root, crop_padding=crop_padding, **kwargs)

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        return STL10

    def _published(self) -> Any:
        import torchvision.datasets

        return torchvision.datasets.STL10

    def load_split(self, split: SplitName) -> SplitData:
        """Reads a split as published."""
        published = self._published()
        parts = dict(published.train_list[:2] if split == "train" else published.test_list)
        image_file, label_file = parts
        folder = download.find_folder(
            self.root, (published.base_folder, ""), image_file, self.described.name, type(self).__name__
        )
        for name, md5 in parts.items():
            download.check_sum(folder / name, md5)
        pixels = torch.from_numpy(np.fromfile(folder / image_file, dtype=np.uint8))
        labels = torch.from_numpy(np.fromfile(folder / label_file, dtype=np.uint8)).long() - 1
        if len(pixels) != len(labels) * 3 * 96 * 96:
            raise DataError(
                f"{folder / image_file} has {len(pixels):,} bytes, which does not fit {len(labels):,} labels"
            )
        if not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < 10:
            raise DataError(f"{folder / label_file} has labels that are not 1 to 10; remove it and get it again")
        images = pixels.view(-1, 3, 96, 96).permute(0, 3, 2, 1)  # the files have columns first
        if split != "train" or self.fold is None:
            return SplitData(images.contiguous(), labels)
        rows = self._fold_rows(folder / published.folds_list_file, len(labels))
        return SplitData(images[rows].contiguous(), labels[rows], [f"train/{row:05d}" for row in rows.tolist()])

    def _fold_rows(self, path: Path, count: int) -> Tensor:
        lines = read_lines(path, "get the file again")
        words = lines[self.fold or 0][1].split() if len(lines) == _FOLDS else []
        numbers = [number for number in map(whole_number, words) if number is not None]
        if not words or len(numbers) < len(words):
            raise DataError(
                f"cannot read fold {self.fold} of {path}: it has other than {_FOLDS} lines of numbers; get it again"
            )
        rows = torch.tensor(numbers)
        if not len(rows) or int(rows.min()) < 0 or int(rows.max()) >= count:
            raise DataError(
                f"fold {self.fold} of {path} names images that are not there ({count:,} are); get the file again"
            )
        return rows

    def download_files(self) -> None:
        """Fetches what is missing."""
        published = self._published()
        names = [name for name, _ in published.train_list[:2] + published.test_list] + [published.folds_list_file]
        download.install_archive(self.root, published, names, self.described.name)
