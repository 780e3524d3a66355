"""``report.csv`` and ``report.json``: the numbers of a report and the runs that they come from."""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_repshape.runs import METRICS
from lightning_repshape.studies.cells import CellResult, FigureResult, StudyResult
from lightning_repshape.studies.jobs import STUDY, Run
from lightning_repshape.studies.rows import Published
from lightning_repshape.studies.values import Cost, Number, Statistics

FORMAT = 1

MANIFEST = "report.json"

TABLE = "report.csv"

_FIELDS = (
    "study", "column", "method", "figure", "unit", "n", "mean", "std", "ci_low", "ci_high", "published",
    "published_std", "difference", "p_paired", "value", "select_epochs", "epochs", "train_size", "seeds",
    "failed_seeds", "best_ours", "best_published", "step_time_ratio", "memory_ratio",
)  # fmt: skip

_CHECKED = ("mean", "std", "n", "ci_low", "ci_high", "p_paired", "difference", "step_time_ratio", "memory_ratio")


def _checksum(file: Path) -> str:
    return f"blake2b:{hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()}"


def _csv(studies: Sequence[StudyResult]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _FIELDS, lineterminator="\n")
    writer.writeheader()
    for study in studies:
        for cell in study.cells:
            for name, own in cell.figures.items():
                writer.writerow({key: _text(value) for key, value in _record(study, cell, name, own).items()})
    return out.getvalue()


def _record(study: StudyResult, cell: CellResult, name: str, own: FigureResult) -> dict[str, Any]:
    published = own.published or Published()
    return {
        **_key(study, cell, name),
        "unit": "" if own.figure.over is not None else own.figure.unit,
        **_derived(own.statistics, published.mean, cell.cost),
        "published": own.show_published() or None if published.mean is None else published.mean,
        "published_std": published.spread,
        "value": cell.value,
        "select_epochs": None if cell.choice is None else cell.choice.epochs,
        "epochs": cell.epochs if cell.count("finished") else None,
        "train_size": cell.train_size,
        "seeds": _seeds(own.statistics, own.own),
        "failed_seeds": " ".join(map(str, cell.seeds("failed", "corrupt"))),
        "best_ours": own.best,
        "best_published": own.best_published,
    }


def _key(study: StudyResult, cell: CellResult, figure: str) -> dict[str, str]:
    return {"study": study.study.id, "column": cell.row.column, "method": cell.row.method, "figure": figure}


def _derived(found: Statistics, published: float | None, own: Cost) -> dict[str, float | int | None]:
    """What follows from the numbers of ``report.json``; the check computes it anew."""
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


def _seeds(found: Statistics, own: Sequence[Number]) -> str:
    return " ".join(map(str, found.values or sorted(number.seed for number in own)))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _numbers(study: StudyResult, cell: CellResult) -> Iterator[dict[str, Any]]:
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
        "checksum": _checksum(file) if file.is_file() else None,
    }


def _cost_runs(study: StudyResult, cell: CellResult) -> Iterator[dict[str, Any]]:
    for part, runs in (("own", cell.finished), ("baseline", cell.baseline)):
        for run in runs:
            key = {name: value for name, value in _key(study, cell, "").items() if name != "figure"}
            yield {**key, "part": part, **_source(study, run)}
