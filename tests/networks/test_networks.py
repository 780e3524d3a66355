import importlib.util
import inspect
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from lightning_repshape import networks
from lightning_repshape.errors import ConfigError
from lightning_repshape.networks import (
    MLP,
    VGG16,
    Backbone,
    ConvNet,
    DenseNet40,
    FOCANet,
    Highway,
    LeNet,
    MobileNetV2,
    NiN,
    PreActResNet18,
    QuickNet,
    ResNet18,
    ResNet32,
    ResNet110,
    TorchvisionBackbone,
    WideResNet,
)
from lightning_repshape.networks.base import Neck, check_image_shape

DOCS = Path(__file__).parents[2] / "docs" / "networks.md"

# small versions that keep every kind of layer, for the tests that run on each network
SMALL: dict[str, Callable[[], Backbone]] = {
    "MLP": lambda: MLP((1, 6, 6), widths=(7, 5), dropout=0.1, batch_norm=True),
    "ConvNet": lambda: ConvNet((3, 8, 8), width=10, dropout=0.1),
    "LeNet": lambda: LeNet((3, 16, 16), width=10),
    "FOCANet": lambda: FOCANet((3, 8, 8), widths=(4, 6, 8), batch_norm=True),
    "ResNet18": lambda: ResNet18((3, 16, 16), width=4),
    "ResNet18-large": lambda: ResNet18((3, 32, 32), stem="large", width=4),
    "PreActResNet18": lambda: PreActResNet18((3, 16, 16), width=4),
    "PreActResNet18-large": lambda: PreActResNet18((3, 32, 32), stem="large", width=4),
    "MobileNetV2": lambda: MobileNetV2((3, 16, 16), width_multiplier=0.25),
    "ResNet32": lambda: ResNet32((3, 8, 8), width=4),
    "NiN": lambda: NiN((3, 8, 8), layout="nine", batch_norm=True),
    "Highway": lambda: Highway((3, 8, 8), width=6, depth=6),
    "Highway-norm": lambda: Highway((3, 8, 8), width=6, depth=5, batch_norm=True),
    "DenseNet40": lambda: DenseNet40((3, 8, 8), growth=2, dropout=0.1),
    "ResNet32-B": lambda: ResNet32((3, 8, 8), shortcut="B", width=4),
    "WideResNet": lambda: WideResNet((3, 8, 8), depth=10, width=1, dropout=0.1),
    "QuickNet": lambda: QuickNet((3, 12, 12), widths=(4, 6, 8), depths=(1, 1, 2)),
}


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return SMALL[request.param]()


def images(backbone: Backbone, count: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(
        count, *backbone.input_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).to(dtype)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("backbone", "shape", "num_features"),
    [
        (MLP, (1, 28, 28), 100),
        (MLP, (1, 8, 8), 100),
        (MLP, (2,), 100),
        (ConvNet, (3, 32, 32), 128),
        (ConvNet, (1, 28, 28), 128),
        (ConvNet, (1, 8, 8), 128),
        (LeNet, (1, 28, 28), 500),
        (LeNet, (3, 32, 32), 500),
        (LeNet, (1, 16, 16), 500),
        (FOCANet, (3, 32, 32), 4096),
        (FOCANet, (1, 28, 28), 2304),
        (FOCANet, (1, 8, 8), 256),
        (VGG16, (3, 32, 32), 512),
        (VGG16, (3, 64, 96), 3072),
        (ResNet18, (3, 32, 32), 512),
        (ResNet18, (1, 8, 8), 512),
        (ResNet18, (3, 64, 64), 512),
        (PreActResNet18, (3, 32, 32), 512),
        (PreActResNet18, (3, 96, 96), 512),
        (MobileNetV2, (3, 32, 32), 1280),
        (MobileNetV2, (3, 64, 64), 1280),
        (ResNet32, (3, 32, 32), 64),
        (ResNet110, (3, 32, 32), 64),
        (partial(WideResNet, depth=10, width=2), (3, 32, 32), 128),
        (TorchvisionBackbone, (3, 32, 32), 512),
    ],
)
def test_features_have_the_promised_shape(
    backbone: Callable[..., Backbone], shape: tuple[int, ...], num_features: int
) -> None:
    net = backbone(shape).eval()
    with torch.no_grad():
        features = net(torch.randn(2, *shape))
    assert features.shape == (2, net.num_features) == (2, num_features)
    assert net.input_shape == shape
    assert features.isfinite().all() and (features[0] - features[1]).abs().max() > 0


@pytest.mark.parametrize(
    ("build", "shape", "last_map", "name"),
    [
        (ResNet18, (3, 32, 32), 4, "layer4"),
        (ResNet18, (3, 64, 64), 4, "layer4"),
        (ResNet18, (3, 96, 96), 6, "layer4"),
        (ResNet18, (3, 128, 128), 4, "layer4"),
        (PreActResNet18, (3, 64, 64), 4, "norm"),
        (MobileNetV2, (3, 32, 32), 4, "conv2"),
        (MobileNetV2, (3, 64, 64), 4, "conv2"),
        (MobileNetV2, (3, 96, 96), 6, "conv2"),
        (MobileNetV2, (3, 128, 128), 4, "conv2"),
    ],
)
def test_stems_leave_a_map_of_the_stated_size(
    build: Callable[..., Backbone], shape: tuple[int, int, int], last_map: int, name: str
) -> None:
    net = build(shape, **({"width_multiplier": 0.25} if build is MobileNetV2 else {"width": 4})).eval()
    with torch.no_grad():
        activations = net.forward_activations(torch.randn(1, *shape), [name])[1]
    assert activations[name].shape[2:] == (last_map, last_map)


