"""Models of timm as backbones: names, features, weights from a file, images of other sizes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_repshape.errors import CheckpointError, ConfigError
from lightning_repshape.networks import Backbone, TimmBackbone
from lightning_repshape.networks.base import Neck

timm: Any = pytest.importorskip("timm")

SHAPE = (3, 32, 32)
VIT: dict[str, Any] = {"name": "test_vit", "options": {"patch_size": 8}}


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({"name": "test_resnet"}, ("act1", "layer1", "layer4")),
        ({"name": "test_convnext"}, ("stages.0", "stages.1", "stages.3")),
        (VIT, ("blocks.0", "blocks.1", "blocks.5")),
    ],
)
def test_features_are_what_the_classifier_would_receive(options: dict[str, Any], stages: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    net = TimmBackbone(SHAPE, **options).eval()
    model = timm.create_model(
        options["name"], **options.get("options", {}), **({"img_size": 32} if "vit" in options["name"] else {})
    ).eval()
    model.load_state_dict({**model.state_dict(), **net.get_submodule("net").state_dict()})
    entered: list[torch.Tensor] = []
    model.get_classifier().register_forward_pre_hook(lambda _module, args: entered.append(args[0]))
    x = torch.randn(2, *SHAPE)
    known = [name for name in net.activation_names if name in stages]
    with torch.no_grad():
        model(x)
        features, found = net.forward_activations(x, [*known, "net"])
        torch.testing.assert_close(net(x), entered[0])
    torch.testing.assert_close(features, entered[0])
    assert found["net"] is features and features.shape == (2, net.num_features)
    assert known == list(stages) and net.activation_names[-1] == net.output_name == "net"
    assert all(value.dim() == 4 for name, value in found.items() if name != "net")


def test_values_of_a_vit_are_its_tokens_as_maps() -> None:
    net = TimmBackbone(SHAPE, **VIT)
    kept: list[torch.Tensor] = []
    net.get_submodule("net.blocks.2").register_forward_hook(lambda _m, _a, output: kept.append(output))
    _, found = net.forward_activations(torch.randn(2, *SHAPE), ["blocks.2"])
    tokens = kept[0][:, 1:].transpose(1, 2).reshape(2, net.num_features, 4, 4)  # without the class token
    torch.testing.assert_close(found["blocks.2"], tokens)
    found["blocks.2"].square().sum().backward()
    gradients = {name: parameter.grad is not None for name, parameter in net.get_submodule("net").named_parameters()}
    assert gradients["blocks.2.mlp.fc2.weight"] and not gradients["blocks.3.attn.qkv.weight"]


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("options", [{"name": "test_resnet"}, VIT])
def test_weights_from_a_file(options: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    """A classifier's file, of other channels and, of the ViT, for larger images."""
    torch.manual_seed(0)
    more = options.get("options", {})
    model = timm.create_model(options["name"], **more, **({"img_size": 64} if more else {}))
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, file)
    else:
        from safetensors.torch import save_file

        save_file(model.state_dict(), file)
    net = TimmBackbone((1, 32, 32), weights=str(file), **options)
    theirs, own = model.state_dict(), net.get_submodule("net").state_dict()
    head = "head" if more else "fc"
    assert net.report == f"{len(own)} tensors of {file}, without its classifier ({head}.bias, {head}.weight)"
    conv = "patch_embed.proj.weight" if more else "conv1.0.weight" if "conv1.0.weight" in own else "conv1.weight"
    changed = {conv, "pos_embed"}
    assert all(torch.equal(own[key], theirs[key]) for key in own.keys() - changed)
    torch.testing.assert_close(own[conv], theirs[conv].sum(1, keepdim=True))  # the same for grey images, as timm has it
    if more:
        assert own["pos_embed"].shape[1] == 17 and theirs["pos_embed"].shape[1] == 65


