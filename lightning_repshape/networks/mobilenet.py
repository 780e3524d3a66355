"""MobileNetV2 with stems for small images."""

from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.layers import NO_TAP, Chain, Layer, Tap, Tapped, initialize
from lightning_repshape.networks.base import Backbone, Ending, Options, check_image_shape
from lightning_repshape.networks.resnet import Stem, choose_stem

# table 2 of the paper: expansion, channels, blocks, stride of the first block
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(Tapped):
    """MobileNetV2's block: 1 x 1 expansion, 3 x 3 depthwise convolution, linear 1 x 1 projection (Fig. 4d).

    ``expand`` (``expansion`` times wider than the input; none for 1) and ``depthwise``, which has the stride, are its
    post-activation values (ReLU6); its output has no activation. The input is added where the shapes agree.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = _conv_layer(in_channels, inner, 1) if expansion != 1 else None
        self.depthwise = _conv_layer(inner, inner, 3, stride, groups=inner)
        self.project = Layer({"conv": nn.Conv2d(inner, channels, 1, bias=False), "norm": nn.BatchNorm2d(channels)})
        self.add_input = stride == 1 and in_channels == channels

    def forward(self, x: Tensor, tap: Tap = NO_TAP) -> Tensor:
        """N x C x H x W to N x C' x H' x W'."""
        wide = x if self.expand is None else tap("expand", self.expand(x))
        out: Tensor = self.project(tap("depthwise", self.depthwise(wide)))
        return x + out if self.add_input else out

    def inner_names(self, every: bool = False) -> list[str]:
        """The values after the two activations."""
        return ["depthwise"] if self.expand is None else ["expand", "depthwise"]


class MobileNetV2(Backbone):
    """MobileNetV2 (Sandler et al. 2018, table 2) with stems for small images.

    ``conv1``, ``stage1``, ..., ``stage7`` of one to four blocks each, ``conv2`` (1 x 1, 1280 filters), ``pool``, whose
    1280 values are the features. ``stage2.0`` is the first block of ``stage2``, ``stage2.0.expand`` and
    ``stage2.0.depthwise`` are the post-activation values in it. 2.22 million parameters, and 2.24 with a linear head of
    ten classes. The dropout before the classifier is the head's.

    Args:
        input_shape: (channels, height, width); any size.
        stem: ``small``: ``conv1`` and ``stage2`` with stride 1, for 32 pixels; ``medium``: ``stage2`` alone with stride
            1, for 64 and 96; ``large``: both with stride 2, as for ImageNet. ``auto`` chooses by the shorter side:
            below 48 pixels small, below 128 medium.
        width_multiplier: Factor on all filters (but never fewer than 1280 in ``conv2``), rounded to multiples of 8 as
            in the paper's code.
    """

    any_size = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        stem: Stem = "auto",
        width_multiplier: float = 1.0,
        **kwargs: Options[Ending],
    ) -> None:
        if not 0.0 < width_multiplier < 100.0:
            raise ConfigError(f"width_multiplier={width_multiplier!r} must be above 0; the paper has 0.35 to 1.4")
        channels, height, wide = check_image_shape("MobileNetV2", input_shape)
        chosen = choose_stem(stem, height, wide)
        previous = _round_to_8(32 * width_multiplier)
        stages: dict[str, nn.Module] = {"conv1": _conv_layer(channels, previous, 3, 1 if chosen == "small" else 2)}
        for number, (expansion, filters, depth, stride) in enumerate(_STAGES, start=1):
            if number == 2 and chosen != "large":
                stride = 1
            filters = _round_to_8(filters * width_multiplier)
            blocks: dict[str, nn.Module] = {}
            for position in range(depth):
                blocks[str(position)] = InvertedResidual(previous, filters, stride if position == 0 else 1, expansion)
                previous = filters
            stages[f"stage{number}"] = Chain(blocks)
        num_features = _round_to_8(1280 * max(1.0, width_multiplier))
        stages["conv2"] = _conv_layer(previous, num_features, 1)
        stages["pool"] = Layer({"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})
        super().__init__(input_shape, num_features, stages, **kwargs)
        initialize(self, "he")


def _conv_layer(in_channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> Layer:
    conv = nn.Conv2d(in_channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    return Layer({"conv": conv, "norm": nn.BatchNorm2d(filters), "act": nn.ReLU6()})


def _round_to_8(value: float) -> int:
    """The nearest multiple of 8, but at least 8 and not more than 10 % below the value."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded
