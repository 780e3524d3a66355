"""Analyses as functions and as callbacks: when they run, what they leave alone, and what they refuse."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analysis_data import FAST, QUIET, clusters, digits, every, inputs, module, outcome_of
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape.callbacks import (
    Analysis,
    AnalysisInputs,
    AnalysisResult,
    FeatureInputs,
    FisherGeodesic,
    LDAEigenvalues,
    ModelInputs,
    NeuralCollapse,
    PartialDatasetRetraining,
    PrincipalComponents,
    RepresentationCharacteristics,
    run_analyses,
)
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.passes import Features, extract_features


class Draws(LightningModule):
    """Draws random numbers at every training step, so that any change of the generators shows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 12), nn.Dropout(0.3), nn.ReLU())
        self.top = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.body(x.flatten(1)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1]) + 0 * (random.random() + np.random.rand())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/error", (self(batch[0]).argmax(1) != batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 5e-3)


def test_callback_function_and_model_give_the_same(tmp_path: Path, real_figures: None) -> None:
    data = digits()
    net = module(data)
    analyses = every()
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    trainer.fit(net, data)
    assert not (tmp_path / "analysis").exists()
    logged = trainer.test(net, data, verbose=False)[0]
    stages = {split: list(data.batches(split, augment=False, shuffle=False)) for split in ("train", "test")}
    of_model = ModelInputs(net, stages, "features", num_classes=10, class_names=data.class_names)
    found = {split: extract_features(net, batches) for split, batches in stages.items()}
    last = next(part for part in net.head.modules() if isinstance(part, nn.Linear))
    weight, bias = last.weight.detach(), last.bias.detach()
    of_tensors = FeatureInputs(found, num_classes=10, class_names=data.class_names, weight=weight, bias=bias)
    for given in (of_model, of_tensors):
        for ours, done in zip(every(), analyses, strict=True):
            result = ours.compute(given)
            assert done.outcome is not None and done.outcome.result is not None
            assert result.scalars == pytest.approx(done.outcome.result.scalars, rel=1e-5, nan_ok=True), ours.name
    for done in analyses:
        saved = json.loads((tmp_path / "analysis" / f"{done.name}.json").read_text())
        assert saved["analysis"] == done.name and saved["layer"] == "features"
        assert (tmp_path / "analysis" / f"{done.name}.png").stat().st_size > 5000
        assert (tmp_path / "analysis" / f"{done.name}.pdf").is_file()
        for name, value in saved["scalars"].items():
            assert logged[f"test/{done.name}/{name}"] == pytest.approx(value, rel=1e-5)


def test_training_is_the_same_with_and_without_analyses(tmp_path: Path) -> None:
    def train(callbacks: list[Any]) -> dict[str, Tensor]:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        net = Draws()
        x, y = torch.randn(90, 64), torch.arange(90) % 10
        loader = DataLoader(TensorDataset(x, y), batch_size=30, shuffle=True)
        Trainer(max_epochs=3, default_root_dir=tmp_path, callbacks=callbacks, **QUIET).fit(net, loader)
        assert net.training
        random_numbers = torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])
        return {**net.state_dict(), "numbers": random_numbers}

    plain = train([])
    watched = train([
        LDAEigenvalues(layer="body", every_n_epochs=1, when="fit"),
        PartialDatasetRetraining("body", when="fit", sizes=[10], repeats=[2], loaders={"test": _batches()}, **FAST),
    ])  # fmt: skip
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    folders = sorted(path.name for path in (tmp_path / "analysis").iterdir() if path.is_dir())
    assert folders == ["epoch-000", "epoch-001", "epoch-002", "epoch-003"]
    assert json.loads((tmp_path / "analysis/partial_retraining.json").read_text())["scalars"]["error_10"] >= 0
    first, last = (
        json.loads((tmp_path / f"analysis/{name}/lda.json").read_text()) for name in ("epoch-000", "epoch-003")
    )
    assert first["scalars"] != last["scalars"]
    assert json.loads((tmp_path / "analysis/lda.json").read_text())["scalars"] == last["scalars"]