def test_maps_of_the_convnet_follow_its_padding() -> None:
    sizes = {}
    for padding in ("same", "valid"):
        net = ConvNet((3, 32, 32), padding=padding)
        names = ("conv1", "conv2", "pool1", "conv3", "pool2", "conv4", "pool3")
        sizes[padding] = [value.shape[2] for value in net.forward_activations(images(net), names)[1].values()]
    assert sizes == {"same": [32, 32, 16, 16, 8, 8, 4], "valid": [30, 28, 14, 12, 6, 4, 2]}


# ------------------------------------------------------------------------------------ parameter counts


def test_parameter_counts_are_the_published_ones() -> None:
    # counted by hand from the layer lists; He et al. print 0.46M and 1.7M with the head of ten classes
    assert parameters(MLP((1, 28, 28))) == 784 * 100 + 100 + 4 * (100 * 100 + 100)
    assert (
        parameters(ConvNet((3, 32, 32)))
        == (27 + 1) * 32 + (288 + 1) * 64 + (576 + 1) * 128 + (1152 + 1) * 128 + (2048 + 1) * 128
    )
    assert parameters(LeNet((1, 28, 28))) == 431_080 - 5_010  # Caffe's, less its last layer
    assert parameters(ResNet32((3, 32, 32))) + 650 == 464_154
    assert parameters(ResNet110((3, 32, 32))) + 650 == 1_727_962
    assert parameters(VGG16((3, 32, 32))) == 14_714_688
    assert parameters(ResNet18((3, 32, 32))) + 5_130 == 11_173_962
    # the final normalisation adds 1,024 and the stem's own goes into the first block; shortcuts have none
    assert parameters(PreActResNet18((3, 32, 32))) + 5_130 == 11_172_170
    assert parameters(MobileNetV2((3, 32, 32))) + 12_810 == 2_236_682
    # Zagoruyko and Komodakis print 36.5M and, without CIFAR-10's head of 2,570, 2.7M
    with torch.device("meta"):
        assert parameters(WideResNet((3, 32, 32))) + 6_410 == wide_parameters(28, 10) == 36_479_194
        assert parameters(WideResNet((3, 32, 32), depth=16, width=4)) + 2_570 == wide_parameters(16, 4) == 2_748_890


def wide_parameters(depth: int, width: int) -> int:
    """A wide residual network's parameters with a head of ten classes, counted from the layer list of the paper."""
    previous, total = 16, 3 * 9 * 16
    for group in (1, 2, 4):
        filters = 16 * width * group
        for _ in range((depth - 4) // 6):
            total += 2 * previous + previous * 9 * filters + 2 * filters + filters * 9 * filters
            total += previous * filters if previous != filters else 0
            previous = filters
    return total + 2 * previous + (previous + 1) * 10


def test_parameters_agree_with_torchvision() -> None:
    from torchvision import models

    with torch.device("meta"):
        features = models.mobilenet_v2().features, models.vgg16().features
        resnet = models.resnet18()
        assert parameters(MobileNetV2((3, 224, 224))) == parameters(features[0])
        assert parameters(VGG16((3, 224, 224))) == parameters(features[1])
        assert parameters(ResNet18((3, 224, 224))) == parameters(resnet) - parameters(resnet.fc)
        assert parameters(MobileNetV2((3, 224, 224), width_multiplier=1.4)) == parameters(
            models.mobilenet_v2(width_mult=1.4).features
        )
        assert parameters(MobileNetV2((3, 224, 224), width_multiplier=0.35)) == parameters(
            models.mobilenet_v2(width_mult=0.35).features
        )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: ResNet18((3, 64, 64), stem="large"), "resnet18"),
        (lambda: MobileNetV2((3, 64, 64), stem="large"), "mobilenet_v2"),
        (lambda: VGG16((3, 64, 64)), "vgg16"),
    ],
)
def test_large_nets_compute_what_torchvision_computes(ours: Callable[[], Backbone], theirs: str) -> None:
    """The same numbers in both, matched by their order: the same features."""
    from torchvision import models

    net = ours().eval()
    with torch.device("meta"):
        reference = models.get_model(theirs)
    if theirs == "vgg16":
        reference = reference.features
    elif theirs == "mobilenet_v2":
        reference.classifier = nn.Identity()
    else:
        reference.fc = nn.Identity()
    reference = reference.to_empty(device="cpu").eval()
    # modules with parameters in order of definition; torchvision's blocks end with the shortcut, and so do ours
    with torch.no_grad():
        for source, target in zip(net.state_dict().values(), reference.state_dict().values(), strict=True):
            target.copy_(source if source.ndim != 1 else source + 0.1 * torch.rand_like(source))
            source.copy_(target)
        x = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(net(x), reference(x).flatten(1))


# --------------------------------------------------------------------------------- activations by name


