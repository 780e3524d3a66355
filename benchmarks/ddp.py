"""Two processes against one: images per second of a training through Lightning's Trainer, gloo on the CPU.

Each process computes in one thread. Runs with one and two processes take turns; an epoch's seconds are the wall clock's
on the first rank, without the first epoch. Two processes need two idle cores: what else runs on the machine takes more
from them than from one, and they wait for each other at every step. So the printed share of a core that each process
got belongs to the ratio: far below 1, the ratio tells of the machine's load, not of DDP. What load disturbs less is the
processor time of an image; twice its ratio is what two idle cores could reach at most, waiting not counted in.
"""

import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from timing import arguments, report
from trainer import RandomImages

from lightning_repshape.functional.stacked_heads import HeadRecipe
from lightning_repshape.modules import FOCAModule, SupervisedModule
from lightning_repshape.networks import FOCANet


class Record(Callback):
    """Writes each rank's seconds of epochs, the processor's share of them, and whether all ranks hold the same phi.

    Args:
        folder: Where to; a process that was spawned gives nothing back.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.wall: list[float] = []
        self.processor: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """One thread a process, before anything is computed."""
        torch.set_num_threads(1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clocks."""
        self._start = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clocks."""
        self.wall.append(time.perf_counter() - self._start[0])
        self.processor.append(time.process_time() - self._start[1])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares the ranks' parameters and writes."""
        parameters = torch.cat([parameter.detach().flatten() for parameter in pl_module.backbone.parameters()])
        everybody = trainer.strategy.all_gather(parameters).view(trainer.world_size, -1)
        record = {
            "wall": self.wall[1:],
            "processor": self.processor[1:],
            "identical": bool((everybody == parameters).all()),
        }
        Path(self.folder, f"{trainer.global_rank}.json").write_text(json.dumps(record))


def train(kind: type[SupervisedModule] | type[FOCAModule], processes: int, count: int, epochs: int) -> dict[str, Any]:
    """Trains a small network on random images and reads what the ranks recorded."""
    data = RandomImages(count, (3, 32, 32))
    options: dict[str, Any] = {"secondary": HeadRecipe(updates=1)} if kind is FOCAModule else {}
    backbone: Any = partial(FOCANet, widths=(16, 32, 256), depth=1)
    sgd = partial(torch.optim.SGD, lr=1e-4, momentum=0.9)
    module = kind(10, data.input_shape, backbone, optimizer=sgd, **options)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=processes,
            strategy=DDPStrategy(process_group_backend="gloo", start_method="spawn") if processes > 1 else "auto",
            callbacks=[Record(folder)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(processes)]
    return {
        "seconds": ranks[0]["wall"],
        "work": [sum(parts) for parts in zip(*(rank["processor"] for rank in ranks), strict=True)],
        "share": min(sum(rank["processor"]) / sum(rank["wall"]) for rank in ranks),
        "identical": all(rank["identical"] for rank in ranks),
    }


def main() -> None:
    """Prints images per second and their ratio, a module a table."""
    options = arguments("Two DDP processes against one, gloo on the CPU")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    os.environ.update(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    if os.name == "posix" and Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # host names may not resolve
    count, epochs, rounds = (1_000, 3, 1) if options.quick else (4_000, 4, 3)
    kinds: list[type[SupervisedModule] | type[FOCAModule]] = [SupervisedModule, FOCAModule]
    for kind in kinds:
        seconds: dict[int, list[float]] = {1: [], 2: []}
        work: dict[int, list[float]] = {1: [], 2: []}
        share, identical = {1: 1.0, 2: 1.0}, {1: True, 2: True}
        for _ in range(rounds):
            for processes in seconds:
                found = train(kind, processes, count, epochs)
                seconds[processes] += found["seconds"]
                work[processes] += found["work"]
                share[processes] = min(share[processes], found["share"])
                identical[processes] &= found["identical"]
        speed = {processes: count / statistics.median(values) for processes, values in seconds.items()}
        rows = [
            {
                "processes": str(processes),
                "images/s": value,
                "ratio to one": value / speed[1],
                "at most, by processor time": processes
                * statistics.median(work[1])
                / statistics.median(work[processes]),
                "least share of a core": share[processes],
                "ranks identical": "" if processes == 1 else "yes" if identical[processes] else "NO",
            }
            for processes, value in speed.items()
        ]
        report(f"{kind.__name__}, small network, batch 100 a process, {os.cpu_count()} cores", rows)


if __name__ == "__main__":
    main()
