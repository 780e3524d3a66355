"""Models of timm from the command line: trained from a file, resumed, analysed, exported; in every module."""

from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import QUIET, checkpoint, same

from lightning_repshape import RepshapeModel, export_model
from lightning_repshape.cli import main

timm: Any = pytest.importorskip("timm")

NET = ["--model.backbone", "TimmBackbone"]
VIT = [*NET, "--model.backbone.name", "test_vit", "--model.backbone.options", "{patch_size: 4}"]
DATA = ["--data", "DigitsDataModule", "--data.train_size", "200", "--data.batch_size", "100", *QUIET]


@pytest.fixture(autouse=True)
def _in_tmp(in_tmp: Path) -> None:
    """Every test works in its own folder."""


@pytest.mark.proof
def test_from_weights_to_an_export(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), "weights.pth")
    words = ["fit", "--model", "RegularizedModule", *NET, "--model.backbone.name", "test_resnet", *DATA]
    words += ["--model.backbone.weights", "weights.pth", "--model.backbone.image_size", "32"]
    words += ["--model.backbone.normalize", "true", "--data.normalize", "unit"]
    words += ["--model.backbone.frozen", "true", "--model.backbone.trainable", "[layer4]"]
    words += ["--model.regularizers+", "{class_path: ClasswiseVariance, init_args: {weight: 0.1, layer: layer4}}"]
    assert main([*words, "--trainer.max_epochs", "2", "--run_dir", "whole"]) == 0
    assert main([*words, "--trainer.max_epochs", "1", "--run_dir", "part"]) == 0
    assert main(["fit", "--run_dir", "part", "--ckpt_path", "last", "--trainer.max_epochs", "2", *QUIET]) == 0
    whole = checkpoint("whole")["state_dict"]
    assert same(whole, checkpoint("part")["state_dict"])
    given = torch.load("weights.pth", weights_only=True)
    assert torch.equal(whole["backbone.net.layer1.0.conv1.weight"], given["layer1.0.conv1.weight"])
    assert not torch.equal(whole["backbone.net.layer4.0.conv1.weight"], given["layer4.0.conv1.weight"])
    assert main(["analyze", "--run_dir", "whole", "--analyses", "lda,collapse", "--layer", "layer3", *QUIET]) == 0
    assert (Path("whole") / "analysis" / "layer3" / "lda.json").is_file()
    Path("weights.pth").unlink()  # what was trained needs it no more
    model = RepshapeModel.from_run("whole")
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    export_model(model, "exported")
    again = RepshapeModel.from_run("exported")
    assert torch.equal(again.predict(images).probabilities, model.predict(images).probabilities)
    assert model.activations(images, ["layer4"])["layer4"].shape[0] == 3
    assert main(["test", "--run_dir", "whole", *QUIET]) == 0
    assert main(["fit", "--run_dir", "whole", "--ckpt_path", "last", "--trainer.max_epochs", "3", *QUIET]) == 0
    capsys.readouterr()
    assert main([*words, "--run_dir", "anew"]) == 1
    assert "there is no file weights.pth; give one of timm's test_resnet" in capsys.readouterr().err
    assert not (Path("anew") / "checkpoints").exists()


def test_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    assert (
        main(["fit", "--model", "SupervisedModule", *VIT, *DATA, "--trainer.max_epochs", "1", "--run_dir", "run"]) == 0
    )
    assert main(["export", "--run_dir", "run", "--format", "onnx"]) == 0  # which holds it against the original
    assert list(Path("run").rglob("model.onnx"))


@pytest.mark.proof
@pytest.mark.parametrize(
    "words",
    [
        ["FOCAModule", "--model.weak.updates", "4", "--model.secondary.updates", "5", "--model.val_classifiers", "2"],
        ["ClassVectorModule"],
        ["FeedBackwardModule", "--model.classification_loss", "CenterLoss"],
    ],
)
def test_every_module(words: list[str]) -> None:
    assert main(["fit", "--model", *words, *VIT, *DATA, "--trainer.max_epochs", "1", "--run_dir", "run"]) == 0
    assert main(["test", "--run_dir", "run", *QUIET]) == 0
    assert main(["analyze", "--run_dir", "run", "--analyses", "lda", "--layer", "blocks.3", *QUIET]) == 0


def test_a_name_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["fit", "--model", "SupervisedModule", *NET, "--model.backbone.name", "vit_tiny_patch16_22", *DATA]) == 2
    )
    assert "did you mean 'vit_tiny_patch16_224'" in capsys.readouterr().err
    assert not Path("runs").exists()