def test_activations_are_what_a_hook_on_the_module_of_that_name_sees(small: Backbone) -> None:
    names = [*small.activation_names, *small.inner_names(every=True)]
    x, seen = images(small), {}
    small.eval()
    handles = [
        small.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name in names
    ]
    features, activations = small.forward_activations(x, names)
    for handle in handles:
        handle.remove()
    assert list(activations) == list(dict.fromkeys(names))
    assert all(activations[name] is seen[name] for name in names)
    assert list(dict.fromkeys(seen)) == [name for name in seen if name in names]
    assert activations[small.activation_names[-1]] is features
    assert torch.equal(features, small(x))
    # forward order: each value was seen after the ones named before it
    assert [name for name in seen if name in small.activation_names] == list(small.activation_names)


def test_no_names_cost_nothing_and_return_an_empty_dict(small: Backbone) -> None:
    small.eval()
    features, activations = small.forward_activations(images(small), ())
    assert activations == {} and torch.equal(features, small(images(small)))


def test_names_are_unique_and_post_activation(small: Backbone) -> None:
    names = small.activation_names
    assert len(set(names)) == len(names)
    assert not any(name.endswith((".conv", ".linear", ".norm", ".act")) for name in names)


def test_documented_names() -> None:
    assert MLP((1, 28, 28)).activation_names == ("fc1", "fc2", "fc3", "fc4", "fc5")
    assert MLP((4,), widths=[3], dropout=0.5).activation_names == ("fc1", "dropout1")
    assert ConvNet((3, 32, 32)).activation_names == (
        "conv1",
        "conv2",
        "pool1",
        "conv3",
        "pool2",
        "conv4",
        "pool3",
        "fc",
    )
    assert LeNet((1, 28, 28)).activation_names == ("conv1", "pool1", "conv2", "pool2", "fc")
    assert VGG16((3, 32, 32)).activation_names[-4:] == ("conv5_1", "conv5_2", "conv5_3", "pool5")
    names = ResNet18((3, 32, 32), width=4).activation_names
    assert names[:5] == ("conv1", "layer1.0.relu1", "layer1.0", "layer1.1.relu1", "layer1")
    assert names[-1] == "pool"


def test_value_before_the_activation_is_reachable() -> None:
    net = MLP((5,), widths=(4, 3))
    activations = net.forward_activations(images(net), ["fc2.linear", "fc2"])[1]
    assert activations["fc2.linear"].min() < 0
    torch.testing.assert_close(activations["fc2"], activations["fc2.linear"].relu())


def test_last_member_of_a_group_answers_to_its_own_path() -> None:
    net = ResNet32((3, 8, 8), width=2).eval()
    activations = net.forward_activations(images(net), ["layer2.4", "layer2"])[1]
    assert activations["layer2.4"] is activations["layer2"]


def test_activations_carry_gradients_and_hooks_still_fire() -> None:
    net = ResNet32((3, 8, 8), width=2)
    calls = []
    for module in (net, net.get_submodule("layer1.0")):
        module.register_forward_hook(lambda _m, _i, out: calls.append(type(out)))
    activations = net.forward_activations(images(net), ["layer1.0.relu1"])[1]
    assert calls == [Tensor, Tensor]
    (gradient,) = torch.autograd.grad(activations["layer1.0.relu1"].sum(), [net.get_parameter("conv1.conv.weight")])
    assert gradient.abs().sum() > 0


def test_unknown_name_names_the_nearest(small: Backbone) -> None:
    with pytest.raises(ConfigError, match=rf"{type(small).__name__} has no activation named"):
        small.forward_activations(images(small), [small.activation_names[0], "nonsense"])
    with pytest.raises(ConfigError, match="did you mean 'fc5'"):
        MLP((1, 28, 28)).check_names(["fc6"])


def test_every_parameter_gets_a_gradient(small: Backbone) -> None:
    small.train()
    small(images(small, count=4)).square().sum().backward()
    trained = {name: parameter for name, parameter in small.named_parameters() if name != "whiten.conv.weight"}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in trained.values())


def test_float64_agrees_with_float32(small: Backbone) -> None:
    small.eval()
    single = small(images(small))
    double = small.double()(images(small, dtype=torch.float64))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


def test_channels_last_is_kept_throughout_and_changes_nothing(small: Backbone) -> None:
    small.eval()
    x = images(small)
    plain = small(x)
    small.to(memory_format=torch.channels_last)
    features, activations = small.forward_activations(
        x.contiguous(memory_format=torch.channels_last), small.inner_names(every=True)
    )
    torch.testing.assert_close(features, plain, rtol=1e-4, atol=1e-5)
    maps = {name: value for name, value in activations.items() if value.ndim == 4}
    assert bool(maps) != isinstance(small, MLP)  # an MLP has none
    assert [name for name, value in maps.items() if not value.is_contiguous(memory_format=torch.channels_last)] == []


def test_same_seed_same_weights(small: Backbone, request: pytest.FixtureRequest) -> None:
    build = SMALL[request.node.callspec.params["small"]]
    torch.manual_seed(0)
    again, other = build(), build()
    first = next(name for name, parameter in small.named_parameters() if parameter.ndim > 1)
    for name, value in small.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(small.get_parameter(first), other.get_parameter(first))


def test_fx_traces_every_network(small: Backbone) -> None:
    small.eval()
    traced = torch.fx.symbolic_trace(small)
    torch.testing.assert_close(traced(images(small)), small(images(small)))


