"""Files from elsewhere: nothing of them is run, written outside of its place, or taken room for before it is there."""

import gzip
import io
import os
import pickle
import resource
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_formats import image_record, write_cifar

from lightning_repshape.analyses.arrays import read_arrays
from lightning_repshape.data import CIFAR10DataModule, RecordFile
from lightning_repshape.data.download import staging, unpack
from lightning_repshape.data.further import read_array
from lightning_repshape.errors import CheckpointError, DataError
from lightning_repshape.runs.checkpoints import read_checkpoint

TIB = 36 * 2**40


class Evil:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("sprung",)


@pytest.fixture(autouse=True)
def _little_room() -> Iterator[None]:
    """Whoever takes room for what a header claims gets a MemoryError, which is no DataError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def npy(array: Any, shape: tuple[int, ...] | None = None) -> bytes:
    """An ``.npy`` file; with a shape, one whose header claims it."""
    out = io.BytesIO()
    if shape is None:
        np.save(out, array, allow_pickle=True)
    else:
        header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        out.write(array.tobytes())
    return out.getvalue()


FEATURES = np.arange(80, dtype=np.float32).reshape(20, 4)
LABELS = npy(np.arange(20) % 2)


def write(features: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile("a.npz", "w", method) as packed:
        packed.writestr("features.npy", features)
        packed.writestr("labels.npy", LABELS)
    return Path("a.npz")


def altered(change: Callable[[bytearray, int, int], None]) -> Path:
    """An archive whose first member's own header and entry in the directory were changed."""
    content = bytearray(write(npy(FEATURES)).read_bytes())
    change(content, content.find(b"PK\x03\x04"), content.find(b"PK\x01\x02"))
    Path("a.npz").write_bytes(content)
    return Path("a.npz")


def method_99(content: bytearray, own: int, entry: int) -> None:
    content[own + 8 : own + 10] = content[entry + 10 : entry + 12] = struct.pack("<H", 99)


def encrypted(content: bytearray, own: int, entry: int) -> None:
    content[own + 6] |= 1
    content[entry + 8] |= 1


def claims_4_gib(content: bytearray, own: int, entry: int) -> None:
    content[entry + 24 : entry + 28] = struct.pack("<I", 2**32 - 2)


def of_a_larger_file(content: bytearray, own: int, entry: int) -> None:
    content[entry + 20 : entry + 24] = struct.pack("<I", 2**31)


def damaged(content: bytearray, own: int, entry: int) -> None:
    content[own + 60 : own + 70] = b"\xff" * 10


def other_sum(content: bytearray, own: int, entry: int) -> None:
    content[own + 14] ^= 1
    content[entry + 16] ^= 1


