"""Nearest neighbours and logistic regressions, held against scikit-learn and the definitions in float64."""

from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape.functional.probes import LinearProbe, cosine_neighbours, linear_probes, vote


def samples(count: int = 600, width: int = 24, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Classes that overlap, features of a falling spectrum far from the origin."""
    stream = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(0, classes, (count,), generator=stream)
    points = centers[labels] + 2 * torch.randn(count, width, generator=stream)
    return points * torch.arange(1, width + 1.0) ** -1 + 3, labels


def objective(x: Tensor, y: Tensor, weight: Any, bias: Any, penalty: float) -> float:
    w, b = torch.as_tensor(weight).double(), torch.as_tensor(bias).double()
    return float(F.cross_entropy(x.double() @ w.T + b, y) + penalty / 2 * w.square().sum())


@pytest.mark.parametrize("count", [70, 3000])  # all similarities sorted, and only the largest runs
def test_neighbours_are_those_of_all_similarities(count: int) -> None:
    x, _ = samples(count)
    queries, _ = samples(41, seed=1)
    x, queries = x.double() - 3, queries.double() - 3
    cosines = F.normalize(queries) @ F.normalize(x).T
    near = cosine_neighbours(x, queries, 7)
    torch.testing.assert_close(cosines.gather(1, near), cosines.topk(7).values)
    assert near.shape == (41, 7)


def test_votes_are_scikit_learns() -> None:
    (x, y), (queries, _) = samples(500), samples(200, seed=1)
    near = cosine_neighbours(x - 3, queries - 3, 15)
    for count, found in zip((15, 1, 4), vote(y[near], 4, [15, 1, 4]), strict=True):
        peer = KNeighborsClassifier(count, metric="cosine", algorithm="brute").fit(x.double() - 3, y)
        assert torch.equal(found, torch.from_numpy(peer.predict(queries.double() - 3)))


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_probe_is_scikit_learns_regression(penalty: float, dtype: torch.dtype) -> None:
    x, y = samples()
    scaled = (x.double() - x.double().mean(dim=0)) / x.double().var(dim=0, unbiased=False).mean().sqrt()
    peer = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=100_000).fit(scaled, y)
    best = objective(scaled, y, peer.coef_, peer.intercept_, penalty)
    plain = linear_probes(scaled.to(dtype), y, 4, [penalty], normalize=False)[0]
    assert best - 1e-9 <= objective(scaled, y, plain.weight, plain.bias, penalty) <= best + 1e-6
    assert plain.objective == pytest.approx(best, abs=1e-6)
    found = linear_probes(x.to(dtype), y, 4, [penalty])[0]
    assert found.objective == pytest.approx(best, abs=1e-6)
    wanted = scaled @ torch.from_numpy(peer.coef_).T + torch.from_numpy(peer.intercept_)
    given = found.logits(x).double()
    torch.testing.assert_close(given.softmax(dim=1), wanted.softmax(dim=1), atol=5e-3, rtol=0)


def test_a_path_ends_where_each_of_its_probes_does() -> None:
    x, y = samples()
    path = linear_probes(x, y, 4, [1.0, 1e-1, 1e-2, 1e-2, 1e-3, 1e-1])
    for one in path:
        alone = linear_probes(x, y, 4, [one.penalty])[0]
        assert one.objective == pytest.approx(alone.objective, abs=1e-6)
    again = linear_probes(x, y, 4, [1e-3], initial=path[4])[0]
    assert again.iterations <= 1 and again.objective == pytest.approx(path[4].objective, abs=1e-6)


def test_wide_features_more_of_them_than_samples_and_classes_apart() -> None:
    x, y = samples(60, 2100)  # too wide for the scatter
    probe = linear_probes(x, y, 4, [1e-3])[0]
    assert torch.equal(probe.logits(x).argmax(dim=1), y)
    peer = LogisticRegression(C=1 / (1e-3 * 60), tol=1e-9, max_iter=10_000)
    scaled = (x.double() - x.double().mean(dim=0)) / x.double().var(dim=0, unbiased=False).mean().sqrt()
    peer.fit(scaled, y)
    assert probe.objective == pytest.approx(objective(scaled, y, peer.coef_, peer.intercept_, 1e-3), abs=5e-6)


def test_features_that_never_change_leave_the_frequencies() -> None:
    y = torch.tensor([0, 0, 0, 1])
    probe = linear_probes(torch.ones(4, 3), y, 2, [1e-2])[0]
    torch.testing.assert_close(
        probe.logits(torch.ones(1, 3)).softmax(dim=1), torch.tensor([[0.75, 0.25]]), atol=1e-3, rtol=0
    )


def test_bad_arguments_are_refused() -> None:
    x, y = samples(50)
    nan = x.clone()
    nan[3, 2] = torch.nan
    for call, words in (
        (lambda: linear_probes(x, y, 4, []), "penalties"),
        (lambda: linear_probes(x, y, 4, [0.0]), "penalties"),
        (lambda: linear_probes(x, y, 1, [0.1]), "num_classes"),
        (lambda: linear_probes(x, y[:4], 4, [0.1]), "50 rows"),
        (lambda: linear_probes(x, y, 3, [0.1]), "labels must lie in"),
        (lambda: linear_probes(nan, y, 4, [0.1]), "finite"),
        (lambda: cosine_neighbours(x, nan, 3), "queries must be finite"),
        (lambda: cosine_neighbours(x, x[:, :3], 3), "columns"),
        (lambda: cosine_neighbours(x, x, 51), "as many rows"),
        (lambda: vote(y[None], 4, [51]), "counts"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="floating"):
        linear_probes(x.long(), y, 4, [0.1])


def test_half_precision_and_logits() -> None:
    x, y = samples(100)
    probe = linear_probes(x.half(), y, 4, [1e-2])[0]
    assert isinstance(probe, LinearProbe) and probe.weight.dtype == torch.float32
    assert probe.logits(x.half()).shape == (100, 4)
