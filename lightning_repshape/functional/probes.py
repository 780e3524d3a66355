"""Probes of frozen features: k nearest neighbours by cosine, and multinomial logistic regression along a path."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape.functional.checks import check_at_least, check_class_indices, check_columns, check_matrix
from lightning_repshape.functional.numerics import at_least_float32, full_precision

_BLOCK = 2**24  # similarities that are held at a time
_RUN = 16  # similarities in a row of which the largest is looked at first
_CACHED = 2**19  # numbers of features between whose two products a processor forgets nothing
_SOME = 4096  # samples of which the descent's first guess is made at least
_WIDEST = 2048  # features up to which the descent knows their scatter
_MEMORY = 10  # steps that the descent remembers


def cosine_neighbours(x: Tensor, queries: Tensor, neighbours: int) -> Tensor:
    """The rows of ``x`` that are nearest to each query by cosine similarity, nearest first.

    Similarities are taken in blocks of 64 MB and in float32 or the rows' own precision, and nothing as large as ``x``
    is held besides; of equally near rows any comes first. The k largest lie in the k runs of 16 with the largest
    maxima, so that few are sorted.

    Args:
        x: N x D.
        queries: M x D.
        neighbours: k, from 1 to N.

    Returns:
        int64 M x k.

    Raises:
        TypeError: If they are no floating-point tensors.
        ValueError: If they are no matrices of finite numbers of one width, or there are fewer than k rows.
    """
    check_matrix("x", x)
    check_matrix("queries", queries, "M x D")
    check_columns(queries, x.shape[1], "x has")
    check_at_least("neighbours", neighbours, 1)
    if len(x) < neighbours:
        raise ValueError(f"{neighbours} neighbours need as many rows, got {len(x)}")
    rows = at_least_float32(x.detach())
    asked = queries.detach().to(rows.dtype)
    lengths = torch.linalg.vector_norm(rows, dim=1)
    for name, values in (("x", lengths), ("queries", torch.linalg.vector_norm(asked, dim=1))):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name} must be finite")
    inverse = torch.where(lengths > 0, 1 / lengths, 0)  # lengths of queries change no order
    runs = len(x) // _RUN if len(x) >= 4 * neighbours * _RUN else 0
    found = torch.empty(len(asked), neighbours, dtype=torch.int64, device=x.device)
    block = max(1, _BLOCK // len(rows))
    with full_precision(rows.device):
        for start in range(0, len(asked), block):
            near = (asked[start : start + block] @ rows.mT).mul_(inverse)
            if not runs:
                found[start : start + block] = near.topk(neighbours, dim=1).indices
                continue
            whole = near[:, : runs * _RUN].view(len(near), runs, _RUN)
            best = whole.amax(dim=2).topk(neighbours, dim=1, sorted=False).indices
            places = (best.unsqueeze(2) * _RUN + torch.arange(_RUN, device=x.device)).flatten(1)
            rest = torch.arange(runs * _RUN, len(x), device=x.device).expand(len(near), -1)
            places = torch.cat([places, rest], dim=1)
            chosen = near.gather(1, places).topk(neighbours, dim=1).indices
            found[start : start + block] = places.gather(1, chosen)
    return found


def vote(neighbour_labels: Tensor, num_classes: int, counts: Sequence[int]) -> Tensor:
    """The most frequent class among the first k neighbours, for several k; of equally frequent ones the first.

    Args:
        neighbour_labels: Labels of M x k neighbours, nearest first, in 0 .. K - 1.
        num_classes: K.
        counts: Each from 1 to k.

    Returns:
        int64 len(counts) x M.

    Raises:
        ValueError: If a count is below 1 or above the number of neighbours.
    """
    votes = torch.zeros(len(neighbour_labels), num_classes, device=neighbour_labels.device)
    found: dict[int, Tensor] = {}
    done = 0
    for count in sorted(set(counts)):
        if not 1 <= count <= neighbour_labels.shape[1]:
            raise ValueError(f"counts must lie in 1..{neighbour_labels.shape[1]}, got {count}")
        more = neighbour_labels[:, done:count]
        votes.scatter_add_(1, more, torch.ones_like(more, dtype=votes.dtype))
        found[count], done = votes.argmax(dim=1), count
    return torch.stack([found[count] for count in counts])


class LinearProbe(NamedTuple):
    """A multinomial logistic regression, for features as they are.

    Attributes:
        weight: K x D, in the features' precision.
        bias: K.
        penalty: Of what is minimized.
        objective: Mean cross-entropy in nats plus the penalty's part, at the end.
        iterations: How many steps led there.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    objective: float
    iterations: int

    def logits(self, features: Tensor) -> Tensor:
        """Logits N x K of features N x D."""
        return F.linear(features.to(self.weight.dtype), self.weight, self.bias)


