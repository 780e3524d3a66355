"""A small residual network for short trainings on small images, whose first layer is computed from them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError
from lightning_repshape.layers import Chain, Layer, Tap, check_positive, initialize
from lightning_repshape.networks.base import Backbone, Ending, Options, check_image_shape


class QuickNet(Backbone):
    """A network that learns CIFAR-10 in few epochs, of our design, after ideas of Page 2018 and Jordan 2024.

    ``whiten``: 2 x 2 convolution with GELU, whose filters are the principal directions of the images' patches, each
    scaled to unit variance, and their negatives; they are computed once from training images and never trained.
    ``block1``, ``block2``, ``block3``: 3 x 3 convolution, 2 x 2 max pool, batch normalisation and GELU, and behind it
    residual convolutions of the same width with batch normalisation and GELU. ``pool``: an eighth of the largest value
    at any position, so that a head bears the blocks' large learning rate; these ``widths[-1]`` values are the features.
    ``block2.0`` is the value before a block's residual convolutions.

    The package's modules call :meth:`fit_inputs` before a training's first step, and checkpoints keep the filters; a
    training loop of one's own calls it with some normalised images. Until then the filters are random.

    Args:
        input_shape: (channels, height, width), at least 9 x 9 pixels.
        widths: Filters of the three blocks.
        depths: Convolutions of the three blocks.

    Raises:
        ConfigError: If the input is no image or too small, or an option is out of its range.

    Example:
        >>> net = QuickNet((3, 32, 32))
        >>> net.activation_names
        ('whiten', 'block1', 'block2.0', 'block2', 'block3.0', 'block3', 'pool')
        >>> net.fit_inputs(torch.randn(8, 3, 32, 32))
    """

    any_size = True
    whitened: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        widths: Sequence[int] = (32, 96, 192),
        depths: Sequence[int] = (1, 2, 2),
        **kwargs: Options[Ending],
    ) -> None:
        for option, values in (("widths", widths), ("depths", depths)):
            check_positive(option, *values)
            if len(values) != 3:
                raise ConfigError(f"QuickNet has three blocks, so {option} takes three numbers, not {len(values)}")
        channels, _, _ = check_image_shape("QuickNet", input_shape, smallest=9)
        filters = 2 * channels * 2**2
        conv = nn.Conv2d(channels, filters, 2, bias=False)
        stages: dict[str, nn.Module] = {"whiten": Layer({"conv": conv, "act": nn.GELU()})}
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            stages[f"block{number}"] = _block(filters, width, depth)
            filters = width
        stages["pool"] = Layer({"pool": nn.AdaptiveMaxPool2d(1), "flatten": nn.Flatten(), "scale": _Eighth()})
        super().__init__(input_shape, filters, stages, **kwargs)
        initialize(self, "he")
        conv.requires_grad_(False)
        self.register_buffer("whitened", torch.zeros((), dtype=torch.bool))

    @property
    def inputs_wanted(self) -> int:
        """Images of 512,000 pixels in all, such as 500 of CIFAR-10, until the filters of ``whiten`` are computed."""
        _, height, width = self.input_shape
        return 0 if bool(self.whitened) else max(16, 512_000 // (height * width))

    @torch.no_grad()
    def fit_inputs(self, x: Tensor) -> None:
        """Computes the filters of ``whiten`` from the patches of images N x C x H x W.

        With E[p p'] = V diag(l) V' of all patches p, they are the columns of V diag(l + 5e-4 mean(l))^(-1/2), the
        largest l first, and then their negatives.
        """
        weight = self.get_parameter("whiten.conv.weight")
        patches = F.unfold(x.double(), 2).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4 * values.mean()).clamp_min(1e-12).sqrt()).T.flip(0)
        weight.copy_(torch.cat([filters, -filters]).view_as(weight))
        self.whitened.fill_(True)


class _Residual(Layer):
    """A layer whose output is its input plus what its steps make of it."""

    def forward(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        return x + super().forward(x, tap)


class _Eighth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 8


def _block(in_channels: int, width: int, depth: int) -> Chain:
    steps: dict[str, nn.Module] = {"0": Layer(_steps(in_channels, width, nn.MaxPool2d(2)))}
    return Chain(steps | {str(number): _Residual(_steps(width, width)) for number in range(1, depth)})


def _steps(in_channels: int, width: int, pool: nn.Module | None = None) -> dict[str, nn.Module]:
    conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
    pooled: dict[str, nn.Module] = {} if pool is None else {"pool": pool}
    return {"conv": conv, **pooled, "norm": nn.BatchNorm2d(width), "act": nn.GELU()}
