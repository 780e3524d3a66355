"""Options with other names: former ones are translated where a run is read, and refused where users write."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_repshape import configs_library

_SECOND_SET = re.compile(r"--transfer(?=[.=]|$)")


def with_second_set(words: Sequence[str]) -> list[str]:
    """Words of ``analyze`` and ``compare`` with ``--other`` where ``--transfer``, its other name, stands."""
    if not any(word.partition("=")[0] == "--transfer" for word in words):  # an analysis of one's own may be called so
        return list(words)
    return [_SECOND_SET.sub("--other", word) for word in words]


def new_name(option: str, accepted: Iterable[str]) -> str | None:
    """The name that an option has now, where it is ``accepted``: which class those belong to, a parser does not say."""
    from lightning_repshape.modules.foca.renamed import RENAMED

    new = RENAMED.get(option)
    groups = {name.partition(".")[0] for name in accepted}
    return new if new is not None and new.partition(".")[0] in groups else None


def current_options(class_path: str, init_args: Mapping[str, Any]) -> dict[str, Any]:
    """A class's options, as a run's config or a checkpoint holds them, under today's names."""
    if class_path.rpartition(".")[2] != "FOCAModule":
        return dict(init_args)
    from lightning_repshape.modules.foca.renamed import current_options as current

    return current(init_args)


def current_config(path: Path) -> str:
    """A run's ``config.yaml`` for the parser: its path, or its content as YAML where that has old names."""
    try:
        content = configs_library.read(path)
        model = content["model"]
        options = current_options(model["class_path"], model["init_args"])
    except (KeyError, TypeError):  # the parser says what is wrong
        return str(path)
    if options == model["init_args"]:
        return str(path)
    model["init_args"] = options
    return yaml.safe_dump(content, default_flow_style=True, width=float("inf"))
