"""What an analysis takes: features of a split, checked, from tensors, any model, or a trainer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lightning_repshape.analyses.checked import checked, usable_logits, with_labels
from lightning_repshape.data.second import ReadAs, SecondSet
from lightning_repshape.errors import DataError
from lightning_repshape.features.drawn import augmented_views, drawn, first
from lightning_repshape.features.last_layer import ClassVectors, class_count, find_class_vectors
from lightning_repshape.features.passes import Features, extract_features, moved
from lightning_repshape.features.reader import Unpack
from lightning_repshape.features.store import (
    FeatureStore,
    analysis_loader,
    as_in_a_test,
    feature_store,
    on_device,
)
from lightning_repshape.seeding import global_seed

Split = Literal["train", "val", "test"]
Progress = Callable[[str, int, int | None], None]
"""Called with what is going on, how many samples more are done, and how many there are in all (None: unknown)."""


class MissingSplitError(DataError):
    """There is no such set of samples to take features from."""


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
        other: The splits of a second data set, read by the same model at the same layer; None where none was given. Its
            classes are its own, its logits those of this set's classes, and its labels may be -1, unknown.
    """

    other: "AnalysisInputs | None" = None
    _owner: "AnalysisInputs | None" = None  # whose second set this is

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
        self._labelled: dict[str, Features] = {}
        self._failed: dict[str, Exception] = {}

    @property
    def module(self) -> nn.Module | None:
        """The model, where there is one."""
        return None

    @abstractmethod
    def load(self, split: str) -> Features:
        """Takes the features of a split; :meth:`features` asks once and looks at them.

        Raises:
            MissingSplitError: If there is no such split.
        """

    def at(self, layer: str) -> "AnalysisInputs":
        """The same samples at another layer; DataError if only features are known, and no model."""
        raise DataError(f"layer {layer!r} needs the model, and there are only saved features of {self.layer!r}")

    def batches(self, split: str, most: int, size: int) -> Iterator[tuple[Any, int]]:
        """Inputs of the model, batch by batch on its device, and how many samples they are of.

        They are ``most`` samples of a split, drawn anew in the same way for the same seed and in random order; from
        batches without a data set the first ones.

        Raises:
            MissingSplitError: If there is no such split.
            DataError: If there are only saved features.
        """
        raise DataError("this needs the model and its inputs, and there are only saved features")

    def views(self, most: int, count: int) -> Tensor | None:
        """Features of ``count`` augmented views of at most so many training samples, N x V x D float32.

        None where there are none: without a trainer, whose data module augments, or where it does not.
        """
        return None

    def features(self, split: str) -> Features:
        """The features N x D of a split, labels N, -1 where unknown, and, where known, logits N x K, checked.

        Outputs that cannot be logits of K classes are left out, and :attr:`notes` say so. A single output z of two
        classes counts as the logits -z/2 and z/2, whose softmax is the sigmoid of z.

        Raises:
            MissingSplitError: If there is no such split.
            DataError: If features are not finite.
        """
        if split in self._failed:
            raise self._failed[split]
        if split not in self._checked:
            called = self._called(split)
            try:
                part = checked(self.load(split), called, self.layer)
                if int(part.labels.max()) >= 0 > int(part.labels.min()):
                    self.notes[f"{split} labels"] = (
                        f"{int((part.labels < 0).sum()):,} of {len(part.labels):,} samples of the {called} set have no "
                        "label, and are left out where one is needed"
                    )
                if self._owner is None:
                    logits, note = usable_logits(part, self._num_classes)
                else:  # its labels say nothing of the model's classes
                    logits, note = usable_logits(
                        part._replace(labels=torch.zeros_like(part.labels)), self._owner.num_classes()
                    )
                if note:
                    self.notes[split] = f"the {called} set's predictions are left out: {note}"
                self._checked[split] = part._replace(logits=logits)
            except Exception as error:
                self._failed[split] = error
                raise
        return self._checked[split]

    def _called(self, split: str) -> str:
        """What messages call a split."""
        return split if self._owner is None else f"other {split}"

    def second(self, other: "AnalysisInputs | None") -> Self:
        """These inputs, with those of a second data set as :attr:`other`."""
        self.other = other
        if other is not None:
            other._owner = self
        return self

    def optional(self, split: str) -> Features | None:
        """The features of a split, None where there is no such split; DataError if they cannot be analysed."""
        try:
            return self.features(split)
        except MissingSplitError:
            return None

    def num_classes(self) -> int:
        """K: the number given, else the width of the logits, else one more than the largest label of the splits."""
        if self._num_classes is None:
            found = [part for part in (self.optional("train"), self.optional("test")) if part is not None]
            widths = [part.logits.shape[1] for part in found if part.logits is not None and self._owner is None]
            labels = [int(part.labels.max()) + 1 for part in found]
            self._num_classes = max([*widths, *labels], default=0)
        return self._num_classes

    def class_names(self) -> tuple[str, ...]:
        """K names; numbers where none are known."""
        return tuple(
            str(self._class_names[k]) if k < len(self._class_names) else str(k) for k in range(self.num_classes())
        )

    def labelled(self, split: str, classes: int = 2) -> Features:
        """The features of a split's samples with a label, for an analysis that compares classes.

        Raises:
            DataError: If fewer than ``classes`` have samples, there are no labels, or some reach beyond K.
        """
        if split not in self._labelled:
            self._labelled[split] = with_labels(self.features(split))
        part = self._labelled[split]
        split = self._called(split)
        if not len(part.labels):
            raise DataError(f"the {split} set has no labels, and this is about its classes")
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

    def optional_labelled(self, split: str) -> Features | None:
        """The features of a split for an analysis that counts classes; None where there is no such split, or no labels.

        Raises as :meth:`labelled`.
        """
        part = self.optional(split)
        return None if part is None or int(part.labels.max()) < 0 else self.labelled(split, classes=1)

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
        class_names: Default: their numbers.
        seed: Of an analysis's draws.
        weight: The last layer's weight, K x D, floating-point. Default: unknown.
        bias: Its bias, K. Default: none.
        layer: For headings.
        device: Where computations take place. Default: the CPU.
        other: Features of a second data set by split, of the same model. Default: none.

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
        other: Mapping[str, Features] | None = None,
    ) -> None:
        super().__init__(num_classes, class_names, seed, layer, device)
        self.given = dict(features)
        self.weight = weight
        self.bias = bias
        if other:
            self.second(FeatureInputs(other, seed=seed, layer=layer, device=device))

    def load(self, split: str) -> Features:
        """Looks a split up."""
        if split not in self.given:
            raise MissingSplitError(
                f"there are no features of the {split} set; given are those of {', '.join(self.given)}"
            )
        return self.given[split]

    def num_classes(self) -> int:
        """K, at least the rows of the weight where the number was not given."""
        if self._num_classes is None:
            rows = self.weight.shape[0] if self.weight is not None and self.weight.dim() == 2 else 0
            self._num_classes = max(rows, super().num_classes())
        return self._num_classes

    def class_vectors(self) -> ClassVectors | None:
        """The weight given."""
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
        class_names: Default: their numbers.
        seed: Of an analysis's draws.
        progress: Told of every batch.
        other: Batches of a second data set by split, made ready as the model takes them. Default: none.
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
        other: Mapping[str, Iterable[Any]] | None = None,
    ) -> None:
        parameter = next(model.parameters(), None)
        super().__init__(num_classes, class_names, seed, layer, parameter.device if parameter is not None else "cpu")
        self.model = model
        self.loaders = dict(loaders)
        self.unpack = unpack
        self.progress = progress
        if other:
            self.second(ModelInputs(model, other, layer, unpack, seed=seed, progress=progress))

    @property
    def module(self) -> nn.Module:
        """The model."""
        return self.model

    def batches(self, split: str, most: int, size: int) -> Iterator[tuple[Any, int]]:
        """Some batches, where the model's parameters are."""
        if split not in self.loaders:
            raise MissingSplitError(f"there is no loader of the {split} set")
        with isolate_rng():
            for x, labels in first(drawn(self.loaders[split], most, size, self.seed), self.unpack, most):
                yield moved(x, self.device), len(labels)

    def load(self, split: str) -> Features:
        """Runs a split through the model."""
        if split not in self.loaders:
            raise MissingSplitError(
                f"there is no loader of the {split} set; given are those of {', '.join(self.loaders)}"
            )
        report = _per_batch(self.progress, split, self.loaders[split])
        text = f"features of the {self._called(split)} set"
        with isolate_rng():
            return extract_features(
                self.model, self.loaders[split], self.layer, self.unpack, progress=report, text=text
            )

    def at(self, layer: str) -> "ModelInputs":
        """The same samples at another layer."""
        names = self._class_names
        other = self.other.loaders if isinstance(self.other, ModelInputs) else None
        return ModelInputs(
            self.model, self.loaders, layer, self.unpack, self._num_classes, names, self.seed, self.progress, other
        )


