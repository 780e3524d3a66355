"""A trained model taken along: from runs, checkpoints and exports, for images of every kind."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runs import checkpoint, metrics
from lightning.pytorch import Trainer
from PIL import Image
from torch import nn

from lightning_repshape import MLP, DigitsDataModule, Preprocessing, RepshapeModel, SupervisedModule
from lightning_repshape.errors import CheckpointError, ConfigError, DataError

OLD = Path(__file__).parents[1] / "fixtures" / "run-of-0.1"


def test_a_run_without_its_data_says_what_it_said_with_them(trained: Any) -> None:
    model = RepshapeModel.from_run(trained.run)
    assert model.class_names == ("ant", "bee", "cat") and not model.training
    names = list(trained.rows)
    paths = [trained.photos / name for name in names]
    classes, probabilities = model.predict(paths, batch_size=7)
    assert classes == [trained.rows[name][0] for name in names]
    top = model.top(paths, 2)
    for name, best, row in zip(names, top, probabilities, strict=True):
        cells = [cell for label, value in best for cell in (label, f"{value:.6f}")]
        assert cells == trained.rows[name] and float(row.max()) == pytest.approx(best[0][1], abs=1e-6)
    assert model.output_names == ("probabilities", "features")
    features = model.features(paths)
    found = model.activations(paths, ["fc1", "head.output"], batch_size=16)
    assert features.shape == (30, 8) and torch.equal(found["fc1"], features) and found["head.output"].shape == (30, 3)
    with pytest.raises(ConfigError, match="no layer 'fc2'; did you mean 'fc1'"):
        model.activations(paths, "fc2")


def test_images_of_every_kind_are_one_image(trained: Any) -> None:
    model = RepshapeModel.from_run(trained.run / "checkpoints" / "last.ckpt")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("image.png")
    tensor = torch.tensor(pixels).permute(2, 0, 1)
    wanted = model.predict("image.png").probabilities
    same = [Path("image.png"), Image.open("image.png"), Image.fromarray(pixels), tensor, tensor[None]]
    for image in same:
        assert torch.equal(model.predict(image).probabilities, wanted)
    mixed = model.predict([*same, tensor / 255]).probabilities
    torch.testing.assert_close(mixed, wanted.expand(6, -1), rtol=1e-5, atol=1e-6)
    assert model.predict(tensor.expand(5, -1, -1, -1), batch_size=2).probabilities.shape == (5, 3)
    with torch.no_grad():
        torch.testing.assert_close(model(tensor[None] / 255)[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_sizes_channels_and_turned_images(fit: Any) -> None:
    form = Preprocessing(("a",), (3, 16, 12), (0.5,) * 3, (0.25,) * 3, fit)
    generator = torch.Generator().manual_seed(0)
    source = torch.nn.functional.interpolate(
        torch.rand(1, 3, 5, 7, generator=generator), size=(90, 61), mode="bicubic"
    ).clamp(0, 1)
    pixels = (source[0] * 255).round().to(torch.uint8)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    by_picture = form.inputs(picture)
    assert by_picture.shape == (1, 3, 16, 12)
    near = 2.5 / 255 / 0.25  # crops differ by part of a pixel
    torch.testing.assert_close(form.inputs(pixels), by_picture, rtol=0, atol=near if fit == "stretch" else 4 * near)
    torch.testing.assert_close(form.inputs(pixels), form.inputs(pixels / 255), rtol=0, atol=0.51 / 255 / 0.25)
    grey = form.inputs(picture.convert("L"))
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[0, 0], form.inputs(picture.convert("LA"))[0, 2])
    torch.testing.assert_close(form.inputs(pixels[:1]), form.inputs(pixels[:1].expand(3, -1, -1)))
    exif = Image.Exif()
    exif[274] = 6
    picture.save("turned.png", exif=exif)
    upright = form.inputs(picture.transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(form.inputs("turned.png"), upright) and torch.equal(
        form.inputs(Image.open("turned.png")), upright
    )
    middle = Preprocessing(("a",), (3, 16, 12), (0.5,) * 3, (0.25,) * 3, center=(16, 12))
    assert torch.equal(middle.inputs(pixels), middle.inputs(picture))
    assert Preprocessing.of_plain(middle.plain(), "here") == middle


def test_what_is_no_image_is_named(trained: Any) -> None:
    model = RepshapeModel.from_run(trained.run)
    Path("broken.png").write_bytes(b"no image")
    good = torch.zeros(3, 4, 4)
    for images, message in (
        ("absent.png", "cannot read the image absent.png"),
        ([trained.photos / "ant" / "00.png", "broken.png"], r"cannot read the image broken.png.*damaged"),
        ([good, np.zeros((4, 4))], "image 1 is ndarray; give a path, an image of PIL"),
        (torch.zeros(2, 4, 4), r"image 0 is a tensor of shape \(1, 2, 4, 4\); .* C = 3"),
        (good.long(), "torch.int64; uint8, or floating-point"),
        ([good, good - 1], r"image 1 has values from -1 to -1; floating-point pixels lie in \[0, 1\]"),
        (good + torch.nan, "image 0 has values from nan"),
    ):
        with pytest.raises(DataError, match=message):
            model.predict(images)
    for nothing in ([], torch.zeros(0, 3, 4, 4)):
        with pytest.raises(ConfigError, match="there are no images"):
            model.predict(nothing)


@pytest.mark.parametrize("name", ["supervised", "foca"])
def test_a_run_of_version_0_1_asks_its_data(name: str) -> None:
    model = RepshapeModel.from_run(OLD / name)
    data = DigitsDataModule()
    classes, _ = model.predict(data.images("test").permute(0, 3, 1, 2))
    wrong = sum(found != model.class_names[label] for found, label in zip(classes, data.labels("test"), strict=True))
    assert wrong / 300 == pytest.approx(metrics(str(OLD / name))["test/error"], abs=1e-6)
    assert model.class_names == tuple("0123456789")
    shutil.copy(OLD / name / "checkpoints" / "best.ckpt", "alone.ckpt")
    with pytest.raises(CheckpointError, match=r"alone.ckpt does not say what the model's inputs .* preprocessing=.*"):
        RepshapeModel.from_run("alone.ckpt")
    alone = RepshapeModel.from_run("alone.ckpt", preprocessing=data.preprocessing())
    assert alone.predict(data.images("test").permute(0, 3, 1, 2)).classes == classes


def test_a_module_of_python_is_given() -> None:
    data = DigitsDataModule(train_size=100, val_size=0)

    def module() -> SupervisedModule:
        return SupervisedModule(10, (1, 8, 8), backbone=lambda shape: MLP(shape, (8,)))

    trainer = Trainer(max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False)
    fitted = module()
    trainer.fit(fitted, data)
    path = Path(str(trainer.checkpoint_callback.best_model_path))  # type: ignore[union-attr]
    with pytest.raises(CheckpointError, match=r"not written by the command line .* module=...\)"):
        RepshapeModel.from_run(path)
    model = RepshapeModel.from_run(path, module=module())
    images = data.images("test").permute(0, 3, 1, 2)
    assert torch.equal(
        model.predict(images).probabilities, RepshapeModel(fitted, data.preprocessing()).predict(images)[1]
    )
    with pytest.raises(CheckpointError, match="checkpoint of another model"):
        RepshapeModel.from_run(path, module=SupervisedModule(10, (1, 8, 8), backbone=MLP))


def test_any_module_with_logits_is_taken() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    model = RepshapeModel(net, DigitsDataModule().preprocessing())
    image = torch.rand(1, 30, 20)
    assert model.output_names == ("probabilities",) and model.activations(image, "1")["1"].shape == (1, 4)
    assert model.predict(image).classes[0] in model.class_names and "3" in model.activation_names
    with pytest.raises(ConfigError, match="Sequential gives no features; it gives probabilities"):
        model.features(image)
    with pytest.raises(ConfigError, match=r"Sequential returns shape \(1, 4\), but logits N x 10"):
        RepshapeModel(net[:2], DigitsDataModule().preprocessing()).predict(image)


def test_what_holds_no_model() -> None:
    Path("empty").mkdir()
    with pytest.raises(CheckpointError, match="empty holds neither a run nor an export"):
        RepshapeModel.from_run("empty")
    with pytest.raises(CheckpointError, match="absent does not exist"):
        RepshapeModel.from_run("absent")
    Path("empty/config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="names no model"):
        RepshapeModel.from_run("empty")
    Path("empty/config.json").write_text('{"model": {}, "preprocessing": {"class_names": ["a"], "input_shape": [1]}}')
    with pytest.raises(CheckpointError, match="what it says of the inputs cannot be read"):
        RepshapeModel.from_run("empty")


def test_nothing_is_imported_because_a_checkpoint_says_so(trained: Any, trap: Path) -> None:
    path = trained.run / "checkpoints" / "best.ckpt"
    saved = checkpoint(str(trained.run), "best")
    saved["hyper_parameters"]["backbone"]["class_path"] = "trap.MLP"
    torch.save(saved, path)
    with pytest.raises(ConfigError, match=r"best.ckpt names trap.MLP: no classes of this package"):
        RepshapeModel.from_run(trained.run)
    with pytest.raises(ConfigError, match=r"names trap.MLP"):  # nor does the run's own config
        RepshapeModel.from_run(trained.run, trust=True)
    assert not trap.exists() and "trap" not in sys.modules
    config = trained.run / "config.yaml"
    config.write_text(config.read_text().replace("lightning_repshape.MLP", "trap.MLP"))
    assert RepshapeModel.from_run(trained.run, trust=True).class_names and trap.exists()
