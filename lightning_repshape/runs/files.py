"""Files that are written whole or not at all, and the JSON files among them."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, SupportsFloat

from lightning_repshape.errors import ConfigError


@contextmanager
def written_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Writes a file whole or not at all: to a temporary name beside it, then renamed into place.

    Args:
        path: The file to be written.

    Yields:
        The temporary path to write to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
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


def plain_number(value: SupportsFloat) -> float:
    """A logged value without the digits that float32 only pretends to have.

    Args:
        value: A number or a scalar tensor.

    Returns:
        The number, rounded to seven significant digits.
    """
    return float(f"{float(value):.7g}")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically, with NaN and infinity as JavaScript spells them.

    Args:
        path: The file.
        content: What to write.
    """
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads a JSON file.

    Args:
        path: The file.

    Returns:
        Its content, or an empty dictionary where there is no file.

    Raises:
        ConfigError: If the file is no JSON object.
    """
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
