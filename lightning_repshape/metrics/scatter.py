"""The scatter of features as an additive metric, and the LDA eigenvalues that follow from it."""

from torch import Tensor

from lightning_repshape.functional.discriminant import lda_from_scatter
from lightning_repshape.functional.scatter import ScatterState
from lightning_repshape.metrics.base import ExactSums, per_column


class ScatterMetric(ExactSums):
    """Counts, sums by class and total scatter of features, from any number of batches and processes.

    ``compute()`` gives a :class:`lightning_repshape.functional.scatter.ScatterState`, from which LDA, principal
    components and effective rank follow without another look at the features. All states are sums in float64 of
    features less ``shift``: where means are more than some thousand times larger than standard deviations, give a
    rough mean, the same in all processes. Memory: 8 D^2 bytes.

    Args:
        num_classes: K.
        num_features: D.
        normalize: Scale every feature vector to unit length first.
        shift: Taken off the features before they are summed: a number, or (D,) numbers.

    Example:
        >>> scatter = ScatterMetric(num_classes=2, num_features=1)
        >>> scatter.update(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 0]))
        >>> scatter.update(torch.tensor([[4.0]]), torch.tensor([1]))
        >>> scatter.compute().total_scatter()
        tensor([[8.]], dtype=torch.float64)
    """

    counts: Tensor
    sums: Tensor
    outer: Tensor

    def __init__(
        self, num_classes: int, num_features: int, normalize: bool = False, shift: float | Tensor = 0.0
    ) -> None:
        super().__init__()
        empty = ScatterState(num_features, num_classes, normalize=normalize, device="cpu")
        self.num_classes = num_classes
        self.num_features = num_features
        self.normalize = normalize
        self.shift = per_column(shift, num_features)
        self.add_state("counts", empty.counts, dist_reduce_fx="sum")
        self.add_state("sums", empty.sums, dist_reduce_fx="sum")
        self.add_state("outer", empty.outer, dist_reduce_fx="sum")

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Adds features N x D with N class indices; refuses what ``ScatterState.update`` refuses."""
        self.state().update(features.to(self.counts.device), labels)

    def state(self) -> ScatterState:
        """The sums as a state of the function's kind, which shares their memory."""
        state = ScatterState(self.num_features, self.num_classes, normalize=self.normalize).about(self.shift)
        state.counts, state.sums, state.outer = self.counts, self.sums, self.outer
        return state

    def compute(self) -> ScatterState:
        """Counts, sums and scatter of everything added."""
        return self.state()


class LDAEigenvalueMetric(ScatterMetric):
    """The eigenvalue of every class against the rest (FOCA, section 4.3), from any number of batches and processes.

    ``compute()`` gives K eigenvalues: infinite for a class without spread along its axis, NaN for one without samples.

    Example:
        >>> metric = LDAEigenvalueMetric(num_classes=2, num_features=1)
        >>> metric.update(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1]))
        >>> metric.compute().round(decimals=6)
        tensor([4., 4.], dtype=torch.float64)
    """

    def compute(self) -> Tensor:  # type: ignore[override]
        """The K eigenvalues, float64; a ValueError if fewer than two classes have samples, or no feature changes."""
        return lda_from_scatter(self.state()).eigenvalues
