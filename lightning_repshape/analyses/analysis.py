"""What every analysis shares: where features come from, when it runs, and what becomes of its result.

An analysis is a pure computation on :class:`AnalysisInputs`. As a callback it takes them from a trainer,
``lightning-repshape analyze`` from a run or from a file, and a plain call from tensors (:class:`FeatureInputs`) or
from any PyTorch model (:class:`ModelInputs`): the results are the same.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console
from torch import Tensor, nn

from lightning_repshape import plots
from lightning_repshape.callbacks.skips_steps import SkipsSteps
from lightning_repshape.errors import ConfigError, DataError, RepshapeError
from lightning_repshape.features.passes import Features, Unpack, extract_features
from lightning_repshape.features.store import FeatureStore, analysis_loader, feature_store
from lightning_repshape.functional.class_vectors import cosine_logits
from lightning_repshape.heads import Head
from lightning_repshape.runs.files import plain_number, read_json, write_json, written_atomically
from lightning_repshape.runs.folders import analysis_folder
from lightning_repshape.runs.record import run_folder
from lightning_repshape.seeding import global_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Split = Literal["train", "val", "test"]
When = Literal["fit_start", "fit", "test"]
Progress = Callable[[str, int, int | None], None]
"""Called with what is going on, how many samples more are done, and how many there are in all (None: unknown)."""

_ROWS = 4096  # rows that are looked through at a time


class MissingSplitError(DataError):
    """There is no such set of samples to take features from."""


class ClassVectors(NamedTuple):
    """The last linear layer.

    Attributes:
        weight: K x D, a class vector a row.
        bias: K, or None.
        name: The layer's name in its model.
        takes_features: Whether the analysed features are what the layer receives.
        cosine: Whether the logits go by cosines with the class vectors, whose lengths then play no part.
    """

    weight: Tensor
    bias: Tensor | None
    name: str
    takes_features: bool
    cosine: bool = False


@dataclass(frozen=True)
class AnalysisResult:
    """What an analysis found.

    Attributes:
        scalars: The figures that are logged, by name; fractions, not percent.
        content: More for the JSON file: settings, lists and dictionaries of numbers and strings.
        tables: Tables for the report, each a list of rows, by heading.
        figures: Functions that draw, by the end of the file's name (empty for the main figure).
        notes: Sentences on what was special: an infinite eigenvalue, a class without samples, a missing split.
        arrays: What the figures show, as NumPy arrays, for ``NAME.npz``. Default: nothing, and no such file.
    """

    scalars: dict[str, float]
    content: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    figures: "dict[str, Callable[[], Figure]]" = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    arrays: "dict[str, plots.Array]" = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One analysis of a series: its result or why there is none.

    Attributes:
        name: The analysis's name.
        title: Its heading.
        result: What it found; None if it failed.
        failure: The message; empty if it did not fail.
        figures: The PNG files that were written.
    """

    name: str
    title: str
    result: AnalysisResult | None
    failure: str = ""
    figures: tuple[Path, ...] = ()


