"""Loss, error and accuracy of a stage as one additive metric."""

import torch
from torch import Tensor

from lightning_repshape.functional.class_statistics import class_indices
from lightning_repshape.metrics.base import ExactSums


class ClassificationSums(ExactSums):
    """Mean loss, error rate and accuracy from three additive sums.

    One metric instead of three keeps the cost of a training step low, and sums of integers and of float64 make the
    result of several processes equal to that of one: error counts exactly, the loss up to rounding in float64.

    Example:
        >>> import torch
        >>> sums = ClassificationSums()
        >>> sums.update(torch.tensor(0.5), torch.eye(4), torch.tensor([0, 1, 2, 0]))
        >>> float(sums.compute()["error"])
        0.25
    """

    loss_sum: Tensor
    errors: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sums("loss_sum")
        self.add_sums("errors", "count", dtype=torch.int64)

    def update(self, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        """Adds a batch: its mean loss, logits N x K and N class indices."""
        self.add(loss, logits, target)

    def add(self, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        """:meth:`update` without torchmetrics' bookkeeping, which takes as long; not for the first batch."""
        target = class_indices(target)
        samples = target.shape[0]
        # In place: assigning to a module's attribute costs as much as the sum itself.
        self.loss_sum.add_(loss.detach(), alpha=samples)
        self.errors.add_((logits.detach().argmax(dim=1) != target).sum())
        self.count.add_(samples)

    def compute(self) -> dict[str, Tensor]:
        """``loss`` (mean over samples), ``error`` and ``accuracy`` (fractions of one); NaN where nothing was added."""
        error = self.errors.double() / self.count
        return {"loss": self.loss_sum / self.count, "error": error, "accuracy": 1 - error}
