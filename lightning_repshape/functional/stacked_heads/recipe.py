"""How a head is trained from scratch on fixed features: one recipe for every method that is compared."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from lightning_repshape.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Descent:
    """A head's shape, and its full-batch gradient descent with momentum: what every recipe of a head has.

    Attributes:
        hidden: Widths of the hidden layers; empty for a linear head.
        updates: Number of updates.
        rate: Learning rate.
        momentum: Momentum.
        nesterov: Whether momentum is Nesterov's.
        weight_decay: lambda in front of the sum of squares of all parameters (torch's ``weight_decay`` is twice that).
        init_std: Standard deviation of the initial weights.

    Raises:
        ConfigError: If a value is out of its range.
    """

    prefix: ClassVar[str] = "a head's "
    """What messages put before the name of an option."""

    hidden: tuple[int, ...] = (128, 128)
    updates: int | None = None
    rate: float | Literal["auto"] = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    init_std: float = 0.1
    nesterov: bool = False

    def __post_init__(self) -> None:
        """Checks the values."""
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for width in self.hidden:
            check_counts(self.prefix, hidden=width)
        check_counts(self.prefix, updates=self.updates)
        if self.rate != "auto":
            check_above_zero(self.prefix, rate=self.rate)
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"{self.prefix}momentum is {self.momentum}, but it must be at least 0 and below 1")
        if self.nesterov and self.momentum == 0:
            raise ConfigError(f"{self.prefix}nesterov needs a momentum above 0")
        for name, value in (("weight_decay", self.weight_decay), ("init_std", self.init_std)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"{self.prefix}{name} is {value}, but it must be a finite number that is not below 0")


@dataclasses.dataclass(frozen=True)
class HeadRecipe(Descent):
    """How a head is trained from scratch on frozen features: FOCA's secondary head, heads of partial retraining.

    FOCA's paper publishes the widths and the standard deviation alone.

    Attributes:
        hidden: Widths of the hidden layers; empty for a linear head. The paper: (128, 128).
        updates: Number of updates.
        rate: Learning rate.
        momentum: Momentum.
        nesterov: Whether momentum is Nesterov's.
        weight_decay: lambda in front of the sum of squares of all parameters (torch's ``weight_decay`` is twice that).
            Eq. 5 has none: 0 is allowed.
        init_std: Standard deviation of the initial weights.
        batch_size: Samples of an update where there are more. Default: all, whose price is that of as many epochs as
            updates.
        feature_norm: Mean norm that features are brought to by one number, so that one recipe serves every method
            (raw norms differ by 10 to 100 times between them); None: as they are.

    Raises:
        ConfigError: If a value is out of its range.
    """

    updates: int = 200
    rate: float = 0.02
    batch_size: int | None = None
    feature_norm: float | None = 5.0

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        check_counts(self.prefix, batch_size=self.batch_size)
        check_above_zero(self.prefix, feature_norm=self.feature_norm)


def check_counts(prefix: str, **counts: int | None) -> None:
    """Raises ConfigError if an option that counts something is below 1; messages begin with ``prefix``; None passes."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{prefix}{name} is {value}, but at least 1 is needed")


def check_above_zero(prefix: str, **values: float | None) -> None:
    """Raises ConfigError if an option is not above 0; messages begin with ``prefix``; None passes."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{prefix}{name} is {value}, but it must be above 0 (or null where it may be left out)")
