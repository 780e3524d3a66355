"""Decoding image files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_formats import write_folder

from lightning_repshape.data import (
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
