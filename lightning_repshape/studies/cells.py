"""What a study's cells come to: their figures, choices and trainings, and which is the best of a column."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_repshape.studies.jobs import Run, State
from lightning_repshape.studies.rows import Figure, Published, Row, Study
from lightning_repshape.studies.values import Cost, Number, Statistics, paired_p

LEAST = 3  # trainings, below which neither an interval of the mean nor a test says anything
_CHANCE = 0.05


@dataclasses.dataclass(frozen=True)
class FigureResult:
    """A figure of a cell."""

    figure: Figure
    statistics: Statistics  #: of the finished trainings
    own: tuple[Number, ...] = ()  #: the figure of each
    over: tuple[Number, ...] | None = None  #: the figures of another method that these are divided by; None: no ratio
    baseline: tuple[Number, ...] = ()  #: its trainings of the same budget; empty for the baseline itself
    published: Published = dataclasses.field(default_factory=Published)  #: the paper's; empty: none
    best: bool | None = None  #: of its column; None where it takes no part, or all are equal
    best_published: bool | None = None  #: the same for the paper's value
    rival: tuple[str, float | None] | None = None  #: of the best: the method that it is told apart from least, and p

    @property
    def clear(self) -> bool:
        """Whether it is the best of its column beyond chance: p < 0.05 against every other method."""
        return self.rival is not None and self.rival[1] is not None and self.rival[1] < _CHANCE

    def show(self) -> str:
        """Mean and spread as a table has them; empty where there is no value."""
        found, digits = self.statistics, self.figure.digits
        if found.mean is None:
            return ""
        return f"{found.mean:.{digits}f}" + ("" if found.std is None else f" ± {found.std:.{digits}f}")

    def show_published(self) -> str:
        """The paper's value as a table has it; empty where it has none."""
        return self.published.show(self.figure.digits)

    @property
    def difference(self) -> float | None:
        """Our mean less the paper's; None where one is missing."""
        if self.statistics.mean is None or self.published.mean is None:
            return None
        return self.statistics.mean - self.published.mean


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice by validation."""

    value: str | None  #: what was chosen; None where the choice is not made
    epochs: float  #: fraction of the epochs of the trainings that it is made from
    figures: Mapping[str, float]  #: the validation figure by value, of those that are finished
    failed: Mapping[str, str]  #: what went wrong, by value
    total: int  #: how many values there are

    @property
    def done(self) -> int:
        """How many values' trainings are over."""
        return len(self.figures) + len(self.failed)


@dataclasses.dataclass(frozen=True)
class CellResult:
    """A row: what was chosen, the trainings after the choice, and what they come to."""

    row: Row
    remark: str  #: why there are no figures; empty where there are
    choice: Choice | None  #: None where there is nothing to choose or nothing is trained
    epochs: float  #: the fraction of the epochs of what is shown
    train_size: int | None  #: its limit of training images
    repeats: Mapping[int, Run]  #: a run a seed, in the row's order of seeds; those that are not there are ``missing``
    figures: Mapping[str, FigureResult] = dataclasses.field(default_factory=dict)  #: by name
    cost: Cost = dataclasses.field(default_factory=Cost)  #: against the baseline
    baseline: tuple[Run, ...] = ()  #: its finished runs of the same budget; empty for the baseline itself
    notes: tuple[str, ...] = ()  #: what a reader must know

    @property
    def finished(self) -> dict[int, Run]:
        """The finished trainings after the choice, by seed."""
        return {seed: run for seed, run in self.repeats.items() if run.state == "finished"}

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
        """The seeds whose training is at something, in the row's order."""
        return [seed for seed, run in self.repeats.items() if run.state in states]

    def count(self, *states: State) -> int:
        """How many trainings after the choice are at something, such as ``finished``, ``failed``, ``missing``."""
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
    """A folder of results, and what in it belongs to no study."""

    path: Path
    corrupt: Mapping[str, str]  #: run folders that cannot be read, relative to it, and why
    unknown: Mapping[str, str]  #: run folders of rows that nobody knows, and what they say they are


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """A study's results."""

    study: Study
    cells: tuple[CellResult, ...]  #: of the rows that were asked for, in the study's order
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
        """The cell of a column and a method, or None where there is none."""
        return next((own for own in self.cells if (own.row.column, own.row.method) == (column, method)), None)


def with_best(cells: Sequence[CellResult]) -> Iterator[CellResult]:
    """Marks which method is the best of each column, in ours and in the paper's; nothing of equals."""
    for cell in cells:
        column = [other for other in cells if other.row.column == cell.row.column]
        figures = {}
        for name, own in cell.figures.items():
            ours = _best({other.row.method: other.figures[name].statistics.mean for other in column}, own.figure)
            papers = _best({other.row.method: other.figures[name].published.mean for other in column}, own.figure)
            best, best_published = ours[cell.row.method], papers[cell.row.method]
            rival = _rival(cell, column, name) if best else None
            figures[name] = dataclasses.replace(own, best=best, best_published=best_published, rival=rival)
        yield dataclasses.replace(cell, figures=figures)


def _rival(best: CellResult, column: Sequence[CellResult], name: str) -> tuple[str, float | None]:
    """The method that the best one is told apart from least, and the paired test's p; None if it cannot be made.

    It takes three common seeds, trained on as much data for as long.
    """
    own, found = best.figures[name].statistics.values, []
    for other in column:
        theirs = other.figures[name].statistics
        if other.row.method == best.row.method or theirs.mean is None:
            continue
        alike = (other.epochs, other.train_size) == (best.epochs, best.train_size)
        tested = alike and len(own.keys() & theirs.values.keys()) >= LEAST
        found.append((other.row.method, paired_p(own, theirs.values) if tested else None))
    return max(found, key=lambda one: 2.0 if one[1] is None else one[1])


def best_of(cells: Sequence[CellResult], figure: Figure) -> list[str]:
    """The methods whose mean is the best: several where means are equal, none without two different means."""
    means = {cell.row.method: cell.figures[figure.name].statistics.mean for cell in cells}
    return [method for method, best in _best(means, figure).items() if best]


def _best(values: Mapping[str, float | None], figure: Figure) -> dict[str, bool | None]:
    known = [value for value in values.values() if value is not None]
    if len(set(known)) < 2 or figure.better is None:
        return dict.fromkeys(values)
    best = max(known) if figure.better == "higher" else min(known)
    return {method: None if value is None else value == best for method, value in values.items()}
