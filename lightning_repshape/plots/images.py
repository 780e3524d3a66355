"""The figures of feed-backward reconstruction. Functions take numbers and return a matplotlib figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lightning_repshape.plots.kit import MARKERS, PALETTE, Array, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SpacePanel(NamedTuple):
    """One model in three dimensions.

    Attributes:
        points: N x 3 coordinates of features.
        labels: N class indices.
        vectors: K x 3 coordinates of the class vectors on the same axes.
        shares: Share of the features' variance along each axis.
        figures: What is printed under the name: accuracy and e(W).
    """

    points: Array
    labels: Array
    vectors: Array
    shares: Array
    figures: str


def curve_figure(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """Accuracy, loss and e(W) by training step (feed-backward paper, Fig. 3), a line a run.

    Args:
        runs: By name: ``step``, ``accuracy``, ``loss``, ``raw`` and ``unit``, equally long; NaN where not known.

    Returns:
        The figure.
    """
    figure = new_figure(13.2, 3.4)
    panels = figure.subplots(1, 4)
    kinds = (
        ("accuracy", "accuracy of the training batches (%)", 100.0),
        ("loss", "training loss", 1.0),
        ("raw", "e(W)", 1.0),
        ("unit", "e(W), class vectors of unit length", 1.0),
    )
    for axes, (key, label, factor) in zip(panels, kinds, strict=True):
        values: list[float] = []
        for number, (name, run) in enumerate(runs.items()):
            line = np.array([np.nan if value is None else factor * value for value in run[key]], dtype=float)
            axes.plot(run["step"], line, color=PALETTE[number % len(PALETTE)], linewidth=1.4, label=name)
            values += [value for value in line if np.isfinite(value)]
        if key != "accuracy" and values and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        style(axes, "training step", "", label)
        axes.margins(x=0.02)
    if any(runs):
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize="small")
    return figure


def patterns_figure(
    means: Array, vectors: Array, names: Sequence[str], distances: Sequence[float], cosines: Sequence[float], title: str
) -> "Figure":
    """Mean activation of a class against its class vector, unit by unit (feed-backward paper, Fig. 6).

    Args:
        means: C x D mean activations, of unit length.
        vectors: C x D class vectors, of unit length.
        names: C class names.
        distances: C Euclidean distances.
        cosines: C cosines.
        title: The heading.

    Returns:
        The figure.
    """
    rows, width = means.shape
    figure = new_figure(float(np.clip(3 + 0.11 * width, 7, 16)), 0.6 + 1.9 * rows)
    panels = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    units = np.arange(width)
    for row, axes in enumerate(panels):
        for shift, values, colour, label in (
            (-0.22, means[row], PALETTE[0], "mean activation"),
            (0.22, vectors[row], PALETTE[5], "class vector"),
        ):
            # bars of many units as one polygon: hundreds of rectangles take a second to draw
            if width <= 150:
                axes.bar(units + shift, values, width=0.44, color=colour, label=label, linewidth=0)
            else:
                axes.vlines(units + shift, 0, values, color=colour, label=label, linewidth=0.8)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.margins(x=0.01)
        cosine = f"cosine {cosines[row]:.3f} (distance {1 - cosines[row]:.3f})"
        heading = f"{names[row]}: Euclidean distance {distances[row]:.3f}, {cosine}"
        style(axes, "unit" if row == rows - 1 else "", "value", heading)
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False, fontsize="small")
    return figure


def weight_space_figure(panels: Mapping[str, SpacePanel], class_names: Sequence[str]) -> "Figure":
    """Features (above) and class vectors (below) on three principal components (feed-backward paper, Fig. 4 and 2).

    Args:
        panels: Models by heading; a column each.
        class_names: Names for the legend.

    Returns:
        The figure.
    """
    count = len(panels)
    figure = new_figure(1.2 + 3.3 * count, 7.0)
    used: dict[int, Any] = {}
    for column, (heading, panel) in enumerate(panels.items(), start=1):
        above = figure.add_subplot(2, count, column, projection="3d")
        below = figure.add_subplot(2, count, count + column, projection="3d")
        size = float(np.clip(9000 / max(len(panel.points), 1), 3, 24))
        for label in (int(value) for value in np.unique(panel.labels)):
            own = panel.points[panel.labels == label]
            dots = above.scatter(*own.T, s=size, linewidths=0, alpha=0.75, rasterized=True, **_look(label))
            used.setdefault(label, dots)
        reach = float(np.abs(panel.vectors).max()) or 1.0
        for label, vector in enumerate(panel.vectors):
            drawn = label in panel.labels
            colour = _look(label)["color"]
            # outputs without samples, as with some classes left out, are drawn thin
            below.plot(*(np.array([0, end]) for end in vector), color=colour, linewidth=1.8 if drawn else 0.8)
            below.scatter(*vector.reshape(3, 1), s=22 if drawn else 8, linewidths=0, **_look(label))
        below.scatter(0, 0, 0, s=8, color="black")
        for axes, names in ((above, True), (below, False)):
            axes.tick_params(labelsize=6, pad=-2)
            for setter, k in ((axes.set_xlabel, 0), (axes.set_ylabel, 1), (axes.set_zlabel, 2)):
                text = f"component {k + 1}" + (f" ({100 * panel.shares[k]:.0f} %)" if names else "")
                setter(text, fontsize="x-small", labelpad=-6)
            axes.set_box_aspect(None, zoom=1.02)
        for limit in (below.set_xlim, below.set_ylim, below.set_zlim):
            limit(-reach, reach)
        above.set_title(f"{heading}\n{panel.figures}".strip(), fontsize="small", loc="left")
        below.set_title("class vectors", fontsize="small", loc="left")
    labels = sorted(used)
    if len(labels) <= 40:
        shown = [class_names[label] if label < len(class_names) else str(label) for label in labels]
        legend = figure.legend(
            [used[label] for label in labels],
            shown,
            loc="outside right upper",
            frameon=False,
            fontsize="small",
            title="class",
        )
        for handle in legend.legend_handles:
            if handle is not None and hasattr(handle, "set_sizes"):
                handle.set_sizes([28])
                handle.set_alpha(1)
    return figure


def _look(label: int) -> dict[str, Any]:
    return {"color": PALETTE[label % len(PALETTE)], "marker": MARKERS[(label // len(PALETTE)) % len(MARKERS)]}
