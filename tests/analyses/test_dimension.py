"""The dimension analysis as part of analyze, a callback and a plain call."""

import torch

from lightning_repshape.analyses import FeatureInputs, RepresentationDimension
from lightning_repshape.features.passes import Features
from lightning_repshape.functional import twonn_dimension


def test_figures_of_a_plane() -> None:
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    points = torch.rand(600, 2, generator=source) + 4 * labels[:, None]
    features = points @ torch.randn(2, 10, generator=source)
    inputs = FeatureInputs({"train": Features(features, labels, None)})
    outcome = RepresentationDimension(max_samples=500).run(inputs)
    assert outcome.result is not None, outcome.failure
    found = outcome.result.scalars
    assert 1.5 < found["twonn"] < 2.4 and 1.5 < found["mle"] < 2.4 and found["participation_ratio"] < 2.01
    assert "decay" not in found and any("three eigenvalues" in note for note in outcome.result.notes)
    assert any("500 of 600" in note for note in outcome.result.notes)
    whole = RepresentationDimension().run(inputs).result
    assert whole is not None and whole.scalars["twonn"] == float(twonn_dimension(features))
    assert outcome.result.figures[""]().axes


def test_features_that_never_change_are_told() -> None:
    for width in (3, 30):
        inputs = FeatureInputs({"train": Features(torch.ones(20, width), torch.arange(20) % 2, None)})
        assert "never change" in RepresentationDimension().run(inputs).failure
