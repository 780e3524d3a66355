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

    automatic: ClassVar[bool] = False
    """Whether ``rate`` can be "auto"."""

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
        if not (self.rate == "auto" and self.automatic):
            check_above_zero(self.prefix, "'auto'" if self.automatic else "", rate=self.rate)
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

    One rule serves every method: up to 1,000 samples get 200 updates on all of them. With more, a head is trained until
    it is done, on features about their mean (which the first layer takes in afterwards), by updates on ``batch_size``
    samples. The loss on a tenth of the samples (at most 5,000), which are held out, is looked at once an epoch; after
    ``patience`` epochs without one lower by 0.001 the head goes back to its best, the rate is divided by 10, and so
    once more; its best is the result. The same is done with each unit brought to one spread besides, and that head is
    taken where its loss on the held-out samples is lower by 0.001. FOCA's paper publishes the widths and the standard
    deviation alone.

    Attributes:
        hidden: Widths of the hidden layers; empty for a linear head. The paper: (128, 128).
        updates: Number of updates, whatever the number of samples, with none held out. None: by the rule above.
        rate: Learning rate.
        momentum: Momentum.
        nesterov: Whether momentum is Nesterov's.
        weight_decay: lambda in front of the sum of squares of all parameters (torch's ``weight_decay`` is twice that).
            Eq. 5 has none: 0 is allowed.
        init_std: Standard deviation of the initial weights.
        batch_size: Samples of an update where there are more. None: all if ``updates`` is given, else 256.
        patience: Epochs without a lower loss on held-out samples.
        feature_norm: Mean norm that features are brought to by one number, so that one recipe serves every method
            (raw norms differ by 10 to 100 times between them); None: as they are.

    Raises:
        ConfigError: If a value is out of its range.
    """

    rate: float = 0.02
    batch_size: int | None = None
    patience: int = 3
    feature_norm: float | None = 5.0

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        check_counts(self.prefix, batch_size=self.batch_size, patience=self.patience)
        check_above_zero(self.prefix, "null", feature_norm=self.feature_norm)

    def held_out(self, count: int) -> int:
        """How many of ``count`` samples are held out to see when a head is done; 0: a fixed number of updates."""
        return 0 if self.updates is not None or count <= SMALL else min(count // 10, 5_000)


SMALL = 1_000
"""Up to so many samples a head gets a fixed number of full-batch updates."""


def check_counts(prefix: str, **counts: int | None) -> None:
    """Raises ConfigError if an option that counts something is below 1; messages begin with ``prefix``; None passes."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{prefix}{name} is {value}, but at least 1 is needed")


def check_above_zero(prefix: str, other: str = "", /, **values: float | str | None) -> None:
    """Raises ConfigError if an option is no number above 0; null passes where ``other``, what else it takes, has it.

    Messages begin with ``prefix``.
    """
    for name, value in values.items():
        if value is None and "null" in other:
            continue
        if isinstance(value, bool | str | None) or not value > 0:
            raise ConfigError(f"{prefix}{name} is {value}, but it must be above 0{other and f', or {other}'}")
