"""MXNet's RecordIO, the ``.rec`` and ``.idx`` files in which face sets are passed around, read without MXNet.

A ``.rec`` file is a row of records. Each begins with the magic number 0xced7230a and a word of which the upper 3 bits
tell the part (0: a whole record; 1, 2, 3: first, middle, last part of one that was cut where its content held the magic
number) and the lower 29 bits the length; the content follows, filled up to a multiple of 4 bytes. All numbers are
little-endian. The content of an image record is a header (flag uint32, label float32, two numbers uint64), ``flag``
further labels as float32, and a JPEG or PNG file. A ``.idx`` file has a line "number<TAB>offset" for every record.

Record 0 of a face set has no image: its two labels are the number of the first record behind the images, and of the
first one behind the records that describe the identities.
"""

import hashlib
import io
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_repshape.data.files import ImageFiles
from lightning_repshape.errors import DataError

MAGIC = 0xCED7230A
_WORDS = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_LENGTH = (1 << 29) - 1

Array = np.ndarray[Any, Any]


class Record(NamedTuple):
    """The content of an image record.

    Attributes:
        labels: One label, or several.
        id: The record's number, as its writer gave it.
        payload: The image file; empty where there is none.
    """

    labels: tuple[float, ...]
    id: int
    payload: bytes


