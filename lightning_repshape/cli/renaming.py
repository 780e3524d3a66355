"""Options that had other names before: translated where a run is read, refused with the new name where users write."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_RENAMED_IN = "FOCAModule"


def renamed_options(class_path: str) -> Mapping[str, str]:
    """The options of a class that have other names now.

    Args:
        class_path: The class, with or without its module.

    Returns:
        New names by old ones.
    """
    if class_path.rpartition(".")[2] != _RENAMED_IN:
        return {}
    from lightning_repshape.modules.foca.renamed import RENAMED

    return RENAMED


def current_options(class_path: str, init_args: Mapping[str, Any]) -> dict[str, Any]:
    """A class's options under today's names.

    Args:
        class_path: The class, with or without its module.
        init_args: Its options, as a run's config or a checkpoint holds them.

    Returns:
        The same options.
    """
    if not renamed_options(class_path).keys() & init_args.keys():
        return dict(init_args)
    from lightning_repshape.modules.foca.renamed import current_options as current

    return current(init_args)


def current_config(path: Path) -> str:
    """A run's config for the parser: the file, or its content where that has old names.

    Args:
        path: A run's ``config.yaml``.

    Returns:
        The path, or YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        model = content["model"]
        kind, options = model["class_path"], model["init_args"]
    except (yaml.YAMLError, KeyError, TypeError):  # the parser says what is wrong
        return str(path)
    if not renamed_options(kind).keys() & options.keys():
        return str(path)
    model["init_args"] = current_options(kind, options)
    return yaml.safe_dump(content, default_flow_style=True, width=float("inf"))
