"""The figures of studies' reports: ours beside the papers'."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lightning_repshape.plots.kit import BLUE, VERMILION, new_figure, outside_legend, style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS, _PAPER = BLUE, VERMILION
_APART = 0.17  # ours above, the paper's below the method's line, as a part of the lines' distance
_LETTERS = 24  # of a method's name in a line
_WIDE = 50.0  # from this ratio of the largest to the smallest value on, the axis is logarithmic


class Line(NamedTuple):
    """A method's values in a panel."""

    method: str  #: what it is called
    values: Sequence[float]  #: ours, a value a seed
    mean: float | None  #: of ours; None where there is none
    spread: float | None  #: standard deviation of ours
    published: float | None = None  #: the paper's value; None where it has none, or words
    published_spread: float | None = None  #: its standard deviation
    published_range: tuple[float, float] | None = None  #: the lowest and the highest value
    text: str = ""  #: what is written in place of ours
    published_text: str = ""  #: what is written in place of the paper's value


class Panel(NamedTuple):
    """A column, or a figure."""

    title: str  #: may be empty
    label: str  #: of the axis of values, with the unit
    lines: Sequence[Line]  #: a line a method, from top to bottom; the same methods in all panels


def study_figure(panels: Sequence[Panel], columns: int = 5) -> "Figure":
    """Our means, deviations and seeds beside the paper's values, a line a method; ``columns`` panels side by side."""
    across = min(columns, len(panels))
    down = math.ceil(len(panels) / across)
    methods = len(panels[0].lines)
    figure = new_figure(1.6 + max(2.5 * across, 3.8), 0.5 + down * (0.95 + 0.42 * methods))
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= len(panels):
            axes.set_visible(False)
            continue
        _panel(axes, panels[number])
        axes.tick_params(axis="y", labelleft=number % across == 0)
    outside_legend(figure, _handles(panels), loc="outside upper center", columns=3)
    return figure


def _panel(axes: "Axes", panel: Panel) -> None:
    shown: list[float] = []
    papers = any(line.published is not None or line.published_range or line.published_text for line in panel.lines)
    apart = _APART if papers else 0.0
    for place, line in enumerate(panel.lines):
        ours, paper = place - apart, place + apart
        if len(line.values) > 1:
            axes.plot(line.values, [ours] * len(line.values), "|", color=_OURS, markersize=7, alpha=0.6)
        if line.mean is not None:
            axes.errorbar(
                line.mean, ours, xerr=line.spread, fmt="o", color=_OURS, markersize=5, capsize=2.5, linewidth=1.2
            )
        if line.published is not None:
            axes.errorbar(
                line.published, paper, xerr=line.published_spread, fmt="D", color=_PAPER, markerfacecolor="white",
                markersize=4.5, capsize=2.5, linewidth=1.2,
            )  # fmt: skip
        if line.published_range is not None:
            axes.plot(line.published_range, [paper, paper], "|-", color=_PAPER, linewidth=1.2, markersize=6)
        for text, at in ((line.text, ours), (line.published_text, paper)):
            if text:
                axes.annotate(
                    text, (0.02, at), xycoords=("axes fraction", "data"), va="center", fontsize="x-small", color="0.4",
                    style="italic",
                )  # fmt: skip
        shown += [*line.values, *(line.published_range or ())]
        shown += [value for value in (line.mean, line.published) if value is not None]
    if shown and min(shown) > 0 and max(shown) > _WIDE * min(shown):
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=4)
        axes.ticklabel_format(axis="x", useOffset=False)
    if not shown:
        axes.set_xticks([])
    axes.set_yticks(range(len(panel.lines)), [textwrap.fill(line.method, _LETTERS) for line in panel.lines])
    axes.set_ylim(len(panel.lines) - 0.5, -0.5)
    axes.margins(x=0.1)
    for place in range(1, len(panel.lines)):
        axes.axhline(place - 0.5, color="0.9", linewidth=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)
    style(axes, panel.label, "", panel.title)


def _handles(panels: Sequence[Panel]) -> dict[str, "Artist"]:
    from matplotlib.lines import Line2D

    lines = [line for panel in panels for line in panel.lines]
    handles: dict[str, Artist] = {}
    if any(line.mean is not None for line in lines):
        label = "ours, mean ± standard deviation" if any(line.spread is not None for line in lines) else "ours"
        handles[label] = Line2D([], [], color=_OURS, marker="o", markersize=5)
    if any(len(line.values) > 1 for line in lines):
        handles["ours, each seed"] = Line2D([], [], color=_OURS, marker="|", linestyle="", alpha=0.6)
    if any(line.published is not None or line.published_range is not None for line in lines):
        handles["the paper's value"] = Line2D([], [], color=_PAPER, marker="D", markersize=4.5, markerfacecolor="white")
    return handles
