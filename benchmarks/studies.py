"""What a study costs beside its trainings: looking at run folders, once and again, and the report.

A folder of results of 60 rows, two values and three seeds each, is filled with run folders of finished trainings with
curves of 50 epochs. Processor time; a runner looks twice a second at what has changed, hence the share of a core.
"""

import json
import tempfile
import time
from pathlib import Path

import yaml
from timing import arguments

from lightning_repshape.studies.executors import Ended, Task
from lightning_repshape.studies.jobs import Cell, Job, open_results
from lightning_repshape.studies.reading import find_studies
from lightning_repshape.studies.report import write_report
from lightning_repshape.studies.results import read_results
from lightning_repshape.studies.runner import Runner

STUDY = {
    "format": 1,
    "configs": ["base/digits-mlp"],
    "figures": {"error": {"metric": "test/error", "scale": 100, "unit": "%"}},
    "seeds": 3,
    "select": {"option": "model.init_args.regularizers.init_args.weight", "values": [0.1, 1]},
    "baseline": "vr",
    "methods": {"vr": {"configs": ["method/vr"]}, "cw_vr": {"configs": ["method/cw-vr"]}},
}


class Waits:
    """An executor with one training that never ends."""

    slots = 1

    def submit(self, task: Task) -> None:
        """Takes it and does nothing."""

    def ended(self, timeout: float) -> dict[str, Ended]:
        """Says that nothing has ended."""
        return {}

    def stop(self) -> None:
        """Nothing runs."""


def write(job: Job, error: float) -> None:
    """Writes a finished run's folder.

    Args:
        job: The training.
        error: Its test error.
    """
    fit = {"stage": "fit", "status": "finished", "wall_seconds": 10.0, "steps": 100, "steps_per_second": 50.0}
    manifest = {"format": 1, "study": job.about(), "sessions": [fit, {"stage": "test", "status": "finished"}]}
    job.folder.mkdir(parents=True)
    (job.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (job.folder / "metrics.json").write_text(json.dumps({"test/error": error}), encoding="utf-8")
    curve = "".join(f"{epoch},{error + 1 / (1 + epoch)}\n" for epoch in range(50))
    (job.folder / "metrics.csv").write_text(f"epoch,val/error\n{curve}", encoding="utf-8")


def main() -> None:
    """Measures."""
    options = arguments("What a study costs beside its trainings.")
    columns = 5 if options.quick else 30
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "many.yaml"
        file.write_text(yaml.safe_dump({**STUDY, "columns": {f"c{number}": {} for number in range(columns)}}))
        studies = find_studies(str(file))
        results = open_results(Path(place) / "results", create=True)
        cells = [Cell(row, results) for row in studies[0].rows]
        count = 0
        for number, cell in enumerate(cells):
            for job in cell.jobs("1").values():
                if number < len(cells) - 1:  # the last row is what there is left to do
                    write(job, 0.05 + 0.001 * job.variant.seed + (0.01 if job.variant.value == "0.1" else 0.0))
                    count += 1
        runner = Runner(cells, Waits())
        seconds = {}
        for name in ("the first look", "every further look"):
            began = time.process_time()
            for number in range(len(cells)):
                runner._ready(number)
            runner._submit()
            runner.progress()
            seconds[name] = time.process_time() - began
        began = time.process_time()
        found = read_results(results, studies)
        seconds["reading for the report"] = time.process_time() - began
        began = time.process_time()
        write_report(Path(place) / "report", found)
        seconds["writing the report"] = time.process_time() - began
    print(f"{count} finished trainings of {len(cells)} rows; processor time")
    for name, taken in seconds.items():
        share = f", {100 * taken / 0.5:.1f} % of a core at two looks a second" if name.startswith("every") else ""
        print(f"{name:<24} {1000 * taken:8.1f} ms, {1000 * taken / count:.2f} ms a training{share}")


if __name__ == "__main__":
    main()
