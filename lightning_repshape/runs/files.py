"""Files that are written whole or not at all, and the JSON files among them."""

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, SupportsFloat

from lightning_repshape.errors import ConfigError


@contextmanager
def written_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Writes a file whole or not at all: yields a temporary path beside it, which is then renamed into place.

    What killed processes have left of the same file is removed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(target.parent.glob(f".{glob.escape(target.name)}.*.part"))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())  # Windows refuses it to readers
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


def csv_text(text: str) -> str:
    """A text for a cell of a CSV file, with an apostrophe before it where a spreadsheet would take it for a formula."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text
    return text


def from_csv(text: str) -> str:
    """The text that :func:`csv_text` made a cell of."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA) else text


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes what killed processes left half-written in a folder and below.

    Args:
        folder: The folder. Files that a process of this machine is still writing are left alone.
    """
    _remove_dead(Path(folder).rglob(".*.part"))


def _remove_dead(parts: Iterable[Path]) -> None:
    for part in parts:
        writer = part.name.split(".")[-2]
        if not writer.isdigit() or int(writer) == os.getpid() or not _is_alive(int(writer)):
            part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where this would be a signal
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def plain_number(value: SupportsFloat) -> float:
    """A number or scalar tensor, rounded to the seven significant digits that float32 has."""
    return float(f"{float(value):.7g}")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically, with NaN and infinity as JavaScript spells them."""
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """A JSON file's content, empty where there is no file; ConfigError if it is no JSON object."""
    file = Path(path)
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not readable as JSON ({error}); remove it or restore it") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds {type(content).__name__}, not an object; remove it or restore it")
    return content
