"""Image files: listing, decoding, the memory-mapped cache, and downloads that leave nothing half-written."""

import contextlib
import hashlib
import math
import os
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_repshape.errors import DataError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_CLUTTER = frozenset({"thumbs.db", "desktop.ini"})
_CHUNK = 1 << 20


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
    """

    paths: tuple[str, ...]
    height: int
    width: int
    channels: int
    fit: Literal["stretch", "crop"] = "stretch"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C of the decoded images."""
        return (len(self.paths), self.height, self.width, self.channels)

    def select(self, rows: Tensor) -> "ImageFiles":
        """The same with some of the files.

        Args:
            rows: int64, positions of the files.

        Returns:
            The files at these positions.
        """
        return replace(self, paths=tuple(self.paths[row] for row in rows.tolist()))

    def decode(self, out: Tensor | None = None) -> Tensor:
        """Decodes all files, several at a time.

        Args:
            out: uint8 N x H x W x C to write to. Default: a new tensor.

        Returns:
            uint8 N x H x W x C.

        Raises:
            DataError: A file is no image, damaged or cut off; the message names it.
        """
        images = torch.empty(self.shape, dtype=torch.uint8) if out is None else out
        target = images.numpy()

        def decode_one(row: int) -> None:
            target[row] = self._decode_one(self.paths[row])

        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(decode_one, range(len(self.paths))):
                pass
        return images

    def _decode_one(self, path: str) -> Any:
        import numpy as np
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(path) as opened:
                image: Image.Image = opened
                if image.mode.startswith("I;16"):  # PIL would clip 16 bits to 8 instead of scaling them
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                image = image.convert("RGB" if self.channels == 3 else "L")
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"cannot read the image {path}: {error}; it is damaged, cut off or no image: replace or remove it"
            ) from error
        if image.size != (self.width, self.height):
            if self.fit == "crop":
                image = ImageOps.fit(image, (self.width, self.height), Image.Resampling.BILINEAR)
            else:
                image = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(self.height, self.width, self.channels)


def list_images(folders: Sequence[Path]) -> list[list[str]]:
    """The image files in folders and the folders below them, in the order of their paths.

    Hidden files are left out silently, others that are no images (by their suffix) with one warning that names them.

    Args:
        folders: Where to look.

    Returns:
        For each folder its files' paths.
    """
    listed: list[list[str]] = []
    others: list[str] = []
    for folder in folders:
        images: list[str] = []
        for parent, below, names in os.walk(folder, followlinks=True):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(names):
                if name.startswith(".") or name.lower() in _CLUTTER:
                    continue
                is_image = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
                (images if is_image else others).append(os.path.join(parent, name))
        listed.append(images)
    if others:
        named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        rank_zero_warn(f"left out {len(others)} file(s) that are no images: {named}")
    return listed


def class_folders(folder: Path) -> list[str]:
    """Names of the folders inside a folder, sorted, without hidden ones.

    Args:
        folder: Where to look.

    Returns:
        The names.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def fingerprint(images: ImageFiles | Tensor) -> str:
    """A key that changes when the images do: of files from path, size and time of change, of a tensor from its bytes.

    Args:
        images: Files, or uint8 N x H x W x C.

    Returns:
        32 hexadecimal digits.
    """
    if isinstance(images, Tensor):
        return content_hash(images)
    digest = hashlib.blake2b(repr((images.shape, images.fit)).encode(), digest_size=16)
    for path in images.paths:
        try:
            state = os.stat(path)
        except OSError as error:
            raise DataError(f"cannot read the image {path}: {error}; replace it, or remove it from the list") from error
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def content_hash(array: Tensor) -> str:
    """Hash of a tensor's values, shape and type.

    Args:
        array: Any tensor on the CPU.

    Returns:
        32 hexadecimal digits (BLAKE2b).
    """
    digest = hashlib.blake2b(f"{array.dtype}{tuple(array.shape)}".encode(), digest_size=16)
    step = max(1, 16 * _CHUNK // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), step):  # a part at a time, because a mapped file need not fit into memory
        digest.update(array[start : start + step].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cached(images: ImageFiles | Tensor, folder: Path, name: str) -> tuple[Tensor, str]:
    """The images as a memory-mapped file, which is written on the first call.

    The file appears under its name only when it is complete, so that an interruption leaves no half a cache, and two
    processes that write at once do no harm.

    Args:
        images: Files, or uint8 N x H x W x C.
        folder: The cache folder; made where it does not exist.
        name: Start of the file's name.

    Returns:
        uint8 N x H x W x C, mapped from the file and not to be written to, and the images' :func:`fingerprint`.

    Raises:
        DataError: An image is damaged, or the folder cannot be written to.
    """
    count = math.prod(images.shape)
    key = fingerprint(images)
    path = folder / f"{name}-{key}.u8"
    try:
        if not path.is_file() or path.stat().st_size != count:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder, path.name)
            rank_zero_info(f"writing {count / 1e9:.2f} GB of decoded images to {path} (once)")
            partial = folder / f".{path.name}.{uuid.uuid4().hex}"
            try:
                # Claims the space now: a full disk is an error here, and a crash when met while writing to the mapping.
                with open(partial, "wb") as file:
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(file.fileno(), 0, max(count, 1))
                    file.truncate(count)
                target = torch.from_file(str(partial), shared=True, size=count, dtype=torch.uint8).view(images.shape)
                if isinstance(images, Tensor):
                    target.copy_(images)
                else:
                    images.decode(out=target)
                del target
                os.replace(partial, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    partial.unlink()
                raise
    except OSError as error:
        raise DataError(
            f"cannot write the image cache {path}: {error}; set cache_dir to a folder with {count / 1e9:.1f} GB "
            "of space, "
            "or raise memory_budget_gb"
        ) from error
    return torch.from_file(str(path), shared=False, size=count, dtype=torch.uint8).view(images.shape), key


def _sweep(folder: Path, name: str) -> None:
    """Removes what a killed process left of this cache file more than a day ago."""
    for partial in folder.glob(f".{name}.*"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > 86_400:
                partial.unlink()
