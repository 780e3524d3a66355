"""The order of samples as a function of (seed, epoch, rank)."""

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data.distributed import DistributedSampler

from lightning_repshape.errors import DataError
from lightning_repshape.seeding import generator


class KeyedSampler(DistributedSampler[int]):
    """Shuffles by (seed, epoch) and deals the samples out to the ranks in turn.

    It keeps no state besides the epoch, which Lightning sets at the start of each one: a resumed run needs nothing else
    to go on in the same order. On one device it is the single rank of one. Lightning leaves it in place under DDP,
    because it is a ``DistributedSampler``.

    Args:
        dataset: Anything with a length.
        num_replicas: Number of ranks W.
        rank: This rank, 0..W - 1.
        shuffle: Whether every epoch has an order of its own; else the samples come in their order.
        seed: Seed of the shuffling.
        pad: Whether the ranks get equally many samples, the first ones of the epoch's order being used again to fill up
            (training: a rank with a batch less would leave the others waiting). False: every sample exactly once, and
            the ranks' lengths differ by up to one (evaluation: exact sums).

    Raises:
        DataError: There are more ranks than samples.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        pad: bool = True,
    ) -> None:
        count = len(dataset)
        if num_replicas > count:
            raise DataError(
                f"{num_replicas} ranks share {count} samples, and a rank without samples would leave the others "
                "waiting; "
                f"use at most {count} devices, or more samples"
            )
        unsized: Any = dataset  # DistributedSampler asks for a Dataset, but uses its length only
        super().__init__(unsized, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)
        self.pad = pad
        if not pad:
            self.num_samples = len(range(rank, count, num_replicas))
            self.total_size = count

    def __iter__(self) -> Iterator[int]:
        """The indices of this rank in the current epoch."""
        return iter(self.order().tolist())

    def order(self) -> torch.Tensor:
        """The indices as a tensor."""
        count = len(self.dataset)  # type: ignore[arg-type]
        if self.shuffle:
            order = torch.randperm(count, generator=generator("shuffle", self.seed, self.epoch))
        else:
            order = torch.arange(count)
        if self.pad:
            order = torch.cat([order, order[: self.total_size - count]])
        return order[self.rank :: self.num_replicas]
