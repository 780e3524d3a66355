"""Results: what the run folders of a folder of results say of a study's cells. Nothing else is read.

The budget of a cell is the fullest at which at least one of the trainings after the choice is finished. What a report's
check must find again is computed here by :func:`statistics` and :func:`cost` alone.
"""

import dataclasses
import math
import statistics as plain
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_repshape.errors import DataError, RepshapeError
from lightning_repshape.studies.jobs import (
    STUDY,
    Budget,
    Cell,
    Job,
    Run,
    State,
    outdated,
    runs_under,
    validation_figure,
)
from lightning_repshape.studies.reading import Figure, Published, Row, Study, Variant, shipped

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Number:
    """A figure of one finished training.

    Args:
        seed: The training's seed.
        value: The figure, scaled.
        run: The run.
    """

    seed: int
    value: float
    run: Run


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What several trainings come to.

    Args:
        values: By seed.
        mean: Their mean; for ratios without a common seed the ratio of the means.
        std: Their standard deviation, with n - 1; None below two values.
        n: How many.
        interval: The 95 % confidence interval of the mean (Student's t); None below two values.
        p: Of the paired t-test against the baseline; None below two pairs, or where all pairs differ by the same.
    """

    values: Mapping[int, float] = dataclasses.field(default_factory=dict)
    mean: float | None = None
    std: float | None = None
    n: int = 0
    interval: tuple[float, float] | None = None
    p: float | None = None


def statistics(
    own: Mapping[int, float],
    over: Mapping[int, float] | None = None,
    baseline: Mapping[int, float] | None = None,
) -> Statistics:
    """Mean, spread, confidence interval and paired test.

    Args:
        own: Values by seed.
        over: What they are divided by, by seed. Default: nothing.
        baseline: The baseline's values by seed, divided in the same way. Default: no test.

    Returns:
        The statistics; empty where there is no value.
    """
    values = own if over is None else _ratios(own, over)
    if not values:
        mean = _ratio(_mean(own), _mean(over or {}))
        return Statistics() if mean is None else Statistics(mean=mean, n=min(len(own), len(over or {})))
    others = _ratios(baseline, over) if baseline is not None and over is not None else baseline
    seeds = sorted(values)
    mean, std, interval = _mean(values), None, None
    if mean is not None and len(seeds) > 1:
        from scipy.stats import t

        std = plain.stdev(values[seed] for seed in seeds)
        half = float(t.ppf(0.5 + _CONFIDENCE / 2, len(seeds) - 1)) * std / math.sqrt(len(seeds))
        interval = (mean - half, mean + half)
    return Statistics({seed: values[seed] for seed in seeds}, mean, std, len(seeds), interval, _p(values, others))


def _ratios(own: Mapping[int, float], over: Mapping[int, float]) -> dict[int, float]:
    return {seed: own[seed] / over[seed] for seed in own if over.get(seed)}


def _ratio(value: float | None, over: float | None) -> float | None:
    return value / over if value is not None and over else None


def _mean(values: Mapping[int, float]) -> float | None:
    return plain.fmean(values.values()) if values else None


def _p(values: Mapping[int, float], others: Mapping[int, float] | None) -> float | None:
    pairs = [(values[seed], others[seed]) for seed in sorted(values) if seed in others] if others else []
    differences = [one - other for one, other in pairs]
    size = max((abs(value) for pair in pairs for value in pair), default=0.0)
    # Figures have seven digits; below that differences are equal, and t would be without bound.
    if len(pairs) < 2 or max(differences) - min(differences) <= 1e-9 * size:
        return None
    from scipy.stats import ttest_rel

    p = float(ttest_rel([one for one, _ in pairs], [other for _, other in pairs]).pvalue)
    return p if math.isfinite(p) else None


@dataclasses.dataclass(frozen=True)
class FigureResult:
    """A figure of a cell.

    Args:
        figure: Which.
        statistics: Of the finished trainings.
        own: The figure of each.
        over: The figure of the method's trainings that these are divided by; None where they are not.
        baseline: The baseline's trainings of the same budget; empty for the baseline itself.
        published: The paper's value.
        best: Whether it is the best of its column; None where it takes no part, or all are equal.
        best_published: The same for the paper's value.
    """

    figure: Figure
    statistics: Statistics
    own: tuple[Number, ...] = ()
    over: tuple[Number, ...] | None = None
    baseline: tuple[Number, ...] = ()
    published: Published | None = None
    best: bool | None = None
    best_published: bool | None = None

    def show(self) -> str:
        """Mean and spread as a table has them; empty where there is no value."""
        found, digits = self.statistics, self.figure.digits
        if found.mean is None:
            return ""
        return f"{found.mean:.{digits}f}" + ("" if found.std is None else f" ± {found.std:.{digits}f}")

    def show_published(self) -> str:
        """The paper's value as a table has it; empty where it has none."""
        return self.published.show(self.figure.digits) if self.published is not None else ""

    @property
    def difference(self) -> float | None:
        """Our mean less the paper's; None where one is missing."""
        if self.statistics.mean is None or self.published is None or self.published.mean is None:
            return None
        return self.statistics.mean - self.published.mean


@dataclasses.dataclass(frozen=True)
class Cost:
    """What trainings cost, by the machine that they ran on.

    Args:
        step_seconds: Median of the trainings' seconds a step.
        memory_mb: Median of their processes' peak memory.
        gpu_memory_mb: Median of their peak memory on the GPU.
        step_ratio: Of the step times to the baseline's, on the same kind of machine.
        memory_ratio: Of the peak memories to the baseline's, on the same kind of machine; of the GPU's where known.
    """

    step_seconds: float | None = None
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None
    step_ratio: float | None = None
    memory_ratio: float | None = None


def cost(own: Sequence[Run], baseline: Sequence[Run]) -> Cost:
    """What trainings cost against others.

    Args:
        own: Finished trainings.
        baseline: Finished trainings that they are compared with.

    Returns:
        The cost; None wherever the manifests do not say.
    """

    def median(runs: Sequence[Run], key: str) -> float | None:
        found = [value for value in (_costs(run)[key] for run in runs) if value is not None]
        return plain.median(found) if found else None

    common = ({_machine(run) for run in own} & {_machine(run) for run in baseline}) - {""}
    mine = [run for run in own if _machine(run) in common]
    theirs = [run for run in baseline if _machine(run) in common]
    ratios = {key: _ratio(median(mine, key), median(theirs, key)) for key in ("step", "memory", "gpu")}
    return Cost(
        median(own, "step"),
        median(own, "memory"),
        median(own, "gpu"),
        ratios["step"],
        ratios["memory"] if ratios["gpu"] is None else ratios["gpu"],
    )


def _machine(run: Run) -> str:
    """What trained, such that costs can be compared; empty where the manifest does not say."""
    machine = run.manifest.get("machine")
    if not isinstance(machine, dict) or not machine.get("cpu"):
        return ""
    return ", ".join(str(machine.get(key)) for key in ("cpu", "threads", "accelerator"))


def _costs(run: Run) -> dict[str, float | None]:
    fits = [session for session in run.sessions if session.get("stage") == "fit"]

    def number(session: Mapping[str, Any], key: str) -> float:
        value = session.get(key)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else 0.0

    timed = [(number(own, "steps"), number(own, "steps_per_second")) for own in fits]
    timed = [(steps, speed) for steps, speed in timed if steps and speed]
    steps = sum(steps for steps, _ in timed)
    return {
        "step": sum(steps / speed for steps, speed in timed) / steps if steps else None,
        "memory": max((number(own, "peak_memory_mb") for own in fits), default=0.0) or None,
        "gpu": max((number(own, "peak_gpu_memory_mb") for own in fits), default=0.0) or None,
    }


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice by validation.

    Args:
        value: What was chosen; None where the choice is not made.
        epochs: Fraction of the epochs of the trainings that it is made from.
        figures: The validation figure by value, of those that are finished.
        failed: What went wrong, by value.
        total: How many values there are.
    """

    value: str | None
    epochs: float
    figures: Mapping[str, float]
    failed: Mapping[str, str]
    total: int

    @property
    def done(self) -> int:
        """How many values' trainings are over."""
        return len(self.figures) + len(self.failed)


@dataclasses.dataclass(frozen=True)
class CellResult:
    """A row: what was chosen, the trainings after the choice, and what they come to.

    Args:
        row: The row.
        remark: Why there are no figures; empty where there are.
        choice: The choice by validation; None where there is nothing to choose or nothing is trained.
        epochs: The fraction of the epochs of what is shown.
        train_size: Its limit of training images.
        repeats: A run a seed, in the row's order of seeds; those that are not there are ``missing``.
        figures: By name.
        cost: Against the baseline.
        baseline: The baseline's finished runs of the same budget; empty for the baseline itself.
        notes: What a reader must know.
    """

    row: Row
    remark: str
    choice: Choice | None
    epochs: float
    train_size: int | None
    repeats: Mapping[int, Run]
    figures: Mapping[str, FigureResult]
    cost: Cost
    baseline: tuple[Run, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> list[Run]:
        """The finished trainings after the choice."""
        return [run for run in self.repeats.values() if run.state == "finished"]

    @property
    def value(self) -> str | None:
        """What was chosen."""
        return self.choice.value if self.choice is not None else None

    @property
    def marks(self) -> tuple[str, ...]:
        """How the trainings are fewer than the row says; empty where they are not."""
        found = [f"{self.epochs:g} of the epochs"] if self.epochs != 1 else []
        found += [f"at most {self.train_size} training images"] if self.train_size is not None else []
        if self.choice is not None and self.choice.value is not None and self.choice.epochs != self.epochs:
            found.append(f"value chosen at {self.choice.epochs:g} of the epochs")
        return tuple(found)

    def seeds(self, *states: State) -> list[int]:
        """The seeds whose training is at something.

        Args:
            states: What.

        Returns:
            The seeds, in the row's order.
        """
        return [seed for seed, run in self.repeats.items() if run.state in states]

    def count(self, *states: State) -> int:
        """How many trainings after the choice are at something.

        Args:
            states: What, such as ``finished``, ``failed``, ``missing``.

        Returns:
            Their number.
        """
        return len(self.seeds(*states))

    @property
    def failures(self) -> list[str]:
        """A line for each training that failed or cannot be read."""
        chosen = self.choice.failed.items() if self.choice is not None else ()
        lines = [f"{self.row.id}, choice, value {value}: {error}" for value, error in chosen]
        for seed, run in self.repeats.items():
            if run.state in ("failed", "corrupt"):
                lines.append(f"{self.row.id}, seed {seed}: {run.error or run.state}")
        return lines


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of results.

    Args:
        path: Where it is.
        corrupt: Run folders that cannot be read, relative to it, and why.
        unknown: Run folders of rows that nobody knows, relative to it, and what they say they are.
    """

    path: Path
    corrupt: Mapping[str, str]
    unknown: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """A study's results.

    Args:
        study: The study.
        cells: Of the rows that were asked for, in the study's order.
        folder: Where they were read.
    """

    study: Study
    cells: tuple[CellResult, ...]
    folder: Folder

    @property
    def columns(self) -> list[str]:
        """The columns that there are cells of, in order."""
        return [name for name in self.study.columns if any(cell.row.column == name for cell in self.cells)]

    @property
    def methods(self) -> list[str]:
        """The methods that there are cells of, in order."""
        return [name for name in self.study.methods if any(cell.row.method == name for cell in self.cells)]

    def cell(self, column: str, method: str) -> CellResult | None:
        """The cell of a column and a method.

        Args:
            column: The column's name.
            method: The method's name.

        Returns:
            The cell, or None where there is none.
        """
        return next((own for own in self.cells if (own.row.column, own.row.method) == (column, method)), None)


def read_results(folder: Path, studies: Sequence[Study], rows: Collection[str] | None = None) -> list[StudyResult]:
    """Reads a folder of results.

    Args:
        folder: The folder.
        studies: Whose results are wanted.
        rows: The rows that are wanted, by id. Default: all of the studies.

    Returns:
        The studies' results, in order; studies of which no row is wanted are left out.

    Raises:
        DataError: If none of the rows has a finished training; the message says what there is.
    """
    reader = _Reader(folder, studies)
    found = []
    for study in studies:
        cells = [reader.cell(study, row) for row in study.rows if rows is None or row.id in rows]
        if cells:
            found.append(StudyResult(study, tuple(_with_best(study, cells)), reader.about))
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


@dataclasses.dataclass(frozen=True)
class _Shown:
    """The trainings that a cell shows."""

    remark: str
    choice: Choice | None
    epochs: float
    train_size: int | None
    repeats: Mapping[int, Run]

    @property
    def finished(self) -> list[tuple[int, Run]]:
        return [(seed, run) for seed, run in self.repeats.items() if run.state == "finished"]


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
        finished = shown.finished
        notes: list[str] = []
        of_others: dict[str, list[tuple[int, Run]]] = {}

        def others(method: str | None) -> list[tuple[int, Run]]:
            """The finished trainings of another method at the same budget."""
            other = study.row(row.column, method) if method is not None else None
            if other is None or method is None:
                return []
            if method not in of_others:
                of_others[method] = self._shown(other, (shown.train_size, shown.epochs)).finished
            return of_others[method]

        def numbers(figure: Figure, runs: Iterable[tuple[int, Run]], noted: bool = False) -> tuple[Number, ...]:
            found = []
            for seed, run in runs:
                value = figure_of(run, figure)
                if value is not None:
                    found.append(Number(seed, value, run))
                elif noted:
                    there = f"is {run.figures[figure.metric]}" if figure.metric in run.figures else "is missing"
                    notes.append(f"{row.id}, seed {seed}: {figure.metric} {there}; left out of {figure.name}")
            return tuple(found)

        figures = {}
        baseline = [] if row.method == study.baseline else others(study.baseline)
        for name, figure in study.figures.items():
            own = numbers(figure, finished, noted=True)
            over = None if figure.over is None else numbers(figure, others(figure.over))
            against = numbers(figure, baseline)
            values = statistics(
                _by_seed(own),
                None if over is None else _by_seed(over),
                _by_seed(against) if against else None,
            )
            figures[name] = FigureResult(figure, values, own, over, against, row.published.get(name))
        return CellResult(
            row,
            shown.remark,
            shown.choice,
            shown.epochs,
            shown.train_size,
            shown.repeats,
            figures,
            cost([run for _, run in finished], [run for _, run in baseline]),
            tuple(run for _, run in baseline),
            tuple(notes),
        )

    def _shown(self, row: Row, at: tuple[int | None, float] | None = None) -> _Shown:
        """What a cell shows: at a given limit of images and fraction of the epochs, else at the fullest."""
        budgets = self._budgets(row) if at is None else [at]
        for size, epochs in budgets:
            choices = self._choices(row, size)
            for choice in [None] if row.select is None else [own for own in choices if own.value is not None]:
                repeats = self._repeats(row, choice, epochs, size)
                if any(run.state == "finished" for run in repeats.values()):
                    return _Shown("", choice, epochs, size, repeats)
        return self._unfinished(row, budgets)

    def _unfinished(self, row: Row, budgets: Sequence[tuple[int | None, float]]) -> _Shown:
        if row.select is None:
            size, epochs = next(iter(budgets), (None, 1.0))
            repeats = self._repeats(row, None, epochs, size)
            remark = "not trained" if {run.state for run in repeats.values()} == {"missing"} else _remark(repeats)
            return _Shown(remark, None, epochs, size, repeats)
        sizes = dict.fromkeys(
            [*(size for size, _ in budgets), *(variant.train_size for variant in self._of(row)), None]
        )
        choices = [(size, choice) for size in sizes for choice in self._choices(row, size)]
        missing = {seed: Run(self.folder / row.trained_as, "missing") for seed in row.seeds}
        if not choices:
            return _Shown("not trained", None, 1.0, None, missing)
        # What was chosen says most; else the choice that is nearest to being made.
        size, choice = max(choices, key=lambda own: (own[1].value is not None, own[1].done))
        if choice.value is None:
            over = choice.done == choice.total
            remark = f"no value has {row.select.metric}" if over else f"selection {choice.done} of {choice.total}"
            return _Shown(remark, choice, choice.epochs, size, missing)
        begun = [epochs for own, epochs in budgets if own == size]
        for epochs in [*begun, choice.epochs]:
            repeats = self._repeats(row, choice, epochs, size)
            if any(run.state != "missing" for run in repeats.values()):
                return _Shown(_remark(repeats), choice, epochs, size, repeats)
        return _Shown("chosen, not trained", choice, choice.epochs, size, missing)

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


def figure_of(run: Run, figure: Figure) -> float | None:
    """A run's figure.

    Args:
        run: A finished run.
        figure: Which.

    Returns:
        The scaled value; None where the run has none, or none that is finite.
    """
    value = run.figures.get(figure.metric)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return figure.scale * value


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


def _with_best(study: Study, cells: Sequence[CellResult]) -> Iterator[CellResult]:
    """Marks which method is the best of each column, in ours and in the paper's; nothing of equals."""
    marks: dict[tuple[str, str], dict[str, dict[str, bool | None]]] = {}
    for column in study.columns:
        for name, figure in study.figures.items():
            there = [cell for cell in cells if cell.row.column == column]
            ours = {cell.row.method: cell.figures[name].statistics.mean for cell in there}
            papers = {cell.row.method: _published_mean(cell.figures[name]) for cell in there}
            marks[column, name] = {"ours": _best(ours, figure), "paper": _best(papers, figure)}
    for cell in cells:
        column, method = cell.row.column, cell.row.method
        yield dataclasses.replace(
            cell,
            figures={
                name: dataclasses.replace(
                    own,
                    best=marks[column, name]["ours"][method],
                    best_published=marks[column, name]["paper"][method],
                )
                for name, own in cell.figures.items()
            },
        )


def _published_mean(own: FigureResult) -> float | None:
    return own.published.mean if own.published is not None else None


def best_of(cells: Sequence[CellResult], figure: Figure) -> list[str]:
    """The methods whose mean is the best of several.

    Args:
        cells: The cells.
        figure: Of which figure.

    Returns:
        Their names: several where means are equal, none where there are fewer than two different means.
    """
    means = {cell.row.method: cell.figures[figure.name].statistics.mean for cell in cells}
    return [method for method, best in _best(means, figure).items() if best]


def _best(values: Mapping[str, float | None], figure: Figure) -> dict[str, bool | None]:
    known = [value for value in values.values() if value is not None]
    if len(set(known)) < 2 or figure.better is None:
        return dict.fromkeys(values)
    best = max(known) if figure.better == "higher" else min(known)
    return {method: None if value is None else value == best for method, value in values.items()}
