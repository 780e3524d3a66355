"""Faces by identity: CASIA-WebFace as folders or packed, and any other folder of identity folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_repshape.data import files
from lightning_repshape.data.faces.records import RecordFaces, RecordFile, identities_of
from lightning_repshape.data.files import (
    FITS,
    Fit,
    ImageFiles,
    both_sides,
    check_channels,
    check_fit,
    natural_order,
    some,
)
from lightning_repshape.data.loading import Augmentation
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.data.preprocessing import Preprocessing
from lightning_repshape.errors import ConfigError, DataError

_PLACES = ("CASIA-WebFace", "casia-webface", "CASIA_WebFace", "faces_webface_112x112", "casia")


class CASIAWebFaceDataModule(ImageDataModule):
    """CASIA-WebFace (Yi et al. 2014), or any other set of faces by identity: the classes are the people.

    Two distributions are read: a folder that holds a folder of images for each identity, and the packed one, a ``.rec``
    file with its ``.idx`` file. ``root`` holds the set's folder (``CASIA-WebFace``, ``faces_webface_112x112``, ...), or
    is that folder; ``folder`` names another. Identities are in natural order ("s2" before "s10"). There is no test
    part: faces are tested on pairs of other people, see :class:`FaceVerificationDataModule`.

    Decoded images of more than ``memory_budget_gb`` (all of CASIA-WebFace at 112 x 112: 18.6 GB) are kept in a file
    that is mapped into memory; it is written once, by one process, goes on where it stopped when it was interrupted,
    and is shared by all ranks and later runs.

    Args:
        root: Folder that holds the unpacked set.
        folder: The set's folder, or its ``.rec`` file, below ``root`` or absolute. None: looked for.
        image_size: Rows and columns of the images, or one number for both.
        channels: 3 for RGB (grey images are converted), 1 for grey.
        fit: What happens to an image of another size: "crop" keeps its proportions and cuts out the centre, "stretch"
            does not, "exact" is an error that names it.
        center_crop: Rows and columns (or one number) to cut out of the middle of every image first.
        min_images: Leave out identities with fewer images.
        mean: Mean of each channel, of pixels in [0, 1]. None: 0.5, as face networks are usually trained.
        std: Standard deviation of each channel. None: 0.5.
        eval_batch_size: Validation images a batch, and images of pairs.
        augment: "none", "flip" (as in the paper), "shift" or "crop-flip".
        exif_orientation: Whether images are turned as their EXIF data say.
        **kwargs: Every other option of :class:`ImageDataModule` but ``download`` and ``renumber``. Without ``val_size``
            there is no validation part; with it, every identity needs two images.

    Raises:
        ConfigError: An option or an identity that cannot be.
        DataError: There is no such set, or it is damaged.
    """

    def __init__(
        self,
        root: str = "data",
        folder: str | None = None,
        image_size: int | tuple[int, int] = 112,
        channels: Literal[1, 3] = 3,
        fit: Fit = "crop",
        center_crop: int | tuple[int, int] | None = None,
        min_images: int = 1,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        *,
        eval_batch_size: int = 512,
        augment: Augmentation = "flip",
        exif_orientation: bool = True,
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        self._shape = (channels, *both_sides(where, "image_size", image_size))
        if min_images < 1:
            raise ConfigError(f"{where}: min_images={min_images}, but it must be at least 1")
        mean, std = mean or (0.5,) * channels, std or (0.5,) * channels
        self._mean_std = check_channels(where, channels, mean, std)
        check_fit(where, fit, FITS)
        self.fit: Fit = fit
        self.center_crop = None if center_crop is None else both_sides(where, "center_crop", center_crop)
        self.min_images = min_images
        self.exif_orientation = exif_orientation
        self._folder = folder
        self._faces: tuple[ImageFiles, Tensor, tuple[str, ...]] | None = None
        super().__init__(
            root, eval_batch_size=eval_batch_size, augment=augment, renumber=True, download=False, **kwargs
        )

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        source = self._find()
        self._source = source
        mean, std = self._mean_std
        if source.suffix == ".rec" or self.min_images > 1:
            names = self._read()[2]
        else:
            names = tuple(natural_order(files.class_folders(source)))
        if not names:
            raise DataError(f"{source} holds no identity with at least {self.min_images} image(s)")
        return ImageSet(self._name(source), names, self._shape, mean, std, val_size=0, val_split="stratified")

    def preprocessing(self) -> Preprocessing:
        """What the model's inputs are."""
        fit: Literal["stretch", "crop"] = "stretch" if self.fit == "stretch" else "crop"
        return replace(super().preprocessing(), fit=fit, center=self.center_crop, exif=self.exif_orientation)

    def _name(self, source: Path) -> str:
        return source.stem if source.suffix == ".rec" else source.resolve().name or "faces"

    def _find(self) -> Path:
        """The folder of identity folders, or the ``.rec`` file."""
        if self._folder is not None:
            places = [self.root / Path(self._folder).expanduser()]
        else:
            places = [*(self.root / name for name in _PLACES), self.root]
        for place in places:
            if place.suffix == ".rec" and place.is_file():
                return place
            if not place.is_dir():
                continue
            records = sorted(place.glob("*.rec"))
            if len(records) > 1:
                if place / "train.rec" not in records:
                    raise DataError(f"{place} holds {len(records)} .rec files; name the one to use with folder")
                return place / "train.rec"
            if records:
                return records[0]
            people = files.class_folders(place)
            if people:
                files.check_not_nested(place, people, "set folder to it")
                return place
        looked = " or ".join(
            str(place) for place in (places[:1] if self._folder is not None else [places[0], self.root])
        )
        raise DataError(
            f"no faces in {looked}: expected a folder for each identity, or a .rec file; set root to the folder that "
            "holds the set, or folder to the set itself"
        )

    def _read(self) -> tuple[ImageFiles, Tensor, tuple[str, ...]]:
        """All images of identities that are large enough, their labels and the identities' names."""
        if self._faces is not None:
            return self._faces
        images: ImageFiles
        if self._source.suffix == ".rec":
            record_file = RecordFile(self._source)
            numbers = record_file.image_numbers()
            names, labels = identities_of(record_file.labels(numbers))
            paths = tuple(f"{self._source}#{number}" for number in numbers)
            images = RecordFaces.of(
                paths, self._shape, self.fit, self.center_crop, exif=self.exif_orientation, file=record_file
            )
        else:
            names = tuple(natural_order(files.class_folders(self._source)))
            listed = files.list_images([self._source / name for name in names])
            empty = [name for name, found in zip(names, listed, strict=True) if not found]
            if empty and self.min_images <= 1:
                raise DataError(
                    f"{len(empty)} identity folder(s) in {self._source} hold no image: {some(empty)}; fill or remove "
                    "them, or set min_images=2 to leave out identities with fewer than two"
                )
            paths = tuple(path for found in listed for path in found)
            images = ImageFiles.of(paths, self._shape, self.fit, self.center_crop, exif=self.exif_orientation)
            labels = torch.repeat_interleave(torch.tensor([len(found) for found in listed]))
        counts = torch.bincount(labels, minlength=len(names))
        if self.min_images > 1:
            kept = counts >= self.min_images
            if not kept.all():
                rows = kept[labels].nonzero().flatten()
                rank_zero_warn(
                    f"{self._source}: left out {int((~kept).sum()):,} of {len(names):,} identities, which have fewer "
                    f"than {self.min_images} images"
                )
                images, labels = images.select(rows), (kept.cumsum(0) - 1)[labels[rows]]
                names = tuple(name for name, keep in zip(names, kept.tolist(), strict=True) if keep)
        self._faces = (images, labels, names)
        return self._faces

    def has_split(self, split: SplitName) -> bool:
        """Which parts there are."""
        return split == "train"

    def load_split(self, split: SplitName) -> SplitData:
        """Reads a split as published."""
        if split != "train":
            raise DataError(
                f"{self.described.name} has no {split} images: faces are tested on pairs of other people; use "
                "FaceVerificationDataModule, or fit with val_size alone"
            )
        images, labels, _ = self._read()
        return SplitData(images, labels, images.paths)

    def split_rows(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As for every set; an identity's only image cannot be in both parts."""
        counts = torch.bincount(labels, minlength=self.num_classes)
        single = [self.class_names[label] for label in (counts == 1).nonzero().flatten().tolist()]
        if single and self.val_size:
            raise DataError(
                f"{type(self).__name__}: {len(single)} identities have one image ({some(single)}), which cannot be in "
                "the training and in the validation part; set min_images=2 to leave them out, or val_size=0"
            )
        if single:
            rank_zero_warn(
                f"{self.described.name}: {len(single)} identities have one image ({some(single)}); they are trained "
                "on, but teach little about what changes from image to image (min_images=2 leaves them out)"
            )
        return super().split_rows(labels)
