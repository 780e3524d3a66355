"""The contract of backbones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypedDict

from torch import Tensor, nn

from lightning_repshape.errors import ConfigError, did_you_mean
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
    """Options that all networks share, how they end and what of them is trained; see :class:`Backbone`."""

    neck: Neck | None
    frozen: bool
    trainable: tuple[str, ...]


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
        frozen: Whether the stages stay as they are: no gradients, and evaluation mode in training, too, so that batch
            normalisation keeps its statistics and nothing is dropped. A neck is trained all the same.
        trainable: Of a frozen network, the activations or parts that are trained, such as ``layer4``, with all that is
            within them.

    Raises:
        ConfigError: If there is no part named in ``trainable``, or the network is not frozen.

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
    #: What stands before the name of an activation in the path of its module.
    path_prefix: str = ""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_features: int,
        stages: Mapping[str, nn.Module],
        neck: Neck | None = None,
        frozen: bool = False,
        trainable: tuple[str, ...] = (),
    ) -> None:
        ending = neck.stages(num_features) if neck else {}
        super().__init__({**stages, **ending})
        self.input_shape = tuple(input_shape)
        self.neck = neck
        self.num_features = neck.widths[-1] if neck else num_features
        self.frozen = frozen
        if trainable and not frozen:
            raise ConfigError(
                f"trainable={list(trainable)} says what of a frozen network is trained: set frozen to true"
            )
        self._trained = (*ending, *(self._path_of(name) for name in trainable))
        if frozen:
            for stage in stages:
                self.get_submodule(stage).requires_grad_(False)
            for path in self._trained:
                self.get_submodule(path).requires_grad_(True)
            self.train()

    def train(self, mode: bool = True) -> Self:
        """Sets the mode, training or evaluation; what is frozen stays in evaluation mode."""
        super().train(mode)
        if mode and self.frozen:
            trained = {part for path in self._trained for part in self.get_submodule(path).modules()}
            for part in self.modules():
                part.training = part in trained
        return self

    def forward(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """N x ``input_shape`` to N x ``num_features``; :meth:`forward_activations` is the way to values from within.

        Raises:
            ConfigError: If the batch has another shape than the network was built for.
        """
        if isinstance(x, Tensor):  # a tracer's stand-in has no shape to compare
            self._check_batch(x)
        return super().forward(x, tap)

    @property
    def inputs_wanted(self) -> int:
        """How many training inputs :meth:`fit_inputs` takes before a training's first step. Default: 0, none."""
        return 0

    def fit_inputs(self, x: Tensor) -> None:
        """Computes weights from training inputs N x ``input_shape``, for networks that begin so; checkpoints keep them.

        The inputs are drawn by a fixed seed, normalised and not augmented, and the same on every rank.
        """

    def _path_of(self, name: str) -> str:
        """The path of a part, by its activation's name or its own."""
        parts: dict[str, nn.Module] = dict(self.named_modules())
        for path in (self.path_prefix + name, name):
            if path and path in parts:
                if next(parts[path].parameters(), None) is None:
                    raise ConfigError(f"trainable: {name!r} of {type(self).__name__} has nothing to train")
                return path
        known = [path.removeprefix(self.path_prefix) for path, part in parts.items() if path]
        raise ConfigError(f"trainable: {type(self).__name__} has no part {name!r}{did_you_mean(name, known)}")

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
