"""What a study is made of: its table, figures, rows, what is chosen, and how much of a row is trained."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning_repshape.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Published:
    """A paper's value of a cell."""

    mean: float | None = None  #: None where the paper has words or a range
    spread: float | None = None  #: its standard deviation
    range: tuple[float, float] | None = None  #: the lowest and the highest value
    text: str = ""  #: what the paper says instead of a number

    def show(self, digits: int = 2) -> str:
        """The value as a table has it, such as ``2.85 ± 0.11``."""
        if self.range is not None:
            return f"{self.range[0]:g} to {self.range[1]:g}"
        if self.mean is None:
            return self.text
        shown = f"{self.mean:.{digits}f}"
        return shown if self.spread is None else f"{shown} ± {self.spread:.{digits}f}"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number that a cell consists of."""

    name: str  #: in ids and tables
    metric: str  #: the key in a run's ``metrics.json``
    scale: float = 1.0  #: what the key's value is multiplied with
    unit: str = ""  #: of the scaled value
    better: Literal["lower", "higher"] | None = "lower"  #: which direction is better; None where neither is
    digits: int = 2  #: after the decimal point
    over: str | None = None  #: a method: the figure is the ratio of a method's value to that of this one


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is chosen by validation."""

    option: str  #: of ``fit``, that the values are given to
    values: tuple[str, ...]  #: as the command line has them
    metric: str = "val/error"  #: the validation figure
    better: Literal["lower", "higher"] = "lower"  #: which direction of it is better


@dataclasses.dataclass(frozen=True)
class Row:
    """One column of one method: what is trained, and what the paper has."""

    study: str  #: its id, such as ``aaai19/table-7``
    column: str
    method: str
    configs: tuple[Path, ...]  #: files, in order
    overrides: Mapping[str, Any]  #: options of ``fit`` and their values, applied after the configs
    seeds: tuple[int, ...]
    select: Selection | None  #: what is chosen by validation before the trainings
    retrain: tuple[tuple[Path, ...], Mapping[str, Any]] | None  #: further configs and overrides after the choice
    published: Mapping[str, Published]  #: the paper's values by figure
    data: str  #: the data set's name
    trained_as: str  #: the id under which the trainings lie: the row's own, or that of another study's same row
    reference: str  #: what ``fit --row`` takes: the id, or for a study of one's own its file and the row in it
    start: "Row | None" = None  #: the row of the same column whose training of the same seed a training starts from

    @property
    def id(self) -> str:
        """Such as ``aaai19/table-7/default/cw_vr``."""
        return f"{self.study}/{self.column}/{self.method}"

    @property
    def trained_in(self) -> str:
        """The id of the study that its trainings are in, its own or another one."""
        return self.trained_as.removesuffix(f"/{self.column}/{self.method}")

    @property
    def beside(self) -> Path | None:
        """Where a user's study stands, with data and networks of theirs; None for studies that are shipped."""
        file, colon, _ = self.reference.rpartition(":")
        return Path(file).resolve().parent if colon else None


@dataclasses.dataclass(frozen=True)
class Study:
    """A table."""

    id: str  #: such as ``aaai19/table-7``
    title: str  #: a line on what it shows
    paper: str  #: where it comes from
    source: str  #: the paper's table or figure
    data: str  #: the data sets' names
    figures: Mapping[str, Figure]  #: the figures of a cell, by name
    columns: Mapping[str, str]  #: the columns' names, in order, and what they are called
    methods: Mapping[str, str]  #: the methods' names, in order, and what they are called
    baseline: str | None  #: the method that others are compared with
    rows: tuple[Row, ...]  #: all, by column, then method
    notes: tuple[str, ...]  #: what a reader must know; what the paper leaves open
    file: Path  #: where the study was read from

    def row(self, column: str, method: str) -> Row | None:
        """The row of a column and a method, or None where the table has none."""
        return next((row for row in self.rows if (row.column, row.method) == (column, method)), None)


@dataclasses.dataclass(frozen=True)
class Variant:
    """How much of a row is trained, and with what; ConfigError if ``epochs`` is not in (0, 1] or no image is left."""

    seed: int = 0
    value: str | None = None  #: of the row's selection; None for the config's own
    epochs: float = 1.0  #: fraction of the row's epochs or steps
    train_size: int | None = None  #: at most so many training images; None for all
    retrain: bool = False  #: whether the training follows the choice and takes the row's ``retrain``

    def __post_init__(self) -> None:  # noqa: D105
        if not 0 < self.epochs <= 1:
            raise ConfigError(f"the budget is {self.epochs:g}; it must be a fraction of the epochs in (0, 1]")
        if self.train_size is not None and self.train_size < 1:
            raise ConfigError(f"the training set is cut to {self.train_size} images; at least one is needed")


def as_word(value: Any) -> str:
    """A value out of YAML as the command line has it: text that YAML reads as the same value."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | list | dict):
        return json.dumps(value)
    return format(value, "g") if isinstance(value, float) and float(format(value, "g")) == value else str(value)
