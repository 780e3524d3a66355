"""The memory-mapped store of sets that do not fit into memory: built once, shared by all processes, resumable.

While it is built, the cache is two files: the images so far (``.<name>.part``) and a journal (``.<name>.journal``) with
a line for each finished block: its number and the checksum of its bytes. An interrupted build goes on after the last
block whose checksum is right; blocks that a crash of the machine has damaged are decoded again. The finished file gets
its name in one step, so nobody ever sees a half of it.
"""

import contextlib
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_repshape.data.files import ImageFiles, content_hash
from lightning_repshape.errors import DataError
from lightning_repshape.runs.locks import locked
from lightning_repshape.terminal.progress import task

BLOCK_BYTES = 1 << 26  # 64 MiB: what an interruption costs at most, some seconds of decoding


def build_cache(
    images: ImageFiles | Tensor, folder: Path, name: str, block_bytes: int = BLOCK_BYTES
) -> tuple[Tensor, str]:
    """The images as a memory-mapped file, which is written where it is not there yet.

    Gives uint8 N x H x W x C, not to be written to, and the key of the images' source and size that follows ``name`` in
    the file's name. Of several processes that ask at once, one builds and the others wait for it; when it dies, another
    one goes on where it stopped. DataError: an image is damaged (the blocks before it are kept), or the folder cannot
    be written to.
    """
    key = images.fingerprint() if isinstance(images, ImageFiles) else content_hash(images)
    path = folder / f"{name}-{key}.u8"
    size = math.prod(images.shape)
    if not _complete(path, size):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _sole(folder / f".{path.name}.lock", path):
                if not _complete(path, size):
                    _build(images, path, size, block_bytes)
        except OSError as error:
            raise DataError(
                f"cannot write the image cache {path}: {error}; set cache_dir to a folder with {size / 1e9:.1f} GB of "
                "space, or raise memory_budget_gb"
            ) from error
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(images.shape), key


def _complete(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


@contextlib.contextmanager
def _sole(lock: Path, path: Path) -> Iterator[None]:
    """Waits until no other process builds this cache. The system lifts the lock of a process that dies."""
    purpose = "the cache of decoded images (raise memory_budget_gb to do without)"
    with open(lock, "w") as file:
        if not locked(file.fileno(), False, purpose):
            rank_zero_info(f"waiting for another process that writes {path}")
            locked(file.fileno(), True, purpose)
        yield
        with contextlib.suppress(OSError):
            lock.unlink()  # whoever waits for it finds the finished file


def _build(images: ImageFiles | Tensor, path: Path, size: int, block_bytes: int) -> None:
    part, journal = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.journal")
    count = images.shape[0]
    rows = max(1, block_bytes // max(1, math.prod(images.shape[1:])))
    blocks = [(start, min(start + rows, count)) for start in range(0, count, rows)]
    stride = size // max(count, 1)
    heading = f"blocks of {rows}\n"
    fresh = not part.is_file() or part.stat().st_size != size or not _begins(journal, heading)
    if fresh:
        journal.unlink(missing_ok=True)
        # Claims the space now: a full disk is an error here, and a crash when met while writing to the mapping.
        with open(part, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            file.truncate(size)
        journal.write_text(heading, encoding="ascii")
    target = np.memmap(part, np.uint8, "r+", shape=(size,))
    done = set() if fresh else _finished(journal, target, blocks, stride)
    verb = f"going on with {len(done)} of {len(blocks)} blocks of" if done else "writing"
    rank_zero_info(f"{verb} {size / 1e9:.2f} GB of decoded images to {path} (once)")
    with open(journal, "a", encoding="ascii") as log, task("writing decoded images", len(blocks)) as advance:
        for number, (start, end) in enumerate(blocks):
            if number in done:
                continue
            block = target[start * stride : end * stride]
            out = torch.from_numpy(block).view(end - start, *images.shape[1:])
            if isinstance(images, Tensor):
                out.copy_(images[start:end])
            else:
                images.select(torch.arange(start, end)).decode(out=out)
            target.flush()  # to the disk before the journal says so
            log.write(f"{number} {zlib.crc32(block.data)}\n")
            log.flush()
            os.fsync(log.fileno())
            advance(1)
    del target
    os.replace(part, path)
    journal.unlink(missing_ok=True)


def _begins(journal: Path, heading: str) -> bool:
    return journal.is_file() and journal.read_text(encoding="ascii", errors="replace").startswith(heading)


def _finished(journal: Path, target: np.ndarray[Any, Any], blocks: list[tuple[int, int]], stride: int) -> set[int]:
    """The blocks that the journal names and whose bytes are those that were written."""
    done = set()
    for line in journal.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)[1:]:
        words = line.split()
        # A line without its end was being written when the process died.
        if not line.endswith("\n") or len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()):
            continue
        number = int(words[0])
        if number < len(blocks):
            start, end = blocks[number]
            if zlib.crc32(target[start * stride : end * stride].data) == int(words[1]):
                done.add(number)
    return done
