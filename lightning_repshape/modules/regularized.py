"""Joint training with penalties on the representations of named layers (Choi and Rhee, AAAI 2019)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.heads import LinearHead
from lightning_repshape.modules.base import BackboneCallable, HeadCallable, ModelOutput
from lightning_repshape.modules.supervised import SupervisedModule
from lightning_repshape.regularizers import L1Weight, L2Weight, Regularizer


class Penalties:
    """Any number of penalties beside a loss: what they read, what they add, and the terms to log.

    The module that owns them registers the regularizers as submodules, so that they follow its training mode.

    Args:
        regularizers: The penalties.
        check_activation: Called with the layer of each penalty; raises where it does not exist.
        find_layer: Called with the layer of each penalty on weights; gives the module that holds them.
        whole: The network that penalties with ``scope="all"`` cover.

    Raises:
        ConfigError: If a layer does not exist, or has no weights where a penalty needs some.
    """

    def __init__(
        self,
        regularizers: Sequence[Regularizer],
        check_activation: Callable[[str], str],
        find_layer: Callable[[str], nn.Module],
        whole: nn.Module,
    ) -> None:
        self.regularizers = tuple(regularizers)
        self.weights: dict[int, list[Tensor]] = {}
        names = [f"{type(term).__name__}/{term.layer}" for term in self.regularizers]
        # the second penalty of one class on one layer has _2 behind, and so on
        counts = [names[: number + 1].count(name) for number, name in enumerate(names)]
        self.names = tuple(name if count == 1 else f"{name}_{count}" for name, count in zip(names, counts, strict=True))
        for number, regularizer in enumerate(self.regularizers):
            check_activation(regularizer.layer)
            if isinstance(regularizer, L1Weight | L2Weight):
                layer = whole if regularizer.scope == "all" else find_layer(regularizer.layer)
                self.weights[number] = regularizer.weights_of(layer)

    @property
    def layers(self) -> tuple[str, ...]:
        """The activations that the penalties read, each once."""
        return tuple(dict.fromkeys(term.layer for term in self.regularizers if not term.of_weights))

    def add_to(
        self, loss: Tensor, activations: Mapping[str, Tensor], target: Tensor, num_classes: int, epoch: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss plus the penalties.

        Args:
            loss: Scalar.
            activations: The activations of :attr:`layers`, by name.
            target: N class indices.
            num_classes: Number of classes K, of penalties without one of their own.
            epoch: Epochs done so far, for warm-ups.

        Returns:
            The sum, and the terms by name: ``<regularizer>/<layer>`` weighted and, with ``_raw`` behind, without
            weight; ``_2`` stands behind the layer of the second penalty of one class on it.
        """
        terms: dict[str, Tensor] = {}
        for number, regularizer in enumerate(self.regularizers):
            if number in self.weights:
                term, raw = regularizer.weighted_and_raw(self.weights[number], epoch=epoch)
            else:
                own = getattr(regularizer, "num_classes", None)
                classes = num_classes if own is None else own
                term, raw = regularizer.weighted_and_raw(activations[regularizer.layer], target, classes, epoch=epoch)
            loss = loss + term
            terms[self.names[number]] = term
            terms[f"{self.names[number]}_raw"] = raw
        return loss, terms


def listed(regularizers: Sequence[Regularizer]) -> tuple[Regularizer, ...]:
    """A list of penalties, looked at.

    Args:
        regularizers: What should be one.

    Returns:
        The penalties.

    Raises:
        ConfigError: If it is no list, or something else stands in it.
    """
    if not isinstance(regularizers, Sequence) or not all(isinstance(term, Regularizer) for term in regularizers):
        raise ConfigError(f"regularizers must be a list of penalties, such as ClasswiseVariance; got {regularizers!r}")
    return tuple(regularizers)


def layer_of(owner: nn.Module, path: str) -> nn.Module:
    """The part of a network whose weights compute an activation, for penalties on them.

    Args:
        owner: The network.
        path: The activation's path within it.

    Returns:
        The part of that path; where it holds no weights, as a pool or an activation function, the last one before it
        that does.

    Raises:
        ConfigError: If there is none; the message has the nearest paths.
    """
    parts: dict[str, nn.Module] = dict(owner.named_modules())
    holders = [name for name, part in parts.items() if any(p.ndim >= 2 for p in part.parameters(recurse=False))]
    if path not in parts:
        raise ConfigError(f"no layer {path!r} holds weights{did_you_mean(path, holders)}")
    if any(p.ndim >= 2 for p in parts[path].parameters()):
        return parts[path]
    order = list(parts)
    before = [name for name in holders if order.index(name) < order.index(path)]
    if not before:
        raise ConfigError(f"no layer at {path!r} or before it holds weights{did_you_mean(path, holders)}")
    return parts[before[-1]]


def epochs_done(module: LightningModule, batch_idx: int) -> float:
    """How far the training is, in epochs.

    Args:
        module: The module that is trained.
        batch_idx: Number of the batch within the epoch.

    Returns:
        Whole epochs and the share of the present one.
    """
    # the number of batches is infinite where the data have no length
    return module.current_epoch + batch_idx / max(1, module.trainer.num_training_batches)


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
        classification_loss: Softmax cross entropy, or the squared loss.
        label_smoothing: Share of the target spread evenly over the classes; cross entropy only.
        optimizer: Called with the trainable parameters.
        lr_scheduler: Called with the optimizer. Default: none.
        lr_scheduler_interval: Whether the scheduler steps once an epoch or once an optimizer step.
        statistics_layer: The activation whose class-wise variance is reported at validation and test. Default: the
            layer of the first regularizer.
        channels_last: Whether convolutional weights lie channels-last in memory.

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
        classification_loss: Literal["cross_entropy", "squared"] = "cross_entropy",
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        statistics_layer: str | None = None,
        channels_last: bool = True,
    ) -> None:
        regularizers = listed(regularizers)
        super().__init__(
            num_classes=num_classes,
            input_shape=input_shape,
            backbone=backbone,
            head=head,
            classification_loss=classification_loss,
            label_smoothing=label_smoothing,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_scheduler_interval=lr_scheduler_interval,
            statistics_layer=statistics_layer or (regularizers[0].layer if regularizers else "features"),
            channels_last=channels_last,
        )
        self.regularizers = nn.ModuleList(regularizers)
        self._penalties = Penalties(regularizers, self.check_activation_name, self._layer_of_weights, self)
        self._epochs_done = 0.0

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

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """One training step; see :class:`ClassifierModule`.

        Args:
            batch: Inputs and class indices.
            batch_idx: Number of the batch within the epoch.

        Returns:
            The loss.
        """
        self._epochs_done = epochs_done(self, batch_idx)
        return super().training_step(batch, batch_idx)

    def loss(self, output: ModelOutput, target: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Classification loss plus penalties.

        Args:
            output: Logits, features and the regularized activations.
            target: N class indices.

        Returns:
            The sum, and the terms by name.
        """
        classification = self.classification_loss(output.logits, target)
        total, terms = self._penalties.add_to(
            classification, output.activations, target, self.num_classes, self._epochs_done
        )
        return total, {"classification_loss": classification, **terms}