class RecordFile:
    """Random access to the records of a ``.rec`` file.

    Args:
        path: The ``.rec`` file. Its ``.idx`` file lies beside it; without one, the records are found by walking through
            the file, and numbered in their order.

    Raises:
        DataError: A file is missing, damaged or ends early; the message has the byte offset.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.size = self.path.stat().st_size
            # A mapping, so that several threads can read and nothing is copied.
            self._bytes: Array = np.memmap(self.path, np.uint8, "r") if self.size else np.empty(0, np.uint8)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error}") from error
        index = self.path.with_suffix(".idx")
        self.offsets = self._read_index(index) if index.is_file() else self._walk()
        if not self.offsets:
            raise DataError(f"{self.path} has no records ({self.size} bytes); get the set again")

    def _read_index(self, index: Path) -> dict[int, int]:
        offsets: dict[int, int] = {}
        try:
            lines = index.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {index}: {error}; get it again, or remove it") from error
        for number, line in enumerate(lines, start=1):
            parts = line.split()
            if not parts:
                continue
            if len(parts) != 2 or not (parts[0].isdigit() and parts[1].isdigit()):
                raise DataError(
                    f"{index}, line {number}: expected a record's number and its offset, got {line[:60]!r}; get the "
                    "file again, or remove it"
                )
            offsets[int(parts[0])] = int(parts[1])
        return offsets

    def _walk(self) -> dict[int, int]:
        offsets: dict[int, int] = {}
        place = 0
        while place < self.size:
            part, length = self._words(place)
            if part in (0, 1):
                offsets[len(offsets)] = place
            place += 8 + (length + 3) // 4 * 4
        return offsets

    def _words(self, offset: int) -> tuple[int, int]:
        """Part and length of what begins at an offset, which is checked to be there as a whole."""
        if offset + 8 > self.size:
            raise self._ends_early(offset, 8)
        magic, word = _WORDS.unpack(self._bytes[offset : offset + 8].tobytes())
        if magic != MAGIC:
            raise DataError(
                f"{self.path}, byte {offset:,}: no record begins here (0x{magic:08x} instead of 0x{MAGIC:08x}); the "
                "file is damaged, or the .idx file belongs to another"
            )
        length = word & _LENGTH
        if offset + 8 + length > self.size:
            raise self._ends_early(offset, 8 + length)
        return word >> 29, length

    def _ends_early(self, offset: int, needed: int) -> DataError:
        return DataError(
            f"{self.path} ends early: the record at byte {offset:,} takes {needed:,} bytes, but the file has only "
            f"{self.size:,}; get it again"
        )

    def content(self, number: int) -> bytes:
        """A record's content.

        Args:
            number: The record's number.

        Returns:
            The bytes, put together where the record was cut into parts.

        Raises:
            DataError: There is no such record, or it is damaged.
        """
        if number not in self.offsets:
            raise DataError(f"{self.path} has no record {number}")
        place = self.offsets[number]
        part, length = self._words(place)
        content = self._bytes[place + 8 : place + 8 + length].tobytes()
        if part == 0:
            return content
        pieces = [content]
        if part != 1:
            raise DataError(f"{self.path}, byte {place:,}: the middle of a record, where one should begin")
        while part != 3:
            place += 8 + (length + 3) // 4 * 4
            part, length = self._words(place)
            if part not in (2, 3):
                raise DataError(f"{self.path}, byte {place:,}: a record begins before the one before it has ended")
            pieces.append(self._bytes[place + 8 : place + 8 + length].tobytes())
        return struct.pack("<I", MAGIC).join(pieces)

    def record(self, number: int) -> Record:
        """A record, taken apart.

        Args:
            number: The record's number.

        Returns:
            Labels and image.

        Raises:
            DataError: There is no such record, it is damaged, or shorter than its header.
        """
        content = self.content(number)
        start = _HEADER.size
        flag, label, identifier, _ = _HEADER.unpack(content[:start]) if len(content) >= start else (1, 0.0, 0, 0)
        if len(content) < start + 4 * flag:
            raise DataError(
                f"{self.path}, record {number} at byte {self.offsets[number]:,}: {len(content)} bytes are less than "
                "its header; the file is damaged, or no set of images"
            )
        labels = struct.unpack(f"<{flag}f", content[start : start + 4 * flag]) if flag else (label,)
        return Record(labels, identifier, content[start + 4 * flag :])

    def image_numbers(self) -> list[int]:
        """The numbers of the records that hold images, ascending.

        Returns:
            Those between record 0 and the first one that describes an identity, where record 0 tells; else all.

        Raises:
            DataError: Record 0 names records that are not there.
        """
        numbers = sorted(self.offsets)
        first = self.record(numbers[0])
        if numbers[0] != 0 or first.payload or len(first.labels) < 2:
            return numbers
        end = first.labels[0]  # any number, or none, in a damaged file: one beyond the records shows what is missing
        wanted = list(range(1, int(min(end, len(numbers) + 1)) if end > 1 else 1))
        missing = [number for number in wanted if number not in self.offsets]
        if missing or not wanted:
            inside = sum(1 <= number < end for number in numbers)
            raise DataError(
                f"{self.path}: record 0 promises images 1 to {end - 1:.0f}, but {end - 1 - inside:.0f} of them are not "
                f"in the index, such as {missing[:3]}; get both files again"
            )
        return wanted

    def labels(self, numbers: list[int]) -> list[int]:
        """The identities of image records, without reading the images.

        Args:
            numbers: The records' numbers.

        Returns:
            The first label of each, as a whole number.

        Raises:
            DataError: A record is damaged or ends early, or a label is no identity.
        """
        if any(number not in self.offsets for number in numbers):
            raise DataError(f"{self.path} lacks some of the records asked for")
        places = np.fromiter((self.offsets[number] for number in numbers), np.int64, len(numbers))
        found = np.empty(len(numbers), np.float32)
        span = 8 + _HEADER.size + 4
        for start in range(0, len(places), 65536):  # a few bytes of each record, many records at a time
            some = places[start : start + 65536]
            clipped = np.minimum(some[:, None] + np.arange(span), self.size - 1)
            heads = self._bytes[clipped]
            words = np.ascontiguousarray(heads[:, :20]).view("<u4")
            ends = some + 8 + (words[:, 1] & _LENGTH)
            wrong = (words[:, 0] != MAGIC) | (ends > self.size)
            if wrong.any():
                self._words(int(some[int(wrong.argmax())]))
            single = np.ascontiguousarray(heads[:, 12:16]).view("<f4")[:, 0]
            several = np.ascontiguousarray(heads[:, 32:36]).view("<f4")[:, 0]
            found[start : start + len(some)] = np.where(words[:, 2] > 0, several, single)
            for place in np.flatnonzero(words[:, 1] >> 29):  # in parts: the header may be, too
                found[start + place] = self.record(numbers[start + int(place)]).labels[0]
        whole = found.astype(np.int64)
        bad = np.flatnonzero((found < 0) | (found != whole))
        if len(bad):
            number = numbers[int(bad[0])]
            raise DataError(
                f"{self.path}, record {number} at byte {self.offsets[number]:,}: its label {found[bad[0]]} is no "
                "number of an identity; the set is damaged, or of another kind"
            )
        return [int(label) for label in whole]

    def fingerprint(self) -> str:
        """A key that changes when the file does.

        Returns:
            Path, size and time of change, in one line.
        """
        state = os.stat(self.path)
        return f"{self.path}\0{state.st_size}\0{state.st_mtime_ns}\n"


@dataclass(frozen=True)
class RecordFaces(ImageFiles):
    """Faces in a ``.rec`` file; their paths are "<file>#<record's number>".

    Attributes:
        file: The file.
    """

    file: RecordFile = field(kw_only=True)

    def content(self, path: str) -> Any:
        """The image file within a record."""
        record = self.file.record(int(path.rpartition("#")[2]))
        if not record.payload:
            raise DataError(f"{path} holds no image")
        return io.BytesIO(record.payload)

    def fingerprint(self) -> str:
        """The key of the packed file and of the records used."""
        digest = hashlib.blake2b((self.form() + self.file.fingerprint()).encode(), digest_size=16)
        digest.update("\n".join(path.rpartition("#")[2] for path in self.paths).encode())
        return digest.hexdigest()


def identities_of(labels: list[int]) -> tuple[tuple[str, ...], Tensor]:
    """Names and running numbers of the identities in a ``.rec`` file.

    Args:
        labels: The records' labels.

    Returns:
        The labels that occur, ascending, as names; and int64 N, the position of each record's label among them.
    """
    values, inverse = np.unique(np.asarray(labels, dtype=np.int64), return_inverse=True)
    return tuple(str(value) for value in values.tolist()), torch.from_numpy(inverse.astype(np.int64))
