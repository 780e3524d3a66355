"""A study's trainings of a small network, singly and as one program (``study run --stack``), by processor time.

Eight trainings of the MLP of ``base/mnist-mlp`` on random images of MNIST's size, of three methods and several weights,
in processes that are forked from a warm one. Of short trainings their start counts, of long ones their steps.
"""

import os
import resource
import tempfile
from pathlib import Path

import yaml
from timing import arguments, report

from lightning_repshape.studies.executors import LocalExecutor
from lightning_repshape.studies.jobs import Cell, open_results
from lightning_repshape.studies.reading import find_studies
from lightning_repshape.studies.runner import Runner

DATA = '''
import torch
from lightning_repshape.data import ImageDataModule, ImageSet, SplitData

class RandomImages(ImageDataModule):
    """Ten classes of random images, told apart by ten pixels."""

    def describe(self):
        names = tuple("0123456789")
        return ImageSet("random", names, (1, 28, 28), mean=(0.5,), std=(0.5,), val_size=1000)

    def load_split(self, split):
        count = 21000 if split == "train" else 1000
        drawn = torch.Generator().manual_seed(count)
        labels = torch.randint(10, (count,), generator=drawn)
        images = torch.randint(256, (count, 28, 28, 1), generator=drawn, dtype=torch.uint8)
        images[torch.arange(count), 0, labels, 0] = 255
        return SplitData(images, labels, None)
'''
STUDY = {
    "format": 1,
    "configs": ["base/mnist-mlp", "random.yaml"],
    "figures": {"error": {"metric": "test/error", "scale": 100, "unit": "%"}},
    "seeds": 1,
    "select": {"option": "model.init_args.regularizers.init_args.weight", "values": [0.01, 1, 10]},
    "baseline": "baseline",
    "columns": {"default": {}},
    "methods": {
        "baseline": {"select": False, "seeds": 2},
        "cw_vr": {"configs": ["method/cw-vr"]},
        "l2w": {"configs": ["method/l2w"]},
    },
}
COUNT = 8


def children() -> float:
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(place: Path, epochs: int, stack: int) -> float:
    """Processor seconds of the trainings."""
    file = place / "one.yaml"
    study = {**STUDY, "overrides": {"trainer.max_epochs": epochs, "trainer.callbacks": None}}
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    results = open_results(place / f"results-{epochs}-{stack}", create=True)
    cells = [Cell(row, results) for row in find_studies(str(file))[0].rows]
    before = children()
    executor = LocalExecutor(1)
    environment = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]),
    }
    progress = Runner(cells, executor, ("--threads", "1"), environment=environment, stack=stack).run()
    executor.stop()
    done = sum(own.count("finished") for own in progress)
    if done != COUNT:
        raise RuntimeError(next(own.error for own in progress if own.error))
    return children() - before


def main() -> None:
    """Measures."""
    options = arguments("Trainings of a small network singly and stacked.")
    few, many = (1, 3) if options.quick else (1, 10)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "random_images.py").write_text(DATA, encoding="utf-8")
        data = {"data": {"class_path": "random_images.RandomImages", "init_args": {"batch_size": 100}}}
        (place / "random.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
        found = {(epochs, stack): seconds(place, epochs, stack) for epochs in (few, many) for stack in (1, COUNT)}
    for epochs in (few, many):
        singly, stacked = found[epochs, 1], found[epochs, COUNT]
        rows.append(_row(f"{epochs} epochs of 200 steps", singly, stacked))
    rows.append(_row("an epoch more", *(((found[many, n] - found[few, n]) / (many - few)) for n in (1, COUNT))))
    report("Eight trainings of an MLP, processor time", rows)


def _row(what: str, singly: float, stacked: float) -> dict[str, object]:
    each = {"singly, s": singly, "--stack 8, s": stacked, "singly / stacked": singly / stacked}
    return {"what": what, **each, "trainings an hour, stacked": 3600 * COUNT / stacked}


if __name__ == "__main__":
    main()
