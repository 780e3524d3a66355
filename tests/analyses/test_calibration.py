"""The calibration analysis: before and after, and what it can say without a validation set or logits."""

import pytest
import torch
from analysis_data import clusters
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_repshape import Calibration, FeatureInputs
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.passes import Features


def parts(scale: float = 4.0) -> dict[str, Features]:
    found = {name: clusters(seed, 300, spread=3.0) for seed, name in enumerate(("train", "val", "test"))}
    return {name: part._replace(logits=scale * part.logits) for name, part in found.items()}


def test_scaling_helps_a_model_that_is_too_sure() -> None:
    given = parts()
    done = Calibration().compute(FeatureInputs(given))
    found = done.scalars
    test = given["test"]
    wanted = multiclass_calibration_error(test.logits.double().softmax(dim=1), test.labels, num_classes=3, n_bins=15)
    assert found["ece"] == pytest.approx(float(wanted), abs=1e-6)
    assert found["temperature"] > 4 and found["ece_scaled"] < found["ece"] / 2 and found["nll_scaled"] < found["nll"]
    assert 0 < found["aurc"] < found["error"] and not done.notes
    assert done.figures[""]() is not None and len(done.tables["calibration"]) == 2


def test_without_validation_or_logits() -> None:
    given = parts()
    del given["val"]
    done = Calibration().compute(FeatureInputs(given))
    assert "temperature" not in done.scalars and "ece" in done.scalars
    assert any("no validation set" in note for note in done.notes)
    blank = parts()["val"]
    given["val"] = blank._replace(labels=torch.full_like(blank.labels, -1))
    assert Calibration().compute(FeatureInputs(given)).scalars == done.scalars
    bare = {name: part._replace(logits=None) for name, part in parts().items()}
    assert "the model gave no logits" in Calibration().run(FeatureInputs(bare)).failure
    with pytest.raises(ConfigError, match="bins"):
        Calibration(bins=0)


def test_predictions_that_are_all_right() -> None:
    given = {name: clusters(seed, 60, spread=0.01) for seed, name in enumerate(("train", "val", "test"))}
    right = {name: part._replace(logits=torch.eye(3)[part.labels]) for name, part in given.items()}
    done = Calibration().compute(FeatureInputs(right))
    assert done.scalars["error"] == done.scalars["aurc"] == 0
    assert any("end of its range" in note for note in done.notes) and done.figures[""]() is not None
