"""Analyses of the user's own, which ``--analyses`` or a config's ``analyses`` names by import path."""

import importlib
import importlib.util
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_repshape.analyses import ANALYSES, Analysis
from lightning_repshape.cli.plain import listed
from lightning_repshape.cli.resolving import said
from lightning_repshape.errors import ConfigError, did_you_mean


def own_analyses(names: str | Iterable[str] | None) -> list[type[Analysis]]:
    """The classes among names of analyses that are import paths, imported; each once.

    Raises:
        ConfigError: If one cannot be imported, or is no analysis that can run.
    """
    wanted = listed(names) if isinstance(names, str) else names or ()
    found = [_imported(name) for name in dict.fromkeys(wanted) if "." in name]
    for kind in found:
        if any(kind.kind == other.kind for other in (*ANALYSES, *found) if other is not kind):
            raise ConfigError(
                f"--analyses {kind.__module__}.{kind.__name__}: another analysis is called {kind.kind!r}; give it a "
                "kind of its own"
            )
    return found


def names_given(words: Sequence[str], configs: Sequence[Path] = ()) -> str | list[str] | None:
    """What ``--analyses`` names, else the last config that does, before there is a parser."""
    names: str | list[str] | None
    *_, names = (None, *said("analyses", ("--analyses",), words, configs))
    return names


def _imported(path: str) -> type[Analysis]:
    module, _, name = path.rpartition(".")
    try:
        there = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # of a package that is not there, or a name that is none
        there = False
    if not there:
        file = f"{module.replace('.', '/')}.py"
        raise ConfigError(f"--analyses {path}: there is no file {file} in {Path.cwd()}, and no package {module}")
    try:
        contents = importlib.import_module(module)
    except Exception as error:
        raise ConfigError(f"--analyses {path}: {module} cannot be imported: {type(error).__name__}: {error}") from error
    where = getattr(contents, "__file__", None) or module
    if not hasattr(contents, name):
        classes = [key for key, own in vars(contents).items() if inspect.isclass(own) and own.__module__ == module]
        raise ConfigError(f"--analyses {path}: {where} has no class {name!r}{did_you_mean(name, classes)}")
    kind = getattr(contents, name)
    if not inspect.isclass(kind) or not issubclass(kind, Analysis):
        raise ConfigError(f"--analyses {path}: {name} is no Analysis; derive it from lightning_repshape.Analysis")
    if inspect.isabstract(kind):
        raise ConfigError(f"--analyses {path}: {name} has no method compute(self, inputs)")
    if not isinstance(kind.kind, str) or not kind.kind.isidentifier():
        raise ConfigError(
            f"--analyses {path}: kind = {kind.kind!r} must be one word; its options and files begin with it"
        )
    return kind
