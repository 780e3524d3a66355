"""What every analysis shares: its options, when it runs, and what becomes of its result.

An analysis is a pure computation on :class:`AnalysisInputs`. As a callback it takes them from a trainer,
``lightning-repshape analyze`` from a run or from a file, and a plain call from tensors (:class:`FeatureInputs`) or
from any PyTorch model (:class:`ModelInputs`): the results are the same.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console

from lightning_repshape.analyses.inputs import AnalysisInputs, Split, TrainerInputs
from lightning_repshape.analyses.result import AnalysisResult, Outcome, save_outcome
from lightning_repshape.errors import ConfigError, RepshapeError
from lightning_repshape.features.last_layer import known_num_classes, layer_of_features
from lightning_repshape.features.passes import Features
from lightning_repshape.features.reader import Unpack
from lightning_repshape.features.store import feature_store
from lightning_repshape.performance import skip_idle_hooks
from lightning_repshape.runs.folders import analysis_folder
from lightning_repshape.runs.record import run_folder
from lightning_repshape.runs.summary import say_where
from lightning_repshape.terminal.progress import shown_on, trainer_bars

_LOG = logging.getLogger(__name__)
When = Literal["fit_start", "fit", "test"]


@dataclass(eq=False)
class Analysis(Callback, ABC):
    """Base of the analyses: subclasses compute, this class decides when and keeps what was found.

    What was found goes to ``<run>/analysis/NAME.json`` and ``NAME.png`` (with a PDF beside it), and its scalars are
    logged as ``test/NAME/FIGURE`` after a test and ``train/NAME/FIGURE`` in and after a fit. What was found during
    training goes to ``<run>/analysis/epoch-NNN/``. Where the data do not allow the analysis, one message says why, the
    JSON file holds it too, and training, test and all other analyses go on.

    Features come from the module's own named activations or, of any other LightningModule, from the submodule called
    ``layer``. Batches come from ``loaders``, else from the data module's ``analysis_dataloader(split)``, else from the
    trainer's own data set of that split, wrapped anew without shuffling (random transforms inside such a data set stay:
    give ``loaders`` to be rid of them). All analyses of a trainer share one pass a split. The module's mode and all
    random generators are as before afterwards. Under several processes each passes its share, all compute, and rank 0
    writes.

    Args:
        layer: The activation or submodule whose output is analysed, or ``NAME.input``: what enters a submodule. The
            features of another project's model are, by default, the input of its last linear layer.
        unpack: Positions or keys of inputs and labels in a batch.
        when: ``"test"``: at the end of a test, on the tested weights; ``"fit"``: at the end of a fit, on the last ones;
            ``"fit_start"``: before the first step of a fit, on the initial ones. One callback with it beside one
            without shows what training did.
        every_n_epochs: Besides, before the first epoch and after every so many. Default: 0, never.
        loaders: Loaders by split (``"train"``, ``"val"``, ``"test"``) instead of the trainer's.
        name: The name of files and keys. Default: the analysis's own, with ``-init`` behind it where ``when`` is
            ``"fit_start"``; two analyses of one kind need two names.
        other: A second data set, read by the same model: for the analyses that transfer to it, or tell it from the
            model's own. Its images are brought to the size, channels and normalisation of the model's.
    """

    kind: ClassVar[str] = "analysis"
    """The analysis's own name."""
    title: ClassVar[str] = "Analysis"
    """Its heading in reports."""
    on_request: ClassVar[bool] = False
    """Whether ``analyze`` runs it only where it is named, or in the run's config: it takes minutes, or needs what saved
    features lack."""

    reads_other: ClassVar[bool] = False
    """Whether it needs a second set, and so runs where one is given."""

    reads_layer: ClassVar[bool] = True
    """Whether it takes features, so that the model must have the layer."""

    layer: str = "features"
    unpack: Unpack = (0, 1)
    when: When = "test"
    every_n_epochs: int = 0
    loaders: dict[str, Any] | None = None
    name: str | None = None
    other: LightningDataModule | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Checks the options; subclasses with checks of their own call it first."""
        if self.when not in ("fit_start", "fit", "test"):
            raise ConfigError(
                f"when={self.when!r}: an analysis runs at the end of a 'fit' or of a 'test', or before a fit "
                "('fit_start')"
            )
        if self.every_n_epochs < 0:
            raise ConfigError(f"every_n_epochs is {self.every_n_epochs}; it must not be negative (0: never)")
        if len(self.unpack) != 2:
            raise ConfigError(f"unpack={self.unpack!r} must say where inputs and labels lie: two positions or keys")
        self.unpack = (self.unpack[0], self.unpack[1])
        self.name = self.name or (f"{self.kind}-init" if self.when == "fit_start" else self.kind)
        self.folder = ""  # in the run's folder "analysis", for results of another layer than usual
        self.outcome: Outcome | None = None
        self._analysed = False  # in this fit, once it had trained
        self._said = False  # where the figures are, in this fit or test

    @abstractmethod
    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Scalars, JSON content, tables and figures; changes nothing and draws from no global generator.

        Raises:
            RepshapeError, ValueError: If the data do not allow it.
        """

    def run(self, inputs: AnalysisInputs) -> Outcome:
        """Computes, and turns what the data do not allow into an outcome with a message."""
        name = self.name or self.kind
        try:
            # A test runs in inference mode, whose tensors nothing may change in place.
            with torch.inference_mode(False), torch.no_grad():
                result = self.compute(inputs)
                if inputs.notes:
                    result = replace(result, notes=(*result.notes, *inputs.notes.values()))
                return Outcome(name, self.title, result)
        except Exception as error:
            return Outcome(name, self.title, None, _message(name, error))

    # -- hooks -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Joins the shared feature pass, and refuses a name that is in use."""
        self._said = False
        feature_store(trainer)
        skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]
        others = [other for other in trainer.callbacks if isinstance(other, Analysis)]  # type: ignore[attr-defined]
        if sum(other.name == self.name for other in others) > 1:
            raise ConfigError(
                f"two analyses are called {self.name!r}: give one of them another name, as name={self.name}-2"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a layer that the model does not have, before it is trained."""
        self._read(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a layer that the model does not have."""
        self._read(trainer, pl_module)

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """The layer that is read."""
        if not self.reads_layer:
            return self.layer
        try:
            return layer_of_features(pl_module, self.layer, known_num_classes(trainer, pl_module))
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from error

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the initial weights; a resumed fit has none."""
        if self.when == "fit_start" and trainer.global_step == 0:
            self._run_at(trainer, pl_module, "train")
        if self.every_n_epochs and trainer.current_epoch == 0:
            self._run_at(trainer, pl_module, "train", epoch=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the weights of every so many epochs."""
        epoch = trainer.current_epoch + 1
        if self.every_n_epochs and epoch % self.every_n_epochs == 0:
            self._run_at(trainer, pl_module, "train", epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Analyses before the final scalars of a fit are written."""
        if self.when == "fit":
            self._run_at(trainer, pl_module, "train")
            self._analysed = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Analyses a run that was complete when it was resumed, which may have been killed before it got there."""
        if self.when == "fit" and not self._analysed:
            self._run_at(trainer, pl_module, "train")
        self._analysed = False

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Analyses before the table of a test is printed."""
        if self.when == "test":
            self._run_at(trainer, pl_module, "test")

    def _run_at(self, trainer: Trainer, pl_module: LightningModule, stage: str, epoch: int | None = None) -> None:
        if trainer.fast_dev_run or trainer.sanity_checking:  # type: ignore[attr-defined]
            return
        folder = analysis_folder(run_folder(trainer)) / self.folder
        layer = self._read(trainer, pl_module)
        with _shown(trainer), isolate_rng():
            inputs = TrainerInputs(trainer, pl_module, layer, self.unpack, self.loaders, self.other)
            if stage == "train":
                epochs = trainer.current_epoch if epoch is None else epoch
                initial = trainer.global_step == 0
                inputs.moment = ", at initialisation" if initial else f", after epoch {epochs}"
            outcome = self.run(inputs)
        if trainer.is_global_zero:
            outcome = _saved(outcome, folder if epoch is None else folder / f"epoch-{epoch:03d}", layer)
            if outcome.failure:
                say(f"{self.name}: {outcome.failure}")
            elif outcome.figures and not self._said:
                self._said = True
                say_where(trainer, f"figures of {self.name}", outcome.figures[0].parent)
        self.outcome = outcome
        if outcome.result is None:
            return
        scalars = {f"{stage}/{self.name}/{key}": value for key, value in outcome.result.scalars.items()}
        if stage == "test":
            pl_module.log_dict(scalars, rank_zero_only=False, sync_dist=False)
            return
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in scalars.items()})
        for logger in trainer.loggers:
            # By its epoch, a resumed run knows the rows that come anew.
            logger.log_metrics({**scalars, "epoch": float(trainer.current_epoch)}, step=trainer.global_step)


def _message(name: str, error: Exception) -> str:
    """One line; what this package has not raised itself is named by its kind, and the traceback is kept."""
    _LOG.debug("%s", name, exc_info=error)
    text = " ".join(str(error).split())
    return text if isinstance(error, RepshapeError | ValueError) else f"{type(error).__name__}: {text}".rstrip(": ")


def _saved(outcome: Outcome, folder: Path, layer: str) -> Outcome:
    """The outcome with its files; a figure that cannot be drawn, or a full disk, is a failure like any other."""
    try:
        return save_outcome(outcome, folder, layer)
    except Exception as error:
        failed = replace(outcome, result=None, failure=_message(outcome.name, error))
        with suppress(OSError):
            save_outcome(failed, folder, layer)
        return failed


@dataclass(eq=False)
class SplitAnalysis(Analysis):
    """Base of the analyses that look at one split.

    Args:
        split: Whose samples are looked at. Where there is no such set, it is the training set.
    """

    split: Split = "test"

    def shown(self, inputs: AnalysisInputs, labels: bool = True) -> tuple[Split, Features, list[str]]:
        """Which split is looked at, its features, and notes: where it is another one than :attr:`split`, or unlabelled.

        Samples without a label are among them only where ``labels`` are of no importance. Raises DataError if there is
        neither that split nor a training set, labels do not fit the classes or, where they count, there are none.
        """
        split, notes = self.split, []
        if split != "train" and inputs.optional(split) is None:
            inputs.features("train")
            split, notes = "train", [f"there is no {split} set: the training set is shown"]
        part = inputs.features(split)
        if not labels and int(part.labels.max()) < 0:
            return split, part, [*notes, f"the {split} set has no labels"]
        if not labels and int(part.labels.min()) < 0:
            inputs.labelled(split, classes=1)
            return split, part, notes
        return split, inputs.labelled(split, classes=1), notes


def run_analyses(
    analyses: Sequence[Analysis],
    inputs: AnalysisInputs,
    folder: str | Path | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """An outcome of each analysis, one after the other; one that fails does not keep the others from running.

    Args:
        analyses: What to run.
        inputs: What to run it on; the layer and unpack of the analyses themselves do not count here.
        folder: Where JSON and figures go, each after its analysis. Default: nowhere.
        report: Told the title of each analysis before it starts.
    """
    outcomes = []
    for analysis in analyses:
        if report is not None:
            report(analysis.title)
        outcome = analysis.run(inputs)
        outcomes.append(outcome if folder is None else _saved(outcome, Path(folder), inputs.layer))
    return outcomes


def say(text: str) -> None:
    """Prints a line on standard error."""
    Console(stderr=True).print(f"analysis {text}", soft_wrap=True, highlight=False, markup=False)


def _shown(trainer: Trainer) -> AbstractContextManager[None]:
    """Shows long work in the trainer's own rich progress bar, where it has one."""
    bars = trainer_bars(trainer.progress_bar_callback)
    return nullcontext() if bars is None else shown_on(lambda: bars)
