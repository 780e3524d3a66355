"""The data module that trains on identities and tests on pairs of other people."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_repshape.data.faces.pairs import PairSet, VerificationPairs
from lightning_repshape.data.files import content_hash, some
from lightning_repshape.data.loading import DeviceBatch, ImageLoader, RawBatchDataModule, SplitDataset
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.data.preprocessing import Preprocessing
from lightning_repshape.errors import ConfigError, DataError


class PairBatch(NamedTuple):
    """A batch of images that belong to pairs.

    Attributes:
        x: float32 N x C x H x W, normalised.
        items: int64 N, the item of each image.
        set_number: Which of the stage's sets of pairs they are from.
    """

    x: Tensor
    items: Tensor
    set_number: int


class _PairImages(ImageDataModule):
    """The images of a set of pairs, stored and fetched like those of any other set; labels are items."""

    def __init__(self, pairs: PairSet, like: ImageDataModule) -> None:
        self._pairs = pairs
        self._like = like
        super().__init__(
            root=str(like.root),
            eval_batch_size=like.eval_batch_size,
            num_workers=like.num_workers,
            seed=0,
            memory_budget_gb=like.memory_budget_gb,
            cache_dir=None if like.cache_dir is None else str(like.cache_dir),
        )

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        like = self._like
        return ImageSet(self._pairs.name, ("item",), like.input_shape, like.mean, like.std)

    def has_split(self, split: SplitName) -> bool:
        """Which parts there are."""
        return split == "test"

    def load_split(self, split: SplitName) -> SplitData:
        """Reads a split as published."""
        return SplitData(self._pairs.images, self._pairs.item_of_image, self._pairs.images.paths)


class FaceVerificationDataModule(RawBatchDataModule):
    """Training images of identities, and pairs of other people to verify.

    It joins a data module of identities with sets of pairs. Training batches are those of the identities, ``(x, y)``;
    validation and test batches are :class:`PairBatch`, every image of a set's pairs once. Both are normalised alike.
    Without validation pairs, the identities' own validation part (``val_size``) is used, where there is one.

    Args:
        root: Folder that holds all sets; every part is called with it.
        identities: Called with ``root``; gives the data module of identities, such as :class:`CASIAWebFaceDataModule`.
        test_pairs: Called with ``root``; give sets of pairs, such as :class:`LFWPairs` and :class:`YTFPairs`. A part
            that lies elsewhere takes an absolute folder among its own arguments.
        val_pairs: The same for validation, whose error chooses the best checkpoint; they should not be the test's.

    Raises:
        ConfigError: Two sets of a stage have one name.
        DataError: The set of identities is missing or damaged.
    """

    num_classes: int
    input_shape: tuple[int, int, int]

    def __init__(
        self,
        root: str,
        identities: Callable[[str], ImageDataModule],
        test_pairs: list[Callable[[str], VerificationPairs]] | None = None,
        val_pairs: Callable[[str], VerificationPairs] | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root).expanduser()
        self.identities = identities(str(self.root))
        self.num_classes = self.identities.num_classes
        self.input_shape = self.identities.input_shape
        self.class_names = self.identities.class_names
        self.mean, self.std = self.identities.mean, self.identities.std
        self._sources: dict[str, list[VerificationPairs]] = {
            "val": [] if val_pairs is None else [val_pairs(str(self.root))],
            "test": [make(str(self.root)) for make in test_pairs or []],
        }
        names = [source.name for source in self._sources["test"]]
        if len(set(names)) < len(names):
            raise ConfigError(f"test_pairs has several sets with one name, {some(names)}; give each a name of its own")
        self._pairs: dict[str, list[tuple[PairSet, _PairImages]]] = {}
        self._numbers: dict[SplitDataset, int] = {}

    def pair_sets(self, stage: Literal["val", "test"]) -> list[PairSet]:
        """The sets of pairs of a stage, read on the first call. DataError: a list or an image is missing."""
        return [pairs for pairs, _ in self._opened(stage)]

    def _opened(self, stage: str) -> list[tuple[PairSet, _PairImages]]:
        if stage not in self._pairs:
            opened = []
            for source in self._sources[stage]:
                pairs = source.open(self.input_shape)
                known = set(self.class_names) & set(pairs.table.identities)
                if known:
                    rank_zero_warn(
                        f"{pairs.name}: {len(known)} people of the {stage} pairs have the names of identities to train "
                        f"on ({some(sorted(known))}); where they are the same people, the figures are not those of "
                        "strangers"
                    )
                opened.append((pairs, _PairImages(pairs, self.identities)))
            self._pairs[stage] = opened
        for _, images in self._pairs[stage]:
            images.trainer = self.trainer
        self.identities.trainer = self.trainer
        return self._pairs[stage]

    def prepare_data(self) -> None:
        """Decodes into the cache what does not fit into memory."""
        self.identities.trainer = self.trainer
        self.identities.prepare_data()
        for stage in ("val", "test"):
            for _, images in self._opened(stage):
                images.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Reads what a stage needs, once the module is known to verify pairs."""
        if stage == "predict":
            raise ConfigError("pairs of faces are validated and tested, there is nothing to predict; use test")
        if stage == "test" and not self._sources["test"]:
            raise ConfigError("there are no test pairs; set test_pairs of the data module")
        module = None if self.trainer is None else self.trainer.lightning_module
        if module is not None and any(self._sources.values()) and not getattr(module, "verifies_pairs", False):
            raise ConfigError(
                f"{type(module).__name__} cannot verify pairs of faces; use VerificationModule (or a class that "
                "inherits VerifiesPairs too), or a data module without pairs"
            )
        self.identities.trainer = self.trainer
        if stage in (None, "fit", "validate"):
            self.identities.setup("fit" if stage is None else stage)
        for name in {"fit": ("val",), "validate": ("val",), "test": ("test",)}.get(stage or "", ("val", "test")):
            for _, images in self._opened(name):
                images.setup("test")

    def train_dataloader(self) -> ImageLoader:
        """Shuffled and augmented batches of this rank's training images."""
        self.identities.trainer = self.trainer
        return self.identities.train_dataloader()

    def val_dataloader(self) -> ImageLoader | list[ImageLoader]:
        """This rank's images of the validation pairs, or else of the identities' validation part."""
        if self._sources["val"]:
            return self.pair_loaders("val")
        return self.identities.val_dataloader()

    def test_dataloader(self) -> list[ImageLoader]:
        """This rank's images of the test pairs, a loader for each set."""
        return self.pair_loaders("test")

    def pair_loaders(self, stage: Literal["val", "test"]) -> list[ImageLoader]:
        """A loader for each set of a stage's pairs, of this rank's images, every image once.

        Under a Trainer its batches become :class:`PairBatch`, by their own ``to(device)`` images and items.
        """
        loaders = [images.test_dataloader() for _, images in self._opened(stage)]
        for number, loader in enumerate(loaders):
            if isinstance(loader.dataset, SplitDataset):
                self._numbers[loader.dataset] = number
        return loaders

    def analysis_dataloader(
        self, split: Literal["train", "val", "test"] = "train", batch_size: int | None = None, shard: bool = True
    ) -> ImageLoader:
        """Images of the identities in order and without augmentation, see :meth:`ImageDataModule.analysis_dataloader`.

        DataError: there is no validation part, or ``split`` is "test": pairs have no class labels.
        """
        if split == "test":
            raise DataError("the test set are pairs of faces, without class labels; analyse the split train or val")
        self.identities.trainer = self.trainer
        return self.identities.analysis_dataloader(split, batch_size, shard)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Makes ``(x, y)`` or a :class:`PairBatch` of a batch of one of this module's loaders."""
        if not isinstance(batch, DeviceBatch):
            return batch
        x, y, *_ = batch.finish()
        number = self._numbers.get(batch.dataset)
        return (x, y) if number is None else PairBatch(x, y, number)

    def preprocessing(self) -> Preprocessing:
        """What the model's inputs are: those of the identities."""
        return self.identities.preprocessing()

    def checksums(self) -> dict[str, str]:
        """Hashes of the identities in use, and of the pairs' images as "<stage>-<name>....", for a run's manifest."""
        sums = self.identities.checksums()
        for stage, opened in self._pairs.items():
            for pairs, images in opened:
                found = images.checksums()
                sums.update({f"{stage}-{pairs.name}.{key.partition('.')[2]}": value for key, value in found.items()})
                table = pairs.table
                listed = torch.stack([table.first, table.second, table.same.long(), table.folds])
                sums[f"{stage}-{pairs.name}.pairs"] = f"blake2b:{content_hash(listed)}"
        return sums
