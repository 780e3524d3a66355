"""FOCA's secondary optimisation at the end of a fit (Sato et al., ICML 2019, Eq. 5)."""

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import IterableDataset

from lightning_repshape.errors import ConfigError, DivergenceError
from lightning_repshape.features.passes import Features, extract_features
from lightning_repshape.features.store import analysis_loader, gather_features
from lightning_repshape.functional.stacked_heads import solve_head
from lightning_repshape.runs.checkpoints import read_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from lightning_repshape.modules.foca.module import FOCAModule


class SecondaryOptimization(Callback):
    """Trains the head of a :class:`lightning_repshape.modules.FOCAModule` from scratch on frozen features.

    At the end of ``fit`` the features of the monitored best checkpoint are taken over the whole training set, without
    augmentation, and a head is solved on them; the same for the last checkpoint where it is another one. Both files are
    rewritten, each whole or not at all, and the module is left with the best features and their head. FOCAModule adds
    this callback by itself.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Solves the head and rewrites the checkpoints.

        Args:
            trainer: The trainer.
            pl_module: The FOCA module.
        """
        module = _foca(pl_module)
        if getattr(trainer, "fast_dev_run", False):
            return
        paths = self._checkpoints(trainer)
        if not paths:
            self.solve(trainer, module)
            return
        solved: list[tuple[dict[str, Any], dict[str, Any]]] = []
        # The best comes last, so that its weights are what the module keeps.
        for path in reversed(paths):
            checkpoint = read_checkpoint(path)
            phi = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("backbone.")}
            known = next((head for other, head in solved if _equal(phi, other)), None)
            module.load_state_dict(checkpoint["state_dict"])
            if known is None:
                self.solve(trainer, module)
                known = _head_state(module)
                solved.append((phi, known))
            else:
                module.load_state_dict(known, strict=False)
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

    def solve(self, trainer: Trainer, module: "FOCAModule") -> Features:
        """Takes the training set's features and solves the module's head on them.

        Args:
            trainer: The trainer, which provides the training set.
            module: The module, whose head is set.

        Returns:
            The features that the head was solved on.

        Raises:
            DataError: If there is no training set.
            DivergenceError: If the solve did not end in finite numbers.
        """
        loader = _training_batches(trainer)
        moved = (trainer.strategy.batch_to_device(batch, device=module.device) for batch in loader)
        with trainer.precision_plugin.forward_context():
            part = extract_features(module, moved, "features", device=module.device)
        features = gather_features(part, trainer)
        set_head(module, features)
        if trainer.world_size > 1:  # the same features give the same head everywhere but for a GPU's rounding
            for parameter in module.head.parameters():
                torch.distributed.broadcast(parameter.data, 0)
        return features


def set_head(module: "FOCAModule", features: Features) -> None:
    """Solves a FOCA module's head on given features and marks it as trained.

    Args:
        module: The module.
        features: Features and labels of the training set.

    Raises:
        DivergenceError: If the solve did not end in finite numbers.
    """
    # Inference mode, in which a test runs, would leave parameters that cannot be trained again.
    with torch.inference_mode(False), torch.no_grad():
        x = features.features.to(module.device)
        x = x.clone() if x.is_inference() else x
        solution = solve_head(x, features.labels.to(module.device), **module.secondary_options)
        if not bool(torch.isfinite(solution.losses).all()):
            raise DivergenceError(
                "the secondary head diverged: lower secondary_rate, or leave secondary_feature_norm at a number so "
                "that features are brought to one scale"
            )
        layers = [layer for layer in module.head.modules() if isinstance(layer, nn.Linear)]
        for layer, solved in zip(layers, solution.heads.linear_layers(), strict=True):
            layer.weight.copy_(solved.weight)
            layer.bias.copy_(solved.bias)
        module.head_trained.fill_(True)


def _training_batches(trainer: Trainer) -> Iterable[Any]:
    """The training set without shuffling; a stream of unknown length as it comes, as far as an epoch goes."""
    loader: Any = trainer.train_dataloader
    streamed = isinstance(getattr(loader, "dataset", None), IterableDataset)
    if not streamed or trainer.datamodule is not None or trainer.world_size > 1:  # type: ignore[attr-defined]
        return analysis_loader(trainer, "train")  # type: ignore[no-any-return]
    batches = trainer.num_training_batches
    return islice(loader, int(batches)) if math.isfinite(batches) else loader


def _foca(module: LightningModule) -> "FOCAModule":
    from lightning_repshape.modules.foca.module import FOCAModule

    if not isinstance(module, FOCAModule):
        raise ConfigError(f"SecondaryOptimization works on a FOCAModule, not on {type(module).__name__}")
    return module


def _head_state(module: "FOCAModule") -> dict[str, Any]:
    state = module.state_dict()
    return {name: value.clone() for name, value in state.items() if name.startswith("head.") or name == "head_trained"}


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
