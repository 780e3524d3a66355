"""What an analysis found, as lines of HTML: for pages and notebooks."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_repshape import page
from lightning_repshape.terminal.printing import figure_text, is_share


def result_lines(
    notes: Sequence[str], tables: Mapping[str, Sequence[Mapping[str, Any]]], scalars: Mapping[str, float]
) -> list[str]:
    """Notes, tables by heading, and all figures folded away."""
    lines = page.notes(notes)
    for heading, rows in tables.items():
        lines += [page.heading(heading), *_table(rows)] if rows else []
    figures = [[name, figure_text(name, value)] for name, value in scalars.items()]
    return [*lines, *page.details("logged figures", page.table(["figure", "value"], figures, [False, True]))]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = [all(row.get(key) is None or isinstance(row.get(key), int | float) for row in rows) for key in columns]
    cells = []
    for row in rows:
        named = next((value for value in row.values() if isinstance(value, str)), "")
        cells.append([cell_text(row.get(key), key if is_share(key) else named) for key in columns])
    return page.table(columns, cells, numeric)


def cell_text(value: Any, name: str = "") -> str:
    """A value as tables show it: four digits of a number, percent where its name is a share's, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return figure_text(name, value) if isinstance(value, float) else str(value)
