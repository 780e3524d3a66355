"""The same penalty on one layer after the other (Choi and Rhee, AAAI 2019, Fig. 3 and, for CIFAR-10, Fig. 6).

Trains the baseline, and every penalty on every layer; draws the test error against the layer. What stands behind ``--``
goes to ``lightning-repshape fit``; the config must have a module that ``RegularizedModule`` can take the place of, such
as the baselines in ``base``. Of several weights of a penalty, the one of the least validation error (that of the
checkpoint that is tested) is drawn at each layer. Every training has a folder of its own; started again, the script
leaves out what is finished and goes on with what was interrupted.

    python docs/examples/layer_dependency.py runs/layers --layers fc1,fc2,fc3,fc4,fc5,logits \
        --penalties cw_vr=1,vr=1,cr=1,cw_cr=1 -- --config base/mnist-mlp --data.root data
"""

import argparse
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lightning_repshape.cli import main as lightning_repshape
from lightning_repshape.plots import MARKERS, PALETTE, new_figure, save_figure, style
from lightning_repshape.runs.checkpoints import read_checkpoint
from lightning_repshape.runs.files import read_json, write_json
from lightning_repshape.runs.folders import folder_name, is_run_folder
from lightning_repshape.studies.jobs import Run, validation_figure
from lightning_repshape.studies.rows import Selection

CLASSES = {
    "vr": "Variance",
    "cw_vr": "ClasswiseVariance",
    "cr": "Covariance",
    "cw_cr": "ClasswiseCovariance",
    "l1r": "L1Representation",
}
CONFIG = """\
# {name} with weight {weight} on the layer {layer}; composed with a baseline by docs/examples/layer_dependency.py.
model:
  class_path: RegularizedModule
  init_args:
    regularizers:
      - class_path: {name}
        init_args:
          weight: {weight}
          layer: {layer}
"""


def train(run: Path, words: list[str], seed: int, wanted: str = "test/error") -> dict[str, float] | None:
    """Trains and tests, unless that is done already.

    Args:
        run: The run folder.
        words: Options of ``fit``.
        seed: The seed.
        wanted: The figure that a finished run has.

    Returns:
        The run's figures, those of validation being the last ones, not those of the checkpoint; None where the
        training failed.
    """
    figures = read_json(run / "metrics.json")
    if wanted not in figures:
        print(f"--- {run.name}", file=sys.stderr)
        if is_run_folder(run) and (run / "checkpoints" / "last.ckpt").is_file():
            resumed = ["--run_dir", str(run), "--ckpt_path", "last"]
            status = lightning_repshape(["fit", *resumed])
        else:
            shutil.rmtree(run, ignore_errors=True)
            status = lightning_repshape(["fit", *words, "--seed_everything", str(seed), "--run_dir", str(run)])
        if status >= 128:
            print("--- interrupted: start this script again to go on", file=sys.stderr)
            raise SystemExit(status)
        if status and not is_run_folder(run):
            print("--- stopped: it did not come to a training, for the reason above", file=sys.stderr)
            raise SystemExit(status)
        figures = read_json(run / "metrics.json")
        if status or wanted not in figures:
            print(f"--- {run.name} failed: left out", file=sys.stderr)
            return None
    return figures


def errors(found: dict[str, Any], key: str) -> list[float]:
    """The errors of a group of runs in percent.

    Args:
        found: Figures by seed; None where a training failed.
        key: Which figure.

    Returns:
        Those that are there.
    """
    return [100 * figures[key] for figures in found.values() if figures and key in figures]


def best_validation(run: Path, figure: str) -> float | None:
    """The least validation figure of a run: that of the checkpoint that is tested.

    Args:
        run: Its folder.
        figure: ``val/error`` or ``val/mse``.

    Returns:
        The figure; None where the run has none.
    """
    if (run / "metrics.csv").is_file():
        return validation_figure(Run(run, "finished"), Selection(option="", values=(), metric=figure))
    # without a logger, the checkpoint alone knows
    best = run / "checkpoints" / "best.ckpt"
    states = read_checkpoint(best)["callbacks"].values() if best.is_file() else ()
    scores = [
        state["best_model_score"] for state in states if isinstance(state, dict) and state.get("monitor") == figure
    ]
    return min((float(score) for score in scores if score is not None), default=None)