def test_compiled_in_place_it_returns_activations_without_graph_breaks_or_recompiling() -> None:
    net = ConvNet((3, 8, 8), width=4)
    names = ["conv2.conv", "pool1", "fc"]
    features, activations = net.forward_activations(images(net), names)
    net.compile(backend="eager", fullgraph=True)
    net.forward_activations(images(net), names)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = net.forward_activations(images(net), names)
    assert torch.equal(compiled[0], features)
    assert all(torch.equal(compiled[1][name], activations[name]) for name in names)
    assert list(net.state_dict()) == list(ConvNet((3, 8, 8), width=4).state_dict())


# ----------------------------------------------------------------------------------------- definitions


def test_keys_are_stable() -> None:
    assert list(MLP((4,), widths=(3, 2)).state_dict()) == [
        "fc1.linear.weight",
        "fc1.linear.bias",
        "fc2.linear.weight",
        "fc2.linear.bias",
    ]
    assert list(FOCANet((1, 8, 8), depth=1, batch_norm=True).state_dict())[:6] == [
        "conv1_1.conv.weight",
        "conv1_1.norm.weight",
        "conv1_1.norm.bias",
        "conv1_1.norm.running_mean",
        "conv1_1.norm.running_var",
        "conv1_1.norm.num_batches_tracked",
    ]
    resnet = set(ResNet18((3, 32, 32), width=2).state_dict())
    assert {"conv1.conv.weight", "conv1.norm.weight", "layer2.0.conv1.weight", "layer2.0.shortcut.0.weight"} <= resnet
    assert {"stage2.0.expand.conv.weight", "stage1.0.depthwise.conv.weight", "stage7.0.project.norm.bias"} <= set(
        MobileNetV2((3, 32, 32)).state_dict()
    )
    assert not [key for key in ResNet32((3, 32, 32)).state_dict() if "shortcut" in key]
    assert "net.layer1.0.conv1.weight" in TorchvisionBackbone((3, 32, 32)).state_dict()


def test_basic_block_by_hand() -> None:
    torch.manual_seed(0)
    block = ResNet32((3, 8, 8), width=4).double().eval().get_submodule("layer2.0")
    state = dict(block.named_parameters())
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)

    def norm(value: Tensor, which: str) -> Tensor:  # running mean 0, variance 1
        return value / (1 + 1e-5) ** 0.5 * state[f"{which}.weight"].view(1, -1, 1, 1)

    inner = norm(nn.functional.conv2d(x, state["conv1.weight"], stride=2, padding=1), "bn1").clamp(min=0)
    outer = norm(nn.functional.conv2d(inner, state["conv2.weight"], padding=1), "bn2")
    shortcut = torch.zeros_like(outer)
    shortcut[:, :4] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), (outer + shortcut).clamp(min=0))


def test_preactivation_block_by_hand() -> None:
    torch.manual_seed(0)
    block = PreActResNet18((3, 8, 8), width=4).double().eval().get_submodule("layer2.0")
    state = dict(block.named_parameters())
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    scale = (1 + 1e-5) ** -0.5
    active = (x * scale).clamp(min=0)
    inner = (nn.functional.conv2d(active, state["conv1.weight"], stride=2, padding=1) * scale).clamp(min=0)
    expected = nn.functional.conv2d(inner, state["conv2.weight"], padding=1) + nn.functional.conv2d(
        active, state["shortcut.weight"], stride=2
    )
    torch.testing.assert_close(block(x), expected)


def test_dropout_of_wide_blocks_stands_before_the_second_convolution() -> None:
    torch.manual_seed(0)
    block = WideResNet((3, 8, 8), depth=10, width=1, dropout=0.5).double().get_submodule("layer1.0")
    state = dict(block.named_parameters())
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    torch.manual_seed(1)
    found = block(x)  # in training mode, with the batch's own statistics
    norm = partial(nn.functional.batch_norm, running_mean=None, running_var=None, training=True)
    inner = norm(nn.functional.conv2d(norm(x).relu(), state["conv1.weight"], padding=1)).relu()
    torch.manual_seed(1)
    inner = nn.functional.dropout(inner, 0.5)
    torch.testing.assert_close(found, nn.functional.conv2d(inner, state["conv2.weight"], padding=1) + x)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    net = MLP((1, 28, 28))
    weight, bound = net.get_parameter("fc1.linear.weight"), (6 / 884) ** 0.5
    assert weight.abs().max() <= bound and weight.abs().max() > 0.99 * bound
    assert abs(weight.std().item() / (bound / 3**0.5) - 1) < 0.02
    assert all((value == 0).all() for name, value in net.named_parameters() if name.endswith("bias"))
    conv = ConvNet((3, 32, 32)).get_parameter("conv4.conv.weight")
    assert abs(conv.std().item() / (2 / (9 * 256)) ** 0.5 - 1) < 0.02
    he = VGG16((3, 32, 32)).get_parameter("conv3_1.conv.weight")
    assert abs(he.std().item() / (2 / (9 * 128)) ** 0.5 - 1) < 0.02
    torch.manual_seed(3)
    left_alone = MLP((4,), widths=(3,), init="torch").get_parameter("fc1.linear.weight")
    torch.manual_seed(3)
    assert torch.equal(left_alone, nn.Linear(4, 3).weight)


