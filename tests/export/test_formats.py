"""Exports: safetensors with a card, ONNX and programs of torch.export, each held against the original."""

import importlib.util
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lightning_repshape.modules
from lightning_repshape import (
    MLP,
    ClassifierModule,
    Preprocessing,
    RepshapeModel,
    SupervisedModule,
    export_model,
)
from lightning_repshape.errors import CheckpointError, ConfigError

pytest.importorskip("safetensors")
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
SHAPE = (1, 8, 8)
NETWORKS: dict[str, tuple[int, int, int]] = {"MLP": SHAPE, "ConvNet": (1, 28, 28)}  # the others take longer
MODULES = [
    name
    for name in lightning_repshape.modules.__all__
    if isinstance(kind := getattr(lightning_repshape.modules, name), type)
    and issubclass(kind, ClassifierModule)
    and kind is not ClassifierModule
]


def form(shape: tuple[int, int, int]) -> Preprocessing:
    return Preprocessing(("a", "b", "c"), shape, (0.4,) * shape[0], (0.3,) * shape[0])


def mlp(shape: tuple[int, ...]) -> MLP:
    return MLP(shape, (6, 5))


def module_of(name: str) -> ClassifierModule:
    kind = getattr(lightning_repshape.modules, name)
    if name == "AutoencoderModule":
        return kind(3, SHAPE, widths=(6, 5))
    return kind(3, SHAPE, backbone=mlp, **({"regularizers": []} if name == "RegularizedModule" else {}))


