"""Figures of matrices: confusions and cosines of classes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_repshape.plots.kit import BLUE, GREY, VERMILION, Array, name_classes, new_figure, outside_legend, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_IN_ORDER = 40  # classes whose matrix shows something in their own order


def confusion_figure(counts: Array, class_names: Sequence[str], title: str = "") -> "Figure":
    """Confusion matrix of K x K counts, rows true classes, columns predicted ones."""
    classes = len(counts)
    side = float(np.clip(1.6 + 0.42 * classes, 3.6, 10))
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    name_classes(axes, class_names, down=True)
    if classes <= 20:
        texts = [[f"{count}" if count else "" for count in row] for row in counts]
        _write(axes, texts, share > 0.5, "x-small")
    style(axes, "predicted class", "true class", title)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def cosines_figure(cosines: Array, class_names: Sequence[str], title: str) -> "Figure":
    """Cosines between class vectors, K x K."""
    side = float(np.clip(1.8 + 0.42 * len(cosines), 3.8, 8))
    figure = new_figure(side + 1.0, side)
    axes = figure.subplots()
    _cosines(figure, axes, cosines, class_names, title)
    return figure


def collapse_figure(
    cosines: Array,
    class_names: Sequence[str],
    reliability: Mapping[str, Mapping[str, Sequence[float]]],
    errors: Mapping[str, float],
) -> "Figure":
    """Cosines of the class means (K x K) and, where there are predictions, confidence against accuracy.

    ``reliability`` has the bins' ``confidence``, ``accuracy`` with its interval from ``low`` to ``high``, and ``share``
    of the samples by split, ``errors`` the expected calibration error by split.
    """
    figure = new_figure(11.2 if reliability else 5.8, 4.8)
    panels = figure.subplots(1, 2 if reliability else 1, squeeze=False)[0]
    simplex = -1 / (len(cosines) - 1) if len(cosines) > 1 else 0.0
    title = f"Cosines of class means about their mean (simplex: {simplex:.2f})"
    _cosines(figure, panels[0], cosines, class_names, title)
    if reliability:
        axes = panels[1]
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="calibrated")
        for number, (split, found) in enumerate(reliability.items()):
            colour = (BLUE, VERMILION)[number % 2]
            label = f"{split}: error {100 * errors[split]:.2g} %" if split in errors else split
            axes.plot(found["confidence"], found["accuracy"], color=colour, linewidth=1.2, label=label)
            axes.vlines(found["confidence"], found["low"], found["high"], color=colour, linewidth=1, alpha=0.6)
            axes.scatter(found["confidence"], found["accuracy"], s=4 + 60 * np.sqrt(found["share"]), color=colour)
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.02)
        title = "Calibration (dots by share of samples, bars: 95 %)"
        style(axes, "confidence (mean of the bin)", "accuracy (mean of the bin)", title)
        outside_legend(figure, axes, "calibration")
    return figure


def similarity_figure(
    names: Sequence[str], values: Array, title: str, groups: Sequence[int] = (), largest: float = 1
) -> "Figure":
    """A matrix of similarities, M x M between 0 and ``largest``, with the numbers in it where they fit.

    ``groups`` are numbers of rows before which lines are drawn, where another model begins. NaN stays white.
    """
    side = float(np.clip(1.6 + 0.34 * len(names), 3.6, 9.0))
    figure = new_figure(side + 1.6, side)
    axes = figure.subplots()
    shown = axes.imshow(values, vmin=0, vmax=largest, cmap="viridis")
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize="small")
        axes.set_yticks(range(len(names)), names, fontsize="small")
    if len(names) <= 12:
        texts = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in values]
        _write(axes, texts, values < 0.6 * largest, "small")
    for group in groups:
        axes.axhline(group - 0.5, color="white", linewidth=1.5)
        axes.axvline(group - 0.5, color="white", linewidth=1.5)
    figure.colorbar(shown, ax=axes, shrink=0.8)
    axes.set_title(title, fontsize="medium", loc="left")
    return figure


def _cosines(figure: "Figure", axes: "Axes", cosines: Array, class_names: Sequence[str], title: str) -> None:
    along = "class"
    if len(cosines) > _IN_ORDER:
        order = _neighbours(cosines)
        cosines, class_names = cosines[np.ix_(order, order)], [class_names[k] for k in order]
        along = "class (similar ones side by side)"
    image = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    name_classes(axes, class_names, down=True)
    if len(cosines) <= 12:
        shown = np.isfinite(cosines) & ~np.eye(len(cosines), dtype=bool)
        texts = [
            [f"{value:.2f}".replace("0.", ".") if show else "" for value, show in zip(*row, strict=True)]
            for row in zip(cosines, shown, strict=True)
        ]
        _write(axes, texts, np.abs(cosines) > 0.6, 6.5)
    style(axes, along, "class", title)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="cosine", shrink=0.85)


def _neighbours(similar: Array) -> Array:
    """An order of classes in which those that are similar to the same others stand side by side."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    return np.asarray(leaves_list(linkage(np.nan_to_num(similar), "average", optimal_ordering=True)))


def _write(axes: "Axes", texts: Sequence[Sequence[str]], dark: Array, size: str | float) -> None:
    """Writes into a matrix's cells, in white where they are dark."""
    for row, own in enumerate(texts):
        for column, text in enumerate(own):
            if text:
                colour = "white" if dark[row, column] else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