class TrainerInputs(AnalysisInputs):
    """A trainer's model and data; every rank passes its share of the samples, and all receive all of them.

    Loaders by split take the place of the trainer's own. The images of a second data module ``other`` are brought to
    the size, channels and normalisation of the trainer's.
    """

    def __init__(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        layer: str = "features",
        unpack: Unpack = (0, 1),
        loaders: Mapping[str, Any] | None = None,
        other: LightningDataModule | None = None,
    ) -> None:
        data = getattr(trainer, "datamodule", None)
        known = class_count(data) or class_count(pl_module)
        super().__init__(known, _names_of(data), global_seed(), layer, pl_module.device)
        self.trainer = trainer
        self.pl_module = pl_module
        self.unpack = unpack
        self.loaders = dict(loaders or {})
        self.other_data = other
        if other is not None:
            self.second(_OtherInputs(self, other))

    @property
    def module(self) -> nn.Module:
        """The trainer's module."""
        return self.pl_module

    def batches(self, split: str, most: int, size: int) -> Iterator[tuple[Any, int]]:
        """Some batches, as the trainer would hand them to a step; every process gets the same ones."""
        own = self.loaders.get(split)
        try:
            loader = own if own is not None else analysis_loader(self.trainer, split)
        except DataError as error:
            raise MissingSplitError(str(error)) from error
        with isolate_rng(), as_in_a_test(self.trainer), self.trainer.precision_plugin.forward_context():
            moved = (on_device(self.trainer, batch, self.pl_module) for batch in drawn(loader, most, size, self.seed))
            for x, labels in first(moved, self.unpack, most):
                yield x, len(labels)

    def views(self, most: int, count: int) -> Tensor | None:
        """Of this package's data modules as in the first epochs; of others by reading the training set again."""
        return augmented_views(self.trainer, self.pl_module, self.layer, self.unpack, most, count, self.seed)

    def load(self, split: str) -> Features:
        """Asks the trainer's feature store."""
        own = self.loaders.get(split)
        if own is None:
            try:
                analysis_loader(self.trainer, split)
            except DataError as error:
                raise MissingSplitError(str(error)) from error
        return self.read(split, self.unpack, own)

    def read(self, split: str, unpack: Unpack, loader: Any = None) -> Features:
        """What the model makes of a loader's batches, those of the trainer where there is none."""
        store: FeatureStore = feature_store(self.trainer)
        found = store.get(self.trainer, self.pl_module, split, self.layer, unpack, loader)
        trained = getattr(self.pl_module, "head_trained", None)
        if isinstance(trained, Tensor) and not bool(trained):  # FOCA before its secondary optimisation
            found = found._replace(logits=None)
        return found

    def at(self, layer: str) -> "TrainerInputs":
        """The same samples at another layer."""
        return TrainerInputs(self.trainer, self.pl_module, layer, self.unpack, self.loaders, self.other_data)


