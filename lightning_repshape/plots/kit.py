"""Every figure of the project. Functions take numbers and return a matplotlib figure; nothing is computed here.

Figures are made without pyplot's global state, in a palette that colour-blind readers can tell apart.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_repshape.runs.folders import written_atomically

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
