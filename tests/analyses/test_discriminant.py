"""Discriminants of every class against the rest, as an analysis and as a metric."""

import math

import numpy as np
import pytest
import torch
from analysis_data import clusters, inputs
from ddp_pool import GlooPool
from torch import Tensor

from lightning_repshape.callbacks import (
    FeatureInputs,
    LDAEigenvalues,
)
from lightning_repshape.features.passes import Features
from lightning_repshape.functional import class_vs_rest_lda
from lightning_repshape.metrics import LDAEigenvalueMetric, ScatterMetric


def test_lda_agrees_with_scipy() -> None:
    from scipy.linalg import eigh

    given = inputs()
    found = LDAEigenvalues(label=2, normalize=False).compute(given)
    x, y = given.features("train").features.double().numpy(), given.features("train").labels.numpy()
    means = [x[y == 2].mean(0), x[y != 2].mean(0)]
    parts = [x[y == 2] - means[0], x[y != 2] - means[1]]
    within = sum(part.T @ part for part in parts)
    gap = means[0] - means[1]
    between = np.outer(gap, gap) * len(parts[0]) * len(parts[1]) / len(x)
    assert found.scalars["eigenvalue"] == pytest.approx(eigh(between, within, eigvals_only=True)[-1], rel=1e-8)
    assert found.scalars["rank"] == 6
    assert 0 <= found.scalars["threshold_error"] < 0.2
    assert len(found.tables["each class against the rest"]) == 3


def test_lda_does_not_depend_on_order_names_or_rotation() -> None:
    train, test = clusters(0), clusters(1, 60)
    first = LDAEigenvalues(label=1).compute(FeatureInputs({"train": train, "test": test}))
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q.float()
    order = torch.randperm(120, generator=torch.Generator().manual_seed(4))
    names = torch.tensor([2, 0, 1])
    moved = Features(train.features[order] @ turn, names[train.labels[order]], None)
    moved_test = Features(test.features @ turn, names[test.labels], None)
    second = LDAEigenvalues(label=0).compute(FeatureInputs({"train": moved, "test": moved_test}, num_classes=3))
    assert second.scalars["eigenvalue"] == pytest.approx(first.scalars["eigenvalue"], rel=1e-5)
    assert second.scalars["threshold_error"] == first.scalars["threshold_error"]


def test_collapsed_features_are_said_to_be() -> None:
    part = clusters(spread=0.0)
    done = LDAEigenvalues().run(FeatureInputs({"train": part, "test": clusters(1, 60)}))
    assert done.result is not None and done.result.scalars["eigenvalue"] == math.inf
    assert any("eigenvalue infinite" in note for note in done.result.notes)
    done.result.figures[""]()
    done.result.figures["classes"]()


def test_more_features_than_samples() -> None:
    wide = clusters(count=30, width=50)
    done = LDAEigenvalues().run(FeatureInputs({"train": wide, "test": clusters(1, 60, 50)}))
    assert done.result is not None, done.failure
    assert any("no more samples than features" in note for note in done.result.notes)
    assert done.result.scalars["rank"] <= 29
    done.result.figures[""]()


def test_additive_metrics_agree_with_the_function() -> None:
    part = clusters()
    metric, scatter = LDAEigenvalueMetric(3, 6, normalize=True), ScatterMetric(3, 6, shift=1.0)
    for rows in torch.arange(120).split(50):
        metric.update(part.features[rows], part.labels[rows])
        scatter.update(part.features[rows], part.labels[rows])
    expected = class_vs_rest_lda(part.features, part.labels, 3, normalize=True).eigenvalues
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-9, atol=0)
    centered = part.features.double() - part.features.double().mean(0)
    torch.testing.assert_close(scatter.compute().total_scatter(), centered.T @ centered, rtol=1e-9, atol=1e-9)
    metric.reset()
    metric.update(part.features, part.labels)
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-9, atol=0)


def metric_on_ranks(rank: int, world_size: int) -> Tensor:
    part = clusters()
    own = slice(0, 50) if rank == 0 else slice(50, 120)
    metric = LDAEigenvalueMetric(3, 6)
    metric.update(part.features[own], part.labels[own])
    return metric.compute()


def test_two_ranks_see_what_one_sees(gloo: GlooPool) -> None:
    part = clusters()
    for value in gloo.run(metric_on_ranks, world_size=2):
        torch.testing.assert_close(
            value, class_vs_rest_lda(part.features, part.labels, 3).eigenvalues, rtol=1e-9, atol=0
        )
