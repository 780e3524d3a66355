"""Further test sets: other images of the classes that a model was trained on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_repshape.data.npy import check_header
from lightning_repshape.errors import ConfigError, DataError, did_you_mean

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TestImages:
    """A further test set, read, its labels counted as those of the model's own classes.

    Attributes:
        labels: int64 N.
        images: uint8 N x H x W x C; None where the set holds corrupted copies alone.
        corrupted: Published corrupted copies by the corruption's name, each uint8 5N x H x W x C, severity after
            severity; they may be mapped from a file.
    """

    __test__ = False  # no test case, though its name begins like one

    labels: Tensor
    images: Tensor | None
    corrupted: Mapping[str, Tensor] = field(default_factory=dict)


class GeneralizationSet(ABC):
    """A labelled set on which a trained model is tested besides its own test set.

    A set of one's own needs :meth:`open`, and :meth:`prepare` where it can be downloaded.

    Args:
        name: Name in keys and tables; without "/".

    Raises:
        ConfigError: The name cannot be one.
    """

    def __init__(self, name: str) -> None:
        if not name or "/" in name or name == "test":
            raise ConfigError(
                f"{type(self).__name__}: the name {name!r} cannot be used; set name to one without '/' and other than "
                "'test', which is the model's own test set"
            )
        self.name = name

    def prepare(self) -> None:
        """Downloads what is missing, where that was asked for; called by one process of each machine."""
        return

    @abstractmethod
    def open(self, class_names: Sequence[str], input_shape: tuple[int, int, int]) -> TestImages:
        """Reads the set for a model.

        Args:
            class_names: The model's classes, in the order of its labels.
            input_shape: C, H, W of what the model takes.

        Raises:
            DataError: The set is missing or damaged, has other classes, or images of another shape.
        """


def match_classes(name: str, theirs: Sequence[str], ours: Sequence[str]) -> Tensor:
    """The model's label for each of a set's labels, int64 K; both list the same classes, in any order.

    DataError: they differ; the message lists those that are missing and those that are too many.
    """
    missing = [known for known in ours if known not in theirs]
    extra = [other for other in theirs if other not in ours]
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"it lacks {_listed(missing)}")
        if extra:
            near = [did_you_mean(other, missing) for other in extra[:5]]
            hints = "".join(f" ({other!r}{hint})" for other, hint in zip(extra, near, strict=False) if "?" in hint)
            parts.append(f"it has {_listed(extra)} besides{hints}")
        raise DataError(
            f"{name} has other classes than the model: {'; '.join(parts)}. A further test set needs exactly the "
            f"model's {len(ours)} classes, by name"
        )
    return torch.tensor([ours.index(other) for other in theirs], dtype=torch.int64)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{len(names)} classes ({shown}{', ...' if len(names) > 20 else ''})" if len(names) > 1 else shown


def match_shape(name: str, theirs: Sequence[int], input_shape: tuple[int, int, int]) -> None:
    """Raises DataError unless images of rows, columns, channels ``theirs`` are of the model's shape C, H, W."""
    channels, height, width = input_shape
    if tuple(theirs) != (height, width, channels):
        raise DataError(
            f"{name} has images of {' x '.join(map(str, theirs))} (rows, columns, channels), but the model takes "
            f"{height} x {width} x {channels}"
        )


def read_array(path: Path, name: str, mapped: bool = False) -> Array:
    """Reads (or maps) an ``.npy`` file without unpickling anything. DataError: missing, damaged or of another kind."""
    try:
        with path.open("rb") as file:
            check_header(file, path.stat().st_size)
        # Copy on write, since PyTorch wants arrays that may be written to.
        array: Array = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
    except Exception as error:  # a damaged header can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name}: cannot read {path} ({reason}); get the file again") from error
    return array


def check_array(array: Array, path: Path, name: str, shape: Sequence[int | None], kind: str) -> None:
    """Raises DataError unless an array has the published shape (None: any number) and type "uint8" or "integer"."""
    fits = array.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    fits = fits and bool(array.flags.c_contiguous)  # a header that says otherwise would give other pixels
    right = array.dtype == np.uint8 if kind == "uint8" else array.dtype.kind in "iu"
    if not (fits and right):
        wanted = " x ".join("N" if size is None else str(size) for size in shape)
        raise DataError(
            f"{name}: {path} holds {array.dtype} of shape {tuple(array.shape)}, expected {kind} of {wanted}; get the "
            "file again"
        )
