"""The two checkpoints of a run, ``best.ckpt`` and ``last.ckpt``, and how they are written."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_repshape.errors import CheckpointError, ConfigError, did_you_mean
from lightning_repshape.runs.files import written_atomically

_WRITER_MARKS = ("inline_container", "PytorchStreamWriter", "unexpected pos")


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``, the epoch with the lowest monitored value.

    Args:
        dirpath: The folder of the checkpoints. Default: on the command line, the run's.
        monitor: The logged key to minimise. Default: the module's attribute ``monitor``, else ``val/error``. Without a
            validation set the latest epoch is the best.
        mode: ``"min"`` or ``"max"``.
    """

    on_train_batch_end: Any = None  # it saves by epochs; ModelCheckpoint's own would ask in every step

    def __init__(self, dirpath: str | Path | None = None, monitor: str | None = None, mode: str = "min") -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            auto_insert_metric_name=False,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self._asked_monitor = monitor

    @property
    def state_key(self) -> str:
        """One name, whatever is monitored, so that a resumed run finds its state."""
        return "BestCheckpoint"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what was best so far, also where the run's folder was moved or renamed since."""
        state = dict(state_dict)
        here = Path(self.dirpath) / f"{self.filename}{self.FILE_EXTENSION}" if self.dirpath is not None else None
        if here is not None and here.is_file():
            state["dirpath"] = str(self.dirpath)
            state["best_model_path"] = state["kth_best_model_path"] = str(here)
            state["best_k_models"] = {str(here): value for value in state.get("best_k_models", {}).values()}
        super().load_state_dict(state)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses what to monitor, now that it is known whether there is a validation set."""
        has_validation = sum(size for size in trainer.num_val_batches) > 0
        monitor = self._asked_monitor or getattr(pl_module, "monitor", "val/error")
        self.monitor = monitor if has_validation else None
        super().on_train_start(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the epoch's checkpoint if it is the best so far."""
        if self.monitor is not None and self.monitor not in trainer.callback_metrics:
            if not any(key.startswith("val") for key in trainer.callback_metrics):
                return  # no validation has run yet (check_val_every_n_epoch)
            raise ConfigError(
                f"the best checkpoint is chosen by {self.monitor!r}, which {type(pl_module).__name__} does not log"
                f"{did_you_mean(self.monitor, trainer.callback_metrics)}. Give the module an attribute 'monitor' that "
                "names the key to minimise, or a BestCheckpoint with monitor and mode among trainer.callbacks"
            )
        super().on_train_epoch_end(trainer, pl_module)


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt``, written at the end of every epoch.

    Args:
        dirpath: The folder of the checkpoints. Default: on the command line, the run's.
    """

    on_train_batch_end: Any = None  # it saves by epochs; ModelCheckpoint's own would ask in every step

    def __init__(self, dirpath: str | Path | None = None) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            save_top_k=1,
            auto_insert_metric_name=False,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        """One name, so that a resumed run finds its state."""
        return "LastCheckpoint"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a full disk or a kill never damages the one before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint."""
        if storage_options is not None:
            raise CheckpointError("this run's checkpoints are local files; storage_options is not supported")
        save_checkpoint(checkpoint, path)


def save_checkpoint(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a checkpoint whole, else raises a CheckpointError and leaves what was there before as it was."""
    try:
        with written_atomically(path) as temporary:
            torch.save(dict(checkpoint), temporary)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer reports a full disk as a RuntimeError of its C++ part; others are none of ours.
        words = f"{error} {error.__context__}"
        if isinstance(error, RuntimeError) and not any(mark in words for mark in _WRITER_MARKS):
            raise
        reason = getattr(error, "strerror", None) or "is the disk full?"
        raise CheckpointError(
            f"checkpoint {path} could not be written ({reason}); the one before it is kept. Make room on the disk and "
            "resume with --ckpt_path last"
        ) from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a Lightning checkpoint without running any code that it may hold.

    Raises a CheckpointError if the file is missing, damaged, or no Lightning checkpoint.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"checkpoint {file} does not exist")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything on files that are not its own
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if "Weights only load failed" in reason:
            reason = "it holds something else than weights and plain data"
        raise CheckpointError(
            f"{file} cannot be read as a checkpoint ({reason}). It may be damaged, or no checkpoint at all"
        ) from error
    if not isinstance(checkpoint, Mapping) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{file} is a PyTorch file, but no Lightning checkpoint: it has no 'state_dict'")
    return dict(checkpoint)


def load_weights(module: LightningModule, path: str | Path) -> None:
    """Loads a checkpoint's weights alone: neither hyper-parameters, nor optimizer, nor epoch.

    Raises a CheckpointError if the file is no checkpoint or its weights do not fit the module.
    """
    checkpoint = read_checkpoint(path)
    check_weights(module, checkpoint, path)
    module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)


def check_weights(module: LightningModule, checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Raises a CheckpointError that names some of the weights whose names or shapes differ from the module's."""
    if not module.strict_loading:
        return
    theirs: Mapping[str, Any] = checkpoint["state_dict"]
    ours = module.state_dict()
    problems = [f"lacks {name}" for name in ours if name not in theirs]
    problems += [f"has {name}, which the model lacks" for name in theirs if name not in ours]
    problems += [
        f"has {name} of shape {tuple(theirs[name].shape)} where the model has {tuple(value.shape)}"
        for name, value in ours.items()
        if name in theirs and hasattr(theirs[name], "shape") and theirs[name].shape != value.shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more differences" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{path} is a checkpoint of another model than {type(module).__name__} as configured: it "
            f"{'; it '.join(problems[:3])}{more}. Use the config of the run that wrote it (its config.yaml)"
        )
