"""One feature pass a split, shared by all callbacks that ask for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor

from lightning_repshape.data.samplers import KeyedSampler
from lightning_repshape.errors import DataError
from lightning_repshape.features.passes import Features, extract_features, room_for
from lightning_repshape.features.reader import Unpack

_ROWS = 4096  # rows that are sent at a time


class FeatureStore(Callback):
    """Keeps the features of the current weights, so that several analyses cost one pass.

    Analyses add it to the trainer themselves, see :func:`feature_store`.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Features] = {}
        self._weights: tuple[int, ...] = ()
        self.loaders: dict[str, Any] = {}  # of splits that the trainer does not run, until teardown
        self.fitted: dict[str, Any] = {}  # what the last fit was given in place of a data module

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets features, since the weights are about to change."""
        self._kept.clear()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the loaders of an earlier fit."""
        self.fitted.clear()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the loaders that the fit was given, of which a test knows nothing."""
        if getattr(trainer, "datamodule", None) is None:
            self.fitted = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Frees the features."""
        self._kept.clear()
        self.loaders.clear()

    def get(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        split: str,
        layer: str = "features",
        unpack: Unpack = (0, 1),
        loader: Any = None,
        progress: Callable[[int], None] | None = None,
    ) -> Features:
        """The features of a split, from memory where the weights have not changed since.

        To be called on all ranks; every rank passes its share of the samples, and all receive all of them in order.

        Args:
            trainer: The trainer.
            pl_module: The model.
            split: ``"train"``, ``"val"`` or ``"test"``.
            layer: See :class:`lightning_repshape.features.reader.LayerReader`.
            unpack: Positions or keys of inputs and labels in a batch.
            loader: Batches to use; under several processes each passes all of them. Default: the data module's
                ``analysis_dataloader(split)``, else the trainer's loader of that split, wrapped anew without shuffling,
                of which each process passes its share.
            progress: Called with the number of samples after each batch.

        Raises:
            DataError: If there is no such split.
            RepshapeError: If any process could not take features from its share; all of them say so.
        """
        # Fused optimizers do not count versions, loading does.
        weights = (trainer.global_step, *(parameter._version for parameter in pl_module.parameters()))
        if weights != self._weights:
            self._kept.clear()
            self._weights = weights
        key = (split, layer, tuple(unpack), id(loader) if loader is not None else None)
        if key not in self._kept:
            batches = loader if loader is not None else analysis_loader(trainer, split)
            moved = (on_device(trainer, batch, pl_module) for batch in batches)
            dataset = getattr(batches, "dataset", None)
            shares = 1 if loader is not None else trainer.world_size
            total = -(-len(dataset) // shares) if dataset is not None and hasattr(dataset, "__len__") else None
            text = f"features of the {split} set"
            part, failure = None, None
            try:
                with as_in_a_test(trainer), trainer.precision_plugin.forward_context():
                    part = extract_features(
                        pl_module, moved, layer, unpack, pl_module.device, progress=progress, text=text, total=total
                    )
            except Exception as error:
                failure = error
            agree(trainer, failure)
            if part is None:
                raise DataError("no features were taken")
            self._kept[key] = part if loader is not None else gather_features(part, trainer)
        return self._kept[key]


def on_device(trainer: Trainer, batch: Any, pl_module: LightningModule) -> Any:
    """A loader's batch as a trainer's loops would hand it to a step: in its precision, on the module's device."""
    return trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch), device=pl_module.device)


