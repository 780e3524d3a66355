"""Verification of pairs as metrics: from scores, or from features that come image by image."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.utilities import dim_zero_cat

from lightning_repshape.functional.numerics import unit_rows
from lightning_repshape.functional.verification import VerificationResult, fold_verification, pair_cosines
from lightning_repshape.metrics.base import ExactSums


class VerificationMetric(ExactSums):
    """Accuracy over folds, AUC and true accept rates from the scores of pairs, in any number of batches and processes.

    The scores are gathered, so the result of several processes is that of one, whatever each of them has seen. With
    ``index`` a pair that was seen twice (samplers repeat some to give every process equally many) counts once.

    Args:
        fars: False accept rates at which true accept rates are wanted.

    Example:
        >>> metric = VerificationMetric()
        >>> same = torch.tensor([True, False, True, False])
        >>> metric.update(torch.tensor([0.9, 0.1, 0.8, 0.3]), same, torch.tensor([0, 0, 1, 1]))
        >>> metric.compute().accuracy
        1.0
    """

    higher_is_better = True

    rows: list[Tensor]

    def __init__(self, fars: Sequence[float] = (1e-2, 1e-3)) -> None:
        super().__init__()
        self.fars = tuple(fars)
        # One state, so that a process without any pair can take part in gathering: score, same, fold, number a pair.
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.set_dtype(torch.float64)

    def update(self, scores: Tensor, same: Tensor, folds: Tensor, index: Tensor | None = None) -> None:
        """Adds P pairs: scores (the higher, the more alike), whether each is of one person, and their folds' numbers.

        ``index``, the pairs' own numbers, not negative, is given in all calls or in none (then every pair counts).
        """
        if scores.ndim != 1 or not scores.shape == same.shape == folds.shape:
            raise ValueError("scores, same and folds must be vectors of one length")
        if index is not None and index.shape != scores.shape:
            raise ValueError("index must be as long as scores")
        number = torch.full_like(scores, -1) if index is None else index
        columns = [values.detach().to(scores.device, torch.float64) for values in (scores, same, folds, number)]
        self.rows.append(torch.stack(columns, dim=1).flatten())

    def compute(self) -> VerificationResult:
        """The figures of all pairs; a ValueError where pairs or folds are too few, or a score is NaN."""
        rows = dim_zero_cat(self.rows).view(-1, 4) if len(self.rows) else torch.empty(0, 4, dtype=torch.float64)
        index = rows[:, 3]
        if len(index) and float(index.min()) >= 0:
            ordered, place = index.sort(stable=True)
            rows = rows[place[F.pad(ordered.diff() != 0, (1, 0), value=True)]]
        return fold_verification(rows[:, 0], rows[:, 1].bool(), rows[:, 2].long(), self.fars)


class PairFeatures(ExactSums):
    """Features of images, summed into the items that pairs are made of, and the pairs' cosines.

    An item is an image or a video: the feature of an item is the mean of its images' features, each scaled to unit
    length first. States are sums, so any split of the images over batches and processes gives the same; an image that
    was seen twice changes nothing where items are single images (their mean is the same), and counts twice in a video.

    Args:
        num_items: How many items there are, at least 1.
        num_features: D.

    Example:
        >>> pairs = PairFeatures(num_items=2, num_features=2)
        >>> pairs.update(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]))
        >>> pairs.scores(torch.tensor([0]), torch.tensor([1]))[0]
        tensor([0.], dtype=torch.float64)
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, num_items: int, num_features: int) -> None:
        super().__init__()
        if num_items < 1 or num_features < 1:
            raise ValueError(f"num_items and num_features must be at least 1, got {num_items} and {num_features}")
        self.add_sums("sums", shape=(num_items, num_features))
        self.add_sums("counts", shape=(num_items,), dtype=torch.int64)

    def update(self, features: Tensor, items: Tensor) -> None:
        """Adds features N x D of images, and the N items that these belong to."""
        if features.ndim != 2 or features.shape[1] != self.sums.shape[1] or items.shape != features.shape[:1]:
            raise ValueError(
                f"need N x {self.sums.shape[1]} features and N items, got {tuple(features.shape)} and "
                f"{tuple(items.shape)}"
            )
        self.sums.index_add_(0, items, unit_rows(features.detach().double()))
        self.counts.index_add_(0, items, torch.ones_like(items))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Features (float64 items x D, zeros where no image of an item was seen) and numbers of images of all items."""
        return self.sums / self.counts.clamp(min=1)[:, None], self.counts.clone()

    def scores(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The cosines of P pairs of items, given by their numbers. To be called by all processes.

        Returns:
            The cosines of those pairs whose two items have been seen, and their positions among the P pairs; on the
            metric's device.
        """
        features, counts = self.compute()
        first, second = first.to(features.device), second.to(features.device)
        complete = ((counts[first] > 0) & (counts[second] > 0)).nonzero().flatten()
        return pair_cosines(features[first[complete]], features[second[complete]]), complete
