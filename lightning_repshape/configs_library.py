"""The shipped configs: where they are, and how a name becomes a file."""

from pathlib import Path
from typing import Any

import yaml

from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.runs.folders import CONFIG, given_path

_MOST_VALUES = 100_000
# A fragment of each method, which is added to a base and shows what the method does.
RECOMMENDED = (
    "method/plain", "method/cw-vr", "method/cw-cr", "method/foca", "method/feed-backward",
    "method/class-vectors-cosine-fixed", "method/pof",
)  # fmt: skip


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


def groups() -> dict[str, list[str]]:
    """All names by what they are for, those that most people need first."""
    every = names()
    found = {
        "whole trainings": [name for name in every if "/" not in name],
        "a fragment of each method, to be added to a base": [name for name in RECOMMENDED if name in every],
        "bases: data and a network": [name for name in every if name.startswith("base/")],
        "scenarios: less data, other widths and optimizers": [name for name in every if name.startswith("scenario/")],
    }
    rest = [name for name in every if not any(name in group for group in found.values())]
    return {**found, "further methods, as the papers have them": rest}


def find(name: str) -> Path:
    """Finds a config: a file as given, or a shipped config by its name, with or without ``configs/`` and ``.yaml``.

    Raises ConfigError if there is neither; the message names the nearest shipped configs.
    """
    path = given_path(name, "--config")
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


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML's readers drop the first without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and seen.setdefault((key.tag, key.value), key) is not key:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
        return node


def read(file: Path) -> Any:
    """A YAML file's content.

    Args:
        file: The file.

    Returns:
        What it holds, made of plain values.

    Raises:
        ConfigError: If it cannot be read, or for the reasons of :func:`parsed`.
    """
    try:
        return parsed(file, file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})") from error


def parsed(file: Path, text: bytes) -> Any:
    """What YAML holds.

    Args:
        file: Where it comes from, for messages.
        text: The YAML.

    Returns:
        Plain values.

    Raises:
        ConfigError: If it is no YAML in UTF-8, names a key twice, or holds itself or more than anybody writes.
    """
    try:
        content = yaml.load(text.decode("utf-8-sig"), _Loader)
        if _size(content, {}) > _MOST_VALUES:
            raise ConfigError(f"{file} has more than {_MOST_VALUES:,} values, with those that its references repeat")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is no text in UTF-8 (byte {error.start + 1} is {error.object[error.start]:#04x}); save it as UTF-8"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError, OverflowError) as error:  # dates and numbers that cannot be are ValueErrors
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{file} cannot be read as YAML: {reason}") from error
    return content


def _size(content: Any, sizes: dict[int, int]) -> int:
    """How many values there are, those that are referred to as often as they are."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in sizes:
        sizes[id(content)] = _MOST_VALUES  # while it is counted: whoever holds itself is endless
        parts = content.values() if isinstance(content, dict) else content
        sizes[id(content)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(content)]


def description(name: str) -> str:
    """The first comment line of a shipped config without ``#``; empty where the file starts otherwise."""
    with find(name).open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ").strip() if first.startswith("#") else ""
