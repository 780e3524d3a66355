"""Standard output and standard error that never end a command.

What a terminal's encoding lacks is spelled out, and what cannot be written (a reader that has gone, a full disk, a
closed terminal) is dropped: what counts lies in files.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class _Raw(io.RawIOBase):
    """A file that takes everything: the first error is kept, and nothing is written after it."""

    def __init__(self, file: io.RawIOBase) -> None:
        self.file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes what can be written."""
        size = memoryview(data).nbytes
        if self.failure is not None:
            return size
        try:
            return self.file.write(data) or 0
        except OSError as error:
            self.failure = error
            return size

    def writable(self) -> bool:
        """It takes everything."""
        return True

    def fileno(self) -> int:
        """The file's own descriptor."""
        return self.file.fileno()

    def isatty(self) -> bool:
        """Whether the file is a terminal."""
        return self.file.isatty()


class Output:
    """The two streams while a command runs."""

    def __init__(self) -> None:
        self._raw: dict[str, _Raw] = {}

    @property
    def failure(self) -> OSError | None:
        """Why standard output could not be written; None where it could."""
        return self._raw["stdout"].failure if "stdout" in self._raw else None

    def replace(self, name: str) -> None:
        """Puts a stream in the place of one of :mod:`sys` that is the process's own."""
        stream: TextIO | None = getattr(sys, name)
        if stream is None:  # the process was started without
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
            return
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)  # PYTHONUNBUFFERED leaves the buffer out
        if stream is not getattr(sys, f"__{name}__") or not isinstance(raw, io.FileIO):
            return  # somebody else's, such as a notebook's
        with contextlib.suppress(OSError):
            stream.flush()
        self._raw[name] = _Raw(raw)
        own = {"line_buffering": stream.line_buffering, "write_through": getattr(stream, "write_through", False)}
        setattr(
            sys, name, io.TextIOWrapper(io.BufferedWriter(self._raw[name]), stream.encoding, "backslashreplace", **own)
        )


@contextlib.contextmanager
def lasting_output() -> Iterator[Output]:
    """Lets a command go on when its output cannot be written.

    Yields:
        What tells whether it could.
    """
    before = sys.stdout, sys.stderr
    output = Output()
    for name in ("stdout", "stderr"):
        output.replace(name)
    try:
        yield output
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
