"""Analyses inside other people's LightningModules and data modules, and on a plain model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_data import QUIET, Foreign, Images, Plain, Staged, every, images
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_repshape.callbacks import (
    Analysis,
    AnalysisInputs,
    AnalysisResult,
    LDAEigenvalues,
    ModelInputs,
    NeuralCollapse,
    RepresentationCharacteristics,
    run_analyses,
)
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.last_layer import layer_of_features
from lightning_repshape.features.passes import extract_features
from lightning_repshape.runs.summary import ResultTable


def test_a_foreign_module_needs_layer_and_unpack_only(tmp_path: Path) -> None:
    analyses = every(layer="stem", unpack=("image", "label"))
    trainer = Trainer(default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    trainer.test(Foreign(), verbose=False)
    for analysis in analyses:
        assert analysis.outcome is not None and analysis.outcome.result is not None, analysis.outcome
    collapse = json.loads((tmp_path / "analysis/collapse.json").read_text())
    assert "train_nc4" in collapse["scalars"]
    assert any("no logits" in note for note in collapse["notes"])


def test_plain_torchvision_model() -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    net = squeezenet1_1(weights=None, num_classes=4)
    stream = torch.Generator().manual_seed(0)
    batches = {
        split: [(torch.rand(20, 3, 32, 32, generator=stream), torch.arange(20) % 4)] * 2 for split in ("train", "test")
    }
    given = ModelInputs(net, batches, layer="features.6.squeeze")
    outcomes = run_analyses([LDAEigenvalues(), NeuralCollapse(), RepresentationCharacteristics()], given)
    assert [outcome.failure for outcome in outcomes] == ["", "", ""]
    assert net.training  # as it was
    assert outcomes[1].result is not None and 0 <= outcomes[1].result.scalars["test_accuracy"] <= 1


def test_inside_torch_uncertainty(tmp_path: Path) -> None:
    routines = pytest.importorskip("torch_uncertainty.routines")
    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))
    net = routines.ClassificationRoutine(body, num_classes=4, loss=nn.CrossEntropyLoss())
    analyses = every(layer="model.2")
    trainer = Trainer(default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    data = Images()
    trainer.test(net, data, verbose=False)
    assert [analysis.outcome.failure for analysis in analyses if analysis.outcome] == [""] * len(analyses)


def test_inside_torchgeo(tmp_path: Path) -> None:
    trainers = pytest.importorskip("torchgeo.trainers")
    net = trainers.ClassificationTask(model="resnet18", weights=None, in_channels=3, num_classes=4)
    analyses = every(layer="model.global_pool", unpack=("image", "label"))
    trainer = Trainer(default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    trainer.test(net, Images(as_dictionaries=True), verbose=False)
    assert [analysis.outcome.failure for analysis in analyses if analysis.outcome] == [""] * len(analyses)


@pytest.mark.parametrize("options", [{"when": "fit"}, {"when": "fit_start"}, {"every_n_epochs": 1}])
def test_a_fit_analyses_the_test_set_that_it_has_not_prepared(tmp_path: Path, options: dict[str, Any]) -> None:
    analyses: list[Any] = [LDAEigenvalues("stem", **options), NeuralCollapse("stem", **options)]
    data = Staged()
    Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=analyses, **QUIET).fit(Plain(), data)
    assert data.calls == ["fit", "test"]
    assert [analysis.outcome.failure for analysis in analyses] == ["", ""]
    assert "test_accuracy" in analyses[1].outcome.result.scalars


def test_a_test_prepares_the_other_sets_once(tmp_path: Path) -> None:
    analyses = [kind(layer="stem") for kind in (LDAEigenvalues, NeuralCollapse, RepresentationCharacteristics)]
    data = Staged()
    trainer = Trainer(default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    trainer.test(Plain(), data, verbose=False)
    assert data.calls == ["test", "fit"]
    trainer.test(Plain(), data, verbose=False)
    assert data.calls == ["test", "fit"] * 2  # nothing is held on to


def test_augmentation_of_a_training_trainer_stays_out(tmp_path: Path) -> None:
    class Keeps(Analysis):
        kind = "keeps"

        def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
            return AnalysisResult({"mean": float(inputs.features("train").features.mean())})

    net, data, analysis = Plain(), Staged(), Keeps("stem", when="fit")
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[analysis], **QUIET)
    trainer.fit(net, data)
    assert analysis.outcome is not None and analysis.outcome.result is not None
    batches = [next(iter(DataLoader(data.train, batch_size=64)))]
    wanted = float(extract_features(net, batches, "stem").features.mean())
    assert analysis.outcome.result.scalars["mean"] == pytest.approx(wanted, rel=1e-5)


def loader(count: int, seed: int) -> DataLoader[Any]:
    return DataLoader(images(count, seed), batch_size=16, shuffle=seed == 0)


class WithoutLoaders(Plain):
    """What is given its batches."""

    train_dataloader = LightningModule.train_dataloader
    test_dataloader = LightningModule.test_dataloader


def test_a_test_knows_the_loaders_that_the_fit_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    analysis = NeuralCollapse()
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[analysis], **QUIET)
    net = WithoutLoaders()
    trainer.fit(net, loader(64, 0))
    trainer.test(net, loader(40, 1), verbose=False)
    assert analysis.outcome is not None and analysis.outcome.failure == ""
    assert "train_nc1" in analysis.outcome.result.scalars and "test_nc1" in analysis.outcome.result.scalars
    assert json.loads((tmp_path / "analysis/collapse.json").read_text())["layer"] == "classifier.input"
    assert capsys.readouterr().err.count(f"figures of collapse: {tmp_path / 'analysis'}\n") == 1
    quiet = Trainer(default_root_dir=tmp_path, callbacks=[analysis, ResultTable()], **QUIET)
    quiet.test(net, loader(40, 1), verbose=False)
    assert "figures of" not in capsys.readouterr().err


def test_the_default_layer_is_what_enters_the_last_linear_layer() -> None:
    torch.manual_seed(0)
    net, x = Plain(), torch.randn(6, 3, 8, 8)
    assert layer_of_features(net, "features", 4) == "classifier.input"
    entering = extract_features(net, [(x, torch.arange(6) % 4)], "classifier.input")
    with torch.no_grad():
        torch.testing.assert_close(entering.features, net.stem(x).flatten(1))
        torch.testing.assert_close(entering.logits, net(x))
    assert layer_of_features(net, "stem.0") == "stem.0"
    with pytest.raises(ConfigError, match="no layer 'features'"):
        layer_of_features(nn.Sequential(nn.ReLU()), "features")


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_misspelt_layer_is_refused_before_anything_runs(tmp_path: Path, stage: str) -> None:
    net = Plain()
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[LDAEigenvalues("stemm")], **QUIET)
    with pytest.raises(ConfigError, match="lda: Plain has no layer 'stemm'; did you mean 'stem'"):
        getattr(trainer, stage)(net)
    assert trainer.global_step == 0 and list(tmp_path.iterdir()) == []