def feature_store(trainer: Trainer) -> FeatureStore:
    """The trainer's feature store, added to its callbacks where it has none."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, FeatureStore):
            return callback
    store = FeatureStore()
    callbacks.append(store)
    return store


def analysis_loader(trainer: Trainer, split: str) -> Any:
    """The data module's ``analysis_dataloader(split)``, else the trainer's loader of that split without shuffling.

    Of the latter, data set, batch size and collation are kept. Raises DataError if there is no such split.
    """
    data = getattr(trainer, "datamodule", None)
    own = getattr(data, "analysis_dataloader", None)
    if callable(own):
        return own(split)
    loader = {
        "train": trainer.train_dataloader,
        "val": trainer.val_dataloaders,
        "test": trainer.test_dataloaders,
    }.get(split)
    if loader is None:
        loader = _own_loader(trainer, split)
    if isinstance(loader, list | tuple):
        loader = loader[0] if loader else None
    dataset = getattr(loader, "dataset", None)
    if loader is None or dataset is None or not hasattr(dataset, "__len__"):
        raise DataError(
            f"there is no {split} set of known length to take features from; give the analysis a loader of its own"
        )
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=loader.batch_size or 256,
        sampler=KeyedSampler(dataset, trainer.world_size, trainer.global_rank, shuffle=False, pad=False),
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
    )


def _own_loader(trainer: Trainer, split: str) -> Any:
    """The loader that the data module or the module makes of a split that the trainer does not run at present."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    store = next((callback for callback in callbacks if isinstance(callback, FeatureStore)), None)
    if store is not None and split in store.loaders:
        return store.loaders[split]  # a second setup could split the data anew
    data, name = getattr(trainer, "datamodule", None), f"{split}_dataloader"
    if store is not None and data is None and store.fitted.get(split) is not None:
        return store.fitted[split]
    owner = data if data is not None else trainer.lightning_module
    # Lightning's own method raises; pytorch_lightning has classes of its own
    where = getattr(getattr(owner, name, None), "__module__", "")
    if not where or where.startswith(("lightning.pytorch.core", "pytorch_lightning.core")):
        return None
    stage = "test" if split == "test" else "fit"
    if data is not None and trainer.state.fn != stage:
        data.setup(stage)  # a test has prepared the test set alone, a fit the other two
    loader = getattr(owner, name)()
    if store is not None:
        store.loaders[split] = loader
    return loader


def of_rows(loader: Any, rows: Tensor, batch_size: int) -> Any:
    """A loader of these samples of another one's data set, in this order; the other one itself where it has none."""
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__getitem__"):
        return loader
    some = torch.utils.data.Subset(dataset, rows.tolist())
    return torch.utils.data.DataLoader(some, batch_size=batch_size, collate_fn=loader.collate_fn)


@contextmanager
def as_in_a_test(trainer: Trainer) -> Iterator[None]:
    """Lets a data module's hooks see a test, so that those that augment while training do not."""
    before = trainer.state.stage
    trainer.state.stage = RunningStage.TESTING
    try:
        yield
    finally:
        trainer.state.stage = before


def agree(trainer: Trainer, failure: Exception | None) -> None:
    """Raises on every rank what any of them ran into, so that none waits for another.

    That is this rank's own failure (a RepshapeError or a ValueError), or the message of another's.
    """
    if trainer.world_size > 1:
        messages: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(messages, None if failure is None else str(failure))
        if failure is None:
            failure = next((DataError(message) for message in messages if message is not None), None)
    if failure is not None:
        raise failure


def gather_features(part: Features, trainer: Trainer) -> Features:
    """All samples in order, on every rank, from the ranks' shares; rank r of W holds samples r, r + W, r + 2W, ...

    Features of more than four gigabytes are in a temporary file that is mapped to memory. Raises DataError if the
    ranks' features differ in width.
    """
    if trainer.world_size == 1:
        return part
    ranks = trainer.world_size
    shapes: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(shapes, [None if values is None else tuple(values.shape) for values in part])
    total = sum(labels[0] for _, labels, _ in shapes)
    if len({features[1:] for features, _, _ in shapes}) > 1:
        raise DataError(f"the processes' features differ in width: {[features[1:] for features, _, _ in shapes]}")
    has_logits = all(logits is not None for _, _, logits in shapes)
    mine: tuple[torch.Tensor | None, ...] = (part.features, part.labels, part.logits if has_logits else None)
    features = room_for((total, *part.features.shape[1:]), part.features.dtype)
    labels = part.labels.new_empty(total)
    logits = None if mine[2] is None else mine[2].new_empty((total, *mine[2].shape[1:]))
    for start in range(0, max(shape[0] for _, shape, _ in shapes), _ROWS):
        rows: list[Any] = [None] * ranks
        # a copy, since a view is sent with all that it is a view of
        own = tuple(None if values is None else values[start : start + _ROWS].clone() for values in mine)
        torch.distributed.all_gather_object(rows, own)
        for rank, pieces in enumerate(rows):
            first, past = start * ranks + rank, (start + _ROWS) * ranks
            for whole, piece in zip((features, labels, logits), pieces, strict=True):
                if whole is not None:
                    whole[first:past:ranks] = piece
    return Features(features, labels, logits)
