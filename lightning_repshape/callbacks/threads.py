"""The number of CPU threads of a run."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_repshape.performance import choose_threads, skip_idle_hooks


class Threads(Callback):
    """Sets the number of CPU threads, after the processes of a distributed run have been started.

    Args:
        threads: How many in each process. Default: one for networks without convolutions, see
            :func:`lightning_repshape.performance.choose_threads`; else what PyTorch or Lightning has chosen.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sets the number."""
        skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]
        torch.set_num_threads(self.threads or choose_threads(pl_module))
