"""The face networks."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.networks import DDRL, DeepFace, DeepID2Plus, FaceResNet, InceptionResNetV1
from lightning_repshape.networks.faces import LocallyConnected2d


@pytest.mark.parametrize(
    ("network", "shape", "count"),
    [
        (DeepFace, (3, 152, 152), 102_412_864),
        (DeepID2Plus, (3, 55, 47), 3_187_072),
        (InceptionResNetV1, (3, 160, 160), 23_482_624),  # that of the implementations in use, without their head
        (FaceResNet, (3, 112, 96), 22_666_944),
        (DDRL, (3, 112, 96), 33_303_968),
    ],
)
def test_parameter_counts_of_face_networks(network: Any, shape: tuple[int, int, int], count: int) -> None:
    with torch.device("meta"):
        net = network(shape)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize(
    "net",
    [
        lambda: DeepFace((3, 72, 80), width=12, filters=(4, 3, 3, 3, 3)),
        lambda: DeepID2Plus((1, 55, 47), width=12, filters=4),
        lambda: InceptionResNetV1((3, 80, 80), width=12, width_multiplier=0.05),
        lambda: FaceResNet((1, 28, 23), width=12, filters=2, batch_norm=True),
        lambda: FaceResNet((1, 28, 23), width=12, filters=2, units=(0, 1, 0, 1)),
        lambda: DDRL((3, 32, 32), width=12, filters=2),
    ],
)
def test_face_networks_hand_out_their_activations(net: Any) -> None:
    torch.manual_seed(0)
    backbone = net().eval()
    x = torch.randn(2, *backbone.input_shape)
    features, activations = backbone.forward_activations(x, backbone.activation_names)
    assert features.shape == (2, 12) == (2, backbone.num_features)
    assert torch.equal(activations[backbone.activation_names[-1]], features)
    assert torch.equal(backbone(x), features)
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_places_of_a_locally_connected_layer_have_filters_of_their_own() -> None:
    torch.manual_seed(0)
    layer = LocallyConnected2d(3, 5, 3, 9, 7, stride=2).double()
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    out = layer(x)
    assert out.shape == (2, 5, 4, 3)
    nn.init.normal_(layer.bias)
    for row, column in itertools.product(range(4), range(3)):
        weight = layer.weight[row * 3 + column].T.reshape(5, 3, 3, 3)
        patch = x[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        expected = torch.einsum("nchw,ochw->no", patch, weight) + layer.bias[:, row, column]
        torch.testing.assert_close(layer(x)[:, :, row, column], expected)
    with pytest.raises(ConfigError, match="do not fit"):
        LocallyConnected2d(3, 5, 3, 2, 7)
    with pytest.raises(ConfigError, match="at least 72 x 72"):
        DeepFace((3, 71, 112))
