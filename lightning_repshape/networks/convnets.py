"""Plain convolutional networks: convolutions and poolings in one line, without shortcuts."""

from collections.abc import Sequence
from itertools import count
from typing import Literal

from torch import nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.layers import (
    Init,
    Layer,
    check_choice,
    check_dropout,
    check_positive,
    initialize,
    linear_layer,
)
from lightning_repshape.networks.base import Backbone, Ending, Options, check_image_shape

# (kernel, stride, padding) of every step that changes the size of the map
Geometry = Sequence[tuple[int, int, int]]


class ConvNet(Backbone):
    """The CIFAR network of Choi and Rhee 2019 (appendix A.3, table 6).

    ``conv1`` (32), ``conv2`` (64), ``pool1``, ``conv3`` (128), ``pool2``, ``conv4`` (128), ``pool3``, ``fc`` (128): 3 x
    3 convolutions with stride 1, 2 x 2 max pools with stride 2, ReLU after every convolution and after ``fc``, whose
    values are the features and take the paper's penalty. With ``dropout``, ``dropout`` follows ``fc`` and, with
    ``dropout_layers="all"``, ``conv1_dropout``, ``conv2_dropout``, ... follow the convolutions.

    Args:
        input_shape: (channels, height, width), at least 8 x 8 pixels with ``same`` padding, 24 x 24 with ``valid``.
        width: Units of ``fc``; the paper's scenarios have 32, 128 and 512.
        padding: ``same`` keeps the size of the map in a convolution, ``valid`` takes 2 pixels off. Not published.
        dropout: Share of the activations set to zero in training.
        batch_norm: Whether layers are batch-normalised before ReLU.
        init: ``glorot`` (the paper), ``he`` or ``torch``, see :func:`lightning_repshape.layers.initialize`.
        dropout_layers: Behind which layers ``dropout`` stands: ``last``, behind ``fc``, or behind ``all`` convolutions
            as well.
        batch_norm_layers: Which layers ``batch_norm`` normalises: ``all``, or the ``last`` one, ``fc``.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 128,
        padding: Literal["same", "valid"] = "same",
        dropout: float = 0.0,
        batch_norm: bool = False,
        init: Init = "glorot",
        dropout_layers: Literal["all", "last"] = "last",
        batch_norm_layers: Literal["all", "last"] = "all",
        **kwargs: Options[Ending],
    ) -> None:
        check_choice("dropout_layers", dropout_layers, ("all", "last"))
        check_choice("batch_norm_layers", batch_norm_layers, ("all", "last"))
        check_choice("padding", padding, ("same", "valid"))
        check_positive("width", width)
        check_dropout(dropout)
        pad = 1 if padding == "same" else 0
        conv, pool = (3, 1, pad), (2, 2, 0)
        geometry = [conv, conv, pool, conv, pool, conv, pool]
        channels, height, wide = check_image_shape("ConvNet", input_shape, _smallest(geometry))
        stages: dict[str, nn.Module] = {}
        normalised = batch_norm and batch_norm_layers == "all"
        for number, (filters, pooled) in enumerate(((32, ""), (64, "pool1"), (128, "pool2"), (128, "pool3")), start=1):
            stages[f"conv{number}"] = _conv_layer(channels, filters, 3, pad, normalised)
            if dropout > 0 and dropout_layers == "all":
                stages[f"conv{number}_dropout"] = nn.Dropout(dropout)
            if pooled:
                stages[pooled] = nn.MaxPool2d(2)
            channels = filters
        positions = _map_size(height, geometry) * _map_size(wide, geometry)
        stages["fc"] = linear_layer(channels * positions, width, batch_norm=batch_norm)
        if dropout > 0:
            stages["dropout"] = nn.Dropout(dropout)
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, init)


class LeNet(Backbone):
    """LeNet as Caffe's MNIST example has it, with ReLU after every layer (LeCun et al. 1998 for the idea).

    ``conv1`` (20 filters, 5 x 5), ``pool1``, ``conv2`` (50, 5 x 5), ``pool2``, ``fc`` (500): no padding, 2 x 2 max
    pools, features are the values of ``fc``. The feed-backward paper names LeNet without its sizes; its Fig. 2 has
    width 10.

    Args:
        input_shape: (channels, height, width), at least 16 x 16 pixels.
        width: Units of ``fc``.
        activate_features: Whether ``fc`` has a ReLU; False leaves the features linear.
        batch_norm: Whether all layers are batch-normalised before ReLU.
        init: ``he``, ``glorot`` or ``torch``, see :func:`lightning_repshape.layers.initialize`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 500,
        activate_features: bool = True,
        batch_norm: bool = False,
        init: Init = "he",
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("width", width)
        geometry = [(5, 1, 0), (2, 2, 0), (5, 1, 0), (2, 2, 0)]
        channels, height, wide = check_image_shape("LeNet", input_shape, _smallest(geometry))
        stages: dict[str, nn.Module] = {
            "conv1": _conv_layer(channels, 20, 5, 0, batch_norm),
            "pool1": nn.MaxPool2d(2),
            "conv2": _conv_layer(20, 50, 5, 0, batch_norm),
            "pool2": nn.MaxPool2d(2),
            "fc": linear_layer(
                50 * _map_size(height, geometry) * _map_size(wide, geometry),
                width,
                "relu" if activate_features else None,
                batch_norm,
            ),
        }
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, init)


