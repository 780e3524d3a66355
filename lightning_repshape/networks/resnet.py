"""Residual networks: those of He et al. for CIFAR, wide ones, and ResNet-18 and PreAct-ResNet-18 for small images."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.layers import (
    NO_TAP,
    Chain,
    Layer,
    Tap,
    Tapped,
    check_choice,
    check_dropout,
    check_positive,
    initialize,
)
from lightning_repshape.networks.base import Backbone, Ending, Options, check_image_shape

Stem = Literal["auto", "small", "medium", "large"]


def choose_stem(stem: Stem, height: int, width: int) -> Literal["small", "medium", "large"]:
    """``small`` (stride 1, for 32 pixels), ``medium`` (stride 2, for 64 and 96) or ``large`` (as for ImageNet).

    ``auto`` goes by the shorter side: below 48 pixels small, below 128 medium, else large. ConfigError: another word.
    """
    check_choice("stem", stem, ("auto", "small", "medium", "large"))
    if stem == "auto":
        side = min(height, width)
        return "small" if side < 48 else "medium" if side < 128 else "large"
    return stem


class BasicBlock(Tapped):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016a, Fig. 5 left): relu(shortcut(x) + F(x)).

    ``relu1`` is the value between the convolutions; the first one has the stride. Where the shape changes, ``option``
    ``A`` takes every second pixel and fills the new channels with zeros, ``B`` is a 1 x 1 convolution with batch
    normalisation.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, option: Literal["A", "B"]) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = (
                _ZeroPadShortcut(channels - in_channels, stride)
                if option == "A"
                else nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor, tap: Tap = NO_TAP) -> Tensor:
        """N x C x H x W to N x C' x H' x W'."""
        out = tap("relu1", self.relu1(self.bn1(self.conv1(x))))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + self.shortcut(x))  # type: ignore[no-any-return]

    def inner_names(self, every: bool = False) -> list[str]:
        """The value between the convolutions."""
        return ["relu1"]


class PreActBlock(Tapped):
    """Batch normalisation and ReLU before each convolution (He et al. 2016b): shortcut + F(x), without ReLU after it.

    ``relu1`` and ``relu2`` are what enters the convolutions; the first one has the stride, and dropout, where there is
    some, stands before the second. A shortcut that changes shape is a 1 x 1 convolution of ``relu1``.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = _conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.conv2 = _conv3x3(channels, channels)
        self.shortcut = (
            nn.Conv2d(in_channels, channels, 1, stride, bias=False) if stride != 1 or in_channels != channels else None
        )

    def forward(self, x: Tensor, tap: Tap = NO_TAP) -> Tensor:
        """N x C x H x W to N x C' x H' x W'."""
        active = tap("relu1", self.relu1(self.bn1(x)))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        out = tap("relu2", self.relu2(self.bn2(self.conv1(active))))
        if self.dropout is not None:
            out = self.dropout(out)
        return self.conv2(out) + shortcut  # type: ignore[no-any-return]

    def inner_names(self, every: bool = False) -> list[str]:
        """What enters the two convolutions."""
        return ["relu1", "relu2"]


class ResNet18(Backbone):
    """ResNet-18 (He et al. 2016a, table 1) with stems for small images.

    ``conv1``, (``maxpool`` in the large stem), ``layer1``, ..., ``layer4`` of two blocks each, ``pool``, whose 512
    values are the features. ``layer1.0`` is the first block of ``layer1``, ``layer1.0.relu1`` the value between its
    convolutions. 11.17 million parameters.

    Args:
        input_shape: (channels, height, width); any size.
        stem: ``small``: 3 x 3 convolution with stride 1, for 32 pixels; ``medium``: the same with stride 2, for 64 and
            96; ``large``: 7 x 7 with stride 2 and a 3 x 3 max pool with stride 2, as for ImageNet. ``auto`` chooses by
            the shorter side: below 48 pixels small, below 128 medium.
        width: Filters of ``layer1``; the following layers have 2, 4 and 8 times as many.
    """

    any_size = True

    def __init__(
        self, input_shape: tuple[int, ...], stem: Stem = "auto", width: int = 64, **kwargs: Options[Ending]
    ) -> None:
        check_positive("width", width)
        channels, height, wide = check_image_shape("ResNet18", input_shape)
        chosen = choose_stem(stem, height, wide)
        kernel, stride = {"small": (3, 1), "medium": (3, 2), "large": (7, 2)}[chosen]
        conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
        stages: dict[str, nn.Module] = {"conv1": Layer({"conv": conv, "norm": nn.BatchNorm2d(width), "act": nn.ReLU()})}
        if chosen == "large":
            stages["maxpool"] = nn.MaxPool2d(3, 2, 1)
        previous = width
        for number in range(4):
            filters, first_stride = width * 2**number, 1 if number == 0 else 2
            blocks = (BasicBlock(previous, filters, first_stride, "B"), BasicBlock(filters, filters, 1, "B"))
            stages[f"layer{number + 1}"] = _group(blocks)
            previous = filters
        super().__init__(input_shape, previous, {**stages, "pool": _global_pool()}, **kwargs)
        initialize(self, "he")