ARCHIVES: dict[str, tuple[Callable[[], Path], str]] = {
    "36 TiB": (lambda: write(npy(FEATURES, (TIB // 4, 1))), r"says \(\d+, 1\) of float32, .* but it has 320"),
    "64-bit overflow": (lambda: write(npy(FEATURES, (2**62, 16))), "its header says"),
    "negative": (lambda: write(npy(FEATURES, (-20, -4))), "its header says"),
    "shorter": (lambda: write(npy(FEATURES, (20, 3))), "its header says"),
    "objects": (lambda: write(npy(np.array([Evil()], dtype=object))), "nothing is unpickled"),
    "pickle": (lambda: write(pickle.dumps(Evil())), "features.npy: .*magic string"),
    "code": (lambda: write(b"\x93NUMPY\x01\x00\x10\x00__import__('os')"), "features.npy"),
    "version 9": (lambda: write(b"\x93NUMPY\x09\x00" + npy(FEATURES)[8:]), "features.npy"),
    "method 99": (lambda: altered(method_99), "compression method"),
    "encrypted": (lambda: altered(encrypted), "encrypted"),
    "bomb": (lambda: altered(claims_4_gib), "claim to hold 4,294,967,294"),
    "parts": (lambda: altered(of_a_larger_file), "larger than the file"),
    "damaged": (lambda: altered(damaged), "features.npy: "),
    "checksum": (lambda: altered(other_sum), "CRC"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_saved_features_that_are_not_what_they_say(case: str) -> None:
    make, message = ARCHIVES[case]
    with pytest.raises(DataError, match=rf"^a\.npz cannot be read as an \.npz file \(.*{message}"):
        read_arrays(make())
    assert not Path("sprung").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_saved_features_are_read(method: int) -> None:
    found = read_arrays(write(npy(np.asfortranarray(FEATURES)), method))
    assert torch.equal(found["features"], torch.from_numpy(FEATURES)) and len(found["labels"]) == 20
    np.savez("b.npz", features=np.zeros((0, 4)), class_names=np.array(["ä", "b"]), one=np.float32(3))
    found = read_arrays(Path("b.npz"))
    assert found["features"].shape == (0, 4) and list(found["class_names"]) == ["ä", "b"] and found["one"] == 3


@pytest.mark.parametrize("mapped", [True, False])
def test_published_arrays_that_are_not_what_they_say(mapped: bool) -> None:
    for content in (npy(FEATURES, (TIB // 4,)), npy(np.array([Evil()], dtype=object)), b"\x93NUMPY\x01\x00\x02\x00{("):
        Path("a.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"set: cannot read a\.npy \(.*\); get the file again"):
            read_array(Path("a.npy"), "set", mapped)
    Path("a.npy").write_bytes(npy(FEATURES))
    assert np.array_equal(read_array(Path("a.npy"), "set", mapped), FEATURES)
    assert not Path("sprung").exists()


def test_a_checkpoint_runs_nothing() -> None:
    torch.save({"state_dict": {}, "callbacks": Evil()}, "a.ckpt")
    Path("b.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    for name in ("a.ckpt", "b.pt"):
        with pytest.raises(CheckpointError, match=rf"^{name} cannot be read as a checkpoint"):
            read_checkpoint(name)
    assert not Path("sprung").exists()


def test_a_pickle_that_is_not_the_published_one_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py", monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(DataError, match=r"checksum mismatch: .*data_batch_3"):
        CIFAR10DataModule(root=str(tmp_path)).load_split("train")
    assert not Path("sprung").exists()


@pytest.mark.parametrize("last", [1e9, 3e38, float("inf"), float("nan"), -1.0])
def test_records_that_promise_what_is_not_there(last: float) -> None:
    first = struct.pack("<IfQQ", 2, 0.0, 0, 0) + struct.pack("<2f", last, 9.0)
    head = struct.pack("<II", 0xCED7230A, len(first)) + first + b"\0" * (-len(first) % 4)
    Path("a.rec").write_bytes(head + image_record(0.0, 1, b"x"))
    with pytest.raises(DataError, match=r"a\.rec: record 0 promises images"):
        RecordFile("a.rec").image_numbers()
    Path("b.rec").write_bytes(struct.pack("<II", 0xCED7230A, 24) + struct.pack("<IfQQ", 2**32 - 1, 0.0, 0, 0))
    with pytest.raises(DataError, match="less than its header"):
        RecordFile("b.rec").record(0)


def tar(member: tarfile.TarInfo, content: bytes = b"x") -> Path:
    with tarfile.open("a.tar.gz", "w:gz") as bundle:
        member.size = len(content) if member.isfile() else 0
        bundle.addfile(member, io.BytesIO(content))
    return Path("a.tar.gz")


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo("set/link")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("set/../../outside"),
        link("/etc/passwd"),
        link("../../outside"),
        link("../../outside", tarfile.LNKTYPE),
        link("", tarfile.CHRTYPE),
    ],
    ids=["up", "up within", "absolute link", "link", "hard link", "device"],
)
def test_an_archive_writes_nowhere_else(member: tarfile.TarInfo) -> None:
    archive = tar(member)
    Path("outside").write_text("mine")
    with pytest.raises(DataError, match=r"cannot unpack a\.tar\.gz"), staging(Path("root"), "set") as folder:
        unpack(archive, folder)
    assert Path("outside").read_text() == "mine" and not Path("root").exists()


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a/../../../outside"])
def test_names_in_an_archive_lead_nowhere_else(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile("a.zip", "w") as packed:
        packed.writestr(name, "x")
    with staging(Path("root"), "set") as folder:
        unpack(Path("a.zip"), folder)
        inside = {path.name for path in folder.rglob("*") if path.is_file()}
        if name.startswith("/"):
            unpack(tar(tarfile.TarInfo(name)), folder)
    assert inside == {"outside"} and not Path("outside").exists() and not Path("/outside").exists()


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "gz"])
def test_an_archive_that_grows_without_end_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_repshape.data.download._SURELY_NO_BOMB", 2**20)
    zeros = bytes(2**22)
    if kind == "zip":
        with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("zeros", zeros)
    elif kind == "tar.gz":
        tar(tarfile.TarInfo("zeros"), zeros)
    else:
        Path("a.gz").write_bytes(gzip.compress(zeros))
    with (
        pytest.raises(DataError, match="more than 100 times its size"),
        staging(Path("root"), "s") as folder,
    ):
        unpack(Path(f"a.{kind}"), folder)
    assert not Path("root").exists()
