"""Any folder of images in class folders, as a data set or as a further test set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from lightning_repshape.data import files
from lightning_repshape.data.files import ImageFiles, both_sides, check_channels, check_fit
from lightning_repshape.data.further import GeneralizationSet, TestImages, match_classes
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.data.preprocessing import Preprocessing, find_images
from lightning_repshape.errors import ConfigError, DataError, did_you_mean

_MEAN, _STD = {3: (0.485, 0.456, 0.406), 1: (0.449,)}, {3: (0.229, 0.224, 0.225), 1: (0.226,)}


class ImageFolderDataModule(ImageDataModule):
    """A folder of images of any sizes, one folder a class, resized once to one size.

    ``root`` holds ``train/<class>/...``, ``test/<class>/...`` and, where there is one, ``val/<class>/...``; the classes
    are the folders of ``train``, sorted by name. Images lie anywhere below their class's folder (PNG, JPEG, BMP, GIF,
    PNM, TIFF, WebP); files that are no images are left out with a warning.

    Args:
        root: Folder that holds ``train`` and ``test``.
        image_size: Rows and columns of the images, or one number for both.
        channels: 3 for RGB, 1 for grey.
        fit: How an image of another size is brought to this one: "stretch", or "crop", which keeps its proportions and
            cuts out the centre.
        mean: Mean of each channel, of pixels in [0, 1]. None: ImageNet's (grey: 0.449).
        std: Standard deviation of each channel. None: ImageNet's (grey: 0.226).
        predict_dir: Image, or folder of images without classes, which ``predict`` takes. None: the test images. (The
            option ``--images`` does so with any model, and needs no training data.)
        val_size: Images (int) or share (float below 1) of ``train`` that become the validation part; 0: none. None: the
            images of ``val``, or a tenth of ``train`` where there is no ``val``.
        train_subset: Which training images ``train_size`` means: the "first" ones (in the order of the classes), or
            "per-class", so many of every class.
        exif_orientation: Whether images are turned as their EXIF data (of TIFF files, their tags) say.
        **kwargs: Every other option of :class:`ImageDataModule` but ``download``.

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
        *,
        val_size: int | float | None = None,
        train_subset: Literal["first", "per-class"] = "per-class",
        exif_orientation: bool = True,
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        self._shape = (channels, *both_sides(where, "image_size", image_size))
        check_fit(where, fit)
        self._fit: Literal["stretch", "crop"] = fit
        self.exif_orientation = exif_orientation
        mean, std = mean or _MEAN.get(channels, ()), std or _STD.get(channels, ())
        self._mean_std = check_channels(where, channels, mean, std)
        self.predict_dir = None if predict_dir is None else Path(predict_dir).expanduser()
        super().__init__(root, val_size=val_size, train_subset=train_subset, download=False, **kwargs)
        self._own_val = (self.root / "val").is_dir() and val_size is None
        if (self.root / "val").is_dir() and val_size:
            raise ConfigError(
                f"{where}: val_size={val_size}, but {self.root / 'val'} holds validation images; leave val_size out to "
                "use them, set it to 0 for none, or move the folder"
            )

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        folder = self.root / "train"
        if not folder.is_dir():
            below = self.root if self.root.is_dir() else None
            inner = [name for name in files.class_folders(below) if (below / name / "train").is_dir()] if below else []
            raise DataError(
                f"no folder {folder.absolute()}; set root to the folder that holds train/<class>/<image> and "
                "test/<class>/<image>"
                + (f", such as {self.root / inner[0]}" if inner else " (predict --images PATH needs none of it)")
            )
        names = tuple(files.class_folders(folder))
        if not names:
            raise DataError(f"{folder} has no class folders; images belong into train/<class>/")
        files.check_not_nested(folder, names, f"set root to {folder}, or move the class folders up")
        mean, std = self._mean_std
        return ImageSet(
            self.root.resolve().name or "images", names, self._shape, mean, std, val_size=0.1, val_split="stratified"
        )

    def preprocessing(self) -> Preprocessing:
        """What the model's inputs are."""
        return replace(super().preprocessing(), fit=self._fit, exif=self.exif_orientation)

    def has_split(self, split: SplitName) -> bool:
        """Which parts there are."""
        if split == "val":
            return self._own_val
        if split == "predict":
            return self.predict_dir is not None
        return (self.root / split).is_dir()

    def load_split(self, split: SplitName) -> SplitData:
        """Reads a split as published."""
        if split == "predict" and self.predict_dir is not None:
            paths = find_images(self.predict_dir)
            labels = [-1] * len(paths)
        else:
            folder = self.root / split
            if not folder.is_dir():
                raise DataError(f"no folder {folder.absolute()}; put the {split} images into {split}/<class>/")
            names = self.described.class_names
            found = files.class_folders(folder)
            if found != list(names):
                files.check_not_nested(folder, found, f"move the class folders to {folder}")
            for name in found:
                if name not in names:
                    raise DataError(
                        f"{folder / name} is a class that {self.root / 'train'} lacks{did_you_mean(name, names)}; "
                        "rename or remove it"
                    )
            paths, labels = files.list_labelled(
                [folder / name for name in found], [names.index(name) for name in found]
            )
        images = ImageFiles.of(paths, self._shape, self._fit, exif=self.exif_orientation)
        return SplitData(images, torch.tensor(labels), paths)


class ImageFolderSet(GeneralizationSet):
    """Any folder of images as a further test set: one folder a class, named as the model's classes.

    Images lie anywhere below their class's folder, of any size and format that :class:`ImageFolderDataModule` reads;
    they are brought to the model's size and channels.

    Args:
        root: Folder that holds the class folders.
        fit: How an image of another size is brought to the model's: "stretch", or "crop", which keeps its proportions
            and cuts out the centre.
        name: Name in keys and tables. None: the folder's.
        exif_orientation: As for :class:`ImageFolderDataModule`.

    Raises:
        ConfigError: There is no such way to fit, or the name cannot be used.
    """

    def __init__(
        self,
        root: str,
        fit: Literal["stretch", "crop"] = "stretch",
        name: str | None = None,
        *,
        exif_orientation: bool = True,
    ) -> None:
        self.root = Path(root).expanduser()
        super().__init__(self.root.resolve().name if name is None else name)
        check_fit("ImageFolderSet", fit)
        self.exif_orientation = exif_orientation
        self._fit: Literal["stretch", "crop"] = fit

    def open(self, class_names: Sequence[str], input_shape: tuple[int, int, int]) -> TestImages:
        """Lists and decodes the images; the class folders must be the model's classes."""
        if not self.root.is_dir():
            raise DataError(f"no folder {self.root.absolute()}; set root to the folder that holds <class>/<image>")
        channels = input_shape[0]
        if channels not in (1, 3):
            raise DataError(f"{self.root}: images have 1 or 3 channels, but the model takes {channels}")
        found = files.class_folders(self.root)
        if found != sorted(class_names):
            files.check_not_nested(self.root, found, "set root to it")
        table = match_classes(f"the folder {self.root}", found, class_names).tolist()
        paths, labels = files.list_labelled([self.root / name for name in found], table)
        images = ImageFiles.of(paths, input_shape, self._fit, exif=self.exif_orientation)
        return TestImages(torch.tensor(labels), images.decode())
