"""Loss, error and accuracy of a stage as one additive metric."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_repshape.functional.class_statistics import class_indices
from lightning_repshape.metrics.base import ExactSums

_MOST_NUMBERS = 2**18


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
        super().__init__(compute_with_cache=False)
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []
        self._numbers = 0
        self.add_sums("loss_sum")
        self.add_sums("errors", "count", dtype=torch.int64)

    def update(self, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        """Adds a batch: its mean loss, logits N x K and N class indices."""
        self._add([loss.detach()], logits.detach(), [class_indices(target)])

    def hold(self, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        """:meth:`update` for small batches: adds up to a megabyte of logits at once, to the same sums.

        They are complete after :meth:`settle`, which :meth:`compute` calls.
        """
        if not self.update_called:
            self.update(loss, logits, target)
            return
        self._held.append((loss.detach(), logits.detach(), class_indices(target)))
        self._numbers += logits.numel()
        if self._numbers >= _MOST_NUMBERS:
            self.settle()

    def settle(self) -> None:
        """Adds what is held."""
        if self._held:
            losses, logits, targets = zip(*self._held, strict=True)
            self._held, self._numbers = [], 0
            self._add(losses, torch.cat(logits), targets)

    def _add(self, losses: Sequence[Tensor], logits: Tensor, targets: Sequence[Tensor]) -> None:
        # In place: assigning to a module's attribute costs as much as the sum itself.
        for loss, target in zip(losses, targets, strict=True):
            self.loss_sum.add_(loss, alpha=len(target))
        self.errors.add_((logits.argmax(dim=1) != torch.cat(tuple(targets))).sum())
        self.count.add_(len(logits))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Adds what is held, before sums of several processes become one."""
        self.settle()
        super().sync(*args, **kwargs)

    def reset(self) -> None:
        """Begins anew."""
        self._held, self._numbers = [], 0
        super().reset()

    def compute(self) -> dict[str, Tensor]:
        """``loss`` (mean over samples), ``error`` and ``accuracy`` (fractions of one); NaN where nothing was added."""
        error = self.errors.double() / self.count
        return {"loss": self.loss_sum / self.count, "error": error, "accuracy": 1 - error}
