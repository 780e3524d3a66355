"""Optimizers in their fused form, and plateau schedulers in time for checkpoints."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_repshape.errors import ConfigError

_CAN_FUSE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)


def made(option: str, build: Callable[[Any], Any], over: Any) -> Any:
    """Calls an option that builds an optimizer or a scheduler.

    Args:
        option: Its name, for the message.
        build: The option.
        over: What it is called with.

    Returns:
        What it returns.

    Raises:
        ConfigError: If it refuses its own options, or the learning rate is not finite.
    """
    try:
        result = build(over)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ConfigError(f"{option}: {error}") from error
    rates = [group.get("lr", 0.0) for group in getattr(result, "param_groups", ())]
    if not all(math.isfinite(rate) for rate in rates):
        raise ConfigError(f"{option}: Invalid learning rate: {next(rate for rate in rates if not math.isfinite(rate))}")
    return result


def scheduled(build: Callable[[Any], Any], optimizer: torch.optim.Optimizer, another: Callable[[Any], Any]) -> Any:
    """Builds a scheduler; two steps of PyTorch's own are tried, whose constructors take what their steps cannot.

    Args:
        build: The option.
        optimizer: Whose learning rate it changes.
        another: Builds an optimizer like it, to try the steps with.

    Returns:
        The scheduler.

    Raises:
        ConfigError: If it refuses its own options, or cannot step.
    """
    scheduler = made("lr_scheduler", build, optimizer)
    if type(scheduler).__module__ != "torch.optim.lr_scheduler" or hasattr(scheduler, "monitor"):
        return scheduler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is optimized
        other = build(another([nn.Parameter(torch.zeros(1))]))
        try:
            for _ in range(2):
                other.step()
        except ArithmeticError as error:
            raise ConfigError(f"lr_scheduler: {type(scheduler).__name__} cannot step: {error}") from error
    return scheduler


def goes_with_fusion(trainer: Trainer) -> bool:
    """Whether a trainer's settings allow fused optimizers, which unscale gradients themselves.

    Under mixed precision, Lightning clips no gradients before such an optimizer.
    """
    precision = str(trainer.precision)
    return precision != "16-mixed" and not (precision.endswith("-mixed") and trainer.gradient_clip_val)


def fused(plain: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A fused optimizer over the same parameters where it exists and nothing else was chosen, else the given one.

    The given one has made no step yet. Fused Adam and SGD take about three quarters of the time of PyTorch's default on
    CPUs.
    """
    chosen = plain.defaults.get("fused") is not None or bool(plain.defaults.get("foreach"))
    parameters = [parameter for group in plain.param_groups for parameter in group["params"]]
    fits = all(
        parameter.device.type in ("cpu", "cuda", "mps") and parameter.is_floating_point() for parameter in parameters
    )
    if type(plain) not in _CAN_FUSE or chosen or not fits or plain.defaults.get("differentiable"):
        return plain
    groups = [{**group, "fused": True, "foreach": None} for group in plain.param_groups]
    return rebuilt(plain, groups, {"fused": True, "foreach": None})


def rebuilt(
    plain: torch.optim.Optimizer, groups: list[dict[str, Any]], changed: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    """An optimizer of the same kind and defaults over other groups; ``changed`` defaults replace its own."""
    known = inspect.signature(type(plain).__init__).parameters
    options = {**plain.defaults, **(changed or {})}
    arguments: dict[str, Any] = {name: value for name, value in options.items() if name in known}
    return type(plain)(groups, **arguments)


class PlateauSteps:
    """Steps schedulers that read a metric, once a value: a validation's stays where it is until the next one."""

    def __init__(self) -> None:
        self._values: dict[int, Tensor] = {}  # those that each scheduler has seen, by its id

    def step(self, scheduler: Any, monitor: str, trainer: Trainer, epoch_end: bool = True) -> None:
        """Steps a scheduler if there is a new value.

        Args:
            scheduler: A ``ReduceLROnPlateau``.
            monitor: The metric's name.
            trainer: Knows what was logged.
            epoch_end: Whether all that an epoch logs is there; within one, a value may yet come.

        Raises:
            ConfigError: If the metric was not logged, although what could log it has run.
        """
        metrics = trainer.callback_metrics
        if monitor not in metrics:
            if not epoch_end or (trainer.enable_validation and not any(key.startswith("val") for key in metrics)):
                return  # no validation has run yet (check_val_every_n_epoch)
            raise ConfigError(
                f"the scheduler monitors {monitor!r}, which is not logged; there are: {', '.join(metrics) or 'none'}"
            )
        value, seen = metrics[monitor], self._values.get(id(scheduler))
        if seen is None or value.data_ptr() != seen.data_ptr():  # Lightning hands out views of what was logged
            self._values[id(scheduler)] = value  # which keeps its memory from being used for the next value
            scheduler.step(value)
