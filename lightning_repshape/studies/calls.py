"""The words of ``fit`` that train a row, and what a training consists of, in short."""

import copy
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.studies.reading import find_row, is_number, read_yaml
from lightning_repshape.studies.rows import Row, Variant, as_word


def row_words(row: Row, variant: Variant) -> list[str]:
    """The words of ``fit`` that train a row: configs and options, but neither a run folder nor where the data are.

    Raises:
        ConfigError: If the row has no such value, or a budget cannot be taken of it.
    """
    configs, overrides = _call(row, variant)
    words = [word for path in configs for word in ("--config", str(path))]
    words += [word for option, value in overrides.items() for word in (f"--{option}", as_word(value))]
    return [*words, "--then_test", "true", "--seed_everything", str(variant.seed)]


def digest(row: Row, variant: Variant) -> str:
    """What a training consists of, in short: equal for equal configs' contents and overrides; the seed plays no part.

    Sixteen hexadecimal digits. Raises what :func:`row_words` raises.
    """
    configs, overrides = _call(row, variant)
    parts: list[Any] = [[read_yaml(path) for path in configs], overrides]
    parts += [] if row.start is None else [digest(row.start, variant)]
    content = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


_OF_NETWORK = ("backbone", "head", "optimizer", "lr_scheduler", "lr_scheduler_interval", "channels_last")


def alike(row: Row, variant: Variant) -> str:
    """What trainings have in common that can be stacked: all but seed, method and penalties; equal for equal ones.

    Raises what :func:`row_words` raises.
    """
    content = _composed(*_call(row, variant))
    content.pop("seed_everything", None)
    own = _at(content, "model.init_args") or {}
    content["model"] = {name: own[name] for name in _OF_NETWORK if name in own}
    return json.dumps(content, sort_keys=True, default=str)


def _call(row: Row, variant: Variant) -> tuple[list[Path], dict[str, Any]]:
    """The configs and the overrides of a training."""
    configs, overrides = list(row.configs), dict(row.overrides)
    if variant.retrain and row.retrain is not None:
        configs += row.retrain[0]
        overrides |= row.retrain[1]
    if variant.value is not None:
        if row.select is None:
            raise ConfigError(f"{row.id} chooses nothing by validation, so it takes no value ({variant.value})")
        overrides[row.select.option] = yaml.safe_load(variant.value)
    composed = _composed(configs, overrides)
    if variant.epochs != 1:
        overrides |= _scaled(row, composed, variant.epochs)
    if variant.train_size is not None:
        present = _at(composed, "data.init_args.train_size")
        if not isinstance(present, int) or isinstance(present, bool) or present > variant.train_size:
            overrides["data.init_args.train_size"] = variant.train_size
    return configs, overrides


