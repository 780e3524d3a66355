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

    def balanced(self, per_class: int, generator: torch.Generator, replacement: bool) -> tuple[Tensor, Tensor]:
        """Draws ``per_class`` samples of each of the K classes.

        Args:
            per_class: k.
            generator: Source of the draw.
            replacement: Whether a sample may be drawn twice.

        Returns:
            Inputs K k x ... and class indices K k, on the model's device.

        Raises:
            DataError: If a class has too few samples.
        """
        ...

    def uniform(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws samples of any class with replacement.

        Args:
            count: How many.
            generator: Source of the draw.

        Returns:
            Inputs and class indices.
        """
        ...


class DataModuleSource:
    """Draws from one of this package's data modules, by one gather a batch.

    Args:
        data: The data module.
        device: Where the samples go.
    """

    def __init__(self, data: ImageDataModule, device: torch.device) -> None:
        self.data = data
        self.device = device
        self._labels: Tensor | None = None

    def balanced(self, per_class: int, generator: torch.Generator, replacement: bool) -> tuple[Tensor, Tensor]:
        """Samples of every class, see the protocol."""
        return self.data.draw_class_balanced(per_class, generator, replacement, self.device)

    def uniform(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Samples of any class, see the protocol."""
        if self._labels is None:
            self._labels = self.data.labels("train")
        index = torch.randint(len(self._labels), (count,), generator=generator)
        images = self.data.images("train", index).to(self.device, non_blocking=True)
        return self.data.normalize_images(images), self._labels[index].to(self.device, non_blocking=True)


class DatasetSource:
    """Draws from a data set of (x, y) pairs whose labels can be told without reading every sample.

    Args:
        dataset: The data set.
        labels: Its N labels.
        num_classes: K.
        device: Where the samples go.
        collate: Puts samples together. Default: PyTorch's.
    """

    def __init__(
        self, dataset: Any, labels: Tensor, num_classes: int, device: torch.device, collate: Any = default_collate
    ) -> None:
        self.dataset = dataset
        self.labels = labels
        self.num_classes = num_classes
        self.device = device
        self.collate = collate
        self.members = [(labels == label).nonzero().flatten() for label in range(num_classes)]

    def balanced(self, per_class: int, generator: torch.Generator, replacement: bool) -> tuple[Tensor, Tensor]:
        """Samples of every class, see the protocol."""
        index = torch.cat(
            [
                draw_members(members, per_class, generator, replacement, f"class {label} of the training set")
                for label, members in enumerate(self.members)
            ]
        )
        return self._fetch(index)

    def uniform(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Samples of any class, see the protocol."""
        return self._fetch(torch.randint(len(self.labels), (count,), generator=generator))

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        many = getattr(self.dataset, "__getitems__", None)
        samples = many(index.tolist()) if callable(many) else [self.dataset[int(i)] for i in index]
        batch = self.collate(samples)
        return batch[0].to(self.device), self.labels[index].to(self.device)


class BatchSource:
    """Draws from the batch at hand, for loaders whose data set cannot be looked into.

    Args:
        x: The batch's inputs.
        y: Its labels.
        num_classes: K.
    """

    def __init__(self, x: Tensor, y: Tensor, num_classes: int) -> None:
        self.x = x
        self.y = y
        self.num_classes = num_classes

    def balanced(self, per_class: int, generator: torch.Generator, replacement: bool) -> tuple[Tensor, Tensor]:
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

    def uniform(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Samples of any class, see the protocol."""
        index = torch.randint(len(self.y), (count,), generator=generator).to(self.x.device)
        return self.x.index_select(0, index), self.y.index_select(0, index)


def draw_members(members: Tensor, count: int, generator: torch.Generator, replacement: bool, where: str) -> Tensor:
    """Draws some of the samples of one class.

    Args:
        members: Their positions.
        count: How many to draw.
        generator: Source of the draw.
        replacement: Whether one may be drawn twice.
        where: Names the class in the message.

    Returns:
        ``count`` positions.

    Raises:
        DataError: If there are too few.
    """
    if len(members) < (1 if replacement else count):
        raise DataError(
            f"{where} has {len(members)} samples, but {count} of every class are to be drawn"
            + ("" if replacement else " without replacement (samples_per_class, replacement)")
        )
    if replacement:
        return members[torch.randint(len(members), (count,), generator=generator)]
    return members[torch.randperm(len(members), generator=generator)[:count]]


def labels_of(dataset: Any) -> Tensor | None:
    """The labels of a data set that has them at hand.

    Args:
        dataset: A torchvision-like data set (``targets`` or ``labels``), a ``TensorDataset``, or a ``Subset`` of one.

    Returns:
        N integers, or None where they cannot be told without reading every sample.
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
    """The best source that a trainer offers.

    Args:
        trainer: The trainer.
        num_classes: K.
        device: Where the samples go.

    Returns:
        A source, or None where only the batches themselves are left.
    """
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, ImageDataModule):
        return DataModuleSource(data, device)
    loader = trainer.train_dataloader
    dataset = getattr(loader, "dataset", None)
    labels = labels_of(dataset) if dataset is not None else None
    if labels is None:
        return None
    return DatasetSource(dataset, labels, num_classes, device, getattr(loader, "collate_fn", default_collate))
