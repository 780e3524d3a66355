"""Files of saved features: ``.npz`` or ``.safetensors`` with the arrays that an analysis takes in place of a model."""

import importlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_repshape.data.npy import check_header, read_member
from lightning_repshape.errors import ConfigError, DataError, did_you_mean, nearest
from lightning_repshape.features.passes import Features

_SURELY_NO_BOMB = 2**30  # bytes
_KNOWN = ("features", "labels", "logits", "weight", "bias", "class_names", "ids")
_RATIO = 100  # of what features can be packed by, generously


def read_arrays(path: Path) -> dict[str, Any]:
    """Tensors by name from an ``.npz`` or ``.safetensors`` file; ``class_names`` stays an array of strings.

    Raises:
        DataError: If the file is missing or cannot be read.
        ConfigError: If the package for its format is missing, or the format is another one.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path} with features")
    if path.suffix == ".safetensors":
        try:
            load_file = importlib.import_module("safetensors.torch").load_file
        except ImportError as error:
            raise ConfigError(
                f"{path} needs the package safetensors, which is not installed: pip install safetensors, or save .npz"
            ) from error
        try:
            return dict(load_file(str(path)))
        except Exception as error:  # the package raises errors of its own and of others
            raise DataError(f"{path} cannot be read as safetensors ({error})") from error
    if path.suffix != ".npz":
        raise ConfigError(
            f"{path}: features are read from .npz or .safetensors files, not from {path.suffix or 'this'}"
        )
    arrays = _read_npz(path)
    found: dict[str, Any] = {}
    for name, array in arrays.items():
        try:
            native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
            found[name] = array if array.dtype.kind in "US" else torch.from_numpy(native)
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}: array {name!r} of {getattr(array, 'dtype', type(array))} cannot be used"
            ) from error
    return found


def _read_npz(path: Path) -> dict[str, Any]:
    """The arrays of an archive; what its members claim is compared with what is there before any is read."""
    where = ""
    try:
        with zipfile.ZipFile(path) as packed:
            members = packed.infolist()
            if sum(member.compress_size for member in members) > path.stat().st_size:
                raise ValueError("its parts are larger than the file")
            for member in members:
                where = f"{member.filename}: "
                if member.file_size > max(_SURELY_NO_BOMB, _RATIO * member.compress_size):
                    raise ValueError(f"{member.compress_size:,} bytes claim to hold {member.file_size:,}")
                with packed.open(member) as file:
                    check_header(file, member.file_size)
            where = ""
            damaged = packed.testzip()  # a header that claims fewer numbers would be read without its checksum
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} is wrong")
            arrays = {}
            for member in members:
                where = f"{member.filename}: "
                with packed.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = read_member(file)
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as an .npz file ({where}{reason})") from error
    return arrays


def _misspelt(prefix: str, arrays: dict[str, Any]) -> bool:
    """Whether an array that nothing knows could be meant as labels."""
    rest = [name for name in arrays if not name.endswith(_KNOWN)]
    return bool(nearest(f"{prefix}labels", rest))


def splits_of(arrays: dict[str, Any], path: Path, other: bool = False, some: bool = False) -> dict[str, Features]:
    """Features of ``train`` and, where a file's arrays have them, ``val`` and ``test``.

    Labels are -1 where there are none. With ``other``, those of a second data set, whose arrays' names begin with
    ``other_``: every split where there is one. With ``some``, a test set alone will do. Raises DataError, naming the
    file, if arrays are missing or of the wrong kind.
    """
    splits = {}
    first = "other_" if other else ""
    for split, prefix in (("train", first), ("val", f"{first}val_"), ("test", f"{first}test_")):
        wanted = [f"{prefix}{name}" for name in ("features", "labels", "logits")]
        if (split != "train" and not any(name.startswith(prefix) for name in arrays)) or (
            (other or (some and "test_features" in arrays)) and not any(name in arrays for name in wanted)
        ):
            continue
        rows = arrays.get(f"{prefix}features")
        if (
            f"{prefix}labels" not in arrays
            and isinstance(rows, Tensor)
            and rows.dim()
            and not _misspelt(prefix, arrays)
        ):
            arrays = {**arrays, f"{prefix}labels": torch.full((len(rows),), -1)}
        for name in ("features", "labels"):
            if not isinstance(arrays.get(prefix + name), Tensor):
                raise DataError(
                    f"{path} has no array {prefix + name!r} of numbers{did_you_mean(prefix + name, arrays)}"
                )
        features: Tensor = arrays[f"{prefix}features"]
        labels: Tensor = arrays[f"{prefix}labels"]
        logits: Tensor | None = arrays.get(f"{prefix}logits")
        if logits is not None and not isinstance(logits, Tensor):
            raise DataError(f"{path}: {prefix}logits must be numbers, not {logits.dtype}")
        if not features.is_floating_point():
            raise DataError(f"{path}: {prefix}features must be floating-point numbers, not {features.dtype}")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.dim() != 1:
            raise DataError(
                f"{path}: {prefix}labels must be one integer a sample, not {labels.dtype}, shape {tuple(labels.shape)}"
            )
        if features.dim() < 2 or len(features) != len(labels):
            raise DataError(
                f"{path}: {prefix}features N x D and {prefix}labels N are needed, but the shapes are "
                f"{tuple(features.shape)} and {tuple(labels.shape)}"
            )
        if logits is not None and (logits.dim() != 2 or len(logits) != len(labels)):
            raise DataError(f"{path}: {prefix}logits must be N x K, but the shape is {tuple(logits.shape)}")
        values = features.flatten(1).float()
        broken = (~values.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if broken:
            raise DataError(
                f"{path}: {prefix}features has NaN or infinite values in {len(broken):,} of {len(values):,} rows, the "
                f"first is row {broken[0]} (counted from 0); leave these samples out, or save the features anew"
            )
        splits[split] = Features(values, labels.long(), None if logits is None else logits.float())
    for name, dims in (("weight", 2), ("bias", 1)) if not other else ():
        value = arrays.get(name)
        if value is None:
            continue
        known = value.dim() == dims and value.is_floating_point() if isinstance(value, Tensor) else False
        if not known:
            raise DataError(
                f"{path}: {name} must be {'K x D' if dims == 2 else 'K'} floating-point numbers, not {value.dtype} of "
                f"shape {tuple(value.shape)}"
            )
    widths = {part.features.shape[1] for part in splits.values()}
    if other and widths and isinstance(arrays.get("features"), Tensor):
        widths.add(arrays["features"].flatten(1).shape[1])
    if len(widths) > 1:
        raise DataError(f"{path}: features of the splits{' and of the second set' if other else ''} differ in width")
    return splits
