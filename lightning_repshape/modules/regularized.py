"""Joint training with penalties on the representations of named layers (Choi and Rhee, AAAI 2019)."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.heads import LinearHead
from lightning_repshape.modules.base import BackboneCallable, HeadCallable, ModelOutput
from lightning_repshape.modules.options import Options
from lightning_repshape.modules.penalties import Penalties, epochs_done, layer_of, listed
from lightning_repshape.modules.supervised import LossOptions, SupervisedModule
from lightning_repshape.regularizers import Regularizer


class RegularizedModule(SupervisedModule):
    """A classifier whose loss has any number of penalties on activations or weights of named layers.

    The loss is J + sum of weight * Omega(z), z the activation of the regularizer's ``layer``: one of the backbone's
    names (``fc5``, ``layer1.0.relu1``), ``features``, ``head.<name>`` or ``logits``. ``L1Weight`` and ``L2Weight``
    penalise the weights of the layer that computes the activation (of what has no weights, such as a pool, those of
    the last layer before it that has), or all weights (``scope: all``). Each term is logged every
    ``log_every_n_steps`` steps, in shorter epochs at their end: weighted, as ``train/<regularizer>/<layer>``, and raw,
    with ``_raw`` behind; of the second penalty of one class on one layer, ``_2`` stands behind the layer.

    Args:
        num_classes: Number of classes K. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, (C, H, W). Linked to ``data.input_shape`` on the command line.
        backbone: Called with ``input_shape``; gives the feature extractor.
        regularizers: The penalties.
        head: Called with the number of features and ``num_classes``; gives the head.
        **kwargs: The options of :class:`SupervisedModule`.

    Raises:
        ConfigError: If a regularizer's layer does not exist, or has no weights where it needs some.

    Example:
        >>> from lightning_repshape.networks import MLP
        >>> from lightning_repshape.regularizers import ClasswiseVariance
        >>> module = RegularizedModule(10, (1, 28, 28), MLP, [ClasswiseVariance(weight=1.0, layer="fc5")])
        >>> module.training_activations()
        ('fc5',)
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        backbone: BackboneCallable,
        regularizers: Sequence[Regularizer],
        head: HeadCallable = LinearHead,
        **kwargs: Options[LossOptions],
    ) -> None:
        regularizers = listed(regularizers)
        super().__init__(num_classes=num_classes, input_shape=input_shape, backbone=backbone, head=head, **kwargs)
        if regularizers and kwargs.get("statistics_layer") is None:
            self.statistics_layer = self.check_activation_name(regularizers[0].layer)
        self.regularizers = nn.ModuleList(regularizers)
        self._penalties = Penalties(regularizers, self.check_activation_name, self._layer_of_weights, self)
        self._epochs_done = 0.0
        if regularizers and next((p for p in self.backbone.parameters() if p.requires_grad), None) is None:
            for layer in self._penalties.layers:
                if layer != "logits" and not layer.startswith("head."):
                    raise ConfigError(
                        f"a penalty on {layer!r} moves nothing, since no weights of the backbone are trained: set "
                        "backbone.frozen to false, name parts of it in backbone.trainable, or penalise a layer of the "
                        "head"
                    )

    def _layer_of_weights(self, layer: str) -> nn.Module:
        """The part that computes an activation."""
        name = self.check_activation_name(layer)
        if name == "logits":
            return self.head
        if name == "features":
            names = tuple(getattr(self.backbone, "activation_names", ()))
            name = names[-1] if names else name
        owner, path = (self.head, name[5:]) if name.startswith("head.") else (self.backbone, name)
        return layer_of(owner, path)

    def training_activations(self) -> tuple[str, ...]:
        """The layers of the regularizers."""
        return self._penalties.layers

    def begin_step(self, batch_idx: int) -> None:
        """Notes how many epochs are done, for warm-ups."""
        self._epochs_done = epochs_done(self, batch_idx)

    def loss(self, output: ModelOutput, target: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Classification loss plus penalties, and the terms by name."""
        classification = self.classification_loss(output.logits, target)
        total, terms = self._penalties.add_to(
            classification, output.activations, target, self.num_classes, self._epochs_done
        )
        return total, {"classification_loss": classification, **terms}
