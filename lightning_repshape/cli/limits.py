"""Values that the trainer's options cannot have, told before anything is made, or once Lightning refuses them."""

import math
import re
import traceback
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_repshape.data.loading import most_processes
from lightning_repshape.errors import ConfigError, RepshapeError

# least value, and what stands below it for something else
_LEAST: dict[str, tuple[float, str]] = {
    "max_epochs": (-1, " (-1: without end)"),
    "min_epochs": (0, ""),
    "max_steps": (-1, " (-1: without end)"),
    "min_steps": (0, ""),
    "num_nodes": (1, ""),
    "devices": (1, ""),
    "accumulate_grad_batches": (1, ""),
    "limit_train_batches": (0, ""),
    "limit_val_batches": (0, ""),
    "limit_test_batches": (0, ""),
    "limit_predict_batches": (0, ""),
    "overfit_batches": (0, ""),
    "check_val_every_n_epoch": (1, ""),
    "log_every_n_steps": (0, ""),
    "num_sanity_val_steps": (-1, " (-1: the whole set)"),
    "gradient_clip_val": (0, ""),
    "reload_dataloaders_every_n_epochs": (0, ""),
    "fast_dev_run": (0, ""),
}
# of Lightning's callbacks, which do not look themselves
_LEAST_OF_CALLBACKS = {
    "EarlyStopping": {"patience": 0},
    "LearningRateFinder": {"min_lr": 0, "max_lr": 0, "num_training_steps": 1},
    "BatchSizeFinder": {"init_val": 1, "steps_per_trial": 1, "max_trials": 1},
}
_PARTS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches")
_SEEDS = 2**32  # NumPy takes no more
_THREADS = 1024  # more of them end the process, not the call


def check_limits(options: Mapping[str, Any]) -> None:
    """Looks whether the numbers of a command can be.

    Args:
        options: The command's options.

    Raises:
        ConfigError: If one cannot.
    """
    trainer = options["trainer"]
    if not hasattr(trainer, "get"):
        raise ConfigError(f"trainer is {trainer!r}, but options such as trainer.max_epochs are expected")
    for name, (least, more) in _LEAST.items():
        value = _number(trainer.get(name))
        if name == "devices" and value == -1:
            continue  # all of them
        if value is not None and not value >= least:
            raise ConfigError(f"trainer.{name} is {trainer[name]}, but it must be at least {least:g}{more}")
    _check_callbacks(trainer.get("callbacks"))
    for name in _PARTS:
        value = _number(trainer.get(name))
        if value is not None and value > 1 and not value.is_integer():
            raise ConfigError(f"trainer.{name} is {trainer[name]}, but it must be a part up to 1.0, or a whole number")
    for name in ("max_time", "val_check_interval"):
        _check_time(f"trainer.{name}", trainer.get(name))
    _check_devices(trainer.get("devices"))
    interval = _number(trainer.get("val_check_interval"))
    if interval is not None and not (interval > 0 and (interval <= 1 or interval.is_integer())):
        raise ConfigError(
            f"trainer.val_check_interval is {trainer['val_check_interval']}, but it must be a part of an epoch above "
            "0, or a whole number of batches"
        )
    seed = _number(options.get("seed_everything"))
    if seed is not None and not 0 <= seed < _SEEDS:
        raise ConfigError(f"seed_everything is {options['seed_everything']}, but it must be from 0 to {_SEEDS - 1:,}")
    threads = options.get("threads")
    if threads is not None and not 1 <= threads <= _THREADS:
        raise ConfigError(f"--threads is {threads}, but it must be from 1 to {_THREADS}")


def refusal(error: BaseException, building: bool = False) -> ConfigError | None:
    """What Lightning itself refuses, as wrong usage: an interval beyond an epoch, a part below one batch.

    Args:
        error: What ended a command.
        building: Whether the config's objects were being made: a value that any of them refuses is the config's.

    Returns:
        The error to raise in its place; None where nothing that was asked for was refused.
    """
    causes = [error]
    while causes[-1].__cause__ is not None:  # parsers wrap what constructors raise
        causes.append(causes[-1].__cause__)
    if any(isinstance(cause, RepshapeError) for cause in causes):
        return None  # it says what was wrong
    frames = [frame for frame, _ in traceback.walk_tb(causes[-1].__traceback__)]
    where = frames[-1].f_globals.get("__name__", "") if frames else ""
    kinds = [MisconfigurationException, ArithmeticError, ImportError, ValueError]
    if where.startswith("lightning.pytorch.callbacks."):  # elsewhere, PyTorch's own would be among them
        kinds.append(RuntimeError)
    if building and type(causes[-1]) is ValueError:
        return ConfigError(str(causes[-1]))
    own = where.startswith("lightning.") and isinstance(causes[-1], tuple(kinds))
    return ConfigError(f"trainer: {causes[-1]}") if own else None


def _check_callbacks(callbacks: Any) -> None:
    """Refuses values with which Lightning's callbacks stop at once, divide by zero or leave the numbers."""
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        name = str((callback or {}).get("class_path", "")).rpartition(".")[2]
        for option, least in _LEAST_OF_CALLBACKS.get(name, {}).items():
            value = _number((callback.get("init_args") or {}).get(option))
            if value is not None and not value >= least:
                raise ConfigError(f"{name}: {option} is {value:g}, but it must be at least {least}")


def _check_devices(value: Any) -> None:
    """Refuses more processes than any machine has use for: on a CPU, every device is one."""
    most, number = most_processes(), _number(value)
    if number is not None and number > most:
        raise ConfigError(f"trainer.devices is {value}, but this machine can use no more than {most} of them")


def _check_time(name: str, value: Any) -> None:
    """Refuses a time that is none, in each form that the trainer takes: text, parts by their units, a ``timedelta``."""
    parts = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", value.strip()) if isinstance(value, str) else None
    if parts is not None:
        value = dict(zip(("days", "hours", "minutes", "seconds"), map(int, parts.groups()), strict=True))
    try:
        time = timedelta(**value) if isinstance(value, Mapping) else value
    except (OverflowError, TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from error
    if isinstance(time, timedelta) and not time > timedelta():
        raise ConfigError(f"{name} is {time}, but it must be above 0")


def _number(value: Any) -> float | None:
    """The number that an option is, in whatever form it came; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf
