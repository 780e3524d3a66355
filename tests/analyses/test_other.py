"""A second data set beside the model's own: read by the same model, at the same layer, as its own images are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analysis_data import QUIET, Foreign, Images, Plain, Staged, clusters
from lightning.pytorch import Trainer
from torch import nn

from lightning_repshape.analyses.analysis import Analysis
from lightning_repshape.analyses.arrays import read_arrays, splits_of
from lightning_repshape.analyses.inputs import AnalysisInputs, FeatureInputs, ModelInputs, TrainerInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.cli import main
from lightning_repshape.data import DigitsDataModule
from lightning_repshape.data.module import SplitData
from lightning_repshape.data.second import SecondSet
from lightning_repshape.errors import DataError
from lightning_repshape.modules import SupervisedModule
from lightning_repshape.networks import MLP


@pytest.fixture(autouse=True)
def _in_tmp(in_tmp: Path) -> None:
    """Runs write where they are."""


class Look(Analysis):
    """Keeps the inputs' features."""

    kind = "look"

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        assert inputs.other is not None
        self.seen = {split: inputs.other.optional(split) for split in ("train", "val", "test")}
        self.own, self.names, self.count = inputs.features("test"), inputs.other.class_names(), inputs.num_classes()
        return AnalysisResult({"other": 1.0}, {})


def test_in_a_trainer_one_pass_a_split() -> None:
    data, other = DigitsDataModule(), DigitsDataModule(classes=[3, 8], val_size=0)
    first, second = Look(other=other), Look(other=other, name="again")
    model = SupervisedModule(10, (1, 8, 8), backbone=lambda shape: MLP(shape, widths=(12,)))
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    trainer = Trainer(accelerator="cpu", callbacks=[first, second], **QUIET)
    trainer.test(model, datamodule=data, verbose=False)
    assert first.outcome is not None and first.outcome.failure == ""
    assert first.names == ("3", "8") and first.count == 10
    assert first.seen["val"] is None and second.seen["train"] is not None
    assert len(passes) == 4  # the test itself, its features, two splits of the other set
    # the same images as among the model's own, so the same features and logits
    rows = torch.isin(data.labels("test"), torch.tensor([3, 8]))
    found = first.seen["test"]
    torch.testing.assert_close(found.features, first.own.features[rows])
    torch.testing.assert_close(found.logits, first.own.logits[rows])
    assert found.labels.unique().tolist() == [0, 1]


def test_images_are_read_as_the_models_own() -> None:
    class Larger(DigitsDataModule):
        def describe(self) -> Any:
            from dataclasses import replace

            return replace(super().describe(), input_shape=(3, 16, 16), mean=(0.1,) * 3, std=(0.2,) * 3)

    data = Larger()
    x, y = next(iter(SecondSet(DigitsDataModule(eval_batch_size=7), data).loader("test")))
    assert x.shape == (7, 3, 16, 16) and y.shape == (7,)
    pixels = DigitsDataModule().images("test", torch.arange(7)).permute(0, 3, 1, 2).float()
    grown = nn.functional.interpolate(pixels, size=(16, 16), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(x, ((grown.round() / 255 - 0.1) / 0.2).expand(-1, 3, -1, -1))

    class Coloured(Larger):
        def load_split(self, split: Any) -> Any:
            return SplitData(torch.zeros(5, 16, 16, 3, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))

    with pytest.raises(DataError, match=r"an image of Coloured is a tensor .*C = 1 is expected"):
        next(iter(SecondSet(Coloured(), DigitsDataModule()).loader("test")))


@pytest.mark.parametrize("as_dictionaries", [True, False])
def test_data_modules_of_other_projects(as_dictionaries: bool) -> None:
    unpack = ("image", "label") if as_dictionaries else (0, 1)
    look = Look(layer="stem", other=Images(as_dictionaries), unpack=unpack)
    trainer = Trainer(accelerator="cpu", callbacks=[look], **QUIET)
    trainer.test(Foreign() if as_dictionaries else Plain(), datamodule=Images(as_dictionaries), verbose=False)
    assert look.outcome is not None and look.outcome.failure == ""
    assert look.seen["val"] is None
    torch.testing.assert_close(look.seen["test"].features, look.own.features)
    assert look.seen["train"].labels.tolist() == (torch.arange(64) % 4).tolist()  # not shuffled


def test_a_set_that_splits_at_random_is_set_up_once() -> None:
    data = Staged()
    both = SecondSet(data)
    both.loader("train"), both.loader("val"), both.loader("test")
    assert data.calls == ["fit", "test"]


def test_features_and_plain_models() -> None:
    part, far = clusters(), clusters(7, 40, classes=5)
    given = FeatureInputs({"train": part, "test": part}, other={"test": far._replace(logits=far.logits[:, :3])})
    assert given.other is not None and given.other.optional("train") is None
    assert given.other.num_classes() == 5 and given.num_classes() == 3
    assert given.other.features("test").logits is not None  # three values a sample: this model's classes
    unknown = FeatureInputs({"train": part}, other={"test": far._replace(labels=torch.full((40,), -1))}).other
    assert len(unknown.features("test").features) == 40
    with pytest.raises(DataError, match="the other test set has no labels"):
        unknown.labelled("test")
    broken = far.features.clone()
    broken[3] = torch.nan
    with pytest.raises(DataError, match="1 of 40 samples of the other test set hold NaN"):
        FeatureInputs({"train": part}, other={"test": far._replace(features=broken)}).other.features("test")
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    loaders = {"train": [(part.features, part.labels)]}
    inputs = ModelInputs(model, loaders, "0", other={"test": [(far.features, far.labels)]})
    assert inputs.other.features("test").features.shape == (40, 4)
    assert inputs.at("1").other.features("test").features.shape == (40, 3)
    assert ModelInputs(model, loaders, "0").other is None


def test_a_file_of_features(tmp_path: Path) -> None:
    part, far = clusters(), clusters(7, 40)
    arrays = {"features": part.features.numpy(), "labels": part.labels.numpy()}
    np.savez(tmp_path / "f.npz", **arrays, other_test_features=far.features.numpy())
    found = splits_of(read_arrays(tmp_path / "f.npz"), tmp_path / "f.npz", other=True)
    assert list(found) == ["test"] and set(found["test"].labels.tolist()) == {-1}
    np.savez(tmp_path / "g.npz", **arrays, other_test_features=far.features.numpy()[:, :4])
    with pytest.raises(DataError, match="of the second set differ in width"):
        splits_of(read_arrays(tmp_path / "g.npz"), tmp_path / "g.npz", other=True)
    np.savez(tmp_path / "h.npz", **arrays)
    assert splits_of(read_arrays(tmp_path / "h.npz"), tmp_path / "h.npz", other=True) == {}


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    monkeypatch.setattr(TrainerInputs, "class_vectors", lambda self: seen.append(self.other) or None)
    words = ["analyze", "--config", "quickstart", "--ckpt_path", "none", "--trainer.enable_progress_bar", "false"]
    words += ["--analyses", "collapse", "--run_dir", "found"]
    assert main([*words, "--other", "DigitsDataModule", "--other.classes", "[0,1]"]) == 0
    assert seen[0].num_classes() == 2
    assert main([*words, "--other", "DigitsDataModul"]) == 2
    assert "did you mean 'DigitsDataModule'" in capsys.readouterr().err
    np.savez("f.npz", features=np.zeros((4, 2)), labels=np.arange(4))
    assert main(["analyze", "--features", "f.npz", "--other", "DigitsDataModule"]) == 2
    assert "other_features" in capsys.readouterr().err
