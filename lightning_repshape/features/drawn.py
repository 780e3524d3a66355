"""Some samples of a set: in random order, or as augmented views."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_repshape.data.loading import RawBatch, SplitDataset
from lightning_repshape.data.module import ImageDataModule
from lightning_repshape.errors import DataError
from lightning_repshape.features.reader import LayerReader, Unpack, unpack_samples
from lightning_repshape.features.store import analysis_loader, as_in_a_test, of_rows, on_device
from lightning_repshape.layers import evaluating
from lightning_repshape.seeding import generator, key_to_seed

_BATCH = 250  # samples that are augmented at a time


def drawn(loader: Any, most: int, size: int, seed: int) -> Any:
    """Batches of some samples in random order, the same for the same seed; the loader itself if it has no data set."""
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__len__"):
        return loader
    return of_rows(loader, torch.randperm(len(dataset), generator=generator("rows", "batches", seed))[:most], size)


def first(batches: Iterable[Any], unpack: Unpack, most: int) -> Iterator[tuple[Any, Tensor]]:
    """Inputs and labels of the first batches, until there are enough samples."""
    done = 0
    for batch in batches:
        x, labels = unpack_samples(batch, unpack)
        yield x, labels
        done += len(labels)
        if done >= most:
            return


def training_inputs(trainer: Trainer, module: LightningModule, count: int) -> Tensor:
    """At most so many training inputs on the module's device, not augmented: the same ones always, and on all ranks.

    Raises:
        DataError: There is no training set of known length.
    """
    loader = analysis_loader(trainer, "train")
    with isolate_rng(), as_in_a_test(trainer):
        moved = (on_device(trainer, batch, module) for batch in drawn(loader, count, _BATCH, seed=0))
        inputs = torch.cat([unpack_samples(batch, (0, 1))[0] for batch in moved])
    shared: Tensor = trainer.strategy.broadcast(inputs)
    return shared


def augmented_views(
    trainer: Trainer, module: LightningModule, layer: str, unpack: Unpack, most: int, count: int, seed: int
) -> Tensor | None:
    """Features of ``count`` augmented views of at most so many training samples, N x V x D; None where there are none.

    This package's data modules augment as in their first epochs; of others the training set is read again and again.
    """
    data = getattr(trainer, "datamodule", None)
    try:
        loader = data.train_dataloader() if isinstance(data, ImageDataModule) else analysis_loader(trainer, "train")
    except DataError:
        return None
    reader, found = LayerReader(module, layer), list[Tensor]()
    with isolate_rng(), evaluating(module), as_in_a_test(trainer), trainer.precision_plugin.forward_context():
        torch.manual_seed(key_to_seed("views", seed))
        for view in range(count):
            augmentation = loader.dataset.augmentation(view) if isinstance(loader.dataset, SplitDataset) else None
            rows: list[Tensor] = []
            for batch in drawn(loader, most, _BATCH, seed):
                batch = batch._replace(augmentation=augmentation) if isinstance(batch, RawBatch) else batch
                x, _ = unpack_samples(on_device(trainer, batch, module), unpack)
                rows.append(reader(x)[0].float().cpu())
                if view == 1 and len(rows) == 1 and torch.equal(rows[0], found[0][: len(rows[0])]):
                    return None  # whatever the inputs are, those of a second reading are the same
            found.append(torch.cat(rows))
    return torch.stack(found, dim=1)
