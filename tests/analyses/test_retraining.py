"""Heads on frozen features: partial retraining and the geodesic."""

import pytest
from analysis_data import FAST, clusters, inputs, outcome_of

from lightning_repshape.callbacks import (
    FisherGeodesic,
    PartialDatasetRetraining,
)
from lightning_repshape.errors import ConfigError
from lightning_repshape.functional.loss_data import loss_data_measures


def test_geodesic_is_that_of_the_function_and_starts_both_heads_alike() -> None:
    found = FisherGeodesic(few=9, segments=4, **FAST).compute(inputs(seed=3))
    assert set(found.scalars) == {"layer_1", "layer_2", "full", "length_full", "error_all", "error_few"}
    segments = found.content["segments"]["full"]
    assert found.scalars["full"] == pytest.approx(float(segments.square().sum().sqrt()))
    assert found.scalars["length_full"] == pytest.approx(float(segments.sum()))
    assert len(found.content["errors"]) == 5
    # heads that do not move are their common start: the line has no length
    still = FisherGeodesic(few=9, segments=4, updates=1, rate=1e-30, hidden=(8,)).compute(inputs())
    assert still.scalars["full"] == 0
    again = FisherGeodesic(few=9, segments=4, **FAST).compute(inputs(seed=3))
    assert again.scalars == found.scalars
    assert FisherGeodesic(few=9, segments=4, **FAST).compute(inputs(seed=4)).scalars != found.scalars


def test_retraining_knows_the_joint_error_and_its_sizes() -> None:
    given = inputs()
    found = PartialDatasetRetraining(sizes=[3, 60], repeats=[4, 2], **FAST).compute(given)
    test = given.features("test")
    assert found.scalars["joint_error"] == float((test.logits.argmax(1) != test.labels).double().mean())
    assert found.content["repeats"] == [4, 2]
    assert found.scalars["error_60"] == float(found.content["errors"][60].mean())
    by_default = PartialDatasetRetraining(**FAST).compute(given)
    assert by_default.content["sizes"] == [10, 120]
    assert by_default.content["repeats"] == [150, 1]


def test_fewer_samples_than_classes() -> None:
    train, test = clusters(), clusters(1, 60)
    assert "needs n' >= 3 samples, got 2" in outcome_of(PartialDatasetRetraining(sizes=[2], repeats=[1]), train, test)
    assert "needs n' >= 3 samples, got 2" in outcome_of(FisherGeodesic(few=2), train, test)


def test_loss_against_data() -> None:
    found = PartialDatasetRetraining(sizes=[10, 40], repeats=[3, 2], epsilons=[1.0, 1e-6], **FAST).compute(inputs())
    losses = {size: found.scalars[f"loss_{size}"] for size in (10, 40)}
    assert losses[10] == pytest.approx(float(found.content["test_losses"][10].mean()))
    wanted = loss_data_measures(losses, 3, [1.0, 1e-6])
    assert found.scalars["code_length"] == wanted.code_length
    assert found.scalars["surplus_1"] == wanted.surplus[1.0] and "samples_1e-06" not in found.scalars
    assert any("above" in str(row["samples n' to reach it"]) for row in found.tables["loss against data (nats)"][:-1])
    assert found.figures["loss"]() is not None
    with pytest.raises(ConfigError, match="epsilons"):
        PartialDatasetRetraining(epsilons=[0.0])