@pytest.mark.parametrize("build", [lambda: VGG16((3, 32, 32)), lambda: FOCANet((3, 32, 32))])
def test_he_weights_keep_the_signal_alive_without_batch_norm(build: Callable[[], Backbone]) -> None:
    torch.manual_seed(0)
    net = build()
    assert 0.05 < net(images(net)).pow(2).mean().sqrt() < 20


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", torch.relu), ("sigmoid", torch.sigmoid), ("softplus", nn.functional.softplus), ("tanh", torch.tanh)],
)
def test_mlp_by_hand(activation: str, function: Callable[[Tensor], Tensor]) -> None:
    for activated in (True, False):
        net = MLP((2, 3), widths=(4, 2), activation=activation, activate_features=activated).double()
        x = images(net, dtype=torch.float64)
        state = net.state_dict()
        hidden = function(x.reshape(3, 6) @ state["fc1.linear.weight"].T + state["fc1.linear.bias"])
        features = hidden @ state["fc2.linear.weight"].T + state["fc2.linear.bias"]
        torch.testing.assert_close(net(x), function(features) if activated else features)


def test_dropout_follows_the_named_layer() -> None:
    net = MLP((20,), widths=(50,), dropout=0.5)
    features, activations = net.forward_activations(images(net), ["fc1", "dropout1"])
    kept = features != 0
    torch.testing.assert_close(features[kept], 2 * activations["fc1"][kept])
    assert 0 < kept.sum() < (activations["fc1"] > 0).sum()


def test_dropout_and_batch_norm_of_the_last_layer_alone() -> None:
    def kinds(net: Backbone, kind: type[nn.Module]) -> list[str]:
        return [name for name, module in net.named_modules() if isinstance(module, kind)]

    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    net = MLP((6,), widths=(5, 4, 3), dropout=0.5, batch_norm=True, dropout_layers="last", batch_norm_layers="last")
    assert kinds(net, nn.Dropout) == ["dropout3"] and kinds(net, norms) == ["fc3.norm"]
    assert net.get_submodule("fc1.linear").bias is not None and net.get_submodule("fc3.linear").bias is None
    assert kinds(MLP((6,), (5, 4), dropout=0.5, batch_norm=True), nn.Dropout) == ["dropout1", "dropout2"]

    conv = ConvNet((3, 8, 8), dropout=0.5, batch_norm=True, batch_norm_layers="last")
    assert kinds(conv, nn.Dropout) == ["dropout"] and kinds(conv, norms) == ["fc.norm"]
    everywhere = ConvNet((3, 8, 8), dropout=0.5, batch_norm=True, dropout_layers="all")
    assert kinds(everywhere, nn.Dropout) == [*(f"conv{n}_dropout" for n in (1, 2, 3, 4)), "dropout"]
    assert kinds(everywhere, norms) == [*(f"conv{n}.norm" for n in (1, 2, 3, 4)), "fc.norm"]
    assert set(conv.state_dict()) >= {"fc.linear.weight", "conv1.conv.bias"}
    everywhere.train()
    values = everywhere.forward_activations(images(everywhere), ["conv2", "conv2_dropout"])[1]
    kept = values["conv2_dropout"] != 0
    assert torch.allclose(values["conv2_dropout"][kept], 2 * values["conv2"][kept])
    for build in (MLP, ConvNet):
        for option in ("dropout_layers", "batch_norm_layers"):
            with pytest.raises(ConfigError, match=f"{option}='first'"):
                build((3, 8, 8), **{option: "first"})


