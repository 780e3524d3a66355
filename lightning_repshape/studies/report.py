"""Reports: the tables of studies as Markdown, CSV and one HTML page, and the check that every number has its run.

A report's folder holds ``report.md``, ``report.csv`` (a line a cell and figure), ``report.html``, the figures as PNG,
and ``report.json``: for every number the run folder it comes from and a checksum of that run's ``metrics.json``.
"""

import csv
import dataclasses
import datetime
import hashlib
import html
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_repshape import page
from lightning_repshape._version import __version__
from lightning_repshape.errors import ConfigError, RepshapeError
from lightning_repshape.page import Strong
from lightning_repshape.plots.kit import save_figure
from lightning_repshape.plots.studies import Line, Panel, study_figure
from lightning_repshape.runs.files import read_json, write_json, written_atomically
from lightning_repshape.runs.folders import METRICS, folder_name, make_folder
from lightning_repshape.studies.jobs import STUDY, Run, read_run
from lightning_repshape.studies.reading import Figure, Published
from lightning_repshape.studies.results import (
    CellResult,
    Cost,
    FigureResult,
    Folder,
    Number,
    Statistics,
    StudyResult,
    best_of,
    cost,
    figure_of,
    statistics,
)

FORMAT = 1
MANIFEST = "report.json"
TABLE = "report.csv"
PAGE = "report.html"
TEXT = "report.md"
_TITLE = "Results of studies"
_ACROSS = 6  # columns of values in one table at most
_NONE = "–"
_FIELDS = (
    "study", "column", "method", "figure", "unit", "n", "mean", "std", "ci_low", "ci_high", "published",
    "published_std", "difference", "p_paired", "value", "select_epochs", "epochs", "train_size", "seeds",
    "failed_seeds", "best_ours", "best_published", "step_time_ratio", "memory_ratio",
)  # fmt: skip
_CHECKED = ("mean", "std", "n", "ci_low", "ci_high", "p_paired", "difference", "step_time_ratio", "memory_ratio")


def write_report(folder: Path, studies: Sequence[StudyResult]) -> Path:
    """Writes a report.

    Args:
        folder: Where to; an older report in it is replaced.
        studies: The studies' results, all of one folder of results.

    Returns:
        The HTML page.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    make_folder(folder)
    old = _files(folder)
    pictures = {study.study.id: list(_pictures(folder, study)) for study in studies}
    parts = [part for study in studies for part in _study(study, pictures[study.study.id])]
    if studies:
        parts += _leftover(studies[0].folder)
    about = f"lightning-repshape {__version__}; {'; '.join(study.study.id for study in studies)}"
    texts = {
        TABLE: _csv(studies),
        TEXT: _markdown(about, parts),
        PAGE: page.document(_TITLE, _html(about, parts, folder, studies)),
    }
    for name, text in texts.items():
        # Line ends are part of the checksum, so they are the same everywhere.
        with written_atomically(folder / name) as temporary:
            temporary.write_bytes(text.encode())
    files = [*texts, *(picture.file for own in pictures.values() for picture in own)]
    for name in set(old) - set(files):
        (folder / name).unlink(missing_ok=True)
    manifest = {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "studies": [study.study.id for study in studies],
        "files": {name: _checksum(folder / name) for name in files},
        "numbers": [entry for study in studies for cell in study.cells for entry in _numbers(study, cell)],
        "costs": [entry for study in studies for cell in study.cells for entry in _cost_runs(study, cell)],
    }
    write_json(folder / MANIFEST, manifest)
    return folder / PAGE


def _files(folder: Path) -> list[str]:
    """The files of an older report."""
    try:
        files = read_json(folder / MANIFEST).get("files")
    except (RepshapeError, OSError):
        return []
    names = files if isinstance(files, dict) else {}
    return [name for name in names if Path(name).name == name]


def _checksum(file: Path) -> str:
    return f"blake2b:{hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()}"


# -- what is written, whatever the format ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Heading:
    text: str
    level: int
    anchor: str = ""


@dataclasses.dataclass(frozen=True)
class _Paragraph:
    text: str


@dataclasses.dataclass(frozen=True)
class _Points:
    texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class _Table:
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int  # so many columns, from the left, are no numbers


@dataclasses.dataclass(frozen=True)
class _Picture:
    file: str
    alt: str


_Part = _Heading | _Paragraph | _Points | _Table | _Picture


def _study(result: StudyResult, pictures: Sequence[_Picture]) -> Iterator[_Part]:
    study = result.study
    yield _Heading(f"{study.id}: {study.title}", 2, folder_name(study.id))
    about = [
        ", ".join(part for part in (study.paper, study.source) if part),
        f"data: {study.data}" if study.data else "",
    ]
    if any(about):
        yield _Paragraph("; ".join(part for part in about if part))
    marks = _Marks()
    tables = list(_values(result, marks))
    yield from tables
    published = any(cell.row.published for cell in result.cells)
    best = f"The best of a column is set in bold{', ours and the paper’s' if published else ''}."
    yield _Paragraph(f"Mean ± standard deviation (number of trainings). {best}")
    if marks.texts:
        yield _Points([f"{_raised(number)} {text}" for text, number in marks.texts.items()])
    yield from pictures
    yield from _bests(result)
    yield from _differences(result)
    yield from _trainings(result)
    failures = [line for cell in result.cells for line in cell.failures]
    if failures:
        yield _Heading("Failed", 3)
        yield _Points(failures)
    notes = [*study.notes, *(note for cell in result.cells for note in cell.notes), *_mixed(result)]
    if notes:
        yield _Heading("Notes", 3)
        yield _Points(notes)


class _Marks:
    """Footnotes."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def of(self, texts: Sequence[str]) -> str:
        return " ".join(_raised(self.texts.setdefault(text, len(self.texts) + 1)) for text in texts)


