"""CIFAR-10 and CIFAR-100, in their Python pickles, and further test sets for them: CIFAR-10.1 and CIFAR-C."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from lightning_repshape.data import download
from lightning_repshape.data.further import (
    GeneralizationSet,
    TestImages,
    check_array,
    match_classes,
    match_shape,
    read_array,
)
from lightning_repshape.data.matlab import read_matlab
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.errors import ConfigError, DataError, did_you_mean

CIFAR10 = ImageSet(
    name="CIFAR-10",
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    input_shape=(3, 32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    val_size=10_000,
    largest=50_000,
)
CIFAR100 = ImageSet(
    name="CIFAR-100",
    class_names=tuple(
        """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
        mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
        plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
    ),
    input_shape=(3, 32, 32),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    val_size=10_000,
    largest=50_000,
)


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images of ten kinds of things, colour 32 x 32.

    ``root`` holds ``cifar-10-batches-py/`` (the authors' Python version), or is that folder. Every file's MD5 sum is
    checked against the published one before it is read; the files may end in ``.pkl``. The authors' binary and MATLAB
    versions (``cifar-10-batches-bin/``, ``cifar-10-batches-mat/``) are read where the former is not there. By default
    the last 10,000 training images (the fifth batch) are the validation part.
    """

    _torchvision: ClassVar[str] = "CIFAR10"
    _label_key: ClassVar[str] = "labels"
    _label_bytes: ClassVar[int] = 1
    _other_versions: ClassVar[tuple[str, str]] = ("cifar-10-batches-bin", "cifar-10-batches-mat")

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        return CIFAR10

    def _published(self) -> Any:
        import torchvision.datasets

        return getattr(torchvision.datasets, self._torchvision)

    def load_split(self, split: SplitName) -> SplitData:
        """Reads a split as published."""
        published = self._published()
        parts = published.train_list if split == "train" else published.test_list
        found = self._find(parts[0][0])
        if found is None:
            raise download.missing(self.root / published.base_folder, self.described.name, type(self).__name__)
        folder, suffix = found
        images, labels = [], []
        classes = len(self.described.class_names)
        for name, md5 in parts:
            path = folder / f"{name}{suffix}"
            if suffix in ("", ".pkl"):
                download.check_sum(path, md5)  # before unpickling, which runs what the file says
            try:
                pixels, targets = self._read(path)
                images.append(pixels.view(-1, 3, 32, 32).permute(0, 2, 3, 1))
                labels.append(targets)
            except Exception as error:  # a damaged file can raise anything
                raise DataError(f"cannot read {path}: {error!r}; it is damaged: remove it and get it again") from error
            right = pixels.dtype == torch.uint8 and len(pixels) == len(targets) > 0 and targets.dim() == 1
            if not right or not 0 <= int(targets.min()) <= int(targets.max()) < classes:
                raise DataError(
                    f"{path} has {len(pixels)} images and labels that do not fit; remove it and get it again"
                )
        return SplitData(torch.cat(images).contiguous(), torch.cat(labels))

    def _find(self, name: str) -> tuple[Path, str] | None:
        """The folder of a published file in the first of the versions that is there, and the files' suffix."""
        base = self._published().base_folder
        binary, matlab = self._other_versions
        for version, suffix in ((base, ""), (base, ".pkl"), (binary, ".bin"), (matlab, ".mat")):
            for folder in (self.root / version, self.root):
                if (folder / f"{name}{suffix}").is_file():
                    return folder, suffix
        return None

    def _read(self, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels N x 3072 and labels of a file of any version, raising anything where it is damaged."""
        if path.suffix == ".bin":
            rows = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8).view(-1, self._label_bytes + 3072)
            return rows[:, self._label_bytes :].contiguous(), rows[:, self._label_bytes - 1].long()
        if path.suffix == ".mat":
            arrays = read_matlab(path)
            pixels, targets = arrays["data"], arrays[self._label_key]
            if targets.dtype.kind not in "iu":
                raise ValueError(f"labels are {targets.dtype}")
            return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(targets.astype("int64")).flatten()
        with open(path, "rb") as file:
            entry = pickle.load(file, encoding="latin1")
        return torch.from_numpy(entry["data"]), torch.tensor(entry[self._label_key])

    def download_files(self) -> None:
        """Fetches what is missing."""
        published = self._published()
        names = [name for name, _ in published.train_list + published.test_list]
        found = self._find(names[0])
        if found is not None and all((found[0] / f"{name}{found[1]}").is_file() for name in names):
            return
        download.install_archive(self.root, published, names, self.described.name)


class CIFAR100DataModule(CIFAR10DataModule):
    """CIFAR-100: 50,000 training and 10,000 test images of a hundred kinds of things (the fine labels), colour 32 x 32.

    ``root`` holds ``cifar-100-python/`` (or ``cifar-100-binary/``, ``cifar-100-matlab/``), or is that folder. Checks
    and defaults as for :class:`CIFAR10DataModule`; with fewer ``classes``, give a ``val_size`` that suits what is left
    of them (500 training images a class).
    """

    _torchvision: ClassVar[str] = "CIFAR100"
    _label_key: ClassVar[str] = "fine_labels"
    _label_bytes: ClassVar[int] = 2  # the coarse label comes first
    _other_versions: ClassVar[tuple[str, str]] = ("cifar-100-binary", "cifar-100-matlab")

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        return CIFAR100


_CIFAR101_URL = "https://github.com/modestyachts/CIFAR-10.1/raw/master/datasets/"
# SHA-256 of the published files, as TensorFlow Datasets lists them for its own cifar10_1.
_CIFAR101_FILES = {
    "v4": (
        ("cifar10.1_v4_data.npy", "5aaedc268df8f4cffca2ac0cf9e608ae1897a8cddb630c7a850a2ea8f6558e75"),
        ("cifar10.1_v4_labels.npy", "1f9544300ded199539b6662364ce7fe6c2e1ea9f87408f06db4b1a6184cffb18"),
    ),
    "v6": (
        ("cifar10.1_v6_data.npy", "2997188e5816f5bd545dc77771b6227828c28146049fcecf3fa10775474cacc6"),
        ("cifar10.1_v6_labels.npy", "ae40beda001693674edc94d925ee8268cfe68905f8f9aff800c8dcdfcd6c9448"),
    ),
}
_CIFAR101_PLACES = ("cifar-10.1", "CIFAR-10.1/datasets", "datasets", "")
_CIFAR101_SIZES = {"v4": 2021, "v6": 2000}


class CIFAR101(GeneralizationSet):
    """CIFAR-10.1: some 2,000 new test images for CIFAR-10 (Recht, Roelofs, Schmidt and Shankar, 2018).

    ``root`` holds the authors' files ``cifar10.1_v6_data.npy`` and ``cifar10.1_v6_labels.npy``, by themselves, in
    ``cifar-10.1/``, or in a clone of the authors' repository (``CIFAR-10.1/datasets/``). Checksum (SHA-256), shape and
    type of both files are checked.

    Args:
        root: Folder that holds the files.
        version: "v6" (2,000 images, as many of each class; the authors' recommendation) or "v4" (2,021 images).
        download: Whether to download what is missing, into ``cifar-10.1/`` in ``root``.

    Raises:
        ConfigError: There is no such version.
    """

    def __init__(self, root: str = "data", version: Literal["v4", "v6"] = "v6", download: bool = False) -> None:
        super().__init__(f"cifar10.1-{version}")
        if version not in _CIFAR101_FILES:
            raise ConfigError(f"CIFAR101: version={version!r}{did_you_mean(str(version), _CIFAR101_FILES)}")
        self.root = Path(root).expanduser()
        self.version = version
        self.download = download

    def prepare(self) -> None:
        """Downloads the two files where ``download`` is on and they are not there."""
        published = _CIFAR101_FILES[self.version]
        if not self.download or any(
            all((self.root / place / name).is_file() for name, _ in published) for place in _CIFAR101_PLACES
        ):
            return
        with download.staging(self.root, "CIFAR-10.1") as folder:
            part = folder / "cifar-10.1"
            part.mkdir()
            for name, checksum in published:
                download.fetch([_CIFAR101_URL + name], part / name, checksum, "CIFAR-10.1")
            download.install(part, self.root / "cifar-10.1")

    def open(self, class_names: Sequence[str], input_shape: tuple[int, int, int]) -> TestImages:
        """Reads both files; the model must be one of CIFAR-10's classes and size."""
        table = match_classes("CIFAR-10.1", CIFAR10.class_names, class_names)
        match_shape("CIFAR-10.1", (32, 32, 3), input_shape)
        published = _CIFAR101_FILES[self.version]
        folder = download.find_folder(
            self.root, _CIFAR101_PLACES, published[0][0], f"CIFAR-10.1 {self.version}", "CIFAR101"
        )
        paths = []
        for name, checksum in published:
            download.check_sum(folder / name, checksum)
            paths.append(folder / name)
        images, labels = (read_array(path, "CIFAR-10.1") for path in paths)
        count = _CIFAR101_SIZES[self.version]
        check_array(images, paths[0], "CIFAR-10.1", (count, 32, 32, 3), "uint8")
        check_array(labels, paths[1], "CIFAR-10.1", (count,), "integer")
        return TestImages(table[_labels(labels, 10, paths[1], "CIFAR-10.1")], torch.from_numpy(images))


CIFAR_C_CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
)
"""The published corruptions: the benchmark's fifteen, then four more meant for validation."""


class CIFARC(GeneralizationSet):
    """CIFAR-10-C or CIFAR-100-C: published corrupted copies of the test set (Hendrycks and Dietterich, 2019).

    ``root`` is the unpacked folder (or holds it, as ``CIFAR-10-C/`` or ``CIFAR-100-C/``): ``labels.npy`` and one file a
    corruption, uint8 50,000 x 32 x 32 x 3, severity 1 first. Images are mapped from their files, not read into memory.

    Args:
        root: The folder.
        corruptions: Which corruptions. None: all 19.
        name: Name in keys and tables. None: "cifar10-c" or "cifar100-c" after the folder.

    Raises:
        ConfigError: There is no such corruption; the message names the nearest.
    """

    def __init__(
        self, root: str = "data/CIFAR-10-C", corruptions: list[str] | None = None, name: str | None = None
    ) -> None:
        self.root = Path(root).expanduser()
        self.corruptions = tuple(dict.fromkeys(CIFAR_C_CORRUPTIONS if corruptions is None else corruptions))
        for corruption in self.corruptions:
            if corruption not in CIFAR_C_CORRUPTIONS:
                near = did_you_mean(corruption, CIFAR_C_CORRUPTIONS)
                raise ConfigError(f"CIFARC: there is no corruption {corruption!r}{near}")
        if not self.corruptions:
            raise ConfigError("CIFARC: corruptions is empty; leave it out to take all")
        super().__init__(name or ("cifar100-c" if "100" in self.root.name else "cifar10-c"))

    def open(self, class_names: Sequence[str], input_shape: tuple[int, int, int]) -> TestImages:
        """Maps the files; the model must be one of the set's classes."""
        places = (self.root, self.root / "CIFAR-10-C", self.root / "CIFAR-100-C")
        folder = next((place for place in places if (place / "labels.npy").is_file()), self.root)
        wanted = [folder / f"{corruption}.npy" for corruption in self.corruptions]
        missing = [path.name for path in (folder / "labels.npy", *wanted) if not path.is_file()]
        if missing:
            raise DataError(
                f"{folder} is not a complete CIFAR-C folder: {', '.join(missing)} missing; get the set again, or name "
                "the corruptions that are there with corruptions=[...]"
            )
        path = folder / "labels.npy"
        found = read_array(path, "CIFAR-C")
        check_array(found, path, "CIFAR-C", (None,), "integer")
        count = len(found) // 5
        blocks = torch.from_numpy(found[: 5 * count].astype("int64")).view(5, count)
        if not count or len(found) % 5 or not bool((blocks == blocks[0]).all()):
            raise DataError(f"{path}: {len(found)} labels are not five times the same ones; get the file again")
        described = CIFAR10 if int(blocks.max()) < 10 else CIFAR100
        table = match_classes(f"{folder.name} ({described.name})", described.class_names, class_names)
        labels = table[_labels(found[:count], len(table), path, "CIFAR-C")]
        match_shape(folder.name, (32, 32, 3), input_shape)
        corrupted = {}
        for corruption, file in zip(self.corruptions, wanted, strict=True):
            images = read_array(file, "CIFAR-C", mapped=True)
            check_array(images, file, "CIFAR-C", (5 * count, 32, 32, 3), "uint8")
            corrupted[corruption] = torch.from_numpy(images)
        return TestImages(labels, None, corrupted)


def _labels(found: Any, classes: int, path: Path, name: str) -> torch.Tensor:
    labels = torch.from_numpy(found.astype("int64"))
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"{name}: labels in {path} go from {int(labels.min())} to {int(labels.max())}, expected 0 to {classes - 1}"
        )
    return labels
