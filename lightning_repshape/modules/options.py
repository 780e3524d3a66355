"""Options of modules: the names of those that all share, and what of them goes into a checkpoint."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypedDict

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from lightning_repshape.networks.base import Options

__all__ = ["NOT_PLAIN", "Optimization", "Options", "Schedule", "Shared", "SharedButOptimizer", "View", "as_plain"]


class Schedule(TypedDict, total=False):
    """When the learning rate changes."""

    lr_scheduler: LRSchedulerCallable | None
    lr_scheduler_interval: Literal["epoch", "step"]


class Optimization(Schedule, total=False):
    """How parameters are updated."""

    optimizer: OptimizerCallable


class View(TypedDict, total=False):
    """What is looked at, and how it lies in memory."""

    statistics_layer: str | None
    channels_last: bool
    test_flip: bool


class Shared(Optimization, View, total=False):
    """What every classifier has; see :class:`lightning_repshape.modules.ClassifierModule`."""


class SharedButOptimizer(Schedule, View, total=False):
    """The same for modules that have an optimizer of their own by default."""


NOT_PLAIN = object()
"""Stands for a value that :func:`as_plain` cannot make plain."""


def as_plain(value: object) -> object:
    """A value made of numbers, strings, lists and dictionaries alone, as ``torch.load(weights_only=True)`` takes it.

    A dataclass becomes a dictionary; :data:`NOT_PLAIN` stands for classes, functions, modules and what holds some.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return value if _is_plain(value) else NOT_PLAIN


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)
