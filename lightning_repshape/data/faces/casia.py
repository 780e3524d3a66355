"""Faces by identity: CASIA-WebFace as folders or packed, and any other folder of identity folders."""

import re
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_repshape.data import files
from lightning_repshape.data.cache import build_cache
from lightning_repshape.data.faces.records import FaceFiles, RecordFaces, RecordFile, identities_of
from lightning_repshape.data.files import ImageFiles
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.errors import ConfigError, DataError, did_you_mean

Fit = Literal["crop", "stretch", "exact"]
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
        root: Folder that holds the unpacked set. Default: "data".
        folder: The set's folder, or its ``.rec`` file, below ``root`` or absolute. Default: None, looked for.
        image_size: Rows and columns of the images, or one number for both. Default: 112.
        channels: 3 for RGB (grey images are converted), 1 for grey. Default: 3.
        fit: What happens to an image of another size: "crop" keeps its proportions and cuts out the centre, "stretch"
            does not, "exact" is an error that names it. Default: "crop".
        center_crop: Rows and columns (or one number) to cut out of the middle of every image first. Default: None.
        min_images: Leave out identities with fewer images. Default: 1, none.
        mean: Mean of each channel, of pixels in [0, 1]. Default: None, 0.5, as face networks are usually trained.
        std: Standard deviation of each channel. Default: None, 0.5.
        batch_size: Training images a batch (of each rank). Default: 128.
        eval_batch_size: Validation images a batch, and images of pairs. Default: 512.
        val_size: Images (int) or share (float below 1) of the training part to validate classification on; 0: none.
            Needs two images of every identity. Default: None, 0.
        val_split: Which these are: the "last" ones, or a "stratified" draw. Default: None, "stratified".
        train_size: Use only this many training images. Default: None, all.
        train_subset: Which these are: the "first" ones, or "per-class": ``train_size`` of every identity. Default:
            "first".
        classes: Use only the first n identities, or those named, in this order. Default: None, all.
        augment: "none", "flip", "shift" or "crop-flip". Default: "flip", as in the paper.
        crop_padding: Pixels by which "shift" and "crop-flip" move an image at most. Default: 4.
        normalize: "standard" or "unit". Default: "standard".
        drop_last: Whether to leave out the last training batch where it is smaller. Default: False.
        num_workers: Worker processes that fetch the images. Default: 0.
        seed: Seed of shuffling and augmentation. Default: None, the run's seed.
        split_seed: Seed of the validation draw and of ``train_subset="per-class"``. Default: 0.
        memory_budget_gb: Memory of a split above which its images stay in a memory-mapped file. Default: 4.0.
        cache_dir: Folder of that file; where given, decoded images are always kept there. Default: None,
            ".repshape-cache" in ``root``.

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
        fit: Literal["crop", "stretch", "exact"] = "crop",
        center_crop: int | tuple[int, int] | None = None,
        min_images: int = 1,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        val_size: int | float | None = None,
        val_split: Literal["last", "stratified"] | None = None,
        train_size: int | None = None,
        train_subset: Literal["first", "per-class"] = "first",
        classes: int | list[str | int] | None = None,
        augment: Literal["none", "flip", "shift", "crop-flip"] = "flip",
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
        height, width = _pair(image_size)
        if min(height, width) < 1:
            raise ConfigError(f"{where}: image_size={image_size}, but it must be at least 1")
        if channels not in (1, 3):
            raise ConfigError(f"{where}: channels={channels}, but it must be 1 (grey) or 3 (colour)")
        if min_images < 1:
            raise ConfigError(f"{where}: min_images={min_images}, but it must be at least 1")
        self._mean_std = (tuple(mean or (0.5,) * channels), tuple(std or (0.5,) * channels))
        for option, values in zip(("mean", "std"), self._mean_std, strict=True):
            if len(values) != channels:
                raise ConfigError(f"{where}: {option}={values} has {len(values)} values for {channels} channel(s)")
        if min(self._mean_std[1]) <= 0:
            raise ConfigError(f"{where}: std={self._mean_std[1]}, but every value must be positive")
        check_fit(where, fit, center_crop)
        self.fit: Fit = fit
        self.center_crop = None if center_crop is None else _pair(center_crop)
        self.min_images = min_images
        self._folder = folder
        self._shape = (channels, height, width)
        self._faces: tuple[ImageFiles, Tensor, tuple[str, ...]] | None = None
        super().__init__(
            root=root,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            val_split=val_split,
            train_size=train_size,
            train_subset=train_subset,
            classes=classes,
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

    def _describe(self) -> ImageSet:
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
            if files.class_folders(place):
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
        channels, height, width = self._shape
        rule: dict[str, object] = {
            "height": height,
            "width": width,
            "channels": channels,
            "fit": "stretch" if self.fit == "stretch" else "crop",
            "exact": self.fit == "exact",
            "center": self.center_crop,
        }
        images: FaceFiles
        if self._source.suffix == ".rec":
            record_file = RecordFile(self._source)
            numbers = record_file.image_numbers()
            names, labels = identities_of(record_file.labels(numbers))
            paths = tuple(f"{self._source}#{number}" for number in numbers)
            images = RecordFaces(paths=paths, file=record_file, **rule)  # type: ignore[arg-type]
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
            images = FaceFiles(paths=paths, **rule)  # type: ignore[arg-type]
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
                images, labels = images.select(rows), (kept.cumsum(0) - 1)[labels[rows]]  # type: ignore[assignment]
                names = tuple(name for name, keep in zip(names, kept.tolist(), strict=True) if keep)
        self._faces = (images, labels, names)
        return self._faces

    def _has(self, split: SplitName) -> bool:
        return split == "train"

    def _load(self, split: SplitName) -> SplitData:
        if split != "train":
            raise DataError(
                f"{self._set.name} has no {split} images: faces are tested on pairs of other people; use "
                "FaceVerificationDataModule, or fit with val_size alone"
            )
        images, labels, _ = self._read()
        return SplitData(images, labels, images.paths)

    def _split_rows(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        counts = torch.bincount(labels, minlength=self.num_classes)
        single = [self.class_names[label] for label in (counts == 1).nonzero().flatten().tolist()]
        if single and self.val_size:
            raise DataError(
                f"{type(self).__name__}: {len(single)} identities have one image ({some(single)}), which cannot be in "
                "the training and in the validation part; set min_images=2 to leave them out, or val_size=0"
            )
        if single:
            rank_zero_warn(
                f"{self._set.name}: {len(single)} identities have one image ({some(single)}); they are trained on, but "
                "teach little about what changes from image to image (min_images=2 leaves them out)"
            )
        return super()._split_rows(labels)

    def _cached(self, split: str, images: Tensor | ImageFiles) -> tuple[Tensor, str]:
        folder = self.root / ".repshape-cache" if self.cache_dir is None else self.cache_dir
        return build_cache(images, folder, f"{self._set.name.lower().replace(' ', '-')}-{split}")


def natural_order(names: list[str]) -> list[str]:
    """Sorts names so that numbers in them count as numbers: "s2" before "s10".

    Args:
        names: The names.

    Returns:
        The same, sorted.
    """
    return sorted(names, key=lambda name: ([int(part) if part.isdecimal() else part for part in _parts(name)], name))


def _parts(name: str) -> list[str]:
    # Text and numbers alternate, beginning with text, so that like is compared with like.
    return re.split(r"(\d+)", name)


def some(names: list[str], limit: int = 5) -> str:
    """The first of some names, for a message.

    Args:
        names: All of them.
        limit: How many to show. Default: 5.

    Returns:
        Such as "a, b, ...".
    """
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def check_fit(where: str, fit: str, center_crop: int | tuple[int, int] | None) -> None:
    """Refuses rules for images of other sizes that do not exist.

    Args:
        where: The class, for the message.
        fit: "crop", "stretch" or "exact".
        center_crop: Rows and columns, or one number, or None.

    Raises:
        ConfigError: A rule that cannot be.
    """
    if fit not in ("crop", "stretch", "exact"):
        raise ConfigError(f"{where}: fit={fit!r}{did_you_mean(str(fit), ('crop', 'stretch', 'exact'))}")
    if center_crop is not None and min(_pair(center_crop)) < 1:
        raise ConfigError(f"{where}: center_crop={center_crop}, but it must be at least 1")


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
