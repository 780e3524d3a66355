"""e(W) as a metric."""

import warnings

import torch
from torch import Tensor

from lightning_repshape.functional.reconstruction import weight_separability
from lightning_repshape.metrics.base import ExactSums


def too_few_features(weight: Tensor) -> str:
    """A sentence on e(W) of a weight K x D with D <= K, and the least that is possible; empty where D > K."""
    classes, width = weight.shape
    if width > classes:
        return ""
    return (
        f"e(W) is defined for more features than classes, and this weight has {width} features for {classes} classes; "
        f"it is computed all the same, and cannot be below {1 - width / classes:.3g}"
        + (f" (of unit length: {classes / width - 1:.3g})" if classes > width else "")
    )


class WeightSeparabilityMetric(ExactSums):
    r"""e(W) = 1/K \|W^T W - I\|_F^2 of a last layer's weight, averaged over updates (feed-backward paper, Eq. 6).

    Keys of the result, each a float64 scalar (NaN where nothing was added): ``raw``, of the weight as it is, and
    ``unit``, of class vectors of unit length. One update gives e(W) of that weight; several, as one a step, their
    mean. States are sums in float64, so several processes give the mean over all.

    The paper defines e(W) for more features than classes. Where there are not, a warning says so once, and the value
    is computed all the same: with K > D it cannot be below 1 - D/K.

    Example:
        >>> separability = WeightSeparabilityMetric()
        >>> separability.update(torch.eye(3, 5))
        >>> float(separability.compute()["raw"])
        0.0
    """

    higher_is_better = False

    raw: Tensor
    unit: Tensor
    updates: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sums("raw", "unit")
        self.add_sums("updates", dtype=torch.int64)
        self._said = False

    def update(self, weight: Tensor) -> None:
        """Adds a weight K x D, a class vector a row, as in ``nn.Linear``."""
        weight = weight.detach()
        wide = weight.double() if weight.is_floating_point() else weight
        raw, unit = weight_separability(wide), weight_separability(wide, normalize=True)
        if weight.shape[0] >= weight.shape[1] and not self._said:
            self._said = True
            warnings.warn(too_few_features(weight), stacklevel=2)
        self.raw += raw
        self.unit += unit
        self.updates += 1

    def compute(self) -> dict[str, Tensor]:
        """``raw`` and ``unit``, means over all updates."""
        return {"raw": self.raw / self.updates, "unit": self.unit / self.updates}
