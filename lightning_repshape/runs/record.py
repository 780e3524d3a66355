"""What a run leaves behind besides checkpoints: config, manifest and final scalars."""

import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from lightning_repshape._version import __version__
from lightning_repshape.performance import skip_idle_hooks
from lightning_repshape.runs.curves import MetricsCSVLogger
from lightning_repshape.runs.files import (
    plain_number,
    read_json,
    remove_leftovers,
    write_json,
    written_atomically,
)
from lightning_repshape.runs.folders import (
    CLAIM,
    CONFIG,
    MANIFEST,
    METRICS,
    checkpoint_file,
    make_folder,
)
from lightning_repshape.seeding import global_seed

_PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "jsonargparse", "numpy", "scikit-learn", "scipy")


def run_folder(trainer: Trainer) -> Path:
    """The run's folder: of the :class:`RunRecord` callback, else of the first logger, else ``default_root_dir``.

    To be called on all ranks, since the trainer may have to tell the others rank 0's folder.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunRecord):
            return callback.folder
    return Path(trainer.log_dir or trainer.default_root_dir)


class SaveRunConfig(SaveConfigCallback):
    """Writes the run's ``config.yaml``, which every subcommand accepts, without what belongs to one call alone."""

    per_call = ("ckpt_path", "run_dir", "init_from", "trust", "weights_only", "verbose", "return_predictions")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the file once, at the start of the first fit."""
        if stage != "fit" or self.already_saved:
            return
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            config = self.config.clone()
            for key in self.per_call:
                config.pop(key, None)
            make_folder(folder)
            text = self.parser.dump(config, skip_unset=False, skip_validation=True)
            with written_atomically(folder / CONFIG) as temporary:
                temporary.write_text(text, encoding="utf-8")
        self.already_saved = True


class RunRecord(Callback):
    """Writes ``manifest.json`` (how the run came about) and ``metrics.json`` (its final scalars).

    The manifest holds versions, commit (of the working directory, where it is a git checkout), machine, seed, data
    checksums, and for each session (a fit, a resumed fit, a test) its command, wall time, steps per second, peak memory
    and how it ended.

    Args:
        folder: The run folder.
        command: The command line that started the run.
        row: Which row of which study the run trains; noted as the manifest's ``study``. Default: none.
        job: The scheduler's job, by which a command that is called again in it finds its run. Default: none.
    """

    def __init__(
        self, folder: str | Path, command: str = "", row: Mapping[str, Any] | None = None, job: str | None = None
    ) -> None:
        self.folder = Path(folder)
        self.command = command
        self.row = dict(row or {})
        self.job = job
        self.stacked = 1  #: how many trainings make their steps together, in one process
        self._session: dict[str, Any] | None = None
        self._figures: dict[str, float] = {}  # of the training so far, earlier sessions' included
        self._knows_figures = False
        self._started = 0.0
        self._validated = 0.0  # seconds of validation within training
        self._validation_began = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Agrees on the folder across ranks and opens a session in the manifest."""
        skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]
        self.folder = Path(trainer.strategy.broadcast(str(self.folder)))
        self._started = time.perf_counter()
        self._session = {
            "stage": stage,
            "command": self.command,
            "started": _now(),
            "status": "running",
            "devices": trainer.world_size,
            "precision": str(trainer.precision),
            **({"job": self.job} if self.job else {}),
            **({"stacked": self.stacked} if self.stacked > 1 else {}),
        }
        if not trainer.is_global_zero:
            return
        make_folder(self.folder)
        self._tidy()
        manifest = read_json(self.folder / MANIFEST)
        manifest.setdefault("format", 1)
        manifest.setdefault("created", self._session["started"])
        if self.row:
            manifest["study"] = self.row
        facts = {
            "project": {"lightning-repshape": __version__, **_commit()},
            "versions": {"python": platform.python_version(), **_versions()},
            "machine": {
                "system": platform.platform(),
                "processor": platform.machine(),
                "threads": torch.get_num_threads(),
                "cpu": _cpu_name(),
                "accelerator": _accelerator_name(trainer),
            },
            "seed": global_seed(),
            "directory": os.getcwd(),  # where relative paths of the config begin
        }
        # The top level tells of the training; a later test or validation has its own facts in its session.
        for name, fact in facts.items():
            if stage == "fit" or name not in manifest:
                manifest[name] = fact
            elif manifest[name] != fact:
                self._session[name] = fact
        checksums = getattr(getattr(trainer, "datamodule", None), "checksums", None)
        if callable(checksums):
            manifest["data"] = {**manifest.get("data", {}), **checksums()}
        self._save(manifest)

    def _tidy(self) -> None:
        """Removes the claim on the folder and what a killed process left half-written."""
        (self.folder / CLAIM).unlink(missing_ok=True)
        remove_leftovers(self.folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the first step, and drops logged rows that a resumed run repeats."""
        if self._session is not None:
            self._session["first_step"] = trainer.global_step
            self._session["first_epoch"] = trainer.current_epoch
        if trainer.is_global_zero and (self.folder / METRICS).is_file():
            # Figures of the weights so far are no figures of those to come.
            if not self._knows_figures:  # the checkpoint is of a version that kept them in the file alone
                sessions = read_json(self.folder / MANIFEST).get("sessions", [])
                tested = {
                    key for session in sessions if session.get("stage") == "test" for key in session.get("figures", ())
                }
                self._figures = {
                    key: value
                    for key, value in read_json(self.folder / METRICS).items()
                    if key not in ("epoch", "step", *tested) and not key.startswith("test/")
                }
            write_json(self.folder / METRICS, self._figures)
        for logger in _curves(trainer):
            logger.truncate(trainer.current_epoch)
        self._started, self._validated = time.perf_counter(), 0.0
        if trainer.is_global_zero:
            self._save(read_json(self.folder / MANIFEST))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes speed; the curves are on disk before the last checkpoint."""
        _flush(trainer)
        if self._session is not None and "first_step" in self._session:
            steps = trainer.global_step - self._session["first_step"]
            seconds = time.perf_counter() - self._started - self._validated
            self._session.update(steps=steps, epochs=trainer.current_epoch - self._session["first_epoch"])
            if self.stacked == 1:  # else the time is that of all
                self._session["steps_per_second"] = round(steps / seconds, 3) if seconds > 0 else 0.0

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the training's final scalars, also of one that was complete when it was resumed."""
        self._figures = self._figures_of(trainer)
        self._write_metrics(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts the figures so far into the checkpoint, and the curves on disk before it.

        A run that is killed at any time then goes on from a checkpoint whose rows and figures are all there.
        """
        checkpoint["callbacks"][self.state_key] = {"figures": self._figures_of(trainer)}
        loops = checkpoint["loops"]["fit_loop"]
        epoch = loops["epoch_progress"]["current"]
        if trainer.state.fn != "fit" or not epoch["ready"] == epoch["processed"] > epoch["completed"]:
            return  # within an epoch, which a resumed run repeats
        row = {**_pending(trainer), "epoch": trainer.current_epoch}
        step = loops["epoch_loop.state_dict"]["_batches_that_stepped"] - 1
        for logger in _curves(trainer):
            logger.log_metrics(row, step)
        _flush(trainer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the figures that the checkpoint's run had reached."""
        self._figures, self._knows_figures = dict(state_dict["figures"]), True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock of training."""
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the scalars of ``validate``."""
        self._validated += time.perf_counter() - self._validation_began
        if trainer.state.fn == "validate":
            self._write_metrics(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the test's scalars."""
        self._write_metrics(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the session, once the curves are on disk: whoever reads that it is finished finds them there."""
        _flush(trainer)
        self._close(trainer, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the session with what went wrong."""
        # A SIGTERM arrives as a subclass of SystemExit.
        name = "interrupted" if isinstance(exception, KeyboardInterrupt | SystemExit) else "failed"
        if self._session is not None:
            self._session["error"] = f"{type(exception).__name__}: {exception}"[:500]
        self._close(trainer, name)

    def _close(self, trainer: Trainer, status: str) -> None:
        if self._session is None:
            return
        self._session.update(
            status=status, ended=_now(), wall_seconds=round(time.perf_counter() - self._started, 3), **_peak_memory()
        )
        if torch.cuda.is_available():
            self._session["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        if trainer.is_global_zero and self.folder.is_dir():
            self._save(read_json(self.folder / MANIFEST))
        self._session = None

    def _save(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest with the open session as its last."""
        sessions = [
            session
            for session in manifest.get("sessions", [])
            if self._session is None or session.get("started") != self._session["started"]
        ]
        # A session that was killed could not say so itself.
        for session in sessions:
            if session.get("status") == "running":
                session["status"] = "killed"
        manifest["sessions"] = [*sessions, *([self._session] if self._session is not None else [])]
        write_json(self.folder / MANIFEST, manifest)

    def _figures_of(self, trainer: Trainer) -> dict[str, float]:
        """The training's latest figures, those that earlier sessions logged last among them."""
        return {**self._figures, **_plain_figures(trainer)}

    def _write_metrics(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        found = self._figures if trainer.state.fn == "fit" else _plain_figures(trainer)
        if trainer.state.fn != "fit" and self._session is not None:
            source = trainer.ckpt_path
            self._session.update(checkpoint=str(source) if source else None, figures=found)
            best = checkpoint_file("best", self.folder)
            if best.is_file() and (source is None or Path(source).resolve() != best.resolve()):
                return  # figures of other weights than the run's best stay with their session
        metrics = {**read_json(self.folder / METRICS), **found}
        if trainer.state.fn == "fit":
            metrics.update(epoch=trainer.current_epoch, step=trainer.global_step)
        write_json(self.folder / METRICS, metrics)


def figures_of(trainer: Trainer) -> dict[str, float]:
    """All scalars that were logged, whatever their names; those for the progress bar alone are none of their own."""
    found = trainer.callback_metrics
    of_bars = {key.replace("/", "_", 1) for key in found if "/" in key}
    return {key: float(value) for key, value in found.items() if key not in of_bars}


def _plain_figures(trainer: Trainer) -> dict[str, float]:
    return {key: plain_number(value) for key, value in figures_of(trainer).items()}


def _curves(trainer: Trainer) -> list[MetricsCSVLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsCSVLogger)]


def _flush(trainer: Trainer) -> None:
    for logger in _curves(trainer):
        logger.flush()


def _pending(trainer: Trainer) -> dict[str, Any]:
    """What Lightning will log of the epoch as soon as its checkpoints are written."""
    logged = trainer.logged_metrics  # the trainer's own dictionary, to which it adds the epoch's when it is asked
    before = dict(logged)
    logged.clear()
    pending = dict(trainer.logged_metrics)
    logged.update({**before, **pending})
    return pending


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _peak_memory() -> dict[str, float]:
    """The process's largest size so far; nothing where the system does not tell, as Windows."""
    try:
        import resource
    except ImportError:
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak_memory_mb": round(peak / 2**20, 1)}


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _commit() -> dict[str, Any]:
    """The commit of the working directory and whether it has uncommitted changes; empty outside a git checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": head.stdout.strip(), "uncommitted_changes": bool(status.stdout.strip())}


def _cpu_name() -> str:
    """The processor's name; what kind it is where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _accelerator_name(trainer: Trainer) -> str:
    kind = trainer.strategy.root_device.type
    return torch.cuda.get_device_name() if kind == "cuda" else kind
