"""What a run's config and a checkpoint may name: they are data, but a class path is imported and called."""

import importlib
import importlib.util
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO, LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_repshape.errors import ConfigError

_OURS = "lightning_repshape"
_LIBRARIES = ("lightning", "torch", "torchmetrics", "torchvision")
# What configs are made of. Anything else of a library can do anything: torch.os.popen is Python's.
_KINDS = (
    *(nn.Module, Optimizer, LRScheduler, Callback, LightningDataModule, Logger, Profiler, Strategy, Accelerator),
    *(Precision, CheckpointIO, ClusterEnvironment, LayerSync),
)


def names_in(content: Any, folders: Sequence[Path] = ()) -> list[str]:
    """All that the parser could import for a config or for hyper-parameters.

    Args:
        content: Plain data. Texts are read as the parser reads them: as YAML, too.
        folders: Where the parser would look for files that texts name, whose content it takes in their place.

    Returns:
        Dotted names, each once.
    """
    return list(dict.fromkeys(_names(content, folders, {})))


def _names(content: Any, folders: Sequence[Path], seen: dict[Any, Any]) -> Iterator[str]:
    key = content if isinstance(content, str) else id(content)
    if key in seen:  # YAML can hold a value many times, and within itself
        return
    seen[key] = content
    if isinstance(content, str):
        parts = content.strip().split(".")
        if len(parts) > 1 and all(part.isidentifier() for part in parts):
            yield content.strip()
        for text in (content, *_files(content, folders)):
            yield from _names(_loaded(text), folders, seen)
    elif isinstance(content, Mapping | list | tuple | set):
        for value in content.values() if isinstance(content, Mapping) else content:
            yield from _names(value, folders, seen)


def _loaded(text: str) -> Any:
    try:
        return get_loader("yaml")(text)  # the parser's own, which knows no dates
    except (yaml.YAMLError, ValueError, RecursionError):  # here as there
        return None


def _files(text: str, folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        try:
            if (folder / text).is_file():
                yield (folder / text).read_text(encoding="utf-8")
        except (OSError, ValueError):  # no path, or no text
            continue


def strangers(names: Collection[str], named: Collection[str]) -> list[str]:
    """The names that would bring in code which nobody has asked for.

    Args:
        names: What a file names.
        named: What the user has named.

    Returns:
        Those that can be imported and are neither named by the user, nor classes of this package, nor what configs are
        made of (modules, optimizers, callbacks, ...) in the libraries below it or among what is imported already.
    """
    return [name for name in names if name not in named and not _is_known(name) and _is_there(name.partition(".")[0])]


def _is_there(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except ValueError:
        return True


def _is_known(name: str) -> bool:
    """Whether a name is of a class of this package or of a kind that configs are made of, and imports nothing new."""
    if name.partition(".")[0] not in (_OURS, *_LIBRARIES) and name.rpartition(".")[0] not in sys.modules:
        return False
    try:
        found = _imported(name)
    except (ImportError, AttributeError):  # the parser says so
        return True
    if not isinstance(found, type):
        return False
    package, *room = found.__module__.split(".")[:2]
    return room not in (["cli"], ["studies"]) if package == _OURS else issubclass(found, _KINDS)


def _imported(name: str) -> Any:
    """What the parser would find under a name."""
    module, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), last)
    except ModuleNotFoundError:
        outer, _, inner = module.rpartition(".")
        if not outer:
            raise
        return getattr(getattr(importlib.import_module(outer), inner), last)


def ask_for_trust(words: Sequence[str], own: Sequence[Path], of_runs: Sequence[Path]) -> None:
    """Refuses configs of runs that name code which neither the words nor the user's own configs name."""
    named = named_by(words, own) if of_runs else []
    for path in of_runs:
        if unknown := strangers(_names_of(path), named):
            raise ConfigError(
                f"{path} names {', '.join(unknown)}: no classes of this package, PyTorch or Lightning, and their code "
                "would run. Give --trust if the run is yours, or of somebody whose code you would run"
            )


def named_by(words: Sequence[str], configs: Sequence[Path]) -> list[str]:
    """What words of the command line and configs name."""
    values = [word.partition("=")[2] if word.startswith("--") else word for word in words]
    values += [part for value in values for part in value.split(",")]  # such as several analyses
    return [*names_in(values), *(name for path in configs for name in _names_of(path))]


def _names_of(config: Path) -> list[str]:
    try:
        return names_in(config.read_text(encoding="utf-8"), [Path(), config.parent])
    except (OSError, UnicodeDecodeError):  # the parser says what is wrong
        return []