def test_initialisation_beside_the_trained_weights(tmp_path: Path) -> None:
    data = digits()
    net = module(data)
    start = extract_features(net, list(data.batches("test", augment=False, shuffle=False)), "fc2.pre")
    options: dict[str, Any] = {"units": (1, 3), "positive_only": False, "layer": "fc2"}
    watching = [
        RepresentationCharacteristics(when="fit_start", **options),
        RepresentationCharacteristics(when="fit", **options),
        PrincipalComponents(when="fit_start", before="features.pre"),
    ]
    assert [analysis.name for analysis in watching] == ["characteristics-init", "characteristics", "pca-init"]
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=list(watching), **QUIET)
    trainer.fit(net, data)
    saved = {name: np.load(tmp_path / f"analysis/{name}.npz") for name in ("characteristics-init", "characteristics")}
    first = saved["characteristics-init"]["values"]
    np.testing.assert_array_equal(first, start.features.relu()[:, [1, 3]].numpy())
    assert not np.array_equal(first, saved["characteristics"]["values"])
    assert saved["characteristics"]["units"].tolist() == [1, 3]
    before = np.load(tmp_path / "analysis/pca-init.npz")["before_points"]
    centered = start.features.double() - start.features.double().mean(0)
    spread = torch.linalg.svdvals(centered)[:3]
    np.testing.assert_allclose(np.linalg.norm(before, axis=0), spread.numpy(), rtol=1e-4)
    scalars = json.loads((tmp_path / "analysis/pca-init.json").read_text())["scalars"]
    assert scalars["before_explained_3"] == pytest.approx(float(spread.square().sum() / centered.square().sum()))
    # what went on from a checkpoint has no initial weights to look at
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = RepresentationCharacteristics(when="fit_start", **options)
    more = Trainer(max_epochs=2, default_root_dir=tmp_path / "more", callbacks=[again], **QUIET)
    more.fit(module(data), data, ckpt_path=tmp_path / "one.ckpt")
    assert again.outcome is None


def _batches() -> DataLoader[Any]:
    stream = torch.Generator().manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(40, 64, generator=stream), torch.arange(40) % 10), batch_size=20)


def test_two_of_a_kind_need_two_names(tmp_path: Path) -> None:
    data = digits()
    twice = [LDAEigenvalues(), LDAEigenvalues(layer="logits")]
    with pytest.raises(ConfigError, match="two analyses are called 'lda'"):
        Trainer(default_root_dir=tmp_path, callbacks=list(twice), **QUIET).test(module(data), data, verbose=False)
    twice = [LDAEigenvalues(), LDAEigenvalues(layer="logits", name="lda-logits")]
    Trainer(default_root_dir=tmp_path, callbacks=list(twice), **QUIET).test(module(data), data, verbose=False)
    assert json.loads((tmp_path / "analysis/lda-logits.json").read_text())["layer"] == "logits"


