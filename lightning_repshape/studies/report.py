"""Reports: the tables of studies as Markdown, CSV and one HTML page.

A report's folder holds ``report.md``, ``report.csv`` (a line a cell and figure), ``report.html``, the figures as PNG,
and ``report.json``: for every number the run folder it comes from and a checksum of that run's ``metrics.json``.
"""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_repshape._version import __version__
from lightning_repshape.errors import RepshapeError
from lightning_repshape.moved import elsewhere
from lightning_repshape.page import Card, Strong
from lightning_repshape.plots import Line, Panel, save_figure, study_figure
from lightning_repshape.runs import folder_name, make_folder, read_json, write_json, written_atomically
from lightning_repshape.studies.cells import LEAST, CellResult, FigureResult, Folder, StudyResult, best_of
from lightning_repshape.studies.formats import (
    Heading,
    Paragraph,
    Part,
    Picture,
    Points,
    Summary,
    Table,
    as_html,
    as_markdown,
)
from lightning_repshape.studies.records import FORMAT, MANIFEST, TABLE, checksum, numbers_of, table_of, trainings_of
from lightning_repshape.studies.rows import Figure

__getattr__ = elsewhere(__name__, "studies.check")  # names of earlier versions

PAGE = "report.html"
TEXT = "report.md"
_TITLE = "Results of studies"
_CARDS = 5
_ACROSS = 6  # columns of values in one table at most
_NONE = "–"


def write_report(folder: Path, studies: Sequence[StudyResult]) -> Path:
    """Writes a report on results, all of one folder of results; an older report in ``folder`` is replaced.

    Returns the HTML page. Raises a ConfigError if the folder cannot be written.
    """
    make_folder(folder)
    old = _files(folder)
    pictures = {study.study.id: list(_pictures(folder, study)) for study in studies}
    cards = [card for study in studies for card in _cards(study)][:_CARDS]
    parts: list[Part] = [Summary(cards)] if cards else []
    parts += [part for study in studies for part in _study(study, pictures[study.study.id])]
    if studies:
        parts += _leftover(studies[0].folder)
    about = f"lightning-repshape {__version__}; {'; '.join(study.study.id for study in studies)}"
    texts = {
        TABLE: table_of(studies),
        TEXT: as_markdown(_TITLE, about, parts),
        PAGE: as_html(_TITLE, about, parts, folder),
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
        "files": {name: checksum(folder / name) for name in files},
        "numbers": [entry for study in studies for cell in study.cells for entry in numbers_of(study, cell)],
        "costs": [entry for study in studies for cell in study.cells for entry in trainings_of(study, cell)],
    }
    write_json(folder / MANIFEST, manifest)
    return folder / PAGE


def tables_of(result: StudyResult) -> list[Part]:
    """The study's own tables alone, with what their marks mean."""
    marks = _Marks()
    tables = list(_values(result, marks))
    notes = [f"{_raised(number)} {text}" for text, number in marks.texts.items()]
    return [*tables, Paragraph("Mean ± standard deviation (number of trainings)."), *([Points(notes)] if notes else [])]


def _files(folder: Path) -> list[str]:
    """The files of an older report."""
    try:
        files = read_json(folder / MANIFEST).get("files")
    except (RepshapeError, OSError):
        return []
    names = files if isinstance(files, dict) else {}
    return [name for name in names if Path(name).name == name]


def _study(result: StudyResult, pictures: Sequence[Picture]) -> Iterator[Part]:
    study = result.study
    yield Heading(f"{study.id}: {study.title}", 2, study.id)
    about = [_joined(", ", study.paper, study.source), f"data: {study.data}" if study.data else ""]
    if any(about):
        yield Paragraph(_joined("; ", *about))
    marks = _Marks()
    yield from _values(result, marks)
    published = any(cell.row.published for cell in result.cells)
    best = "Bold: better than every other method of its column beyond chance, p < 0.05 in a paired t-test over "
    best += f"{LEAST} common seeds or more{'; of the paper’s values, the best' if published else ''}."
    yield Paragraph(f"Mean ± standard deviation (number of trainings). {best}")
    if marks.texts:
        yield Points([f"{_raised(number)} {text}" for text, number in marks.texts.items()])
    yield from pictures
    yield from _bests(result)
    yield from _differences(result)
    yield from _trainings(result)
    failures = [line for cell in result.cells for line in cell.failures]
    if failures:
        yield Heading("Failed", 3)
        yield Points(failures)
    notes = [*study.notes, *(note for cell in result.cells for note in cell.notes), *_mixed(result)]
    if notes:
        yield Heading("Notes", 3)
        yield Points(notes)