def _raised(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _figure_name(result: StudyResult, figure: Figure) -> str:
    if figure.over is not None:
        return f"{figure.name}, ratio to {result.study.methods[figure.over]}"
    return f"{figure.name} ({figure.unit})" if figure.unit else figure.name


def _values(result: StudyResult, marks: _Marks) -> Iterator[_Part]:
    """The study's own table: figures side by side where there is one column, else a table a figure."""
    columns, methods, figures = result.columns, result.methods, list(result.study.figures.values())
    named = {name: result.study.methods[name] for name in methods}
    if len(columns) == 1:
        heads = {_figure_name(result, figure): (columns[0], figure) for figure in figures}
        yield from _grid(result, "method", named, heads, marks)
        return
    for figure in figures:
        yield _Heading(_figure_name(result, figure), 3)
        titles = {name: result.study.columns[name] for name in columns}
        if len(columns) > _ACROSS >= len(methods):
            yield from _grid(result, "column", titles, {named[name]: (name, figure) for name in methods}, marks, True)
        else:
            yield from _grid(result, "method", named, {titles[name]: (name, figure) for name in columns}, marks)


def _grid(
    result: StudyResult,
    corner: str,
    lines: Mapping[str, str],
    heads: Mapping[str, tuple[str, Figure]],
    marks: _Marks,
    turned: bool = False,
) -> Iterator[_Table]:
    names = list(heads)
    for start in range(0, len(names), _ACROSS):
        headers = [corner]
        rows: list[list[str]] = [[title] for title in lines.values()]
        for head in names[start : start + _ACROSS]:
            other, figure = heads[head]
            cells = [result.cell(*((line, other) if turned else (other, line))) for line in lines]
            paper = any(cell is not None and figure.name in cell.row.published for cell in cells)
            headers += [head, "paper"] if paper else [head]
            for row, cell in zip(rows, cells, strict=True):
                row.append("" if cell is None else _ours(cell, figure, marks))
                if paper:
                    row.append("" if cell is None else _papers(cell.figures[figure.name]))
        yield _Table(headers, rows, 1)


def _ours(cell: CellResult, figure: Figure, marks: _Marks) -> str:
    own = cell.figures[figure.name]
    shown = own.show()
    if not shown:
        return cell.remark or _NONE
    total = len(cell.repeats)
    count = f"{own.statistics.n}" if own.statistics.n == total else f"{own.statistics.n} of {total}"
    failed = cell.count("failed", "corrupt")
    shown += f" ({count}{f', {failed} failed' if failed else ''}){marks.of(cell.marks)}"
    return Strong(shown) if own.best else shown


def _papers(own: FigureResult) -> str:
    shown = own.show_published()
    return Strong(shown) if own.best_published else shown


def _bests(result: StudyResult) -> Iterator[_Part]:
    rows = []
    titles = result.study.methods
    for column in result.columns:
        for name, figure in result.study.figures.items():
            cells = [cell for method in result.methods if (cell := result.cell(column, method)) is not None]
            ours = [titles[cell.row.method] for cell in cells if cell.figures[name].best]
            papers = [titles[cell.row.method] for cell in cells if cell.figures[name].best_published]
            # The paper may have fewer methods: what is best of those is to be compared with it.
            common = [cell for cell in cells if cell.figures[name].best_published is not None]
            among = [titles[method] for method in best_of(common, figure)] if papers else []
            trained = sum(cell.figures[name].statistics.mean is not None for cell in cells)
            if ours and trained < len(cells):
                ours.append(f"of the {trained} methods trained")
            if ours or papers:
                texts = [", ".join(own) or _NONE for own in (ours, among, papers)]
                rows.append([result.study.columns[column], _figure_name(result, figure), *texts])
    if rows:
        headers = ["column", "figure", "ours", "ours, among the paper's methods", "the paper's"]
        kept = [0, 1, 2]
        kept += [3] if any(row[3] not in (_NONE, row[2]) for row in rows) else []
        kept += [4] if any(row[4] != _NONE for row in rows) else []
        yield _Heading("The best method", 3)
        yield _Table([headers[at] for at in kept], [[row[at] for at in kept] for row in rows], len(kept))


def _differences(result: StudyResult) -> Iterator[_Part]:
    published = any(cell.row.published for cell in result.cells)
    rows = []
    for column, method, cell in _cells(result):
        for name, figure in result.study.figures.items():
            own = cell.figures[name]
            if own.statistics.mean is None:
                continue
            digits, interval = figure.digits, own.statistics.interval
            row = [column, method, _figure_name(result, figure), own.show(), _budget(cell)]
            row.append(_NONE if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}")
            if published:
                row += [own.show_published() or _NONE, _signed(own.difference, digits)]
            rows.append([*row, _p(own.statistics.p)])
    if rows:
        baseline = result.study.baseline
        against = result.study.methods[baseline] if baseline is not None else "the baseline"
        papers = ["paper", "ours − paper"] if published else []
        yield _Heading("Differences", 3)
        headers = ["ours", "budget", "95 % interval of the mean", *papers, f"p against {against}"]
        yield _Table(["column", "method", "figure", *headers], rows, 3)
        yield _Paragraph("p: paired t-test over the seeds that both have at the same budget.")


def _signed(value: float | None, digits: int) -> str:
    if value is None:
        return _NONE
    shown = f"{value:+.{digits}f}".replace("-", "−")
    return shown if any(sign in "123456789" for sign in shown) else shown[1:]


def _p(p: float | None) -> str:
    return _NONE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _trainings(result: StudyResult) -> Iterator[_Part]:
    rows = []
    for column, method, cell in _cells(result):
        own = cell.cost
        done = [f"{cell.count('finished')} of {len(cell.repeats)}"]
        done += [
            f"{state}: {', '.join(map(str, seeds))}"
            for state in ("failed", "corrupt", "interrupted", "missing")
            if (seeds := cell.seeds(state))
        ]
        memory = own.memory_mb if own.gpu_memory_mb is None else own.gpu_memory_mb
        rows.append(
            [
                column,
                method,
                _chosen(cell),
                _budget(cell),
                "; ".join(done),
                _NONE if own.step_seconds is None else f"{1000 * own.step_seconds:.2f}",
                _NONE if own.step_ratio is None else f"{own.step_ratio:.2f}",
                _NONE if memory is None else f"{memory:.0f}{'' if own.gpu_memory_mb is None else ' (GPU)'}",
                _NONE if own.memory_ratio is None else f"{own.memory_ratio:.2f}",
            ]
        )
    yield _Heading("Trainings and their cost", 3)
    headers = ["finished seeds", "ms a step", "of the baseline's", "peak memory, MB", "of the baseline's"]
    yield _Table(["column", "method", "value chosen", "budget", *headers], rows, 5)
    selections = dict.fromkeys(cell.row.select for cell in result.cells if cell.row.select is not None)
    for select in selections:
        yield _Paragraph(
            f"Chosen by {select.metric} ({select.better} is better) among {', '.join(select.values)}: {select.option}."
        )


def _chosen(cell: CellResult) -> str:
    if cell.row.select is None:
        return ""
    if cell.choice is None or cell.choice.value is None:
        return cell.remark or _NONE
    return cell.choice.value


def _budget(cell: CellResult) -> str:
    return ("; ".join(cell.marks) or "full") if cell.count("finished") else _NONE


def _cells(result: StudyResult) -> Iterator[tuple[str, str, CellResult]]:
    for column in result.columns:
        for method in result.methods:
            cell = result.cell(column, method)
            if cell is not None:
                yield result.study.columns[column], result.study.methods[method], cell


def _mixed(result: StudyResult) -> Iterator[str]:
    for column in result.columns:
        cells = [cell for cell in result.cells if cell.row.column == column and cell.count("finished")]
        if len({(cell.epochs, cell.train_size) for cell in cells}) > 1:
            yield f"The budgets of {result.study.columns[column]} differ between methods: compare with care."


def _leftover(folder: Folder) -> Iterator[_Part]:
    if folder.corrupt:
        yield _Heading("Run folders that were skipped", 2)
        yield _Points([f"{name}: {error}" for name, error in folder.corrupt.items()])
    if folder.unknown:
        yield _Heading("Run folders of rows that are not known", 2)
        yield _Points([f"{name}: {row}" for name, row in folder.unknown.items()])


# -- pictures --------------------------------------------------------------------------------------------------------


def _pictures(folder: Path, result: StudyResult) -> Iterator[_Picture]:
    columns, figures = result.columns, list(result.study.figures.values())
    sets: dict[str, list[tuple[str, Figure, str]]] = {}
    if len(columns) == 1:
        sets[""] = [(columns[0], figure, "") for figure in figures]
    else:
        for figure in figures:
            sets[figure.name] = [(column, figure, result.study.columns[column]) for column in columns]
    for name, members in sets.items():
        panels = [
            Panel(title, _figure_name(result, own), _lines(result, column, own)) for column, own, title in members
        ]
        panels = [panel for panel in panels if any(line.mean is not None for line in panel.lines)]
        if panels:
            file = folder_name("-".join([*result.study.id.split("/"), *([name] if name else [])])) + ".png"
            save_figure(study_figure(panels), folder / file, vector=False)
            yield _Picture(file, f"{result.study.id}{f', {name}' if name else ''}: values by method")


def _lines(result: StudyResult, column: str, figure: Figure) -> list[Line]:
    lines = []
    for method in result.methods:
        cell = result.cell(column, method)
        if cell is None:
            lines.append(Line(result.study.methods[method], [], None, None))
            continue
        own = cell.figures[figure.name]
        published = own.published or Published()
        found = own.statistics
        lines.append(
            Line(
                result.study.methods[method],
                list(found.values.values()),
                found.mean,
                found.std,
                published.mean,
                published.spread,
                published.range,
                cell.remark if found.mean is None else "",
                published.text,
            )
        )
    return lines


# -- formats ---------------------------------------------------------------------------------------------------------


def _markdown(about: str, parts: Sequence[_Part]) -> str:
    lines = [f"# {_TITLE}", "", _plain(about), ""]
    for part in parts:
        match part:
            case _Heading(text, level, _):
                lines += ["#" * level + " " + _plain(text)]
            case _Paragraph(text):
                lines += [_plain(text)]
            case _Points(texts):
                lines += [f"- {_plain(text)}" for text in texts]
            case _Picture(file, alt):
                lines += [f"![{_plain(alt)}]({file})"]
            case _Table(headers, rows, texts):
                lines += [_row(headers), _row(["---"] * texts + ["---:"] * (len(headers) - texts))]
                lines += [_row(row) for row in rows]
        lines.append("")
    return "\n".join(lines)


def _row(texts: Sequence[str]) -> str:
    shown = [f"**{_plain(text)}**" if isinstance(text, Strong) else _plain(text) for text in texts]
    return f"| {' | '.join(shown)} |"


def _plain(text: str) -> str:
    """A text in one line, without what Markdown or HTML would take for markup."""
    text = " ".join(str(text).split())
    for sign, instead in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("`", "\\`")):
        text = text.replace(sign, instead)
    return text


