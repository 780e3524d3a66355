"""The convolutional highway network."""

import math

import torch
from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.layers import NO_TAP, Chain, Init, Layer, Tap, Tapped, check_positive, initialize
from lightning_repshape.networks.base import Backbone, Ending, Options, check_image_shape


class HighwayBlock(Tapped):
    """A highway layer: T(x) H(x) + (1 - T(x)) x, H = ReLU and T = sigmoid of a 3 x 3 convolution (Eq. 3 of its paper).

    ``gate`` is the value of T. One convolution, batch-normalised where wanted, computes both, H in its first half of
    filters. ``gate_bias``, the initial bias of T's filters, is negative, so that the layer begins by carrying its
    input.
    """

    def __init__(self, channels: int, gate_bias: float, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(2 * channels) if batch_norm else nn.Identity()
        self.relu = nn.ReLU()
        self.gate = nn.Sigmoid()
        self.gate_bias = gate_bias

    def forward(self, x: Tensor, tap: Tap = NO_TAP) -> Tensor:
        """N x C x H x W to the same shape."""
        both = self.norm(self.conv(x))
        changed, gate = both.chunk(2, dim=1)
        gate = tap("gate", self.gate(gate))
        return torch.lerp(x, self.relu(changed), gate)

    def inner_names(self, every: bool = False) -> list[str]:
        """The transform gate."""
        return ["gate"]

    def set_gate_bias(self) -> None:
        """Gives the gate's filters their initial bias."""
        bias = self.norm.bias if isinstance(self.norm, nn.BatchNorm2d) else self.conv.bias
        if bias is not None:
            with torch.no_grad():
                bias[len(bias) // 2 :] = self.gate_bias


class Highway(Backbone):
    """A convolutional highway network of 12 layers with the head (Srivastava, Greff and Schmidhuber 2015).

    ``conv1`` (3 x 3, ReLU), ``highway1``, ``pool1``, ``highway2``, ``pool2``, ``highway3``, ``pool``: ten highway
    layers in groups of 3, 3 and 4 with 2 x 2 max pools between, and the global average, which is the features.
    ``highway1.0`` is the first highway layer, ``highway1.0.gate`` its transform gate. The feed-backward paper prints 12
    layers and 11.8 million parameters and nothing else; 256 filters throughout give that number.

    Args:
        input_shape: (channels, height, width), at least 4 x 4 pixels; any size above.
        width: Filters of all layers.
        depth: Layers with ``conv1`` and a linear head, at least 5.
        gate_bias: Initial bias of the transform gates.
        batch_norm: Whether convolutions are batch-normalised. Published networks are not.
        init: ``he``, ``glorot`` or ``torch``, see :func:`lightning_repshape.layers.initialize`.
    """

    any_size = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 256,
        depth: int = 12,
        gate_bias: float = -2.0,
        batch_norm: bool = False,
        init: Init = "he",
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("width", width)
        check_positive("depth", depth)
        if depth < 5:
            raise ConfigError(f"Highway: depth={depth} leaves no highway layer for each of the three groups; 5 does")
        if not math.isfinite(gate_bias):
            raise ConfigError(f"Highway: gate_bias={gate_bias!r} must be a finite number")
        channels, _, _ = check_image_shape("Highway", input_shape, smallest=4)
        conv = nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm)
        norm: dict[str, nn.Module] = {"norm": nn.BatchNorm2d(width)} if batch_norm else {}
        stages: dict[str, nn.Module] = {"conv1": Layer({"conv": conv, **norm, "act": nn.ReLU()})}
        layers = depth - 2
        for group in range(3):
            size = layers // 3 + (1 if 2 - group < layers % 3 else 0)
            stages[f"highway{group + 1}"] = Chain(
                {str(position): HighwayBlock(width, gate_bias, batch_norm) for position in range(size)}
            )
            if group < 2:
                stages[f"pool{group + 1}"] = nn.MaxPool2d(2)
        stages["pool"] = Layer({"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, init)
        for block in self.modules():
            if isinstance(block, HighwayBlock):
                block.set_gate_bias()