class _OtherInputs(AnalysisInputs):
    """The splits of a second data module, read by a trainer's model."""

    def __init__(self, first: TrainerInputs, data: LightningDataModule) -> None:
        super().__init__(class_count(data), _names_of(data), first.seed, first.layer, first.device)
        self.first, self.data = first, data

    @property
    def module(self) -> nn.Module:
        return self.first.module

    def load(self, split: str) -> Features:
        # one object for all analyses, by which the store knows what it has read
        kept = feature_store(self.first.trainer).loaders
        first = getattr(self.first.trainer, "datamodule", None)
        own = kept.setdefault(f"second {id(self.data)}", SecondSet(self.data, first))
        loader = own.loader(split)
        if loader is None:
            raise MissingSplitError(f"{type(self.data).__name__} has no {split} set")
        unpack: Unpack = (0, 1) if isinstance(loader, ReadAs) else self.first.unpack
        return self.first.read(f"other {split}", unpack, loader)


def _names_of(data: Any) -> Sequence[str]:
    names = getattr(data, "class_names", None) or getattr(data, "classes", None)
    return names if isinstance(names, list | tuple) else ()


def _per_batch(progress: Progress | None, split: str, loader: Any) -> Callable[[int], None] | None:
    if progress is None:
        return None
    dataset = getattr(loader, "dataset", None)
    total = len(dataset) if dataset is not None and hasattr(dataset, "__len__") else None
    return lambda count: progress(f"features of the {split} set", count, total)
