"""Decoding image files."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from published_formats import write_folder, write_people, write_rec

from lightning_repshape.data import (
    CASIAWebFaceDataModule,
    IdentityPairs,
    ImageFolderDataModule,
    files,
)
from lightning_repshape.errors import DataError


def test_sixteen_bit_images_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 0x8040, dtype=np.uint16)).save(path)
    assert (files.ImageFiles((str(path),), 4, 4, 1).decode() == 0x80).all()
    faces = files.ImageFiles.of([str(path)], (3, 2, 2), "exact", (2, 2))
    assert (faces.decode() == 0x80).all() and faces.fingerprint() != replace(faces, exact=False).fingerprint()


@pytest.mark.parametrize("cut", [0, 30, 300])
def test_damaged_images_are_named(tmp_path: Path, cut: int) -> None:
    write_folder(tmp_path)
    path = tmp_path / "train" / "bee" / "03.png"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"cannot read the image .*bee.03.png"):
        ImageFolderDataModule(root=str(tmp_path), image_size=8, val_size=0).setup("fit")


TURNED: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", sorted(TURNED))
def test_images_are_turned_as_the_camera_noted(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"photo{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.kron(
        np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[0, 0, 0], [250] * 3, [125] * 3]]), np.ones((16, 16, 1))
    )
    options: dict[str, Any] = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(stored.astype(np.uint8)).save(path, exif=exif, **options)
    expected = TURNED[orientation](stored)
    height, width = expected.shape[:2]
    upright = files.ImageFiles.of([str(path)], (3, height, width), "exact")
    assert np.abs(upright.decode()[0].numpy() - expected).max() <= 3
    as_stored = files.ImageFiles.of([str(path)], (3, 32, 48), "exact", exif=False)
    assert np.abs(as_stored.decode()[0].numpy() - stored).max() <= 3
    assert replace(upright, exif=False).fingerprint() != upright.fingerprint()


def test_the_option_reaches_every_reader_of_image_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder")
    write_people(tmp_path / "faces")
    write_rec(tmp_path / "rec")
    for chosen in (True, False):
        folder = ImageFolderDataModule(root=str(tmp_path / "folder"), exif_orientation=chosen)
        faces, packed = (
            CASIAWebFaceDataModule(str(tmp_path / name), exif_orientation=chosen) for name in ("faces", "rec")
        )
        for module in (folder, faces, packed):
            images = module.load_split("train").images
            assert isinstance(images, files.ImageFiles) and images.exif == chosen
        pairs = IdentityPairs(str(tmp_path / "faces"), folds=2, exif_orientation=chosen).open((1, 8, 8))
        assert pairs.images.exif == chosen


DEEP = np.array([[0, 0x1234], [0x8040, 0xFFFF]], dtype=np.uint16)
EIGHT = (DEEP >> 8).tolist()


def pgm(values: np.ndarray, white: int) -> bytes:
    return f"P5 {values.shape[1]} {values.shape[0]} {white}\n".encode() + values.astype(">u2").tobytes()


def tiff(values: np.ndarray, bits: int, photometric: int = 1, order: str = "<") -> bytes:
    """A grey TIFF of any depth, as microscopes write it."""
    if bits == 12:
        packed = bytearray()
        for first, second in values.reshape(-1, 2).tolist():
            packed += bytes((first >> 4, (first & 15) << 4 | second >> 8, second & 255))
        data = bytes(packed)
    else:
        data = values.astype(f"{order}u2").tobytes()
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 0), (277, 1), (278, height)]
    tags.append((279, len(data)))
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0) + data


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("sixteen.pgm", pgm(DEEP, 65535), EIGHT),  # PIL's mode I
        ("twelve.pgm", pgm(DEEP >> 4, 4095), EIGHT),
        ("sixteen.tif", tiff(DEEP, 16), EIGHT),
        ("big-endian.tif", tiff(DEEP, 16, order=">"), EIGHT),
        ("twelve.tif", tiff(DEEP >> 4, 12), EIGHT),
        ("white-is-zero.tif", tiff(DEEP, 16, photometric=0), (255 - (DEEP >> 8).astype(int)).tolist()),
    ],
)
def test_every_bit_depth_is_scaled(tmp_path: Path, name: str, content: bytes, expected: list[list[int]]) -> None:
    (tmp_path / name).write_bytes(content)
    found = files.ImageFiles.of([str(tmp_path / name)], (1, 2, 2), "exact").decode()[0, :, :, 0]
    assert (found - torch.tensor(expected)).abs().max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "LAB"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".gif", ".ppm", ".bmp"])
def test_every_mode_is_read_right_or_refused(tmp_path: Path, mode: str, suffix: str) -> None:
    white = Image.new("L", (4, 4), 255)
    if mode == "LAB":
        image = Image.frombytes("LAB", (4, 4), bytes((255, 0, 0)) * 16)
    elif mode in ("I", "F", "I;16"):
        image = Image.new(mode, (4, 4), 65535)
    else:
        image = white.convert("RGB").convert(mode) if mode == "CMYK" else white.convert(mode)
    path = tmp_path / f"white{suffix}"
    try:
        image.save(path)
    except (OSError, ValueError, KeyError, NotImplementedError):
        return  # there are no such files
    try:
        found = files.ImageFiles.of([str(path)], (3, 4, 4)).decode()
    except DataError as error:
        assert mode in ("I", "F", "LAB") and path.name in str(error)
    else:
        assert int(found.min()) >= 250, (mode, suffix, found.min())


def test_a_link_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train" / "ant" / "again").symlink_to(tmp_path / "train" / "ant")
    with pytest.raises(DataError, match=r"ant.again is a link to a folder that it lies in"):
        ImageFolderDataModule(root=str(tmp_path), image_size=8).setup("fit")
    (tmp_path / "train" / "ant" / "again").unlink()
    (tmp_path / "elsewhere").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "elsewhere" / "more.png")
    (tmp_path / "train" / "ant" / "more").symlink_to(tmp_path / "elsewhere")
    assert len(files.list_images([tmp_path / "train" / "ant"])[0]) == 11  # other links are followed
