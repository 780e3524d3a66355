"""Losses on features and class vectors against float64 transcriptions of their papers."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ddp_pool import GlooPool
from torch import Tensor

from lightning_repshape.errors import ConfigError
from lightning_repshape.functional import feed_backward_loss
from lightning_repshape.losses import (
    ArcFace,
    CenterLoss,
    ClassificationLoss,
    CosFace,
    FeedBackwardReconstruction,
    L2Softmax,
    LargeMarginSoftmax,
    SoftmaxLoss,
)

N, D, K = 12, 5, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    return random(N, D, seed=seed).requires_grad_(), random(K, D, seed=seed + 1).requires_grad_(), torch.arange(N) % K


def angles(x: Tensor, w: Tensor) -> tuple[list[list[float]], list[float], list[float]]:
    rows, vectors = x.tolist(), w.tolist()
    lengths = [math.sqrt(sum(a * a for a in row)) for row in rows]
    norms = [math.sqrt(sum(a * a for a in row)) for row in vectors]
    found = [
        [
            math.acos(sum(a * b for a, b in zip(r, v, strict=True)) / (p * q))
            for v, q in zip(vectors, norms, strict=True)
        ]
        for r, p in zip(rows, lengths, strict=True)
    ]
    return found, lengths, norms


def cross_entropy(logits: list[list[float]], y: Tensor) -> float:
    total = 0.0
    for row, label in zip(logits, y.tolist(), strict=True):
        total += math.log(sum(math.exp(value - row[label]) for value in row))
    return total / len(logits)


def psi(theta: float, m: int) -> float:
    k = min(int(theta * m / math.pi), m - 1)
    return (-1) ** k * math.cos(m * theta) - 2 * k


# Each gives the training logit of a sample's own class from its angle and the two lengths; others are as `plain`.
def oracle(x: Tensor, w: Tensor, y: Tensor, own: Callable[..., float], plain: Callable[..., float]) -> float:
    theta, lengths, norms = angles(x, w)
    logits = [
        [(own if k == int(y[n]) else plain)(theta[n][k], lengths[n], norms[k]) for k in range(K)] for n in range(N)
    ]
    return cross_entropy(logits, y)


def arc(theta: float, s: float, m: float) -> float:
    return s * math.cos(theta + m) if theta + m <= math.pi else s * (math.cos(theta) - m * math.sin(m))


CASES: dict[str, tuple[ClassificationLoss, Callable[..., float], Callable[..., float]]] = {
    "softmax": (SoftmaxLoss(D, K), lambda t, a, b: a * b * math.cos(t), lambda t, a, b: a * b * math.cos(t)),
    "l2": (L2Softmax(D, K, scale=3.0), lambda t, a, b: 3 * b * math.cos(t), lambda t, a, b: 3 * b * math.cos(t)),
    "cosface": (CosFace(D, K, 8.0, 0.3), lambda t, a, b: 8 * (math.cos(t) - 0.3), lambda t, a, b: 8 * math.cos(t)),
    "arcface": (ArcFace(D, K, 8.0, 1.1), lambda t, a, b: arc(t, 8, 1.1), lambda t, a, b: 8 * math.cos(t)),
    **{
        f"large-margin-{m}-{annealing:g}": (
            LargeMarginSoftmax(D, K, margin=m, annealing=annealing).eval(),
            lambda t, a, b, m=m, r=annealing: a * b * (r * math.cos(t) + psi(t, m)) / (1 + r),
            lambda t, a, b: a * b * math.cos(t),
        )
        for m in (1, 2, 3, 4)
        for annealing in (0.0, 7.0)
    },
}


@pytest.mark.parametrize("case", CASES)
def test_margin_losses_are_their_papers_formulas(case: str) -> None:
    loss, own, plain = CASES[case]
    for seed in (0, 7):
        x, w, y = batch(seed)
        value = loss(x, w, None, y)
        assert value.item() == pytest.approx(oracle(x.detach(), w.detach(), y, own, plain), rel=1e-9)
        assert torch.autograd.gradcheck(lambda a, b, y=y: loss(a, b, None, y), (x, w))
    # the widest angles are covered, where margins bend
    theta = angles(x.detach(), w.detach())[0]
    assert max(theta[n][int(y[n])] for n in range(N)) > 2.2


def test_psi_is_continuous_and_decreasing() -> None:
    theta = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    for margin in (1, 2, 3, 4, 5):
        values = LargeMarginSoftmax(D, K, margin=margin).psi(theta.cos())
        assert values[0].item() == pytest.approx(1) and values[-1].item() == pytest.approx(1 - 2 * margin)
        steps = values.diff()
        assert steps.max() < 1e-9 and steps.min() > -0.01


def test_annealing_falls_by_training_batches_and_is_kept() -> None:
    loss = LargeMarginSoftmax(D, K, annealing=10.0, gamma=0.5, power=2.0, least=0.4)
    x, w, y = batch()
    shares = []
    for _ in range(12):
        shares.append(float(loss.share()))
        loss(x, w, None, y)
    assert shares[:3] == pytest.approx([10, 10 / 1.5**2, 10 / 2**2])
    assert shares[-1] == 0.4
    with torch.no_grad():
        loss(x, w, None, y)  # an evaluation is no training batch
    again = LargeMarginSoftmax(D, K)
    again.load_state_dict(loss.state_dict())
    assert int(again.batches) == 12


def test_parallel_vectors_have_finite_gradients() -> None:
    w = torch.eye(K, D, dtype=torch.float64)
    for loss in (case[0] for case in CASES.values()):
        for x in (w.clone(), -w.clone(), torch.zeros(K, D, dtype=torch.float64)):
            x.requires_grad_()
            weight = w.clone().requires_grad_()
            loss(x, weight, None, torch.arange(K)).backward()
            assert x.grad is not None and bool(x.grad.isfinite().all()), loss
            assert weight.grad is not None and bool(weight.grad.isfinite().all()), loss


@pytest.mark.parametrize("name", ["CosFaceLoss", "ArcFaceLoss", "LargeMarginSoftmaxLoss"])
def test_agrees_with_pytorch_metric_learning(name: str) -> None:
    library = pytest.importorskip("pytorch_metric_learning.losses")
    x, w, y = batch()
    with torch.no_grad():
        if name == "LargeMarginSoftmaxLoss":
            ours: ClassificationLoss = LargeMarginSoftmax(D, K, margin=4, annealing=0.0)
            theirs = getattr(library, name)(num_classes=K, embedding_size=D, margin=4)
        else:
            kind = CosFace if name == "CosFaceLoss" else ArcFace
            ours = kind(D, K, scale=8.0, margin=0.3)
            margin = 0.3 if kind is CosFace else math.degrees(0.3)
            theirs = getattr(library, name)(num_classes=K, embedding_size=D, margin=margin, scale=8)
        theirs.W.data = w.T.clone()
        torch.testing.assert_close(ours(x, w, None, y), theirs(x, y), rtol=1e-5, atol=1e-6, check_dtype=False)


def test_losses_that_predict_from_cosines_say_so() -> None:
    x, w, _ = batch()
    for loss in (L2Softmax(D, K), CosFace(D, K), ArcFace(D, K)):
        assert loss.own_logits
        torch.testing.assert_close(loss.logits(3 * x, w), loss.logits(x, w))
    assert not SoftmaxLoss(D, K).own_logits and not LargeMarginSoftmax(D, K).own_logits


# ------------------------------------------------------------------------------------------------- center loss


def centers_by_hand(centers: list[list[float]], x: Tensor, y: Tensor, rate: float) -> list[list[float]]:
    moved = []
    for label, center in enumerate(centers):
        own = [row for row, its in zip(x.tolist(), y.tolist(), strict=True) if its == label]
        pull = [sum(c - row[d] for row in own) / (1 + len(own)) for d, c in enumerate(center)]
        moved.append([c - rate * p for c, p in zip(center, pull, strict=True)])
    return moved


def test_center_loss_is_its_formula_and_moves_centers_by_equation_4() -> None:
    loss = CenterLoss(D, K, weight=0.3, rate=0.5).double()
    centers = [[0.0] * D for _ in range(K)]
    for seed in range(3):
        x, w, y = batch(seed)
        y = y % 3  # one class is absent, and its center stays
        apart = [
            sum((a - c) ** 2 for a, c in zip(r, centers[t], strict=True))
            for r, t in zip(x.tolist(), y.tolist(), strict=True)
        ]
        expected = SoftmaxLoss(D, K)(x, w, None, y).item() + 0.3 / 2 * sum(apart) / N
        value = loss(x, w, None, y)
        assert value.item() == pytest.approx(expected)
        (gradient,) = torch.autograd.grad(loss.eval().further(x, y), x)
        loss.train()
        centers = centers_by_hand(centers, x.detach(), y, 0.5)
        torch.testing.assert_close(loss.centers, torch.tensor(centers, dtype=torch.float64))
    torch.testing.assert_close(gradient, 0.3 * (x.detach() - loss.centers[y]) / N)
    assert not loss.centers[3].any()
    assert list(loss.parameters()) == [] and "centers" in loss.state_dict()


def test_centers_stay_in_evaluation_and_with_rate_zero() -> None:
    x, w, y = batch()
    for loss in (CenterLoss(D, K).eval(), CenterLoss(D, K, rate=0.0)):
        loss.double()(x, w, None, y)
        assert not loss.centers.any()
    loss = CenterLoss(D, K)
    with torch.no_grad():
        loss.double()(x, w, None, y)
    assert not loss.centers.any()


def share_of_center_loss(rank: int, world_size: int) -> tuple[Tensor, Tensor]:
    loss = CenterLoss(D, K).double()
    gradients = torch.zeros(N, D, dtype=torch.float64)
    for seed in range(2):
        x, w, y = batch(seed)
        part = x.detach()[rank::world_size].requires_grad_()
        loss(part, w.detach(), None, y[rank::world_size]).backward()
        gradients[rank::world_size] = part.grad / world_size
    return loss.centers, gradients


def test_centers_of_two_processes_are_those_of_the_joined_batch(gloo: GlooPool) -> None:
    (first, one), (second, two) = gloo.run(share_of_center_loss)
    alone, gradients = share_of_center_loss(0, 1)
    torch.testing.assert_close(first, alone)
    torch.testing.assert_close(second, alone)
    torch.testing.assert_close(one + two, gradients)


# ------------------------------------------------------------------------------------- the reconstruction term


def test_reconstruction_term_is_the_weighted_function() -> None:
    x, w, y = batch()
    term = FeedBackwardReconstruction(weight=0.25, temperature=2.0, stop_gradient="features")
    expected = feed_backward_loss(x, w, y, temperature=2.0, stop_gradient="features")
    torch.testing.assert_close(term.value(x, w, y), expected)
    torch.testing.assert_close(term(x, w, y), 0.25 * expected)
    term(x, w, y).backward()
    assert x.grad is None and w.grad is not None


def test_half_precision_is_computed_in_float32() -> None:
    x, w, y = (tensor.detach() for tensor in batch())
    for loss in (case[0] for case in CASES.values() if not isinstance(case[0], SoftmaxLoss)):
        assert loss(x.bfloat16(), w.bfloat16(), None, y).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = CosFace(D, K)(x.float(), w.float(), None, y)
    torch.testing.assert_close(inside, CosFace(D, K)(x.float(), w.float(), None, y))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosFace(0, K), "num_features must be a whole number"),
        (lambda: CosFace(D, K, scale=0.0), "scale must be a finite number above 0"),
        (lambda: CosFace(D, K, margin=-1.0), "from 0 to 2"),
        (lambda: ArcFace(D, K, margin=28.6), "angle in radians"),
        (lambda: LargeMarginSoftmax(D, K, margin=0), "whole number above 0"),
        (lambda: LargeMarginSoftmax(D, K, gamma=-1.0), "gamma"),
        (lambda: CenterLoss(D, K, rate=2.0), "rate"),
        (lambda: CenterLoss(D, K, weight=-1.0), "weight"),
        (lambda: FeedBackwardReconstruction(weight=-1.0), "weight must be"),
        (lambda: FeedBackwardReconstruction(temperature=0.0), "temperature must be"),
        (lambda: FeedBackwardReconstruction(stop_gradient="both"), "'none', 'features' or 'weight'"),  # type: ignore[arg-type]
    ],
)
def test_bad_options_get_one_clear_message(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_bad_tensors_get_one_clear_message() -> None:
    x, w, y = batch()
    with pytest.raises(ConfigError, match="bias: false"):
        CosFace(D, K)(x, w, torch.zeros(K), y)
    with pytest.raises(ConfigError, match="4 class vectors of 5 features"):
        SoftmaxLoss(D, K)(x, w[:, :3], None, y)
    with pytest.raises(ConfigError, match="N x 5 features"):
        SoftmaxLoss(D, K)(x[:, :3], w, None, y)
    with pytest.raises(ConfigError, match="5 columns, but the class vectors have 3"):
        FeedBackwardReconstruction()(x, w[:, :3], y)


@pytest.mark.parametrize("loss_class", [L2Softmax, CosFace, ArcFace])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_of_zeros_gets_a_gradient_of_zeros(loss_class: type[ClassificationLoss], dtype: torch.dtype) -> None:
    source = torch.Generator().manual_seed(0)
    features, weight = torch.randn(N, D, generator=source), torch.randn(K, D, generator=source)
    features[3] = 0
    if loss_class is not L2Softmax:
        weight[1] = 0  # a class vector of zeros likewise
    features, weight = features.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
    loss_class(D, K)(features, weight, None, torch.arange(N) % K).backward()
    assert features.grad is not None and weight.grad is not None
    assert torch.equal(features.grad[3], torch.zeros(D, dtype=dtype)) and bool(features.grad[0].any())
    assert bool(features.grad.isfinite().all()) and float(features.grad.abs().max()) < 1e3
    if loss_class is not L2Softmax:
        assert torch.equal(weight.grad[1], torch.zeros(D, dtype=dtype))
