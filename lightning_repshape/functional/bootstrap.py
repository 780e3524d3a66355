"""How sure an error is, and a difference of two classifiers' errors on the same samples."""

from typing import NamedTuple

import torch
from torch import Tensor


class PairedDifference(NamedTuple):
    """The difference of two error rates over the same samples.

    Attributes:
        difference: Error of the second minus error of the first, a fraction.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    difference: float
    low: float
    high: float


class Share(NamedTuple):
    """A share of samples, such as an error.

    Attributes:
        value: The share.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


def bootstrap_share(
    which: Tensor, level: float = 0.95, draws: int = 10_000, generator: torch.Generator | None = None
) -> Share:
    """Percentile interval of a share by a bootstrap over the samples (Efron 1979).

    The number of true ones among samples drawn with replacement is binomial, so that it is drawn itself.

    Args:
        which: N booleans, such as whether a classifier is wrong.
        level: Of the interval.
        draws: How many bootstrap samples.
        generator: Of the draws. Default: PyTorch's own.

    Raises:
        TypeError: If they are no booleans.
        ValueError: If they are not N >= 1 booleans, ``level`` is not between 0 and 1, or ``draws`` is below 1.

    Example:
        >>> import torch
        >>> found = bootstrap_share(torch.arange(1000) < 100, generator=torch.Generator().manual_seed(0))
        >>> found.value, 0.08 < found.low < 0.085, 0.115 < found.high < 0.12
        (0.1, True, True)
    """
    return Share(*paired_bootstrap(torch.zeros_like(which), which, level, draws, generator))


def paired_bootstrap(
    first: Tensor, second: Tensor, level: float = 0.95, draws: int = 10_000, generator: torch.Generator | None = None
) -> PairedDifference:
    """Percentile interval of the difference of two errors, by a paired bootstrap over test samples (Efron 1979).

    Samples are drawn with replacement, each with both classifiers' answers. Only how many samples one alone gets wrong
    matters, so that these counts are drawn from their multinomial distribution, which is the same and takes no time.

    Args:
        first: Whether the first classifier is wrong, N booleans.
        second: Whether the second is, on the same samples.
        level: Of the interval.
        draws: How many bootstrap samples.
        generator: Of the draws. Default: PyTorch's own.

    Raises:
        TypeError: If they are no booleans.
        ValueError: If they are not N >= 1 booleans each, ``level`` is not between 0 and 1, or ``draws`` is below 1.

    Example:
        >>> import torch
        >>> first, second = torch.arange(1000) < 100, torch.arange(1000) < 60
        >>> found = paired_bootstrap(first, second, generator=torch.Generator().manual_seed(0))
        >>> round(found.difference, 3), -0.054 < found.low < -0.05, -0.03 < found.high < -0.027
        (-0.04, True, True)
    """
    if first.dtype != torch.bool or second.dtype != torch.bool:
        raise TypeError(f"first and second must be booleans, got {first.dtype} and {second.dtype}")
    if first.dim() != 1 or first.shape != second.shape or not len(first):
        raise ValueError(f"need N booleans of each, at least one, got {tuple(first.shape)} and {tuple(second.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    count = len(first)
    more, less = (float((side & ~other).sum()) / count for side, other in ((second, first), (first, second)))
    total = torch.full((draws,), float(count), dtype=torch.float64)
    worse = torch.binomial(total, torch.full_like(total, more), generator=generator)
    better = torch.binomial(
        total - worse, torch.full_like(total, min(less / max(1 - more, 1e-12), 1)), generator=generator
    )
    drawn = (worse - better) / count
    low, high = torch.quantile(drawn, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=drawn.dtype)).tolist()
    return PairedDifference(more - less, low, high)