def _joined(by: str, *texts: str) -> str:
    return by.join(text for text in texts if text)


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


def _values(result: StudyResult, marks: _Marks) -> Iterator[Part]:
    """The study's own table: figures side by side where there is one column, else a table a figure."""
    columns, methods, figures = result.columns, result.methods, list(result.study.figures.values())
    named = {name: result.study.methods[name] for name in methods}
    if len(columns) == 1:
        heads = {_figure_name(result, figure): (columns[0], figure) for figure in figures}
        yield from _grid(result, "method", named, heads, marks)
        return
    for figure in figures:
        yield Heading(_figure_name(result, figure), 3)
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
) -> Iterator[Table]:
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
        yield Table(headers, rows, 1)


def _ours(cell: CellResult, figure: Figure, marks: _Marks) -> str:
    own = cell.figures[figure.name]
    shown = own.show()
    if not shown:
        return cell.remark or _NONE
    total = len(cell.repeats)
    count = f"{own.statistics.n}" if own.statistics.n == total else f"{own.statistics.n} of {total}"
    failed = cell.count("failed", "corrupt")
    shown += f" ({count}{f', {failed} failed' if failed else ''}){marks.of(cell.marks)}"
    return Strong(shown) if own.clear else shown


def _papers(own: FigureResult) -> str:
    shown = own.show_published()
    return Strong(shown) if own.best_published else shown


def _bests(result: StudyResult) -> Iterator[Part]:
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
                beyond = next((_beyond(result, cell.figures[name]) for cell in cells if cell.figures[name].best), _NONE)
                texts.insert(1, beyond)
                rows.append([result.study.columns[column], _figure_name(result, figure), *texts])
    if rows:
        headers = ["column", "figure", "ours, by its mean", "beyond chance"]
        headers += ["ours, among the paper's methods", "the paper's"]
        kept = [0, 1, 2, 3]
        kept += [4] if any(row[4] not in (_NONE, row[2]) for row in rows) else []
        kept += [5] if any(row[5] != _NONE for row in rows) else []
        yield Heading("The best method", 3)
        yield Table([headers[at] for at in kept], [[row[at] for at in kept] for row in rows], len(kept))


def _beyond(result: StudyResult, best: FigureResult) -> str:
    """Whether the best mean is told apart from all others."""
    if best.clear or best.rival is None:
        return "yes"
    method, p = best.rival
    why = f"fewer than {LEAST} common seeds" if p is None else f"p = {p:.2g}"
    return f"no, {why} against {result.study.methods[method]}"


def _cards(result: StudyResult) -> Iterator[Card]:
    """The best method of each column by the study's first figure, and its difference to the baseline."""
    figure = next((own for own in result.study.figures.values() if own.better is not None), None)
    if figure is None:
        return
    for column in result.columns:
        cells = [cell for method in result.methods if (cell := result.cell(column, method)) is not None]
        best = next((cell for cell in cells if cell.figures[figure.name].best), None)
        if best is None:
            continue
        own, titles = best.figures[figure.name], result.study.methods
        baseline = result.cell(column, result.study.baseline or "")
        label = _joined(": ", result.study.columns[column], _figure_name(result, figure))
        trained = sum(cell.figures[figure.name].statistics.mean is not None for cell in cells)
        meaning = f"The {'highest' if figure.better == 'higher' else 'lowest'} mean of {trained} methods. "
        base = None if baseline is None else baseline.figures[figure.name].statistics.mean
        if base is not None and baseline is not best and own.statistics.mean is not None:
            difference = _signed(own.statistics.mean - base, figure.digits)
            meaning += f"{difference} against {titles[baseline.row.method]}. " if baseline is not None else ""
        meaning += "" if own.rival is None else f"Beyond chance: {_beyond(result, own)}."
        source = _joined(", ", result.study.paper, result.study.source)
        yield Card(label, f"{titles[best.row.method]}: {own.show()}", meaning, source)


