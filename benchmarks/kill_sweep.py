"""Goes on from every state that a kill leaves trainings, a study and an analysis in, and compares what comes out.

    python benchmarks/kill_sweep.py                                 everything, every file operation (about an hour)
    python benchmarks/kill_sweep.py --every 10 supervised foca      every tenth state of two of them

Everything is compared: weights and all else in checkpoints, metrics.csv, metrics.json, the list of files. The exit
status is 1 where a kill was not exact. Before its first checkpoint a training has nothing to go on from; such kills
are not counted.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from kill_points import go_on_with_run, run, sweep, trainings_in_forks
from small_runs import BASE, RUNS, unrendered, write_faces, write_images

FOCA = """
model:
  class_path: FOCAModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [16, 12], batch_norm: true}}
    weak: {hidden: [8], updates: 8}
    secondary: {hidden: [8], updates: 30}
    draw: {num_classifiers: 3, samples_per_class: 4}
    phi: {updates: 2, accumulate: 3}
    val_classifiers: 4
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.01, momentum: 0.9}}
"""
STUDY = """
format: 1
paper: None
title: One training
data: Digits
configs: [base.yaml]
figures: {error: {metric: test/error, scale: 100, unit: "%"}}
seeds: [0]
baseline: plain
columns: {all: {title: all images}}
methods: {plain: {title: Plain}}
"""
_PLAIN = "{class_path: MLP, init_args: {widths: [16, 12]}}"
_NORMED = "{class_path: MLP, init_args: {widths: [16, 12], batch_norm: true}}"
_CALLBACKS = "lightning.pytorch.callbacks"
_SWA = f"{{class_path: {_CALLBACKS}.StochasticWeightAveraging, init_args: {{swa_lrs: 0.01, swa_epoch_start: 1}}}}"
_EMA = f"{{class_path: {_CALLBACKS}.EMAWeightAveraging, init_args: {{decay: 0.9}}}}"
_PLATEAU = "{class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {monitor: val/loss, patience: 0}}"


def _averaged(callback: str, backbone: str) -> str:
    return f"model: {{init_args: {{backbone: {backbone}}}}}\ntrainer: {{callbacks: [{callback}]}}\n"


CONFIGS = {name: text for name, text in RUNS.items() if name != "analyses" and "foca" not in name} | {
    "foca": FOCA,
    "plateau": f"model: {{init_args: {{lr_scheduler: {_PLATEAU}}}}}\n",
    "plateau-steps": f"model: {{init_args: {{lr_scheduler: {_PLATEAU}, lr_scheduler_interval: step}}}}\n"
    "trainer: {val_check_interval: 5}\n",
    "ema": _averaged(_EMA, _NORMED),
    "swa": _averaged(_SWA, _PLAIN),
    "swa-batch-norm": _averaged(_SWA, _NORMED),
    "max-steps": "trainer: {max_steps: 50, max_epochs: -1}\n",
}


def trainings(name: str, root: Path, **options: object) -> tuple[int, list[str]]:
    """One of the small runs."""
    (root / "base.yaml").write_text(BASE)
    (root / f"{name}.yaml").write_text(CONFIGS[name])
    folder = root / f"run-{name}"
    words = ["fit", "--config", "base.yaml", "--config", f"{name}.yaml", "--run_dir", str(folder)]
    words += [] if name == "max-steps" else ["--trainer.max_epochs", "3"]
    return sweep(words, folder, go_on_with_run, **options)  # type: ignore[arg-type]


def analysis(name: str, root: Path, **options: object) -> tuple[int, list[str]]:
    """``analyze`` on a finished run; it goes on by being called again."""
    (root / "base.yaml").write_text(BASE)
    trained, folder = root / "trained", root / name
    if run(["fit", "--config", "base.yaml", "--run_dir", str(trained)], trained):
        raise RuntimeError("the training failed")
    words = ["analyze", "--run_dir", str(folder), "--analyses", "lda,pca,collapse"]
    words += ["--trainer.enable_progress_bar", "false"]
    return sweep(
        words,
        folder,
        lambda _: words,
        before=lambda: shutil.copytree(trained, folder) and None,
        **options,  # type: ignore[arg-type]
    )


def study(name: str, root: Path, **options: object) -> tuple[int, list[str]]:
    """``study run``; it goes on by being called again."""
    folder = root / name
    (root / "base.yaml").write_text(BASE)
    (root / "s.yaml").write_text(STUDY)
    words = ["study", "run", "s.yaml", "--out", str(folder)]
    with trainings_in_forks():
        return sweep(words, folder, lambda _: words, **options)  # type: ignore[arg-type]


CASES: dict[str, Callable[..., tuple[int, list[str]]]] = {
    **dict.fromkeys(CONFIGS, trainings),
    "analyze": analysis,
    "study": study,
}


def main(words: Sequence[str] | None = None) -> int:
    """Prints a table of kills tried and exact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--every", type=int, default=1, help="go on from every so manieth state")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args(words)
    results, exact = [], True
    with tempfile.TemporaryDirectory() as place, unrendered():
        root = Path(place).resolve()
        os.chdir(root)
        write_images(root / "images")
        write_faces(root / "faces")
        for name in given.cases:
            began = time.perf_counter()
            tried, faults = CASES[name](
                name,
                root,
                chosen=lambda states: states[given.first - 1 :: given.every],
                report=(lambda line: print("   ", line, flush=True)) if given.verbose else (lambda line: None),
            )
            exact = exact and not faults
            results.append(f"{name:24}{tried:6}{tried - len(faults):7}   {time.perf_counter() - began:.0f} s")
            print(results[-1], *(f"    {fault}" for fault in faults), sep="\n", flush=True)
    print(f"\n{'':24}{'kills':>6}{'exact':>7}", *results, sep="\n")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
