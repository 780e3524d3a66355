"""STL-10, the labelled part, in its binary files."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_repshape.data import download
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
        root: Folder that holds the unpacked set. Default: "data".
        fold: Train on one of the ten published folds of 1,000 images each, 0..9. Default: None, all 5,000.
        batch_size: Training images a batch (of each rank). Default: 128.
        eval_batch_size: Validation, test and prediction images a batch. Default: 1000.
        val_size: Images (int) or share (float below 1) of the training part (of the fold) that become the validation
            part; 0: none. Default: None, 0.1.
        val_split: Which these are: the "last" ones, or a "stratified" draw by ``split_seed``. Default: None,
            "stratified".
        train_size: Use only this many training images. Default: None, all.
        train_subset: Which these are: the "first" ones, or "per-class", which draws ``train_size`` images of every
            class. Default: "first".
        classes: Use only the first n classes, or those named, in this order. Default: None, all.
        renumber: Whether the labels of the chosen ``classes`` are counted from 0. Default: True.
        augment: "none", "flip", "shift" or "crop-flip", as in :class:`ImageDataModule`. Default: "none".
        crop_padding: Pixels by which "shift" and "crop-flip" move an image at most. Default: 12.
        normalize: "standard" or "unit". Default: "standard".
        download: Whether to download what is missing (2.6 GB). Default: False.
        drop_last: Whether to leave out the last training batch where it is smaller. Default: False.
        num_workers: Worker processes that fetch the images. Default: 0.
        seed: Seed of shuffling and augmentation. Default: None, the run's seed.
        split_seed: Seed of the validation draw and of ``train_subset="per-class"``. Default: 0.
        memory_budget_gb: Memory of a split above which its images stay in a memory-mapped file. Default: 4.0.
        cache_dir: Folder of that file. Default: None, ".repshape-cache" in ``root``.

    Raises:
        ConfigError: An option or a class that cannot be.
    """

    def __init__(
        self,
        root: str = "data",
        fold: int | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int | float | None = None,
        val_split: Literal["last", "stratified"] | None = None,
        train_size: int | None = None,
        train_subset: Literal["first", "per-class"] = "first",
        classes: int | list[str | int] | None = None,
        renumber: bool = True,
        augment: Literal["none", "flip", "shift", "crop-flip"] = "none",
        crop_padding: int = 12,
        normalize: Literal["standard", "unit"] = "standard",
        download: bool = False,
        drop_last: bool = False,
        num_workers: int = 0,
        seed: int | None = None,
        split_seed: int = 0,
        memory_budget_gb: float = 4.0,
        cache_dir: str | None = None,
    ) -> None:
        if fold is not None and not 0 <= fold < _FOLDS:
            raise ConfigError(f"{type(self).__name__}: fold={fold}, but STL-10 has the folds 0 to {_FOLDS - 1}")
        self.fold = fold
        super().__init__(
            root=root,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            val_split=val_split,
            train_size=train_size,
            train_subset=train_subset,
            classes=classes,
            renumber=renumber,
            augment=augment,
            crop_padding=crop_padding,
            normalize=normalize,
            download=download,
            drop_last=drop_last,
            num_workers=num_workers,
            seed=seed,
            split_seed=split_seed,
            memory_budget_gb=memory_budget_gb,
            cache_dir=cache_dir,
        )

    def _describe(self) -> ImageSet:
        return STL10

    def _published(self) -> Any:
        import torchvision.datasets

        return torchvision.datasets.STL10

    def _load(self, split: SplitName) -> SplitData:
        published = self._published()
        parts = dict(published.train_list[:2] if split == "train" else published.test_list)
        image_file, label_file = parts
        folder = download.find_folder(
            self.root, (published.base_folder, ""), image_file, self._set.name, type(self).__name__
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
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            rows = torch.tensor([int(word) for word in lines[self.fold or 0].split()])
        except (OSError, ValueError, IndexError) as error:
            raise DataError(f"cannot read fold {self.fold} of {path}: {error}; get the file again") from error
        if not len(rows) or int(rows.min()) < 0 or int(rows.max()) >= count:
            raise DataError(
                f"fold {self.fold} of {path} names images that are not there ({count:,} are); get the file again"
            )
        return rows

    def _download(self) -> None:
        published = self._published()
        names = [name for name, _ in published.train_list[:2] + published.test_list] + [published.folds_list_file]
        for place in (self.root / published.base_folder, self.root):
            if all((place / name).is_file() for name in names):
                return
        with download.staging(self.root, self._set.name) as folder:
            archive = download.fetch([published.url], folder / published.filename, published.tgz_md5, self._set.name)
            download.unpack(archive, folder)
            download.install(folder / published.base_folder, self.root / published.base_folder)
