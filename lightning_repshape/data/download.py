"""Getting published sets: finding them, and downloads that are checked and leave nothing half-written."""

import contextlib
import gzip
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_repshape._version import __version__
from lightning_repshape.errors import DataError

_CHUNK = 1 << 20
_SURELY_NO_BOMB = 1 << 30  # bytes that anything may unpack to
_RATIO = 100  # no published set is packed better


def md5_of(path: Path) -> str:
    """The MD5 sum of a file, 32 hexadecimal digits."""
    return _sum_of(path, "md5")


def _sum_of(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _algorithm(checksum: str) -> str:
    """Which checksum this is, by its length."""
    return "sha256" if len(checksum) == 64 else "md5"


def check_sum(path: Path, expected: str) -> None:
    """Raises DataError unless the file can be read and has the published MD5 sum or SHA-256."""
    kind = _algorithm(expected)
    try:
        found = _sum_of(path, kind)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if found != expected:
        raise DataError(
            f"checksum mismatch: {path} ({path.stat().st_size:,} bytes) has {kind} {found}, the published file "
            f"{expected}; it is damaged, cut off or another file: remove it and get it again (download=True fills in "
            "what is missing)"
        )


@contextlib.contextmanager
def staging(root: Path, name: str) -> Iterator[Path]:
    """A temporary folder in ``root`` (made if need be) for a download; whatever happens, it is gone afterwards.

    So is a new root. DataError: the root cannot be written to, or the disk is full.
    """
    made = [path for path in (root, *root.parents) if not path.exists()]
    folder: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".download-{name}-".replace(" ", "-"), dir=root))
        yield folder
    except OSError as error:
        raise DataError(f"cannot store {name} in {root}: {error}; free space, or set root to another folder") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # only where empty
                path.rmdir()


def fetch(urls: Sequence[str], target: Path, checksum: str, name: str, timeout: float = 30.0) -> Path:
    """Downloads a file from the first address that works, checks its MD5 sum or SHA-256, and returns ``target``.

    An address counts as dead after ``timeout`` seconds without an answer. DataError: none delivers the file.
    """
    failures = []
    kind = _algorithm(checksum)
    for url in urls:
        rank_zero_info(f"downloading {url}")
        request = urllib.request.Request(url, headers={"User-Agent": f"lightning-repshape/{__version__}"})
        digest = hashlib.new(kind, usedforsecurity=False)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                with open(target, "wb") as file:
                    while chunk := response.read(_CHUNK):
                        digest.update(chunk)
                        file.write(chunk)
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            failures.append(f"{url}: {getattr(error, 'reason', error)}")
            continue
        if digest.hexdigest() == checksum:
            return target
        failures.append(f"{url}: {kind} {digest.hexdigest()} instead of {checksum}")
    tried = "; ".join(failures)
    raise DataError(
        f"cannot download {name} ({tried}); check the network, or put the unpacked set there by hand and set "
        "download=False"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a tar, zip or gz file (by its name) and removes it. DataError: it is damaged."""
    left = max(_SURELY_NO_BOMB, _RATIO * archive.stat().st_size)

    def take(size: int) -> None:
        nonlocal left
        left -= size
        if left < 0:
            raise DataError(f"{archive.name} unpacks to more than {_RATIO} times its size; it is none of the set's")

    def in_folder(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        take(member.size)
        return tarfile.data_filter(member, path)

    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                take(sum(member.file_size for member in packed.infolist()))
                packed.extractall(folder)
        elif archive.name.endswith(".tar.gz"):
            with tarfile.open(archive) as bundle:
                bundle.extractall(folder, filter=in_folder)
        else:
            with gzip.open(archive) as source, open(folder / archive.stem, "wb") as target:
                while chunk := source.read(_CHUNK):
                    take(len(chunk))
                    target.write(chunk)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, RuntimeError, zlib.error) as error:
        raise DataError(f"cannot unpack {archive.name}: {error}; the archive is damaged: try again") from error
    archive.unlink()


def install(source: Path, target: Path) -> None:
    """Moves a finished file or folder to its place on the same disk; what is there already is left alone."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    elif source.is_dir():
        for part in sorted(source.iterdir()):
            install(part, target / part.name)


def install_archive(root: Path, published: Any, holds: Sequence[str], name: str) -> None:
    """Downloads a set that is published as one archive, unless its files ``holds`` are there.

    They lie in ``root`` or its folder. ``published`` is as torchvision states it: ``url``, ``filename``, ``tgz_md5``
    and ``base_folder``, the set's folder in the archive. DataError: it cannot be downloaded, stored or unpacked.
    """
    target = root / published.base_folder
    if any(all((place / file).is_file() for file in holds) for place in (target, root)):
        return
    with staging(root, name) as folder:
        unpack(fetch([published.url], folder / published.filename, published.tgz_md5, name), folder)
        install(folder / published.base_folder, target)


def find_folder(root: Path, names: Sequence[str], holds: str, name: str, cls: str) -> Path:
    """The first of the folders below ``root`` ("": root itself) with a file whose name begins with ``holds``.

    DataError: there is none.
    """
    for folder in names:
        place = root / folder
        if place.is_dir() and any(entry.startswith(holds) for entry in os.listdir(place)):
            return place
    raise missing(root / names[0], name, cls)


def missing(place: Path, name: str, cls: str) -> DataError:
    """The error, to be raised, for a data set that is not there."""
    return DataError(
        f"{name} is not there: looked for {place.absolute()}; set root to the folder that holds the unpacked set, or "
        f"download it with {cls}(download=True)"
    )
