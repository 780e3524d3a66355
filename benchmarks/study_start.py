"""What a study's training costs beside its steps: one step, in a process forked from a warm one and in a new Python.

Processor seconds of a training and of what starts it; the server, which imports once a study, has a column of its own.
The digits' network of ``base/digits-mlp``, without figures and with them (``FeaturePlots``: two PNGs, two PDFs each).
"""

import os
import resource
import tempfile
from pathlib import Path
from unittest import mock

import yaml
from timing import arguments, report

from lightning_repshape.studies import executors
from lightning_repshape.studies.jobs import Cell, open_results
from lightning_repshape.studies.reading import find_studies
from lightning_repshape.studies.runner import Runner

STUDY = {
    "format": 1,
    "configs": ["base/digits-mlp"],
    "figures": {"error": {"metric": "test/error", "scale": 100, "unit": "%"}},
    "overrides": {"trainer.max_epochs": -1, "trainer.max_steps": 1, "trainer.limit_val_batches": 1},
    "baseline": "plain",
    "methods": {"plain": {"configs": ["method/plain"]}},
}


def children() -> float:
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(place: Path, count: int, forked: bool, figures: bool) -> float:
    """Processor seconds of so many trainings."""
    study = {**STUDY, "seeds": count}
    if not figures:
        study["overrides"] = {**STUDY["overrides"], "trainer.callbacks": None}  # type: ignore[dict-item]
    file = place / "one.yaml"
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    (row,) = find_studies(str(file))[0].rows
    results = open_results(place / f"results-{count}-{forked}-{figures}", create=True)
    before = children()
    with mock.patch.object(executors, "can_fork", lambda: forked):
        executor = executors.LocalExecutor(1)
        (progress,) = Runner([Cell(row, results)], executor, environment={"OMP_NUM_THREADS": "1"}).run()
        executor.stop()
    if progress.count("finished") != count:
        raise RuntimeError(progress.error)
    return children() - before


def main() -> None:
    """Measures."""
    options = arguments("What a study's training costs beside its steps.")
    count = 3 if options.quick else 6
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for figures in (False, True):
            new, one, many = (
                seconds(Path(folder), number, forked, figures)
                for number, forked in ((1, False), (1, True), (count, True))
            )
            each = (many - one) / (count - 1)
            rows.append(
                {
                    "figures": "with" if figures else "without",
                    "a new Python, s": new,
                    "forked, s": each,
                    "new / forked": new / each,
                    "the server's start, s": one - each,
                }
            )
    report("A one-step training of a study, processor time", rows)


if __name__ == "__main__":
    main()