def linear_probes(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    penalties: Sequence[float],
    normalize: bool = True,
    tolerance: float = 1e-7,
    max_iterations: int = 1000,
    initial: LinearProbe | None = None,
) -> list[LinearProbe]:
    """Multinomial logistic regressions of falling penalty, by L-BFGS.

    The first one starts at ``initial``, the second where the first one ended, all others where the line through the two
    before them points, in terms of the logarithm of the penalty.

    Minimized is the mean cross-entropy plus ``penalty / 2`` times the sum of squared weights; biases are not penalized.
    That is scikit-learn's ``LogisticRegression(C=1 / (penalty * N))``. The descent's first guess of the inverse Hessian
    is that of classes whose probabilities do not depend on the features, which the features' scatter gives, so that
    features of a steep spectrum cost few steps. Samples are looked at some at a time; features are never copied.

    Args:
        features: N x D.
        labels: N integers in 0 .. K - 1.
        num_classes: K, at least 2.
        penalties: Above 0, in the order in which they are solved.
        normalize: Penalize the weights of features that are centred and divided by one number, the root of their mean
            variance, so that a penalty means the same for features of any scale. Weights and biases that are returned
            are for features as they are.
        tolerance: Steps end once the objective is estimated to lie within so many nats of the minimum.
        max_iterations: Steps of each at most.
        initial: Where the first one starts. Default: zeros.

    Returns:
        One for each penalty.

    Raises:
        TypeError: If features are no floating-point tensor, or labels no integers.
        ValueError: If shapes or labels do not fit, features are not finite, or a penalty is not above 0.
    """
    check_matrix("features", features)
    check_at_least("num_classes", num_classes, 2)
    check_class_indices(labels, len(features), num_classes)
    if not len(penalties) or not all(0 < penalty < math.inf for penalty in penalties):
        raise ValueError(f"penalties must be finite numbers above 0, got {tuple(penalties)}")
    features = at_least_float32(features.detach())
    with torch.no_grad(), full_precision(features.device):
        problem = _Regression(features, labels, num_classes, normalize)
        start = problem.entered(initial)
        found: list[LinearProbe] = []
        ends: list[Tensor] = []
        for penalty in penalties:
            if len(ends) > 1:
                before, last = (math.log(probe.penalty) for probe in found[-2:])
                further = (math.log(penalty) - last) / (last - before) if last != before else 0.0
                start = ends[-1] + min(max(further, 0.0), 1.0) * (ends[-1] - ends[-2])
            start, objective, iterations = problem.solve(start, penalty, tolerance, max_iterations)
            ends = [*ends[-1:], start]
            weight, bias = problem.left(start)
            found.append(LinearProbe(weight, bias, penalty, objective, iterations))
    return found


