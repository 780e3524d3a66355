"""Figures of scores that tell familiar samples from others."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lightning_repshape.plots.kit import BLUE, GREY, VERMILION, Array, colour, heading, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 40


def detection_figure(
    scores: Mapping[str, tuple[Array, Array]], curves: Mapping[str, tuple[Array, Array]], title: str = ""
) -> "Figure":
    """Histograms of scores, a panel a score, and the ROC curves of all.

    ``scores`` has those of the model's own samples and of the second set by heading, ``curves`` the false and the true
    positive rates by name.
    """
    panels = len(scores) + 1
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = new_figure(3.9 * columns, 0.4 + 2.7 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (name, (known, others)) in zip(grid, scores.items(), strict=False):
        both = np.concatenate([known, others])
        low, high = np.quantile(both, [0.005, 0.995])  # a few far away would leave one bin to all others
        if not high > low:
            low, high = both.min() - 0.5, both.max() + 0.5
        bins = np.linspace(low, high, _BINS + 1)
        for values, look, label in ((known, BLUE, "own set"), (others, VERMILION, "second set")):
            share = np.full(len(values), 100 / len(values))
            axes.hist(np.clip(values, low, high), bins=bins, weights=share, color=look, alpha=0.55, label=label)
        style(axes, "score", "samples (%)", name)
    axes = grid[0]
    axes.legend(frameon=False, fontsize="small")
    last = figure.axes[len(scores)]
    for number, (name, (far, tar)) in enumerate(curves.items()):
        last.plot(100 * far, 100 * tar, color=colour(number), linewidth=1.4, label=name)
    last.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1)
    style(last, "second set taken for own (%)", "own set recognised (%)", "ROC curves")
    last.legend(frameon=False, fontsize="x-small", loc="lower right")
    for axes in figure.axes[panels:]:
        axes.set_visible(False)
    heading(figure, title)
    return figure