def _composed(configs: Iterable[Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The configs one upon the other, as far as budgets need to know them."""
    content: dict[str, Any] = {}
    for path in configs:
        loaded = read_yaml(path)
        _merge(content, copy.deepcopy(loaded) if isinstance(loaded, dict) else {})
    for option, value in overrides.items():
        *folders, last = option.split(".")
        own = content
        for name in folders:
            if not isinstance(own.get(name), dict):
                own[name] = {}
            own = own[name]
        own[last] = copy.deepcopy(value)  # a later option may reach into it
    return content


def _merge(base: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _at(content: Any, path: str) -> Any:
    for name in path.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


# What counts epochs or steps in schedulers' options and in regularizers' schedules.
_LENGTHS = ("milestones", "T_max", "step_size", "total_iters", "total_steps", "warmup_epochs")


def _scaled(row: Row, composed: dict[str, Any], fraction: float) -> dict[str, Any]:
    """Epochs, steps and all that is counted in them, times a fraction; each stays at least 1."""

    def part(length: float) -> int:
        return max(1, round(length * fraction))

    scaled: dict[str, Any] = {}
    for option in ("trainer.max_epochs", "trainer.max_steps"):
        length = _at(composed, option)
        if isinstance(length, int) and length > 0:
            scaled[option] = part(length)
    if not scaled:
        raise ConfigError(f"{row.id} sets neither trainer.max_epochs nor trainer.max_steps, so it takes no budget")
    every, epochs = _at(composed, "trainer.check_val_every_n_epoch"), scaled.get("trainer.max_epochs")
    if isinstance(every, int) and epochs is not None and every > epochs:
        scaled["trainer.check_val_every_n_epoch"] = epochs  # else there would be nothing to choose by
    for option, length in _leaves(composed.get("model"), "model"):
        name = option.rpartition(".")[2]
        if name not in _LENGTHS:
            continue
        if isinstance(length, list) and all(isinstance(item, int) for item in length):
            scaled[option] = [part(item) for item in length]
        elif is_number(length) and length > 0:
            scaled[option] = part(length) if isinstance(length, int) else length * fraction
    return scaled


def _leaves(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, f"{path}.{key}")
    else:
        yield path, content


def import_beside(row: Row) -> None:
    """Lets Python import what stands beside the study of a row: a user's own data and networks."""
    if row.beside is not None and str(row.beside) not in sys.path:
        sys.path.append(str(row.beside))


def about(row: Row, variant: Variant) -> dict[str, Any]:
    """What a run's manifest says of the row that it trains, and of how much of it: plain data."""
    return {"row": row.trained_as, **dataclasses.asdict(variant), "digest": digest(row, variant)}


_ROW_OPTIONS = ("--row", "--row.value", "--row.budget", "--row.train_size", "--row.retrain")


def take_row(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Replaces ``--row ID`` and the options on it by what they stand for.

    The options are ``--row.value``, ``--row.budget`` (a fraction of the epochs), ``--row.train_size`` and
    ``--row.retrain`` (true or false). Words that stand behind come later on the new command line, too.

    Returns:
        The words without them, and what the run's manifest says of them: empty where there is no ``--row``.

    Raises:
        ConfigError: If the row is unknown or an option is wrong.
    """
    given: dict[str, str] = {}
    rest: list[str] = []
    at: int | None = None
    taking = ""
    for word in words:
        name, equals, value = word.partition("=")
        if taking:
            given[taking], taking = word, ""
        elif name == "--row" or name.startswith("--row."):
            if name not in _ROW_OPTIONS:
                raise ConfigError(f"there is no option {name!r}{did_you_mean(name, _ROW_OPTIONS)}")
            at = len(rest) if at is None else at
            if equals:
                given[name] = value
            else:
                taking = name
        else:
            rest.append(word)
    if taking:
        raise ConfigError(f"{taking} needs a value behind it")
    if not given:
        return list(words), {}
    if "--row" not in given:
        raise ConfigError(f"{next(iter(given))} is an option on a row: name the row with --row ID")
    row = find_row(given["--row"])
    import_beside(row)
    seed = _seed_given(rest)
    variant = Variant(
        seed=row.seeds[0] if seed is None else seed,
        value=given.get("--row.value"),
        epochs=_number(given, "--row.budget", float, 1.0),
        train_size=_number(given, "--row.train_size", int, None),
        retrain=_truth(given, "--row.retrain"),
    )
    if row.select is not None and variant.value is not None and variant.value not in row.select.values:
        raise ConfigError(
            f"{row.id} has no value {variant.value!r} to choose from; there are: {', '.join(row.select.values)}"
        )
    own = row_words(row, variant)
    return [*rest[:at], *own, *rest[at:]], about(row, variant)


def _seed_given(words: Sequence[str]) -> int | None:
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--seed_everything":
            text = value if equals else "".join(words[position + 1 : position + 2])
            return int(text) if text.isdecimal() else None
    return None


def _number(given: Mapping[str, str], option: str, kind: type, default: Any) -> Any:
    if option not in given:
        return default
    try:
        return kind(given[option])
    except ValueError:
        raise ConfigError(f"{option} is {given[option]!r}, which is no {kind.__name__}") from None


def _truth(given: Mapping[str, str], option: str) -> bool:
    text = given.get(option, "false").lower()
    if text not in ("true", "false"):
        raise ConfigError(f"{option} is {given[option]!r}; it must be true or false")
    return text == "true"
