"""What an analysis found, as lines of HTML: for pages and notebooks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_repshape import page


def result_lines(
    notes: Sequence[str], tables: Mapping[str, Sequence[Mapping[str, Any]]], scalars: Mapping[str, float]
) -> list[str]:
    """Notes, tables by heading, and all figures folded away."""
    lines = page.notes(notes)
    for heading, rows in tables.items():
        lines += [page.heading(heading), *_table(rows)]
    figures = [{"figure": name, "value": value} for name, value in scalars.items()]
    return [*lines, *page.details("logged figures", _table(figures))]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = [all(row.get(key) is None or isinstance(row.get(key), int | float) for row in rows) for key in columns]
    return page.table(columns, [[cell_text(row.get(key)) for key in columns] for row in rows], numeric)


def cell_text(value: Any) -> str:
    """A value as tables show it: four digits of a number, a dash for None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.4g}"
    return str(value)