class _Regression:
    """The objective on centred and scaled features, which are never made: it is of parameters K x (D + 1), float64."""

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, normalize: bool) -> None:
        self.features, self.labels, self.classes = features, labels, num_classes
        count, width = features.shape
        self.rows = max(128, (_CACHED if features.device.type == "cpu" else _BLOCK) // width)
        total, squares = torch.zeros(width, dtype=torch.float64, device=features.device), 0.0
        for rows in torch.split(features, self.rows):
            total += rows.sum(dim=0, dtype=torch.float64)
        mean = total / count
        if not bool(mean.isfinite().all()):
            raise ValueError("features must be finite")
        for rows in torch.split(features, self.rows) if normalize else ():
            squares += float((rows - mean.to(rows.dtype)).square().sum(dtype=torch.float64))
        self.mean = mean if normalize else torch.zeros_like(mean)
        spread = math.sqrt(squares / (count * width))
        self.scale = 1 / spread if normalize and spread > 0 else 1.0
        # what the first guess of the Hessian knows: some samples are enough
        step = max(1, count // max(4 * width, _SOME))
        some = (features[::step] - mean.to(features.dtype)) * self.scale
        if width <= _WIDEST:
            values, axes = torch.linalg.eigh(some.mT @ some / len(some))
            self.values, self.axes = values.double().clamp_min(0), axes.double()
        else:
            self.values, self.axes = some.square().mean(dim=0, dtype=torch.float64), None

    def entered(self, probe: LinearProbe | None) -> Tensor:
        """Parameters of a probe that takes features as they are."""
        own = torch.zeros(self.classes, self.features.shape[1] + 1, dtype=torch.float64, device=self.features.device)
        if probe is not None:
            weight = probe.weight.double()
            own[:, :-1], own[:, -1] = weight / self.scale, probe.bias.double() + weight @ self.mean
        return own

    def left(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias for features as they are."""
        weight = parameters[:, :-1] * self.scale
        bias = parameters[:, -1] - weight @ self.mean
        return weight.to(self.features.dtype), bias.to(self.features.dtype)

    def value(self, parameters: Tensor, penalty: float) -> tuple[float, Tensor, Tensor]:
        """The objective, its gradient, and the mean of p (1 - p) of each class."""
        weight, bias = self.left(parameters)
        count = len(self.features)
        loss, curved = 0.0, torch.zeros(self.classes, dtype=torch.float64, device=weight.device)
        sums, slope = torch.zeros_like(curved), torch.zeros_like(parameters[:, :-1])
        each = torch.arange(self.rows, device=weight.device)
        for x, y in zip(torch.split(self.features, self.rows), torch.split(self.labels, self.rows), strict=True):
            true = y, each[: len(y)]
            logs = torch.addmm(bias.unsqueeze(1), weight, x.mT).log_softmax(dim=0)  # K x rows: the quicker way round
            loss -= float(logs[true].sum())
            p = logs.exp_()
            curved += torch.addcmul(p, p, p, value=-1).sum(dim=1)
            p[true] -= 1
            sums += p.sum(dim=1)
            slope += p @ x
        slope = (slope - sums.unsqueeze(1) * self.mean) * (self.scale / count)
        own = parameters[:, :-1]
        gradient = torch.cat([slope + penalty * own, sums.unsqueeze(1) / count], dim=1)
        return loss / count + penalty / 2 * float(own.square().sum()), gradient, curved / count

    def guess(self, gradient: Tensor, curved: Tensor, penalty: float) -> Tensor:
        """The gradient times the inverse of the first guess of the Hessian."""
        own = curved.clamp_min(1e-12).unsqueeze(1)
        slope = gradient[:, :-1] if self.axes is None else gradient[:, :-1] @ self.axes
        slope = slope / (own * self.values + penalty)
        slope = slope if self.axes is None else slope @ self.axes.mT
        return torch.cat([slope, gradient[:, -1:] / own.clamp_min(1e-6)], dim=1)

    def solve(self, start: Tensor, penalty: float, tolerance: float, most: int) -> tuple[Tensor, float, int]:
        """Where the descent ends, the objective there, and the number of steps."""
        at, kept = start, list[tuple[Tensor, Tensor, float]]()
        value, gradient, curved = self.value(at, penalty)
        for step in range(most):
            direction = -self._inverse(gradient, curved, penalty, kept)
            slope = float((gradient * direction).sum())
            if slope >= 0:  # what is remembered no longer helps
                kept.clear()
                direction = -self.guess(gradient, curved, penalty)
                slope = float((gradient * direction).sum())
            if -slope / 2 <= tolerance:
                return at, value, step
            length = 1.0
            while True:
                there = at + length * direction
                below = self.value(there, penalty)
                if below[0] <= value + 1e-4 * length * slope:
                    break
                # the lowest point of the parabola through both values and the slope
                length *= min(0.5, max(0.1, -slope * length / (2 * (below[0] - value - slope * length))))
                if length < 1e-8:  # rounding hides what is left
                    return at, value, step
            moved, turned = there - at, below[1] - gradient
            bend = float((moved * turned).sum())
            if bend > 1e-12 * float(turned.square().sum()):
                kept = [*kept[-_MEMORY + 1 :], (moved, turned, bend)]
            at, (value, gradient, curved) = there, below
        return at, value, most

    def _inverse(
        self, gradient: Tensor, curved: Tensor, penalty: float, kept: Sequence[tuple[Tensor, Tensor, float]]
    ) -> Tensor:
        """The two loops of L-BFGS (Nocedal 1980) around the first guess."""
        q, shares = gradient.clone(), []
        for moved, turned, bend in reversed(kept):
            shares.append(float((moved * q).sum()) / bend)
            q -= shares[-1] * turned
        r = self.guess(q, curved, penalty)
        if kept:
            _, turned, bend = kept[-1]
            r *= bend / float((turned * self.guess(turned, curved, penalty)).sum())
        for (moved, turned, bend), share in zip(kept, reversed(shares), strict=True):
            r += (share - float((turned * r).sum()) / bend) * moved
        return r
