"""Densely connected networks for small images."""

import torch
from torch import Tensor, nn

from lightning_repshape.layers import NO_TAP, Chain, Init, Layer, Tap, Tapped, check_dropout, check_positive, initialize
from lightning_repshape.networks.base import Backbone, Ending, Options, check_image_shape


class DenseLayer(Tapped):
    """Batch normalisation, ReLU, 3 x 3 convolution; what it adds is appended to its input (Huang et al. 2017, Eq. 2).

    ``relu`` is what enters the convolution; ``growth`` channels are appended, ``dropout`` sets a share of them to zero
    in training.
    """

    def __init__(self, in_channels: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor, tap: Tap = NO_TAP) -> Tensor:
        """N x C x H x W to N x (C + growth) x H x W."""
        new = self.conv(tap("relu", self.relu(self.bn(x))))
        return torch.cat([x, self.dropout(new)], dim=1)

    def inner_names(self, every: bool = False) -> list[str]:
        """What enters the convolution."""
        return ["relu"]


class DenseNet40(Backbone):
    """DenseNet with 40 layers and growth rate 12 (Huang et al. 2017, section 4, without bottleneck and compression).

    ``conv1`` (3 x 3, 16 filters), ``block1``, ``transition1``, ``block2``, ``transition2``, ``block3`` of twelve layers
    each, ``norm`` (batch normalisation and ReLU), ``pool``, the global average of 448 channels, which is the features.
    ``block1.0`` is the first layer of ``block1`` (its input and what it appended), ``block1.0.relu`` what enters its
    convolution. 1.02 million parameters with a head of ten classes.

    Args:
        input_shape: (channels, height, width), at least 4 x 4 pixels; any size above.
        growth: k, the channels that each layer appends.
        dropout: Share of the appended values set to zero in training; the paper has 0.2 without augmentation.
        init: ``he``, ``glorot`` or ``torch``, see :func:`lightning_repshape.layers.initialize`.
    """

    any_size = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        growth: int = 12,
        dropout: float = 0.0,
        init: Init = "he",
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("growth", growth)
        check_dropout(dropout)
        channels, _, _ = check_image_shape("DenseNet40", input_shape, smallest=4)
        width = 16
        stages: dict[str, nn.Module] = {"conv1": nn.Conv2d(channels, width, 3, padding=1, bias=False)}
        for number in (1, 2, 3):
            layers: dict[str, nn.Module] = {}
            for position in range(12):
                layers[str(position)] = DenseLayer(width, growth, dropout)
                width += growth
            stages[f"block{number}"] = Chain(layers)
            if number < 3:
                steps: dict[str, nn.Module] = {
                    "norm": nn.BatchNorm2d(width),
                    "act": nn.ReLU(),
                    "conv": nn.Conv2d(width, width, 1, bias=False),
                }
                if dropout > 0:
                    steps["dropout"] = nn.Dropout(dropout)
                stages[f"transition{number}"] = Layer({**steps, "pool": nn.AvgPool2d(2)})
        stages["norm"] = Layer({"norm": nn.BatchNorm2d(width), "act": nn.ReLU()})
        stages["pool"] = Layer({"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, init)
