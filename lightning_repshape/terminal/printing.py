"""What is printed: figures in one form and table, and nothing but errors where ``--quiet`` asks for it."""

import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.table import Table

_errors: TextIO | None = None


@contextmanager
def only_errors(quiet: bool = True) -> Iterator[None]:
    """Drops all that is printed within, but for what goes through :func:`error`.

    Args:
        quiet: Whether to.
    """
    global _errors
    if not quiet:
        yield
        return
    _errors = sys.stderr
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        _errors = None


def errors() -> TextIO:
    """The stream of errors."""
    return _errors or sys.stderr


def error(text: str) -> None:
    """Prints a line on standard error, whoever is quiet."""
    print(text, file=errors())


def is_terminal() -> bool:
    """Whether a person looks on in a terminal, and is to see what is going on."""
    return _errors is None and sys.stdout.isatty()


_SHARES = {"error", "accuracy", "agreement", "explained", "nc4", "auroc", "fpr95"}
_OF_VALUES = {"squared", "square", "reconstruction", "mse"}


def is_share(name: str) -> bool:
    """Whether a figure is a share of samples or of variance, by the words of its name; such are shown in percent.

    Args:
        name: As ``ANALYSIS/FIGURE``, or a table's heading; one that says "%" is in percent already.
    """
    words = re.split(r"[\W_]+", name.rpartition("/")[2].lower())
    if "%" in name or _OF_VALUES & set(words):
        return False
    return bool(_SHARES & set(words)) or words[0] == "std"


def figure_text(name: str, value: float) -> str:
    """A figure as it is shown everywhere: shares such as errors in percent, else four digits; a dash for none."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{100 * value:.2f} %" if is_share(name) else f"{value:.4g}"


def figure_table(rows: Sequence[tuple[str, str]]) -> "Table":
    """A table of figures for ``rich``: names, and values that end at one edge."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for name, value in rows:
        table.add_row(Text(f"  {name}"), Text(value))
    return table
