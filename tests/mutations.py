"""Files damaged in every way that a seeded generator finds; every reader gives the right read or one DataError.

The suite reads some tens of damaged files a reader (``tests/data/test_mutations.py``), and
``benchmarks/mutated_files.py`` a thousand.
"""

import random
import shutil
import signal
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import published_formats as formats
import pytest
import torch
from PIL import Image
from study_runs import own

from lightning_repshape import configs_library
from lightning_repshape.analyses.arrays import read_arrays, splits_of
from lightning_repshape.data import (
    CIFAR101,
    CIFARC,
    CASIAWebFaceDataModule,
    CIFAR10DataModule,
    LFWPairs,
    MNISTDataModule,
    PairsFile,
    STL10DataModule,
    TinyImageNetDataModule,
    YTFPairs,
)
from lightning_repshape.data.files import ImageFiles
from lightning_repshape.data.module import SplitData
from lightning_repshape.data.sets.cifar import CIFAR10
from lightning_repshape.data.sets.mnist import read_idx
from lightning_repshape.errors import RepshapeError
from lightning_repshape.runs.checkpoints import read_checkpoint
from lightning_repshape.runs.curves import MetricsCSVLogger
from lightning_repshape.studies.reading import read_studies

SECONDS = 20
"""A read of these tiny files that takes longer hangs."""
_SIZES = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS = (
    "²",
    "٣",
    "9" * 20,
    "9" * 5000,
    "-1",
    "nan",
    "1e400",
    "\0",
    "/",
    "..",
    "\\",
    "\ufeff",
    '"',
    ",",
    "\t",
    "\r",
    "",
)


class Hang(BaseException):
    """Raised by the alarm; no reader's ``except`` takes it for an error of a file."""


@dataclass
class Reader:
    """A reader and files for it.

    Attributes:
        name: For the table.
        write: Writes a set into a folder, and says which files are damaged.
        read: Reads it whole.
        exact: Whether the format has checksums, so that nothing but the right content may be read.
    """

    name: str
    write: Callable[[Path, pytest.MonkeyPatch], list[Path]]
    read: Callable[[Path], Any]
    exact: bool = False


