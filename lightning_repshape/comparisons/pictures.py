"""Figures of several models that one analysis makes of each, or that their trainings left."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lightning_repshape import plots
from lightning_repshape.comparisons.comparison import Comparison
from lightning_repshape.plots import SpacePanel
from lightning_repshape.runs.files import read_json
from lightning_repshape.runs.folders import CURVES, analysis_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SEPARABILITY = ("step", "accuracy", "loss", "raw", "unit")  # what a curve of e(W) has


class Picture(NamedTuple):
    """A figure, and where it belongs."""

    section: str  #: the heading of its section
    name: str  #: of its files
    alt: str
    figure: "Figure"


def pictures(comparison: Comparison) -> Iterator[Picture]:
    """All that can be drawn, section by section."""
    yield from _training(comparison)
    yield from _units(comparison)
    yield from _class_vectors(comparison)
    yield from _corruptions(comparison)


def _training(comparison: Comparison) -> Iterator[Picture]:
    """Validation errors by epoch, and e(W) by step where it was recorded."""
    curves: dict[str, tuple[plots.Array, plots.Array]] = {}
    separability: dict[str, dict[str, Any]] = {}
    for own in comparison.contenders:
        if own.run is None:
            continue
        points = _validation(own.run / CURVES)
        if len(points) > 1:
            epochs, errors = zip(*points, strict=True)
            curves[own.name] = np.array(epochs) + 1, 100 * np.array(errors)
        recorded = [read_json(path) for path in sorted(analysis_folder(own.run).glob("*.json"))]
        recorded = [found for found in recorded if set(_SEPARABILITY) <= set(found)]
        if recorded:
            separability[own.name] = max(recorded, key=lambda found: len(found["step"]))
    if curves:
        figure = plots.curves_figure(curves, "validation error (%)")
        yield Picture("Training", "training", "validation error by epoch", figure)
    if separability:
        figure = plots.curve_figure(separability)
        yield Picture("Training", "separability", "accuracy, loss and e(W) by step", figure)


def _validation(path: Path) -> list[tuple[float, float]]:
    """Epochs and validation errors of a run's curves; nothing where it has none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/error") and row.get("epoch")]
    return [(float(row["epoch"]), float(row["val/error"])) for row in rows]


def _units(comparison: Comparison) -> Iterator[Picture]:
    """Single units and components before and after the activation function (AAAI 2019, Figures 1, 2, 4 and 5)."""
    columns = {own.name: {**own.arrays("characteristics"), **own.arrays("pca")} for own in comparison.contenders}
    columns = {name: arrays for name, arrays in columns.items() if {"values", "before_points"} & set(arrays)}
    if columns:
        figure = plots.representations_figure(columns, comparison.contenders[0].class_names)
        yield Picture("Units and components", "representations", "units and components by class", figure)


def _class_vectors(comparison: Comparison) -> Iterator[Picture]:
    """Features with class vectors, and patterns of activation (feed-backward paper, Figures 2, 4 and 6)."""
    names = comparison.contenders[0].class_names
    panels: dict[str, SpacePanel] = {}
    rows: list[tuple[str, plots.Array, plots.Array]] = []
    for own in comparison.contenders:
        space, sides = own.arrays("weight_space"), own.arrays("activation_patterns")
        if space:
            printed = own.content("weight_space")["printed"].replace(", e(W)", "\ne(W)")
            sides_of = (space["points"], space["labels"], space["vectors"], space["shares"])
            panels[own.name] = SpacePanel(*sides_of, printed)
        for name in own.content("activation_patterns").get("drawn", ()):
            label = names.index(name)
            pair = [sides[side][label] / np.linalg.norm(sides[side][label]) for side in ("means", "vectors")]
            rows.append((f"{name}, {own.name}", *pair))
    if panels:
        figure = plots.weight_space_figure(panels, names)
        yield Picture("Class vectors", "weight-space", "features above class vectors", figure)
    if rows:
        rows.sort(key=lambda row: row[0].partition(",")[0])  # the models of a class below each other
        means, vectors = (np.stack([row[side] for row in rows]) for side in (1, 2))
        figure = plots.patterns_figure(
            means,
            vectors,
            [row[0] for row in rows],
            np.linalg.norm(means - vectors, axis=1).tolist(),
            (means * vectors).sum(axis=1).tolist(),
            "mean activation over the test samples of a class, and its class vector, both of unit length",
        )
        yield Picture("Class vectors", "patterns", "mean activations against class vectors", figure)


def _corruptions(comparison: Comparison) -> Iterator[Picture]:
    """Error against severity, a panel a corruption."""
    panels: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    clean: dict[str, dict[str, float]] = {}
    for own in comparison.contenders:
        found = own.content("corruptions").get("sets", {}).get("test")
        for corruption, errors in (found or {"errors": {}})["errors"].items():
            severities = [int(severity) for severity in errors]
            panels.setdefault(corruption, {})[own.name] = (severities, [float(error) for error in errors.values()])
            if found["clean_error"] is not None:
                clean.setdefault(corruption, {})[own.name] = found["clean_error"]
    if panels:
        yield Picture("Corruptions", "corruptions", "error by severity", plots.severities_figure(panels, clean))
