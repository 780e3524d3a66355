"""What a person reads at the end of a run."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichModelSummary, RichProgressBar
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count
from rich.console import Console

from lightning_repshape.runs.folders import analysis_folder
from lightning_repshape.runs.predictions import PredictionWriter
from lightning_repshape.runs.record import figures_of, run_folder
from lightning_repshape.terminal.printing import figure_table, is_share

Headline = Callable[[Mapping[str, float], int], list[tuple[str, str]]]
_NAMES = {"classwise_variance": "class-wise variance"}
_DRAWN = 4  # figures that are named


class EpochBar(RichProgressBar):
    """Lightning's progress bar, which counts epochs from 1 and looks at a training step as often as it is drawn."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)
        self._next = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar, ten times a second and at the end of an epoch."""
        now = time.monotonic()
        if now >= self._next or batch_idx + 1 >= self.total_train_batches:
            self._next = now + 1 / self.refresh_rate
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _get_train_description(self, current_epoch: int) -> str:
        most = self.trainer.max_epochs
        text = f"Epoch {current_epoch + 1}" + (f"/{most}" if most is not None and most > 0 else "")
        return text.ljust(len(self.validation_description))


class ModelTable(RichModelSummary):
    """The model's parts that have parameters, at the start of training."""

    def __init__(self) -> None:
        super().__init__(max_depth=1)

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Prints names, classes and numbers of parameters."""
        columns = dict(summary_data)
        parts = zip(columns["Name"], columns["Type"], columns["Params"], strict=True)
        rows = [(f"{name}: {kind}", count.strip()) for name, kind, count in parts if count.strip() != "0"]
        frozen = total_parameters - trainable_parameters
        console = Console()
        console.print("model")
        console.print(figure_table([*rows, ("all", get_human_readable_count(total_parameters).strip())]))
        if frozen:
            console.print(f"  not trained: {get_human_readable_count(frozen).strip()}", highlight=False)


class ResultTable(Callback):
    """Prints a stage's figures, the run folder and where figures were drawn, once the progress bar is gone.

    Figures that a module names in its attribute ``fractions``, and shares of analyses, such as errors, are shown in
    percent; all others as they were logged.

    Args:
        console: Where to print. Default: standard output.
        headline: The few of the analyses' figures that matter, as label and text, from all of them by name and the
            number of classes. Default: all of them are shown.
    """

    def __init__(self, console: Console | None = None, headline: Headline | None = None) -> None:
        self.console = console
        self.headline = headline
        self._waiting: list[Any] = []  # what is printed at the end of the stage

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the figures of ``validate``."""
        if trainer.state.fn == "validate":
            self._waiting = self._of_stage(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the test's figures."""
        self._waiting = self._of_stage(trainer, pl_module, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Names the file of predictions."""
        written = [callback for callback in trainer.callbacks if isinstance(callback, PredictionWriter)]  # type: ignore[attr-defined]
        self._waiting = [f"predictions: {callback.path}" for callback in written if callback.path]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prints, now that no progress bar is in the way."""
        waiting, self._waiting = self._waiting, []
        if trainer.is_global_zero:
            for part in waiting:
                (self.console or Console()).print(part, soft_wrap=isinstance(part, str), markup=False, highlight=False)

    def print_table(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prints the figures of one stage, whose keys begin with ``"val"`` or ``"test"``."""
        self._waiting = self._of_stage(trainer, pl_module, stage)
        self.teardown(trainer, pl_module, stage)

    def _of_stage(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> list[Any]:
        folder = run_folder(trainer)
        module_of_data = getattr(trainer, "datamodule", None)
        data = type(module_of_data).__name__ if module_of_data is not None else "given loader"
        samples = sum(len(loader.dataset) for loader in _loaders(trainer, stage) if hasattr(loader.dataset, "__len__"))
        network = type(getattr(pl_module, "backbone", pl_module)).__name__
        method = type(pl_module).__name__ + (f" of {network}" if hasattr(pl_module, "backbone") else "")
        parts: list[Any] = [f"{stage}: {method} on {data}, {samples:,} samples"]
        rows, of_analyses, chosen = [], {}, []
        layer = getattr(pl_module, "statistics_layer", "")
        for key, value in figures_of(trainer).items():
            name = key.removeprefix(f"{stage}/")
            owner, _, last = name.rpartition("/")
            by_analysis = _analysis_of(trainer, name)
            if by_analysis:
                of_analyses[name] = value
                if by_analysis != owner or self.headline is not None:
                    continue  # what lies deeper stands in the analysis's own table
            label = _NAMES.get(name, name.replace("_", " "))
            if name == "classwise_variance":
                label = f"{label} of {layer}"
            share = is_share(name) if by_analysis else last in getattr(pl_module, "fractions", ())
            rows.append((label, f"{100 * value:.2f} %" if share else _short(value)))
        if self.headline is not None and of_analyses:
            chosen = self.headline(of_analyses, getattr(module_of_data, "num_classes", 0) or 0)
            rows += chosen
        if rows:
            parts.append(figure_table(rows))
        if self.headline is not None and len(of_analyses) > len(chosen):
            parts.append(f"  all {len(of_analyses)} figures of the analyses: {analysis_folder(folder)}")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            parts += callback.printed() if hasattr(callback, "printed") else ()
        return [*parts, *([] if trainer.fast_dev_run else places_of(folder))]  # type: ignore[attr-defined]


def places_of(folder: Path) -> list[str]:
    """Lines on where a run lies and on the figures in it."""
    lines = [f"run folder: {folder}"] if folder.is_dir() else []
    drawn = sorted(path.stem for path in analysis_folder(folder).glob("*.png"))
    if drawn:
        shown = ", ".join(drawn) if len(drawn) <= _DRAWN else f"{len(drawn)} as PNG and PDF"
        lines.append(f"figures: {analysis_folder(folder)}: {shown}")
    return lines


def say_where(trainer: Trainer, what: str, path: Path) -> None:
    """Says on standard error where a callback has written, unless a :class:`ResultTable` lists the files."""
    if not any(isinstance(callback, ResultTable) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        Console(stderr=True).print(f"{what}: {path}", soft_wrap=True, highlight=False, markup=False)


def _analysis_of(trainer: Trainer, name: str) -> str:
    """The analysis whose figure this is, or nothing."""
    outcomes = [getattr(callback, "outcome", None) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    names = [getattr(outcome, "name", "") for outcome in outcomes if outcome is not None]
    return next((known for known in names if known and name.startswith(f"{known}/")), "")


def _short(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _loaders(trainer: Trainer, stage: str) -> list:  # type: ignore[type-arg]
    loaders = trainer.test_dataloaders if stage == "test" else trainer.val_dataloaders
    if loaders is None:
        return []
    return list(loaders) if isinstance(loaders, list | tuple) else [loaders]
