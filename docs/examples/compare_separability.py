"""Draws runs side by side: features and class vectors (feed-backward paper, Fig. 2, 4), curves (Fig. 3), patterns (6).

Each run needs the callbacks WeightSpace and SeparabilityCurve, as base/mnist-lenet-linear has them, and, where a third
picture is asked for, ActivationPatterns. Of several curves of a run, the one with the most points is drawn.

    python docs/examples/compare_separability.py space.png curves.png softmax=runs/a with=runs/b
    python docs/examples/compare_separability.py space.png curves.png patterns.png softmax=runs/a with=runs/b
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_repshape.plots import SpacePanel, curve_figure, patterns_figure, save_figure, weight_space_figure
from lightning_repshape.runs.files import read_json


def main(words: list[str]) -> None:
    """Reads the runs' points and curves and draws them.

    Args:
        words: The paths of the two or three pictures, and ``NAME=RUN`` for each run.
    """
    pictures = [word for word in words if "=" not in word]
    panels, curves, names = {}, {}, ()
    rows: list[tuple[str, np.ndarray, np.ndarray]] = []
    for word in words[len(pictures) :]:
        name, _, run = word.partition("=")
        folder = Path(run) / "analysis"
        found = read_json(folder / "weight_space.json")
        arrays = np.load(folder / "weight_space.npz")
        printed = found["printed"].replace(", e(W)", "\ne(W)")
        panels[name] = SpacePanel(*(arrays[key] for key in ("points", "labels", "vectors", "shares")), figures=printed)
        names = found["class_names"]
        found_curves = [content for path in folder.glob("*.json") if "raw" in (content := read_json(path))]
        curves[name] = max(found_curves, key=lambda curve: len(curve["step"]))
        if len(pictures) > 2:
            drawn = read_json(folder / "activation_patterns.json")["drawn"]
            sides = np.load(folder / "activation_patterns.npz")
            for label in (names.index(one) for one in drawn):
                pair = [side[label] / np.linalg.norm(side[label]) for side in (sides["means"], sides["vectors"])]
                rows.append((f"{names[label]}, {name}", *pair))
    space = save_figure(weight_space_figure(panels, names), pictures[0], vector=False)
    with Image.open(space) as image:  # thousands of dots make large files; 256 colours are enough for them
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(space, optimize=True)
    print(space)
    print(save_figure(curve_figure(curves), pictures[1], vector=False))
    if rows:
        rows.sort(key=lambda row: row[0].partition(",")[0])  # the runs of a class below each other
        means, vectors = (np.stack([row[side] for row in rows]) for side in (1, 2))
        distances = np.linalg.norm(means - vectors, axis=1).tolist()
        cosines = (means * vectors).sum(axis=1).tolist()
        heading = "mean activation over the test samples of a class, and its class vector, both of unit length"
        figure = patterns_figure(means, vectors, [row[0] for row in rows], distances, cosines, heading)
        print(save_figure(figure, pictures[2], vector=False))


if __name__ == "__main__":
    main(sys.argv[1:])