def _html(about: str, parts: Sequence[_Part], folder: Path, studies: Sequence[StudyResult]) -> list[str]:
    links = [f'<a href="#{folder_name(study.study.id)}">{html.escape(study.study.id)}</a>' for study in studies]
    lines = [f'<p class="about">{html.escape(about)}</p>', "<nav>", *links, "</nav>"]
    for part in parts:
        match part:
            case _Heading(text, level, anchor):
                mark = f' id="{html.escape(anchor)}"' if anchor else ""
                lines.append(f"<h{level}{mark}>{html.escape(text)}</h{level}>")
            case _Paragraph(text):
                lines.append(f'<p class="about">{html.escape(text)}</p>')
            case _Points(texts):
                lines += ['<ul class="notes">', *(f"<li>{html.escape(text)}</li>" for text in texts), "</ul>"]
            case _Picture(file, alt):
                lines.append(page.image(folder / file, alt))
            case _Table(headers, rows, texts):
                numeric = [number >= texts for number in range(len(headers))]
                lines += ['<div class="wide">', *page.table(headers, rows, numeric), "</div>"]
    return lines


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


# -- the manifest and its check --------------------------------------------------------------------------------------


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


def check_report(folder: Path, results: Path) -> list[str]:
    """Verifies that every number of a report comes from a run folder that is there.

    Each run must be finished, be of the row and seed that the report says, and have the same ``metrics.json`` and the
    same value as when the report was written; whatever ``report.csv`` computes from the values is computed anew; and
    the report's files must be as they were written.

    Args:
        folder: The report's folder.
        results: The folder of results that it was made from.

    Returns:
        The problems, a line each; empty where there is none.

    Raises:
        ConfigError: If the folder holds no report of this version.
    """
    manifest = read_json(folder / MANIFEST)
    lists = [manifest.get(key) for key in ("numbers", "costs")]
    files = manifest.get("files")
    if (
        manifest.get("format") != FORMAT
        or not all(isinstance(own, list) for own in lists)
        or not isinstance(files, dict)
    ):
        there = f"{MANIFEST} has format {manifest.get('format')!r}" if manifest else f"{MANIFEST} is missing"
        raise ConfigError(f"{folder} holds no report that this version can check ({there}, not {FORMAT})")
    return _Check(folder, results).problems_of(manifest["numbers"], manifest["costs"], files)


