"""A regularizer inside any LightningModule, without a change to its code."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_repshape.callbacks.added_term import AddedTerm
from lightning_repshape.errors import ConfigError
from lightning_repshape.regularizers import L1Weight, L2Weight, Regularizer


class LayerPenalty(AddedTerm):
    """Adds a penalty on a layer's output to the training of any module: the gradient is that of loss + penalty.

    A forward hook hands the layer's output on unchanged, and its backward pass starts the penalty's own: it receives
    what the loss's gradient is multiplied by (the loss scale of 16-bit mixed precision, one over the accumulated
    batches). The result equals adding the term to the loss, to the last bits. Compiled modules run no hooks: use
    :class:`lightning_repshape.modules.RegularizedModule`, or compile other parts.

    The penalty is logged as ``train/<regularizer>/<layer>`` every ``log_every_n_steps`` steps.

    Args:
        layer: Name of a submodule, as in ``named_modules``.
        regularizer: What is added; its ``weight`` and warm-up count, its own ``layer`` does not.
        unpack: Positions or keys of inputs and labels in a batch.
        num_classes: Number of classes. Default: the module's or the data module's attribute ``num_classes``.
        accumulate: Under manual optimization, the batches whose losses the module averages before a step; automatic
            optimization tells by itself.

    Raises:
        ConfigError: At the start of training, if there is no such layer.

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
        self.regularizer = regularizer
        self.num_classes = num_classes
        self._weights: list[Tensor] | None = None

    @property
    def state_key(self) -> str:
        """One name a layer and regularizer."""
        return f"LayerPenalty[{type(self.regularizer).__name__}, {self.layer}]"

    def prepare(self, trainer: Trainer, pl_module: LightningModule, name: str, layer: nn.Module) -> None:
        """Finds the number of classes and, for penalties on weights, the weights.

        Args:
            trainer: The trainer.
            pl_module: The module.
            name: The layer's name.
            layer: The layer.

        Raises:
            ConfigError: If the number of classes is needed and unknown.
        """
        if self.num_classes is None:
            data = getattr(trainer, "datamodule", None)
            self.num_classes = getattr(pl_module, "num_classes", getattr(data, "num_classes", None))
        if self.regularizer.needs_labels and self.num_classes is None:
            raise ConfigError(
                f"LayerPenalty: {type(self.regularizer).__name__} needs the number of classes, and neither the module "
                "nor the data module has num_classes; give it to the callback"
            )
        self.regularizer.to(pl_module.device)
        of_weights = isinstance(self.regularizer, L1Weight | L2Weight)
        self._weights = L1Weight.weights_of(layer) if of_weights else None

    def term(
        self, pl_module: LightningModule, layer: nn.Module, args: tuple[Any, ...], output: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The penalty of a batch; see :meth:`AddedTerm.term`.

        Args:
            pl_module: The module.
            layer: The hooked layer.
            args: What it was called with.
            output: What it returned.
            labels: N class indices.

        Returns:
            The penalty, and the same to log.
        """
        if self._weights is not None:
            penalty = self.regularizer(self._weights, epoch=self._epochs_done)
        else:
            known = labels if self.regularizer.needs_labels else None
            penalty = self.regularizer(output, known, self.num_classes, epoch=self._epochs_done)
        return penalty, {f"{type(self.regularizer).__name__}/{self.layer}": penalty}