def _differences(result: StudyResult) -> Iterator[Part]:
    published = any(cell.row.published for cell in result.cells)
    rows, scarce = [], False
    for column, method, cell in _cells(result):
        for name, figure in result.study.figures.items():
            own = cell.figures[name]
            if own.statistics.mean is None:
                continue
            digits, interval = figure.digits, own.statistics.interval
            scarce = scarce or own.statistics.n < LEAST
            row = [column, method, _figure_name(result, figure), own.show(), _budget(cell)]
            if interval is None or own.statistics.n < LEAST:
                row.append(_NONE)
            else:
                row.append(f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}")
            if published:
                row += [own.show_published() or _NONE, _signed(own.difference, digits)]
            rows.append([*row, _p(own.statistics.p)])
    if rows:
        baseline = result.study.baseline
        against = result.study.methods[baseline] if baseline is not None else "the baseline"
        papers = ["paper", "ours − paper"] if published else []
        yield Heading("Differences", 3)
        headers = ["ours", "budget", "95 % interval of the mean", *papers, f"p against {against}"]
        yield Table(["column", "method", "figure", *headers], rows, 3)
        few = f"An interval of the mean takes {LEAST} trainings; of fewer it says nothing. " if scarce else ""
        yield Paragraph(f"{few}p: paired t-test over the seeds that both have at the same budget.")


def _signed(value: float | None, digits: int) -> str:
    if value is None:
        return _NONE
    shown = f"{value:+.{digits}f}".replace("-", "−")
    return shown if any(sign in "123456789" for sign in shown) else shown[1:]


def _p(p: float | None) -> str:
    return _NONE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _trainings(result: StudyResult) -> Iterator[Part]:
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
    yield Heading("Trainings and their cost", 3)
    headers = ["finished seeds", "ms a step", "of the baseline's", "peak memory, MB", "of the baseline's"]
    yield Table(["column", "method", "value chosen", "budget", *headers], rows, 5)
    selections = dict.fromkeys(cell.row.select for cell in result.cells if cell.row.select is not None)
    for select in selections:
        yield Paragraph(
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


def _leftover(folder: Folder) -> Iterator[Part]:
    if folder.corrupt:
        yield Heading("Run folders that were skipped", 2)
        yield Points([f"{name}: {error}" for name, error in folder.corrupt.items()])
    if folder.unknown:
        yield Heading("Run folders of rows that are not known", 2)
        yield Points([f"{name}: {row}" for name, row in folder.unknown.items()])


def _pictures(folder: Path, result: StudyResult) -> Iterator[Picture]:
    columns, figures = result.columns, list(result.study.figures.values())
    sets: dict[str, list[tuple[str, Figure, str]]] = {}
    if len(columns) == 1:
        sets[""] = [(columns[0], figure, "") for figure in figures]
    else:
        for figure in figures:
            sets[figure.name] = [(column, figure, result.study.columns[column]) for column in columns]
    for name, members in sets.items():
        panels = [
            Panel(title, _figure_name(result, own), list(_lines(result, column, own))) for column, own, title in members
        ]
        panels = [panel for panel in panels if any(line.mean is not None for line in panel.lines)]
        if panels:
            file = folder_name("-".join([*result.study.id.split("/"), *([name] if name else [])])) + ".png"
            save_figure(study_figure(panels), folder / file, vector=False)
            yield Picture(file, f"{result.study.id}{f', {name}' if name else ''}: values by method")


def _lines(result: StudyResult, column: str, figure: Figure) -> Iterator[Line]:
    for method in result.methods:
        title, cell = result.study.methods[method], result.cell(column, method)
        if cell is None:
            yield Line(title, [], None, None)
            continue
        own = cell.figures[figure.name]
        found, paper, remark = own.statistics, own.published, "" if own.statistics.mean is not None else cell.remark
        of_paper = (paper.mean, paper.spread, paper.range)
        yield Line(title, list(found.values.values()), found.mean, found.std, *of_paper, remark, paper.text)