class _Check:
    """Collects problems, each once."""

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder, self.results = folder, results
        self.problems: dict[str, None] = {}
        self._runs: dict[str, Run] = {}
        self._unsure: set[tuple[str, ...]] = set()

    def problems_of(self, numbers: Sequence[Any], costs: Sequence[Any], files: Mapping[str, Any]) -> list[str]:
        values: dict[tuple[str, ...], dict[str, dict[int, float]]] = {}
        runs: dict[tuple[str, ...], dict[str, list[Run]]] = {}
        ratios = set()
        for number in numbers:
            try:
                key = tuple(str(number[name]) for name in ("study", "column", "method", "figure"))
                self._number(number)
                values.setdefault(key, {}).setdefault(number["part"], {})[int(number["seed"])] = float(number["value"])
                if number["ratio"]:
                    ratios.add(key)
            except (KeyError, TypeError, ValueError):
                self._add(f"{MANIFEST}: {json.dumps(number)[:200]} is no number of a run")
        for entry in costs:
            try:
                key = tuple(str(entry[name]) for name in ("study", "column", "method"))
                run = self._run(entry)
                if run is None:
                    self._unsure.add(key)  # that its run is not there is problem enough
                else:
                    runs.setdefault(key, {}).setdefault(entry["part"], []).append(run)
            except (KeyError, TypeError):
                self._add(f"{MANIFEST}: {json.dumps(entry)[:200]} is no training")
        self._table(values, ratios, runs)
        for name, checksum in files.items():
            file = self.folder / name
            if not file.is_file():
                self._add(f"{name} is missing from {self.folder}")
            elif _checksum(file) != checksum:
                self._add(f"{name} was changed after the report was written")
        return list(self.problems)

    def _add(self, problem: str) -> None:
        self.problems[problem] = None

    def _run(self, entry: Mapping[str, Any]) -> Run | None:
        """The run that an entry names; None, and a problem, where it is not as it was."""
        name = str(entry["run"])
        if name not in self._runs:
            self._runs[name] = read_run(self.results / name)
        run = self._runs[name]
        if run.state != "finished":
            self._add(f"run {name} is {run.state}{f' ({run.error})' if run.error else ''}")
            return None
        told = run.manifest.get(STUDY)
        if not isinstance(told, dict) or told.get("row") != entry["row"]:
            self._add(f"run {name} is none of {entry['row']}")
            return None
        file = run.folder / METRICS
        if (_checksum(file) if file.is_file() else None) != entry["checksum"]:
            self._add(f"run {name}: {METRICS} was changed after the report was written")
        return run

    def _number(self, number: Mapping[str, Any]) -> None:
        run = self._run(number)
        if run is None:
            return
        where = f"{number['study']}/{number['column']}/{number['method']}, {number['figure']}, seed {number['seed']}"
        if run.manifest[STUDY].get("seed") != number["seed"]:
            self._add(f"{where}: run {number['run']} has seed {run.manifest[STUDY].get('seed')}")
        figure = Figure(str(number["figure"]), str(number["metric"]), float(number["scale"]))
        value = figure_of(run, figure)
        if value is None or not _same(value, float(number["value"])):
            self._add(f"{where}: the report has {number['value']!r}, but run {number['run']} has {value!r}")

    def _table(
        self,
        values: Mapping[tuple[str, ...], Mapping[str, Mapping[int, float]]],
        ratios: set[tuple[str, ...]],
        runs: Mapping[tuple[str, ...], Mapping[str, Sequence[Run]]],
    ) -> None:
        try:
            with (self.folder / TABLE).open(encoding="utf-8", newline="") as file:
                records = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            self._add(f"{TABLE} cannot be read: {error}")
            return
        seen = set()
        for record in records:
            key = tuple(str(record.get(name)) for name in ("study", "column", "method", "figure"))
            seen.add(key)
            parts, of_cost = values.get(key, {}), runs.get(key[:3], {})
            own = parts.get("own", {})
            found = statistics(own, parts.get("over", {}) if key in ratios else None, parts.get("baseline"))
            expected = _derived(
                found, _read(record.get("published")), cost(of_cost.get("own", []), of_cost.get("baseline", []))
            )
            for name in _CHECKED:
                given = record.get(name) or ""
                if name.endswith("_ratio") and key[:3] in self._unsure:
                    continue
                if not _agrees(given, expected[name]):
                    shown = _text(expected[name]) or "nothing"
                    self._add(f"{TABLE}: {'/'.join(key)}: {name} is {given or 'empty'}, but the runs give {shown}")
            seeds = " ".join(map(str, found.values or sorted(own)))
            if (record.get("seeds") or "") != seeds:
                self._add(f"{TABLE}: {'/'.join(key)}: seeds are {record.get('seeds')!r}, but the runs are {seeds!r}")
        for key in values:
            if key not in seen:
                self._add(f"{TABLE}: {'/'.join(key)} is missing")


def _read(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _agrees(text: str, expected: float | None) -> bool:
    if expected is None:
        return text == ""
    value = _read(text)
    return value is not None and _same(value, float(expected))


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
