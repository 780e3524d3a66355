"""``report.csv`` and ``report.json``: the numbers of a report and the runs that they come from."""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_repshape.runs import METRICS
from lightning_repshape.runs.files import csv_text
from lightning_repshape.studies.cells import CellResult, FigureResult, StudyResult
from lightning_repshape.studies.jobs import STUDY, Run
from lightning_repshape.studies.values import Cost, Statistics

FORMAT = 1
MANIFEST = "report.json"
TABLE = "report.csv"
KEY = ("study", "column", "method", "figure")  # of a line of the table
_FIELDS = (
    *KEY, "unit", "n", "mean", "std", "ci_low", "ci_high", "published",
    "published_std", "difference", "p_paired", "value", "select_epochs", "epochs", "train_size", "seeds",
    "failed_seeds", "best_ours", "best_published", "step_time_ratio", "memory_ratio",
)  # fmt: skip


def checksum(file: Path) -> str:
    """What changes with the file."""
    return f"blake2b:{hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()}"


def table_of(studies: Sequence[StudyResult]) -> str:
    """The text of ``report.csv``: a line a cell and figure."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _FIELDS, lineterminator="\n")
    writer.writeheader()
    for study in studies:
        for cell in study.cells:
            for name, own in cell.figures.items():
                writer.writerow({key: as_text(value) for key, value in _record(study, cell, name, own).items()})
    return out.getvalue()


def _record(study: StudyResult, cell: CellResult, name: str, own: FigureResult) -> dict[str, Any]:
    return {
        **_key(study, cell, name),
        "unit": "" if own.figure.over is not None else own.figure.unit,
        **derived(own.statistics, own.published.mean, cell.cost),
        "published": own.show_published() or None if own.published.mean is None else own.published.mean,
        "published_std": own.published.spread,
        "value": cell.value,
        "select_epochs": None if cell.choice is None else cell.choice.epochs,
        "epochs": cell.epochs if cell.count("finished") else None,
        "train_size": cell.train_size,
        "seeds": seeds_of(own.statistics, [number.seed for number in own.own]),
        "failed_seeds": " ".join(map(str, cell.seeds("failed", "corrupt"))),
        "best_ours": own.best,
        "best_published": own.best_published,
    }


def _key(study: StudyResult, cell: CellResult, *figure: str) -> dict[str, str]:
    return dict(zip(KEY, (study.study.id, cell.row.column, cell.row.method, *figure), strict=False))


def derived(found: Statistics, published: float | None, own: Cost) -> dict[str, float | int | None]:
    """What the table has that follows from the numbers of ``report.json``; the check computes it anew."""
    low, high = found.interval or (None, None)
    return {
        "n": found.n,
        "mean": found.mean,
        "std": found.std,
        "ci_low": low,
        "ci_high": high,
        "p_paired": found.p,
        "difference": None if found.mean is None or published is None else found.mean - published,
        "step_time_ratio": own.step_ratio,
        "memory_ratio": own.memory_ratio,
    }


def seeds_of(found: Statistics, own: Iterable[int]) -> str:
    """The seeds whose values a mean is of; of a ratio of means, those of its numerator."""
    return " ".join(map(str, found.values or sorted(own)))


def as_text(value: Any) -> str:
    """A value as the table has it, with all its digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return csv_text(value) if isinstance(value, str) else repr(value) if isinstance(value, float) else str(value)


def numbers_of(study: StudyResult, cell: CellResult) -> Iterator[dict[str, Any]]:
    """The entries of ``report.json`` for a cell's numbers: which they are, and the run that each is of."""
    for name, own in cell.figures.items():
        for part, numbers in (("own", own.own), ("over", own.over or ()), ("baseline", own.baseline)):
            for number in numbers:
                yield {
                    **_key(study, cell, name),
                    "seed": number.seed,
                    "value": number.value,
                    "part": part,
                    "metric": own.figure.metric,
                    "scale": own.figure.scale,
                    "ratio": own.figure.over is not None,
                    **_source(study, number.run),
                }


def _source(study: StudyResult, run: Run) -> dict[str, Any]:
    file = run.folder / METRICS
    return {
        "run": run.folder.relative_to(study.folder.path).as_posix(),
        "row": run.manifest[STUDY]["row"],
        "checksum": checksum(file) if file.is_file() else None,
    }


def trainings_of(study: StudyResult, cell: CellResult) -> Iterator[dict[str, Any]]:
    """The entries of ``report.json`` for the trainings whose cost the cell's ratios are of."""
    for part, runs in (("own", cell.finished.values()), ("baseline", cell.baseline)):
        for run in runs:
            yield {**_key(study, cell), "part": part, **_source(study, run)}
