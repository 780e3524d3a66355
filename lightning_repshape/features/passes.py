"""One pass of a data set through any model: the features, labels and predictions that every analysis takes.

The pass neither shuffles nor augments (that is the loader's part), runs in evaluation mode without gradients, and
leaves the model's mode and the global generators as it found them.
"""

import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lightning_repshape.errors import DataError
from lightning_repshape.features.reader import LayerReader, Unpack, unpack_samples
from lightning_repshape.layers import evaluating
from lightning_repshape.terminal.progress import task


class Features(NamedTuple):
    """What a pass collected, on the CPU, in the order of the data set.

    Attributes:
        features: float32 N x D.
        labels: int64 N; -1 where unknown.
        logits: float32 N x K, where the layer's owner also gave logits; else None.
    """

    features: Tensor
    labels: Tensor
    logits: Tensor | None


class _Rows:
    """Grows an array chunk by chunk, in memory or, from a number of bytes on, in a file that is mapped to memory."""

    def __init__(self, spill_bytes: float) -> None:
        self.spill_bytes = spill_bytes
        self.chunks: list[np.ndarray[Any, Any]] = []
        self.file: Any = None
        self.bytes = 0
        self.shape: tuple[int, ...] = ()

    def append(self, values: Tensor) -> None:
        chunk = values.numpy()
        if self.shape and self.shape[1:] != chunk.shape[1:]:
            raise DataError(
                f"the layer gives {chunk.shape[1]} values a sample in one batch and {self.shape[1]} in another, as "
                "inputs of different lengths do; bring them to one length, or name a layer behind the pooling"
            )
        self.shape = (self.shape[0] + chunk.shape[0] if self.shape else chunk.shape[0], *chunk.shape[1:])
        self.bytes += chunk.nbytes
        if self.file is None and self.bytes > self.spill_bytes:
            # Unlinked at once: the space is given back when the last array that maps it is gone.
            self.file = tempfile.TemporaryFile(prefix="features-")
            for earlier in self.chunks:
                self.file.write(np.ascontiguousarray(earlier).tobytes())
            self.chunks.clear()
        if self.file is None:
            self.chunks.append(chunk)
        else:
            self.file.write(np.ascontiguousarray(chunk).tobytes())

    def tensor(self) -> Tensor:
        if self.file is None:
            return torch.from_numpy(np.concatenate(self.chunks))
        self.file.flush()
        return torch.from_numpy(np.memmap(self.file, dtype=np.float32, mode="r+", shape=self.shape))


def room_for(shape: Sequence[int], dtype: torch.dtype = torch.float32, spill_gb: float = 4.0) -> Tensor:
    """An array of any content: in memory or, above ``spill_gb`` gigabytes, in a mapped temporary file."""
    if math.prod(shape) * dtype.itemsize <= spill_gb * 2**30:
        return torch.empty(tuple(shape), dtype=dtype)
    numbers = torch.empty(0, dtype=dtype).numpy().dtype
    # Unlinked at once: the space is given back when the array that maps it is gone.
    with tempfile.TemporaryFile(prefix="features-") as file:
        return torch.from_numpy(np.memmap(file, dtype=numbers, mode="w+", shape=tuple(shape)))


@torch.no_grad()
def extract_features(
    model: nn.Module,
    batches: Iterable[Any],
    layer: str = "features",
    unpack: Unpack = (0, 1),
    device: torch.device | str | None = None,
    spill_gb: float = 4.0,
    progress: Callable[[int], None] | None = None,
    text: str = "taking features",
    total: int | None = None,
) -> Features:
    """Runs batches through a model and collects one layer's activations, labels and logits on the CPU.

    Args:
        model: Any module.
        batches: Batches, neither shuffled nor augmented.
        layer: See :class:`LayerReader`. Default: this package's ``"features"``.
        unpack: Positions or keys of inputs and labels in a batch.
        device: Where the model runs. Default: where its parameters are.
        spill_gb: Features of more than so many gigabytes go to a temporary file that is mapped to memory.
        progress: Called with the number of samples after each batch.
        text: What the pass is called where progress is shown (:mod:`lightning_repshape.terminal.progress`).
        total: How many samples there are. Default: those of the loader's data set, where there is one.

    Raises:
        ConfigError: If layer or unpack do not fit.
        DataError: If there are no batches, or labels are missing or no integers.
    """
    reader = LayerReader(model, layer)
    parameter = next(iter(model.parameters()), None)
    place = torch.device(device) if device is not None else parameter.device if parameter is not None else None
    rows, all_logits = _Rows(spill_gb * 2**30), []
    all_labels: list[Tensor] = []
    devices = [place] if place is not None and place.type == "cuda" else []
    dataset = getattr(batches, "dataset", None)
    total = len(dataset) if total is None and dataset is not None and hasattr(dataset, "__len__") else total
    with evaluating(model), torch.random.fork_rng(devices=devices), task(text, total) as advance:
        for batch in batches:
            x, labels = unpack_samples(batch, unpack)
            if place is not None:
                x = moved(x, place)
            values, logits = reader(x)
            if values.shape[0] != labels.shape[0]:
                raise DataError(
                    f"layer {layer!r} gives {values.shape[0]} rows for a batch of {labels.shape[0]} labels; name a "
                    "layer that gives one row a sample"
                )
            rows.append(values.float().cpu())
            all_labels.append(labels.cpu())
            if logits is not None:
                all_logits.append(logits.float().cpu())
            advance(labels.shape[0])
            if progress is not None:
                progress(labels.shape[0])
    if not all_labels:
        raise DataError("there are no samples to take features from")
    labels = torch.cat(all_labels)
    return Features(rows.tensor(), labels, torch.cat(all_logits) if len(all_logits) == len(all_labels) else None)


def moved(x: Any, place: torch.device) -> Any:
    """Inputs on a device: a tensor, or those of a mapping or a sequence."""
    if isinstance(x, Tensor):
        return x.to(place)
    if isinstance(x, dict):
        return type(x)({key: moved(value, place) for key, value in x.items()})
    return type(x)(moved(value, place) for value in x) if type(x) in (list, tuple) else x


def save_features(
    path: str | Path, features: Features, test: Features | None = None, test_ids: Sequence[Any] | None = None
) -> None:
    """Writes an ``.npz`` file, as ``lightning-repshape analyze --features`` and ``compare`` read it.

    Features of a test set have names that begin with ``test_``; ``test_ids`` are N numbers or names, one for each of
    its samples, by which ``compare`` knows that two files hold the same samples.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for prefix, part in (("", features), ("test_", test)):
        if part is not None:
            arrays |= {f"{prefix}features": part.features.numpy(), f"{prefix}labels": part.labels.numpy()}
            if part.logits is not None:
                arrays[f"{prefix}logits"] = part.logits.numpy()
    if test_ids is not None:
        arrays["test_ids"] = np.asarray(test_ids)
    np.savez(path, allow_pickle=False, **arrays)
