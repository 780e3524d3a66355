"""The contract of backbones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.layers import NamedActivations, Tap, check_positive, linear_layer

__all__ = ["Backbone", "Ending", "Neck", "Options", "check_image_shape", "describe"]

if TYPE_CHECKING:
    from typing import Unpack as Options
else:

    class Options:
        """``**kwargs: Options[Ending]`` is ``Unpack[Ending]`` for a type checker, and ``Any`` when the program runs.

        jsonargparse shows the keys of an unpacked TypedDict without their defaults, and leaves them out of
        ``--print_config`` and of saved configs. Without Unpack it follows ``**kwargs`` to the base class's constructor,
        which declares each option once: its default, and what it means.
        """

        def __class_getitem__(cls, keys: type) -> object:
            """What stands for the keys when the program runs."""
            return Any


@dataclass(frozen=True)
class Neck:
    """Layers that end a network in features whose scale batch normalisation holds, as FOCA's later code has them.

    ``neck1``, ``neck2``, ...: each a linear map without bias, batch normalisation and ReLU.

    Attributes:
        widths: Units of the layers; the last one's values are the features. The authors: (128, 128).

    Raises:
        ConfigError: If there is no layer, or a width is below 1.
    """

    widths: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        """Checks the widths."""
        object.__setattr__(self, "widths", tuple(self.widths))
        if not self.widths:
            raise ConfigError("a neck needs a layer: neck.widths=[128, 128], or neck=null for none")
        check_positive("neck.widths", *self.widths)

    def stages(self, num_features: int) -> dict[str, nn.Module]:
        """The layers by name, behind ``num_features`` features."""
        sizes = (num_features, *self.widths)
        pairs = zip(sizes[:-1], self.widths, strict=True)
        return {f"neck{number}": linear_layer(*pair, batch_norm=True) for number, pair in enumerate(pairs, start=1)}


class Ending(TypedDict, total=False):
    """Options that all networks share, how they end; see :class:`Backbone`."""

    neck: Neck | None


class Backbone(NamedActivations):
    """A network from inputs to features: the class that all backbones share.

    The first constructor argument of every backbone is ``input_shape``; a config gives the others alone, and the module
    calls the backbone with the data's shape. A shape that is no image or too small for the network, or an option out of
    its range, is a :class:`ConfigError`. A backbone is a chain of named stages; one that is no chain overrides
    ``forward`` (which calls ``tap(name, value)`` for every value it names), ``inner_names`` and ``output_name``.

    Args:
        input_shape: Shape of one input, such as (channels, height, width).
        num_features: Width of the features.
        stages: The modules by name, in forward order; the last one returns N x ``num_features``.
        neck: Layers behind them, whose last width is the network's ``num_features`` then. None: none.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_repshape.networks import Backbone
        >>> stages = {"conv": nn.Conv2d(1, 4, 3), "pool": nn.AdaptiveMaxPool2d(1), "flat": nn.Flatten()}
        >>> backbone = Backbone((1, 8, 8), 4, stages)
        >>> features, activations = backbone.forward_activations(torch.zeros(2, 1, 8, 8), ["conv"])
        >>> features.shape, activations["conv"].shape
        (torch.Size([2, 4]), torch.Size([2, 4, 6, 6]))
    """

    #: Whether other heights and widths than those of ``input_shape`` give as many features (global pooling does).
    any_size: bool = False

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_features: int,
        stages: Mapping[str, nn.Module],
        neck: Neck | None = None,
    ) -> None:
        super().__init__({**stages, **(neck.stages(num_features) if neck else {})})
        self.input_shape = tuple(input_shape)
        self.neck = neck
        self.num_features = neck.widths[-1] if neck else num_features

    def forward(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """N x ``input_shape`` to N x ``num_features``; :meth:`forward_activations` is the way to values from within.

        Raises:
            ConfigError: If the batch has another shape than the network was built for.
        """
        if isinstance(x, Tensor):  # a tracer's stand-in has no shape to compare
            self._check_batch(x)
        return super().forward(x, tap)

    def _check_batch(self, x: Tensor) -> None:
        shape, expected = tuple(x.shape[1:]), self.input_shape
        if shape != expected and (not self.any_size or len(shape) != len(expected) or shape[0] != expected[0]):
            raise ConfigError(
                f"{type(self).__name__} was built for inputs of {describe(expected)} and got a batch of "
                f"{describe(shape)}: build it with input_shape={shape}, or resize or convert the data"
            )


def describe(shape: Sequence[int]) -> str:
    """A shape for messages: ``3 x 32 x 32``."""
    return " x ".join(str(size) for size in shape) or "no dimensions"


def check_image_shape(network: str, input_shape: Sequence[int], smallest: int = 1) -> tuple[int, int, int]:
    """Channels, height, width; raises ConfigError unless they are three positive numbers and no side is too small."""
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ConfigError(
            f"{network} takes images, input_shape=(channels, height, width), not {tuple(input_shape)}; "
            "MLP takes any shape"
        )
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ConfigError(
            f"{network} takes images of at least {smallest} x {smallest} pixels, not {height} x {width}: "
            "resize the images, or take a network for small ones (MLP takes any)"
        )
    return channels, height, width