def test_lenet_features_can_be_linear() -> None:
    net = LeNet((1, 28, 28), width=10, activate_features=False)
    assert net(images(net)).min() < 0 <= LeNet((1, 28, 28), width=10)(images(net)).min()


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LeNet((1, 8, 8)), "LeNet takes images of at least 16 x 16 pixels, not 8 x 8"),
        (lambda: VGG16((1, 28, 28)), "VGG16 takes images of at least 32 x 32"),
        (lambda: FOCANet((1, 7, 9)), "at least 8 x 8 pixels, not 7 x 9"),
        (lambda: ConvNet((1, 7, 8)), "at least 8 x 8"),
        (lambda: ConvNet((1, 23, 30), padding="valid"), "at least 24 x 24"),
        (lambda: ResNet18((784,)), r"input_shape=\(channels, height, width\), not \(784,\)"),
        (lambda: ResNet32((0, 8, 8)), "ResNet32 takes images"),
        (lambda: MLP((1, 8, 8), widths=()), "at least one"),
        (lambda: MLP(()), "at least one"),
        (lambda: MLP((1, 8, 8), widths=(10, 0)), "widths must be a whole number above 0, not 0"),
        (lambda: MLP((1, 8, 8), dropout=1.0), "dropout=1.0"),
        (lambda: MLP((1, 8, 8), activation="rellu"), "did you mean 'relu'"),
        (lambda: MLP((1, 8, 8), init="glorrot"), "did you mean 'glorot'"),
        (lambda: FOCANet((3, 32, 32), widths=(1, 2)), "three pools"),
        (lambda: ConvNet((3, 32, 32), padding="full"), "padding='full'"),
        (lambda: ResNet32((3, 32, 32), shortcut="C"), "shortcut='C'"),
        (lambda: ResNet18((3, 32, 32), stem="tiny"), "stem='tiny'"),
        (lambda: WideResNet((3, 32, 32), depth=20), r"depth is 20, but must be 6 n \+ 4"),
        (lambda: WideResNet((3, 32, 32), depth=4), r"depth is 4, but must be 6 n \+ 4"),
        (lambda: MobileNetV2((3, 32, 32), width_multiplier=0.0), "width_multiplier"),
        (lambda: TorchvisionBackbone((3, 32, 32), "resnet19"), "did you mean 'resnet18'"),
        (lambda: TorchvisionBackbone((3, 32, 32), weights="IMAGENET1K_V9"), "did you mean 'IMAGENET1K_V1'"),
        (lambda: TorchvisionBackbone((3, 32, 32), "alexnet"), "alexnet cannot take images of 3 x 32 x 32"),
        (lambda: TorchvisionBackbone((3, 32, 32), "squeezenet1_1", stem="small"), "no small stem"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(build: Callable[[], Backbone], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_smallest_sizes_work() -> None:
    for net in (LeNet((1, 16, 16)), ConvNet((1, 24, 24), padding="valid"), FOCANet((1, 8, 8)), ResNet32((1, 1, 1))):
        assert net.eval()(images(net)).isfinite().all()


def test_batch_of_another_shape_is_refused_with_a_reason() -> None:
    with pytest.raises(ConfigError, match="ConvNet was built for inputs of 3 x 32 x 32 and got a batch of 1 x 28 x 28"):
        ConvNet((3, 32, 32))(torch.zeros(2, 1, 28, 28))
    with pytest.raises(ConfigError, match="got a batch of 1 x 8 x 8"):
        ResNet32((3, 8, 8))(torch.zeros(2, 1, 8, 8))
    assert ResNet32((3, 8, 8))(torch.zeros(2, 3, 12, 12)).shape == (2, 64)  # global pooling takes any size


def test_check_image_shape() -> None:
    assert check_image_shape("Net", [3, 8, 9], smallest=8) == (3, 8, 9)


# ----------------------------------------------------------------------------------------- torchvision


@pytest.mark.proof
@pytest.mark.parametrize(
    ("name", "size", "num_features"),
    [
        ("resnet18", 32, 512),
        ("mobilenet_v3_small", 32, 1024),
        ("squeezenet1_1", 32, 512),
        ("densenet121", 32, 1024),
        ("googlenet", 32, 1024),
        ("vit_b_32", 64, 768),
    ],
)
def test_torchvision_families(name: str, size: int, num_features: int) -> None:
    with torch.device("meta"):  # shapes alone: quick, and no numbers are drawn
        net = TorchvisionBackbone((1, size, size), name)
        assert net(torch.zeros(2, 1, size, size)).shape == (2, num_features) == (2, net.num_features)


def test_torchvision_backbone_is_the_model_before_its_last_layer() -> None:
    from torchvision import models

    torch.manual_seed(0)
    net = TorchvisionBackbone((3, 64, 64), "resnet18", stem="keep").eval()
    torch.manual_seed(0)
    model = models.resnet18().eval()
    kept = {}
    model.fc.register_forward_pre_hook(lambda _m, args: kept.update(features=args[0]))
    with torch.no_grad():
        model(images(net))
        torch.testing.assert_close(net(images(net)), kept["features"])


def test_torchvision_activations_are_the_values_before_in_place_changes() -> None:
    net = TorchvisionBackbone((3, 32, 32)).eval()
    names = ["bn1", "relu", "layer1.0.bn2", "layer1.0", "layer4", net.activation_names[-1]]
    features, activations = net.forward_activations(images(net), names)
    assert torch.equal(features, net(images(net)))
    assert activations[names[-1]] is features
    assert activations["bn1"].min() < 0  # the model's ReLU works in place on it
    torch.testing.assert_close(activations["bn1"].relu(), activations["relu"])
    torch.testing.assert_close((activations["layer1.0.bn2"] + activations["relu"]).relu(), activations["layer1.0"])
    activations["layer1.0.bn2"].sum().backward()
    assert net.get_parameter("net.conv1.weight").grad.abs().sum() > 0
    assert "layer1.0.relu" not in net.activation_names  # runs twice
    with pytest.raises(ConfigError, match="did you mean 'layer4'"):
        net.check_names(["layer44"])
    assert not any(module._forward_hooks for module in net.modules())


def test_torchvision_stem_and_channels() -> None:
    small, kept = TorchvisionBackbone((1, 32, 32)), TorchvisionBackbone((1, 64, 64))
    assert small.get_parameter("net.conv1.weight").shape == (64, 1, 3, 3)
    assert kept.get_parameter("net.conv1.weight").shape == (64, 1, 7, 7)
    maps = [net.eval().forward_activations(images(net), ["layer4"])[1]["layer4"].shape[2] for net in (small, kept)]
    assert maps == [4, 2]
    shrunk = TorchvisionBackbone((3, 32, 32), "mobilenet_v3_small").eval()
    assert shrunk.forward_activations(images(shrunk), ["features.0"])[1]["features.0"].shape[2] == 32


def test_torchvision_pretrained_weights_are_adapted_to_the_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the download with a random state dict of the right keys."""
    from torchvision import models

    torch.manual_seed(0)
    state = models.resnet18().state_dict()
    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", lambda *_args, **_options: state)
    net = TorchvisionBackbone((1, 32, 32), weights="DEFAULT")
    expected = state["conv1.weight"].sum(1, keepdim=True)  # keeps the 7 x 7 convolution: the stem was pretrained
    torch.testing.assert_close(net.get_parameter("net.conv1.weight"), expected)
    assert torch.equal(net.get_parameter("net.layer4.1.conv2.weight"), state["layer4.1.conv2.weight"])
    gray = torch.rand(2, 1, 32, 32)
    plain = TorchvisionBackbone((3, 32, 32), weights="DEFAULT")
    torch.testing.assert_close(net.eval()(gray), plain.eval()(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_torchvision_without_the_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    def fail(*_args: object, **_options: object) -> None:
        raise OSError("name or service not known")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(ConfigError, match=r"weights DEFAULT of torchvision's resnet18 cannot be had: name or service"):
        TorchvisionBackbone((3, 32, 32), weights="DEFAULT")


# ---------------------------------------------------------------------------------------- command line


def build(backbone: Callable[[tuple[int, ...]], Backbone] = MLP, input_shape: tuple[int, ...] = (1, 8, 8)) -> Backbone:
    """Takes a backbone the way the modules do."""
    return backbone(input_shape)


def parser() -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False)
    made.add_function_arguments(build)
    made.add_argument("--config", action="config")
    return made


def from_arguments(*arguments: str) -> Backbone:
    made = parser()
    options = made.instantiate(made.parse_args(list(arguments)))
    return build(options.backbone, options.input_shape)


@pytest.mark.parametrize(
    ("yaml", "kind", "names"),
    [
        ("class_path: MLP\n  init_args: {widths: [100, 50], activation: softplus}", MLP, ("fc1", "fc2")),
        ("class_path: lightning_repshape.networks.MLP\n  init_args: {widths: [7]}", MLP, ("fc1",)),
        ("class_path: FOCANet\n  init_args: {widths: [2, 3, 4], depth: 1}", FOCANet, ("conv1_1",)),
        ("class_path: ConvNet\n  init_args: {width: 9, padding: same}", ConvNet, ("conv1",)),
        ("class_path: ResNet32\n  init_args: {shortcut: B}", ResNet32, ("conv1",)),
        ("ResNet18", ResNet18, ("conv1",)),
        ("class_path: MobileNetV2\n  init_args: {stem: small, width_multiplier: 0.5}", MobileNetV2, ("conv1",)),
    ],
)
def test_backbones_from_yaml(tmp_path: Path, yaml: str, kind: type[Backbone], names: tuple[str, ...]) -> None:
    config = tmp_path / "config.yaml"
    separator = " " if "\n" not in yaml else "\n  "
    config.write_text(f"backbone:{separator}{yaml}\n")
    net = from_arguments("--config", str(config))
    assert type(net) is kind and net.activation_names[: len(names)] == names
    assert net.eval()(images(net)).shape == (3, net.num_features)


def test_backbones_from_the_command_line() -> None:
    assert from_arguments("--backbone", "MLP", "--backbone.widths", "[7]").num_features == 7
    assert from_arguments("--backbone.widths", "[7, 6]").num_features == 6
    net = from_arguments("--backbone=LeNet", "--backbone.width=10", "--input_shape", "[1, 28, 28]")
    assert type(net) is LeNet and net.input_shape == (1, 28, 28) and net.num_features == 10


@pytest.mark.parametrize("name", [name for name in networks.__all__ if name != "Backbone"])
def test_every_network_is_selectable_by_its_short_name(name: str) -> None:
    module, _, found = parser().parse_args(["--backbone", name]).backbone.class_path.rpartition(".")
    assert found == name
    assert module in ("lightning_repshape", "lightning_repshape.networks")


def test_input_shape_is_the_first_argument_of_every_network() -> None:
    for name in networks.__all__:
        signature = inspect.signature(getattr(networks, name))
        first = next(iter(signature.parameters.values()))
        assert first.name == "input_shape" and first.annotation == tuple[int, ...]


# --------------------------------------------------------------------------------------- documentation


def test_snippets_of_the_documentation_run() -> None:
    space: dict[str, object] = {}
    snippets = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, str(DOCS), "exec"), space)


@pytest.mark.proof
def test_table_of_the_documentation_is_true() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\d) x (\d+) x (\d+) \| ([\d,]+) \| ([\d,]+) \|", DOCS.read_text(encoding="utf-8"), re.M
    )
    assert {row[0] for row in rows} == set(networks.__all__) - {"Backbone"}
    for name, channels, height, width, count, features in rows:
        if name == "TimmBackbone" and importlib.util.find_spec("timm") is None:
            continue
        net = getattr(networks, name)((int(channels), int(height), int(width)))
        assert (parameters(net), net.num_features) == (int(count.replace(",", "")), int(features.replace(",", ""))), (
            name
        )


# ------------------------------------------------------------ the networks of feed-backward reconstruction


def test_parameter_counts_are_near_those_of_the_feed_backward_paper() -> None:
    def with_head(net: Backbone) -> int:
        return parameters(net) + (net.num_features + 1) * 10

    with torch.device("meta"):
        counts = {
            "NiN": (with_head(NiN((3, 32, 32))), 11.4),
            "Highway": (with_head(Highway((3, 32, 32))), 11.8),
            "DenseNet-40": (with_head(DenseNet40((3, 32, 32))), 1.0),
            # the paper's figures of these two are not those of the networks that it names, see docs/networks.md
            "VGG-16": (with_head(VGG16((3, 32, 32))), 14.7),
            "ResNet-32": (with_head(ResNet32((3, 32, 32))), 0.5),
        }
        nine = with_head(NiN((3, 32, 32), layout="nine"))
    for name, (count, millions) in counts.items():
        print(f"{name}: {count:,}")
        assert round(count / 1e6, 1) == millions, name
    assert counts["DenseNet-40"][0] == 1_019_722  # the published implementations'
    # counted by hand from Lin's layer list
    convolutions = [(75, 192), (192, 160), (160, 96), (2400, 192), (192, 192), (192, 192), (1728, 192), (192, 192)]
    assert nine == sum((fan + 1) * out for fan, out in convolutions) + 193 * 10


def test_depths_of_the_feed_backward_networks() -> None:
    def layers(net: Backbone) -> int:
        return sum(isinstance(module, nn.Conv2d) for module in net.modules()) + 1

    with torch.device("meta"):
        assert layers(NiN((3, 32, 32))) == layers(Highway((3, 32, 32))) == 12
        assert layers(NiN((3, 32, 32), layout="nine")) == 9
        assert layers(DenseNet40((3, 32, 32))) == 40
        assert layers(Highway((3, 8, 8), depth=5)) == 5
        assert NiN((3, 32, 32)).num_features == 476 and DenseNet40((3, 32, 32)).num_features == 448


def test_highway_block_by_hand() -> None:
    torch.manual_seed(0)
    net = Highway((3, 8, 8), width=4, depth=5, gate_bias=-1.5).double().eval()
    block, x = net.get_submodule("highway1.0"), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    both = nn.functional.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
    gate = torch.sigmoid(both[:, 4:])
    torch.testing.assert_close(block(x), both[:, :4].clamp(min=0) * gate + x * (1 - gate))
    assert block.conv.bias.tolist() == [0.0] * 4 + [-1.5] * 4
    torch.testing.assert_close(
        net.forward_activations(images(net, dtype=torch.float64), ["highway1.0.gate"])[1]["highway1.0.gate"].mean(),
        torch.tensor(1 / (1 + math.exp(1.5)), dtype=torch.float64),
        rtol=0.5,
        atol=0.0,
    )
    norm = Highway((3, 8, 8), width=4, depth=5, batch_norm=True).get_submodule("highway1.0.norm")
    assert norm.bias.tolist() == [0.0] * 4 + [-2.0] * 4


def test_dense_layer_appends_to_its_input() -> None:
    net = DenseNet40((3, 8, 8), growth=3).double().eval()
    x = images(net, dtype=torch.float64)
    found = net.forward_activations(x, ["conv1", "block1.0", "block1.0.relu"])[1]
    new = nn.functional.conv2d(found["block1.0.relu"], net.get_submodule("block1.0.conv").weight, padding=1)
    torch.testing.assert_close(found["block1.0"], torch.cat([found["conv1"], new], dim=1))
    torch.testing.assert_close(found["block1.0.relu"], (found["conv1"] / (1 + 1e-5) ** 0.5).clamp(min=0))


def test_bad_options_of_the_feed_backward_networks() -> None:
    for make, message in (
        (lambda: NiN((3, 32, 32), layout="ten"), "layout='ten' is not a choice"),  # type: ignore[arg-type]
        (lambda: NiN((3, 4, 4)), "at least 8 x 8"),
        (lambda: Highway((3, 32, 32), depth=4), "no highway layer"),
        (lambda: Highway((3, 32, 32), gate_bias=float("nan")), "gate_bias"),
        (lambda: DenseNet40((3, 32, 32), growth=0), "growth"),
        (lambda: DenseNet40((3, 32, 32), dropout=1.0), "dropout"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()


@pytest.mark.parametrize("name", sorted(set(networks.__all__) - {"Backbone"}))
def test_every_network_takes_a_neck(name: str) -> None:
    sizes = {"VGG16": 32, "ConvNet": 24, "DeepFace": 152, "DDRL": 64, "DeepID2Plus": 48, "NiN": 32}
    side = sizes.get(name, 64 if name in ("InceptionResNetV1", "FaceResNet", "TorchvisionBackbone") else 16)
    if name in ("DeepFace", "InceptionResNetV1"):
        pytest.skip("the same class of chain as the others, and slow to make")
    torch.manual_seed(0)
    plain = getattr(networks, name)((3, side, side))
    net = getattr(networks, name)((3, side, side), neck=Neck((7, 5)))
    assert net.num_features == 5
    assert net.activation_names == (*plain.activation_names, "neck1", "neck2")
    net.train()
    features, kept = net.forward_activations(torch.randn(4, 3, side, side), ["neck1", plain.output_name, "neck2"])
    assert kept["neck1"].shape == (4, 7) and kept[plain.output_name].flatten(1).shape == (4, plain.num_features)
    assert torch.equal(features, kept["neck2"]) and features.shape == (4, 5)
    assert set(dict(net.neck1.named_parameters())) == {"linear.weight", "norm.weight", "norm.bias"}


def test_focanet_ends_in_a_fully_connected_layer_where_asked() -> None:
    net = FOCANet((3, 16, 16), widths=(2, 3, 4), depth=1, fc=7)
    assert net.num_features == 7 and net.activation_names[-2:] == ("pool3", "fc")
    assert (net(torch.randn(2, 3, 16, 16)) >= 0).all()
    with pytest.raises(ConfigError, match="fc"):
        FOCANet((3, 16, 16), fc=0)


def test_a_neck_needs_layers() -> None:
    with pytest.raises(ConfigError, match="a neck needs a layer"):
        Neck(())
    with pytest.raises(ConfigError, match=r"neck\.widths"):
        Neck((4, 0))
