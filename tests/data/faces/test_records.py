"""Packed records."""

import struct
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_formats import MAGIC, face, image_record, write_rec

from lightning_repshape.data import (
    CASIAWebFaceDataModule,
    RecordFile,
)
from lightning_repshape.errors import DataError


def test_records_are_read_with_and_without_their_index(tmp_path: Path) -> None:
    path = write_rec(tmp_path)
    found = RecordFile(path)
    assert found.image_numbers() == [1, 2, 3, 4, 5, 6]
    assert found.labels(found.image_numbers()) == [0, 0, 1, 1, 2, 2]
    assert found.record(2).labels == (0.0, 7.0) and found.record(1).labels == (0.0,)
    picture = np.asarray(Image.open(BytesIO(found.record(3).payload)))
    assert np.array_equal(picture, face(2, 1))
    (tmp_path / "train.idx").unlink()
    assert RecordFile(path).offsets == found.offsets


def test_records_that_were_cut_at_the_magic_number_are_put_together(tmp_path: Path) -> None:
    payload = b"abcd" + MAGIC + b"efgh" + MAGIC + MAGIC + b"ij" + MAGIC  # the last one is not at a multiple of 4
    (tmp_path / "a.rec").write_bytes(image_record(3.0, 0, payload) + image_record(4.0, 1, b"x"))
    found = RecordFile(tmp_path / "a.rec")
    assert len(found.offsets) == 2
    assert found.record(0).payload == payload and found.record(1).payload == b"x"
    assert found.labels([0, 1]) == [3, 4]


@pytest.mark.parametrize("with_index", [True, False])
def test_a_rec_file_that_ends_early_is_an_error_with_its_offset(tmp_path: Path, with_index: bool) -> None:
    path = write_rec(tmp_path)
    offset = RecordFile(path).offsets[5]
    path.write_bytes(path.read_bytes()[: offset + 60])
    if not with_index:
        (tmp_path / "train.idx").unlink()
    with pytest.raises(DataError, match=rf"ends early.*byte {offset:,}"):
        CASIAWebFaceDataModule(str(tmp_path))


def test_damaged_records_and_indices_are_errors(tmp_path: Path) -> None:
    path = write_rec(tmp_path)
    good, index = path.read_bytes(), (tmp_path / "train.idx").read_text()
    offset = RecordFile(path).offsets[4]
    path.write_bytes(good[:offset] + b"\0\0\0\0" + good[offset + 4 :])
    with pytest.raises(DataError, match=rf"byte {offset:,}: no record begins here"):
        RecordFile(path).labels([1, 4])
    path.write_bytes(good)
    (tmp_path / "train.idx").write_text("\n".join(index.splitlines()[:3]))
    with pytest.raises(DataError, match="promises images 1 to 6, but 4 of them"):
        RecordFile(path).image_numbers()
    (tmp_path / "train.idx").write_text("0\t0\nnonsense here too\n")
    with pytest.raises(DataError, match="line 2"):
        RecordFile(path)
    (tmp_path / "train.idx").unlink()
    path.write_bytes(image_record(-1.0, 0, b"x"))
    with pytest.raises(DataError, match="record 0 at byte 0: its label"):
        RecordFile(path).labels([0])
    path.write_bytes(b"")
    with pytest.raises(DataError, match="no records"):
        RecordFile(path)


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 1e30, 2.0**63, -1.0, 1.5])
def test_labels_that_are_no_identity(tmp_path: Path, label: float) -> None:
    path = write_rec(tmp_path)
    content, offset = bytearray(path.read_bytes()), RecordFile(path).offsets
    content[offset[3] + 12 : offset[3] + 16] = struct.pack("<f", label)
    path.write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(DataError, match=r"train.rec, record 3 .*no number of an identity"):
        warnings.simplefilter("error")
        RecordFile(path).labels([1, 2, 3])
    content[offset[0] + 32 : offset[0] + 36] = struct.pack("<f", label)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train.rec: record 0 promises images"):
        RecordFile(path).image_numbers()


@pytest.mark.parametrize("entry", ["9" * 20, "9" * 5000, "²", "-1"])
def test_numbers_in_an_index_that_are_none(tmp_path: Path, entry: str) -> None:
    path = write_rec(tmp_path)
    path.with_suffix(".idx").write_text(f"0\t0\n1\t{entry}\n")
    with pytest.raises(DataError, match=r"train.idx, line 2"):
        RecordFile(path)
