"""The two checkpoints of a run, ``best.ckpt`` and ``last.ckpt``, and how they are written."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging, Timer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from lightning_repshape.errors import CheckpointError, ConfigError, did_you_mean
from lightning_repshape.runs.files import written_atomically

_GO_ON_FROM = "go_on_from"
_PLATEAUS = "plateau_values"
_NOT_AVERAGED = "current_model_state"  # WeightAveraging's name for the weights that it trains on from
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
        self._validated = False

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
            state["best_model_path"] = str(here)
            state["kth_best_model_path"] = str(here) if state.get("kth_best_model_path") else ""  # none is monitored
            state["best_k_models"] = {str(here): value for value in state.get("best_k_models", {}).values()}
        super().load_state_dict(state)
        self.current_score = state.get("current_score")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses what to monitor, now that it is known whether there is a validation set."""
        has_validation = sum(size for size in trainer.num_val_batches) > 0
        monitor = self._asked_monitor or getattr(pl_module, "monitor", "val/error")
        self.monitor = monitor if has_validation else None
        super().on_train_start(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that the epoch has a value of its own."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the epoch's checkpoint if it is the best so far."""
        validated, self._validated = self._validated, False
        if self.monitor is not None and not validated:
            return  # there is no validation in every epoch (check_val_every_n_epoch)
        if self.monitor is not None and self.monitor not in trainer.callback_metrics:
            raise ConfigError(
                f"the best checkpoint is chosen by {self.monitor!r}, which {type(pl_module).__name__} does not log"
                f"{did_you_mean(self.monitor, trainer.callback_metrics)}. Give the module an attribute 'monitor' that "
                "names the key to minimise, or a BestCheckpoint with monitor and mode among trainer.callbacks"
            )
        super().on_train_epoch_end(trainer, pl_module)


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt``, written at the end of every epoch.

    Training goes on from the end of a whole epoch. Where ``max_steps`` or ``max_time`` ends it within one, or an
    average takes the place of the weights at the end, the checkpoint holds what training ended with, and under
    ``"go_on_from"`` the checkpoint from which it goes on (:class:`AtomicCheckpointIO` reads it).

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
        self._whole = ""  # the file to go on from: that of the last whole epoch, or of the start
        self._going_on: Mapping[str, Any] | None = None
        self._resumed = False
        self._postponed = False
        self._plateaus: Mapping[int, Tensor] = {}

    @property
    def state_key(self) -> str:
        """One name, so that a resumed run finds its state."""
        return "LastCheckpoint"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tells the reader of checkpoints whether training goes on from them."""
        super().setup(trainer, pl_module, stage)
        if isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            trainer.strategy.checkpoint_io.going_on = stage == "fit"

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Completes the epoch at whose end the checkpoint was written.

        Lightning does so too, but where ``max_steps`` limits the run it first repeats that epoch without its batches.
        """
        loops = checkpoint.get("loops", {}).get("fit_loop")
        if trainer.state.fn != "fit" or not loops:
            return
        batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
        whole = batches["is_last_batch"] or batches["current"]["ready"] == 0
        self._resumed = whole and epochs["current"]["processed"] == epochs["current"]["ready"]
        if self._resumed:
            self._whole = str(trainer.ckpt_path)
            self._plateaus = checkpoint.get(_PLATEAUS, {})
            for progress in epochs.values():
                progress["completed"] = progress["processed"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins with a whole epoch, and keeps the start of a run that may end within its first."""
        super().on_train_start(trainer, pl_module)
        if self._resumed:
            trainer.fit_loop.epoch_loop.restarting = False
            _step(trainer, pl_module, self._plateaus)
        limited = trainer.max_steps != -1 or _has(trainer, Timer)
        if limited and trainer.global_step == 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._keep_whole(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the checkpoint; of an epoch that was cut, with the one to go on from.

        Where an average takes the place of the weights, the last epoch's is written at the end of training alone: a run
        that is killed between the two would be complete, without its average.
        """
        averaging = next((own for own in _callbacks(trainer) if isinstance(own, StochasticWeightAveraging)), None)
        resumed, self._resumed = self._resumed, False
        if not trainer.is_last_batch:
            self._take_whole(trainer)
            super().on_train_epoch_end(trainer, pl_module)
            self._going_on = None
            return
        if averaging is not None and trainer.current_epoch >= averaging.swa_end:
            if trainer.current_epoch == averaging.swa_end:  # else one more, for the average's batch normalisation
                self._keep_whole(trainer)
            self._postponed = True
        else:
            super().on_train_epoch_end(trainer, pl_module)
            self._set_whole(self.best_model_path)
        if resumed and trainer.fit_loop.restarting:  # under max_steps, Lightning steps none in this epoch
            _step(trainer, pl_module, _plateau_values(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the checkpoint, or writes it anew, where an average has taken the place of the weights."""
        super().on_train_end(trainer, pl_module)
        if self._postponed:
            self._take_whole(trainer)
            super().on_train_epoch_end(trainer, pl_module)
        elif self.best_model_path and _has(trainer, StochasticWeightAveraging):
            self._take_whole(trainer)
            trainer.save_checkpoint(self.best_model_path, weights_only=False)
        self._going_on, self._postponed = None, False
        self._set_whole("")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Forgets the start."""
        super().on_exception(trainer, pl_module, exception)
        self._set_whole("")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the checkpoint to go on from, and the values that plateau schedulers are about to get.

        Lightning steps these after an epoch's checkpoints, and never makes up for it when it resumes.
        """
        if self._going_on is not None:
            checkpoint[_GO_ON_FROM] = self._going_on
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        if trainer.state.fn == "fit" and epoch["ready"] == epoch["processed"] > epoch["completed"]:
            values = _plateau_values(trainer, pl_module)
            checkpoint.update({_PLATEAUS: values} if values else {})

    def _keep_whole(self, trainer: Trainer) -> None:
        self._set_whole(str(Path(str(self.dirpath)) / f".whole.{os.getpid()}.part"))
        trainer.save_checkpoint(self._whole, weights_only=False)

    def _take_whole(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self._whole and Path(self._whole).is_file():
            content = read_checkpoint(self._whole)
            self._going_on = content.get(_GO_ON_FROM, content)

    def _set_whole(self, path: str) -> None:
        if self._whole.endswith(".part"):
            Path(self._whole).unlink(missing_ok=True)
        self._whole = path


def _plateau_values(trainer: Trainer, pl_module: LightningModule) -> dict[int, Tensor]:
    """The values that Lightning will step plateau schedulers with at an epoch's end, by the schedulers' numbers."""
    figures = trainer.callback_metrics
    return {
        number: figures[str(config.monitor)].clone()
        for number, config in enumerate(trainer.lr_scheduler_configs if pl_module.automatic_optimization else ())
        if config.reduce_on_plateau
        and config.interval == "epoch"
        and (trainer.current_epoch + 1) % config.frequency == 0
        and config.monitor in figures
    }


def _step(trainer: Trainer, pl_module: LightningModule, values: Mapping[int, Tensor]) -> None:
    for number, value in values.items():
        pl_module.lr_scheduler_step(trainer.lr_scheduler_configs[number].scheduler, value)


def _callbacks(trainer: Trainer) -> list[Callback]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def _has(trainer: Trainer, kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in _callbacks(trainer))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a full disk or a kill never damages the one before.

    Attributes:
        going_on: Whether checkpoints are read to train on from them; None: unknown, they are read as they are.
    """

    going_on: bool | None = None

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads a checkpoint: what training goes on from, or else the weights that it stands for."""
        content = super().load_checkpoint(*args, **kwargs)
        if self.going_on:
            return dict(content.get(_GO_ON_FROM, content))
        if self.going_on is False and _NOT_AVERAGED in content:  # a callback left from the fit would take these
            content[_NOT_AVERAGED] = content["state_dict"]
        return content

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

    A module that starts from those of another kind has ``starting_weights(checkpoint, path)``, which picks its own.
    Raises a CheckpointError if the file is no checkpoint or its weights do not fit the module.
    """
    checkpoint = read_checkpoint(path)
    choose: Any = getattr(module, "starting_weights", None)
    if choose is not None:
        checkpoint["state_dict"] = choose(checkpoint, path)
    check_weights(module, checkpoint, path)
    module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)


def check_weights(module: nn.Module, checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Raises a CheckpointError that names some of the weights whose names or shapes differ from the module's."""
    if not getattr(module, "strict_loading", True):
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
