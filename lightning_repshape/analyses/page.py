"""The page that ``analyze`` writes: one HTML file with all figures, tables and the manifest in it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_repshape import page
from lightning_repshape.analyses.headline import headlines, scalars_of
from lightning_repshape.analyses.tables import result_lines
from lightning_repshape.runs.files import written_atomically

if TYPE_CHECKING:
    from lightning_repshape.analyses.result import Outcome

_MATRIX = "cosines"  # what several analyses may have found


def write_page(
    path: str | Path,
    title: str,
    about: Sequence[str],
    outcomes: "Sequence[Outcome]",
    manifest: Mapping[str, Any],
    maps: Path | None = None,
) -> Path:
    """Writes the HTML page: title, lines on what was analysed, outcomes, and at the end the run's manifest.

    ``maps`` is a page of its own beside it, which is named.
    """
    sections = [_section(outcome, outcomes[:place]) for place, outcome in enumerate(outcomes) if outcome.result]
    if maps is not None:
        lines = [page.link("each sample with its image, its class and what it is taken for", maps.name)]
        sections.insert(0, page.Section("maps", "Samples to hover over", lines))
    failed = [outcome for outcome in outcomes if outcome.result is None]
    if failed:
        lines = [page.failure(f"{outcome.title} ({outcome.name}): {outcome.failure}") for outcome in failed]
        sections.append(page.Section("not-possible", "Not possible with these data", lines))
    shown = page.preformatted(json.dumps(manifest, indent=2, default=str))
    sections.append(page.Section("manifest", "Manifest", page.details("show", [shown])))
    text = page.document(title, sections, about=about, cards=headline(outcomes))
    target = Path(path)
    with written_atomically(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def headline(outcomes: "Sequence[Outcome]") -> list[page.Card]:
    """The figures that matter most of what was found."""
    results = {outcome.name: outcome.result for outcome in outcomes if outcome.result is not None}
    classes = max((len(result.content.get("class_names", ())) for result in results.values()), default=0)
    return [page.Card(one.label, one.text, one.meaning, one.source) for one in headlines(scalars_of(outcomes), classes)]


def _section(outcome: "Outcome", earlier: "Sequence[Outcome]") -> page.Section:
    shown = [figure for figure in outcome.figures if figure.stem != outcome.name or not _again(outcome, earlier)]
    lines = page.gallery([page.Shown(figure, f"{outcome.title}: {figure.stem}") for figure in shown])
    found = outcome.result
    lines += result_lines(found.notes, found.tables, found.scalars) if found is not None else []
    if len(shown) < len(outcome.figures):
        lines.append(page.paragraph("The matrix is the one that is shown above."))
    names = [f"{outcome.name}.json", *(figure.name for figure in outcome.figures)]
    lines.append(page.paragraph(f"files: {', '.join(names)} (and a PDF beside each PNG)", "files"))
    return page.Section(outcome.name, outcome.title, lines)


def _again(outcome: "Outcome", earlier: "Sequence[Outcome]") -> bool:
    """Whether an outcome's main figure is a matrix that an earlier one has shown."""
    arrays = [own.result.arrays.get(_MATRIX) if own.result else None for own in (outcome, *earlier)]
    mine, *others = (np.empty(0) if matrix is None else matrix for matrix in arrays)
    return any(
        mine.size and mine.shape == other.shape and np.allclose(mine, other, atol=1e-6, equal_nan=True)
        for other in others
    )
