"""Image files: listing them, and decoding them to uint8 images of one size."""

import hashlib
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_repshape.errors import ConfigError, DataError, did_you_mean
from lightning_repshape.terminal.progress import task

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
Fit = Literal["stretch", "crop", "exact"]
FITS: tuple[Fit, ...] = ("stretch", "crop", "exact")
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # those of the suffixes: no other decoder is started
_BITS, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # tags of TIFF and EXIF
_HASHED_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class ImageFiles:
    """Image files that are to become uint8 images of one size.

    Attributes:
        paths: The files.
        height: Rows of the result.
        width: Columns of the result.
        channels: 3 for RGB, 1 for grey.
        fit: How an image of another size is brought to this one: "stretch", or "crop", which keeps its proportions,
            makes its shorter side fit and cuts out the centre.
        exact: Whether an image of another size is an error, instead of being fitted.
        center: Rows and columns that are cut out of the middle of every image before anything else, such as (150, 150)
            of LFW's 250 x 250; None: nothing is cut.
        exif: Whether an image is turned as the camera noted in its EXIF data (TIFF: in its tags).
    """

    paths: tuple[str, ...]
    height: int
    width: int
    channels: int
    fit: Literal["stretch", "crop"] = "stretch"
    exact: bool = False
    center: tuple[int, int] | None = None
    exif: bool = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C of the decoded images."""
        return (len(self.paths), self.height, self.width, self.channels)

    @classmethod
    def of(
        cls,
        paths: Sequence[str],
        input_shape: tuple[int, int, int],
        fit: Fit = "stretch",
        center: tuple[int, int] | None = None,
        **more: Any,
    ) -> Self:
        """Files for a shape, by the option ``fit`` of data sets, whose "exact" refuses images of another size.

        Args:
            paths: The files.
            input_shape: C, H, W of the result.
            fit: How an image of another size is treated.
            center: Rows and columns to cut out of the middle first.
            **more: Further attributes of a class of one's own.
        """
        channels, height, width = input_shape
        crop: Literal["stretch", "crop"] = "stretch" if fit == "stretch" else "crop"
        return cls(tuple(paths), height, width, channels, crop, fit == "exact", center, **more)

    def select(self, rows: Tensor) -> Self:
        """The same with the files at some positions (int64) alone."""
        return replace(self, paths=tuple(self.paths[row] for row in rows.tolist()))

    def decode(self, out: Tensor | None = None) -> Tensor:
        """Decodes all files, several at a time.

        Args:
            out: uint8 N x H x W x C to write to. None: a new tensor.

        Returns:
            uint8 N x H x W x C.

        Raises:
            DataError: A file is no image, damaged, cut off or of a size that is refused; the message names it.
        """
        images = torch.empty(self.shape, dtype=torch.uint8) if out is None else out
        target = images.numpy()

        def decode_row(row: int) -> None:
            target[row] = self.decode_one(self.paths[row])

        workers = min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as pool, task("decoding images", len(self.paths)) as advance:
            for _ in pool.map(decode_row, range(len(self.paths))):
                advance(1)
        return images

    def decode_one(self, path: str) -> Any:
        """Decodes one of the files to an array, uint8 H x W x C. DataError as for :meth:`decode`."""
        from PIL import Image

        with _named(path), Image.open(self.content(path), formats=_FORMATS) as opened:
            if opened.format == "PNG":
                _check_chunks(opened.fp)
            return self.formed(opened, path)

    def formed(self, opened: Any, name: str) -> Any:
        """An opened image of PIL, which a message calls ``name``, as :meth:`decode_one` returns it."""
        import numpy as np
        from PIL import Image, ImageOps

        with _named(name):
            image = _upright(opened) if self.exif else _as_stored(opened)
            image = _eight_bits(image, opened, name).convert("RGB" if self.channels == 3 else "L")
        if self.center is not None:
            rows, columns = self.center
            if image.height < rows or image.width < columns:
                raise DataError(
                    f"the image {name} has {image.height} x {image.width} pixels, fewer than the {rows} x {columns} "
                    "that center_crop cuts out"
                )
            left, top = (image.width - columns) // 2, (image.height - rows) // 2
            image = image.crop((left, top, left + columns, top + rows))
        size = (self.width, self.height)
        if image.size != size:
            if self.exact:
                raise DataError(
                    f"the image {name} has {image.height} x {image.width} pixels instead of {self.height} x "
                    f"{self.width}; set image_size to its size, or fit to 'crop' or 'stretch'"
                )
            if self.fit == "crop":
                image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
            else:
                image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(self.height, self.width, self.channels)

    def content(self, path: str) -> Any:
        """What is opened for a path: it, or a file in memory; files within another one have a class of their own."""
        return path

    def fingerprint(self) -> str:
        """A key (32 hexadecimal digits) that changes when an image's path, size or time, their list or form does.

        DataError: a file is not there any more.
        """
        digest = hashlib.blake2b(self.form().encode(), digest_size=16)
        for path in self.paths:
            try:
                state = os.stat(path)
            except OSError as error:
                raise DataError(
                    f"cannot read the image {path}: {error}; replace it, or remove it from the list"
                ) from error
            digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def form(self) -> str:
        """A line with everything but the files that the decoded images depend on, for :meth:`fingerprint`."""
        return repr((self.shape, self.fit, self.center, self.exact, self.exif))


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Names the image that a decoder stumbles over."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise DataError(
            f"cannot read the image {path}: {error or type(error).__name__}; it is damaged, cut off or no image: "
            "replace or remove it"
        ) from error


def _check_chunks(file: Any) -> None:
    """Raises ValueError unless each chunk of a PNG file has its checksum; PIL looks at some of them alone."""
    place = file.tell()
    file.seek(len(b"\x89PNG\r\n\x1a\n"))
    content, start = memoryview(file.read()), 0
    while start < len(content):  # four bytes of length, four of kind, the content, four of checksum
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        if zlib.crc32(content[start + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise ValueError("a checksum is wrong")
        if bytes(content[start + 4 : start + 8]) == b"IEND":
            break
        start = end + 4
    file.seek(place)


def _orientation(image: Any) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF data that cannot be read say nothing
        return 1
    return found if found in range(1, 9) else 1


def _turned(image: Any, orientation: int, back: bool = False) -> Any:
    """An image turned (or turned back) by an EXIF orientation."""
    from PIL.Image import Transpose

    turns = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM}
    turns |= {5: Transpose.TRANSPOSE, 7: Transpose.TRANSVERSE}
    left, right = Transpose.ROTATE_90, Transpose.ROTATE_270
    turns |= {6: left, 8: right} if back else {6: right, 8: left}
    return image.transpose(turns[orientation]) if orientation in turns else image


def _upright(opened: Any) -> Any:
    opened.load()
    return _turned(opened, _orientation(opened))  # of a TIFF file that PIL has turned, nothing is left to do


def _as_stored(opened: Any) -> Any:
    noted = _orientation(opened)
    opened.load()
    return opened if _orientation(opened) == noted else _turned(opened, noted, back=True)


def _eight_bits(image: Any, opened: Any, path: str) -> Any:
    """The image with 8 bits a channel: PIL would clip more bits to 8 instead of scaling them."""
    import numpy as np
    from PIL import Image

    deep = image.mode.startswith("I;16") or (image.mode == "I" and opened.format in ("PNG", "PPM"))
    if not deep and image.mode[0] in "IF":
        raise DataError(
            f"the image {path} has 32 bits or signed numbers a pixel (PIL's mode {image.mode}), of which nobody knows "
            "what is white; save it with 8 or 16 bits"
        )
    if not deep:
        return image
    tags = opened.tag_v2 if opened.format == "TIFF" else {}
    bits = tags.get(_BITS, (16,))[0]
    values = np.asarray(image) >> (bits - 8)
    return Image.fromarray((255 - values if tags.get(_PHOTOMETRIC) == 0 else values).astype(np.uint8))


def content_hash(array: Tensor) -> str:
    """Hash of a CPU tensor's values, shape and type: 32 hexadecimal digits (BLAKE2b)."""
    digest = hashlib.blake2b(f"{array.dtype}{tuple(array.shape)}".encode(), digest_size=16)
    step = max(1, _HASHED_AT_ONCE // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), step):  # a part at a time, because a mapped file need not fit into memory
        digest.update(array[start : start + step].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def list_images(folders: Sequence[Path]) -> list[list[str]]:
    """For each folder, the paths of the image files in it and below it, sorted.

    Hidden files are left out silently, others that are no images (by their suffix) with one warning that names them.
    """
    listed: list[list[str]] = []
    others: list[str] = []
    for folder in folders:
        images: list[str] = []
        for path in _files_below(str(folder), ()):
            (images if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES else others).append(path)
        listed.append(images)
    if others:
        rank_zero_warn(f"left out {len(others)} file(s) that are no images: {some(others, 3)}")
    return listed


def _files_below(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The files in a folder, then those of its folders, sorted; links are followed. DataError: one leads back up."""
    try:
        state = os.stat(folder)
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if not _hidden(entry.name))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the folder {folder}: {error}") from error
    here = (state.st_dev, state.st_ino)
    if here in above:
        raise DataError(f"the folder {folder} is a link to a folder that it lies in; remove the link")
    yield from (os.path.join(folder, name) for name, is_folder in found if not is_folder)
    for name, is_folder in found:
        if is_folder:
            yield from _files_below(os.path.join(folder, name), (*above, here))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def list_labelled(folders: Sequence[Path], labels: Sequence[int]) -> tuple[list[str], list[int]]:
    """Paths and labels of the images in class folders, see :func:`list_images`. DataError: a folder holds none."""
    paths: list[str] = []
    repeated: list[int] = []
    for folder, label, found in zip(folders, labels, list_images(folders), strict=True):
        if not found:
            raise DataError(f"no images in the class folder {folder}; fill or remove it")
        paths += found
        repeated += [label] * len(found)
    return paths, repeated


def class_folders(folder: Path) -> list[str]:
    """Names of the folders inside a folder, sorted, without hidden ones. DataError: it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name))
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error}") from error


