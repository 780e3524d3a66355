"""Where classes lie, and how near samples lie to class vectors, as additive metrics."""

import torch
from torch import Tensor

from lightning_repshape.functional.class_statistics import class_sums
from lightning_repshape.functional.class_vectors import sample_cosines
from lightning_repshape.metrics.base import ExactSums


class ClassCosines(ExactSums):
    """Mean cosine of a sample's features with its own class's vector and with that of the predicted class.

    Cosines and sums are float64, so several processes give the result of one up to rounding in float64.

    Example:
        >>> import torch
        >>> cosines = ClassCosines()
        >>> cosines.update(torch.tensor([[3.0, 4.0]]), torch.eye(2), torch.tensor([0]), torch.tensor([1]))
        >>> {name: round(float(value), 6) for name, value in cosines.compute().items()}
        {'cosine_own': 0.6, 'cosine_predicted': 0.8}
    """

    own_sum: Tensor
    predicted_sum: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sums("own_sum", "predicted_sum")
        self.add_sums("count", dtype=torch.int64)

    def update(self, features: Tensor, vectors: Tensor, target: Tensor, predicted: Tensor) -> None:
        """Adds features N x D (what the last layer receives), class vectors K x D, and N true and predicted classes."""
        self.own_sum.add_(sample_cosines(features, vectors, target).sum())
        self.predicted_sum.add_(sample_cosines(features, vectors, predicted).sum())
        self.count.add_(target.shape[0])

    def compute(self) -> dict[str, Tensor]:
        """``cosine_own`` and ``cosine_predicted``, means over samples; NaN where nothing was added."""
        return {"cosine_own": self.own_sum / self.count, "cosine_predicted": self.predicted_sum / self.count}


class ClassMeans(ExactSums):
    """Means of features by class, of any number of batches.

    Args:
        num_classes: K.
        num_features: D.

    Example:
        >>> import torch
        >>> means = ClassMeans(2, 1)
        >>> means.update(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]))
        >>> means.compute().tolist()
        [[2.0], [5.0]]
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, num_features: int) -> None:
        super().__init__()
        self.add_sums("sums", shape=(num_classes, num_features))
        self.add_sums("counts", shape=(num_classes,))

    def update(self, features: Tensor, target: Tensor) -> None:
        """Adds features N x D and their N class indices or N x K memberships."""
        counts, sums = class_sums(features.detach().to(self.sums.dtype), target, len(self.counts))
        self.counts.add_(counts)
        self.sums.add_(sums)

    def compute(self) -> Tensor:
        """K x D means, NaN of a class without samples."""
        return self.sums / self.counts.unsqueeze(1)
