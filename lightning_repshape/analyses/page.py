"""The page that ``analyze`` writes: one HTML file with all figures, tables and the manifest in it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_repshape import page
from lightning_repshape.runs.files import written_atomically

if TYPE_CHECKING:
    from lightning_repshape.analyses.result import Outcome


def write_page(
    path: str | Path, title: str, about: Sequence[str], outcomes: "Sequence[Outcome]", manifest: Mapping[str, Any]
) -> Path:
    """Writes the HTML page: title, lines on what was analysed, outcomes, and at the end the run's manifest."""
    shown = page.preformatted(json.dumps(manifest, indent=2, default=str))
    sections = [_section(outcome) for outcome in outcomes]
    sections.append(page.Section("manifest", "Manifest", page.details("show", [shown])))
    target = Path(path)
    with written_atomically(target) as temporary:
        temporary.write_text(page.document(title, sections, about=about), encoding="utf-8")
    return target


def _section(outcome: "Outcome") -> page.Section:
    result, lines = outcome.result, []
    if result is None:
        text = f"Not possible with these data: {outcome.failure}"
        return page.Section(outcome.name, outcome.title, [page.failure(text)])
    lines += page.gallery([page.Shown(figure, f"{outcome.title}: {figure.stem}") for figure in outcome.figures])
    lines += page.notes(result.notes)
    for heading, rows in result.tables.items():
        lines += [page.heading(heading), *_table(rows)]
    scalars = [{"figure": name, "value": value} for name, value in result.scalars.items()]
    lines += page.details("logged figures", _table(scalars))
    names = [f"{outcome.name}.json", *(figure.name for figure in outcome.figures)]
    lines.append(page.paragraph(f"files: {', '.join(names)} (and a PDF beside each PNG)", "files"))
    return page.Section(outcome.name, outcome.title, lines)


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
