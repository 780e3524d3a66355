"""The yardstick of all methods on hand-worked cases."""

import math

import pytest
import torch

from lightning_repshape.analyses.collapse import reliability_bins
from lightning_repshape.callbacks import (
    FeatureInputs,
    LDAEigenvalues,
    NeuralCollapse,
)
from lightning_repshape.features.passes import Features


def test_collapse_of_a_simplex_is_exactly_zero() -> None:
    etf = torch.eye(4) - 0.25
    train = Features(
        etf.repeat_interleave(5, 0), torch.arange(4).repeat_interleave(5), etf.repeat_interleave(5, 0) @ etf.T
    )
    found = NeuralCollapse().compute(FeatureInputs({"train": train}, weight=etf))
    for measure in ("nc1", "nc2_norms", "nc2_angles", "nc2_simplex", "nc3"):
        assert found.scalars[f"train_{measure}"] == pytest.approx(0, abs=1e-6), measure
    assert found.scalars["train_nc4"] == 1
    assert found.scalars["train_nc3_cosine"] == pytest.approx(1)
    assert found.scalars["train_lda_eigenvalue"] == math.inf
    assert any("infinite" in note for note in found.notes)
    lda = LDAEigenvalues().compute(FeatureInputs({"train": train}))
    assert lda.scalars["eigenvalue"] == math.inf
    assert any("infinite for every class" in note for note in lda.notes)


def test_calibration_error_of_a_hand_worked_case() -> None:
    # twenty samples with confidence 0.9, 16 of them right; twenty with 0.6, twelve right: (0.1 + 0) / 2
    logits = torch.log(torch.tensor([[0.9, 0.1]] * 20 + [[0.6, 0.4]] * 20))
    labels = torch.tensor([0] * 16 + [1] * 4 + [0] * 12 + [1] * 8)
    train = Features(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), labels, logits)
    found = NeuralCollapse(bins=10).compute(FeatureInputs({"train": train}))
    assert found.scalars["train_calibration_error"] == pytest.approx(0.05, abs=1e-6)
    assert found.scalars["train_accuracy"] == pytest.approx(0.7)
    assert found.content["reliability"]["train"]["share"] == [0.5, 0.5]


def test_a_calibration_curve_has_no_bin_of_few_samples() -> None:
    source = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(90, 4, generator=source)
    part = Features(torch.randn(90, 3, generator=source), torch.arange(90) % 4, logits)
    found = reliability_bins(part, 15)
    assert len(found["share"]) >= 2 and min(found["share"]) >= 20 / 90 - 1e-9
    assert sum(found["share"]) == pytest.approx(1)
    inside = zip(found["low"], found["accuracy"], found["high"], strict=True)
    assert all(low <= share <= high for low, share, high in inside)
    assert len(reliability_bins(Features(part.features[:5], part.labels[:5], logits[:5]), 15)["share"]) == 1
