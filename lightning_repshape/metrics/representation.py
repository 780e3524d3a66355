"""Statistics of a layer by class, batch by batch, as additive sums in float64."""

import torch
from torch import Tensor

from lightning_repshape.functional.characteristics import (
    PairSums,
    UnitSums,
    pair_means,
    pair_sums,
    summarize,
    unit_sums,
    usable_units,
)
from lightning_repshape.functional.checks import (
    check_activations,
    check_at_least,
    check_label_range,
    check_labels,
    check_num_classes,
)
from lightning_repshape.metrics.base import ExactSums, per_column


class RepresentationStatistics(ExactSums):
    """Variances of a layer's units, and with ``pairs=True`` all of Table 5, from one pass over any number of batches.

    All states are sums in float64 (or a minimum and a maximum), so that batches in any order, in any number of
    processes, give the same result up to float64's rounding. The sums are of activations less ``shift``: where means
    are more than some thousand times larger than standard deviations, give a rough mean, the same in all processes.

    Keys of the result, each a float64 scalar (NaN where nothing was added):

    - ``classwise_variance``: cw-VR's statistic, 1/(K I) sum_k sum_i v^k_i, absent classes counting 0 (class-wise
      regularizers, AAAI 2019, Table 1), over all samples;
    - ``variance``: VR's statistic, 1/I sum_i v_i, over all samples;
    - with ``characteristics=True``: the fields of :class:`lightning_repshape.functional.Characteristics` under their
      names with ``characteristics/`` in front; covariances and correlations only with ``pairs=True`` (else NaN).

    Args:
        num_classes: K.
        num_units: I, after flattening.
        characteristics: Also collect what Table 5 needs of single units, 3 K I numbers more.
        pairs: Also collect what it needs of pairs of units, 6 K I^2 numbers, and spend O(N I^2): for layers of some
            hundred units; for wider ones use the function
            :func:`lightning_repshape.functional.representation_characteristics`. Implies ``characteristics``.
        positive_only: The characteristics are of positive activations alone, as in the paper.
        shift: Taken off the activations before they are summed: a number, or (I,) numbers.

    Example:
        >>> statistics = RepresentationStatistics(num_classes=2, num_units=1)
        >>> statistics.update(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 0]))
        >>> statistics.update(torch.tensor([[7.0]]), torch.tensor([1]))
        >>> float(statistics.compute()["classwise_variance"])
        0.5
    """

    samples: Tensor
    sums: Tensor
    squares: Tensor

    def __init__(
        self,
        num_classes: int,
        num_units: int,
        characteristics: bool = False,
        pairs: bool = False,
        positive_only: bool = True,
        shift: float | Tensor = 0.0,
    ) -> None:
        super().__init__()
        check_num_classes(num_classes)
        check_at_least("num_units", num_units, 1)
        self.num_classes = num_classes
        self.num_units = num_units
        self.characteristics = characteristics or pairs
        self.pairs = pairs
        self.positive_only = positive_only
        self.shift = per_column(shift, num_units)
        shape = (num_classes, num_units)
        self.add_sums("samples", shape=shape[:1], dtype=torch.int64)
        self.add_sums("sums", "squares", shape=shape)
        if self.characteristics:
            self.add_sums("unit_counts", "unit_sums", "unit_squares", shape=shape)
            infinite = torch.full((num_units,), float("inf"), dtype=torch.float64)
            self.add_state("unit_low", infinite, dist_reduce_fx="min")
            self.add_state("unit_high", -infinite, dist_reduce_fx="max")
            self.add_sums("unit_positive_count", "unit_positive_sum")
        if pairs:
            self.add_sums(*(f"pair_{name}" for name in PairSums._fields), shape=(*shape, num_units))

    def update(self, activations: Tensor, labels: Tensor) -> None:
        """Adds activations N x I, or more dimensions (N x C x H x W) with I numbers a sample, and N integer labels.

        Other types are a TypeError. A label out of range is a ValueError on the CPU (an accelerator's own index check
        reports it there); for the characteristics, so is an activation that is not finite.
        """
        check_activations(activations)
        rows = activations.detach().flatten(1)
        if rows.shape[1] != self.num_units:
            raise ValueError(f"activations have {rows.shape[1]} units, the metric was made for {self.num_units}")
        if check_labels(labels, rows.shape[0], self.num_classes):
            raise TypeError("the metric needs integer labels, got soft ones")
        if labels.device.type == "cpu":
            check_label_range(labels, self.num_classes)
        labels = labels.long()
        deviation = rows.to(torch.float64) - self.shift
        self.samples.index_add_(0, labels, torch.ones_like(labels))
        self.sums.index_add_(0, labels, deviation)
        self.squares.index_add_(0, labels, deviation.square_())
        if self.characteristics and rows.shape[0]:
            self._add_units(unit_sums(rows, labels, self.num_classes, self.shift, self.positive_only))
        if self.pairs:
            for k in torch.unique(labels).tolist():
                sums = pair_sums(rows[labels == k], self.shift, self.positive_only, slice(0, self.num_units))
                for name, values in sums._asdict().items():
                    getattr(self, f"pair_{name}")[k] += values

    def compute(self) -> dict[str, Tensor]:
        """The figures of everything added, by the names that the class tells."""
        total = self.samples.sum()
        if not total:
            variance = classwise = self.sums.new_full((), float("nan"))
        else:
            variance = (self.squares.sum(0) / total - (self.sums.sum(0) / total).square()).clamp(min=0).mean()
            count = self.samples.clamp(min=1).unsqueeze(1)
            classwise = (self.squares / count - (self.sums / count).square()).clamp(min=0).mean()
        figures = {"classwise_variance": classwise, "variance": variance}
        if self.characteristics:
            figures |= self._characteristics()
        return figures

    def _add_units(self, sums: UnitSums) -> None:
        for name, values in sums._asdict().items():
            state = getattr(self, f"unit_{name}")
            if name == "low":
                torch.minimum(state, values, out=state)
            elif name == "high":
                torch.maximum(state, values, out=state)
            else:
                state += values

    def _characteristics(self) -> dict[str, Tensor]:
        units = UnitSums(*(getattr(self, f"unit_{name}") for name in UnitSums._fields))
        if self.pairs:
            everything, usable = slice(0, self.num_units), usable_units(units)
            states = [getattr(self, f"pair_{name}") for name in PairSums._fields]
            totals = [pair_means(PairSums(*(state.sum(0) for state in states)), everything, usable)]
            by_class = [
                [pair_means(PairSums(*(state[k] for state in states)), everything, usable)]
                for k in range(self.num_classes)
            ]
            found = summarize(units, totals, by_class)
        else:
            found = summarize(units)
        return {
            f"characteristics/{name}": torch.tensor(value, dtype=torch.float64, device=self.sums.device)
            for name, value in found._asdict().items()
        }
