"""Draws the partial-dataset curves of several runs in one figure (FOCA, Fig. 2).

Each run must have been analysed: ``lightning-repshape analyze --run_dir RUN --analyses partial_retraining``.

    python docs/examples/compare_partial.py figure.png foca=runs/a plain=runs/b
"""

import sys
from pathlib import Path

import numpy as np

from lightning_repshape.plots import partial_retraining_figure, save_figure
from lightning_repshape.runs.files import read_json


def main(words: list[str]) -> None:
    """Reads the runs' figures and draws them.

    Args:
        words: The picture's path, and ``NAME=RUN`` for each run.
    """
    curves, joint = {}, {}
    for word in words[1:]:
        name, _, run = word.partition("=")
        found = read_json(Path(run) / "analysis" / "partial_retraining.json")
        curves[name] = tuple(np.array(found[key]) for key in ("sizes", "mean", "std"))
        if name.lower() != "foca":
            joint[name] = found["joint_error"]
    print(save_figure(partial_retraining_figure(curves, joint), words[0], vector=False))


if __name__ == "__main__":
    main(sys.argv[1:])
