"""How far confidences can be believed: temperature scaling, and risk against coverage."""

import math

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_class_indices, check_floating, check_matrix

_HOTTEST = 1e3  # of temperatures and their inverses
_STEPS = 100


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T that makes the cross-entropy of ``logits / T`` least (temperature scaling, Guo et al. 2017).

    In 1 / T it is convex and is found by Newton's method in float64. T lies between 0.001 and 1,000, its ends where
    every prediction is right, or none says anything.

    Args:
        logits: N x K, of samples that the model was not trained on.
        labels: N integers in 0 .. K - 1.

    Raises:
        TypeError: If logits are no floating-point tensor or labels no integers.
        ValueError: If shapes or labels do not fit, or logits are not finite.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 0])) * math.log(3), 3)  # confident in 3 of 4
        4.0
    """
    _check(logits, labels)
    z = logits.double()
    if not bool(z.isfinite().all()):
        raise ValueError("logits must be finite")
    z = z - z.gather(1, labels.unsqueeze(1))  # of the right class: zero
    inverse, least, most = 1.0, 1 / _HOTTEST, _HOTTEST
    rivals = z.scatter(1, labels.unsqueeze(1), -math.inf).amax(dim=1)
    if bool((rivals < 0).all()):
        return 1 / most  # all right: the more confident the better
    value = float(torch.logsumexp(inverse * z, dim=1).mean())
    for _ in range(_STEPS):
        p = (inverse * z).softmax(dim=1)
        means = (p * z).sum(dim=1)
        slope = float(means.mean())
        bend = float(((p * z.square()).sum(dim=1) - means.square()).mean())
        if abs(slope) <= 1e-12:
            break
        step = slope / bend if bend > 1e-300 else math.copysign(math.inf, slope)
        while True:
            there = min(max(inverse - step, least), most)
            # far from the minimum, not more than to double or a tenth
            there = min(max(there, inverse / 10), inverse * 2)
            below = float(torch.logsumexp(there * z, dim=1).mean())
            if below <= value or abs(there - inverse) <= 1e-12 * inverse:
                break
            step = (inverse - there) / 2
        moved = abs(there - inverse)
        inverse, value = there, below
        if moved <= 1e-12 * inverse:
            break
    return 1 / inverse


def risk_coverage(confidence: Tensor, wrong: Tensor) -> Tensor:
    """The error among the n most confident samples, for n = 1 .. N (Geifman and El-Yaniv 2017).

    Samples of equal confidence count as in a random order, by their mean.

    Args:
        confidence: N floating-point numbers.
        wrong: N booleans.

    Returns:
        float64 N, against the coverage n / N.

    Raises:
        TypeError: If they are of another kind.
        ValueError: If they are not N >= 1 of each, or a confidence is NaN.
    """
    check_floating("confidence", confidence)
    if wrong.dtype != torch.bool:
        raise TypeError(f"wrong must be booleans, got {wrong.dtype}")
    if confidence.dim() != 1 or confidence.shape != wrong.shape or not len(wrong):
        raise ValueError(
            f"need N confidences and N booleans, at least one, got {tuple(confidence.shape)} and {tuple(wrong.shape)}"
        )
    if bool(confidence.isnan().any()):
        raise ValueError("confidences must not be NaN")
    order = confidence.argsort(descending=True, stable=True)
    _, group, counts = torch.unique_consecutive(confidence[order], return_inverse=True, return_counts=True)
    errors = torch.zeros(len(counts), dtype=torch.float64, device=wrong.device)
    errors.index_add_(0, group, wrong[order].double())
    spread = (errors / counts)[group]  # the mean of a sample's group
    numbers = torch.arange(1, len(wrong) + 1, dtype=torch.float64, device=wrong.device)
    found: Tensor = spread.cumsum(dim=0) / numbers
    return found


def area_under_risk_coverage(confidence: Tensor, wrong: Tensor) -> Tensor:
    """The mean of :func:`risk_coverage` over all coverages (AURC, Geifman, Uziel and El-Yaniv 2019): 0 is best.

    A confidence that says nothing gives the error itself. Returns a float64 scalar; raises as the curve does.
    """
    area: Tensor = risk_coverage(confidence, wrong).mean()
    return area


def _check(logits: Tensor, labels: Tensor) -> None:
    check_matrix("logits", logits, "N x K")
    check_class_indices(labels, len(logits), logits.shape[1])
