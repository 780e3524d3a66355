"""Keyed global generators: the reason why a resumed run equals an uninterrupted one."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_repshape.seeding import global_seed, key_to_seed


class Reseeding(Callback):
    """Seeds the global generators at every training batch from (seed, epoch, batch, rank).

    Dropout and whatever else draws from PyTorch's, NumPy's or Python's global generators then draws the same numbers
    whether the run was interrupted or not, and no generator's state has to be saved.

    Args:
        seed: The seed. Default: the run's, as ``seed_everything`` set it.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds the generators."""
        base = global_seed() if self.seed is None else self.seed
        seed = key_to_seed("batch", base, trainer.current_epoch, batch_idx, trainer.global_rank)
        # torch.manual_seed would also walk through every accelerator back end, at a hundred times the cost.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif pl_module.device.type != "cpu":
            torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
