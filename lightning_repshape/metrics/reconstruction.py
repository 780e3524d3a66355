"""Loss and reconstruction error of a stage as one additive metric."""

import torch
from torch import Tensor

from lightning_repshape.metrics.base import ExactSums


class ReconstructionSums(ExactSums):
    """Mean loss and mean squared error of a stage from additive float64 sums, exact under several processes."""

    higher_is_better = False

    loss_sum: Tensor
    error_sum: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sums("loss_sum", "error_sum")
        self.add_sums("count", dtype=torch.int64)

    def update(self, loss: Tensor, error: Tensor, samples: int) -> None:
        """Adds a batch: its mean loss, its mean squared error and its size."""
        self.loss_sum.add_(loss.detach(), alpha=samples)
        self.error_sum.add_(error.detach(), alpha=samples)
        self.count.add_(samples)

    def compute(self) -> dict[str, Tensor]:
        """``loss`` and ``mse``, means over samples; NaN where nothing was added."""
        return {"loss": self.loss_sum / self.count, "mse": self.error_sum / self.count}
