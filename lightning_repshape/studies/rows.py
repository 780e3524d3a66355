"""What a study is made of: its table, figures, rows, what is chosen, and how much of a row is trained."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning_repshape.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Published:
    """A paper's value of a cell.

    Args:
        mean: The value; None where the paper has words or a range.
        spread: Its standard deviation, where the paper has one.
        range: The lowest and the highest value, where the paper has a range.
        text: What the paper says instead of a number.
    """

    mean: float | None = None
    spread: float | None = None
    range: tuple[float, float] | None = None
    text: str = ""

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
    """A number that a cell consists of.

    Args:
        name: Its name in ids and tables.
        metric: Its key in a run's ``metrics.json``.
        scale: What the key's value is multiplied with.
        unit: Of the scaled value.
        better: Which direction is better; None where neither is.
        digits: After the decimal point.
        over: A method: the figure is the ratio of a method's value to that of this one.
    """

    name: str
    metric: str
    scale: float = 1.0
    unit: str = ""
    better: Literal["lower", "higher"] | None = "lower"
    digits: int = 2
    over: str | None = None


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is chosen by validation.

    Args:
        option: The option of ``fit`` that the values are given to.
        values: The values, as the command line has them.
        metric: The validation figure.
        better: Which direction of it is better.
    """

    option: str
    values: tuple[str, ...]
    metric: str = "val/error"
    better: Literal["lower", "higher"] = "lower"


@dataclasses.dataclass(frozen=True)
class Row:
    """One column of one method: what is trained, and what the paper has.

    Args:
        study: The study's id, such as ``aaai19/table-7``.
        column: The column's name.
        method: The method's name.
        configs: Config files, in order.
        overrides: Options of ``fit`` and their values, applied after the configs.
        seeds: Of the trainings.
        select: What is chosen by validation before them.
        retrain: Further configs and overrides of the trainings after the choice.
        published: The paper's values by figure.
        data: The data set's name.
        trained_as: The id under which the trainings lie: the row's own, or that of another study's same row.
        reference: What ``fit --row`` takes: the id, or for a study of one's own its file and the row in it.
    """

    study: str
    column: str
    method: str
    configs: tuple[Path, ...]
    overrides: Mapping[str, Any]
    seeds: tuple[int, ...]
    select: Selection | None
    retrain: tuple[tuple[Path, ...], Mapping[str, Any]] | None
    published: Mapping[str, Published]
    data: str
    trained_as: str
    reference: str

    @property
    def id(self) -> str:
        """Such as ``aaai19/table-7/default/cw_vr``."""
        return f"{self.study}/{self.column}/{self.method}"

    @property
    def beside(self) -> Path | None:
        """Where a user's study stands, with data and networks of theirs; None for studies that are shipped."""
        file, colon, _ = self.reference.rpartition(":")
        return Path(file).resolve().parent if colon else None


@dataclasses.dataclass(frozen=True)
class Study:
    """A table.

    Args:
        id: Such as ``aaai19/table-7``.
        title: A line on what it shows.
        paper: Where it comes from.
        source: The paper's table or figure.
        data: The data sets' names.
        figures: The figures of a cell, by name.
        columns: The columns' names, in order, and what they are called.
        methods: The methods' names, in order, and what they are called.
        baseline: The method that others are compared with.
        rows: All rows, by column, then method.
        notes: What a reader must know; what the paper leaves open.
        file: Where the study was read from.
    """

    id: str
    title: str
    paper: str
    source: str
    data: str
    figures: Mapping[str, Figure]
    columns: Mapping[str, str]
    methods: Mapping[str, str]
    baseline: str | None
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    file: Path

    def row(self, column: str, method: str) -> Row | None:
        """The row of a column and a method, or None where the table has none."""
        return next((row for row in self.rows if (row.column, row.method) == (column, method)), None)


@dataclasses.dataclass(frozen=True)
class Variant:
    """How much of a row is trained, and with what.

    Args:
        seed: The seed.
        value: Of the row's selection; None for the config's own.
        epochs: Fraction of the row's epochs or steps.
        train_size: At most so many training images; None for all.
        retrain: Whether the training follows the choice and takes the row's ``retrain``.

    Raises:
        ConfigError: If the fraction is not in (0, 1], or there would be no image.
    """

    seed: int = 0
    value: str | None = None
    epochs: float = 1.0
    train_size: int | None = None
    retrain: bool = False

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