class PreActResNet18(Backbone):
    """ResNet-18 with pre-activation blocks (He et al. 2016b) and stems for small images.

    ``conv1`` (a bare convolution; the first block normalises), (``maxpool`` in the large stem), ``layer1``, ...,
    ``layer4``, ``norm`` (the batch normalisation and ReLU that end the net), ``pool``, whose 512 values are the
    features. ``layer1.0.relu1`` and ``layer1.0.relu2`` are post-activation values within a block; ``layer1.0`` is a
    sum. 11.17 million parameters.

    Args:
        input_shape: (channels, height, width); any size.
        stem: As in :class:`ResNet18`.
        width: Filters of ``layer1``; the following layers have 2, 4 and 8 times as many.
    """

    any_size = True

    def __init__(
        self, input_shape: tuple[int, ...], stem: Stem = "auto", width: int = 64, **kwargs: Options[Ending]
    ) -> None:
        check_positive("width", width)
        channels, height, wide = check_image_shape("PreActResNet18", input_shape)
        chosen = choose_stem(stem, height, wide)
        kernel, stride = {"small": (3, 1), "medium": (3, 2), "large": (7, 2)}[chosen]
        stages: dict[str, nn.Module] = {"conv1": nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)}
        if chosen == "large":
            stages["maxpool"] = nn.MaxPool2d(3, 2, 1)
        previous = width
        for number in range(4):
            filters, first_stride = width * 2**number, 1 if number == 0 else 2
            blocks = (PreActBlock(previous, filters, first_stride), PreActBlock(filters, filters, 1))
            stages[f"layer{number + 1}"] = _group(blocks)
            previous = filters
        stages["norm"] = Layer({"norm": nn.BatchNorm2d(previous), "act": nn.ReLU()})
        super().__init__(input_shape, previous, {**stages, "pool": _global_pool()}, **kwargs)
        initialize(self, "he")


