"""NumPy's file format: what a file claims is held against what it has, before anything is allocated."""

import math
from typing import IO, Any

import numpy as np

Array = np.ndarray[Any, Any]


def check_header(file: IO[bytes], size: int) -> None:
    """Reads the header of an ``.npy`` file.

    Args:
        file: The file, at its beginning.
        size: The bytes that it has.

    Raises:
        ValueError: It holds no plain array, or of another size than its header says.
    """
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"version {version[0]}.{version[1]} of NumPy's format is not read")
        shape, _, dtype = readers[version](file)
    except Exception as error:  # a damaged header is parsed as Python, and can raise anything
        raise ValueError(_first_line(error)) from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and nothing is unpickled")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != there or min(shape, default=0) < 0:
        raise ValueError(f"its header says {shape} of {dtype}, {claimed:,} bytes, but it has {there:,}")


def read_member(file: IO[bytes]) -> Array:
    """Reads an array whose header is known to be right, and sees that nothing comes after it."""
    array: Array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):  # an archive's checksums are compared at the end
        raise ValueError("it is longer than it says")
    return array


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
