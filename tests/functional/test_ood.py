"""Scores of unfamiliar samples, held against SciPy, scikit-learn and the papers' formulas written out in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_repshape.functional import (
    class_orthogonality,
    detection,
    energy_score,
    logit_score,
    mahalanobis_score,
    neco_score,
    neighbour_score,
    softmax_score,
    vim_score,
)

CLASSES = 3


def data(count: int = 90, width: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Training features and labels, and other features."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    means = 3 * torch.randn(CLASSES, width, generator=source)
    mixing = torch.randn(width, width, generator=source) / 3
    train = means[labels] + torch.randn(count, width, generator=source) @ mixing + 1
    return train, labels, torch.randn(17, width, generator=source) * 2


def test_scores_of_logits_are_the_formulas() -> None:
    from scipy.special import logsumexp, softmax

    logits = 5 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    z = logits.double().numpy()
    assert np.allclose(softmax_score(logits), softmax(z, axis=1).max(axis=1))
    assert np.allclose(logit_score(logits), z.max(axis=1))
    assert np.allclose(energy_score(logits), logsumexp(z, axis=1))
    assert np.allclose(energy_score(logits, temperature=2.0), 2 * logsumexp(z / 2, axis=1))


def test_detection_is_scikit_learns_roc() -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    for seed in range(5):
        source = torch.Generator().manual_seed(seed)
        known, others = torch.randn(101, generator=source) + 1, torch.randn(70, generator=source)
        if seed % 2:
            known, others = known.mul(2).round(), others.mul(2).round()  # ties
        truth, scores = np.r_[np.ones(101), np.zeros(70)], torch.cat([known, others]).numpy()
        far, tar, _ = roc_curve(truth, scores)
        found = detection(known, others)
        assert found.auroc == pytest.approx(roc_auc_score(truth, scores))
        assert found.fpr95 == pytest.approx(far[np.flatnonzero(tar >= 0.95)[0]])
    assert detection(torch.ones(3), torch.zeros(4)) == (1.0, 0.0)


def test_mahalanobis_with_one_scatter_is_scikit_learns_shrunk_covariance() -> None:
    from sklearn.covariance import OAS

    train, labels, others = data()
    x, y, rows = train.double().numpy(), labels.numpy(), others.double().numpy()
    means = np.stack([x[y == k].mean(axis=0) for k in range(CLASSES)])
    fitted = OAS(assume_centered=True).fit(x - means[y])
    wanted = np.max([-((rows - m) @ fitted.precision_ * (rows - m)).sum(axis=1) for m in means], axis=0)
    assert np.allclose(mahalanobis_score(others, train, labels, CLASSES), wanted)


def test_mahalanobis_with_a_scatter_of_each_class_is_a_log_density() -> None:
    from scipy.stats import multivariate_normal
    from sklearn.covariance import OAS

    train, labels, others = data()
    x, y, rows = train.double().numpy(), labels.numpy(), others.double().numpy()
    density = []
    for k in range(CLASSES):
        fitted = OAS().fit(x[y == k])
        density.append(multivariate_normal(x[y == k].mean(axis=0), fitted.covariance_).logpdf(rows))
    wanted = 2 * np.max(density, axis=0) + 8 * np.log(2 * np.pi)
    assert np.allclose(mahalanobis_score(others, train, labels, CLASSES, shared=False), wanted)


def test_more_features_than_samples_and_dead_units_have_a_scatter() -> None:
    train, labels, others = data(12, 40)
    train[:, 7] = 0
    for shared in (True, False):
        near = mahalanobis_score(train + 0.01, train, labels, CLASSES, shared)
        far = mahalanobis_score(others + 9, train, labels, CLASSES, shared)
        assert bool(near.isfinite().all()) and float(near.min()) > float(far.max())
    labels[3:] = 0  # classes 1 and 2 have a sample each, 0 has the others
    assert bool(mahalanobis_score(others, train, labels, CLASSES, shared=False).isfinite().all())
    for shared in (True, False):
        with pytest.raises(ValueError, match="no class has two samples"):
            mahalanobis_score(others, train[:3], torch.arange(3), CLASSES, shared)


def test_neighbours_are_scikit_learns() -> None:
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    train, _, others = data()
    near = NearestNeighbors(n_neighbors=5).fit(normalize(train.double().numpy()))
    distances, _ = near.kneighbors(normalize(others.double().numpy()))
    assert np.allclose(neighbour_score(others, train, 5), -distances[:, -1], atol=1e-6)
    with pytest.raises(ValueError, match="91 neighbours need as many rows, got 90"):
        neighbour_score(others, train, 91)


def test_vim_is_the_papers_formula() -> None:
    from scipy.special import logsumexp

    train, _, others = data()
    weight, bias = torch.randn(CLASSES, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([0.3, -1.0, 0.5])
    x, rows, w, b = (part.double().numpy() for part in (train, others, weight, bias))
    origin = -np.linalg.pinv(w) @ b
    values, vectors = np.linalg.eigh((x - origin).T @ (x - origin) / len(x))
    rest = vectors[:, np.argsort(-values)[4:]]
    alpha = (x @ w.T + b).max(axis=1).mean() / np.linalg.norm((x - origin) @ rest, axis=1).mean()
    wanted = logsumexp(rows @ w.T + b, axis=1) - alpha * np.linalg.norm((rows - origin) @ rest, axis=1)
    assert np.allclose(vim_score(others, train, weight, bias), wanted)
    assert not np.allclose(vim_score(others, train, weight, bias, dimension=5), wanted)
    assert bool(vim_score(others, train, weight).isfinite().all())
    with pytest.raises(ValueError, match="below the 8 features, got 8"):
        vim_score(others, train, weight, bias, dimension=8)
    flat = train.clone()
    flat[:, 3:] = 0
    with pytest.raises(ValueError, match="all training features lie in 4 directions"):
        vim_score(others, flat, weight)


def test_neco_is_the_papers_formula() -> None:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    train, _, others = data()
    scaler = StandardScaler().fit(train.double().numpy())
    z = scaler.transform(others.double().numpy())
    components = PCA(2).fit(scaler.transform(train.double().numpy())).components_
    wanted = np.linalg.norm(z @ components.T, axis=1) / np.linalg.norm(z, axis=1)
    assert np.allclose(neco_score(others, train, 2), wanted)
    dead = torch.cat([train, torch.ones(90, 3)], dim=1)
    assert np.allclose(neco_score(torch.cat([others, 5 * torch.ones(17, 3)], dim=1), dead, 2), wanted)
    with pytest.raises(ValueError, match="below the 8 features that change, got 8"):
        neco_score(others, train, 8)


def test_orthogonality_of_other_samples() -> None:
    train, labels, others = data()
    x, y = train.double().numpy(), labels.numpy()
    center = others.double().numpy().mean(axis=0)
    means = [x[y == k].mean(axis=0) for k in range(CLASSES)]
    cosines = [abs(m @ center) / np.linalg.norm(m) / np.linalg.norm(center) for m in means]
    assert class_orthogonality(train, labels, CLASSES + 2, others) == pytest.approx(np.mean(cosines))
    eye = torch.eye(4)
    assert class_orthogonality(eye[:3], torch.arange(3), 3, eye[3:]) == 0


SCORES: list[Callable[..., Any]] = [
    lambda rows, train, labels: mahalanobis_score(rows, train, labels, CLASSES),
    lambda rows, train, labels: mahalanobis_score(rows, train, labels, CLASSES, shared=False),
    lambda rows, train, labels: neighbour_score(rows, train, 5),
    lambda rows, train, labels: vim_score(rows, train, torch.ones(CLASSES, 8)),
    lambda rows, train, labels: neco_score(rows, train, 2),
    lambda rows, train, labels: class_orthogonality(train, labels, CLASSES, rows),
]


@pytest.mark.parametrize("score", SCORES)
def test_what_cannot_be_scored_is_refused(score: Callable[..., Any]) -> None:
    train, labels, others = data()
    broken = train.clone()
    broken[4, 2] = torch.nan
    for rows, known, words in ((others, broken, "finite"), (broken, train, "finite"), (others[:, :7], train, "columns"),
                               (others[0], train, "matrix"), (others[:0], train, "matrix")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            score(rows, known, labels)
    with pytest.raises(TypeError, match="floating"):
        score(others.long(), train, labels)
    score(others.half(), train.half(), labels)


def test_logits_and_thresholds_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="logits must be finite, but 1 of 2 rows"):
        softmax_score(torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]))
    with pytest.raises(ValueError, match="temperature"):
        energy_score(torch.ones(2, 2), 0)
    with pytest.raises(ValueError, match="scores of both kinds of samples are needed, got 3 and 0"):
        detection(torch.ones(3), torch.ones(0))
