"""Networks for faces: those of table 2 of the feed-backward paper, and a residual one."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError
from lightning_repshape.layers import (
    NO_TAP,
    Chain,
    Layer,
    Tap,
    Tapped,
    check_dropout,
    check_positive,
    initialize,
    linear_layer,
)
from lightning_repshape.networks.base import Backbone, Ending, Options, check_image_shape


class LocallyConnected2d(nn.Module):
    """A convolution whose filters differ from place to place (Taigman et al. 2014, section 3.2), without padding.

    The input has ``height`` rows and ``width`` columns. The patches of a batch are laid out in memory, kernel * kernel
    times the size of its input. ConfigError: the input is smaller than the filters.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, height: int, width: int, stride: int = 1) -> None:
        super().__init__()
        if min(height, width) < kernel:
            raise ConfigError(f"filters of {kernel} x {kernel} do not fit on a map of {height} x {width}")
        self.in_shape = (in_channels, height, width)
        self.kernel, self.stride = kernel, stride
        self.out_height, self.out_width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        inputs = in_channels * kernel * kernel
        places = self.out_height * self.out_width
        self.weight = nn.Parameter(torch.randn(places, inputs, channels) * math.sqrt(2 / inputs))
        self.bias = nn.Parameter(torch.zeros(channels, self.out_height, self.out_width))

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H' x W'."""
        patches = F.unfold(x, self.kernel, stride=self.stride)  # N x (C k k) x places
        out: Tensor = torch.einsum("nip,pio->nop", patches, self.weight).contiguous()
        return out.view(*out.shape[:2], self.out_height, self.out_width) + self.bias

    def extra_repr(self) -> str:
        """What it is, for printing."""
        return f"{self.in_shape}, {self.bias.shape[0]}, kernel={self.kernel}, stride={self.stride}"


class DeepFace(Backbone):
    """DeepFace (Taigman et al. 2014, Fig. 2): locally connected layers on aligned faces.

    ``conv1`` (32 filters, 11 x 11), ``pool2`` (3 x 3, stride 2), ``conv3`` (16, 9 x 9), ``local4`` (16, 9 x 9),
    ``local5`` (16, 7 x 7, stride 2), ``local6`` (16, 5 x 5), ``fc7`` (4096), ``dropout``: ReLU after every layer but
    the pool, no padding. Published for 152 x 152 colour pixels (102.4 million parameters here; with the head of 4,030
    identities 119 million, the paper says more than 120). At 112 x 112: 37.0 million. Features are as ``fc7`` gives
    them: the paper divides them by their largest training value, and takes them to unit length (which the cosine does).

    Args:
        input_shape: (channels, height, width), at least 72 x 72 pixels.
        width: Units of ``fc7``.
        filters: Filters of the five layers before it.
        dropout: Share of ``fc7`` set to zero in training. Default: 0.5; the paper has dropout there, and no number.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 4096,
        filters: Sequence[int] = (32, 16, 16, 16, 16),
        dropout: float = 0.5,
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("width", width)
        check_positive("filters", *filters)
        check_dropout(dropout)
        if len(filters) != 5:
            raise ConfigError(f"DeepFace has five layers before fc7, so filters takes five numbers, not {len(filters)}")
        channels, height, wide = check_image_shape("DeepFace", input_shape, smallest=72)
        one, two, three, four, five = filters
        # (size - 11) + 1, halved by a pool that also takes the last, incomplete window, then - 8
        rows, columns = (-(-(size - 10 - 3) // 2) + 1 - 8 for size in (height, wide))
        stages: dict[str, nn.Module] = {
            "conv1": Layer({"conv": nn.Conv2d(channels, one, 11), "act": nn.ReLU()}),
            "pool2": nn.MaxPool2d(3, 2, ceil_mode=True),
            "conv3": Layer({"conv": nn.Conv2d(one, two, 9), "act": nn.ReLU()}),
        }
        for name, inputs, outputs, kernel, stride in (
            ("local4", two, three, 9, 1),
            ("local5", three, four, 7, 2),
            ("local6", four, five, 5, 1),
        ):
            local = LocallyConnected2d(inputs, outputs, kernel, rows, columns, stride)
            stages[name] = Layer({"local": local, "act": nn.ReLU()})
            rows, columns = local.out_height, local.out_width
        stages["fc7"] = linear_layer(five * rows * columns, width)
        if dropout > 0:
            stages["dropout"] = nn.Dropout(dropout)
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, "he")


class DeepID2Plus(Backbone):
    """DeepID2+ (Sun et al. 2015): four convolutions, and features that see the last two maps.

    ``conv1`` (4 x 4), ``pool1``, ``conv2`` (3 x 3), ``pool2``, ``conv3`` (3 x 3), ``pool3``, ``conv4`` (2 x 2, filters
    that differ from place to place, as in DeepID2), each with 128 filters and ReLU, no padding, 2 x 2 max pools;
    ``features`` are 512 units on the flattened ``pool3`` and ``conv4`` together. Published for 55 x 47 colour pixels.
    The local sharing of the third convolution, the further supervision of the lower layers and the verification loss in
    training are left out: the feed-backward paper trains by classification alone.

    Args:
        input_shape: (channels, height, width), at least 32 x 32 pixels.
        width: Number of features.
        filters: Filters of each convolution.
    """

    def __init__(
        self, input_shape: tuple[int, ...], width: int = 512, filters: int = 128, **kwargs: Options[Ending]
    ) -> None:
        check_positive("width", width)
        check_positive("filters", filters)
        channels, height, wide = check_image_shape("DeepID2Plus", input_shape, smallest=32)
        rows, columns = (_pooled(_pooled(_pooled(size - 3) - 2) - 2) for size in (height, wide))
        local = LocallyConnected2d(filters, filters, 2, rows, columns)
        stages: dict[str, nn.Module] = {}
        for number, kernel in enumerate((4, 3, 3), start=1):
            stages[f"conv{number}"] = Layer({"conv": nn.Conv2d(channels, filters, kernel), "act": nn.ReLU()})
            stages[f"pool{number}"] = nn.MaxPool2d(2)
            channels = filters
        stages["conv4"] = Layer({"local": local, "act": nn.ReLU()})
        stages["features"] = linear_layer(filters * (rows * columns + local.out_height * local.out_width), width)
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, "he")

    def forward(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """Inputs to features; see :class:`Backbone`."""
        if isinstance(x, Tensor):
            self._check_batch(x)
        tap = tap if isinstance(tap, Tap) else NO_TAP
        before = x
        for name, stage in self.named_children():
            if name == "features":
                x = torch.cat([before.flatten(1), x.flatten(1)], dim=1)
            elif name == "conv4":
                before = x
            x = tap(name, stage(x, tap.into(name)) if isinstance(stage, Tapped) else stage(x))
        return x


class InceptionResNetV1(Backbone):
    """Inception-ResNet-v1 (Szegedy et al. 2017, Fig. 10 and 14-19) with FaceNet's features (Schroff et al. 2015).

    ``conv1`` ... ``conv3``, ``pool3``, ``conv4`` ... ``conv6`` (the stem), ``block35`` (five blocks), ``reduction_a``,
    ``block17`` (ten), ``reduction_b``, ``block8`` (five, and a sixth without ReLU), ``pool``, ``dropout``,
    ``embedding``: 512 features, a linear layer with batch normalisation. ``block35.0`` is the first block. Residuals
    count 0.17, 0.10 and 0.20 as in the implementation of FaceNet that is in use, which has these 512 features, too;
    FaceNet's own net is an earlier Inception with 128, and trained with triplets. Made for 160 x 160; 23.5 million
    parameters, at any size.

    Args:
        input_shape: (channels, height, width), at least 80 x 80 pixels.
        width: Number of features.
        width_multiplier: Factor on the filters of all layers.
        dropout: Share of the pooled values set to zero in training.
    """

    any_size = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 512,
        width_multiplier: float = 1.0,
        dropout: float = 0.2,
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("width", width)
        check_dropout(dropout)
        if not 0.0 < width_multiplier < 10.0:
            raise ConfigError(f"width_multiplier={width_multiplier!r} must be above 0, at most 10")
        channels, _, _ = check_image_shape("InceptionResNetV1", input_shape, smallest=80)

        def wide(filters: int) -> int:
            return max(2, round(filters * width_multiplier))

        stages: dict[str, nn.Module] = {
            "conv1": _conv(channels, wide(32), 3, 2, 0),
            "conv2": _conv(wide(32), wide(32), 3, 1, 0),
            "conv3": _conv(wide(32), wide(64), 3),
            "pool3": nn.MaxPool2d(3, 2),
            "conv4": _conv(wide(64), wide(80), 1),
            "conv5": _conv(wide(80), wide(192), 3, 1, 0),
            "conv6": _conv(wide(192), wide(256), 3, 2, 0),
        }
        maps, small = wide(256), wide(32)
        stages["block35"] = _repeat(
            5, maps, 0.17, [[(small, 1)], [(small, 1), (small, 3)], [(small, 1), (small, 3), (small, 3)]]
        )
        first = _Reduction(maps, [[(wide(384), 3, 2)], [(wide(192), 1, 1), (wide(192), 3, 1), (wide(256), 3, 2)]])
        stages["reduction_a"] = first
        maps, inner = first.channels, wide(128)
        stages["block17"] = _repeat(10, maps, 0.10, [[(inner, 1)], [(inner, 1), (inner, (1, 7)), (inner, (7, 1))]])
        second = _Reduction(
            maps,
            [
                [(wide(256), 1, 1), (wide(384), 3, 2)],
                [(wide(256), 1, 1), (wide(256), 3, 2)],
                [(wide(256), 1, 1), (wide(256), 3, 1), (wide(256), 3, 2)],
            ],
        )
        stages["reduction_b"] = second
        maps, inner = second.channels, wide(192)
        paths: list[list[tuple[int, int | tuple[int, int]]]] = [
            [(inner, 1)],
            [(inner, 1), (inner, (1, 3)), (inner, (3, 1))],
        ]
        stages["block8"] = Chain(
            {**dict(_repeat(5, maps, 0.20, paths).named_children()), "5": _Residual(maps, 1.0, paths, False)}
        )
        stages["pool"] = Layer({"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})
        if dropout > 0:
            stages["dropout"] = nn.Dropout(dropout)
        stages["embedding"] = Layer(
            {"linear": nn.Linear(maps, width, bias=False), "norm": nn.BatchNorm1d(width, eps=1e-3)}
        )
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, "he")


class FaceResNet(Backbone):
    """The residual net of SphereFace (Liu et al. 2017, table 2): 20 layers, features from a linear layer.

    ``conv1`` ... ``conv4``, each a 3 x 3 convolution with stride 2 and 64, 128, 256, 512 filters, followed by its
    residual units ``units1`` ... ``units4`` of two 3 x 3 convolutions; a PReLU after every convolution; ``embedding``
    (512) on the flattened last map, without activation. ``units3.0`` is the first unit of the third stage,
    ``units3.0.act1`` the value between its convolutions. Published for 112 x 96 (22.7 million parameters); 24.5 million
    at 112 x 112. The paper's 4, 10, 36 and 64 layers are other numbers of units.

    Args:
        input_shape: (channels, height, width), at least 16 x 16 pixels.
        width: Number of features.
        filters: Filters of the first stage; each following one has twice as many.
        units: Residual units of the stages. Default: (1, 2, 4, 1), 20 layers.
        batch_norm: Whether to normalise after every convolution, and the features (Deng et al. 2018 do). Default:
            False, as published.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 512,
        filters: int = 64,
        units: Sequence[int] = (1, 2, 4, 1),
        batch_norm: bool = False,
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("width", width)
        check_positive("filters", filters)
        if len(units) != 4 or min(units) < 0:
            raise ConfigError(f"units takes four numbers of units, none negative, not {tuple(units)}")
        channels, height, wide = check_image_shape("FaceResNet", input_shape, smallest=16)
        stages: dict[str, nn.Module] = {}
        for number, count in enumerate(units, start=1):
            stages[f"conv{number}"] = _prelu_conv(channels, filters, 2, batch_norm)
            if count:
                blocks = {str(place): _Unit(filters, batch_norm) for place in range(count)}
                stages[f"units{number}"] = Chain(blocks)
            channels, filters = filters, 2 * filters
            height, wide = (height + 1) // 2, (wide + 1) // 2
        stages["embedding"] = _embedding(channels * height * wide, width, batch_norm)
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, "he")
        _quieten_units(self, batch_norm)


class DDRL(Backbone):
    """A stand-in for the net of DDRL (Yu et al. 2018), whose layers the texts at hand do not tell.

    Its layers are those of the net of Wen et al. 2016 for the centre loss (27 convolutions), the same time's residual
    face net without strides: ``conv1`` (32), ``conv2`` (64), ``pool1``, ``units1`` (1 unit), ``conv3`` (128),
    ``pool2``, ``units2`` (2), ``conv4`` (256), ``pool3``, ``units3`` (5), ``conv5`` (512), ``pool4``, ``units4`` (3),
    ``embedding`` (512): 3 x 3 convolutions and PReLU, 2 x 2 max pools; the first two convolutions keep the size here.
    So figures of this net say nothing exact about DDRL's; they serve the table's rows "centre loss" and "large margin",
    too.

    Args:
        input_shape: (channels, height, width), at least 16 x 16 pixels.
        width: Number of features.
        filters: Filters of ``conv1``; the following stages have 2, 4, 8 and 16 times as many.
        units: Residual units of the stages.
        batch_norm: Whether to normalise after every convolution, and the features.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 512,
        filters: int = 32,
        units: Sequence[int] = (1, 2, 5, 3),
        batch_norm: bool = False,
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("width", width)
        check_positive("filters", filters)
        if len(units) != 4 or min(units) < 0:
            raise ConfigError(f"units takes four numbers of units, none negative, not {tuple(units)}")
        channels, height, wide = check_image_shape("DDRL", input_shape, smallest=16)
        stages: dict[str, nn.Module] = {"conv1": _prelu_conv(channels, filters, 1, batch_norm)}
        for number, count in enumerate(units, start=1):
            stages[f"conv{number + 1}"] = _prelu_conv(filters, 2 * filters, 1, batch_norm)
            stages[f"pool{number}"] = nn.MaxPool2d(2)
            filters = 2 * filters
            if count:
                blocks = {str(place): _Unit(filters, batch_norm) for place in range(count)}
                stages[f"units{number}"] = Chain(blocks)
        stages["embedding"] = _embedding(filters * (height // 16) * (wide // 16), width, batch_norm)
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, "he")
        _quieten_units(self, batch_norm)


class _Unit(Tapped):
    """x + PReLU(conv(PReLU(conv(x)))): a residual unit of the face nets; ``act1`` is the value in between."""

    def __init__(self, channels: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.act1 = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.act2 = nn.PReLU(channels)

    def forward(self, x: Tensor, tap: Tap = NO_TAP) -> Tensor:
        """N x C x H x W to the same."""
        inner = tap("act1", self.act1(self.norm1(self.conv1(x))))
        return x + self.act2(self.norm2(self.conv2(inner)))  # type: ignore[no-any-return]

    def inner_names(self, every: bool = False) -> list[str]:
        """The value between the convolutions."""
        return ["act1"]


class _Residual(nn.Module):
    """relu(x + scale * conv(concatenated branches of x)), Szegedy et al. 2017."""

    def __init__(
        self,
        channels: int,
        scale: float,
        branches: Sequence[Sequence[tuple[int, int | tuple[int, int]]]],
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.branches = nn.ModuleList()
        for branch in branches:
            inputs, convolutions = channels, []
            for filters, kernel in branch:
                convolutions.append(_conv(inputs, filters, kernel))
                inputs = filters
            self.branches.append(nn.Sequential(*convolutions))
        self.up = nn.Conv2d(sum(branch[-1][0] for branch in branches), channels, 1)
        self.act = nn.ReLU() if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to the same."""
        joined = torch.cat([branch(x) for branch in self.branches], dim=1)
        return self.act(x + self.scale * self.up(joined))  # type: ignore[no-any-return]


class _Reduction(nn.Module):
    """Branches that halve the map, and a 3 x 3 max pool with stride 2, concatenated."""

    def __init__(self, channels: int, branches: Sequence[Sequence[tuple[int, int, int]]]) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        for branch in branches:
            inputs, convolutions = channels, []
            for filters, kernel, stride in branch:
                convolutions.append(_conv(inputs, filters, kernel, stride, 0 if stride == 2 else None))
                inputs = filters
            self.branches.append(nn.Sequential(*convolutions))
        self.pool = nn.MaxPool2d(3, 2)
        self.channels = channels + sum(branch[-1][0] for branch in branches)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H / 2 x W / 2."""
        return torch.cat([*(branch(x) for branch in self.branches), self.pool(x)], dim=1)


def _repeat(
    count: int, channels: int, scale: float, branches: Sequence[Sequence[tuple[int, int | tuple[int, int]]]]
) -> Chain:
    blocks: Mapping[str, nn.Module] = {str(place): _Residual(channels, scale, branches) for place in range(count)}
    return Chain(blocks)


def _conv(
    in_channels: int, filters: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | None = None
) -> Layer:
    """Convolution, batch normalisation, ReLU; the size is kept where no padding is given."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    pad = (size[0] // 2, size[1] // 2) if padding is None else (padding, padding)
    conv = nn.Conv2d(in_channels, filters, size, stride, pad, bias=False)
    return Layer({"conv": conv, "norm": nn.BatchNorm2d(filters, eps=1e-3), "act": nn.ReLU()})


def _prelu_conv(in_channels: int, filters: int, stride: int, batch_norm: bool) -> Layer:
    steps: dict[str, nn.Module] = {"conv": nn.Conv2d(in_channels, filters, 3, stride, 1, bias=not batch_norm)}
    if batch_norm:
        steps["norm"] = nn.BatchNorm2d(filters)
    return Layer({**steps, "act": nn.PReLU(filters)})


def _embedding(inputs: int, width: int, batch_norm: bool) -> Layer:
    steps: dict[str, nn.Module] = {"flatten": nn.Flatten(), "linear": nn.Linear(inputs, width, bias=not batch_norm)}
    if batch_norm:
        steps["norm"] = nn.BatchNorm1d(width)
    return Layer(steps)


def _quieten_units(net: nn.Module, batch_norm: bool) -> None:
    """Small residuals at first (as in SphereFace): without normalisation, sums would grow from unit to unit."""
    for module in net.modules():
        if isinstance(module, _Unit) and not batch_norm:
            nn.init.normal_(module.conv1.weight, std=0.01)
            nn.init.normal_(module.conv2.weight, std=0.01)


def _pooled(size: int) -> int:
    return size // 2
