"""What analyses take, and what they refuse."""

from typing import Any

import pytest
import torch
from analysis_data import FAST, clusters, inputs
from torch import Tensor, nn

from lightning_repshape.callbacks import (
    FeatureInputs,
    LDAEigenvalues,
    ModelInputs,
    NeuralCollapse,
    PartialDatasetRetraining,
    WeightSeparability,
    run_analyses,
)


def test_class_vectors_are_found_and_held_against_the_logits() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(40, 5), torch.arange(40) % 3
    loaders = {"train": [(x, y)]}
    last = ModelInputs(model, loaders, layer="3").class_vectors()
    assert last is not None and last.name == "4" and last.takes_features
    before = ModelInputs(model, loaders, layer="1").class_vectors()
    assert before is not None and not before.takes_features  # of the same width, but not what the layer receives
    assert "train_nc3" not in NeuralCollapse().compute(ModelInputs(model, loaders, layer="1")).scalars
    separability = WeightSeparability(head="4").compute(ModelInputs(model, loaders, layer="3"))
    w = model[4].weight.detach().double()
    assert separability.scalars["raw"] == pytest.approx(float((w @ w.T - torch.eye(3)).square().sum() / 3))
    assert "did you mean" in WeightSeparability(head="44").run(ModelInputs(model, loaders, layer="3")).failure


@pytest.mark.parametrize(
    "wrong", [{"weight": torch.zeros(3)}, {"weight": torch.zeros(2, 6)}, {"weight": torch.zeros(3, 6).long()},
              {"weight": torch.zeros(3, 6), "bias": torch.zeros(2)}]
)  # fmt: skip
def test_a_weight_of_the_wrong_shape(wrong: dict[str, Tensor]) -> None:
    done = NeuralCollapse().run(inputs(**wrong))
    assert "floating-point numbers for K = 3 classes" in done.failure


def test_rows_of_a_weight_count_as_classes() -> None:
    part = clusters()._replace(logits=None)
    given = FeatureInputs({"train": part}, weight=torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))
    assert given.num_classes() == 5 and NeuralCollapse().run(given).failure == ""


def test_logits_that_are_not_finite() -> None:
    part = clusters()
    logits = part.logits.clone()
    logits[[3, 8], 1] = torch.nan
    given = FeatureInputs({"train": part._replace(logits=logits), "test": clusters(1, 60)}, num_classes=3)
    collapse, lda = run_analyses([NeuralCollapse(), LDAEigenvalues()], given)
    assert collapse.result is not None and lda.result is not None
    assert "train_accuracy" not in collapse.result.scalars and "test_accuracy" in collapse.result.scalars
    assert any("logits of 2 of 120 samples hold NaN" in note for note in collapse.result.notes)


def test_outputs_that_are_no_logits() -> None:
    train, test = (part._replace(logits=part.features @ torch.ones(6, 32)) for part in (clusters(), clusters(1, 60)))
    given = FeatureInputs({"train": train, "test": test}, num_classes=3)
    done = NeuralCollapse().run(given)
    assert done.result is not None and not {"train_accuracy", "test_calibration_error"} & set(done.result.scalars)
    assert any("returns 32 values a sample, which are no logits of 3 classes" in note for note in done.result.notes)
    retrained = PartialDatasetRetraining(sizes=[10], repeats=[1], **FAST).run(given)
    assert retrained.result is not None and "joint_error" not in retrained.result.scalars


@pytest.mark.parametrize("num_classes", [2, None])
def test_a_single_output_of_two_classes(num_classes: int | None) -> None:
    part = clusters(classes=2)
    z = part.features[:, :1] - part.features[:, :1].mean()
    given = FeatureInputs({"train": part._replace(logits=z), "test": part._replace(logits=z)}, num_classes=num_classes)
    torch.testing.assert_close(given.features("test").logits.softmax(dim=1)[:, 1], torch.sigmoid(z[:, 0]))
    wrong = float(((z[:, 0] > 0).long() != part.labels).double().mean())
    found = PartialDatasetRetraining(sizes=[10], repeats=[1], **FAST).compute(given).scalars
    assert found["joint_error"] == pytest.approx(wrong)
    assert NeuralCollapse().compute(given).scalars["test_accuracy"] == pytest.approx(1 - wrong)


def test_labels_of_the_wrong_kind_and_batches_without_labels() -> None:
    net = nn.Linear(4, 3)
    net = nn.Sequential(net)
    x = torch.randn(6, 4)

    def failure(batch: Any, unpack: tuple[int | str, int | str] = (0, 1)) -> str:
        return LDAEigenvalues().run(ModelInputs(net, {"train": [batch]}, "0", unpack)).failure

    assert "labels must be one integer a sample, got torch.float32" in failure((x, torch.rand(6)))
    assert "one integer a sample" in failure((x, torch.zeros(6, 3, dtype=torch.int64)))
    assert "unpack=(0, 5) does not fit the batches, which are tuple of 2 entries" in failure((x, x), (0, 5))
    assert "the train set has no labels" in failure([x])
    assert "the train set has no labels" in failure(x)
    assert "unpack=('image', 'label')" in failure({"image": x, "target": 1}, ("image", "label"))
    assert not failure((x, torch.tensor([0, 1, -1, 0, 1, 2]))), "the others have one"
    assert "label 5, but there are only 3 classes" in LDAEigenvalues().run(
        ModelInputs(net, {"train": [(x, torch.tensor([0, 5, 1, 0, 1, 2]))]}, "0", num_classes=3)
    ).failure  # fmt: skip
    assert "no loader of the train set" in LDAEigenvalues().run(ModelInputs(net, {"test": []}, "0")).failure
