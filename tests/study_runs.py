"""Studies, run folders and runners that the tests of studies share."""

import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_repshape.studies.cells import StudyResult
from lightning_repshape.studies.executors import Executor, LocalExecutor
from lightning_repshape.studies.jobs import Budget, Cell, Job, open_results
from lightning_repshape.studies.reading import find_studies, shipped
from lightning_repshape.studies.results import read_results
from lightning_repshape.studies.rows import Row, Study, Variant
from lightning_repshape.studies.runner import Runner

TWO_METHODS = """
format: 1
paper: Müller and Søn, 2020
title: Two methods | and a line
data: Ziffern
overrides: {trainer.max_epochs: 10}
figures:
  error: {metric: test/error, scale: 100, unit: "%"}
  loss: {metric: test/loss, digits: 3, over: plain}
seeds: [0, 1, 2]
baseline: plain
columns: {all: {title: all images}, few: {title: few images}}
methods:
  plain: {title: Plain}
  penalty:
    title: Penalty λ
    select: {option: model.init_args.weight, values: [0.1, 1, 10], metric: val/error}
published:
  source: table 1
  cells: [all/error, few/error]
  values:
    plain: [[2.5, 0.1], {range: [8, 12]}]
    penalty: [2.0, did not converge]
notes: [A note.]
"""


class Results:
    """Run folders made by hand."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self.study = folder, study

    def run(
        self,
        row: str,
        seed: int,
        error: float | None,
        *,
        value: str | None = None,
        epochs: float = 1.0,
        size: int | None = None,
        retrain: bool = False,
        validation: float | None = None,
        status: str = "finished",
        speed: float = 100.0,
        memory: float = 500.0,
        loss: float | None = None,
    ) -> Path:
        column, method = row.split("/")
        found = self.study.row(column, method)
        assert found is not None
        job = Job(found, Variant(seed, value, epochs, size, retrain), self.folder)
        job.folder.mkdir(parents=True)
        fit: dict[str, Any] = {"stage": "fit", "status": "finished", "steps": 50, "steps_per_second": speed}
        sessions = [{**fit, "peak_memory_mb": memory}]
        if status == "finished":
            sessions.append({"stage": "test", "status": "finished", "peak_memory_mb": 9e9})
        elif status == "failed":
            sessions[0] |= {"status": "failed", "error": "DivergenceError: loss <nan> | at step 3"}
        else:
            sessions[0] |= {"status": status}
        machine = {"cpu": "some processor", "threads": 1, "accelerator": "cpu"}
        manifest = {"format": 1, "study": job.about(), "machine": machine, "sessions": sessions}
        (job.folder / "manifest.json").write_text(json.dumps(manifest))
        figures: dict[str, float] = {} if error is None else {"test/error": error, "step": 50}
        if loss is not None:
            figures["test/loss"] = loss
        (job.folder / "metrics.json").write_text(json.dumps(figures))
        if validation is not None:
            text = f"step,epoch,val/error\n10,0,{validation + 0.2}\n20,1,{validation}\n30,2,{validation + 0.1}\n"
            (job.folder / "metrics.csv").write_text(text)
        return job.folder

    def read(self) -> StudyResult:
        return read_results(self.folder, [self.study])[0]


PLAIN = {0: 0.0251, 1: 0.0262, 2: 0.0247}
PENALTY = {0: 0.0212, 1: 0.0231, 2: 0.0199}


def fill(results: Results) -> None:
    """The first column whole, the second with a failure, an interruption and a choice that is not made."""
    for seed, error in PLAIN.items():
        results.run("all/plain", seed, error, loss=0.1 + seed, speed=100 + seed)
    for value, validation in (("0.1", 0.03), ("1", 0.02), ("10", 0.5)):
        results.run("all/penalty", 0, PENALTY[0], value=value, validation=validation, loss=0.2, speed=50, memory=600)
    for seed in (1, 2):
        results.run("all/penalty", seed, PENALTY[seed], value="1", loss=0.3 + seed, speed=50 + seed, memory=600)
    results.run("few/plain", 0, 0.10)
    results.run("few/plain", 1, None, status="failed")
    results.run("few/plain", 2, None, status="killed")
    results.run("few/penalty", 0, 0.09, value="0.1", validation=0.1)
    results.run("few/penalty", 0, None, value="1", status="failed")


def records(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        return {(row["column"], row["method"], row["figure"]): row for row in csv.DictReader(file)}


STANDIN = (sys.executable, str(Path(__file__).parent / "standin_fit.py"))
STUDY = {
    "format": 1,
    "data": "digits",
    "configs": ["base/digits-mlp"],
    "figures": {"error": {"metric": "test/error", "scale": 100, "unit": "%"}},
    "seeds": [0, 1, 2],
    "select": {"option": "model.init_args.regularizers.init_args.weight", "values": [0.1, 1, 10]},
    "baseline": "baseline",
    "methods": {"baseline": {"select": False}, "cw_vr": {"configs": ["method/cw-vr"]}},
}


def cells(tmp_path: Path, budget: Budget | None = None, **changes: Any) -> list[Cell]:
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}))
    results = open_results(tmp_path / "results", create=True)
    return [Cell(row, results, budget or Budget()) for row in find_studies(str(file))[0].rows]


def runner(own: Sequence[Cell], executor: Executor | None = None, **options: Any) -> Runner:
    return Runner(own, executor or LocalExecutor(2), command=STANDIN, **options)


def epochs(trace: Path) -> Counter[tuple[str, str]]:
    return Counter((line.split()[0], line.split()[1]) for line in trace.read_text().splitlines())


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


OWN: dict[str, Any] = {
    "format": 1,
    "data": "digits",
    "configs": ["base/digits-mlp"],
    "figures": {"error": {"metric": "test/error", "scale": 100, "unit": "%"}},
    "seeds": 2,
    "select": {"option": "model.init_args.regularizers.init_args.weight", "values": [0.01, 1]},
    "baseline": "baseline",
    "columns": {"default": {}, "small": {"overrides": {"data.init_args.train_size": 200}}},
    "methods": {"baseline": {"select": False}, "cw_vr": {"configs": ["method/cw-vr"]}},
    "published": {"source": "table 1", "cells": ["default", "small"], "values": {"cw_vr": [1, [2, 0.5]]}},
}


def own(folder: Path, **changes: Any) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in {**OWN, **changes}.items() if value != "absent"}))
    return file


def options(words: list[str]) -> dict[str, Any]:
    """The overrides among the words of a row."""
    pairs = zip(words[::2], words[1::2], strict=True)
    return {name.removeprefix("--"): yaml.safe_load(value) for name, value in pairs if name != "--config"}


def all_rows() -> list[Row]:
    return [row for study in shipped() for row in study.rows]