class AnalysisInputs(ABC):
    """What an analysis takes: features of a split when it asks for them, and what is known besides.

    Args:
        num_classes: K. Default: the width of the logits, else one more than the largest label.
        class_names: Names of the classes. Default: their numbers.
        seed: Of an analysis's draws.
        layer: The layer whose output the features are, for headings and messages.
        device: Where computations take place. Default: the CPU.

    Attributes:
        moment: For headings, when in a training this is: such as ``", at initialisation"``. Default: nothing.
        notes: What was special about the sets that were looked at, by split; such as outputs that are no logits.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        class_names: Sequence[str] = (),
        seed: int = 0,
        layer: str = "features",
        device: torch.device | str = "cpu",
    ) -> None:
        self._num_classes = num_classes
        self._class_names = tuple(class_names)
        self.seed = seed
        self.layer = layer
        self.device = torch.device(device)
        self.moment = ""
        self.notes: dict[str, str] = {}
        self._checked: dict[str, Features] = {}
        self._failed: dict[str, RepshapeError] = {}

    @property
    def module(self) -> nn.Module | None:
        """The model, where there is one."""
        return None

    @abstractmethod
    def load(self, split: str) -> Features:
        """Takes the features of a split; :meth:`features` asks once and looks at them.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            Features, labels and logits.

        Raises:
            MissingSplitError: If there is no such split.
        """

    def at(self, layer: str) -> "AnalysisInputs":
        """The same samples at another layer.

        Args:
            layer: Its name.

        Returns:
            Inputs of that layer.

        Raises:
            DataError: If only features are known, and no model.
        """
        raise DataError(f"layer {layer!r} needs the model, and there are only saved features of {self.layer!r}")

    def features(self, split: str) -> Features:
        """The features of a split, checked.

        Outputs that cannot be logits of K classes are left out, and :attr:`notes` say so. A single output z of two
        classes counts as the logits -z/2 and z/2, whose softmax is the sigmoid of z.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            Features N x D, labels N and, where known, logits N x K.

        Raises:
            MissingSplitError: If there is no such split.
            DataError: If features are not finite, or labels negative.
        """
        if split in self._failed:
            raise self._failed[split]
        if split not in self._checked:
            try:
                part = _checked(self.load(split), split, self.layer)
                logits, note = _usable_logits(part, self._num_classes)
                if note:
                    self.notes[split] = f"the {split} set's predictions are left out: {note}"
                self._checked[split] = part._replace(logits=logits)
            except RepshapeError as error:
                self._failed[split] = error
                raise
        return self._checked[split]

    def optional(self, split: str) -> Features | None:
        """The features of a split, or None where there is no such split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            The features or None.

        Raises:
            DataError: If there is such a split, but it cannot be analysed.
        """
        try:
            return self.features(split)
        except MissingSplitError:
            return None

    def num_classes(self) -> int:
        """K.

        Returns:
            The number given; else the width of the logits; else one more than the largest label of the splits.
        """
        if self._num_classes is None:
            found = [part for part in (self.optional("train"), self.optional("test")) if part is not None]
            widths = [part.logits.shape[1] for part in found if part.logits is not None]
            labels = [int(part.labels.max()) + 1 for part in found]
            self._num_classes = max([*widths, *labels], default=0)
        return self._num_classes

    def class_names(self) -> tuple[str, ...]:
        """K names; numbers where none are known."""
        return tuple(
            str(self._class_names[k]) if k < len(self._class_names) else str(k) for k in range(self.num_classes())
        )

    def labelled(self, split: str, classes: int = 2) -> Features:
        """The features of a split for an analysis that compares classes.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            classes: How many classes must have samples. Default: 2.

        Returns:
            The features.

        Raises:
            DataError: If there are fewer classes, or labels beyond the number of classes.
        """
        part = self.features(split)
        present = torch.unique(part.labels)
        if int(present[-1]) >= self.num_classes():
            raise DataError(
                f"the {split} set has label {int(present[-1])}, but there are only {self.num_classes()} classes "
                "(labels count from 0)"
            )
        if len(present) < classes:
            raise DataError(
                f"at least {classes} classes with samples are needed, but all {len(part.labels)} {split} samples are "
                f"of class {self.class_names()[int(present[0])]!r}"
            )
        return part

    def class_vectors(self) -> ClassVectors | None:
        """The last linear layer with K outputs, or None where there is no model or no such layer."""
        if self.module is None:
            return None
        # A few rows are enough; the test set is the smallest part, and mostly at hand.
        parts = (self.optional(split) for split in ("test", "val", "train"))
        sample = next((part for part in parts if part is not None), None)
        return find_class_vectors(self.module, self.num_classes(), sample)


class FeatureInputs(AnalysisInputs):
    """Features that are at hand, of no model.

    Args:
        features: Features by split.
        num_classes: K. Default: from logits or labels.
        class_names: Names of the classes. Default: their numbers.
        seed: Of an analysis's draws. Default: 0.
        weight: The last layer's weight, K x D, floating-point. Default: unknown.
        bias: Its bias, K. Default: none.
        layer: For headings.
        device: Where computations take place. Default: the CPU.

    Example:
        >>> import torch
        >>> from lightning_repshape.callbacks import LDAEigenvalues
        >>> from lightning_repshape.features.passes import Features
        >>> x = torch.tensor([[0.0, 1.0], [0.1, 1.0], [1.0, 0.1], [1.0, 0.0], [1.0, 0.2]])
        >>> train = Features(x, torch.tensor([0, 0, 1, 1, 1]), None)
        >>> found = LDAEigenvalues().compute(FeatureInputs({"train": train}))
        >>> round(found.scalars["eigenvalue"])
        223
    """

    def __init__(
        self,
        features: Mapping[str, Features],
        num_classes: int | None = None,
        class_names: Sequence[str] = (),
        seed: int = 0,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        layer: str = "features",
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(num_classes, class_names, seed, layer, device)
        self.given = dict(features)
        self.weight = weight
        self.bias = bias

    def load(self, split: str) -> Features:
        """Looks a split up.

        Args:
            split: Its name.

        Returns:
            The features.

        Raises:
            MissingSplitError: If it was not given.
        """
        if split not in self.given:
            raise MissingSplitError(
                f"there are no features of the {split} set; given are those of {', '.join(self.given)}"
            )
        return self.given[split]

    def num_classes(self) -> int:
        """K, at least the rows of the weight where the number was not given.

        Returns:
            See :meth:`AnalysisInputs.num_classes`.
        """
        if self._num_classes is None:
            rows = self.weight.shape[0] if self.weight is not None and self.weight.dim() == 2 else 0
            self._num_classes = max(rows, super().num_classes())
        return self._num_classes

    def class_vectors(self) -> ClassVectors | None:
        """The weight given.

        Returns:
            It and the bias, or None where there is no weight.

        Raises:
            DataError: If the weight is not K x D, or the bias not K, floating-point numbers.
        """
        if self.weight is None:
            return None
        classes = self.num_classes()
        for name, value, dims in (("weight", self.weight, 2), ("bias", self.bias, 1)):
            if value is not None and (
                value.dim() != dims or not value.is_floating_point() or value.shape[0] != classes
            ):
                raise DataError(
                    f"{name} must be {'K x D' if dims == 2 else 'K'} floating-point numbers for K = {classes} classes, "
                    f"not {value.dtype} of shape {tuple(value.shape)}"
                )
        widths = {part.features.shape[1] for part in self.given.values()}
        return ClassVectors(self.weight, self.bias, "weight", widths == {self.weight.shape[1]})


class ModelInputs(AnalysisInputs):
    """Any PyTorch model and its batches, without a trainer.

    Args:
        model: Any module; it is called with the inputs alone.
        loaders: Batches by split (``"train"``, ``"val"``, ``"test"``), neither shuffled nor augmented.
        layer: The submodule whose output is analysed.
        unpack: Positions or keys of inputs and labels in a batch.
        num_classes: K. Default: from logits or labels.
        class_names: Names of the classes. Default: their numbers.
        seed: Of an analysis's draws. Default: 0.
        progress: Told of every batch.
    """

    def __init__(
        self,
        model: nn.Module,
        loaders: Mapping[str, Iterable[Any]],
        layer: str,
        unpack: Unpack = (0, 1),
        num_classes: int | None = None,
        class_names: Sequence[str] = (),
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        parameter = next(model.parameters(), None)
        super().__init__(num_classes, class_names, seed, layer, parameter.device if parameter is not None else "cpu")
        self.model = model
        self.loaders = dict(loaders)
        self.unpack = unpack
        self.progress = progress

    @property
    def module(self) -> nn.Module:
        """The model."""
        return self.model

    def load(self, split: str) -> Features:
        """Runs a split through the model.

        Args:
            split: Its name.

        Returns:
            The features.

        Raises:
            MissingSplitError: If there is no such loader.
            ConfigError: If layer or unpack do not fit.
        """
        if split not in self.loaders:
            raise MissingSplitError(
                f"there is no loader of the {split} set; given are those of {', '.join(self.loaders)}"
            )
        report = _per_batch(self.progress, split, self.loaders[split])
        with isolate_rng():
            return extract_features(self.model, self.loaders[split], self.layer, self.unpack, progress=report)

    def at(self, layer: str) -> "ModelInputs":
        """See :meth:`AnalysisInputs.at`."""
        names = self._class_names
        return ModelInputs(
            self.model, self.loaders, layer, self.unpack, self._num_classes, names, self.seed, self.progress
        )


class TrainerInputs(AnalysisInputs):
    """A trainer's model and data; every rank passes its share of the samples, and all receive all of them.

    Args:
        trainer: The trainer.
        pl_module: Its module.
        layer: See :class:`lightning_repshape.features.passes.LayerReader`.
        unpack: Positions or keys of inputs and labels in a batch.
        loaders: Loaders by split that take the place of the trainer's own.
        progress: Told of every batch.
    """

    def __init__(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        layer: str = "features",
        unpack: Unpack = (0, 1),
        loaders: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        data = getattr(trainer, "datamodule", None)
        counts = (getattr(owner, "num_classes", None) for owner in (data, pl_module))
        known = next((count for count in counts if isinstance(count, int) and count > 0), None)
        names = getattr(data, "class_names", None) or getattr(data, "classes", None)
        names = names if isinstance(names, list | tuple) else ()
        super().__init__(known, names, global_seed(), layer, pl_module.device)
        self.trainer = trainer
        self.pl_module = pl_module
        self.unpack = unpack
        self.loaders = dict(loaders or {})
        self.progress = progress

    @property
    def module(self) -> nn.Module:
        """The trainer's module."""
        return self.pl_module

    def load(self, split: str) -> Features:
        """Asks the trainer's feature store.

        Args:
            split: Its name.

        Returns:
            The features.

        Raises:
            MissingSplitError: If the trainer has no such data.
        """
        loader = own = self.loaders.get(split)
        if loader is None:
            try:
                loader = analysis_loader(self.trainer, split)
            except DataError as error:
                raise MissingSplitError(str(error)) from error
        store: FeatureStore = feature_store(self.trainer)
        report = _per_batch(self.progress, split, loader, self.trainer.world_size)
        found = store.get(self.trainer, self.pl_module, split, self.layer, self.unpack, own, report)
        trained = getattr(self.pl_module, "head_trained", None)
        if isinstance(trained, Tensor) and not bool(trained):  # FOCA before its secondary optimisation
            found = found._replace(logits=None)
        return found

    def at(self, layer: str) -> "TrainerInputs":
        """See :meth:`AnalysisInputs.at`."""
        return TrainerInputs(self.trainer, self.pl_module, layer, self.unpack, self.loaders, self.progress)