class _CIFARResNet(Backbone):
    """The CIFAR networks of He et al. 2016a, section 4.2: 6 n + 2 layers.

    Args:
        input_shape: (channels, height, width); any size.
        shortcut: ``A``, as published: identity with zeros for the new channels; ``B``: 1 x 1 convolution where the
            shape changes.
        width: Filters of ``layer1``.
    """

    any_size = True
    depth: ClassVar[int]

    def __init__(
        self,
        input_shape: tuple[int, ...],
        shortcut: Literal["A", "B"] = "A",
        width: int = 16,
        **kwargs: Options[Ending],
    ) -> None:
        check_choice("shortcut", shortcut, ("A", "B"))
        check_positive("width", width)
        channels, _, _ = check_image_shape(type(self).__name__, input_shape)
        conv = _conv3x3(channels, width)
        stages: dict[str, nn.Module] = {"conv1": Layer({"conv": conv, "norm": nn.BatchNorm2d(width), "act": nn.ReLU()})}
        stages |= _three_groups(width, width, (self.depth - 2) // 6, partial(BasicBlock, option=shortcut))
        super().__init__(input_shape, 4 * width, {**stages, "pool": _global_pool()}, **kwargs)
        initialize(self, "he")


class ResNet32(_CIFARResNet):
    """The 32-layer CIFAR network of He et al. 2016a (section 4.2): 0.46 million parameters, 64 features.

    ``conv1`` (16 filters), ``layer1``, ``layer2``, ``layer3`` of five blocks with 16, 32 and 64 filters, ``pool``.
    ``layer3.4`` is the last block, ``layer3.4.relu1`` the value between its convolutions.

    Args:
        input_shape: (channels, height, width); any size.
        shortcut: ``A``, as published: identity with zeros for the new channels; ``B``: 1 x 1 convolution where the
            shape changes.
        width: Filters of ``layer1``.
    """

    depth = 32


class ResNet110(_CIFARResNet):
    """The 110-layer CIFAR network of He et al. 2016a (section 4.2): 1.7 million parameters, 64 features.

    As :class:`ResNet32`, with 18 blocks a layer. He et al. warm it up with a learning rate of 0.01 before 0.1.

    Args:
        input_shape: (channels, height, width); any size.
        shortcut: ``A``, as published: identity with zeros for the new channels; ``B``: 1 x 1 convolution where the
            shape changes.
        width: Filters of ``layer1``.
    """

    depth = 110


class WideResNet(Backbone):
    """The wide residual networks of Zagoruyko and Komodakis 2016 (table 1) for small images, WRN-``depth``-``width``.

    ``conv1`` (a bare convolution of 16 filters; the first block normalises), ``layer1``, ``layer2``, ``layer3`` of
    (depth - 4) / 6 pre-activation blocks with 16, 32 and 64 times ``width`` filters, ``norm`` (the batch normalisation
    and ReLU that end the net), ``pool``, whose 64 times ``width`` values are the features. The names within a block are
    those of :class:`PreActResNet18`. WRN-28-10 has 36.5 million parameters, WRN-16-4 2.7 million.

    Args:
        input_shape: (channels, height, width); any size.
        depth: Layers, 6 n + 4 for n blocks a group.
        width: k, by which a residual network's 16, 32 and 64 filters are multiplied.
        dropout: Share of the values between a block's convolutions set to zero in training; where the paper has some,
            it is 0.3.

    Raises:
        ConfigError: If the input is no image, or an option is out of its range.
    """

    any_size = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        depth: int = 28,
        width: int = 10,
        dropout: float = 0.0,
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("width", width)
        check_positive("depth", depth)
        check_dropout(dropout)
        if depth % 6 != 4 or depth < 10:
            raise ConfigError(f"depth is {depth}, but must be 6 n + 4 for n blocks a group: 10, 16, 22, 28, ...")
        channels, _, _ = check_image_shape("WideResNet", input_shape)
        stages: dict[str, nn.Module] = {"conv1": _conv3x3(channels, 16)}
        stages |= _three_groups(16, 16 * width, (depth - 4) // 6, partial(PreActBlock, dropout=dropout))
        previous = 64 * width
        stages["norm"] = Layer({"norm": nn.BatchNorm2d(previous), "act": nn.ReLU()})
        super().__init__(input_shape, previous, {**stages, "pool": _global_pool()}, **kwargs)
        initialize(self, "he")


class _ZeroPadShortcut(nn.Module):
    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))

    def extra_repr(self) -> str:
        return f"new_channels={self.new_channels}, stride={self.stride}"


def _conv3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)


def _three_groups(
    previous: int, width: int, count: int, block: Callable[[int, int, int], nn.Module]
) -> dict[str, nn.Module]:
    """``layer1`` to ``layer3`` of so many blocks (called with both numbers of channels and the stride) behind others.

    They have ``width``, twice and four times as many filters; the second and the third begin with stride 2.
    """
    groups: dict[str, nn.Module] = {}
    for number in range(3):
        filters, first = width * 2**number, 1 if number == 0 else 2
        blocks = [block(previous, filters, first)]
        blocks += [block(filters, filters, 1) for _ in range(count - 1)]
        groups[f"layer{number + 1}"] = _group(blocks)
        previous = filters
    return groups


def _group(blocks: Iterable[nn.Module]) -> Chain:
    return Chain({str(position): block for position, block in enumerate(blocks)})


def _global_pool() -> Layer:
    return Layer({"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})
