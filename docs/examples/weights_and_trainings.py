"""A table's cell as the class-wise regularizers' paper has it: a weight chosen by validation, then several trainings.

For every row, one training a weight with the first seed; the weight of the least validation error is trained with all
seeds. The baseline is trained right away. What stands behind ``--`` goes to ``lightning-repshape fit``. Every training
has a folder of its own; started again, the script leaves out what is finished and goes on with what was interrupted.
Test errors are read after the choice, and only of the chosen weight.

    python docs/examples/weights_and_trainings.py runs/table-7/data-1k --rows baseline,cr,cw-cr,vr,cw-vr \
        -- --config base/mnist-mlp --config scenario/data-1k --data.root data
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from layer_dependency import errors, train
from rich.console import Console
from rich.table import Table

from lightning_repshape.runs import read_json, write_json

WEIGHTS = "0.001,0.01,0.1,1,10,100"


def row(folder: Path, name: str, given: list[str], weights: list[str], seeds: list[int]) -> dict[str, Any]:
    """Chooses a row's weight and trains it with all seeds.

    Args:
        folder: For the runs.
        name: ``baseline``, or a shipped config in ``method``.
        given: Options of ``fit``.
        weights: The weights to choose from; none for methods that have no weight.
        seeds: The seeds; the first is that of the choice.

    Returns:
        The weight, the validation errors of all weights and the test errors, in percent.
    """
    if name == "baseline" or not weights:
        method = [] if name == "baseline" else ["--config", f"method/{name}"]
        found = {seed: train(folder / f"{name}-s{seed}", [*given, *method], seed) for seed in seeds}
        return {"weight": None, "validation_error_percent": {}, "test_error_percent": errors(found, "test/error")}

    def words(weight: str) -> list[str]:
        return [*given, "--config", f"method/{name}", "--model.init_args.regularizers.init_args.weight", weight]

    first = {weight: train(folder / f"{name}-w{weight}-s{seeds[0]}", words(weight), seeds[0]) for weight in weights}
    # The checkpoint that is tested is the one of the least validation error, which its own record names.
    validation = {weight: best_validation(folder / f"{name}-w{weight}-s{seeds[0]}") for weight in weights}
    known = {weight: value for weight, value in validation.items() if first[weight] and value is not None}
    if not known:
        return {"weight": None, "validation_error_percent": {}, "test_error_percent": []}
    best = min(known, key=lambda weight: known[weight])
    found = {seed: train(folder / f"{name}-w{best}-s{seed}", words(best), seed) for seed in seeds}
    return {"weight": best, "validation_error_percent": known, "test_error_percent": errors(found, "test/error")}


def best_validation(run: Path) -> float | None:
    """The least validation error of a run in percent.

    Args:
        run: Its folder.

    Returns:
        The error; None where the run has none.
    """
    curve = run / "metrics.csv"
    if not curve.is_file():
        return None
    names, *lines = [line.split(",") for line in curve.read_text(encoding="utf-8").splitlines()]
    values = [float(line[names.index("val/error")]) for line in lines if line[names.index("val/error")]]
    return 100 * min(values) if values else None


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
    options, given = parser.parse_args(words[:cut]), words[cut + 1 :]
    seeds, weights = [int(seed) for seed in options.seeds.split(",")], [w for w in options.weights.split(",") if w]
    settings = {"fit": given}
    if read_json(options.folder / "settings.json") not in ({}, settings):
        parser.error(f"{options.folder} holds runs with other options of fit; choose another folder")
    write_json(options.folder / "settings.json", settings)
    table = Table("row", "weight", "test error (%)", "deviation", "trainings", "validation error by weight (%)")
    results = {}
    for name in options.rows.split(","):
        results[name] = row(options.folder, name, given, weights, seeds)
        values = results[name]["test_error_percent"]
        table.add_row(
            name,
            results[name]["weight"] or "-",
            f"{np.mean(values):.2f}" if values else "-",
            f"{np.std(values, ddof=1):.2f}" if len(values) > 1 else "-",
            str(len(values)),
            " ".join(f"{weight}: {value:.2f}" for weight, value in results[name]["validation_error_percent"].items()),
        )
        write_json(options.folder / "rows.json", results)
    Console(width=140).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
