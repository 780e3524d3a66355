"""What loggers get: a run folder's own one, a CSV file that survives being interrupted, and figures for others."""

import csv
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lightning_repshape.errors import DataError
from lightning_repshape.runs.files import plain_number, written_atomically
from lightning_repshape.runs.folders import CURVES, analysis_folder


class MetricsCSVLogger(Logger):
    """Writes ``metrics.csv``: a row a step at which something was logged, a column a key.

    Lightning's own CSV logger deletes the file of the run that is resumed. This one reads it, drops the rows of the
    epochs that will be repeated (see :meth:`truncate`) and goes on. The file is replaced atomically, before every
    checkpoint of the run (:class:`RunRecord` sees to it) and at most every few seconds within.

    Args:
        folder: The run folder.
        seconds_between_writes: The shortest time between two writes.
    """

    def __init__(self, folder: str | Path, seconds_between_writes: float = 5.0) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.path = self.folder / CURVES
        self.seconds_between_writes = seconds_between_writes
        self._rows: list[dict[str, Any]] | None = None
        self._written = 0.0
        self._changed = False

    @property
    def name(self) -> str:
        """Empty, so that what other callbacks keep lies in the run folder itself."""
        return ""

    @property
    def version(self) -> str:
        """Empty: a run has one file."""
        return ""

    @property
    def log_dir(self) -> str:
        """The run folder; other callbacks ask the trainer for it."""
        return str(self.folder)

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.folder)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows so far, those of an earlier session included."""
        if self._rows is None:
            try:
                self._rows = _read(self.path) if self.path.is_file() else []
            except Exception as error:  # csv, codecs and numbers raise errors of many kinds
                raise DataError(
                    f"cannot go on with {self.path}: {error}; it is damaged: mend it, or move it away and lose the "
                    "curves so far"
                ) from error
        return self._rows

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run folder's ``config.yaml`` holds the hyper-parameters."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds values to the row of a step."""
        rows = self.rows
        number = step if step is not None else (rows[-1]["step"] if rows else 0)
        if not rows or rows[-1]["step"] != number:
            rows.append({"step": number})
        values = {key: plain_number(value) for key, value in metrics.items()}
        if rows[-1] != {**rows[-1], **values}:
            rows[-1].update(values)
            self._changed = True

    @rank_zero_only
    def truncate(self, epoch: int) -> None:
        """Drops the rows of an epoch and later ones, because training goes on from there."""
        kept = [row for row in self.rows if float(row.get("epoch", 0)) < epoch]
        self._changed = self._changed or len(kept) < len(self.rows)
        self._rows = kept

    @rank_zero_only
    def save(self) -> None:
        """Writes the file, unless it was written a moment ago."""
        if time.monotonic() - self._written > self.seconds_between_writes:
            self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the file."""
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Writes the file now, if there is anything new."""
        if not self._changed:
            return
        columns = list(dict.fromkeys(["step", "epoch", *(key for row in self.rows for key in row)]))
        with written_atomically(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        self._written = time.monotonic()
        self._changed = False


class FigureLogger(Callback):
    """Hands the figures that a fit or a test drew to the loggers that take some: TensorBoard, W&B, MLflow.

    Each goes by its path in the run's folder ``analysis``, without its suffix, at the trainer's step.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._before: dict[Path, int] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Notes which figures are there already."""
        self._before = self._figures()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hands over those that are new."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        takers = [logger for logger in trainer.loggers if isinstance(logger, _TAKERS)]
        for path, changed in self._figures().items() if takers else ():
            if self._before.get(path) != changed:
                name = path.relative_to(analysis_folder(self.folder)).with_suffix("").as_posix()
                for logger in takers:
                    try:
                        _log_figure(logger, name, path, trainer.global_step)
                    except OSError as error:  # a figure is no reason to end a run
                        rank_zero_warn(f"{path} was not handed to {type(logger).__name__}: {error}")

    def _figures(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in sorted(analysis_folder(self.folder).rglob("*.png"))}


_TAKERS = (TensorBoardLogger, WandbLogger, MLFlowLogger)


def _log_figure(logger: Logger, name: str, path: Path, step: int) -> None:
    if isinstance(logger, TensorBoardLogger):
        from PIL import Image

        with Image.open(path) as image:
            logger.experiment.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [str(path)])
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path), str(Path("analysis", name).parent))


def _read(path: Path) -> list[dict[str, Any]]:
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            kept = {key: value for key, value in row.items() if value not in ("", None)}
            try:
                for value in kept.values():
                    float(value)
                rows.append({**kept, "step": int(float(row["step"]))})
            except (TypeError, ValueError, KeyError, OverflowError) as error:
                raise ValueError(f"line {number}: expected numbers, a step among them ({error!r})") from error
    return rows
