"""Arrays of numbers from MATLAB 5 files; scipy's reader of them crashes the process on damaged ones."""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_LARGEST = 1 << 30  # bytes of an unpacked array: several times CIFAR-100's
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _PACKED = 14, 15
_NUMBERS = range(6, 16)  # classes of arrays that hold numbers


def read_matlab(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of real numbers in a file of MATLAB's versions 5 to 7, by name; others are left out.

    ValueError or zlib.error: it is no such file, or damaged.
    """
    content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("this is no MATLAB 5 file")
    found = {}
    for kind, data in _elements(content[128:], order):
        if kind == _PACKED:
            unpacker = zlib.decompressobj()
            inner = list(_elements(unpacker.decompress(data, _LARGEST), order))
            if not unpacker.eof:
                raise ValueError("a packed array ends early, or is too large")
        else:
            inner = [(kind, data)]
        for inner_kind, matrix in inner:
            if inner_kind == _MATRIX:
                parts = list(_elements(matrix, order))
                flags, sizes, name = (_numbers(*part, order) for part in parts[:3])
                if len(flags) and int(flags[0]) & 0xFF in _NUMBERS and not int(flags[0]) & 0x0800:
                    values, shape = _numbers(*parts[3], order), [int(size) for size in sizes]
                    if min(shape) < 0 or math.prod(shape) != len(values):
                        raise ValueError(f"{len(values)} numbers are no array of {shape}")
                    found[name.astype("u1").tobytes().decode()] = values.reshape(shape, order="F")
    return found


def _numbers(kind: int, data: bytes, order: str) -> np.ndarray[Any, Any]:
    if kind not in _TYPES:
        raise ValueError(f"there are no numbers of type {kind}")
    return np.frombuffer(data, np.dtype(order + _TYPES[kind])).astype(_TYPES[kind])


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Types and contents of data elements, each of which is checked to be there as a whole."""
    place = 0
    words = np.dtype(order + "u4")
    while place < len(content):
        if place + 8 > len(content):
            raise ValueError("the file ends early")
        kind, size = (int(word) for word in np.frombuffer(content, words, 2, place))
        if kind >> 16:  # a small element: size and type in one word
            start, size, kind = place + 4, kind >> 16, kind & 0xFFFF
            place += 8
            if size > 4:
                raise ValueError("an element is longer than its place")
        else:
            start = place + 8
            place = start + (size if kind == _PACKED else (size + 7) // 8 * 8)
        if start + size > len(content):
            raise ValueError("the file ends early")
        yield kind, content[start : start + size]
