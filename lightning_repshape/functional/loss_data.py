"""What the held-out loss against the number of training samples says of a representation (Whitney et al. 2020)."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_at_least


class LossDataMeasures(NamedTuple):
    """Measures of a curve of loss against data, in the loss's unit (nats), over the N samples that it reaches to.

    Attributes:
        code_length: Online (prequential) code length of the N labels: each is coded by what was learned from those
            before it.
        surplus: By epsilon, the surplus description length: what the code costs beyond epsilon for each sample.
            Infinite where the curve does not fall to epsilon: it goes on beyond N.
        surplus_so_far: The same of the first N samples alone, a lower bound there.
        samples: By epsilon, its sample complexity: the least number of samples whose loss is epsilon or less. Infinite
            where the curve does not fall to it.
    """

    code_length: float
    surplus: dict[float, float]
    surplus_so_far: dict[float, float]
    samples: dict[float, float]


def loss_data_curve(losses: Mapping[int, float], num_classes: int) -> Tensor:
    """The loss of a sample after 0, 1, ..., N others were learned from, float64 N + 1.

    Between the sizes that were measured, the largest of which is N, the loss is interpolated linearly in the logarithm
    of their number; below the smallest, all classes are equally likely: log K.

    Raises:
        TypeError: If a size or K is no integer.
        ValueError: If there are no sizes, one is below 1, a loss is not finite and >= 0, or K is below 2.
    """
    check_at_least("num_classes", num_classes, 2)
    if not losses:
        raise ValueError("at least one size with its loss is needed")
    for size, loss in losses.items():
        check_at_least("a size", size, 1)
        if not 0 <= loss < math.inf:
            raise ValueError(f"losses must be finite and not negative, got {loss} for {size} samples")
    curve = torch.full((max(losses) + 1,), math.log(num_classes), dtype=torch.float64)
    sizes = sorted(losses)
    curve[sizes[0]] = losses[sizes[0]]
    for before, after in itertools.pairwise(sizes):
        counts = torch.arange(before, after + 1, dtype=torch.float64)
        share = (counts / before).log() / math.log(after / before)
        curve[before : after + 1] = losses[before] + share * (losses[after] - losses[before])
    return curve


def loss_data_measures(losses: Mapping[int, float], num_classes: int, epsilons: Sequence[float]) -> LossDataMeasures:
    """Surplus description length, epsilon sample complexity and online code length of a curve of loss against data.

    With L(n) the mean held-out cross-entropy after learning from n samples (:func:`loss_data_curve`), the code length
    is the sum of L(n) over n = 0 .. N - 1, the surplus description length that of max(L(n) - epsilon, 0) over
    n = 1 .. N, and the epsilon sample complexity the least n with L(n) <= epsilon (Whitney, Song, Brandfonbrener,
    Altosaar and Cho 2020, sections 3 and 4; the code as Voita and Titov 2020).

    Args:
        losses: L(n) in nats by n.
        num_classes: K, for the loss of samples before the first size: log K.
        epsilons: Losses that are good enough, each above 0.

    Raises:
        TypeError: If a size or K is no integer.
        ValueError: If a size, a loss, K or an epsilon cannot be.

    Example:
        >>> found = loss_data_measures({10: 1.0, 100: 0.1}, 10, [0.5])
        >>> round(found.code_length, 1), round(found.surplus[0.5], 1), found.samples[0.5]
        (55.0, 21.7, 36.0)
    """
    if not all(0 < epsilon < math.inf for epsilon in epsilons):
        raise ValueError(f"epsilons must be finite numbers above 0, got {tuple(epsilons)}")
    curve = loss_data_curve(losses, num_classes)
    surplus, so_far, samples = {}, {}, {}
    for epsilon in epsilons:
        reached = (curve[1:] <= epsilon).nonzero()
        samples[epsilon] = float(reached[0] + 1) if len(reached) else math.inf
        so_far[epsilon] = float((curve[1:] - epsilon).clamp_min(0).sum())
        surplus[epsilon] = so_far[epsilon] if curve[-1] <= epsilon else math.inf
    return LossDataMeasures(float(curve[:-1].sum()), surplus, so_far, samples)