def check_not_nested(folder: Path, names: Sequence[str], option: str) -> None:
    """Refuses a folder of class folders that lies one folder further down, where all of it would be one class.

    DataError, which names that folder and the ``option`` to set: the only class has no images of its own, but folders,
    or the classes are named as the parts of a set.
    """
    if len(names) == 1:
        below = folder / names[0]
        inner = class_folders(below)
        direct = any(os.path.splitext(entry)[1].lower() in IMAGE_SUFFIXES for entry in os.listdir(below))
        if inner and not direct:
            raise DataError(
                f"{folder} holds the folder {names[0]!r} alone, which has no images of its own, but {len(inner)} "
                f"folder(s) ({some(inner, 3)}): the classes are those of {below}; {option}"
            )
    parts = {"train", "test", "val", "valid", "validation"}
    if len(names) > 1 and parts.issuperset(name.lower() for name in names):
        raise DataError(f"the class folders in {folder} are named as parts of a set ({some(names)}); {option}")


def natural_order(names: list[str]) -> list[str]:
    """Sorts names so that numbers in them count as numbers: "s2" before "s10"."""

    def key(name: str) -> tuple[list[int | str], str]:
        # Text and numbers alternate, beginning with text, so that like is compared with like.
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name

    return sorted(names, key=key)


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first of some names, for a message, such as "a, b, ..."; of long ones the beginning."""
    return ", ".join(name if len(name) <= 200 else f"{name[:200]} ..." for name in names[:limit]) + (
        ", ..." if len(names) > limit else ""
    )


def read_lines(path: Path, remedy: str) -> list[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers, without blanks around them.

    UTF-8, with a byte-order mark or without. DataError, which ends in the ``remedy``: it cannot be read, or holds a
    null byte, which no path may.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; {remedy}") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    broken = next((number for number, line in lines if "\0" in line), None)
    if broken is not None:
        raise DataError(f"cannot read {path}: line {broken} holds a null byte; {remedy}")
    return lines


def whole_number(word: str) -> int | None:
    """The number that a word of digits 0 to 9 means, where it fits into 64 bits; else None."""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 18 else None


def check_fit(where: str, fit: str, choices: Sequence[str] = ("stretch", "crop")) -> None:
    """Raises ConfigError unless the option ``fit`` is one of the choices."""
    if fit not in choices:
        raise ConfigError(f"{where}: fit={fit!r}{did_you_mean(str(fit), choices)}")


def both_sides(where: str, option: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of an option that takes one number for both, too. ConfigError: one is below 1."""
    sides = (size, size) if isinstance(size, int) else (size[0], size[1])
    if min(sides) < 1:
        raise ConfigError(f"{where}: {option}={size}, but it must be at least 1")
    return sides


def check_channels(
    where: str, channels: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, checked.

    ConfigError: ``channels`` is neither 1 nor 3, there are other numbers of values, or a standard deviation is not
    positive.
    """
    if channels not in (1, 3):
        raise ConfigError(f"{where}: channels={channels}, but it must be 1 (grey) or 3 (colour)")
    for option, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ConfigError(f"{where}: {option}={values} has {len(values)} values for {channels} channel(s)")
    if min(std) <= 0:
        raise ConfigError(f"{where}: std={std}, but every value must be positive")
    return tuple(mean), tuple(std)
