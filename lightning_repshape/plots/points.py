"""Figures of samples as points: planes, spaces, maps, units."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lightning_repshape.plots.kit import (
    BLUE,
    GREY,
    VERMILION,
    Array,
    class_look,
    colour,
    dot_size,
    heading,
    name_of,
    new_figure,
    outside_legend,
    scatter,
    scatter_by_class,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_ABREAST = 4  # panels of one figure


def features_figure(
    points: Array,
    labels: Array,
    class_names: Sequence[str],
    explained: Sequence[float],
    wrong: Array | None = None,
    title: str = "",
) -> "Figure":
    """Features on their first two principal components.

    Points are N x 2, with N class indices; ``explained`` is the share of the variance along each component, ``wrong`` N
    booleans, the misclassified samples.
    """
    figure = new_figure(6.8, 4.8)
    axes = figure.subplots()
    scatter_by_class(axes, points, labels, class_names, wrong)
    names = [f"principal component {k + 1} ({100 * share:.0f} % of variance)" for k, share in enumerate(explained)]
    style(axes, names[0], names[1], title)
    outside_legend(figure, axes, "class")
    return figure


def plane_figure(
    points: Array, labels: Array, class_names: Sequence[str], shares: Array, wrong: Array | None, title: str
) -> "Figure":
    """As :func:`features_figure`, of N x 2 or more coordinates and the share of the variance along each."""
    return features_figure(points[:, :2], labels, class_names, [float(share) for share in shares[:2]], wrong, title)


def map_figure(points: Array, labels: Array, class_names: Sequence[str], wrong: Array | None, title: str) -> "Figure":
    """Samples on a map whose axes mean nothing, such as t-SNE's, a colour and a marker a class.

    Points are N x 2, with N class indices, K names, and N booleans for the misclassified samples.
    """
    figure = new_figure(6.8, 5.0)
    axes = figure.subplots()
    scatter_by_class(axes, points, labels, class_names, wrong)
    style(axes, "", "", title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    outside_legend(figure, axes, "class")
    return figure


def aligned_figure(panels: Mapping[str, Array], labels: Array, class_names: Sequence[str], title: str = "") -> "Figure":
    """The same samples in the planes of several models, n x 2 each by name: the same colours, limits and scales."""
    across = min(_ABREAST, len(panels))
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


def discriminant_figure(
    panels: Mapping[str, tuple[Array, Array]], class_name: str, eigenvalue: float, second_axis: str, threshold: float
) -> "Figure":
    """One class against the rest in the plane of its discriminant axis, a panel a split.

    Args:
        panels: N x 2 coordinates and N booleans (whether a sample is of the class) by heading.
        class_name: The class.
        eigenvalue: Named in the heading.
        second_axis: What the vertical axis is.
        threshold: The best threshold on the test samples, drawn in the panels that are not of training samples; NaN or
            infinite: none.
    """
    figure = new_figure(2.2 + 4.0 * len(panels), 4.2)
    rows = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (part, (points, member)) in zip(rows, panels.items(), strict=True):
        order = (("rest", ~member, GREY, "o"), (f"class {class_name}", member, BLUE, "^"))
        for name, mask, own, marker in order:
            scatter(axes, points[mask], len(points), color=own, marker=marker, alpha=0.7, label=name)
        if np.isfinite(threshold) and not part.startswith("training"):
            axes.axvline(threshold, color=VERMILION, linestyle="--", linewidth=1.2, label="best threshold")
        style(axes, f"discriminant axis of class {class_name}", "", part)
    rows[0].set_ylabel(second_axis)
    shown = "infinite (no spread along the axis)" if np.isinf(eigenvalue) else f"{eigenvalue:.3g}"
    heading(figure, f"Class {class_name} against the rest, eigenvalue {shown}")
    outside_legend(figure, rows[-1])
    return figure


def space_figure(
    panels: Mapping[str, tuple[Array, Array]], labels: Array, class_names: Sequence[str], title: str = ""
) -> "Figure":
    """Features on their first three principal components, a panel a layer.

    A panel has N x 3 coordinates and the share of the variance along each component; all have the same N labels.
    """
    figure = new_figure(2.0 + 4.8 * len(panels), 5.2)
    for column, (part, (points, shares)) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), column, projection="3d")
        _space(axes, points, labels, class_names, shares)
        axes.set_title(part, fontsize="medium", loc="left")
    heading(figure, title)
    outside_legend(figure, figure.axes[0], "class")
    return figure


def _space(
    axes: Any,
    points: Array,
    labels: Array,
    class_names: Sequence[str],
    shares: Array,
    ticks: int = 8,
    zoom: float = 0.88,
) -> None:
    scatter_by_class(axes, points[:, :3], labels, class_names)
    for setter, k in ((axes.set_xlabel, 0), (axes.set_ylabel, 1), (axes.set_zlabel, 2)):
        setter(f"component {k + 1} ({100 * shares[k]:.0f} %)", fontsize="small")
    axes.tick_params(labelsize="x-small")
    axes.locator_params(nbins=ticks)
    axes.set_box_aspect(None, zoom=zoom)  # the third axis's label would be cut off


def representations_figure(columns: Mapping[str, Mapping[str, Array]], class_names: Sequence[str]) -> "Figure":
    """Representations side by side (AAAI 2019, Figures 1, 2, 4 and 5), a column each.

    Rows, as far as there is something to show: a unit's histogram by class, two units' scatter by class, the first
    three principal components before and after the activation function. Every panel has its own scale, since
    regularizers change the size of activations most of all. ``columns`` has, by heading, the arrays that
    :class:`RepresentationCharacteristics` (``values``, ``labels``, ``units``) and :class:`PrincipalComponents`
    (``points``, ``explained``, ``point_labels``; with ``before_`` in front, those of the layer before) save.
    """
    rows = [
        ("histogram", "values"),
        ("scatter", "values"),
        ("before the activation function", "before_points"),
        ("after the activation function", "points"),
    ]
    rows = [row for row in rows if any(row[1] in arrays for arrays in columns.values())]
    heights = [2.2 if kind == "histogram" else 3.0 for kind, _ in rows]
    figure = new_figure(1.2 + 3.0 * len(columns), 0.4 + sum(heights))
    grid = figure.add_gridspec(len(rows), len(columns), height_ratios=heights)
    for column, (title, arrays) in enumerate(columns.items()):
        for row, (kind, key) in enumerate(rows):
            if key not in arrays:
                continue
            solid = key.endswith("points")
            axes = figure.add_subplot(grid[row, column], projection="3d" if solid else None)
            if kind == "histogram":
                _histogram(axes, arrays["values"][:, 0], arrays["labels"], class_names)
                style(axes, f"activation of unit {arrays['units'][0]}", "samples" if column == 0 else "")
            elif kind == "scatter":
                values, units = arrays["values"], arrays["units"]
                scatter_by_class(axes, values[:, :2], arrays["labels"], class_names)
                style(axes, f"activation of unit {units[0]}", f"activation of unit {units[1]}")
            else:
                shares = arrays["before_explained" if key.startswith("before") else "explained"]
                _space(axes, arrays[key], arrays["point_labels"], class_names, shares, ticks=4, zoom=0.78)
                axes.set_title(f"components {kind}", fontsize="x-small", loc="left")
            if row == 0:
                axes.set_title(title, fontsize="medium", loc="left")
    outside_legend(figure, next(axes for axes in figure.axes if axes.get_legend_handles_labels()[0]), "class")
    return figure


def _histogram(axes: "Axes", values: Array, labels: Array, class_names: Sequence[str]) -> None:
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1, 51)
    for number, label in enumerate(np.unique(labels)):
        axes.hist(
            values[labels == label],
            bins=list(edges),
            histtype="stepfilled",
            color=colour(number),
            alpha=0.55,
            label=name_of(class_names, label),
        )
    # a ReLU's zeros would hide all else: the axis ends where 98 % of the other bars do
    heights = np.concatenate([np.histogram(values[labels == label], edges)[0][1:] for label in np.unique(labels)])
    if len(heights) and heights.max() > 0:
        axes.set_ylim(0, 1.15 * float(np.quantile(heights[heights > 0], 0.98)))
    axes.locator_params(axis="y", integer=True)


def units_figure(
    values: Array, labels: Array, units: Sequence[int], class_names: Sequence[str], title: str, most: int = 10
) -> "Figure":
    """A unit's histogram by class and, where there are two units, their scatter by class.

    Activations are N x 1 or N x 2, with N class indices. Only the first ``most`` classes are drawn; the heading says so
    where there are more.
    """
    present = np.unique(labels)
    shown = present[:most]
    if len(present) > most:
        title += f" (first {most} of {len(present)} classes)"
    kept = np.isin(labels, shown)
    values, labels = values[kept], labels[kept]
    two = len(units) > 1
    figure = new_figure(10.4 if two else 6.2, 4.4)
    grid = figure.add_gridspec(len(shown), 2 if two else 1, hspace=0.05, width_ratios=(1.1, 1) if two else None)
    low, high = float(values[:, 0].min()), float(values[:, 0].max())
    edges = np.linspace(low, high if high > low else low + 1, 41)
    first = None
    for row, label in enumerate(shown):
        axes = figure.add_subplot(grid[row, 0], sharex=first)
        first = first or axes
        own = values[labels == label, 0]
        axes.hist(own, bins=list(edges), color=colour(row), alpha=0.85, weights=np.full(len(own), 1 / len(own)))
        axes.set_ylim(0, None)
        axes.set_yticks([])
        style(axes)
        axes.set_ylabel(name_of(class_names, label), rotation=0, ha="right", va="center", fontsize="small")
        axes.spines["left"].set_visible(False)
        last = row == len(shown) - 1
        axes.tick_params(labelbottom=last, bottom=last)
        if row == 0:
            axes.set_title(
                "share of the class's samples by activation, each row to its own height", fontsize="small", loc="left"
            )
        if last:
            axes.set_xlabel(f"activation of unit {units[0]}")
    if two:
        axes = figure.add_subplot(grid[:, 1])
        scatter_by_class(axes, values[:, :2], labels, class_names)
        style(axes, f"activation of unit {units[0]}", f"activation of unit {units[1]}")
        axes.set_title("two units by class", fontsize="small", loc="left")
        outside_legend(figure, axes, "class")
    heading(figure, title)
    return figure


def confusion_cosine_figure(
    cosines: Array, counts: Array, pairs: Sequence[tuple[str, str]], rho: float, title: str
) -> "Figure":
    """How often one class is taken for another against the cosine of their class vectors, a dot an ordered pair.

    Of P pairs there are cosines, counts and names: the class, and what it is taken for; the most frequent are written
    beside their dots. ``rho`` is Spearman's rank correlation; NaN: none.
    """
    figure = new_figure(6.6, 4.6)
    axes = figure.subplots()
    dots = np.stack([cosines, counts], axis=1)
    scatter(axes, dots, len(dots), s=dot_size(len(dots), 3000, 4, 28), color=BLUE, alpha=0.6)
    middle = (float(cosines.min()) + float(cosines.max())) / 2
    heights: list[float] = []
    gap = 0.045 * max(float(counts.max()), 1.0)
    for place in np.argsort(-counts, kind="stable")[:6]:
        height = float(counts[place])
        if height == 0 or any(abs(height - other) < gap for other in heights):
            continue  # nothing to name, or the names would cover each other
        heights.append(height)
        left = cosines[place] > middle
        axes.annotate(
            f"{pairs[place][0]} taken for {pairs[place][1]}",
            (float(cosines[place]), height),
            xytext=(-6 if left else 6, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize="x-small",
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},  # over the dots of other pairs
        )
    axes.set_ylim(-0.03 * max(float(counts.max()), 1.0), None if counts.any() else 1)
    axes.locator_params(axis="y", integer=True)
    correlation = "" if np.isnan(rho) else f"; Spearman's rank correlation {rho:.2f}"
    style(axes, "cosine of the two class vectors", "samples of one class taken for the other", title + correlation)
    return figure


class SpacePanel(NamedTuple):
    """One model in three dimensions."""

    points: Array  #: N x 3 coordinates of features
    labels: Array  #: N class indices
    vectors: Array  #: K x 3 coordinates of the class vectors on the same axes
    shares: Array  #: share of the features' variance along each axis
    figures: str  #: what is printed under the name: accuracy and e(W)


def weight_space_figure(panels: Mapping[str, SpacePanel], class_names: Sequence[str]) -> "Figure":
    """Features above class vectors on three principal components (feed-backward paper, Fig. 4 and 2), by model."""
    count = len(panels)
    figure = new_figure(1.2 + 3.3 * count, 7.0)
    used: dict[int, Any] = {}
    for column, (title, panel) in enumerate(panels.items(), start=1):
        above = figure.add_subplot(2, count, column, projection="3d")
        below = figure.add_subplot(2, count, count + column, projection="3d")
        total = len(panel.points)
        for label in (int(value) for value in np.unique(panel.labels)):
            look = {**class_look(label), "s": dot_size(total, 9000, 3, 24), "rasterized": True}
            dots = scatter(above, panel.points[panel.labels == label], total, **look)
            used.setdefault(label, dots)
        reach = float(np.abs(panel.vectors).max()) or 1.0
        for label, vector in enumerate(panel.vectors):
            drawn = label in panel.labels
            # outputs without samples, as with some classes left out, are drawn thin
            below.plot(*(np.array([0, end]) for end in vector), color=colour(label), linewidth=1.8 if drawn else 0.8)
            below.scatter(*vector.reshape(3, 1), s=22 if drawn else 8, linewidths=0, **class_look(label))
        below.scatter(0, 0, 0, s=8, color="black")
        for axes, names in ((above, True), (below, False)):
            axes.tick_params(labelsize=6, pad=-2)
            for setter, k in ((axes.set_xlabel, 0), (axes.set_ylabel, 1), (axes.set_zlabel, 2)):
                text = f"component {k + 1}" + (f" ({100 * panel.shares[k]:.0f} %)" if names else "")
                setter(text, fontsize="x-small", labelpad=-6)
            axes.set_box_aspect(None, zoom=1.02)
        for limit in (below.set_xlim, below.set_ylim, below.set_zlim):
            limit(-reach, reach)
        above.set_title(f"{title}\n{panel.figures}".strip(), fontsize="small", loc="left")
        below.set_title("class vectors", fontsize="small", loc="left")
    if len(used) <= 40:
        entries = {name_of(class_names, label): used[label] for label in sorted(used)}
        outside_legend(figure, entries, "class", columns=1)
    return figure


def toy_figure(panels: Mapping[str, tuple[Array, Array, Array, Array]], ylabel: str = "feature 2") -> "Figure":
    """Two-dimensional features of two classes over the map of a head's output (FOCA, Fig. 1), a panel each.

    By heading: the points N x 2, their labels N (0 or 1), the outputs rows x columns on a grid (values near -1 and +1),
    and the grid's extent (left, right, bottom, top).
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.3 * columns + 0.9, 3.3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    image: Any = None
    for number, (title, (points, labels, output, extent)) in enumerate(panels.items()):
        axes = grid[number // columns, number % columns]
        left, right, bottom, top = (float(bound) for bound in extent)
        box = (left, right, bottom, top)
        image = axes.imshow(output, origin="lower", extent=box, cmap="PuOr_r", vmin=-1.2, vmax=1.2, aspect="auto")
        for label, own in ((0, "white"), (1, "black")):
            dots = points[labels == label]
            axes.scatter(*dots.T, s=14, color=own, edgecolors="black" if label == 0 else "white", linewidths=0.4)
        last, first = number // columns == rows - 1, number % columns == 0
        style(axes, "feature 1" if last else "", ylabel if first else "", title)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
    for spare in grid.flatten()[len(panels) :]:
        spare.set_visible(False)
    bar = figure.colorbar(image, ax=grid, label="output of the head (mean of the weak classifiers)", shrink=0.7)
    bar.outline.set_visible(False)
    return figure
