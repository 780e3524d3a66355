"""One layer's features of a whole data set, of any model."""

from lightning_repshape.features.passes import Features, extract_features, room_for, save_features
from lightning_repshape.features.reader import PRE, LayerReader, Unpack, unpack_batch

__all__ = [
    "PRE",
    "Features",
    "LayerReader",
    "Unpack",
    "extract_features",
    "room_for",
    "save_features",
    "unpack_batch",
]
