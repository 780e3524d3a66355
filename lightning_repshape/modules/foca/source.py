"""Where FOCA's class-balanced batches come from: our data module, any data set of (x, y), or the batch at hand."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import Subset, default_collate

from lightning_repshape.data.module import ImageDataModule
from lightning_repshape.errors import DataError


class BalancedSource(Protocol):
    """Draws samples of every class."""

    def balanced(
        self, per_class: int, generator: torch.Generator, replacement: bool, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Inputs K k x ... and class indices K k, on the model's device: k = ``per_class`` samples of each class.

        ``augment`` asks for them as training samples are. Raises DataError if a class has too few samples.
        """
        ...

    def uniform(
        self, count: int, generator: torch.Generator, replacement: bool = True, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Inputs and class indices of ``count`` samples of any class; DataError if there are too few."""
        ...


class DataModuleSource:
    """Draws from one of this package's data modules, by one gather a batch, onto a device."""

    def __init__(self, data: ImageDataModule, device: torch.device) -> None:
        self.data = data
        self.device = device

    def balanced(
        self, per_class: int, generator: torch.Generator, replacement: bool, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Samples of every class, see the protocol."""
        return self.data.draw_class_balanced(per_class, generator, replacement, self.device, augment)

    def uniform(
        self, count: int, generator: torch.Generator, replacement: bool = True, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Samples of any class, see the protocol."""
        return self.data.draw_uniform(count, generator, replacement, self.device, augment)


class DatasetSource:
    """Draws from a data set of (x, y) pairs whose N labels can be told without reading every sample."""

    def __init__(
        self, dataset: Any, labels: Tensor, num_classes: int, device: torch.device, collate: Any = default_collate
    ) -> None:
        self.dataset = dataset
        self.labels = labels
        self.num_classes = num_classes
        self.device = device
        self.collate = collate
        self.members = [(labels == label).nonzero().flatten() for label in range(num_classes)]

    def balanced(
        self, per_class: int, generator: torch.Generator, replacement: bool, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Samples of every class, see the protocol."""
        index = torch.cat(
            [
                draw_members(members, per_class, generator, replacement, f"class {label} of the training set")
                for label, members in enumerate(self.members)
            ]
        )
        return self._fetch(index)

    def uniform(
        self, count: int, generator: torch.Generator, replacement: bool = True, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Samples of any class, see the protocol."""
        return self._fetch(
            draw_members(torch.arange(len(self.labels)), count, generator, replacement, "the training set")
        )

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        many = getattr(self.dataset, "__getitems__", None)
        samples = many(index.tolist()) if callable(many) else [self.dataset[int(i)] for i in index]
        batch = self.collate(samples)
        return batch[0].to(self.device), self.labels[index].to(self.device)


class BatchSource:
    """Draws from the batch at hand, for loaders whose data set cannot be looked into."""

    def __init__(self, x: Tensor, y: Tensor, num_classes: int) -> None:
        self.x = x
        self.y = y
        self.num_classes = num_classes

    def balanced(
        self, per_class: int, generator: torch.Generator, replacement: bool, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Samples of every class, see the protocol."""
        labels = self.y.cpu()
        parts = []
        for label in range(self.num_classes):
            members = (labels == label).nonzero().flatten()
            where = (
                f"class {label} of a batch of {len(labels)}, the only place to draw from: the loader's data set tells "
                "no labels (give it an attribute 'targets', use a larger batch, or one of this package's data modules),"
            )
            parts.append(draw_members(members, per_class, generator, replacement, where))
        index = torch.cat(parts).to(self.x.device)
        return self.x.index_select(0, index), self.y.index_select(0, index)

    def uniform(
        self, count: int, generator: torch.Generator, replacement: bool = True, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Samples of any class, see the protocol."""
        everything = torch.arange(len(self.y))
        index = draw_members(everything, count, generator, replacement, "the batch at hand").to(self.x.device)
        return self.x.index_select(0, index), self.y.index_select(0, index)


def draw_members(members: Tensor, count: int, generator: torch.Generator, replacement: bool, where: str) -> Tensor:
    """``count`` of some positions; ``where`` names them in the DataError if there are too few."""
    if len(members) < (1 if replacement else count):
        raise DataError(
            f"{where} has {len(members)} samples, but {count} are to be drawn of it"
            + ("" if replacement else " without replacement (samples_per_class, replacement)")
        )
    if replacement:
        return members[torch.randint(len(members), (count,), generator=generator)]
    return members[torch.randperm(len(members), generator=generator)[:count]]


def labels_of(dataset: Any) -> Tensor | None:
    """The N labels of a data set that has them at hand, None where every sample would have to be read.

    It is a torchvision-like data set (``targets`` or ``labels``), a ``TensorDataset``, or a ``Subset`` of one.
    """
    if isinstance(dataset, Subset):
        inner = labels_of(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(list(dataset.indices))]
    found = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if found is None and len(getattr(dataset, "tensors", ())) >= 2:
        found = dataset.tensors[1]
    if found is None or callable(found) or not (isinstance(found, Tensor | Sequence) or hasattr(found, "__array__")):
        return None
    labels = torch.as_tensor(found)
    return labels.long() if labels.dim() == 1 and not labels.is_floating_point() else None


def source_for(trainer: Trainer, num_classes: int, device: torch.device) -> BalancedSource | None:
    """The best source that a trainer offers, None where only the batches themselves are left."""
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, ImageDataModule):
        return DataModuleSource(data, device)
    loader = trainer.train_dataloader
    dataset = getattr(loader, "dataset", None)
    labels = labels_of(dataset) if dataset is not None else None
    if labels is None:
        return None
    return DatasetSource(dataset, labels, num_classes, device, getattr(loader, "collate_fn", default_collate))
