"""A parser of words without nested options, whose errors are one sentence; it needs nothing heavy."""

import argparse
import re
import shutil
import textwrap
from typing import Any, NoReturn

from lightning_repshape.errors import ConfigError, did_you_mean


def listed(text: str) -> list[str]:
    """What stands between commas, with or without brackets, which a shell takes for a pattern, and quotes."""
    return [word.strip().strip("'\"") for word in text.strip().strip("[]").split(",")]


_COLUMN = re.compile(r"usage: |  +\S+(?: \S+)*  +|  --.*?  +| *")  # what stands before a line's text
_NARROWEST = 24


def fitted(text: str) -> str:
    """A help for the terminal's width: where lines are too long for it, they are broken where their text begins."""
    columns = max(60, shutil.get_terminal_size((120, 24)).columns)
    if all(len(line) <= columns for line in text.splitlines()):
        return text
    lines: list[str] = []
    for line in _joined(text.splitlines()):
        begin = len(_COLUMN.match(line)[0])  # type: ignore[index]  # it matches everything
        if len(line) > columns and columns - begin < _NARROWEST:  # no room beside an example: below it
            lines.append(line[:begin].rstrip())
            line, begin = f"{' ' * 6}{line[begin:]}", 6
        indent = " " * (begin + 4 if line[begin:].startswith("lightning-repshape ") else begin)
        lines += textwrap.wrap(line, columns, subsequent_indent=indent, break_on_hyphens=False) or [""]
    return "\n".join(lines) + "\n"


def _joined(lines: list[str]) -> list[str]:
    """Lines of one paragraph as one: those of prose at the margin, and those below where the text of an option is."""
    found: list[str] = []
    usage = prose = False
    begin = 0
    for line in lines:
        own = len(line) - len(line.lstrip())
        usage = bool(line) and (usage or line.startswith("usage: "))
        if line and not usage and (own == begin > 0 or (own == 0 and prose)):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line)
            column = len(_COLUMN.match(line)[0])  # type: ignore[index]
            begin = column if column > own else 0
        prose = bool(line) and not usage and own == 0 and not line.endswith(":")
    return found


class PlainParser(argparse.ArgumentParser):
    """argparse's, without abbreviations of options, whose help fits the terminal."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def format_help(self) -> str:
        """The help."""
        return fitted(super().format_help())

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError."""
        if unknown := re.search(r"unrecognized arguments:.*?--([\w.]+)", message):
            known = re.findall(r"--([\w.]+)", self.format_help())
            raise ConfigError(
                f"{self.prog.removeprefix('lightning-repshape ')}: there is no option {unknown[1]!r}"
                f"{did_you_mean(unknown[1], known)}"
            )
        raise ConfigError(f"{self.prog.removeprefix('lightning-repshape ')}: {message}")