def test_files_that_are_no_weights_of_the_model(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    first = next(iter(state))
    torch.save({key: value for key, value in state.items() if key != first}, tmp_path / "lacks.pth")
    torch.save({**state, first: torch.zeros(1, 2, 3)}, tmp_path / "other.pth")
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save({"state_dict": [nn.Linear(1, 1)]}, tmp_path / "code.pth")
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    for name, message in {
        "lacks.pth": rf"lacks 1 of the model's {len(state)} tensors \({first}\)",
        "other.pth": "is not of timm's test_resnet: size mismatch",
        "code.pth": "holds no weights of timm's test_resnet",
        "none.safetensors": "holds no weights of timm's test_resnet",
        "nowhere.pth": "there is no file .*nowhere.pth; give one of timm's test_resnet",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            TimmBackbone(SHAPE, "test_resnet", weights=str(tmp_path / name))
    with pytest.warns(UserWarning, match=r"has 1 tensors that timm's test_resnet lacks \(extra\)"):
        TimmBackbone(SHAPE, "test_resnet", weights=str(tmp_path / "more.pth"))


def test_images_of_another_size_and_normalisation() -> None:
    net = TimmBackbone((3, 20, 28), "test_resnet", image_size=(32, 48), normalize=True).eval()
    x = torch.rand(2, 3, 20, 28)
    mean, std = torch.tensor(net.mean).view(3, 1, 1), torch.tensor(net.std).view(3, 1, 1)
    inner = (F.interpolate(x, (32, 48), mode="bilinear") - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(net(x), net.get_submodule("net")(inner))
        assert net(torch.rand(1, 3, 70, 70)).shape == (1, net.num_features)  # brought to one size
    assert net.pretrained_shape == (3, 160, 160) and not [key for key in net.state_dict() if "net." not in key]
    grey = TimmBackbone((1, 20, 28), "test_resnet", normalize=True)
    torch.testing.assert_close(grey.get_buffer("shift").flatten(), torch.tensor([sum(net.mean) / 3]))
    with pytest.raises(ConfigError, match="was built for inputs of 3 x 32 x 32 and got a batch of 3 x 64 x 64"):
        TimmBackbone(SHAPE, **VIT)(torch.rand(1, 3, 64, 64))


def test_a_neck_compiled_and_in_half_precision() -> None:
    net = TimmBackbone(SHAPE, "test_resnet", neck=Neck((8,))).eval()
    x = torch.randn(2, *SHAPE)
    features, found = net.forward_activations(x, ["layer4", "neck1"])
    assert features.shape == (2, 8) and found["neck1"] is features
    net.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(net.forward_activations(x, ["layer4", "neck1"])[1], found)
    assert net.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TimmBackbone(SHAPE, "resnet19"), "timm has no model named 'resnet19'; did you mean 'resnet18'"),
        (lambda: TimmBackbone(SHAPE, "resnet18.a9_in1k"), "resnet18 has no weights 'a9_in1k'; did you mean"),
        (lambda: TimmBackbone(SHAPE, "test_resnet", options={"depth": 3}), r"with options \{'depth': 3\}: .*'depth'"),
        (lambda: TimmBackbone((3, 30, 30), "test_vit"), r"of 3 x 30 x 30: its patches of 16 x 16 .* such as 32 x 32"),
        (lambda: TimmBackbone((3, 30, 32), **VIT), r"of 3 x 30 x 32: its patches of \d+ x \d+ do not divide them"),
        (lambda: TimmBackbone(SHAPE, "vit_tiny_patch16_224", options={"patch_size": 5}), "patches of 5 x 5 do not"),
        (lambda: TimmBackbone((3, 32, 32), "test_vit", image_size=0), "image_size"),
        (lambda: TimmBackbone((12,), "test_vit"), "takes images"),
        (lambda: TimmBackbone(SHAPE, **VIT).check_names(["blocks.7"]), "did you mean 'blocks"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(build: Callable[[], Backbone], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r'pip install "lightning-repshape\[timm\]"'):
        TimmBackbone(SHAPE)