def test_an_export_of_a_run_is_read_again(trained: Any) -> None:
    model = RepshapeModel.from_run(trained.run)
    (check,) = export_model(model, "out")
    assert check.of == "generated images"  # the data are gone
    assert check.samples == 64 and check.differences == {"probabilities": 0, "features": 0}
    assert sorted(path.name for path in Path("out").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = RepshapeModel.from_run("out")
    paths = [trained.photos / name for name in trained.rows]
    assert torch.equal(again.predict(paths).probabilities, model.predict(paths).probabilities)
    assert again.preprocessing == model.preprocessing and again.preprocessing.fit == "crop"
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n") and "# RegularizedModule with MLP on data" in card
    for words in (
        "penalties: ClasswiseVariance (weight 0.01, layer fc1)",
        "images 3 x 12 x 10 (channels, rows, columns), 3 classes",
        "| classes | ant, bee, cat |",
        "| error | 66.67 % |",
        "1 epochs, 1 steps until these weights",
        'RepshapeModel.from_run("this-folder")',
        "| safetensors | 64 generated images | 0 | 0 |",
    ):
        assert words in card, words
    config = json.loads(Path("out/config.json").read_text(encoding="utf-8"))
    assert config["largest_differences"]["safetensors"]["samples"] == 64
    assert Path("out/model.safetensors").stat().st_mode & 0o777 == Path("out/config.json").stat().st_mode & 0o777


def test_an_export_from_elsewhere_imports_nothing(trained: Any, trap: Path) -> None:
    export_model(RepshapeModel.from_run(trained.run), "out")
    config = Path("out/config.json")
    config.write_text(config.read_text().replace("lightning_repshape.MLP", "trap.MLP"))
    with pytest.raises(ConfigError, match=r"config.json names trap.MLP: no classes of this package"):
        RepshapeModel.from_run("out")
    assert not trap.exists() and "trap" not in sys.modules
    assert RepshapeModel.from_run("out", trust=True).class_names and trap.exists()
    Path("out/model.safetensors").write_bytes(pickle.dumps("no weights"))
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
        RepshapeModel.from_run("out", trust=True)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_exported(name: str) -> None:
    module = module_of(name)
    model = RepshapeModel(module, form(SHAPE))
    checks = export_model(model, "out", ["safetensors", "torch"], samples=4)
    assert [max(check.differences.values()) for check in checks] == [0, 0]
    wanted = {"AutoencoderModule": {"reconstruction", "features"}}.get(name, {"probabilities", "features"})
    assert set(checks[0].differences) == wanted
    with pytest.raises(CheckpointError, match=r"does not say how the network is built"):
        RepshapeModel.from_run("out")
    again = RepshapeModel.from_run("out", module=module_of(name))
    pixels = torch.rand(3, *SHAPE)
    names: dict[str, Any] = {"class_names.txt": ""}
    program = torch.export.load("out/model.pt2", extra_files=names).module()
    for one, other, third in zip(model(pixels), again(pixels), program(pixels), strict=True):
        assert torch.equal(one, other) and torch.equal(one, third)
    assert json.loads(names["class_names.txt"]) == ["a", "b", "c"]


@pytest.mark.skipif(not HAS_ONNX, reason="needs onnx, onnxscript and onnxruntime")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_exported_to_onnx(name: str) -> None:
    import onnxruntime

    shape = NETWORKS[name]
    backbone: Callable[..., Any] = getattr(lightning_repshape, name)
    model = RepshapeModel(SupervisedModule(3, shape, backbone=backbone), form(shape))
    (check,) = export_model(model, "out", ["onnx"], samples=3)
    assert all(value < 1e-4 for value in check.differences.values())
    session = onnxruntime.InferenceSession("out/model.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == ["a", "b", "c"]
    for count in (1, 5):
        pixels = torch.rand(count, *shape)
        found = session.run(["probabilities"], {"pixels": pixels.numpy()})[0]
        torch.testing.assert_close(torch.tensor(found), model(pixels)[0].detach(), rtol=1e-4, atol=1e-5)


class Odd(nn.Module):
    """What no ONNX has, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.linear(x.flatten(1))
        return torch.special.bessel_j0(logits) + torch.linalg.svdvals(logits[:, :, None] @ logits[:, None])


@pytest.mark.skipif(not HAS_ONNX, reason="needs onnx, onnxscript and onnxruntime")
def test_operators_that_onnx_lacks_are_all_named_and_nothing_is_left() -> None:
    model = RepshapeModel(Odd(), form(SHAPE))
    before = sorted(Path().iterdir())
    with pytest.raises(ConfigError, match=r"ONNX lacks operators of Odd: .*bessel_j0.*; nothing was written") as found:
        export_model(model, "out", ["safetensors", "onnx"], samples=2)
    assert "_linalg_svd" in str(found.value) and sorted(Path().iterdir()) == before


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :3]
        return x if float(x.sum()) > 0 else -x


def test_files_of_an_earlier_export_go() -> None:
    model = RepshapeModel(module_of("SupervisedModule"), form(SHAPE))
    export_model(model, "out", ["safetensors", "torch"], samples=2)
    Path("out/mine.txt").touch()
    export_model(model, "out", ["safetensors"], samples=2)
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == ["README.md", "config.json", "mine.txt", "model.safetensors"]


def test_what_cannot_be_exported() -> None:
    model = RepshapeModel(Branching(), form(SHAPE))
    with pytest.raises(ConfigError, match=r"torch.export cannot follow Branching \(.*export --format safetensors"):
        export_model(model, "out", ["torch"])
    with pytest.raises(ConfigError, match="there is no format 'onxn'; did you mean 'onnx'"):
        export_model(model, "out", ["onxn"])
    with pytest.raises(ConfigError, match="two samples at least"):
        export_model(model, "out", samples=1)
    Path("mine").mkdir()
    Path("mine/README.md").write_text("mine")
    with pytest.raises(ConfigError, match="mine holds other things than an export"):
        export_model(model, "mine")
    assert Path("mine/README.md").read_text() == "mine" and not Path("out").exists()


def test_an_export_that_differs_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    model = RepshapeModel(module_of("SupervisedModule"), form(SHAPE))
    other = RepshapeModel(module_of("SupervisedModule"), form(SHAPE))
    monkeypatch.setattr("lightning_repshape.export.formats._torch", lambda model, path, program: path.touch() or other)
    with pytest.raises(CheckpointError, match=r"the torch model differs from the original by \S+ in its probabilities"):
        export_model(model, "out", ["torch"])
    assert not Path("out").exists()
