"""FOCA's secondary optimisation at the end of a fit (Sato et al., ICML 2019, Eq. 5)."""

import math
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import IterableDataset

from lightning_repshape.errors import ConfigError
from lightning_repshape.features.passes import Features, extract_features
from lightning_repshape.features.store import analysis_loader, gather_features, on_device
from lightning_repshape.runs.checkpoints import read_checkpoint, save_checkpoint


class SecondaryOptimization(Callback):
    """Trains the head of a :class:`lightning_repshape.modules.FOCAModule` from scratch on frozen features.

    At the end of ``fit`` the features of the monitored best checkpoint are taken over the whole training set, without
    augmentation, and a head is solved on them; the same for the last checkpoint where it is another one. Both files are
    rewritten, each whole or not at all, and the module is left with the best features and their head. FOCAModule adds
    this callback by itself.

    Args:
        solve: Called with the trainer; trains the head on the module's present features. Default: the module's own
            ``solve_secondary``.
    """

    def __init__(self, solve: Callable[[Trainer], None] | None = None) -> None:
        self._solve = solve

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Solves the head and rewrites the checkpoints."""
        solve = self._solve or getattr(pl_module, "solve_secondary", None)
        if solve is None:
            raise ConfigError(f"SecondaryOptimization works on a FOCAModule, not on {type(pl_module).__name__}")
        if getattr(trainer, "fast_dev_run", False):
            return
        paths = self._checkpoints(trainer)
        if not paths:
            solve(trainer)
            return
        solved: list[tuple[dict[str, Any], dict[str, Any]]] = []
        # The best comes last, so that its weights are what the module keeps.
        for path in reversed(paths):
            checkpoint = read_checkpoint(path)
            phi = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("backbone.")}
            known = next((head for other, head in solved if _equal(phi, other)), None)
            pl_module.load_state_dict(checkpoint["state_dict"])
            if known is None:
                solve(trainer)
                known = _head_state(pl_module)
                solved.append((phi, known))
            else:
                pl_module.load_state_dict(known, strict=False)
            if trainer.is_global_zero:
                checkpoint["state_dict"].update({name: value.cpu() for name, value in known.items()})
                save_checkpoint(checkpoint, path)
            trainer.strategy.barrier("secondary-optimization")

    def _checkpoints(self, trainer: Trainer) -> list[Path]:
        """The best checkpoint and the last one, as far as there are files."""
        found: list[Path] = []
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                for name in (callback.best_model_path, callback.last_model_path):
                    if name and Path(name).is_file() and Path(name) not in found:
                        found.append(Path(name))
        return found


def training_features(trainer: Trainer, module: LightningModule) -> Features:
    """Features and labels of the whole training set, of all ranks, without augmentation; DataError without one."""
    moved = (on_device(trainer, batch, module) for batch in _training_batches(trainer))
    with trainer.precision_plugin.forward_context():
        part = extract_features(module, moved, "features", device=module.device)
    return gather_features(part, trainer)


def _training_batches(trainer: Trainer) -> Iterable[Any]:
    """The training set without shuffling; a stream of unknown length as it comes, as far as an epoch goes."""
    loader: Any = trainer.train_dataloader
    streamed = isinstance(getattr(loader, "dataset", None), IterableDataset)
    if not streamed or trainer.datamodule is not None or trainer.world_size > 1:  # type: ignore[attr-defined]
        return analysis_loader(trainer, "train")  # type: ignore[no-any-return]
    batches = trainer.num_training_batches
    return islice(loader, int(batches)) if math.isfinite(batches) else loader


def _head_state(module: LightningModule) -> dict[str, Any]:
    state = module.state_dict()
    return {name: value.clone() for name, value in state.items() if name.startswith("head.") or name == "head_trained"}


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
