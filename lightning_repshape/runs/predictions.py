"""The tables that ``predict`` writes."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lightning_repshape.errors import ConfigError
from lightning_repshape.runs.files import csv_text, written_atomically
from lightning_repshape.runs.folders import PREDICTIONS
from lightning_repshape.runs.record import run_folder


def top_header(top: int) -> tuple[str, ...]:
    """Names of the cells of :func:`top_cells`; ConfigError if ``top`` is below 1."""
    if top < 1:
        raise ConfigError(f"top is {top}, but a row holds one class at least")
    further = [(f"predicted_class_{number}", f"probability_{number}") for number in range(2, top + 1)]
    return ("predicted_class", "probability", *(name for pair in further for name in pair))


def top_cells(names: Sequence[str], probabilities: Sequence[float], top: int) -> tuple[str, ...]:
    """The most probable classes and their probabilities; empty cells where there are fewer than ``top`` classes."""
    cells = [cell for name, value in zip(names, probabilities, strict=True) for cell in (name, f"{value:.6f}")]
    return (*cells, *[""] * (2 * top - len(cells)))


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a CSV file whole or not at all; nothing in it is taken for a formula."""
    with written_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([csv_text(cell) for cell in row] for row in rows)


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.csv``: image, predicted class, its probability, and the true class where it is known.

    Under several processes rank 0 writes all rows, in the order of the set.

    Args:
        filename: The file's name in the run folder.
        top: How many of the most probable classes a row holds.

    Attributes:
        header: Names of the cells between the image and its class.
    """

    header: tuple[str, ...]

    def __init__(self, filename: str = PREDICTIONS, top: int = 1) -> None:
        super().__init__(write_interval="batch")
        self.filename = filename
        self.top = top
        if not hasattr(type(self), "header"):
            self.header = top_header(top)
        self._rows: list[tuple[Any, ...]] = []
        self.path = ""

    def columns(self, prediction: Any, pl_module: LightningModule) -> tuple[list[Any], ...]:
        """What a row holds between the image's number and its class; subclasses write other tables.

        Args:
            prediction: What ``predict_step`` returned.
            pl_module: The module.

        Returns:
            Columns of N values.

        Raises:
            ConfigError: If the prediction lacks what the table is made of.
        """
        if not isinstance(prediction, Mapping) or not {"probability", "target"} <= set(prediction):
            raise ConfigError(
                f"{type(pl_module).__name__}.predict_step returns {type(prediction).__name__}, but {self.filename} "
                "needs a dictionary with 'probability' (N x K), 'target' (N, -1: unknown) and, if known, 'index' (N)"
            )
        ranked = prediction["probability"].sort(dim=1, descending=True, stable=True)
        return ranked.indices[:, : self.top].tolist(), ranked.values[:, : self.top].tolist()

    def cells(self, values: Sequence[Any], class_name: Callable[[int], str]) -> tuple[str, ...]:
        """A row's cells, as many as ``header`` names, from one value of each of :meth:`columns`."""
        labels, probabilities = values
        return top_cells([class_name(label) for label in labels], probabilities, self.top)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts an empty table."""
        self._rows = []

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Adds a batch's rows."""
        columns = self.columns(prediction, pl_module)
        first = len(self._rows)
        if "index" in prediction:
            index = prediction["index"].tolist()
        else:
            index = list(batch_indices or range(first, first + len(columns[0])))
        self._rows.extend(zip(index, *columns, prediction["target"].tolist(), strict=True))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collects the rows of all ranks and writes the file."""
        rows = self._rows
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        data = getattr(trainer, "datamodule", None)
        names: Sequence[str] = getattr(data, "class_names", ())
        sample_name = getattr(data, "sample_name", None)

        def class_name(label: int) -> str:
            return "" if label < 0 else names[label] if label < len(names) else str(label)

        path = folder / self.filename
        table = []
        for index, *values, target in sorted(rows):
            image = sample_name("predict", index) if callable(sample_name) else str(index)
            table.append([image, *self.cells(values, class_name), class_name(target)])
        write_table(path, ("image", *self.header, "true_class"), table)
        self.path = str(path)
