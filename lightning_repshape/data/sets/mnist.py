"""MNIST and Fashion-MNIST, in their IDX files."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_repshape.data import download
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.errors import DataError

MNIST = ImageSet(
    name="MNIST",
    class_names=tuple("0123456789"),
    input_shape=(1, 28, 28),
    mean=(0.1307,),
    std=(0.3081,),
    val_size=10_000,
    largest=60_000,
)
FASHION_MNIST = ImageSet(
    name="FashionMNIST",
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    input_shape=(1, 28, 28),
    mean=(0.2860,),
    std=(0.3530,),
    val_size=10_000,
    largest=60_000,
)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Reads an IDX file of bytes, packed with gzip or not: uint8 of the shape that it states.

    DataError: it is no such file, of other ``dimensions``, damaged or cut off.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; it is damaged or cut off: remove it and get it again") from error
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path} is no IDX file of {dimensions} dimension(s) of bytes; remove it and get it again")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) != start + math.prod(shape):
        raise DataError(
            f"{path} has {len(content) - start:,} bytes of data, but its header states {math.prod(shape):,}; it is "
            "damaged or cut off: remove it and get it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


class MNISTDataModule(ImageDataModule):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, grey 28 x 28.

    ``root`` holds ``MNIST/raw/`` with the four IDX files, plain or packed (``.gz``), as torchvision lays them out;
    ``raw/`` or the files themselves in ``root`` are found too, also with a dot in their names
    (``train-images.idx3-ubyte``) or each in a folder of its own name. By default the last 10,000 training images are
    the validation part.
    """

    _torchvision: ClassVar[str] = "MNIST"

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        return MNIST

    def _published(self) -> Any:
        import torchvision.datasets

        return getattr(torchvision.datasets, self._torchvision)

    def load_split(self, split: SplitName) -> SplitData:
        """Reads a split as published."""
        prefix = "train" if split == "train" else "t10k"
        images, labels = (
            self._read(f"{prefix}-{kind}", size) for kind, size in (("images-idx3", 3), ("labels-idx1", 1))
        )
        if len(labels) and int(labels.max()) >= 10:
            raise DataError(
                f"{self._find(f'{prefix}-labels-idx1-ubyte')} has the label {int(labels.max())}, but there are 10 "
                "classes"
            )
        return SplitData(images[..., None], labels.long())

    def _places(self) -> list[Path]:
        return [self.root / self._torchvision / "raw", self.root / "raw", self.root]

    def _find(self, name: str) -> Path | None:
        """A file by its published name, packed or not; None: it is not there."""
        for place in self._places():
            for known in (name, name.replace("-idx", ".idx")):
                for packed in ("", ".gz"):
                    for path in (place / f"{known}{packed}", place / name / f"{known}{packed}"):
                        if path.is_file():
                            return path
        return None

    def _read(self, name: str, dimensions: int) -> Tensor:
        path = self._find(f"{name}-ubyte")
        if path is None:
            published = [file.removesuffix(".gz") for file, _ in self._published().resources]
            there = [file for file in map(self._find, published) if file is not None]
            place = self._places()[0]
            if not there:
                raise download.missing(place, self._torchvision, type(self).__name__)
            raise DataError(
                f"{self._torchvision} is not complete: {there[0]} is there, but {name}-ubyte (or .gz) is missing; get "
                "it again"
            )
        if path.suffix == ".gz":
            download.check_sum(path, dict(self._published().resources)[f"{name}-ubyte.gz"])
        return read_idx(path, dimensions)

    def download_files(self) -> None:
        """Fetches what is missing."""
        published = self._published()
        target = self.root / self._torchvision / "raw"
        if all(self._find(file.removesuffix(".gz")) is not None for file, _ in published.resources):
            return
        with download.staging(self.root, self._torchvision) as folder:
            unpacked = folder / "raw"
            os.mkdir(unpacked)
            for file, md5 in published.resources:
                urls = [mirror + file for mirror in published.mirrors]
                download.unpack(download.fetch(urls, folder / file, md5, self._torchvision), unpacked)
            download.install(unpacked, target)


class FashionMNISTDataModule(MNISTDataModule):
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, grey 28 x 28.

    ``root`` holds ``FashionMNIST/raw/``, laid out as for :class:`MNISTDataModule`. By default the last 10,000 training
    images are the validation part.
    """

    _torchvision: ClassVar[str] = "FashionMNIST"

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        return FASHION_MNIST