def draw(path: Path, layers: list[str], lines: dict[str, list[list[float]]], baseline: list[float]) -> Path:
    """Test error against the layer, a line a penalty.

    Args:
        path: The picture.
        layers: Their names, in order.
        lines: Test errors (percent) of the seeds at every layer, by penalty.
        baseline: Test errors (percent) of the baseline.

    Returns:
        The picture's path.
    """
    figure = new_figure(6.8, 4.0)
    axes = figure.subplots()
    several = len(baseline) > 1
    for number, (name, points) in enumerate(lines.items()):
        at = np.arange(len(layers)) + (0.05 * (number - (len(lines) - 1) / 2) if several else 0)
        mean = [float(np.mean(values)) if values else math.nan for values in points]
        spread = [float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for values in points]
        axes.errorbar(
            at, mean, yerr=spread if several else None, color=PALETTE[number], marker=MARKERS[number],
            markersize=5, linewidth=1.5, capsize=2 if several else 0, label=name.upper().replace("CW_", "cw-"),
        )  # fmt: skip
    if baseline:
        axes.axhline(float(np.mean(baseline)), color="black", linestyle="--", linewidth=1.2, label="baseline")
    if several:
        low, high = np.mean(baseline) - np.std(baseline, ddof=1), np.mean(baseline) + np.std(baseline, ddof=1)
        axes.axhspan(float(low), float(high), color="black", alpha=0.08, linewidth=0)
    axes.set_xticks(np.arange(len(layers)), ["output" if layer == "logits" else layer for layer in layers])
    style(axes, "penalised layer", "test error (%)" + (", mean and deviation" if several else ", one seed"))
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return save_figure(figure, path, vector=False)


def main(words: list[str]) -> None:
    """Trains what is missing and draws.

    Args:
        words: The words of the command line.
    """
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description="The same penalty on one layer after the other.")
    parser.add_argument("folder", type=Path, help="for the runs and the results")
    parser.add_argument("--layers", required=True, help="such as fc1,fc2,logits")
    parser.add_argument("--penalties", required=True, help=f"such as cw_vr=1,cw_vr=10,vr=1; of {', '.join(CLASSES)}")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--figure", type=Path, help="the picture (default: layers.png in the folder)")
    options, given = parser.parse_args(words[:cut]), words[cut + 1 :]
    layers, seeds = options.layers.split(","), [int(seed) for seed in options.seeds.split(",")]
    weights: dict[str, list[float]] = {}
    for word in options.penalties.split(","):
        name, _, weight = word.partition("=")
        try:
            weights.setdefault(name, []).append(float(weight))
        except ValueError:
            name = ""
        if name not in CLASSES:
            parser.error(f"--penalties: {word!r} is no {'=WEIGHT, '.join(CLASSES)}=WEIGHT, WEIGHT a number")
    folder: Path = options.folder
    settings = {"fit": given}
    trained = any(is_run_folder(path) for path in folder.glob("*-s*"))
    if trained and read_json(folder / "settings.json") not in ({}, settings):
        parser.error(f"{folder} holds runs with other options of fit (see its settings.json); choose another folder")
    write_json(folder / "settings.json", settings)

    baseline = {seed: train(folder / f"baseline-s{seed}", given, seed) for seed in seeds}
    lines: dict[str, list[list[float]]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for name in weights:
        lines[name], chosen[name] = [], {}
        for layer in layers:
            candidates = {}
            for weight in weights[name]:
                stem = folder_name(f"{name}-{weight:g}-{layer}")
                config = folder / f"{stem}.yaml"
                config.write_text(CONFIG.format(name=CLASSES[name], weight=weight, layer=layer), encoding="utf-8")
                more = [*given, "--config", str(config)]
                candidates[weight] = {seed: train(folder / f"{stem}-s{seed}", more, seed) for seed in seeds}
            best = weights[name][0]
            if len(candidates) > 1:
                known = {}
                for weight, found in candidates.items():
                    runs = [
                        folder / f"{folder_name(f'{name}-{weight:g}-{layer}')}-s{seed}" for seed in seeds if found[seed]
                    ]
                    values = [best_validation(run, "val/error") for run in runs]
                    known[weight] = [value for value in values if value is not None]
                known = {weight: values for weight, values in known.items() if values}
                best = min(known, key=lambda weight: float(np.mean(known[weight]))) if known else None
            lines[name].append(errors(candidates[best], "test/error") if best is not None else [])
            chosen[name][layer] = {"weight": best, "test_error_percent": lines[name][-1]}
    of_baseline = errors(baseline, "test/error")
    if not of_baseline or not any(points for line in lines.values() for points in line):
        raise SystemExit(f"nothing to draw: no training of {'a penalty' if of_baseline else 'the baseline'} finished")
    write_json(folder / "layers.json", {"baseline": of_baseline, "penalties": chosen})
    print(draw(options.figure or folder / "layers.png", layers, lines, of_baseline))


if __name__ == "__main__":
    main(sys.argv[1:])