@dataclass
class Outcome:
    """What became of a reader's damaged files: how many of each kind, and what should not have been."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def damaged(content: bytes, source: random.Random) -> bytes:
    """Content with one damage: flipped bits, a cut, a size field, a piece lost or doubled, a word put in, or text in
    another encoding."""
    kind = source.choice(("bits", "bits", "cut", "size", "lost", "doubled", "word", "encoding"))
    if not content:
        return b"\0"
    # Headers, and directories at the end, are where readers decide; pixels in between are the most.
    ends = source.random()
    place = source.randrange(min(len(content), 256)) if ends < 0.6 else source.randrange(len(content))
    if ends > 0.9:
        place = len(content) - 1 - source.randrange(min(len(content), 256))
    changed = bytearray(content)
    if kind == "encoding":
        try:
            return f"# größe\n{content.decode()}".encode(source.choice(("latin-1", "utf-16", "utf-16-le", "utf-32")))
        except UnicodeError:
            kind = "bits"  # it is no text
    if kind == "bits":
        for offset in range(source.choice((1, 1, 2, 8))):
            changed[(place + offset) % len(changed)] ^= 1 << source.randrange(8)
    elif kind == "cut":
        del changed[place:]
    elif kind == "size":
        size = source.choice(_SIZES)
        packed = struct.pack(source.choice("<>") + "I", size)[: source.choice((2, 4))]
        changed[place : place + len(packed)] = packed
    elif kind == "lost":
        del changed[place : place + source.choice((1, 2, 16, 300))]
    elif kind == "doubled":
        piece = changed[place : place + source.choice((1, 4, 40, 300))]
        changed[place:place] = piece
    else:
        word = source.choice(_WORDS).encode()
        changed[place : place + source.choice((0, 1, 2, 6))] = word
    return bytes(changed)


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _flat(read: Any) -> list[Any]:
    """What a read gave, for comparisons."""
    if isinstance(read, torch.Tensor):
        return [tuple(read.shape), read.double().flatten().nan_to_num().tolist()]
    if isinstance(read, np.ndarray):
        return [read.tolist()]
    if isinstance(read, dict):
        return [(str(key), _flat(value)) for key, value in read.items()]
    if isinstance(read, list | tuple):
        return [_flat(value) for value in read]
    return [str(read)]


def damage(reader: Reader, folder: Path, count: int, seed: int = 0) -> Outcome:
    """Reads so many damaged copies of a reader's files.

    Args:
        reader: The reader.
        folder: An empty folder.
        count: How many.
        seed: Decides the damages.

    Returns:
        Files that were read as they were ("same"), read otherwise ("other", where no checksum could tell) or refused
        with a RepshapeError that is one line and names a file ("refused"); and faults.
    """
    outcome = Outcome()
    source = random.Random(f"{reader.name} {seed}")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        targets = reader.write(folder, patch)
        right = _flat(reader.read(folder))
        for number in range(count):
            target = source.choice(targets)
            content = target.read_bytes()
            target.write_bytes(damaged(content, source))
            told = f"{reader.name} {number} ({target.name})"
            try:
                with _alarm():
                    found = _flat(reader.read(folder))
                kind = "same" if found == right else "other"
                if reader.exact and kind == "other":
                    outcome.faults.append(f"{told}: other content without a word")
            except RepshapeError as error:
                kind = "refused"
                if "\n" in str(error) or len(str(error)) > 2000 or folder.name not in str(error):
                    outcome.faults.append(f"{told}: not one line that names the file: {str(error)[:300]!r}")
            except Hang:
                kind = "hangs"
                outcome.faults.append(f"{told}: hangs")
            except Exception as error:
                kind = "other exception"
                outcome.faults.append(f"{told}: {error!r:.300}")
            outcome.counts[kind] += 1
            target.write_bytes(content)
    return outcome


def _idx(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_mnist(folder)
    return sorted(folder.glob("train-*"))


def _mnist(folder: Path) -> Any:
    module = MNISTDataModule(root=str(folder), val_size=10)
    module.setup("fit")
    return module.images("train"), module.labels("train")


def _packed_idx(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_mnist(folder, packed=True)
    return [folder / "train-images-idx3-ubyte.gz"]


def _pickles(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_cifar(folder, patch)
    return sorted(folder.glob("data_batch_*"))


def _binary(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_cifar_binary(folder, patch)
    return sorted(folder.glob("data_batch_*"))


def _matlab(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_cifar_matlab(folder, patch)
    return sorted(folder.glob("data_batch_*"))


def _cifar(folder: Path) -> SplitData:
    module = CIFAR10DataModule(root=str(folder), val_size=0)
    module.setup("fit")
    return SplitData(module.images("train"), module.labels("train"))


def _stl10(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_stl10(folder, patch)
    return [folder / "train_X.bin", folder / "train_y.bin", folder / "test_y.bin"]


def _stl10_folds(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_stl10(folder, patch)
    return [folder / "fold_indices.txt"]


def _read_fold(folder: Path) -> Any:
    return STL10DataModule(root=str(folder), fold=3).load_split("train").labels


def _tiny(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_tiny(folder)
    return [folder / "wnids.txt", folder / "words.txt", folder / "val" / "val_annotations.txt"]


def _read_tiny(folder: Path) -> Any:
    module = TinyImageNetDataModule(root=str(folder))
    return [(part.labels, list(part.names or [])) for part in map(module.load_split, ("train", "test"))]


def _cifar101(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_cifar101(folder, patch)
    return sorted(folder.glob("*.npy"))


def _read_cifar101(folder: Path) -> Any:
    found = CIFAR101(str(folder)).open(CIFAR10.class_names, (3, 32, 32))
    return found.labels, None if found.images is None else found.images.flatten()[::999]


def _cifar_c(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_cifar_c(folder, ("fog", "snow"))
    return sorted(folder.glob("*.npy"))


def _read_cifar_c(folder: Path) -> Any:
    found = CIFARC(str(folder), ["fog", "snow"]).open(CIFAR10.class_names, (3, 32, 32))
    return found.labels, [images.flatten()[::97] for images in found.corrupted.values()]


def _image(suffix: str, mode: str = "RGB") -> Callable[[Path, pytest.MonkeyPatch], list[Path]]:
    def write(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
        path = folder / f"image{suffix}"
        picture = Image.fromarray(formats.pixels(24, 20, 3)).resize((40, 48))
        if mode == "I;16":
            picture = Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 257)
        exif = Image.Exif()
        exif[274] = 6
        content = BytesIO()
        picture.save(content, Image.registered_extensions()[suffix], **({"exif": exif} if suffix == ".jpg" else {}))
        path.write_bytes(content.getvalue())
        return [path]

    return write


def _decode(folder: Path) -> Any:
    return ImageFiles.of([str(path) for path in sorted(folder.iterdir())], (3, 12, 10)).decode()


def _records(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    path = formats.write_rec(folder)
    return [path, path, path.with_suffix(".idx")]


def _walked(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    path = formats.write_rec(folder)
    path.with_suffix(".idx").unlink()
    return [path]


def _faces(folder: Path) -> Any:
    module = CASIAWebFaceDataModule(root=str(folder), image_size=(24, 20))
    module.setup("fit")
    return module.images("train"), module.labels("train")


def _lfw(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_lfw(folder / "lfw")
    (folder / "pairs.txt").write_text(formats.LFW_LIST)
    return [folder / "pairs.txt"]


def _lfw_rows(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_lfw(folder / "lfw")
    (folder / "pairs.csv").write_text(formats.lfw_table())
    return [folder / "pairs.csv"]


def _pairs(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_people(folder)
    (folder / "pairs.txt").write_text(
        "s1/1.png s1/2.png 1 0\ns1/1.png s2/2.png 0 0\ns3/1.png,s3/2.png,1,1\ns3/1.png,s4/1.png,0,1\n"
    )
    return [folder / "pairs.txt"]


def _ytf(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    formats.write_ytf(folder)
    return [folder / "splits.txt"]


def _opened(pairs: Any) -> Any:
    found = pairs.open((1, 8, 8))
    return found.images.paths, *found.table


def _features(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    source = np.random.default_rng(0)
    arrays = {"features": source.normal(size=(30, 4)).astype(np.float32), "labels": np.arange(30) % 3}
    names = np.array(["a", "b", "c"])
    np.savez_compressed(folder / "features.npz", **arrays, class_names=names)
    return [folder / "features.npz"]


def _read_features(folder: Path) -> Any:
    path = folder / "features.npz"
    arrays = read_arrays(path)
    return arrays, splits_of(arrays, path)


def _curves(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    logger = MetricsCSVLogger(folder)
    for step in range(6):
        logger.log_metrics({"epoch": step // 2, "train/loss": 1 / (step + 1), "val/error": 0.5}, step)
    logger.finalize("success")
    return [folder / "metrics.csv"]


def _resume(folder: Path) -> Any:
    logger = MetricsCSVLogger(folder)
    logger.truncate(2)
    logger.log_metrics({"epoch": 2, "train/loss": 0.1}, 9)
    return logger.rows


def _config(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    path = folder / "quickstart.yaml"
    path.write_text(configs_library.find("quickstart").read_text(encoding="utf-8"), encoding="utf-8")
    return [path]


def _study(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    return [own(folder)]


def _checkpoint(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    state = {"weight": torch.arange(6.0), "bias": torch.zeros(2, dtype=torch.bfloat16)}
    torch.save({"state_dict": state, "hyper_parameters": {"lr": 0.1}, "epoch": 3}, folder / "last.ckpt")
    return [folder / "last.ckpt"]


READERS: tuple[Reader, ...] = (
    Reader("IDX", _idx, _mnist),
    Reader("IDX, packed", _packed_idx, lambda folder: read_idx(folder / "train-images-idx3-ubyte.gz", 3), exact=True),
    Reader("CIFAR-10 pickles", _pickles, _cifar, exact=True),
    Reader("CIFAR-10 binary", _binary, _cifar),
    Reader("CIFAR-10 MATLAB", _matlab, _cifar),
    Reader("CIFAR-10.1", _cifar101, _read_cifar101, exact=True),
    Reader("CIFAR-C", _cifar_c, _read_cifar_c),
    Reader("STL-10", _stl10, lambda folder: STL10DataModule(root=str(folder)).load_split("train")[:2], exact=True),
    Reader("STL-10 folds", _stl10_folds, _read_fold),
    Reader("Tiny ImageNet lists", _tiny, _read_tiny),
    *(Reader(f"image {suffix[1:].upper()}", _image(suffix), _decode) for suffix in (".bmp", ".gif", ".jpg", ".ppm")),
    *(Reader(f"image {suffix[1:].upper()}", _image(suffix), _decode) for suffix in (".tif", ".webp")),
    *(Reader(f"image {kind}, 16 bit", _image(f".{kind}", "I;16"), _decode) for kind in ("pgm", "tif")),
    Reader("image PNG", _image(".png"), _decode, exact=True),
    Reader("image PNG, 16 bit", _image(".png", "I;16"), _decode, exact=True),
    Reader("RecordIO", _records, _faces),
    Reader("RecordIO without index", _walked, _faces),
    Reader("LFW pairs.txt", _lfw, lambda folder: _opened(LFWPairs(str(folder)))),
    Reader("LFW pairs.csv", _lfw_rows, lambda folder: _opened(LFWPairs(str(folder)))),
    Reader("pairs of one's own", _pairs, lambda folder: _opened(PairsFile(str(folder)))),
    Reader("YouTube Faces splits.txt", _ytf, lambda folder: _opened(YTFPairs(str(folder)))),
    Reader("features .npz", _features, _read_features, exact=True),
    Reader("metrics.csv on resume", _curves, _resume),
    Reader("config", _config, lambda folder: configs_library.read(folder / "quickstart.yaml")),
    Reader("study file", _study, lambda folder: read_studies(folder / "mine.yaml")),
    Reader("checkpoint", _checkpoint, lambda folder: read_checkpoint(folder / "last.ckpt")),
)


def damage_in(reader: Reader, parent: Path, count: int, seed: int = 0) -> Outcome:
    """The same in a folder of its own, which is removed."""
    folder = parent / "damaged-files"
    folder.mkdir()
    try:
        return damage(reader, folder, count, seed)
    finally:
        shutil.rmtree(folder)
