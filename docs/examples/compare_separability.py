"""Draws features and class vectors of several runs side by side (feed-backward paper, Fig. 4), and curves (Fig. 3).

Each run needs the callbacks WeightSpace and SeparabilityCurve, as the runs of base/mnist-lenet-linear have them.

    python docs/examples/compare_separability.py space.png curves.png softmax=runs/a with=runs/b
"""

import sys
from pathlib import Path

import numpy as np

from lightning_repshape.feed_backward_plots import SpacePanel, curve_figure, weight_space_figure
from lightning_repshape.plots import save_figure
from lightning_repshape.runs import read_json


def main(words: list[str]) -> None:
    """Reads the runs' points and curves and draws them.

    Args:
        words: The paths of the two pictures, and ``NAME=RUN`` for each run.
    """
    panels, curves, names = {}, {}, ()
    for word in words[2:]:
        name, _, run = word.partition("=")
        folder = Path(run) / "analysis"
        found = read_json(folder / "weight_space.json")
        arrays = np.load(folder / "weight_space.npz")
        printed = found["printed"].replace(", e(W)", "\ne(W)")
        panels[name] = SpacePanel(*(arrays[key] for key in ("points", "labels", "vectors", "shares")), figures=printed)
        names = found["class_names"]
        curves[name] = read_json(folder / "separability_curve.json")
    print(save_figure(weight_space_figure(panels, names), words[0], vector=False))
    print(save_figure(curve_figure(curves), words[1], vector=False))


if __name__ == "__main__":
    main(sys.argv[1:])
