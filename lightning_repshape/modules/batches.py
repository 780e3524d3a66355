"""What a training batch holds, looked at before a step; and what a batch too small for the network means."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.functional.checks import check_labels, check_shares


def unpacked(
    batch: Sequence[Tensor], num_classes: int, owner: str, memberships: bool = True, first: bool = True
) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a batch.

    Args:
        batch: Inputs, labels, and whatever else.
        num_classes: K.
        owner: Whose batch it is, for messages.
        memberships: Whether labels may be N x K memberships, as of mixup and CutMix.
        first: Whether to look at the sums of memberships on accelerators, too, which waits for the device.

    Returns:
        The inputs, and N class indices or N x K memberships.

    Raises:
        DataError: If the labels are neither, or memberships do not sum to one.
    """
    x, target = batch[0], batch[1]
    try:
        if not check_labels(target, len(x), num_classes):
            return x, target.long()
        if not memberships:
            raise TypeError("class indices are needed, not memberships: its batches are balanced by class")
        if target.device.type == "cpu" or first:
            check_shares(target)
    except (TypeError, ValueError) as error:
        dense = isinstance(target, Tensor) and target.dim() > 2
        which = "; a label for every pixel, as in segmentation, is another task" if dense else ""
        raise DataError(f"{owner}: {error}{which}") from error
    return x, target


@contextmanager
def single_samples_explained() -> Iterator[None]:
    """Says what to do where batch normalisation meets a training batch of one sample.

    Raises:
        ConfigError: If it does.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "batch normalisation cannot train on a batch of one sample, as the last of an epoch may be: set drop_last "
            "(of the data module or the loader), or choose a batch size that leaves more than one"
        ) from error
