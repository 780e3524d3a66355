"""Figures of several models side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_repshape.plots.kit import Array, heading, new_figure, outside_legend, scatter_by_class, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ACROSS = 4


def aligned_figure(panels: Mapping[str, Array], labels: Array, class_names: Sequence[str], title: str = "") -> "Figure":
    """The same samples in the planes of several models, n x 2 each by name: the same colours, limits and scales."""
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    wide, high = (1.05 * max(float(np.abs(points[:, k]).max()) for points in panels.values()) or 1.0 for k in (0, 1))
    figure = new_figure(1.2 + 3.1 * across, 0.5 + 3.1 * down * max(min(high / wide, 1.5), 0.4))
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, (name, points) in zip(axes, panels.items(), strict=False):
        scatter_by_class(panel, points, labels, class_names)
        style(panel, "", "", name)
        panel.set(xlim=(-wide, wide), ylim=(-high, high), aspect="equal", xticks=[], yticks=[])
        panel.spines[["left", "bottom"]].set_visible(False)
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    heading(figure, title)
    outside_legend(figure, axes[0], "class")
    return figure


def similarity_figure(names: Sequence[str], values: Array, title: str, groups: Sequence[int] = ()) -> "Figure":
    """A matrix of similarities, M x M between 0 and 1, with the numbers in it where they fit.

    ``groups`` are numbers of rows before which lines are drawn, where another model begins.
    """
    side = float(np.clip(1.6 + 0.34 * len(names), 3.6, 9.0))
    figure = new_figure(side + 1.6, side)
    axes = figure.subplots()
    shown = axes.imshow(values, vmin=0, vmax=1, cmap="viridis")
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize="small")
        axes.set_yticks(range(len(names)), names, fontsize="small")
    if len(names) <= 12:
        for (row, column), value in np.ndenumerate(values):
            shade = "white" if value < 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, fontsize="small")
    for group in groups:
        axes.axhline(group - 0.5, color="white", linewidth=1.5)
        axes.axvline(group - 0.5, color="white", linewidth=1.5)
    figure.colorbar(shown, ax=axes, shrink=0.8)
    axes.set_title(title, fontsize="medium", loc="left")
    return figure
