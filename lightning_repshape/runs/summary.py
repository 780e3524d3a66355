"""What a person reads at the end of a run."""

import math
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from lightning_repshape.runs.folders import analysis_folder
from lightning_repshape.runs.predictions import PredictionWriter
from lightning_repshape.runs.record import figures_of, run_folder

_NAMES = {"classwise_variance": "class-wise variance"}


class ResultTable(Callback):
    """Prints a table of the stage's figures, the run folder and the figures drawn in it.

    Figures that a module names in its attribute ``fractions``, and errors and accuracies of analyses, are shown in
    percent; all others as they were logged.

    Args:
        console: Where to print. Default: standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the figures of ``validate``."""
        if trainer.state.fn == "validate":
            self.print_table(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the test's figures."""
        self.print_table(trainer, pl_module, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Names the file of predictions."""
        if not trainer.is_global_zero:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PredictionWriter) and callback.path:
                self._console().print(f"predictions: {callback.path}", soft_wrap=True, markup=False)

    def print_table(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prints the figures of one stage, whose keys begin with ``"val"`` or ``"test"``."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        module_of_data = getattr(trainer, "datamodule", None)
        data = type(module_of_data).__name__ if module_of_data is not None else "given loader"
        samples = sum(len(loader.dataset) for loader in _loaders(trainer, stage) if hasattr(loader.dataset, "__len__"))
        method = f"{type(pl_module).__name__}, {type(getattr(pl_module, 'backbone', pl_module)).__name__}"
        table = Table(title=f"{stage} | {method} | {data} | {samples} samples", title_justify="left")
        table.add_column("figure")
        table.add_column("value", justify="right")
        layer = getattr(pl_module, "statistics_layer", "")
        for key, number in figures_of(trainer).items():
            name = key.removeprefix(f"{stage}/")
            owner, _, last = name.rpartition("/")
            by_analysis = _analysis_of(trainer, name)
            if by_analysis and by_analysis != owner:
                continue  # what lies deeper stands in the analysis's own table
            label = _NAMES.get(name, name.replace("_", " "))
            if name == "classwise_variance":
                label = f"{label} of {layer}"
            # an analysis's errors and accuracies are fractions, as AnalysisResult says
            words = {"error", "accuracy"} & set(last.split("_")) if by_analysis else ()
            percent = bool(words) or last in getattr(pl_module, "fractions", ())
            table.add_row(label, f"{100 * number:.2f} %" if percent else _short(number))
        console = self._console()
        console.print(table)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # it leaves nothing behind
        if folder.is_dir():
            console.print(f"run folder: {folder}", soft_wrap=True, markup=False)
        for drawn in sorted(analysis_folder(folder).glob("*.png")):
            console.print(f"    figure: {drawn}", soft_wrap=True, markup=False)

    def _console(self) -> Console:
        return self.console or Console()


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
