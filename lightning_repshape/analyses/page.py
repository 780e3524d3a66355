"""The page that ``analyze`` writes: one HTML file with all figures, tables and the manifest in it."""

import html
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
    parts = [
        *(f'<p class="about">{html.escape(line)}</p>' for line in about),
        "<nav>",
        *(f'<a href="#{html.escape(outcome.name)}">{html.escape(outcome.title)}</a>' for outcome in outcomes),
        '<a href="#manifest">Manifest</a></nav>',
    ]
    for outcome in outcomes:
        parts += _section(outcome)
    shown = html.escape(json.dumps(manifest, indent=2, default=str))
    parts += ['<h2 id="manifest">Manifest</h2>', f"<details><summary>show</summary><pre>{shown}</pre></details>"]
    target = Path(path)
    with written_atomically(target) as temporary:
        temporary.write_text(page.document(title, parts), encoding="utf-8")
    return target


def _section(outcome: "Outcome") -> list[str]:
    parts = [f'<h2 id="{html.escape(outcome.name)}">{html.escape(outcome.title)}</h2>']
    if outcome.result is None:
        return [*parts, f'<p class="failure">Not possible with these data: {html.escape(outcome.failure)}</p>']
    for figure in outcome.figures:
        parts.append(page.image(figure, f"{outcome.title}: {figure.stem}"))
    if outcome.result.notes:
        parts += ['<ul class="notes">', *(f"<li>{html.escape(note)}</li>" for note in outcome.result.notes), "</ul>"]
    for heading, rows in outcome.result.tables.items():
        parts += [f"<h3>{html.escape(heading)}</h3>", '<div class="wide">', *_table(rows), "</div>"]
    scalars = [{"figure": name, "value": value} for name, value in outcome.result.scalars.items()]
    parts += ["<details><summary>logged figures</summary>", *_table(scalars), "</details>"]
    names = [f"{outcome.name}.json", *(figure.name for figure in outcome.figures)]
    return [*parts, f'<p class="files">files: {html.escape(", ".join(names))} (and a PDF beside each PNG)</p>']


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
