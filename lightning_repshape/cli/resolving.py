"""The words of a call, made ready for the parser: shipped configs become files, and a run's own config is added."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_repshape import configs_library
from lightning_repshape.cli.renaming import current_config
from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.runs.folders import CONFIG, given_path, is_run_folder, run_of_checkpoint
from lightning_repshape.runs.trust import ask_for_trust


def resolve_configs(command: str, words: list[str]) -> tuple[list[str], list[Path]]:
    """Replaces names of shipped configs by files, and adds the config of the run that ``--run_dir`` names.

    Returns words for the parser, and the config files in order; a ConfigError if there is no such config.
    """
    resolved: list[str] = []
    configs: list[Path] = []
    values: dict[str, str] = {}
    takes_config = False

    def take(name: str) -> str:
        configs.append(configs_library.find(name))
        configs_library.read(configs[-1])
        return current_config(configs[-1]) if of_a_run(configs[-1]) else str(configs[-1])

    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if takes_config:
            resolved.append(take(word))
            takes_config = False
        elif name in ("--config", "-c") and equals:
            resolved.append(f"{name}={take(value)}")
        else:
            takes_config = name in ("--config", "-c")
            if name in ("--run_dir", "--ckpt_path"):
                values[name] = value if equals else "".join(words[position + 1 : position + 2])
            resolved.append(word)
    run_dir = values.get("--run_dir")
    run_dir = str(given_path(run_dir, "--run_dir")) if run_dir else None
    checkpoint = values.get("--ckpt_path", "")
    checkpoint = str(given_path(checkpoint, "--ckpt_path")) if checkpoint else ""
    if not run_dir and checkpoint and checkpoint not in ("best", "last"):
        found = run_of_checkpoint(checkpoint)
        run_dir = str(found) if found is not None else None
    reads_run = command != "fit" or bool(checkpoint)
    given = list(configs)
    if run_dir and reads_run and not configs and (Path(run_dir) / CONFIG).is_file():
        resolved = ["--config", take(str(Path(run_dir) / CONFIG)), *resolved]
    elif run_dir and reads_run and not configs and not any(word.startswith("--model") for word in words):
        folder = Path(run_dir)
        runs = [path.name for path in folder.parent.glob("*") if is_run_folder(path)]
        near = did_you_mean(folder.name, runs) if runs else ""
        raise ConfigError(f"{folder} is no run's folder: it has no {CONFIG}{near}")
    if "--trust" not in words:
        own = [path for path in given if not of_a_run(path)]
        ask_for_trust(words, own, [path for path in configs if path not in own])
    return resolved, configs


def said(key: str, options: Sequence[str], words: Sequence[str], configs: Sequence[Path]) -> Iterator[Any]:
    """What configs and then the command line's options say under a key, before there is a parser; the last counts."""
    for path in configs:
        content = configs_library.read(path) if path.is_file() else {}
        if isinstance(content, dict) and key in content:
            yield content[key]
    for position, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in options:
            yield value if equals else "".join(words[position + 1 : position + 2])


def of_a_run(config: Path) -> bool:
    """Whether a config is a run's own."""
    return config.name == CONFIG and is_run_folder(config.parent)
