"""What all figures have in common: colours that colour-blind readers can tell apart, markers, legends, headings, files.

Figures are made without pyplot's global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_repshape.runs import written_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

# Okabe and Ito's eight colours, then two more of other lightness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000", "#7F3C8D", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
BLUE, SKY, VERMILION, GREY = PALETTE[0], PALETTE[4], PALETTE[5], PALETTE[9]

_NAMED = 40  # classes whose names fit an axis
_SOME = 25  # that are named of more
_LISTED = 44  # entries that fit a legend
_FIRST = 20  # entries that are listed of more
WRONG = "misclassified"


def colour(number: int) -> str:
    """The colour of the line of that number, from 0."""
    return PALETTE[number % len(PALETTE)]


def line_look(number: int) -> dict[str, Any]:
    """Colour and marker of the line of that number, from 0."""
    return {"color": colour(number), "marker": MARKERS[number % len(MARKERS)]}


def class_look(number: int) -> dict[str, Any]:
    """Colour and marker of the class of that number among those drawn: classes of one colour have other markers."""
    return {"color": colour(number), "marker": MARKERS[number // len(PALETTE) % len(MARKERS)]}


def name_of(class_names: Sequence[str], label: int) -> str:
    """The name of a class, or its index where it has none; "unlabelled" of -1."""
    if label < 0:
        return "unlabelled"
    return class_names[label] if label < len(class_names) else str(label)


def new_figure(width: float = 6.4, height: float = 4.8) -> "Figure":
    """An empty figure, which lays itself out and shows names as they are; width and height in inches."""
    from lightning_repshape.plots.figure import PlainFigure

    return PlainFigure(figsize=(width, height), dpi=150, layout="constrained")


def style(axes: "Axes", xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Labels axes, with the units, and takes away what distracts."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if title:
        axes.set_title(title, fontsize="medium", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def heading(figure: "Figure", title: str) -> None:
    """The heading of a whole figure; nothing where it is empty."""
    if title:
        figure.suptitle(title, fontsize="medium", x=0.01, ha="left")


def name_classes(axes: "Axes", class_names: Sequence[str], down: bool = False) -> None:
    """Names the classes at 0, 1, ... of the horizontal axis, slanted where they are long; every so many of very many.

    With ``down``, those of the vertical axis, too.
    """
    ticks = range(0, len(class_names), 1 if len(class_names) <= _NAMED else -(-len(class_names) // _SOME))
    names = [shortened(class_names[tick]) for tick in ticks]
    size = "medium" if len(ticks) <= 12 else "x-small"
    turn, side = (90, "center") if len(ticks) > 20 else (45, "right")
    turn, side = (turn, side) if any(len(name) > 3 for name in names) else (0, "center")
    axes.set_xticks(ticks, names, fontsize=size, rotation=turn, ha=side)
    if down:
        axes.set_yticks(ticks, names, fontsize=size)


def shortened(name: str, most: int = 24) -> str:
    """A name as it fits beside an axis or into a legend."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def scatter(axes: Any, points: Array, total: int, **look: Any) -> Any:
    """Dots at points N x 2, or N x 3 in space, the smaller the larger ``total``, the number that the axes get in all.

    What is given as ``look`` to matplotlib's ``scatter`` takes the place of what is set here. Returns what the legend
    shows.
    """
    own = {"s": dot_size(total), "linewidths": 0, "alpha": 0.75, "rasterized": total > 2000}
    return axes.scatter(*points.T, **{**own, **look})


def dot_size(total: int, ink: float = 4000, least: float = 3, most: float = 30) -> float:
    """The area of a dot in square points where ``total`` of them share an area ``ink``."""
    return float(np.clip(ink / max(total, 1), least, most))


def scatter_by_class(
    axes: Any, points: Array, labels: Array, class_names: Sequence[str] = (), wrong: Array | None = None
) -> None:
    """Scatter of points N x 2, or N x 3 in space, a colour and a marker for each of N class indices.

    The legend has ``class_names``, or the indices; samples where ``wrong`` (N booleans) holds are ringed as
    misclassified.
    """
    total = len(points)
    for number, label in enumerate(np.unique(labels)):
        own = points[labels == label]
        scatter(axes, own, total, label=name_of(class_names, label), **class_look(number))
    if wrong is not None and wrong.any():
        axes.scatter(
            *points[wrong].T,
            s=4 * dot_size(total),
            facecolors="none",
            edgecolors="black",
            linewidths=0.8 if wrong.sum() <= 100 else 0.4,  # rings of very many hide the dots
            label=WRONG,
        )


def outside_legend(
    figure: "Figure",
    shown: "Axes | Mapping[str, Any]",
    title: str = "",
    loc: Any = "outside right upper",
    columns: int | None = None,
) -> None:
    """A legend beside the axes, where it covers no data; of very many entries it lists the first.

    It shows the entries of axes, or lines and dots by name, at matplotlib's ``loc``, by default in as many columns as
    they need.
    """
    handles, names = (
        (list(shown.values()), list(shown)) if isinstance(shown, Mapping) else shown.get_legend_handles_labels()
    )
    if len(names) > _LISTED:
        from matplotlib.lines import Line2D

        kept = [*range(_FIRST), *(place for place in range(_FIRST, len(names)) if names[place] == WRONG)]
        more = f"… and {len(names) - len(kept)} more"
        handles = [*(handles[place] for place in kept), Line2D([], [], linestyle="")]
        names = [*(names[place] for place in kept), more]
    names = [shortened(name, 40) for name in names]
    if columns is None:
        columns = 1 if len(names) <= 22 else 2
    legend = figure.legend(handles, names, loc=loc, frameon=False, fontsize="small", title=title, ncols=columns)
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([28])
            handle.set_alpha(1)


def save_figure(figure: "Figure", path: str | Path, vector: bool = True) -> Path:
    """Writes a figure to a PNG's path, which is returned, and with ``vector`` as PDF beside it."""
    from matplotlib import rc_context

    from lightning_repshape.plots.figure import PlainFigure

    target = Path(path)
    layout = figure.get_layout_engine()
    if layout is not None:  # once for both files, where savefig would do it four times
        if isinstance(figure, PlainFigure):
            figure.plain_texts()
        layout.execute(figure)
    with rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)  # "none" leaves a placeholder, for which savefig draws everything twice
        for suffix in (".png", *((".pdf",) if vector else ())):
            with written_atomically(target.with_suffix(suffix)) as temporary:
                figure.savefig(temporary, format=suffix[1:])
        figure.set_layout_engine(layout)
    return target
