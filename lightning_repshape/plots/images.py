"""Figures of images, and of the patterns of activations."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_repshape.plots.kit import BLUE, VERMILION, Array, heading, new_figure, outside_legend, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        above, below = grid[row, column], grid[row + 1, column]
        for axes, images in ((above, originals), (below, reconstructions)):
            axes.imshow(images[number], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        above.set_title(class_names[number], fontsize="small", pad=3)
        if errors:
            text = f"{errors[number]:.4f}"
            below.text(0.5, -0.06, text, transform=below.transAxes, ha="center", va="top", fontsize="xx-small")
    heading(figure, title)
    return figure


def contact_sheet(pictures: Sequence[Array], captions: Sequence[str], title: str = "", columns: int = 8) -> "Figure":
    """Pictures, uint8 H x W x 3 of any sizes, with a caption of two lines below each."""
    across = min(columns, len(pictures))
    down = -(-len(pictures) // across)
    side, gap, below = 1.2, 0.12, 0.36  # inches
    width, height = across * (side + gap) + gap, down * (side + below + gap) + gap + (0.3 if title else 0)
    wide = max(width, 3.4)  # room for the heading
    figure = new_figure(wide, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, wide), ylim=(height, 0), aspect="equal")
    axes.axis("off")
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(number, across)
        left = gap + column * (side + gap)
        top = gap + (0.3 if title else 0) + row * (side + below + gap)
        largest = max(picture.shape[:2])
        rows, cols = (side * extent / largest for extent in picture.shape[:2])
        x, y = left + (side - cols) / 2, top + (side - rows) / 2
        way = "nearest" if largest < 64 else "antialiased"
        axes.imshow(picture, extent=(x, x + cols, y + rows, y), interpolation=way, zorder=2)
        axes.text(left + side / 2, top + side + 0.05, caption, ha="center", va="top", fontsize=6.5, linespacing=1.1)
    axes.set(xlim=(0, wide), ylim=(height, 0))  # imshow has set its own
    if title:
        axes.text(gap, gap, title, ha="left", va="top", fontsize="small")
    return figure


def corruptions_sheet(images: Mapping[str, Sequence[Array]], columns: Sequence[str]) -> "Figure":
    """A grid of uint8 pictures H x W x C: a row a name, with one picture under each heading of ``columns``."""
    figure = new_figure(1.4 + 1.1 * len(columns), 0.4 + 1.15 * len(images))
    grid = figure.subplots(len(images), len(columns), squeeze=False)
    for row, (name, pictures) in enumerate(images.items()):
        for column, picture in enumerate(pictures):
            axes = grid[row, column]
            axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(columns[column], fontsize="small")
            if column == 0:
                axes.set_ylabel(name, fontsize="small", rotation=0, ha="right", va="center")
    return figure


def patterns_figure(
    means: Array, vectors: Array, names: Sequence[str], distances: Sequence[float], cosines: Sequence[float], title: str
) -> "Figure":
    """Mean activation of a class against its class vector, unit by unit (feed-backward paper, Fig. 6).

    Means and vectors are C x D, of unit length; there are C names, Euclidean distances and cosines.
    """
    rows, width = means.shape
    figure = new_figure(float(np.clip(3 + 0.11 * width, 7, 16)), 0.6 + 1.9 * rows)
    panels = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    units = np.arange(width)
    for row, axes in enumerate(panels):
        for shift, values, colour, label in (
            (-0.22, means[row], BLUE, "mean activation"),
            (0.22, vectors[row], VERMILION, "class vector"),
        ):
            # bars of many units as one polygon: hundreds of rectangles take a second to draw
            if width <= 150:
                axes.bar(units + shift, values, width=0.44, color=colour, label=label, linewidth=0)
            else:
                axes.vlines(units + shift, 0, values, color=colour, label=label, linewidth=0.8)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.margins(x=0.01)
        cosine = f"cosine {cosines[row]:.3f} (distance {1 - cosines[row]:.3f})"
        own = f"{names[row]}: Euclidean distance {distances[row]:.3f}, {cosine}"
        style(axes, "unit" if row == rows - 1 else "", "value", own)
    heading(figure, title)
    outside_legend(figure, panels[0], loc="outside lower right", columns=2)
    return figure
