"""Any folder of images in class folders, as a data set or as a further test set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from lightning_repshape.data import files
from lightning_repshape.data.files import ImageFiles
from lightning_repshape.data.further import GeneralizationSet, TestImages, match_classes
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.errors import ConfigError, DataError, did_you_mean

_MEAN, _STD = {3: (0.485, 0.456, 0.406), 1: (0.449,)}, {3: (0.229, 0.224, 0.225), 1: (0.226,)}


class ImageFolderDataModule(ImageDataModule):
    """A folder of images of any sizes, one folder a class, resized once to one size.

    ``root`` holds ``train/<class>/...``, ``test/<class>/...`` and, where there is one, ``val/<class>/...``; the classes
    are the folders of ``train``, sorted by name. Images lie anywhere below their class's folder (PNG, JPEG, BMP, GIF,
    PNM, TIFF, WebP); files that are no images are left out with a warning.

    Args:
        root: Folder that holds ``train`` and ``test``. Default: "data".
        image_size: Rows and columns of the images, or one number for both. Default: 64.
        channels: 3 for RGB, 1 for grey. Default: 3.
        fit: How an image of another size is brought to this one: "stretch", or "crop", which keeps its proportions and
            cuts out the centre. Default: "stretch".
        mean: Mean of each channel, of pixels in [0, 1]. Default: None, ImageNet's (grey: 0.449).
        std: Standard deviation of each channel. Default: None, ImageNet's (grey: 0.226).
        predict_dir: Folder of images without classes, which ``predict`` takes. Default: None, the test images.
        batch_size: Training images a batch (of each rank). Default: 128.
        eval_batch_size: Validation, test and prediction images a batch. Default: 1000.
        val_size: Images (int) or share (float below 1) of ``train`` that become the validation part; 0: none. Default:
            None, the images of ``val``, or a tenth of ``train`` where there is no ``val``.
        val_split: Which these are: the "last" ones, or a "stratified" draw by ``split_seed``. Default: None,
            "stratified".
        train_size: Use only this many training images, of every class with ``per-class``. Default: None, all.
        train_subset: Which these are: the "first" ones (in the order of the classes), or "per-class", which draws
            ``train_size`` images of every class. Default: "per-class".
        classes: Use only the first n classes, or those named, in this order. Default: None, all.
        renumber: Whether the labels of the chosen ``classes`` are counted from 0. Default: True.
        augment: "none", "flip", "shift" or "crop-flip", as in :class:`ImageDataModule`. Default: "none".
        crop_padding: Pixels by which "shift" and "crop-flip" move an image at most. Default: 4.
        normalize: "standard" or "unit". Default: "standard".
        drop_last: Whether to leave out the last training batch where it is smaller. Default: False.
        num_workers: Worker processes that fetch the images. Default: 0.
        seed: Seed of shuffling and augmentation. Default: None, the run's seed.
        split_seed: Seed of the validation draw and of ``train_subset="per-class"``. Default: 0.
        memory_budget_gb: Memory of a split above which its images stay in a memory-mapped file. Default: 4.0.
        cache_dir: Folder where the decoded images are kept for the next run. Default: None, ".repshape-cache" in
            ``root``, and only where the memory budget demands it.

    Raises:
        ConfigError: An option or a class that cannot be.
        DataError: There is no ``train`` folder, or no class in it.
    """

    def __init__(
        self,
        root: str = "data",
        image_size: int | tuple[int, int] = 64,
        channels: Literal[1, 3] = 3,
        fit: Literal["stretch", "crop"] = "stretch",
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        predict_dir: str | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int | float | None = None,
        val_split: Literal["last", "stratified"] | None = None,
        train_size: int | None = None,
        train_subset: Literal["first", "per-class"] = "per-class",
        classes: int | list[str | int] | None = None,
        renumber: bool = True,
        augment: Literal["none", "flip", "shift", "crop-flip"] = "none",
        crop_padding: int = 4,
        normalize: Literal["standard", "unit"] = "standard",
        drop_last: bool = False,
        num_workers: int = 0,
        seed: int | None = None,
        split_seed: int = 0,
        memory_budget_gb: float = 4.0,
        cache_dir: str | None = None,
    ) -> None:
        where = type(self).__name__
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(height, width) < 1:
            raise ConfigError(f"{where}: image_size={image_size}, but it must be at least 1")
        if channels not in (1, 3):
            raise ConfigError(f"{where}: channels={channels}, but it must be 1 (grey) or 3 (colour)")
        if fit not in ("stretch", "crop"):
            raise ConfigError(f"{where}: fit={fit!r}{did_you_mean(str(fit), ('stretch', 'crop'))}")
        self._shape = (channels, height, width)
        self._fit: Literal["stretch", "crop"] = fit
        self._mean_std = (tuple(mean or _MEAN[channels]), tuple(std or _STD[channels]))
        for option, values in zip(("mean", "std"), self._mean_std, strict=True):
            if len(values) != channels:
                raise ConfigError(f"{where}: {option}={values} has {len(values)} values for {channels} channel(s)")
        if min(self._mean_std[1]) <= 0:
            raise ConfigError(f"{where}: std={self._mean_std[1]}, but every value must be positive")
        self.predict_dir = None if predict_dir is None else Path(predict_dir).expanduser()
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
            drop_last=drop_last,
            num_workers=num_workers,
            seed=seed,
            split_seed=split_seed,
            memory_budget_gb=memory_budget_gb,
            cache_dir=cache_dir,
        )
        self._own_val = (self.root / "val").is_dir() and val_size is None
        if (self.root / "val").is_dir() and val_size:
            raise ConfigError(
                f"{where}: val_size={val_size}, but {self.root / 'val'} holds validation images; leave val_size "
                "out to use them, "
                "set it to 0 for none, or move the folder"
            )

    def _describe(self) -> ImageSet:
        folder = self.root / "train"
        if not folder.is_dir():
            raise DataError(
                f"no folder {folder}; set root to the folder that holds train/<class>/<image> and test/<class>/<image>"
            )
        names = tuple(files.class_folders(folder))
        if not names:
            raise DataError(f"{folder} has no class folders; images belong into train/<class>/")
        mean, std = self._mean_std
        return ImageSet(
            self.root.resolve().name or "images", names, self._shape, mean, std, val_size=0.1, val_split="stratified"
        )

    def _has(self, split: SplitName) -> bool:
        if split == "val":
            return self._own_val
        if split == "predict":
            return self.predict_dir is not None
        return (self.root / split).is_dir()

    def _load(self, split: SplitName) -> SplitData:
        paths: list[str] = []
        labels: list[int] = []
        if split == "predict" and self.predict_dir is not None:
            paths = files.list_images([self.predict_dir])[0]
            if not paths:
                raise DataError(f"no images in {self.predict_dir}; set predict_dir to a folder of images")
            labels = [-1] * len(paths)
        else:
            folder = self.root / split
            if not folder.is_dir():
                raise DataError(f"no folder {folder}; put the {split} images into {split}/<class>/")
            names = self._set.class_names
            found = files.class_folders(folder)
            for name in found:
                if name not in names:
                    raise DataError(
                        f"{folder / name} is a class that {self.root / 'train'} "
                        f"lacks{did_you_mean(name, names)}; rename "
                        "or remove it"
                    )
            for name, images in zip(found, files.list_images([folder / name for name in found]), strict=True):
                if not images:
                    raise DataError(f"no images in the class folder {folder / name}; fill or remove it")
                paths += images
                labels += [names.index(name)] * len(images)
        channels, height, width = self._shape
        return SplitData(ImageFiles(tuple(paths), height, width, channels, self._fit), torch.tensor(labels), paths)


class ImageFolderSet(GeneralizationSet):
    """Any folder of images as a further test set: one folder a class, named as the model's classes.

    Images lie anywhere below their class's folder, of any size and format that :class:`ImageFolderDataModule` reads;
    they are brought to the model's size and channels.

    Args:
        root: Folder that holds the class folders.
        fit: How an image of another size is brought to the model's: "stretch", or "crop", which keeps its proportions
            and cuts out the centre. Default: "stretch".
        name: Name in keys and tables. Default: None, the folder's.

    Raises:
        ConfigError: There is no such way to fit, or the name cannot be used.
    """

    def __init__(self, root: str, fit: Literal["stretch", "crop"] = "stretch", name: str | None = None) -> None:
        self.root = Path(root).expanduser()
        super().__init__(self.root.resolve().name if name is None else name)
        if fit not in ("stretch", "crop"):
            raise ConfigError(f"ImageFolderSet: fit={fit!r}{did_you_mean(str(fit), ('stretch', 'crop'))}")
        self._fit: Literal["stretch", "crop"] = fit

    def open(self, class_names: Sequence[str], input_shape: tuple[int, int, int]) -> TestImages:
        """Lists and decodes the images, see :meth:`GeneralizationSet.open`.

        Args:
            class_names: The model's classes.
            input_shape: C, H, W of what the model takes.

        Returns:
            Images and labels.

        Raises:
            DataError: There is no such folder, its class folders are not the model's classes, one is empty, or an
                image is damaged.
        """
        if not self.root.is_dir():
            raise DataError(f"no folder {self.root}; set root to the folder that holds <class>/<image>")
        channels, height, width = input_shape
        if channels not in (1, 3):
            raise DataError(f"{self.root}: images have 1 or 3 channels, but the model takes {channels}")
        found = files.class_folders(self.root)
        table = match_classes(f"the folder {self.root}", found, class_names).tolist()
        paths: list[str] = []
        labels: list[int] = []
        for label, name, images in zip(
            table, found, files.list_images([self.root / name for name in found]), strict=True
        ):
            if not images:
                raise DataError(f"no images in the class folder {self.root / name}; fill or remove it")
            paths += images
            labels += [label] * len(images)
        decoded = ImageFiles(tuple(paths), height, width, channels, self._fit).decode()
        return TestImages(torch.tensor(labels), decoded)
