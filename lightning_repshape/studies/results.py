"""Results: what the run folders of a folder of results say of a study's cells. Nothing else is read.

The budget of a cell is the fullest at which at least one of the trainings after the choice is finished. What a report's
check must find again is computed by :mod:`.values` alone.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lightning_repshape.errors import DataError, RepshapeError
from lightning_repshape.moved import elsewhere
from lightning_repshape.studies.cells import CellResult, Choice, FigureResult, Folder, StudyResult, with_best
from lightning_repshape.studies.jobs import STUDY, Budget, Cell, Job, Run, outdated, runs_under, validation_figure
from lightning_repshape.studies.reading import shipped
from lightning_repshape.studies.rows import Figure, Published, Row, Study, Variant
from lightning_repshape.studies.values import Number, cost, figure_of, statistics

__getattr__ = elsewhere(__name__, "studies.values", "studies.cells")  # names of earlier versions


def read_results(folder: Path, studies: Sequence[Study], rows: Collection[str] | None = None) -> list[StudyResult]:
    """The results of studies, in order; those of which no row is wanted are left out.

    ``rows`` are the ids that are wanted; None: all. Where none of them has a finished training, a DataError says what
    there is.
    """
    reader = _Reader(folder, studies)
    found = []
    for study in studies:
        cells = [reader.cell(study, row) for row in study.rows if rows is None or row.id in rows]
        if cells:
            found.append(StudyResult(study, tuple(with_best(cells)), reader.about))
    wanted = {cell.row.trained_as for result in found for cell in result.cells}
    states = Counter(run.state for row, runs in reader.runs.items() if row in wanted for run in runs.values())
    if not states["finished"]:
        names = ", ".join(study.id for study in studies)
        there = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none is begun"
        others = f"; {len(reader.about.corrupt)} run folders cannot be read" if reader.about.corrupt else ""
        raise DataError(
            f"{folder} has no finished training of {names}: {there}{others}. Train with 'study run', or name another "
            "folder with --out"
        )
    return found


class _Reader:
    """All runs of a folder, by row and variant."""

    def __init__(self, folder: Path, studies: Sequence[Study]) -> None:
        self.folder = folder
        rows = {row.trained_as: row for study in studies for row in study.rows}
        self.runs: dict[str, dict[Variant, Run]] = {}
        self._corrupt: dict[Path, Run] = {}
        corrupt: dict[str, str] = {}
        unknown: dict[str, str] = {}
        others: set[str] | None = None
        for run in runs_under(folder):
            name = run.folder.relative_to(folder).as_posix()
            row_id, variant, error = _told(run, rows)
            if not error and variant is not None and Job(rows[row_id], variant, folder).folder != run.folder:
                error = (
                    "it is not where a study puts this training, so it may be another one; move it there if it is not"
                )
            if not error and variant is not None:
                error = outdated(run, rows[row_id], variant)
            if error:
                corrupt[name] = error
                self._corrupt[run.folder] = dataclasses.replace(run, state="corrupt", error=error)
            elif variant is not None:
                self.runs.setdefault(row_id, {})[variant] = run
            else:
                others = {row.trained_as for study in shipped() for row in study.rows} if others is None else others
                if row_id not in others:
                    unknown[name] = row_id
        self.about = Folder(folder, corrupt, unknown)

    def cell(self, study: Study, row: Row) -> CellResult:
        shown = self._shown(row)
        notes: list[str] = []
        of_others: dict[str | None, Mapping[int, Run]] = {}

        def others(method: str | None) -> Mapping[int, Run]:
            """The finished trainings of another method at the same budget."""
            if method not in of_others:
                other = study.row(row.column, method or "")
                at = (shown.train_size, shown.epochs)
                of_others[method] = {} if other is None else self._shown(other, at).finished
            return of_others[method]

        def numbers(figure: Figure, runs: Mapping[int, Run], noted: bool = False) -> tuple[Number, ...]:
            found = []
            for seed, run in runs.items():
                value = figure_of(run, figure)
                if value is not None:
                    found.append(Number(seed, value, run))
                elif noted:
                    there = f"is {run.figures[figure.metric]}" if figure.metric in run.figures else "is missing"
                    notes.append(f"{row.id}, seed {seed}: {figure.metric} {there}; left out of {figure.name}")
            return tuple(found)

        figures = {}
        baseline = {} if row.method == study.baseline else others(study.baseline)
        for name, figure in study.figures.items():
            own = numbers(figure, shown.finished, noted=True)
            over = None if figure.over is None else numbers(figure, others(figure.over))
            against = numbers(figure, baseline)
            values = statistics(
                _by_seed(own), None if over is None else _by_seed(over), _by_seed(against) if against else None
            )
            published = row.published.get(name, Published())
            figures[name] = FigureResult(figure, values, own, over, against, published)
        return dataclasses.replace(
            shown,
            figures=figures,
            cost=cost(list(shown.finished.values()), list(baseline.values())),
            baseline=tuple(baseline.values()),
            notes=tuple(notes),
        )

    def _shown(self, row: Row, at: tuple[int | None, float] | None = None) -> CellResult:
        """What a cell shows: at a given limit of images and fraction of the epochs, else at the fullest."""
        budgets = self._budgets(row) if at is None else [at]
        for size, epochs in budgets:
            choices = self._choices(row, size)
            for choice in [None] if row.select is None else [own for own in choices if own.value is not None]:
                repeats = self._repeats(row, choice, epochs, size)
                if any(run.state == "finished" for run in repeats.values()):
                    return CellResult(row, "", choice, epochs, size, repeats)
        return self._unfinished(row, budgets)

    def _unfinished(self, row: Row, budgets: Sequence[tuple[int | None, float]]) -> CellResult:
        if row.select is None:
            size, epochs = next(iter(budgets), (None, 1.0))
            repeats = self._repeats(row, None, epochs, size)
            remark = "not trained" if {run.state for run in repeats.values()} == {"missing"} else _remark(repeats)
            return CellResult(row, remark, None, epochs, size, repeats)
        sizes = dict.fromkeys(
            [*(size for size, _ in budgets), *(variant.train_size for variant in self._of(row)), None]
        )
        choices = [(size, choice) for size in sizes for choice in self._choices(row, size)]
        missing = {seed: Run(self.folder / row.trained_as, "missing") for seed in row.seeds}
        if not choices:
            return CellResult(row, "not trained", None, 1.0, None, missing)
        # What was chosen says most; else the choice that is nearest to being made.
        size, choice = max(choices, key=lambda own: (own[1].value is not None, own[1].done))
        if choice.value is None:
            over = choice.done == choice.total
            remark = f"no value has {row.select.metric}" if over else f"selection {choice.done} of {choice.total}"
            return CellResult(row, remark, choice, choice.epochs, size, missing)
        begun = [epochs for own, epochs in budgets if own == size]
        for epochs in [*begun, choice.epochs]:
            repeats = self._repeats(row, choice, epochs, size)
            if any(run.state != "missing" for run in repeats.values()):
                return CellResult(row, _remark(repeats), choice, epochs, size, repeats)
        return CellResult(row, "chosen, not trained", choice, choice.epochs, size, missing)

    def _of(self, row: Row) -> Mapping[Variant, Run]:
        return self.runs.get(row.trained_as, {})

    def _budgets(self, row: Row) -> list[tuple[int | None, float]]:
        """The budgets of which there are trainings after the choice, the fullest first."""
        values = (None,) if row.select is None else row.select.values
        found = {
            (variant.train_size, variant.epochs)
            for variant in self._of(row)
            if variant.seed in row.seeds and variant.value in values and variant.retrain == (row.retrain is not None)
        }
        return sorted(found, key=lambda own: (own[0] is None, own[0] or 0, own[1]), reverse=True)

    def _repeats(self, row: Row, choice: Choice | None, epochs: float, size: int | None) -> dict[int, Run]:
        cell = Cell(row, self.folder, Budget(epochs, train_size=size))
        jobs = cell.repeats(choice.value if choice is not None else None)
        return {job.variant.seed: self._run(job) for job in jobs}

    def _run(self, job: Job) -> Run:
        found = self._of(job.row).get(job.variant) or self._corrupt.get(job.folder)
        return found if found is not None else Run(job.folder, "missing")

    def _choices(self, row: Row, size: int | None) -> list[Choice]:
        """The choices that were begun with a limit of images, that of most epochs first."""
        if row.select is None:
            return []
        begun = {
            variant.epochs
            for variant in self._of(row)
            if not variant.retrain
            and variant.value in row.select.values
            and (variant.seed, variant.train_size) == (row.seeds[0], size)
        }
        return [self._choice(row, epochs, size) for epochs in sorted(begun, reverse=True)]

    def _choice(self, row: Row, epochs: float, size: int | None) -> Choice:
        cell = Cell(row, self.folder, Budget(epochs, train_size=size))
        runs = {job.name: self._run(job) for job in cell.choices()}
        value, figures = cell.chosen(runs)
        failed = {}
        for job in cell.choices():
            run = runs[job.name]
            # The runner chooses among the others, too, where a training has no figure or cannot be read.
            over = run.state in ("finished", "failed", "corrupt")
            if over and job.variant.value is not None and job.variant.value not in figures:
                failed[job.variant.value] = run.error or "no finite validation figure"
        total = len(runs)
        return Choice(value if len(figures) + len(failed) == total else None, epochs, figures, failed, total)


def _by_seed(numbers: Sequence[Number]) -> dict[int, float]:
    return {number.seed: number.value for number in numbers}


def _remark(repeats: Mapping[int, Run]) -> str:
    counts = Counter(run.state for run in repeats.values())
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if state != "missing")


def _told(run: Run, rows: Mapping[str, Row]) -> tuple[str, Variant | None, str]:
    """What a run says it is: the row's id, what of it (None where the row is none of those), and what is wrong."""
    if run.state == "corrupt":
        return "", None, run.error
    own = run.manifest.get(STUDY)
    if own is None:
        return "no row of a study", None, ""
    row_id = own.get("row") if isinstance(own, dict) else None
    if not isinstance(row_id, str):
        return "", None, f"its manifest's {STUDY!r} names no row"
    if row_id not in rows:
        return row_id, None, ""
    try:
        value, size = own.get("value"), own.get("train_size")
        variant = Variant(
            int(own["seed"]),
            None if value is None else str(value),
            float(own["epochs"]),
            None if size is None else int(size),
            own["retrain"] is True,
        )
        select = rows[row_id].select
        if select is not None and run.state == "finished" and variant.value is not None:
            validation_figure(run, select)
    except (RepshapeError, KeyError, TypeError, ValueError, OSError) as error:
        kind = "" if isinstance(error, RepshapeError | OSError) else f"{type(error).__name__}: "
        return row_id, None, f"it cannot be read ({kind}{error})"
    return row_id, variant, ""
