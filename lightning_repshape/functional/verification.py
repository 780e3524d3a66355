"""Verification: are two samples of the same class? Scores, thresholds, accuracy by folds, ROC curve.

As face verification is measured (Huang et al. 2007 for the folds of LFW; Wolf et al. 2011 for videos): a pair is taken
to be of the same person where the cosine of its two features is at or above a threshold.

``scores`` are P floating-point numbers (the higher, the more alike), ``same`` P booleans (whether the pair is of one
person), P >= 1. Other types are a TypeError; shapes that do not fit and NaN scores are a ValueError.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape.functional.checks import check_floating, check_scores
from lightning_repshape.functional.numerics import unit_rows


class ROCCurve(NamedTuple):
    """All operating points, from the strictest threshold to the laxest.

    Attributes:
        far: T, false accept rate: the share of different pairs with scores at or above the threshold.
        tar: T, true accept rate: the same of the pairs of one person.
        thresholds: T, descending; the first one is infinite (no pair accepted), then every distinct score.
    """

    far: Tensor
    tar: Tensor
    thresholds: Tensor


class VerificationResult(NamedTuple):
    """What verification by folds gives.

    Attributes:
        accuracy: Mean accuracy over the folds, each with the threshold that the other folds chose.
        std: Standard deviation of the folds' accuracies (n - 1 in the denominator); over the square root of the number
            of folds, it is the standard error that LFW's tables print.
        fold_accuracies: One a fold, in the order of the folds' numbers.
        thresholds: One a fold.
        auc: Area under the ROC curve.
        tar: True accept rate by false accept rate asked for; NaN where there are fewer than 1 / FAR different pairs,
            too few to tell.
        roc: The curve.
        same: Number of pairs of one person.
        different: Number of the others.
    """

    accuracy: float
    std: float
    fold_accuracies: Tensor
    thresholds: Tensor
    auc: float
    tar: dict[float, float]
    roc: ROCCurve
    same: int
    different: int


def pair_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the features of each pair.

    Args:
        first: P x D.
        second: P x D.

    Returns:
        P cosines; 0 where a feature vector is zero.

    Raises:
        TypeError: The features are not floating point.
        ValueError: They are no two matrices of one shape.
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(f"need two P x D matrices, got {tuple(first.shape)} and {tuple(second.shape)}")
    check_floating("features", first)
    check_floating("features", second)
    return (unit_rows(first) * unit_rows(second)).sum(dim=1)


def best_threshold(scores: Tensor, same: Tensor) -> float:
    """The threshold with the highest accuracy.

    Thresholds lie halfway between neighbouring distinct scores, or below all of them, or above all of them. Of several
    with the same accuracy, the one in the widest gap between scores is taken (the ends count as gaps of width 0), and
    of several of these the lowest.

    Args:
        scores: P; the higher, the more alike.
        same: P booleans, whether the pair is of one person.

    Returns:
        The threshold: pairs at or above it are taken to be of one person. Infinite where rejecting all is best,
        minus infinity where accepting all is.

    Raises:
        TypeError: Scores or labels are of a wrong type.
        ValueError: Shapes do not fit, there is no pair, or a score is NaN.
    """
    scores, same = _checked(scores, same)
    values, first_place = _distinct(scores)
    order = scores.argsort(stable=True)
    positives = F.pad(same[order].long().cumsum(0), (1, 0))  # how many positives below each place
    below = F.pad(first_place, (0, 1), value=len(scores))  # cut c rejects all pairs below place below[c]
    rejected_positives = positives[below]
    correct = (below - rejected_positives) + (positives[-1] - rejected_positives)
    gaps = F.pad(values.diff(), (1, 1))
    candidates = (correct == correct.max()).nonzero().flatten()
    cut = int(candidates[gaps[candidates].argmax()])  # argmax gives the first of equal ones
    if cut == 0:
        return -float("inf")
    if cut == len(values):
        return float("inf")
    low, high = float(values[cut - 1]), float(values[cut])
    middle = low + (high - low) / 2
    return middle if low < middle <= high else high  # neighbouring numbers have nothing between them


def roc_curve(scores: Tensor, same: Tensor) -> ROCCurve:
    """The ROC curve, with a point for every distinct score.

    Args:
        scores: P; the higher, the more alike.
        same: P booleans.

    Returns:
        The curve in float64.

    Raises:
        TypeError: Scores or labels are of a wrong type.
        ValueError: Shapes do not fit, a score is NaN, or one of both kinds of pairs is missing.
    """
    scores, same = _checked(scores, same)
    positives = int(same.sum())
    negatives = len(same) - positives
    if not positives or not negatives:
        raise ValueError(
            f"a ROC curve needs pairs of both kinds, got {positives} of one person and {negatives} of different ones"
        )
    order = scores.argsort(descending=True, stable=True)
    ordered, accepted = scores[order], same[order].to(torch.float64)
    last_of_value = F.pad(ordered.diff() != 0, (0, 1), value=True)
    true = accepted.cumsum(0)[last_of_value]
    false = (1 - accepted).cumsum(0)[last_of_value]
    thresholds = F.pad(ordered[last_of_value], (1, 0), value=float("inf"))
    return ROCCurve(F.pad(false / negatives, (1, 0)), F.pad(true / positives, (1, 0)), thresholds)


def area_under_curve(curve: ROCCurve) -> float:
    """Area under a ROC curve: the chance that a pair of one person scores higher than one of two, ties counting half.

    Args:
        curve: The curve.

    Returns:
        0 to 1.
    """
    return float(torch.trapezoid(curve.tar, curve.far))


def tar_at_far(curve: ROCCurve, far: float, different: int | None = None) -> float:
    """The true accept rate at the laxest threshold whose false accept rate is at most the one asked for.

    There is no interpolation between operating points: a threshold with this rate exists.

    Args:
        curve: The ROC curve.
        far: The false accept rate that is allowed.
        different: Number of different pairs, where fewer than 1 / ``far`` are to give NaN. Default: not looked at.

    Returns:
        The rate; NaN where there are too few different pairs to measure a rate as small as ``far``.

    Raises:
        ValueError: ``far`` is not within (0, 1).
    """
    if not 0 < far < 1:
        raise ValueError(f"a false accept rate must lie between 0 and 1, got {far}")
    if different is not None and different * far < 1 - 1e-9:
        return float("nan")
    allowed = (curve.far <= far * (1 + 1e-12)).nonzero().flatten()
    return float(curve.tar[allowed[-1]])


def fold_verification(
    scores: Tensor, same: Tensor, folds: Tensor, fars: Sequence[float] = (1e-2, 1e-3)
) -> VerificationResult:
    """Accuracy over folds, each with the threshold of the others, and the ROC curve of all pairs.

    Args:
        scores: P; the higher, the more alike.
        same: P booleans, whether the pair is of one person.
        folds: P integers, the fold of each pair; at least two different ones.
        fars: False accept rates at which true accept rates are wanted.

    Returns:
        The figures.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: Shapes do not fit, a score is NaN, one of both kinds of pairs is missing, or there are fewer than
            two folds.

    Example:
        >>> scores = torch.tensor([0.9, 0.1, 0.8, 0.3])
        >>> result = fold_verification(scores, torch.tensor([True, False, True, False]), torch.tensor([0, 0, 1, 1]))
        >>> result.accuracy, result.auc
        (1.0, 1.0)
    """
    scores, same = _checked(scores, same)
    if folds.shape != scores.shape or folds.is_floating_point():
        raise ValueError(f"folds must be {len(scores)} integers, got {folds.dtype} {tuple(folds.shape)}")
    numbers = torch.unique(folds)
    if len(numbers) < 2:
        raise ValueError("verification needs at least two folds: a fold's threshold comes from the others")
    curve = roc_curve(scores, same)
    accuracies, thresholds = [], []
    for number in numbers:
        held_out = folds == number
        threshold = best_threshold(scores[~held_out], same[~held_out])
        accuracies.append(((scores[held_out] >= threshold) == same[held_out]).double().mean())
        thresholds.append(threshold)
    by_fold = torch.stack(accuracies)
    positives = int(same.sum())
    negatives = len(same) - positives
    return VerificationResult(
        accuracy=float(by_fold.mean()),
        std=float(by_fold.std()),
        fold_accuracies=by_fold,
        thresholds=torch.tensor(thresholds, dtype=torch.float64),
        auc=area_under_curve(curve),
        tar={far: tar_at_far(curve, far, negatives) for far in fars},
        roc=curve,
        same=positives,
        different=negatives,
    )


def _distinct(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct scores, ascending, and where each one begins in sorted order."""
    values, counts = torch.unique(scores, return_counts=True)
    return values, counts.cumsum(0) - counts


def _checked(scores: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    check_scores(scores, same)
    return scores.detach().double().cpu(), same.cpu()