def test_unknown_layer_and_layer_without_a_tensor(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    net = nn.Sequential(nn.Linear(4, 6), Pair())
    batches = {"train": [(torch.randn(9, 4), torch.arange(9) % 3)]}
    assert "has no layer '00'" in LDAEigenvalues().run(ModelInputs(net, batches, layer="00")).failure
    failure = LDAEigenvalues().run(ModelInputs(net, batches, layer="1")).failure
    assert "layer '1' of Sequential returns tuple, not a tensor" in failure
    # a run is refused before anything is computed
    data = digits()
    wrong, right = LDAEigenvalues(layer="featurs", name="wrong"), LDAEigenvalues(layer="features")
    with pytest.raises(ConfigError, match="wrong: SupervisedModule has no layer 'featurs'; did you mean 'features'"):
        Trainer(default_root_dir=tmp_path, callbacks=[wrong, right], **QUIET).test(module(data), data, verbose=False)


def test_one_class_only() -> None:
    one = clusters()._replace(labels=torch.ones(120, dtype=torch.int64), logits=None)
    for analysis in (LDAEigenvalues(), NeuralCollapse(), FisherGeodesic(), PartialDatasetRetraining()):
        assert "all 120 train samples are of class '1'" in outcome_of(analysis, one, one)
    assert PrincipalComponents().run(FeatureInputs({"train": one})).result is not None


def test_class_with_one_sample() -> None:
    part = clusters()
    labels = part.labels.clone()
    labels[0] = 3
    lonely = Features(part.features, labels, None)
    results = run_analyses([LDAEigenvalues(label=3), NeuralCollapse(), RepresentationCharacteristics()],
                           FeatureInputs({"train": lonely, "test": lonely}))  # fmt: skip
    assert [outcome.failure for outcome in results] == ["", "", ""]
    assert any("1 of 4 classes have too few samples" in note for note in results[2].result.notes)
    assert "class 3 has 1" in outcome_of(PartialDatasetRetraining(sizes=[8], repeats=[1]), lonely, lonely)


def test_constant_features() -> None:
    flat = clusters()._replace(features=torch.ones(120, 6), logits=None)
    assert "every feature is constant" in outcome_of(LDAEigenvalues(), flat)
    assert "never change" in outcome_of(PrincipalComponents(), flat)
    assert "class means coincide" in outcome_of(NeuralCollapse(), flat)
    assert "none of the layer's 6 units varies" in outcome_of(RepresentationCharacteristics(), flat)


def test_nan_features_stop_what_needs_them_only(tmp_path: Path) -> None:
    features = clusters().features.clone()
    features[7, 2] = torch.nan
    broken = Features(features, clusters().labels, None)
    given = FeatureInputs({"train": broken, "test": clusters(1, 60)}, num_classes=3, weight=torch.eye(3, 6))
    outcomes = {outcome.name: outcome for outcome in run_analyses(every(), given, tmp_path)}
    assert "features of 1 of 120 samples of the train set hold NaN" in outcomes["lda"].failure
    assert outcomes["geodesic"].failure == outcomes["lda"].failure
    assert {name for name, outcome in outcomes.items() if outcome.result is not None} == {
        "pca", "characteristics", "weight_separability"
    }  # fmt: skip
    assert "failure" in json.loads((tmp_path / "lda.json").read_text())
    assert json.loads((tmp_path / "weight_separability.json").read_text())["scalars"]["raw"] == 0


def test_fewer_test_classes_and_fewer_training_classes() -> None:
    train, test = clusters(), clusters(1, 60)
    some = test.labels < 2
    fewer = Features(test.features[some], test.labels[some], None)
    outcomes = run_analyses(every(), FeatureInputs({"train": train, "test": fewer}, weight=torch.eye(3, 6)))
    assert [outcome.failure for outcome in outcomes] == [""] * 7
    assert any("no test samples of class 2" in note for note in outcomes[0].result.notes)
    some = train.labels < 2
    fewer = Features(train.features[some], train.labels[some], None)
    outcomes = run_analyses(every(), FeatureInputs({"train": fewer, "test": test}, num_classes=3))
    assert [outcome.name for outcome in outcomes if outcome.failure] == ["weight_separability"]
    assert any("20 test samples of other classes are left out" in note for note in outcomes[-1].result.notes)


def test_options_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="when='end'"):
        LDAEigenvalues(when="end")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="every_n_epochs is -1"):
        LDAEigenvalues(every_n_epochs=-1)
    with pytest.raises(ConfigError, match="part is 0"):
        FisherGeodesic(part=0)
    with pytest.raises(ConfigError, match="repeats must be one number"):
        PartialDatasetRetraining(sizes=[10, 20], repeats=[1])
    wrong: list[dict[str, Any]] = [{"sizes": [2.5]}, {"sizes": [0]}, {"sizes": [9], "repeats": [-1]}]
    for options in wrong:
        with pytest.raises(ConfigError, match="no whole number above 0"):
            PartialDatasetRetraining(**options)
    with pytest.raises(ConfigError, match="updates is 0, but at least 1"):
        PartialDatasetRetraining(updates=0)
    with pytest.raises(ConfigError, match="two positions or keys"):
        LDAEigenvalues(unpack=(0, 1, 2))  # type: ignore[arg-type]


def test_an_error_of_the_program_is_named() -> None:
    class Broken(Analysis):
        kind = "broken"

        def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
            raise ZeroDivisionError("no class has samples")

    outcome = Broken().run(inputs())
    assert outcome.result is None and "no class has samples" in outcome.failure