class Analysis(SkipsSteps, Callback, ABC):
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
        layer: The activation or submodule whose output is analysed.
        unpack: Positions or keys of inputs and labels in a batch.
        when: ``"test"``: at the end of a test, on the tested weights; ``"fit"``: at the end of a fit, on the last ones;
            ``"fit_start"``: before the first step of a fit, on the initial ones. One callback with it beside one
            without shows what training did.
        every_n_epochs: Besides, before the first epoch and after every so many. Default: 0, never.
        loaders: Loaders by split (``"train"``, ``"val"``, ``"test"``) instead of the trainer's.
        name: The name of files and keys. Default: the analysis's own, with ``-init`` behind it where ``when`` is
            ``"fit_start"``; two analyses of one kind need two names.

    Raises:
        ConfigError: If an option cannot work.
    """

    kind = "analysis"
    """The analysis's own name."""
    title = "Analysis"
    """Its heading in reports."""

    def __init__(
        self,
        layer: str = "features",
        unpack: tuple[int | str, int | str] = (0, 1),
        when: When = "test",
        every_n_epochs: int = 0,
        loaders: dict[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        if when not in ("fit_start", "fit", "test"):
            raise ConfigError(
                f"when={when!r}: an analysis runs at the end of a 'fit' or of a 'test', or before a fit ('fit_start')"
            )
        if every_n_epochs < 0:
            raise ConfigError(f"every_n_epochs is {every_n_epochs}; it must not be negative (0: never)")
        if len(unpack) != 2:
            raise ConfigError(f"unpack={unpack!r} must say where inputs and labels lie: two positions or keys")
        self.layer = layer
        self.unpack = (unpack[0], unpack[1])
        self.when = when
        self.every_n_epochs = every_n_epochs
        self.loaders = loaders
        self.name = name or (f"{self.kind}-init" if when == "fit_start" else self.kind)
        self.folder = ""  # in the run's folder "analysis", for results of another layer than usual
        self.outcome: Outcome | None = None

    @abstractmethod
    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """The analysis itself; it changes nothing and draws from no global generator.

        Args:
            inputs: Features by split, and what is known besides.

        Returns:
            Scalars, content of the JSON file, tables and figures.

        Raises:
            RepshapeError: If the data do not allow it.
            ValueError: Likewise.
        """

    def run(self, inputs: AnalysisInputs) -> Outcome:
        """Computes, and turns what the data do not allow into a message.

        Args:
            inputs: See :meth:`compute`.

        Returns:
            The result or the message.
        """
        try:
            # A test runs in inference mode, whose tensors nothing may change in place.
            with torch.inference_mode(False), torch.no_grad():
                result = self.compute(inputs)
                if inputs.notes:
                    result = replace(result, notes=(*result.notes, *inputs.notes.values()))
                return Outcome(self.name, self.title, result)
        except (RepshapeError, ValueError) as error:
            return Outcome(self.name, self.title, None, " ".join(str(error).split()))

    # -- hooks -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Joins the shared feature pass, and refuses a name that is in use.

        Args:
            trainer: The trainer.
            pl_module: The module.
            stage: What is about to run.

        Raises:
            ConfigError: If another analysis of the trainer has the same name.
        """
        feature_store(trainer)
        others = [other for other in trainer.callbacks if isinstance(other, Analysis)]  # type: ignore[attr-defined]
        if sum(other.name == self.name for other in others) > 1:
            raise ConfigError(
                f"two analyses are called {self.name!r}: give one of them another name, as name={self.name}-2"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the initial weights, with ``fit_start`` and ``every_n_epochs``; not when a fit is resumed.

        Args:
            trainer: The trainer.
            pl_module: The module.
        """
        if self.when == "fit_start" and trainer.global_step == 0:
            self._run_at(trainer, pl_module, "train")
        if self.every_n_epochs and trainer.current_epoch == 0:
            self._run_at(trainer, pl_module, "train", epoch=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the weights of every so many epochs.

        Args:
            trainer: The trainer.
            pl_module: The module.
        """
        epoch = trainer.current_epoch + 1
        if self.every_n_epochs and epoch % self.every_n_epochs == 0:
            self._run_at(trainer, pl_module, "train", epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Analyses at the end of a fit, before its final scalars are written.

        Args:
            trainer: The trainer.
            pl_module: The module.
        """
        if self.when == "fit":
            self._run_at(trainer, pl_module, "train")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Analyses at the end of a test, before its table is printed.

        Args:
            trainer: The trainer.
            pl_module: The module.
        """
        if self.when == "test":
            self._run_at(trainer, pl_module, "test")

    def _run_at(self, trainer: Trainer, pl_module: LightningModule, stage: str, epoch: int | None = None) -> None:
        if trainer.fast_dev_run or trainer.sanity_checking:  # type: ignore[attr-defined]
            return
        folder = analysis_folder(run_folder(trainer)) / self.folder
        with _progress(trainer) as report, isolate_rng():
            inputs = TrainerInputs(trainer, pl_module, self.layer, self.unpack, self.loaders, report)
            if stage == "train":
                epochs = trainer.current_epoch if epoch is None else epoch
                initial = trainer.global_step == 0
                inputs.moment = ", at initialisation" if initial else f", after epoch {epochs}"
            outcome = self.run(inputs)
        if trainer.is_global_zero:
            outcome = save_outcome(outcome, folder if epoch is None else folder / f"epoch-{epoch:03d}", self.layer)
            if outcome.failure:
                say(f"{self.name}: {outcome.failure}")
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


def run_analyses(
    analyses: Sequence[Analysis],
    inputs: AnalysisInputs,
    folder: str | Path | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Runs analyses one after the other; one that fails does not keep the others from running.

    Args:
        analyses: What to run.
        inputs: What to run it on; the layer and unpack of the analyses themselves do not count here.
        folder: Where JSON and figures go, each after its analysis. Default: nowhere.
        report: Told the title of each analysis before it starts.

    Returns:
        An outcome for each.
    """
    outcomes = []
    for analysis in analyses:
        if report is not None:
            report(analysis.title)
        outcome = analysis.run(inputs)
        outcomes.append(outcome if folder is None else save_outcome(outcome, Path(folder), inputs.layer))
    return outcomes


def save_outcome(outcome: Outcome, folder: Path, layer: str) -> Outcome:
    """Writes an outcome's JSON file and figures, and takes away those of an earlier outcome, which would mislead.

    Args:
        outcome: The outcome.
        folder: Where to.
        layer: The analysed layer, named in the file.

    Returns:
        The outcome with the paths of its figures.
    """
    result = outcome.result
    files = [f"{outcome.name}.npz"] if result is not None and result.arrays else []
    for suffix in () if result is None else result.figures:
        stem = f"{outcome.name}-{suffix}" if suffix else outcome.name
        files += [f"{stem}.png", f"{stem}.pdf"]
    _remove_earlier(folder, outcome.name, files)
    head = {"analysis": outcome.name, "title": outcome.title, "layer": layer, "files": files}
    if result is None:
        write_json(folder / f"{outcome.name}.json", {**head, "failure": outcome.failure})
        return outcome
    scalars = {key: plain_number(value) for key, value in result.scalars.items()}
    body = {"scalars": scalars, "notes": list(result.notes), "tables": result.tables, **result.content}
    write_json(folder / f"{outcome.name}.json", plain({**head, **body}))
    if result.arrays:
        with written_atomically(folder / f"{outcome.name}.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **result.arrays)
    written = []
    for suffix, draw in result.figures.items():
        stem = f"{outcome.name}-{suffix}" if suffix else outcome.name
        written.append(plots.save_figure(draw(), folder / f"{stem}.png"))
    return Outcome(outcome.name, outcome.title, result, "", tuple(written))


def _remove_earlier(folder: Path, name: str, kept: Sequence[str]) -> None:
    """Deletes what the JSON file of an earlier call lists and this one does not write; never what others wrote."""
    try:
        earlier = read_json(folder / f"{name}.json").get("files")
    except ConfigError:  # it is about to be replaced
        return
    for file in earlier if isinstance(earlier, list) else []:
        path = folder / str(file)
        if path.parent == folder and path.suffix in (".png", ".pdf", ".npz") and path.name not in kept:
            path.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Numbers, strings, lists and dictionaries in place of tensors and tuples.

    Args:
        value: What a result holds.

    Returns:
        What JSON can hold, numbers with seven digits.
    """
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return plain_number(value)
    return value


def say(text: str) -> None:
    """Prints a line on standard error.

    Args:
        text: The line.
    """
    Console(stderr=True).print(f"analysis {text}", soft_wrap=True, highlight=False, markup=False)


def find_class_vectors(model: nn.Module, num_classes: int, sample: Features | None = None) -> ClassVectors | None:
    """Finds a model's last linear layer with a K x D weight.

    Models that name their activations and have no ``logits`` among them, such as autoencoders, have no class vectors,
    even where a layer has K units by chance.

    Args:
        model: Any module.
        num_classes: K.
        sample: Features of a pass; where they come with logits, the layer is held against them to find out whether
            these features are what it receives. Default: only widths are compared.

    Returns:
        The layer, or None where there is none.
    """
    found = None
    named = getattr(model, "activation_names", ())
    if named and "logits" not in named and not isinstance(model, Head):
        return None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.weight.shape[0] == num_classes:
            found = (name, module, module.weight)
    if found is None:
        return None
    name, module, weight = found
    bias = getattr(module, "bias", None)
    bias = bias.detach().cpu() if isinstance(bias, Tensor) and bias.shape == (num_classes,) else None
    weight = weight.detach().float().cpu()
    takes, cosine = sample is None or sample.features.shape[1] == weight.shape[1], False
    if takes and sample is not None and sample.logits is not None and sample.logits.shape[1] == num_classes:
        features, theirs = sample.features[:256].float(), sample.logits[:256].float()
        takes = _proportional(features @ weight.T + (0 if bias is None else bias.float()), theirs)
        if not takes and bias is None:
            takes = cosine = _proportional(cosine_logits(features, weight), theirs)
    return ClassVectors(weight, bias, name, takes, cosine)


def _proportional(logits: Tensor, theirs: Tensor) -> bool:
    """Whether a model's logits are these, up to rounding and to a positive factor such as the S of cosine logits."""
    factor = float((logits * theirs).sum() / logits.square().sum().clamp(min=1e-30))
    return factor > 0 and bool((factor * logits - theirs).abs().max() <= 0.02 * theirs.abs().max().clamp(min=1e-6))


def _checked(found: Features, split: str, layer: str) -> Features:
    """Features that every analysis can take, or one message."""
    features, labels, logits = found
    if features.dim() != 2 or features.numel() == 0:
        raise DataError(
            f"layer {layer!r} gave features of shape {tuple(features.shape)}; N x D with both above 0 are needed"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels of the {split} set must be integers, not {labels.dtype}")
    if labels.shape != features.shape[:1]:
        raise DataError(
            f"the {split} set has {len(features)} rows of features, but labels of shape {tuple(labels.shape)}"
        )
    if int(labels.min()) < 0:
        raise DataError(
            f"{int((labels < 0).sum())} of {len(labels)} samples of the {split} set have a label below 0; leave out "
            "samples without a class"
        )
    broken = sum(int((~part.isfinite().all(dim=1)).sum()) for part in torch.split(features, _ROWS))
    if broken:
        raise DataError(
            f"features of {broken} of {len(features)} samples of the {split} set hold NaN or infinite values (layer "
            f"{layer!r}); look at the weights and the inputs"
        )
    # What was made in inference mode cannot be changed in place later on.
    if features.is_inference():
        with torch.inference_mode(False):
            features, labels = features.clone(), labels.clone()
            logits = logits.clone() if logits is not None else None
    return Features(features, labels.long(), logits)


def _usable_logits(part: Features, num_classes: int | None) -> tuple[Tensor | None, str]:
    """The logits that can be those of K classes, or None and why not."""
    logits, largest = part.logits, int(part.labels.max())
    if logits is None:
        return None, ""
    if logits.dim() != 2 or logits.shape[0] != len(part.labels):
        return None, f"logits must be N x K, but their shape is {tuple(logits.shape)}"
    width = logits.shape[1]
    if width == 1 and (num_classes == 2 or (num_classes is None and largest < 2)):
        logits, width = torch.cat([-logits / 2, logits / 2], dim=1), 2
    if num_classes is not None and width != num_classes:
        return None, f"the model returns {width} values a sample, which are no logits of {num_classes} classes"
    if num_classes is None and width <= largest:
        return None, f"the model returns {width} values a sample, which are no logits where labels reach {largest}"
    broken = sum(int(chunk.softmax(dim=1).isnan().any(dim=1).sum()) for chunk in torch.split(logits.float(), _ROWS))
    if broken:
        return None, f"logits of {broken} of {len(logits)} samples hold NaN or infinite values"
    return logits, ""


def _per_batch(progress: Progress | None, split: str, loader: Any, ranks: int = 1) -> Callable[[int], None] | None:
    if progress is None:
        return None
    dataset = getattr(loader, "dataset", None)
    total = -(-len(dataset) // ranks) if dataset is not None and hasattr(dataset, "__len__") else None
    return lambda count: progress(f"features of the {split} set", count, total)


def _progress(trainer: Trainer) -> AbstractContextManager[Progress | None]:
    """A line for the feature pass in the trainer's own rich progress bar, where it has one."""
    bar = getattr(trainer.progress_bar_callback, "progress", None)
    if not hasattr(bar, "add_task") or not hasattr(bar, "remove_task"):
        return nullcontext(None)
    return _BarTasks(bar)


class _BarTasks(AbstractContextManager[Progress]):
    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        return self.report

    def report(self, text: str, count: int, total: int | None) -> None:
        if text not in self.tasks:
            self.tasks[text] = self.bar.add_task(f"[white]{text}", total=total)
        self.bar.update(self.tasks[text], advance=count, refresh=True)

    def __exit__(self, *error: object) -> None:
        for task in self.tasks.values():
            self.bar.remove_task(task)


def present_classes(train: Features, test: Features | None) -> tuple[Features, Features | None, list[int], str]:
    """Renumbers classes to those that have training samples, for analyses that train heads.

    Args:
        train: The training set's features.
        test: The test set's.

    Returns:
        Both with labels 0 .. P - 1, the P classes' numbers, and a note on what was left out (empty if nothing was).

    Raises:
        DataError: If no test sample is of a class with training samples.
    """
    kept = torch.unique(train.labels)
    if len(kept) == int(kept[-1]) + 1 and (test is None or int(test.labels.max()) < len(kept)):
        return train, test, kept.tolist(), ""
    position = torch.full((int(kept[-1]) + 1,), -1, dtype=torch.int64)
    position[kept] = torch.arange(len(kept))
    train = train._replace(labels=position[train.labels])
    note = f"heads are trained on the {len(kept)} classes that have training samples"
    if test is not None:
        known = torch.isin(test.labels, kept)
        if not bool(known.any()):
            raise DataError("no test sample is of a class that has training samples")
        if not bool(known.all()):
            note += f"; {int((~known).sum())} test samples of other classes are left out"
        logits = test.logits[known] if test.logits is not None else None
        test = Features(test.features[known], position[test.labels[known]], logits)
    return train, test, kept.tolist(), note


def percent(value: float) -> float | None:
    """A fraction as percent for tables; None where it is not known.

    Args:
        value: The fraction.

    Returns:
        100 times it, or None for NaN.
    """
    return None if math.isnan(value) else 100 * value