class FOCANet(Backbone):
    """The CIFAR-10 network of FOCA (Sato et al. 2019): plain 3 x 3 convolutions and three 2 x 2 max pools.

    ``conv1_1``, ``conv1_2``, ``pool1``, ``conv2_1``, ..., ``pool3``: with 32 x 32 pixels it ends in 256 x 4 x 4 = 4096
    features, the flattened map of ``pool3``. The paper takes the stack of Lee et al. 2016 and prints its feature width
    alone: two convolutions before each pool, with 64, 128 and 256 filters, are ours. Other sizes give 256 *
    floor(height / 8) * floor(width / 8) features: 2304 for 28 x 28, 256 for 8 x 8.

    Args:
        input_shape: (channels, height, width), at least 8 x 8 pixels.
        widths: Filters before the first, second and third pool.
        depth: Convolutions before each pool.
        batch_norm: Whether convolutions are batch-normalised before ReLU: FOCA's baseline "Batch Norm".
        fc: Units of a fully connected layer ``fc`` with ReLU behind the last pool, whose values are the features then:
            condition (C1) of FOCA's Proposition 3.2. None: none, the features are the flattened map.
        init: ``he``, ``glorot`` or ``torch``, see :func:`lightning_repshape.layers.initialize`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        widths: Sequence[int] = (64, 128, 256),
        depth: int = 2,
        batch_norm: bool = False,
        init: Init = "he",
        fc: int | None = None,
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("widths", *widths)
        check_positive("depth", depth)
        if len(widths) != 3:
            raise ConfigError(f"FOCANet has three pools, so widths takes three numbers, not {len(widths)}")
        channels, height, wide = check_image_shape("FOCANet", input_shape, smallest=8)
        stages = _pooled_stages(channels, [(filters, depth) for filters in widths], batch_norm)
        num_features = widths[-1] * (height // 8) * (wide // 8)
        if fc is not None:
            check_positive("fc", fc)
            stages["fc"] = linear_layer(num_features, fc)
            num_features = fc
        super().__init__(input_shape, num_features, stages, **kwargs)
        initialize(self, init)


class VGG16(Backbone):
    """The convolutional part of VGG-16 (Simonyan and Zisserman 2015, configuration D).

    ``conv1_1``, ``conv1_2``, ``pool1``, ``conv2_1``, ..., ``conv5_3``, ``pool5``: 13 convolutions, 14.7 million
    parameters. The features are the flattened map of ``pool5``: 512 for 32 x 32 pixels, as FOCA has them on CIFAR-100,
    and 512 * floor(height / 32) * floor(width / 32) in general. The fully connected part is the head's.

    Args:
        input_shape: (channels, height, width), at least 32 x 32 pixels.
        batch_norm: Whether convolutions are batch-normalised before ReLU. Default: False, as published.
        init: ``he``, ``glorot`` or ``torch``, see :func:`lightning_repshape.layers.initialize`.
    """

    def __init__(
        self, input_shape: tuple[int, ...], batch_norm: bool = False, init: Init = "he", **kwargs: Options[Ending]
    ) -> None:
        channels, height, wide = check_image_shape("VGG16", input_shape, smallest=32)
        stages = _pooled_stages(channels, [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], batch_norm)
        super().__init__(input_shape, 512 * (height // 32) * (wide // 32), stages, **kwargs)
        initialize(self, init)


def _pooled_stages(channels: int, groups: Sequence[tuple[int, int]], batch_norm: bool) -> dict[str, nn.Module]:
    """Groups of (filters, convolutions), each closed by a pool; the last pool's map is flattened."""
    stages: dict[str, nn.Module] = {}
    for group, (filters, depth) in enumerate(groups, start=1):
        for position in range(1, depth + 1):
            stages[f"conv{group}_{position}"] = _conv_layer(channels, filters, 3, 1, batch_norm)
            channels = filters
        stages[f"pool{group}"] = nn.MaxPool2d(2)
    stages[f"pool{len(groups)}"] = Layer({"pool": nn.MaxPool2d(2), "flatten": nn.Flatten()})
    return stages


def _conv_layer(in_channels: int, filters: int, kernel: int, padding: int, batch_norm: bool = False) -> Layer:
    steps: dict[str, nn.Module] = {
        "conv": nn.Conv2d(in_channels, filters, kernel, padding=padding, bias=not batch_norm)
    }
    if batch_norm:
        steps["norm"] = nn.BatchNorm2d(filters)
    return Layer({**steps, "act": nn.ReLU()})


def _map_size(size: int, geometry: Geometry) -> int:
    """Height (or width) of the map after all steps; 0 where one of them has too little to work on."""
    for kernel, stride, padding in geometry:
        if size + 2 * padding < kernel:
            return 0
        size = (size + 2 * padding - kernel) // stride + 1
    return size


def _smallest(geometry: Geometry) -> int:
    return next(size for size in count(1) if _map_size(size, geometry) > 0)
