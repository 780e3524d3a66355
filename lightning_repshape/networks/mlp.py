"""The multi-layer perceptron."""

import math
from collections.abc import Sequence
from typing import Literal

from torch import nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.layers import (
    Activation,
    Init,
    check_choice,
    check_dropout,
    check_positive,
    initialize,
    linear_layer,
)
from lightning_repshape.networks.base import Backbone, Ending, Options


class MLP(Backbone):
    """Fully connected layers on the flattened input: ``fc1``, ``fc2``, ...; the last one's values are the features.

    The defaults are the MNIST network of Choi and Rhee 2019 (appendix A.2; "6-layer" counts the head): 784-100x5, with
    Glorot-uniform weights and zero biases. With ``dropout``, ``dropout1``, ``dropout2``, ... follow the layers, so
    ``fc5`` is always the value before dropout. ``fc5.linear`` is the layer before normalisation and activation.

    Args:
        input_shape: Shape of one input; any number of dimensions.
        widths: Units of the layers.
        activation: The non-linearity. FOCA's Proposition 3.2 wants a strictly monotone one: ``sigmoid`` and
            ``softplus`` are positive as well.
        activate_features: Whether the last layer is activated, too; False leaves the features linear.
        dropout: Share of the activations set to zero in training.
        batch_norm: Whether layers are batch-normalised before the activation.
        init: ``glorot`` (the paper), ``he`` or ``torch``, see :func:`lightning_repshape.layers.initialize`.
        dropout_layers: Behind which layers ``dropout`` stands: ``all`` of them, or the ``last`` one.
        batch_norm_layers: Which layers ``batch_norm`` normalises, likewise.

    Example:
        >>> MLP((1, 28, 28), widths=(400, 200)).activation_names
        ('fc1', 'fc2')
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        widths: Sequence[int] = (100, 100, 100, 100, 100),
        activation: Activation = "relu",
        activate_features: bool = True,
        dropout: float = 0.0,
        batch_norm: bool = False,
        init: Init = "glorot",
        dropout_layers: Literal["all", "last"] = "all",
        batch_norm_layers: Literal["all", "last"] = "all",
        **kwargs: Options[Ending],
    ) -> None:
        check_positive("input_shape", *input_shape)
        check_positive("widths", *widths)
        check_dropout(dropout)
        check_choice("dropout_layers", dropout_layers, ("all", "last"))
        check_choice("batch_norm_layers", batch_norm_layers, ("all", "last"))
        if not input_shape or not widths:
            raise ConfigError("MLP needs at least one input dimension and one layer: widths=[100] is the smallest way")
        stages: dict[str, nn.Module] = {}
        width = math.prod(input_shape)
        for number, out in enumerate(widths, start=1):
            last = number == len(widths)
            activated = activate_features or not last
            normalised = batch_norm and (last or batch_norm_layers == "all")
            stages[f"fc{number}"] = linear_layer(width, out, activation if activated else None, normalised)
            if dropout > 0 and (last or dropout_layers == "all"):
                stages[f"dropout{number}"] = nn.Dropout(dropout)
            width = out
        super().__init__(input_shape, width, stages, **kwargs)
        initialize(self, init)
