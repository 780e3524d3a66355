"""Joint training with feed-backward reconstruction and any classification loss (Yu and Oh)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.features.last_layer import entrance
from lightning_repshape.functional.reconstruction import (
    dependent_class_vectors,
    orthonormal_class_vectors,
    weight_separability,
)
from lightning_repshape.heads import LinearHead
from lightning_repshape.losses import ClassificationLoss, FeedBackwardReconstruction, LossCallable
from lightning_repshape.metrics.classification import ClassificationSums
from lightning_repshape.metrics.separability import too_few_features
from lightning_repshape.modules.base import BackboneCallable, HeadCallable, ModelOutput
from lightning_repshape.modules.options import Options, Shared
from lightning_repshape.modules.penalties import Penalties
from lightning_repshape.modules.regularized import RegularizedModule
from lightning_repshape.regularizers import Regularizer


class SmoothingOptions(Shared, total=False):
    """The smoothing of a :class:`SupervisedModule`, and what all modules share."""

    label_smoothing: float


class FeedBackwardModule(RegularizedModule):
    """A classifier whose loss has the feed-backward reconstruction term: L_cls + lambda L_re (Eq. 10).

    L_re = KL(softmax(alpha) || softmax(w_y)) averaged over the batch, alpha the input of the head's last linear layer
    (the backbone's features with :class:`~lightning_repshape.heads.LinearHead`), w_y the label's row of its weight; the
    bias takes no part. L_cls is any of :mod:`lightning_repshape.losses`, and regularizers may come on top.

    Logged every ``log_every_n_steps`` steps, as ``train/...``: ``classification_loss``, the further part of a loss such
    as ``CenterLoss``, ``feed_backward`` (weighted) and ``feed_backward_raw``; at validation and test
    ``weight_separability``, e(W), and ``weight_separability_unit``, that of class vectors of unit length; a warning
    says where there are no more features than classes. ``val/loss`` is the cross entropy of the logits that predict,
    without margins and further terms.

    Args:
        num_classes: Number of classes K. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, (C, H, W). Linked to ``data.input_shape`` on the command line.
        backbone: Called with ``input_shape``; gives the feature extractor.
        head: Called with the number of features and ``num_classes``; gives the head, whose last layer is linear.
        classification_loss: ``cross_entropy``, ``squared`` (against one-hot targets), or a loss such as ``CenterLoss``,
            called with the width of what enters the last layer and ``num_classes``.
        reconstruction_weight: lambda. Default: 0.001, the paper's; 0 leaves the term out.
        temperature: Features and class vectors are divided by it before the softmax. Default: 1, the paper's.
        stop_gradient: ``features`` lets the term move the class vectors alone, ``weight`` the features alone.
            Default: ``none``.
        last_layer: ``trained``; ``orthonormal`` fixes the class vectors to those of the QR decomposition of numbers
            from U(-1, 1), ``dependent`` to linearly dependent ones of unit length (Fig. 2); a bias is 0 then and fixed.
        last_layer_rank: How many of the ``dependent`` class vectors are linearly independent. Unpublished. Default: 2.
        regularizers: Penalties as in :class:`RegularizedModule`. Default: none.
        **kwargs: The options of :class:`SupervisedModule`.

    Raises:
        ConfigError: If the head has no last linear layer with a weight matrix, the loss cannot work with it, or an
            option is out of its range.

    Example:
        >>> from lightning_repshape.networks import LeNet
        >>> from lightning_repshape.losses import CenterLoss
        >>> module = FeedBackwardModule(10, (1, 28, 28), LeNet, classification_loss=CenterLoss)
        >>> module.training_activations()
        ('features',)
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        backbone: BackboneCallable,
        head: HeadCallable = LinearHead,
        classification_loss: Literal["cross_entropy", "squared"] | LossCallable = "cross_entropy",
        reconstruction_weight: float = 0.001,
        temperature: float = 1.0,
        stop_gradient: Literal["none", "features", "weight"] = "none",
        last_layer: Literal["trained", "orthonormal", "dependent"] = "trained",
        last_layer_rank: int = 2,
        regularizers: Sequence[Regularizer] = (),
        **kwargs: Options[SmoothingOptions],
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            input_shape=input_shape,
            backbone=backbone,
            head=head,
            regularizers=regularizers,
            classification_loss=classification_loss if isinstance(classification_loss, str) else "cross_entropy",
            **kwargs,
        )
        self.alpha_name, layer = entrance(self.head)
        self.reconstruction = FeedBackwardReconstruction(reconstruction_weight, temperature, stop_gradient)
        self.criterion: ClassificationLoss | None = None
        self._warned = False
        if not isinstance(classification_loss, str):
            self.criterion = classification_loss(layer.weight.shape[1], num_classes)
            self.criterion.check(layer.weight, layer.bias)
            computes = self.criterion.own_logits or not self.criterion.takes_bias
            if computes and type(layer).forward is not nn.Linear.forward:
                raise ConfigError(
                    f"{type(self.criterion).__name__} computes logits from features and class vectors itself, which "
                    f"{type(self.head).__name__} does in a way of its own; take LinearHead or MLPHead"
                )
        if last_layer != "trained":
            _fix(layer, last_layer, last_layer_rank, type(self.head).__name__)
            # Once more: a penalty on weights that are fixed by now is refused.
            self._penalties = Penalties(regularizers, self.check_activation_name, self._layer_of_weights, self)
        if reconstruction_weight > 0 and stop_gradient == "features" and not layer.weight.requires_grad:
            raise ConfigError(
                "stop_gradient='features' leaves the class vectors alone to move, but they are fixed: take 'none' or "
                "'weight'"
            )

    @property
    def class_vectors(self) -> Tensor:
        """The weight of the last linear layer, K x D."""
        return entrance(self.head)[1].weight

    def forward(self, x: Tensor, activations: Sequence[str] = ()) -> ModelOutput:
        """As in :class:`ClassifierModule`; the logits are those that predict, and a loss on cosines has its own."""
        if self.criterion is None or not self.criterion.own_logits:
            return super().forward(x, activations)
        output = super().forward(x, tuple(dict.fromkeys((*activations, self.alpha_name))))
        layer = entrance(self.head)[1]
        logits = self.criterion.logits(output.activations[self.alpha_name], layer.weight, layer.bias)
        values = {**output.activations, "logits": logits}
        return ModelOutput(logits, output.features, {name: values[name] for name in activations})

    def training_activations(self) -> tuple[str, ...]:
        """The layers of the regularizers, and what enters the last linear layer."""
        names = super().training_activations()
        if self.criterion is None and self.reconstruction.weight == 0:
            return names
        return tuple(dict.fromkeys((*names, self.alpha_name)))

    def loss(self, output: ModelOutput, target: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Classification loss, penalties and the reconstruction term, and the terms by name."""
        layer = entrance(self.head)[1]
        further = None
        if self.criterion is not None:
            alpha = output.activations[self.alpha_name]
            logits = self.criterion.training_logits(alpha, layer.weight, layer.bias, target, output.logits)
            output = output._replace(logits=logits)
            further = self.criterion.further(alpha, target)
        total, found = super().loss(output, target)
        terms = dict(found)
        if further is not None:
            total = total + further
            terms[type(self.criterion).__name__] = further
        if self.reconstruction.weight > 0:
            raw = self.reconstruction.value(output.activations[self.alpha_name], layer.weight, target)
            weighted = raw * self.reconstruction.weight
            total = total + weighted
            terms |= {"feed_backward": weighted, "feed_backward_raw": raw}
        return total, terms

    def end_evaluation(self, stage: str, sums: ClassificationSums, further: Mapping[str, Tensor] | None = None) -> None:
        """Logs a stage's figures, e(W) among them."""
        super().end_evaluation(stage, sums, {**self.separability_figures(), **(further or {})})

    def separability_figures(self) -> dict[str, Tensor]:
        """``weight_separability``, e(W) of the last layer, and ``weight_separability_unit``, of unit class vectors.

        Where there are no more features than classes, a warning says so at the first call.
        """
        weight = self.class_vectors.detach()
        warning = "" if self._warned else too_few_features(weight)
        if warning:
            self._warned = True
            rank_zero_warn(warning)
        return {
            "weight_separability": weight_separability(weight),
            "weight_separability_unit": weight_separability(weight, normalize=True),
        }


def _fix(layer: nn.Linear, kind: Literal["orthonormal", "dependent"], rank: int, head: str) -> None:
    classes, width = layer.weight.shape
    if not isinstance(layer.weight, nn.Parameter):
        raise ConfigError(f"last_layer={kind!r}: the class vectors of {head} are fixed already; take LinearHead")
    try:
        if kind == "orthonormal":
            vectors = orthonormal_class_vectors(classes, width)
        elif kind == "dependent":
            vectors = dependent_class_vectors(classes, width, rank)
        else:
            raise ValueError("it must be 'trained', 'orthonormal' or 'dependent'")
    except ValueError as error:
        raise ConfigError(f"last_layer={kind!r}: {error}") from error
    with torch.no_grad():
        layer.weight.copy_(vectors)
        if layer.bias is not None:
            layer.bias.zero_()
            layer.bias.requires_grad_(False)
    layer.weight.requires_grad_(False)
