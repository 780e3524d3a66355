"""A table's cell as the class-wise regularizers' paper has it: a weight chosen by validation, then several trainings.

For every row, one training a weight with the first seed; the weight of the least validation error is trained with all
seeds. The baseline is trained right away. What stands behind ``--`` goes to ``lightning-repshape fit``. Every training
has a folder of its own; started again, the script leaves out what is finished and goes on with what was interrupted.
Test errors are read after the choice, and only of the chosen weight. With ``--merge``, the trainings after the choice
(the baseline's too) have the validation images in their training set, as the paper's on CIFAR have; then all seeds are
trained anew, in folders of their own, and the last epoch is tested.

    python docs/examples/weights_and_trainings.py runs/table-10 --figure mse --rows baseline,autoencoder-cw-vr \
        -- --config base/mnist-autoencoder --data.root data
    python docs/examples/weights_and_trainings.py runs/table-7/data-1k --rows baseline,cr,cw-cr,vr,cw-vr \
        -- --config base/mnist-mlp --config scenario/data-1k --data.root data
    python docs/examples/weights_and_trainings.py runs/table-8/width-32 --rows baseline,vr,cw-vr --merge \
        -- --config base/cifar10-cnn --config scenario/width-32 --data.root data
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from layer_dependency import best_validation, train
from rich.console import Console
from rich.table import Table

from lightning_repshape.runs import read_json, write_json

WEIGHTS = "0.001,0.01,0.1,1,10,100"
MERGED = ["--config", "scenario/merged-validation"]


def row(
    folder: Path,
    name: str,
    given: list[str],
    weights: list[str],
    seeds: list[int],
    figure: str,
    merge: bool = False,
) -> dict[str, Any]:
    """Chooses a row's weight and trains it with all seeds.

    Args:
        folder: For the runs.
        name: ``baseline``, or a shipped config in ``method``.
        given: Options of ``fit``.
        weights: The weights to choose from; none for methods that have no weight.
        seeds: The seeds; the first is that of the choice.
        figure: ``error`` or ``mse``.
        merge: Whether the trainings after the choice have the validation images in their training set.

    Returns:
        The weight, the validation figures of all weights and the test figures; errors in percent.
    """
    test, unit = f"test/{figure}", 100 if figure == "error" else 1
    if name == "baseline" or not weights:
        method = [] if name == "baseline" else ["--config", f"method/{name}"]
        more = [*given, *method, *(MERGED if merge else [])]
        mark = "-merged" if merge else ""
        found = [train(folder / f"{name}{mark}-s{seed}", more, seed, test) for seed in seeds]
        return {"weight": None, "validation": {}, "test": [unit * one[test] for one in found if one]}

    def trained(weight: str, seed: int, merged: bool = False) -> dict[str, float] | None:
        words = [*given, "--config", f"method/{name}", *(MERGED if merged else [])]
        words += ["--model.init_args.regularizers.init_args.weight", weight]
        mark = "-merged" if merged else ""
        return train(folder / f"{name}-w{weight}{mark}-s{seed}", words, seed, test)

    # The checkpoint that is tested is the one of the least validation figure.
    known = {
        weight: unit * value
        for weight in weights
        if trained(weight, seeds[0])
        and (value := best_validation(folder / f"{name}-w{weight}-s{seeds[0]}", f"val/{figure}")) is not None
    }
    if not known:
        return {"weight": None, "validation": {}, "test": []}
    best = min(known, key=lambda weight: known[weight])
    found = [trained(best, seed, merge) for seed in seeds]
    return {"weight": best, "validation": known, "test": [unit * one[test] for one in found if one]}


def main(words: list[str]) -> None:
    """Trains what is missing and prints the rows.

    Args:
        words: The words of the command line.
    """
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description="A weight chosen by validation, then several trainings.")
    parser.add_argument("folder", type=Path, help="for the runs and the results")
    parser.add_argument("--rows", required=True, help="such as baseline,cr,cw-cr,vr,cw-vr (configs in method)")
    parser.add_argument("--weights", default=WEIGHTS, help=f"to choose from (default: {WEIGHTS}, the paper's)")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="of the trainings (default: 0,1,2,3,4)")
    parser.add_argument("--figure", default="error", choices=("error", "mse"), help="what is compared (default: error)")
    parser.add_argument("--merge", action="store_true", help="train with the validation images after the choice")
    options, given = parser.parse_args(words[:cut]), words[cut + 1 :]
    seeds, weights = [int(seed) for seed in options.seeds.split(",")], [w for w in options.weights.split(",") if w]
    settings = {"fit": given}
    if read_json(options.folder / "settings.json") not in ({}, settings):
        parser.error(f"{options.folder} holds runs with other options of fit; choose another folder")
    write_json(options.folder / "settings.json", settings)
    what = "error (%)" if options.figure == "error" else "MSE"
    table = Table("row", "weight", f"test {what}", "deviation", "trainings", f"validation {what} by weight")
    results = {}
    for name in options.rows.split(","):
        results[name] = row(options.folder, name, given, weights, seeds, options.figure, options.merge)
        values = results[name]["test"]
        table.add_row(
            name,
            results[name]["weight"] or "-",
            f"{np.mean(values):.4g}" if values else "-",
            f"{np.std(values, ddof=1):.2g}" if len(values) > 1 else "-",
            str(len(values)),
            " ".join(f"{weight}: {value:.4g}" for weight, value in results[name]["validation"].items()),
        )
        write_json(options.folder / "rows.json", results)
    Console(width=140).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
