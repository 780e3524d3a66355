"""The data module that all image sets share: one class, whose many lines are its options and what a user calls."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_repshape.data.cache import build_cache
from lightning_repshape.data.choosing import ClassRows, choose_classes, per_class, stratified
from lightning_repshape.data.files import ImageFiles, content_hash
from lightning_repshape.data.images import ImageStore, Normalizer
from lightning_repshape.data.loading import (
    FLIPS,
    SHIFTS,
    Augmentation,
    DeviceBatch,
    ImageLoader,
    RawBatchDataModule,
    Split,
    SplitDataset,
    most_processes,
    unchanged,
)
from lightning_repshape.data.preprocessing import Preprocessing
from lightning_repshape.data.samplers import KeyedSampler
from lightning_repshape.errors import ConfigError, DataError, did_you_mean
from lightning_repshape.seeding import generator, global_seed, key_to_seed

SplitName = Literal["train", "val", "test", "predict"]
_EVAL_BYTES = 2**27  # inputs of an evaluation batch; ten times as much is usual for the activations behind them
_SPLITS: tuple[SplitName, ...] = ("train", "val", "test", "predict")


@dataclass(frozen=True)
class ImageSet:
    """What is known of a data set before it is read.

    Attributes:
        name: Name for messages and file names.
        class_names: In the order of the labels.
        input_shape: C, H, W of the images.
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel.
        val_size: Default of the option: images (int) or share (float) of the training part for the validation part.
        val_split: Default of the option.
        largest: Images in the largest split, to tell before reading whether it fits the memory budget. None: not known
            (then a reader that decodes files lists them).
        aliases: Other names that the option ``classes`` takes, and the classes' own.
    """

    name: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val_size: int | float = 0
    val_split: Literal["last", "stratified"] = "last"
    largest: int | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)


class SplitData(NamedTuple):
    """A split as published, with all its classes: what a data set's own code has to deliver.

    Attributes:
        images: uint8 N x H x W x C, or image files that are decoded when they are needed.
        labels: int64 N, in the order of the set's class names; -1 where unknown.
        names: A name for each image, such as its path; None: "<split>/<position>".
    """

    images: Tensor | ImageFiles
    labels: Tensor
    names: Sequence[str] | None = None


class ImageDataModule(RawBatchDataModule):
    """Images of one size, held in memory as uint8, fetched and augmented a batch at a time.

    After the transfer to its device, a batch of training, validation and test is ``(x, y)`` and one of prediction ``(x,
    y, index)``: x float32 B x C x H x W normalised, in channels_last memory format, y int64 B (-1 where unknown), index
    int64 B. Only training batches are augmented. Without a Trainer, use :meth:`batches`, or ``to(device)`` of a
    loader's batches.

    Shuffling and augmentation are functions of (seed, epoch, position of the sample): they do not depend on the batch
    size, the number of worker processes, the ranks (for augmentation) or on where a run was resumed. Which images are
    training and which validation images depends on ``split_seed`` alone, not on the run's seed.

    A set of one's own needs :meth:`describe` and :meth:`load_split`; :meth:`has_split` where it has a validation part
    or images to predict, and :meth:`download_files` where it can be downloaded. Where it has options, its constructor
    hands on those below as ``**kwargs``; a named argument in it gives one of them another default.

    Args:
        root: Folder that holds the unpacked set.
        batch_size: Training images a batch (of each rank).
        eval_batch_size: Validation, test and prediction images a batch; fewer where they are large, as many as take
            128 MiB as float32 (RGB of 224 x 224 pixels: 222).
        val_size: Images (int) or share (float below 1) of the training part that become the validation part; 0: none,
            and no validation. None: the set's own.
        val_split: Which these are: the "last" ones of the file, or a "stratified" draw that keeps the classes' shares,
            by ``split_seed``. None: the set's own.
        train_size: Use only this many training images (after the validation part is taken off). None: all.
        train_subset: Which these are: the "first" ones, or "per-class", which draws ``train_size`` images of every
            class by ``split_seed``.
        classes: Use only the first n classes, or those named (or given by label), in this order. None: all.
        renumber: Whether the labels of the chosen ``classes`` are counted from 0. False: labels and ``num_classes``
            stay those of the full set.
        augment: What training images undergo: "none"; "flip", mirrored left to right with probability one half;
            "shift", moved by up to ``crop_padding`` pixels in each direction, zeros entering (a random crop from the
            padded image); "crop-flip", both.
        crop_padding: Pixels of zeros around the image before a crop.
        cutout: Side in pixels of a square around a random centre that is set to the mean pixel in training images (zero
            after normalisation), last of all; 0: none.
        normalize: "standard", minus the mean and divided by the standard deviation of each channel, or "unit", pixels
            in [0, 1].
        download: Whether to download what is missing.
        drop_last: Whether to leave out the last training batch where it is smaller.
        num_workers: Worker processes that fetch the images; 0 is fastest for images in memory. More than the CPU has
            cores gain nothing, and many more are refused.
        seed: Seed of shuffling and augmentation. None: the run's seed, read when the loaders are built.
        split_seed: Seed of the validation draw and of ``train_subset="per-class"``.
        memory_budget_gb: Memory of a split in each process, in 10^9 bytes, above which its images stay in a
            memory-mapped file in ``cache_dir``.
        cache_dir: Folder of decoded images. Image files are always kept there once decoded, where it is given. None:
            the folder ".repshape-cache" in ``root``, and only where the memory budget demands it.
        alternate_flips: Whether "flip" and "crop-flip" draw in the first epoch which images are mirrored, and then
            mirror the others, in turns; else every epoch draws anew.

    Raises:
        ConfigError: An option or a class that cannot be.
    """

    num_classes: int
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int | float | None = None,
        val_split: Literal["last", "stratified"] | None = None,
        train_size: int | None = None,
        train_subset: Literal["first", "per-class"] = "first",
        classes: int | list[str | int] | None = None,
        renumber: bool = True,
        augment: Augmentation = "none",
        crop_padding: int = 4,
        cutout: int = 0,
        normalize: Literal["standard", "unit"] = "standard",
        download: bool = False,
        drop_last: bool = False,
        num_workers: int = 0,
        seed: int | None = None,
        split_seed: int = 0,
        memory_budget_gb: float = 4.0,
        cache_dir: str | None = None,
        alternate_flips: bool = False,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        for option, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("crop_padding", crop_padding, 0),
            ("cutout", cutout, 0),
            ("val_size", val_size or 0, 0),
            ("train_size", 1 if train_size is None else train_size, 1),
            ("memory_budget_gb", memory_budget_gb, 0),
        ):
            if not least <= value < 2**63:
                limit = f"at least {least}" if not value >= least else "below 2**63"
                raise ConfigError(f"{where}: {option}={value}, but it must be {limit}")
        most = most_processes()
        if num_workers > most:
            raise ConfigError(
                f"{where}: num_workers={num_workers}, but this machine can use no more than {most} of them"
            )
        if isinstance(val_size, float) and val_size > 1 and val_size.is_integer():
            val_size = int(val_size)  # parsers of a union may try float first
        if isinstance(val_size, float) and val_size >= 1:
            raise ConfigError(
                f"{where}: val_size={val_size}, but a share must be below 1; write {int(val_size)} for a number of "
                "images"
            )
        for option, choice, choices in (
            ("val_split", val_split, (None, "last", "stratified")),
            ("train_subset", train_subset, ("first", "per-class")),
            ("augment", augment, ("none", *FLIPS, *SHIFTS)),
            ("normalize", normalize, ("standard", "unit")),
        ):
            if choice not in choices:
                known = dict.fromkeys(name for name in choices if name)
                raise ConfigError(f"{where}: {option}={choice!r}{did_you_mean(str(choice), known)}")
        self.root = Path(root).expanduser()
        self.batch_size = batch_size
        self.train_size = train_size
        self.train_subset = train_subset
        self.augment = augment
        self.crop_padding = crop_padding
        self.alternate_flips = alternate_flips
        self.cutout = cutout
        self.download = download
        self.drop_last = drop_last
        self.num_workers = num_workers
        self.seed = seed
        self.split_seed = split_seed
        self.memory_budget_gb = memory_budget_gb
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()

        self.described = described = self.describe()
        self.val_size = described.val_size if val_size is None else val_size
        self.val_split = val_split or described.val_split
        self._chosen = choose_classes(classes, described.class_names, described.aliases, f"{where}: classes")
        self._renumber = renumber or self._chosen is None
        self.name_classes(described.class_names)
        self.num_classes = len(self.class_names)
        self.input_shape = described.input_shape
        self.eval_batch_size = min(eval_batch_size, max(1, _EVAL_BYTES // (4 * math.prod(self.input_shape))))
        if cutout > min(self.input_shape[1:]):
            raise ConfigError(
                f"{where}: cutout={cutout}, but images are {self.input_shape[1]} x {self.input_shape[2]} pixels: such "
                "a hole leaves next to nothing of them; give a quarter to a half of the side"
            )
        channels = self.input_shape[0]
        self.mean = described.mean if normalize == "standard" else (0.0,) * channels
        self.std = described.std if normalize == "standard" else (1.0,) * channels

        self._normalizer = Normalizer(self.mean, self.std)
        self._loaded: dict[str, SplitData] = {}
        self._splits: dict[str, Split] = {}
        self._by_class: ClassRows | None = None
        self._checksums: dict[str, str] = {}

    # What a set of one's own provides

    def describe(self) -> ImageSet:
        """What is known of the set before it is read, afterwards ``self.described``.

        The constructor calls it once its options are attributes.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what it holds: override describe (once: _describe)")

    def load_split(self, split: SplitName) -> SplitData:
        """Reads a split, whole and in its published order; choosing images by the options is not its business.

        Args:
            split: "train", "test" or, where :meth:`has_split` says so, "val" or "predict".

        Raises:
            DataError: The set is missing or damaged.
        """
        raise NotImplementedError(f"{type(self).__name__} must read its images: override load_split (once: _load)")

    def has_split(self, split: SplitName) -> bool:
        """Whether :meth:`load_split` knows a split; else "train" stands in for "val", "test" for "predict"."""
        return split in ("train", "test")

    def download_files(self) -> None:
        """Fetches whatever is missing into ``root``; called where ``download`` is on, by one process.

        Raises:
            DataError: It cannot be downloaded.
        """
        raise DataError(f"{self.described.name} cannot be downloaded; put it in {self.root} and set download=False")

    def split_rows(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Which images of the training part are trained on, and which are for validation.

        Args:
            labels: int64 N, of the chosen classes.

        Returns:
            Their positions, int64 each, disjoint and sorted.

        Raises:
            DataError: There are fewer images than the options ask for.
        """
        count = len(labels)
        where = type(self).__name__
        val_count = round(self.val_size * count) if isinstance(self.val_size, float) else self.val_size
        if self.has_split("val"):
            val_count = 0
        if val_count >= count:
            raise DataError(
                f"{where}: val_size={self.val_size} takes {val_count:,} images, but the training part has {count:,}, "
                "and some must be left to train on; make val_size smaller"
            )
        if self.val_split == "last" or not val_count:
            train, val = torch.arange(count - val_count), torch.arange(count - val_count, count)
        else:
            val = stratified(labels, val_count, key_to_seed("val", self.split_seed))
            left = torch.ones(count, dtype=torch.bool)
            left[val] = False
            train = left.nonzero().flatten()
        size = self.train_size
        if size is None:
            return train, val
        if self.train_subset == "per-class":
            return per_class(train, labels, size, self.split_seed, self.class_names, f"{where}: train_size"), val
        if size > len(train):
            beside = f" beside {val_count:,} for validation" if val_count else ""
            raise DataError(f"{where}: train_size={size:,}, but there are {len(train):,} training images{beside}")
        return train[:size], val

    # Choosing images

    def name_classes(self, names: Sequence[str]) -> None:
        """Names all published classes, in the order of the labels; a set downloaded later may know them only then."""
        self.described = replace(self.described, class_names=tuple(names))
        kept = self._chosen if self._chosen is not None and self._renumber else range(len(names))
        self.class_names = tuple(names[label] for label in kept)

    def _part(self, split: SplitName) -> tuple[SplitData, Tensor]:
        """A published split without the classes that were not chosen, and the positions of what is left."""
        if split not in self._loaded:
            self._loaded[split] = self.load_split(split)
        images, labels, names = self._loaded[split]
        count = images.shape[0]
        shape = (self.input_shape[1], self.input_shape[2], self.input_shape[0])
        if len(labels) != count or tuple(images.shape[1:]) != shape:
            raise DataError(
                f"{self.described.name}, {split}: {count} images of {tuple(images.shape[1:])} and {len(labels)} "
                f"labels, expected images of {shape} (rows, columns, channels) and as many labels"
            )
        if count == 0:
            raise DataError(f"{self.described.name}, {split}: no images in {self.root}")
        origin = torch.arange(count)
        if self._chosen is None or split == "predict":
            return SplitData(images, labels, names), origin
        numbers = range(len(self._chosen)) if self._renumber else self._chosen
        table = torch.full((len(self.described.class_names) + 1,), -2)
        table[torch.tensor(self._chosen)] = torch.tensor(list(numbers))
        labels = table[labels]
        origin = (labels >= 0).nonzero().flatten()
        if not len(origin):
            raise DataError(f"{self.described.name}, {split}: no image of the chosen classes {self.class_names}")
        images = images.select(origin) if isinstance(images, ImageFiles) else images.index_select(0, origin)
        return SplitData(images, labels[origin], None if names is None else [names[i] for i in origin.tolist()]), origin

    # Memory

    def _cache_wanted(self, images: Tensor | ImageFiles) -> bool:
        return math.prod(images.shape) > self.memory_budget_gb * 1e9 or (
            self.cache_dir is not None and isinstance(images, ImageFiles)
        )

    def _cached(self, split: str, images: Tensor | ImageFiles) -> tuple[Tensor, str]:
        folder = self.root / ".repshape-cache" if self.cache_dir is None else self.cache_dir
        return build_cache(images, folder, f"{self.described.name.lower().replace(' ', '-')}-{split}")

    def _keep(self, name: str, source: SplitName, part: SplitData, origin: Tensor, rows: Tensor) -> None:
        """Puts the images of a split where its batches are fetched from."""
        images: Tensor | ImageFiles = part.images
        wanted_rows: Tensor | None = rows
        budget = self.memory_budget_gb * 1e9
        mapped: str | None = None
        if self._cache_wanted(images):
            images, mapped = self._cached(source, images)
        size = len(rows) * math.prod(images.shape[1:])
        if isinstance(images, ImageFiles):
            images, wanted_rows = images.select(rows).decode(), None  # only those in use
        elif size <= budget:
            contiguous = bool(len(rows)) and int(rows[-1] - rows[0]) == len(rows) - 1
            few = 2 * len(rows) < len(images)  # then a slice would keep far more in memory than it shows
            view = contiguous and not few and mapped is None
            images = images[int(rows[0]) : int(rows[-1]) + 1] if view else images.index_select(0, rows)
            wanted_rows = mapped = None
        padding = self.crop_padding if name == "train" and self.augment in SHIFTS else 0
        mirrored = name == "train" and self.augment in FLIPS
        if wanted_rows is not None or ImageStore.bytes_needed(images.shape, padding, mirrored) > budget:
            padding, mirrored = 0, False  # augmented from a plain batch instead, on its device
        names = None if part.names is None else [part.names[row] for row in rows.tolist()]
        self._splits[name] = Split(
            name, ImageStore(images, padding, mirrored), wanted_rows, part.labels[rows], origin[rows], names, mapped
        )

    # LightningDataModule

    def prepare_data(self) -> None:
        """Downloads what is missing, where ``download`` is on, and decodes into the cache, where one is needed."""
        if self.download:
            self.download_files()
        largest = self.described.largest
        if largest is not None and largest * math.prod(self.input_shape) <= self.memory_budget_gb * 1e9:
            return
        for split in _SPLITS:
            if self.has_split(split):
                part, _ = self._part(split)
                if self._cache_wanted(part.images):
                    self._cached(split, part.images)

    def setup(self, stage: str | None = None) -> None:
        """Reads the images of a stage into memory; what is there already stays."""
        if stage in (None, "fit", "validate") and "train" not in self._splits:
            part, origin = self._part("train")
            train, val = self.split_rows(part.labels)
            self._warn_of_missing_classes(part.labels[train])
            self._keep("train", "train", part, origin, train)
            if self.has_split("val"):
                own, own_origin = self._part("val")
                self._keep("val", "val", own, own_origin, torch.arange(len(own.labels)))
            elif len(val):
                self._keep("val", "train", part, origin, val)
        if stage in (None, "test", "predict") and "test" not in self._splits:
            if stage != "predict" or not self.has_split("predict"):
                part, origin = self._part("test")
                self._keep("test", "test", part, origin, torch.arange(len(part.labels)))
        if stage == "predict" and self.has_split("predict") and "predict" not in self._splits:
            part, origin = self._part("predict")
            self._keep("predict", "predict", part, origin, torch.arange(len(part.labels)))
        self._loaded.clear()  # the splits hold what is used

    def _warn_of_missing_classes(self, labels: Tensor) -> None:
        wanted = range(self.num_classes) if self._renumber else self._chosen or []
        absent = sorted(set(wanted) - set(torch.bincount(labels).nonzero().flatten().tolist()))
        if absent:
            named = ", ".join(repr(self.class_names[label]) for label in absent[:5]) + (
                ", ..." if len(absent) > 5 else ""
            )
            rank_zero_warn(
                f"{type(self).__name__}: no training image of {len(absent)} of {self.num_classes} classes "
                f"({named}); where the images are ordered by class, use val_split='stratified' and "
                "train_subset='per-class'"
            )

    def _split(self, name: SplitName) -> Split:
        if name not in _SPLITS:
            raise ConfigError(f"unknown split {name!r}{did_you_mean(name, _SPLITS)}")
        if name == "predict" and not self.has_split("predict"):
            name = "test"
        if name not in self._splits:
            if self.trainer is None:
                self.prepare_data()
            self.setup({"train": "fit", "val": "fit"}.get(name, name))
        if name not in self._splits:
            raise DataError(f"{type(self).__name__} has no validation images, because val_size is 0; give val_size")
        return self._splits[name]

    def _loader(
        self,
        name: SplitName,
        batch_size: int,
        *,
        augment: bool = False,
        shuffle: bool = False,
        pad: bool = False,
        shard: bool = True,
        drop_last: bool = False,
    ) -> ImageLoader:
        split = self._split(name)
        seed = global_seed() if self.seed is None else self.seed
        ranks, rank = (1, 0)
        if shard and self.trainer is not None:
            ranks, rank = self.trainer.world_size, self.trainer.global_rank
        dataset = self._dataset(split, augment, seed, with_index=name == "predict")
        if drop_last and batch_size > math.ceil(len(split) / ranks):
            raise ConfigError(
                f"{type(self).__name__}: batch_size={batch_size} with drop_last leaves no training batch of "
                f"{len(split):,} images on {ranks} rank(s); make batch_size smaller or turn drop_last off"
            )
        return ImageLoader(
            dataset,
            batch_size=batch_size,
            sampler=KeyedSampler(dataset, ranks, rank, shuffle=shuffle, seed=seed, pad=pad),
            num_workers=self.num_workers,
            collate_fn=unchanged,
            pin_memory=self.num_workers > 0 and torch.cuda.is_available(),
            drop_last=drop_last,
            persistent_workers=self.num_workers > 0,
            generator=generator("workers", seed, rank),  # else every iteration takes a number of the global generator's
        )

    def _dataset(self, split: Split, augment: bool, seed: int = 0, with_index: bool = False) -> SplitDataset:
        kind, cutout = (self.augment, self.cutout) if augment else ("none", 0)
        return SplitDataset(
            split, self._normalizer, seed, kind, self.crop_padding, cutout, with_index, self.alternate_flips
        )

    def train_dataloader(self) -> ImageLoader:
        """Shuffled and augmented batches of this rank's training images."""
        count = len(self._split("train"))
        if self.batch_size > count:
            rank_zero_warn(
                f"{type(self).__name__}: batch_size={self.batch_size} is above the {count:,} training images: every "
                "epoch is one batch of them all"
            )
        return self._loader("train", self.batch_size, augment=True, shuffle=True, pad=True, drop_last=self.drop_last)

    def val_dataloader(self) -> ImageLoader | list[ImageLoader]:
        """This rank's validation images, in order; an empty list where there are none."""
        self._split("train")
        return self._loader("val", self.eval_batch_size) if "val" in self._splits else []

    def test_dataloader(self) -> ImageLoader:
        """This rank's test images, in order."""
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> ImageLoader:
        """This rank's images to predict, in order: the test images, unless the set has others."""
        return self._loader("predict", self.eval_batch_size)

    def analysis_dataloader(
        self, split: Literal["train", "val", "test"] = "train", batch_size: int | None = None, shard: bool = True
    ) -> ImageLoader:
        """Images in order and without augmentation, each exactly once.

        Args:
            split: "train", "val" or "test".
            batch_size: Images a batch. None: ``eval_batch_size``.
            shard: Whether every rank gets its share; else all of them.

        Returns:
            A loader whose batches become ``(x, y)`` by the transfer hooks, or by their own ``to(device)``.
        """
        return self._loader(split, batch_size or self.eval_batch_size, shard=shard)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augments and normalises a batch of one of this module's loaders; others are left as they are."""
        return batch.finish() if isinstance(batch, DeviceBatch) else batch

    # Without a Trainer

    def batches(
        self,
        split: SplitName = "train",
        device: torch.device | str = "cpu",
        *,
        epoch: int = 0,
        shuffle: bool | None = None,
        augment: bool | None = None,
        batch_size: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Ready batches for a training loop of one's own; reads (and downloads) the set on the first call.

        Args:
            split: "train", "val", "test" or "predict".
            device: Where the batches go.
            epoch: Decides shuffling and augmentation.
            shuffle: Whether to shuffle. None: only "train".
            augment: Whether to augment as the options say ("train" only). None: only "train".
            batch_size: Images a batch. None: ``batch_size`` for "train", else ``eval_batch_size``.

        Yields:
            x float32 B x C x H x W normalised, y int64 B.
        """
        training = split == "train"
        loader = self._loader(
            split,
            batch_size or (self.batch_size if training else self.eval_batch_size),
            augment=training if augment is None else augment and training,
            shuffle=training if shuffle is None else shuffle,
        )
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            x, y, *_ = batch.to(device)
            yield x, y

    def images(self, split: SplitName, index: Tensor | None = None) -> Tensor:
        """Images at positions ``index`` (int64; None: all) of a split, uint8 N x H x W x C, a copy.

        For plots and corruptions; :meth:`normalize_images` makes inputs of them.
        """
        part = self._split(split)
        return part.images(torch.arange(len(part)) if index is None else index)

    def labels(self, split: SplitName) -> Tensor:
        """Labels of a split, int64 N, -1 where unknown."""
        return self._split(split).labels.clone()

    def normalize_images(self, images: Tensor) -> Tensor:
        """Makes a network's input of uint8 N x H x W x C on any device.

        It is float32 N x C x H x W on the same device, normalised, in channels_last memory format.
        """
        return self._normalizer(images)

    def draw_class_balanced(
        self,
        per_class: int,
        generator: torch.Generator,
        replacement: bool = True,
        device: torch.device | str | None = None,
        augment: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Draws k training images of every class, normalised, by one gather.

        Args:
            per_class: Images of each class, k.
            generator: Source of the draw; one of the CPU's, or drawing waits for the accelerator.
            replacement: Whether an image may be drawn twice.
            device: Where the images go. None: the Trainer's device, or the CPU.
            augment: Whether to augment them as training images are; the generator must be the CPU's then.

        Returns:
            x float32 K k x C x H x W and y int64 K k, ordered by class.

        Raises:
            DataError: A class has no training image, or fewer than k of them without replacement.
        """
        if per_class < 1:
            raise ConfigError(f"per_class={per_class}, but it must be at least 1")
        split = self._split("train")
        if self._by_class is None:
            self._by_class = ClassRows(split.labels, self.num_classes)
        counts = self._by_class.counts
        fewest = int(counts.min())
        if fewest < (1 if replacement else per_class):
            scarce = repr(self.class_names[int(counts.argmin())])
            raise DataError(
                f"{type(self).__name__}: class {scarce} has {fewest} training images, but {per_class} are to be drawn "
                "of every class; " + ("use more training images" if replacement else "draw fewer, or with replacement")
            )
        return self._fetched(self._by_class.draw(per_class, generator, replacement), generator, device, augment)

    def draw_uniform(
        self,
        count: int,
        generator: torch.Generator,
        replacement: bool = True,
        device: torch.device | str | None = None,
        augment: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Draws ``count`` training images of any class; otherwise as :meth:`draw_class_balanced`.

        Raises:
            DataError: There are fewer images, and none may be drawn twice.
        """
        total = len(self._split("train"))
        if count > total and not replacement:
            raise DataError(
                f"{type(self).__name__}: {count} training images are to be drawn, and there are {total}; draw fewer, "
                "or with replacement"
            )
        if replacement:
            index = torch.randint(total, (count,), generator=generator, device=generator.device)
        else:
            index = torch.randperm(total, generator=generator, device=generator.device)[:count]
        return self._fetched(index.cpu(), generator, device, augment)

    def _fetched(
        self, index: Tensor, source: torch.Generator, device: torch.device | str | None, augment: bool
    ) -> tuple[Tensor, Tensor]:
        if device is None:
            device = "cpu" if self.trainer is None else self.trainer.strategy.root_device
        split = self._split("train")
        dataset = self._dataset(split, augment)
        draws = dataset.draws(source, len(index)) if augment else None
        images, y = split.images(index), split.labels.index_select(0, index)
        y, images = y.to(device, non_blocking=True), images.to(device, non_blocking=True)
        x, labels = DeviceBatch(dataset, index, y, images, draws, torch.float32).finish()
        return x, labels

    # For the record

    def preprocessing(self) -> Preprocessing:
        """What the model's inputs are; a set with a way of its own to fit images says so here."""
        return Preprocessing(self.class_names, self.input_shape, self.mean, self.std, data=self.described.name)

    def checksums(self) -> dict[str, str]:
        """Hashes of the data in use, for a run's manifest: of the splits that are set up.

        Returns:
            For each split "<split>.images", "<split>.labels" and "<split>.index" (which images of the published split),
            each "blake2b:" and 32 hexadecimal digits. Images in a memory-mapped file count by their files' paths, sizes
            and times: "files:" and 32 digits.
        """
        for name, split in self._splits.items():
            if f"{name}.images" in self._checksums:
                continue
            hashes = {"labels": split.labels, "index": split.origin}
            for kind, values in hashes.items():
                self._checksums[f"{name}.{kind}"] = f"blake2b:{content_hash(values)}"
            images = f"files:{split.mapped}" if split.mapped else f"blake2b:{split.hash_of_images()}"
            self._checksums[f"{name}.images"] = images
        return dict(self._checksums)

    def sample_name(self, split: SplitName, index: int) -> str:
        """Name of an image, such as "test/00017", by its position in the split (a prediction batch's third entry).

        Its file's path where it has one, else the published split and its position in it.
        """
        part = self._split(split)
        if part.names is not None:
            return part.names[index]
        source = "train" if part.name == "val" and not self.has_split("val") else part.name
        return f"{source}/{int(part.origin[index]):05d}"
