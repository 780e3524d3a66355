"""A regularizer inside any LightningModule, without a change to its code."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_repshape.callbacks.added_term import AddedTerm
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.last_layer import known_num_classes
from lightning_repshape.regularizers import Regularizer, WeightRegularizer


class LayerPenalty(AddedTerm):
    """Adds a penalty on a layer's output to the training of any module: the gradient is that of loss + penalty.

    A forward hook hands the layer's output on unchanged, and its backward pass starts the penalty's own: it receives
    what the loss's gradient is multiplied by (the loss scale of 16-bit mixed precision, one over the accumulated
    batches). The result equals adding the term to the loss, to the last bits.

    A layer that is called several times in a step has a penalty on each call's output; a penalty on weights counts
    once. One backward pass starts a penalty: the first that Lightning runs (``manual_backward`` under manual
    optimization) and that reaches the call. ``torch.autograd.grad`` and a second pass over the same graph add nothing.
    Networks may be compiled, before the fit or in it, without ``fullgraph``: the penalty runs between compiled parts.

    The penalty is logged every ``log_every_n_steps`` steps, in shorter epochs at their end: weighted as
    ``train/<regularizer>/<layer>``, and raw, with ``_raw`` behind. The second penalty of one class on one layer has
    ``_2`` behind the layer, and so on.

    Args:
        layer: Name of a submodule, as in ``named_modules``.
        regularizer: What is added; its ``weight`` and warm-up count, its own ``layer`` is replaced by that of the hook.
            With ``scope="all"``, penalties on weights cover the whole module.
        unpack: Positions or keys of inputs and labels in a batch; penalties without classes need no labels. Labels are
            N integers or N x K memberships.
        num_classes: Number of classes. Default: the regularizer's, the module's or the data module's attribute
            ``num_classes``, the first that is not None.
        accumulate: Under manual optimization, the batches whose losses the module averages before a step; automatic
            optimization tells by itself.

    Raises:
        ConfigError: If ``regularizer`` is none; at the start of training, if there is no such layer.

    Example:
        >>> from lightning_repshape import ClasswiseVariance
        >>> penalty = LayerPenalty("encoder.fc", ClasswiseVariance(weight=0.1))
    """

    def __init__(
        self,
        layer: str,
        regularizer: Regularizer,
        unpack: tuple[int | str, int | str] = (0, 1),
        num_classes: int | None = None,
        accumulate: int = 1,
    ) -> None:
        super().__init__(layer, unpack, accumulate)
        if not isinstance(regularizer, Regularizer):
            kind = type(regularizer).__name__
            raise ConfigError(f"LayerPenalty needs a regularizer, such as ClasswiseVariance(weight=0.1); got {kind}")
        self.regularizer = regularizer
        self.num_classes = num_classes
        self._name = layer
        self._classes: int | None = None
        self._weights: list[Tensor] | None = None
        self._key = ""

    @property
    def state_key(self) -> str:
        """One name a layer and regularizer."""
        return f"LayerPenalty[{type(self.regularizer).__name__}, {self.layer}]"

    @property
    def once(self) -> bool:
        """Whether the penalty is on weights, which several calls of the layer share."""
        return isinstance(self.regularizer, WeightRegularizer)

    @property
    def needs_labels(self) -> bool:
        """Whether the regularizer depends on labels."""
        return self.regularizer.needs_labels

    def prepare(self, trainer: Trainer, pl_module: LightningModule, name: str, layer: nn.Module) -> None:
        """Finds the number of classes and, for penalties on weights, the weights."""
        own = getattr(self.regularizer, "num_classes", None)
        self._classes = known_num_classes(trainer, pl_module, self.num_classes, own)
        if self.needs_labels and self._classes is None:
            raise ConfigError(
                f"LayerPenalty: {type(self.regularizer).__name__} needs the number of classes, and neither the "
                "regularizer nor the module nor the data module has num_classes; give it to the callback"
            )
        self.regularizer.to(pl_module.device)
        self._weights, self._name = None, name
        if isinstance(self.regularizer, WeightRegularizer):
            try:
                self._weights = self.regularizer.weights_of(pl_module if self.regularizer.scope == "all" else layer)
            except ConfigError as error:
                raise ConfigError(f"LayerPenalty on layer {name!r}: {error}") from error
        self._key = f"{type(self.regularizer).__name__}/{name}"
        number = 1
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if other is self:
                break
            number += isinstance(other, LayerPenalty) and other.state_key == self.state_key
        if number > 1:
            self._key += f"_{number}"

    def term(
        self, pl_module: LightningModule, layer: nn.Module, args: tuple[Any, ...], output: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The penalty of a batch."""
        self.regularizer.layer = self._name  # what its messages speak of
        if self._weights is not None:
            penalty, raw = self.regularizer.weighted_and_raw(self._weights, epoch=self._epochs_done)
        else:
            penalty, raw = self.regularizer.weighted_and_raw(output, labels, self._classes, epoch=self._epochs_done)
        return penalty, {self._key: penalty, f"{self._key}_raw": raw}
