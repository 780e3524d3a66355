"""Network in Network."""

from typing import Literal

from torch import nn

from lightning_repshape.layers import Init, Layer, check_choice, check_dropout, initialize
from lightning_repshape.networks.base import Backbone, Ending, Options, check_image_shape

# by block: kernel of the first convolution, and the filters of it and of the 1 x 1 convolutions behind it
_LAYOUTS: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "nine": ((5, (192, 160, 96)), (5, (192, 192, 192)), (3, (192, 192))),
    "twelve": ((5, (476, 476, 476)), (5, (476, 476, 476)), (3, (476, 476, 476)), (3, (476, 476))),
}


class NiN(Backbone):
    """Network in Network (Lin, Chen and Yan 2013): blocks of a convolution and 1 x 1 convolutions, no dense layers.

    ``conv1_1``, ``conv1_2``, ``conv1_3``, ``pool1``, ``conv2_1``, ..., ``pool``, the global average, which is the
    features. The published network ends in a 1 x 1 convolution with a filter a class before the average; with a
    :class:`~lightning_repshape.heads.LinearHead` on the average this is the same but for that convolution's ReLU.

    ``twelve`` has the depth and the size that the feed-backward paper prints, 12 layers with the head and 11.4 million
    parameters; its widths (476 throughout) are ours, since the paper gives none. ``nine`` is Lin's CIFAR network, 9
    layers with the head and 0.97 million parameters.

    Args:
        input_shape: (channels, height, width), at least 8 x 8 pixels; any size above.
        layout: ``twelve`` or ``nine``.
        dropout: Share of the values set to zero after each pool in training; Lin's has 0.5.
        batch_norm: Whether convolutions are batch-normalised before ReLU. Lin's is not.
        init: ``he``, ``glorot`` or ``torch``, see :func:`lightning_repshape.layers.initialize`.
    """

    any_size = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        layout: Literal["twelve", "nine"] = "twelve",
        dropout: float = 0.5,
        batch_norm: bool = False,
        init: Init = "he",
        **kwargs: Options[Ending],
    ) -> None:
        check_choice("layout", layout, _LAYOUTS)
        check_dropout(dropout)
        channels, _, _ = check_image_shape("NiN", input_shape, smallest=8)
        stages: dict[str, nn.Module] = {}
        blocks = _LAYOUTS[layout]
        for number, (kernel, widths) in enumerate(blocks, start=1):
            for position, filters in enumerate(widths, start=1):
                size = kernel if position == 1 else 1
                steps: dict[str, nn.Module] = {
                    "conv": nn.Conv2d(channels, filters, size, padding=size // 2, bias=not batch_norm)
                }
                if batch_norm:
                    steps["norm"] = nn.BatchNorm2d(filters)
                stages[f"conv{number}_{position}"] = Layer({**steps, "act": nn.ReLU()})
                channels = filters
            if number < len(blocks):
                # Lin's first pool takes maxima, the others averages
                pool = nn.MaxPool2d(3, 2, 1) if number == 1 else nn.AvgPool2d(3, 2, 1, count_include_pad=False)
                stages[f"pool{number}"] = Layer(
                    {"pool": pool, "dropout": nn.Dropout(dropout)} if dropout else {"pool": pool}
                )
        stages["pool"] = Layer({"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})
        super().__init__(input_shape, channels, stages, **kwargs)
        initialize(self, init)
