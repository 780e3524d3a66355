"""The shipped configs: where they are, and how a name becomes a file."""

from pathlib import Path

from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.runs.folders import CONFIG


def folder() -> Path:
    """The folder of the shipped configs: inside an installed package, or beside the package in a checkout.

    Raises ConfigError if the installation holds none.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "configs", package.parent / "configs"):
        if candidate.is_dir():
            return candidate
    raise ConfigError(f"the shipped configs are missing beside {package}; install the package anew")


def names() -> list[str]:
    """The sorted names, such as ``quickstart`` or ``base/mnist-mlp``, of all shipped configs, top level first."""
    root = folder()
    found = [path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")]
    found = [name for name in found if not name.startswith("rows/")]  # studies: lightning_repshape.studies.reading
    return sorted(found, key=lambda name: (name.count("/"), name))


def find(name: str) -> Path:
    """Finds a config: a file as given, or a shipped config by its name, with or without ``configs/`` and ``.yaml``.

    Raises ConfigError if there is neither; the message names the nearest shipped configs.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir() and (path / CONFIG).is_file():
        return path / CONFIG
    root = folder()
    relative = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    for candidate in (root / relative, root / f"{relative}.yaml"):
        if candidate.is_file() and not path.is_absolute():
            return candidate
    raise ConfigError(f"config {name!r} is neither a file nor a shipped config{did_you_mean(name, names())}")


def description(name: str) -> str:
    """The first comment line of a shipped config without ``#``; empty where the file starts otherwise."""
    with find(name).open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ").strip() if first.startswith("#") else ""
