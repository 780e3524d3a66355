"""Draws the representations of several runs side by side (Choi and Rhee, AAAI 2019, Figures 1, 2, 4 and 5).

Rows: a unit's histogram by class, two units' scatter by class, and the first three principal components before and
after the activation function. Each run must have been analysed:

    lightning-repshape analyze --run_dir RUN --analyses characteristics,pca --characteristics.units [3,17] \
        --pca.before features.pre

``RUN:init`` is the same run at initialisation, where callbacks with ``when: fit_start`` saw it. Every panel has its own
scale.

    python docs/examples/compare_representations.py figure.png initialisation=runs/a:init baseline=runs/a cw-VR=runs/b
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from lightning_repshape.plots import representations_figure, save_figure
from lightning_repshape.runs.files import read_json


def main(words: list[str]) -> None:
    """Reads what the analyses saved and draws it.

    Args:
        words: The picture's path, and ``NAME=RUN`` or ``NAME=RUN:init`` for each column.
    """
    columns: dict[str, dict[str, Any]] = {}
    names: list[str] = []
    for word in words[1:]:
        name, _, run = word.partition("=")
        initial = run.endswith(":init")
        folder = Path(run.removesuffix(":init")) / "analysis"
        columns[name] = {}
        for stem in ("characteristics", "pca"):
            path = folder / f"{stem}{'-init' if initial else ''}.npz"
            if path.is_file():
                with np.load(path) as arrays:
                    columns[name] |= dict(arrays)
                names = read_json(path.with_suffix(".json"))["class_names"]
        if not columns[name]:
            raise SystemExit(f"{folder} holds no {path.name}: analyse the run first")
    print(save_figure(representations_figure(columns, names), words[0], vector=False))


if __name__ == "__main__":
    main(sys.argv[1:])
