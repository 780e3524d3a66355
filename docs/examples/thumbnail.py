"""Draws the plane of a run's features small and without axes, 240 x 240 pixels: the pictures of methods in README.

The run must have been analysed: ``lightning-repshape analyze --run_dir RUN --analyses tsne``.

    python docs/examples/thumbnail.py RUN/analysis/tsne.npz thumb.png
"""

import sys

import numpy as np
from matplotlib.figure import Figure

from lightning_repshape.plots.kit import class_look


def main(words: list[str]) -> None:
    """Draws the points.

    Args:
        words: The file of an analysis that draws a plane, and the picture's path.
    """
    with np.load(words[0]) as found:
        points, labels = found["points"][:, :2], found["point_labels"]
    figure = Figure(figsize=(2.4, 2.4), dpi=100)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.set_axis_off()
    for label in np.unique(labels):
        axes.scatter(*points[labels == label].T, s=9, linewidths=0, **class_look(int(label)))
    figure.savefig(words[1])
    print(words[1])


if __name__ == "__main__":
    main(sys.argv[1:])
