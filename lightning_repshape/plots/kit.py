"""Every figure of the project. Functions take numbers and return a matplotlib figure; nothing is computed here.

Figures are made without pyplot's global state, in a palette that colour-blind readers can tell apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_repshape.runs.files import written_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

# Okabe and Ito's eight colours, then two more of other lightness.
PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
    "#7F3C8D",
    "#8C8C8C",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


def new_figure(width: float = 6.4, height: float = 4.8) -> "Figure":
    """An empty figure with the project's style.

    Args:
        width: In inches.
        height: In inches.

    Returns:
        The figure; it lays itself out.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def style(axes: "Axes", xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Labels axes and takes away what distracts.

    Args:
        axes: The axes.
        xlabel: Label of the horizontal axis, with its unit.
        ylabel: Label of the vertical axis, with its unit.
        title: The heading.
    """
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if title:
        axes.set_title(title, fontsize="medium", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: "Figure", path: str | Path, vector: bool = True) -> Path:
    """Writes a figure as PNG and, beside it, as PDF.

    Args:
        figure: The figure.
        path: The PNG's path.
        vector: Whether to write the PDF too.

    Returns:
        The PNG's path.
    """
    target = Path(path)
    for suffix in (".png", *((".pdf",) if vector else ())):
        with written_atomically(target.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:])
    return target


def scatter_by_class(
    axes: "Axes", points: Array, labels: Array, class_names: Sequence[str] = (), wrong: Array | None = None
) -> None:
    """Scatter of 2-D points, a colour and a marker a class.

    Args:
        axes: Where to draw.
        points: N x 2.
        labels: N class indices.
        class_names: Names for the legend. Default: the indices.
        wrong: N booleans, the samples to ring as misclassified. Default: none.
    """
    size = float(np.clip(4000 / max(len(points), 1), 3, 30))
    for number, label in enumerate(np.unique(labels)):
        mask = labels == label
        name = class_names[label] if label < len(class_names) else str(label)
        axes.scatter(
            points[mask, 0],
            points[mask, 1],
            s=size,
            color=PALETTE[number % len(PALETTE)],
            marker=MARKERS[(number // len(PALETTE)) % len(MARKERS)],
            linewidths=0,
            alpha=0.75,
            label=name,
            rasterized=len(points) > 2000,
        )
    if wrong is not None and wrong.any():
        axes.scatter(
            points[wrong, 0],
            points[wrong, 1],
            s=size * 4,
            facecolors="none",
            edgecolors="black",
            linewidths=0.8,
            label="misclassified",
        )


def outside_legend(figure: "Figure", axes: "Axes", title: str = "") -> None:
    """A legend beside the axes, where it covers no data.

    Args:
        figure: The figure.
        axes: Whose entries to show.
        title: The legend's heading.
    """
    handles, names = axes.get_legend_handles_labels()
    columns = 1 if len(names) <= 22 else 2 if len(names) <= 44 else 4
    if len(names) > 60:
        return
    legend = figure.legend(
        handles, names, loc="outside right upper", frameon=False, fontsize="small", title=title, ncols=columns
    )
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([28])
            handle.set_alpha(1)


def features_figure(
    points: Array,
    labels: Array,
    class_names: Sequence[str],
    explained: Sequence[float],
    wrong: Array | None = None,
    title: str = "",
) -> "Figure":
    """Features on their first two principal components.

    Args:
        points: N x 2.
        labels: N class indices.
        class_names: Names for the legend.
        explained: Share of the variance along each of the two components.
        wrong: N booleans, the misclassified samples.
        title: The heading.

    Returns:
        The figure.
    """
    figure = new_figure(6.8, 4.8)
    axes = figure.subplots()
    scatter_by_class(axes, points, labels, class_names, wrong)
    names = [f"principal component {k + 1} ({100 * share:.0f} % of variance)" for k, share in enumerate(explained)]
    style(axes, names[0], names[1], title)
    outside_legend(figure, axes, "class")
    return figure


def confusion_figure(counts: Array, class_names: Sequence[str], title: str = "") -> "Figure":
    """Confusion matrix, rows true classes, columns predicted ones.

    Args:
        counts: K x K counts.
        class_names: K names.
        title: The heading.

    Returns:
        The figure.
    """
    classes = len(counts)
    side = float(np.clip(1.6 + 0.42 * classes, 3.6, 14))
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(classes)
    if classes <= 40:
        long = max(map(len, class_names), default=0) > 3
        axes.set_xticks(ticks, class_names, rotation=45 if long else 0, ha="right" if long else "center")
        axes.set_yticks(ticks, class_names)
    if classes <= 20:
        for row in range(classes):
            for column in range(classes):
                if counts[row, column]:
                    dark = share[row, column] > 0.5
                    axes.text(
                        column,
                        row,
                        f"{counts[row, column]}",
                        ha="center",
                        va="center",
                        fontsize="x-small",
                        color="white" if dark else "black",
                    )
    style(axes, "predicted class", "true class", title)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def reconstruction_figure(
    originals: Array,
    reconstructions: Array,
    class_names: Sequence[str],
    errors: Sequence[float] = (),
    title: str = "",
    columns: int = 10,
) -> "Figure":
    """A row of images above a row of their reconstructions; more than ``columns`` of them in several such pairs.

    Args:
        originals: N x H x W or N x H x W x 3, in [0, 1].
        reconstructions: Of the same shape.
        class_names: N names, above the images.
        errors: N mean squared errors, below the reconstructions. Default: none.
        title: The heading.
        columns: Images in a row at most.

    Returns:
        The figure.
    """
    count = len(originals)
    across = min(count, columns)
    pairs = -(-count // across)
    side = 0.78
    figure = new_figure(max(3.4, side * across + 0.3), (2 * side + 0.36) * pairs + 0.24)
    grid = figure.subplots(2 * pairs, across, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for number in range(count):
        row, column = 2 * (number // across), number % across
        for offset, images in enumerate((originals, reconstructions)):
            axes = grid[row + offset, column]
            axes.imshow(images[number], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        grid[row, column].set_title(class_names[number], fontsize="small", pad=3)
        if errors:
            text = f"{errors[number]:.4f}"
            grid[row + 1, column].text(
                0.5, -0.06, text, transform=grid[row + 1, column].transAxes, ha="center", va="top", fontsize="xx-small"
            )
    if title:
        figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    return figure


def curves_figure(
    curves: Mapping[str, tuple[Array, Array]], ylabel: str, title: str = "", log_y: bool = False
) -> "Figure":
    """Values by epoch, a line each.

    Args:
        curves: Epochs and values by name.
        ylabel: Label of the vertical axis.
        title: The heading.
        log_y: Whether the vertical axis is logarithmic.

    Returns:
        The figure.
    """
    figure = new_figure(6.0, 3.8)
    axes = figure.subplots()
    for number, (name, (epochs, values)) in enumerate(curves.items()):
        axes.plot(epochs, values, color=PALETTE[number % len(PALETTE)], label=name, linewidth=1.6)
    if log_y:
        axes.set_yscale("log")
    style(axes, "epoch", ylabel, title)
    axes.legend(frameon=False)
    return figure


def toy_figure(panels: Mapping[str, tuple[Array, Array, Array, Array]], ylabel: str = "feature 2") -> "Figure":
    """Two-dimensional features of two classes over the map of a head's output (FOCA, Fig. 1), a panel each.

    Args:
        panels: By heading: the points N x 2, their labels N (0 or 1), the outputs rows x columns on a grid (values near
            -1 and +1), and the grid's extent (left, right, bottom, top).
        ylabel: Label of the vertical axis.

    Returns:
        The figure.
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
        for label, colour in ((0, "white"), (1, "black")):
            mask = labels == label
            other = "black" if colour == "white" else "white"
            axes.scatter(points[mask, 0], points[mask, 1], s=14, color=colour, edgecolors=other, linewidths=0.4)
        last, first = number // columns == rows - 1, number % columns == 0
        style(axes, "feature 1" if last else "", ylabel if first else "", title)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
    for spare in grid.flatten()[len(panels) :]:
        spare.set_visible(False)
    bar = figure.colorbar(image, ax=grid, label="output of the head (mean of the weak classifiers)", shrink=0.7)
    bar.outline.set_visible(False)
    return figure


def spread_figure(
    curves: Mapping[str, tuple[Array, Array]], goal: float | None = None, title: str = "", xlabel: str = "step"
) -> "Figure":
    """Within-class spread over the distance of the class means against the training step (FOCA, Proposition 3.2).

    Args:
        curves: Steps and spreads by name.
        goal: A value to mark. Default: none.
        title: The heading.
        xlabel: Label of the horizontal axis.

    Returns:
        The figure, with logarithmic axes.
    """
    figure = new_figure(6.0, 3.8)
    axes = figure.subplots()
    for number, (name, (steps, values)) in enumerate(curves.items()):
        line = "-" if number % 2 == 0 else "--"
        axes.plot(steps, values, color=PALETTE[number % len(PALETTE)], linestyle=line, label=name, linewidth=1.6)
    if goal is not None:
        axes.axhline(goal, color="#8C8C8C", linewidth=0.8, linestyle=":")
        axes.annotate(f"{goal:g}", (0, goal), xycoords=("axes fraction", "data"), fontsize="small", va="bottom")
    axes.set_xscale("log")
    axes.set_yscale("log")
    style(axes, xlabel, "within-class spread / distance of means", title)
    axes.legend(frameon=False, fontsize="small")
    return figure


def partial_retraining_figure(
    curves: Mapping[str, tuple[Array, Array, Array]],
    joint: Mapping[str, float] | None = None,
    title: str = "",
) -> "Figure":
    """Test error of heads retrained on partial data sets (FOCA, Fig. 2).

    Args:
        curves: By method: the sizes n', and the mean and the standard deviation of the test error (fractions).
        joint: By method, the test error of the end-to-end training (a fraction), drawn beside the error of the head
            that was retrained on all samples; methods without joint training are left out.
        title: The heading.

    Returns:
        The figure, with logarithmic axes and errors in percent.
    """
    from matplotlib.ticker import FuncFormatter

    figure = new_figure(6.6, 4.2)
    axes = figure.subplots()
    largest = max(float(np.max(sizes)) for sizes, _, _ in curves.values())
    lowest = min(float(np.min(means)) for _, means, _ in curves.values())
    for number, (name, (sizes, means, deviations)) in enumerate(curves.items()):
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        percent, spread = 100 * np.asarray(means), 100 * np.asarray(deviations)
        # A deviation larger than the mean has no place on a logarithmic axis.
        below = np.minimum(spread, percent - 50 * lowest)
        at = np.asarray(sizes) * 1.04 ** (number - (len(curves) - 1) / 2)
        axes.errorbar(
            at,
            percent,
            yerr=(np.maximum(below, 0), spread),
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.4,
            elinewidth=0.9,
            capsize=2,
            label=name,
        )
        if joint is not None and name in joint:
            axes.plot(largest * 1.7, 100 * joint[name], color=colour, marker=marker, markersize=6, fillstyle="none")
    if joint:
        axes.annotate("joint", (largest * 1.7, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize="small")
        axes.annotate("all", (largest, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize="small")
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    digits = "125" if high > 8 * low else "12345678"  # less than a decade would show one number or two
    for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatted(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in digits else ""))
    style(axes, "training samples of the head, n'", "test error (%)", title)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def roc_figure(
    curves: Mapping[str, tuple[Array, Array]],
    marks: Mapping[str, Mapping[float, float]] | None = None,
    different: int = 1000,
    title: str = "",
) -> "Figure":
    """ROC curves of verification, with a logarithmic axis of false accept rates.

    Args:
        curves: By name, T false accept rates (ascending) and T true accept rates.
        marks: By name, operating points to mark: the true accept rate by the false accept rate asked for.
        different: Number of different pairs; the axis begins at half of the smallest rate that they can tell. Points
            without a false accept lie on its left edge.
        title: The heading.

    Returns:
        The figure.
    """
    from matplotlib.ticker import FuncFormatter

    figure = new_figure(5.4, 4.2)
    axes = figure.add_subplot()
    edge = 0.5 / max(different, 1)
    for number, (name, (far, tar)) in enumerate(curves.items()):
        colour = PALETTE[number % len(PALETTE)]
        at = np.maximum(far, edge)
        axes.plot(at, 100 * tar, color=colour, linewidth=1.6, drawstyle="steps-post", label=name)
        for rate, value in (marks or {}).get(name, {}).items():
            axes.plot(rate, 100 * value, color=colour, marker="o", markersize=5)
            axes.annotate(
                f"{100 * value:.1f} % at {rate:g}",
                (rate, 100 * value),
                xytext=(7, -12),
                textcoords="offset points",
                fontsize="small",
            )
    chance = np.geomspace(edge, 1, 200)
    axes.plot(chance, 100 * chance, color="0.6", linewidth=1, linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.set_xlim(edge, 1)
    axes.set_ylim(0, 101)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(True, which="major", linewidth=0.4, alpha=0.5)
    style(axes, "false accept rate", "true accept rate (%)", title)
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return figure
