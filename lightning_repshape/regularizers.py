"""Regularizers with a weight and a layer, nameable in YAML; each is a thin face of a function.

Choi and Rhee, "Utilizing Class Information for Deep Network Representation Shaping", AAAI 2019. The formulas and how
they are computed stand in :mod:`lightning_repshape.functional.regularizers`; those of others, which are compared with
them, in :mod:`lightning_repshape.functional.further_regularizers`.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, cast

import torch.distributed as dist
from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.functional.checks import check_shares
from lightning_repshape.functional.class_statistics import class_counts
from lightning_repshape.functional.further_regularizers import cw_rr, rr, supcon, vcreg
from lightning_repshape.functional.regularizers import Positions, cr, cw_cr, cw_vr, l1r, l1w, l2w, vr
from lightning_repshape.layers import check_choice, check_number, check_positive

_WATCHED_BATCHES = 10  # batches whose classes are counted before a warning


class Regularizer(nn.Module, ABC):
    """What all regularizers share: weight, layer and warm-up. An option without meaning is a :class:`ConfigError`.

    Attributes:
        needs_labels: Whether the value depends on labels.
        of_weights: Whether the value is of a layer's weights rather than of its activations.
    """

    needs_labels: ClassVar[bool] = False
    of_weights: ClassVar[bool] = False

    def __init__(self, weight: float, layer: str = "features", warmup_epochs: float = 0.0) -> None:
        """Checks and keeps the options.

        Args:
            weight: Factor of the penalty in the loss, at least 0.
            layer: Name of the activations (or of the layer) that it applies to; ``features``: the backbone's output.
            warmup_epochs: The weight rises linearly from 0 over so many epochs.
        """
        super().__init__()
        name = type(self).__name__
        if not isinstance(layer, str) or not layer:
            raise ConfigError(f"{name}: layer must be the name of a layer, got {layer!r}")
        self.weight = check_number(f"{name}: weight", weight)
        self.layer = layer
        self.warmup_epochs = check_number(f"{name}: warmup_epochs", warmup_epochs)

    def weight_at(self, epoch: float | None = None) -> float:
        """The weight after so many epochs (fractions too): ``weight * min(1, epoch / warmup_epochs)``; None: full."""
        if epoch is None or epoch >= self.warmup_epochs:
            return self.weight
        return self.weight * max(0.0, epoch) / self.warmup_epochs

    def weighted_and_raw(self, *arguments: Any, epoch: float | None = None) -> tuple[Tensor, Tensor]:
        """The penalty to be added to a loss, and the one without weight and gradient to log, at the cost of one.

        Args:
            *arguments: What a call takes before ``epoch``; errors are as in a call.
            epoch: Epochs done so far, for the warm-up. None: the full weight.
        """
        factor = self.weight_at(epoch)
        if factor > 0:
            weighted: Tensor = self(*arguments, epoch=epoch)
            return weighted, weighted.detach() / factor
        # from a weight of 0, nothing could be told of the raw penalty
        raw = cast(Callable[..., Tensor], getattr(self, "value"))(*arguments)  # noqa: B009 - typed as Module
        return raw * 0.0, raw.detach()

    def extra_repr(self) -> str:
        """The options, for printing."""
        warmup = f", warmup_epochs={self.warmup_epochs:g}" if self.warmup_epochs else ""
        return f"weight={self.weight:g}, layer={self.layer!r}{warmup}"


class _OfActivations(Regularizer):
    """A regularizer of a layer's activations."""

    def __init__(
        self,
        weight: float,
        layer: str = "features",
        num_classes: int | None = None,
        warmup_epochs: float = 0.0,
        sync: bool = True,
        positions: Positions = "units",
    ) -> None:
        """Checks and keeps the options.

        Args:
            weight: Factor of the penalty in the loss, at least 0.
            layer: Name of the activations that it applies to; ``features``: the backbone's output.
            num_classes: The task's number of classes, for class-wise penalties; may be set later (attribute
                ``num_classes``) or given at the call.
            warmup_epochs: The weight rises linearly from 0 over so many epochs.
            sync: In training mode under an initialised ``torch.distributed``, the statistics are those of the joined
                batch of all processes, and gradients equal those of one process with that batch. All processes must
                then call the regularizer equally often. In evaluation mode processes never wait for one another.
            positions: ``"units"``: every position of a convolutional activation is a unit; ``"samples"``: positions
                count as samples of their channel.
        """
        super().__init__(weight, layer, warmup_epochs)
        name = type(self).__name__
        if num_classes is not None:
            check_positive(f"{name}: num_classes", num_classes)
        check_choice(f"{name}: positions", positions, ("units", "samples"))
        self.num_classes = num_classes
        self.sync = bool(sync)
        self.positions: Positions = positions

    def forward(
        self,
        activations: Tensor,
        labels: Tensor | None = None,
        num_classes: int | None = None,
        epoch: float | None = None,
    ) -> Tensor:
        """The penalty to be added to a loss: weight (at this epoch) times value.

        Args:
            activations: (N, I), or (N, C, H, W) and the like.
            labels: (N,) integers or (N, K) memberships; penalties without classes ignore them.
            num_classes: K; wins over the constructor's.
            epoch: Epochs done so far, for the warm-up. None: the full weight.

        Raises:
            ConfigError: If a class-wise penalty lacks labels or the number of classes, a tensor has the wrong type or
                shape, or a label is out of range.
        """
        return self._checked(activations, labels, num_classes, self.weight_at(epoch))

    def value(self, activations: Tensor, labels: Tensor | None = None, num_classes: int | None = None) -> Tensor:
        """The penalty without weight, of what a call takes before the epoch."""
        return self._checked(activations, labels, num_classes, 1.0)

    def _checked(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        try:
            return self._scaled(activations, labels, num_classes, scale)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{type(self).__name__} on layer {self.layer!r}: {error}") from error

    @abstractmethod
    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        """The function's value times a scale."""

    def _joined(self) -> bool:
        return self.sync and self.training


class _OfClasses(_OfActivations):
    """A regularizer of activations by class."""

    needs_labels: ClassVar[bool] = True

    # Of the first batches in training: how many were seen, the classes they held, and their samples, summed up.
    _watched: int = 0
    _present: float = 0.0
    _samples: float = 0.0

    def _labelled(self, labels: Tensor | None, num_classes: int | None) -> tuple[Tensor, int]:
        name = type(self).__name__
        if labels is None:
            raise ConfigError(f"{name} on layer {self.layer!r} needs labels, and got none")
        classes = self.num_classes if num_classes is None else num_classes
        if classes is None:
            raise ConfigError(
                f"{name} on layer {self.layer!r} needs the number of classes: set num_classes, or give it to the call"
            )
        if self._watched < _WATCHED_BATCHES and self.training:
            self._watch(labels, classes)
        return labels, classes

    def _watch(self, labels: Tensor, num_classes: int) -> None:
        """Counts the classes of the first batches, and warns once if most have too few samples for a variance."""
        counts = class_counts(labels, num_classes).float()
        if self._watched == 0 and labels.is_floating_point():
            try:
                check_shares(labels)
            except ValueError as error:
                warnings.warn(
                    f"{type(self).__name__} on {self.layer!r}: {error}; here a sample counts in each of its classes by "
                    "its membership",
                    stacklevel=6,
                )
        if self.sync and dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        self._watched += 1
        self._present += float((counts > 0).sum())
        self._samples += float(counts.sum())
        if self._watched == _WATCHED_BATCHES and self._samples < 2 * self._present and self.positions == "units":
            per_batch = self._samples / _WATCHED_BATCHES
            present = self._present / _WATCHED_BATCHES
            warnings.warn(
                f"{type(self).__name__} on {self.layer!r}: a batch of {per_batch:.0f} holds {present:.1f} of "
                f"{num_classes} classes on average, {per_batch / present:.1f} samples each; the variance of a single "
                "sample is 0, so the penalty does little. Use a larger batch or fewer classes a batch.",
                stacklevel=6,
            )


class Variance(_OfActivations):
    """VR: the mean over units of the variance over the batch, :func:`lightning_repshape.functional.vr`.

    Example:
        >>> Variance(0.5)(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        tensor(0.2500)
    """

    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        return vr(activations, positions=self.positions, scale=scale, sync=self._joined())


class ClasswiseVariance(_OfClasses):
    """cw-VR: the mean over classes and units of the class's variance, :func:`lightning_repshape.functional.cw_vr`.

    Example:
        >>> ClasswiseVariance(0.5, num_classes=2)(torch.tensor([[0.0], [2.0], [7.0]]), torch.tensor([0, 0, 1]))
        tensor(0.2500)
    """

    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        labels, classes = self._labelled(labels, num_classes)
        return cw_vr(activations, labels, classes, positions=self.positions, scale=scale, sync=self._joined())


class Covariance(_OfActivations):
    """CR, or DeCov: the mean over pairs of units of the squared covariance, :func:`lightning_repshape.functional.cr`.

    Example:
        >>> Covariance(0.5)(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
        tensor(2.)
    """

    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        return cr(activations, positions=self.positions, scale=scale, sync=self._joined())


class ClasswiseCovariance(_OfClasses):
    """cw-CR: the same by class, and the mean over classes, :func:`lightning_repshape.functional.cw_cr`.

    Example:
        >>> z = torch.tensor([[0.0, 0.0], [2.0, 4.0], [7.0, 9.0]])
        >>> ClasswiseCovariance(0.5, num_classes=2)(z, torch.tensor([0, 0, 1]))
        tensor(1.)
    """

    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        labels, classes = self._labelled(labels, num_classes)
        return cw_cr(activations, labels, classes, positions=self.positions, scale=scale, sync=self._joined())


class L1Representation(_OfActivations):
    """L1R: the mean of absolute activations, :func:`lightning_repshape.functional.l1r`.

    AAAI 2019 compares with it in its section on other regularizers. ``positions`` makes no difference to it.

    Example:
        >>> L1Representation(0.5)(torch.tensor([[1.0, -3.0]]))
        tensor(1.)
    """

    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        return l1r(activations, scale=scale, sync=self._joined())


class SupervisedContrastive(_OfClasses):
    """SupCon: samples of a class against all others, :func:`lightning_repshape.functional.supcon`.

    In the paper it trains the network alone, and a linear classifier follows: ``LinearHead(detach=True)`` trains one
    beside it that the network does not feel. On a head that it does feel, it is a penalty beside cross entropy.

    Args:
        weight: Factor of the penalty in the loss, at least 0.
        layer: Name of the activations that it applies to; ``features``: the backbone's output.
        temperature: t, above 0; 0.1 as in the paper.
        **kwargs: What all penalties on activations take.

    Example:
        >>> SupervisedContrastive(0.5, temperature=1.0, num_classes=2)(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1]))
        tensor(0.1044)
    """

    def __init__(self, weight: float, layer: str = "features", temperature: float = 0.1, **kwargs: Any) -> None:
        super().__init__(weight, layer, **kwargs)
        self.temperature = check_number("SupervisedContrastive: temperature", temperature, positive=True)

    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        labels, classes = self._labelled(labels, num_classes)
        options: dict[str, Any] = {"positions": self.positions, "scale": scale, "sync": self._joined()}
        return supcon(activations, labels, classes, temperature=self.temperature, **options)


class VarianceCovariance(_OfActivations):
    """VCReg: units that vary, and vary independently, :func:`lightning_repshape.functional.vcreg`.

    Args:
        weight: Factor of the penalty in the loss, at least 0.
        layer: Name of the activations that it applies to; ``features``: the backbone's output.
        ratio: Of the covariances' part to the variances', at least 0.
        **kwargs: What all penalties on activations take.

    Example:
        >>> VarianceCovariance(0.5, ratio=1.0)(torch.tensor([[0.0, 0.0], [2.0, 1.0]]))
        tensor(0.5732)
    """

    def __init__(self, weight: float, layer: str = "features", ratio: float = 0.125, **kwargs: Any) -> None:
        super().__init__(weight, layer, **kwargs)
        self.ratio = check_number("VarianceCovariance: ratio", ratio)

    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        return vcreg(activations, ratio=self.ratio, positions=self.positions, scale=scale, sync=self._joined())


class StableRank(_OfActivations):
    """RR: a cheap bound of the stable rank of the batch's activations, :func:`lightning_repshape.functional.rr`.

    Example:
        >>> StableRank(0.5)(torch.eye(2))
        tensor(1.)
    """

    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        return rr(activations, positions=self.positions, scale=scale, sync=self._joined())


class ClasswiseStableRank(_OfClasses):
    """cw-RR: the same by class, and the mean over classes, :func:`lightning_repshape.functional.cw_rr`.

    Example:
        >>> ClasswiseStableRank(0.5, num_classes=2)(torch.eye(2), torch.tensor([0, 0]))
        tensor(0.5000)
    """

    def _scaled(self, activations: Tensor, labels: Tensor | None, num_classes: int | None, scale: float) -> Tensor:
        labels, classes = self._labelled(labels, num_classes)
        return cw_rr(activations, labels, classes, positions=self.positions, scale=scale, sync=self._joined())


class WeightRegularizer(Regularizer):
    """A regularizer of weights; subclasses implement :meth:`value`."""

    of_weights: ClassVar[bool] = True

    def __init__(
        self,
        weight: float,
        layer: str = "features",
        scope: Literal["layer", "all"] = "layer",
        warmup_epochs: float = 0.0,
    ) -> None:
        """Checks and keeps the options.

        Args:
            weight: Factor of the penalty in the loss, at least 0.
            layer: Name of the layer whose weights it applies to; ``features``: the layer that makes the backbone's
                output.
            scope: ``"layer"``: that layer's weights; ``"all"``: the weights of all layers.
            warmup_epochs: The weight rises linearly from 0 over so many epochs.
        """
        super().__init__(weight, layer, warmup_epochs)
        check_choice(f"{type(self).__name__}: scope", scope, ("layer", "all"))
        self.scope: Literal["layer", "all"] = scope

    @staticmethod
    def weights_of(module: nn.Module) -> list[Tensor]:
        """The weights of a module and its submodules: parameters of two or more dimensions, neither biases nor scales.

        Frozen ones too, since they may be trained later. ConfigError: there are none, or none is trained.
        """
        weights: list[Tensor] = [p for p in module.parameters() if p.ndim >= 2]
        if not any(weight.requires_grad for weight in weights):
            raise ConfigError(
                f"{type(module).__name__} has no trained weights that a penalty on weights could apply to"
            )
        return weights

    def forward(self, weights: Tensor | Iterable[Tensor], epoch: float | None = None) -> Tensor:
        """The penalty of one weight tensor or several to be added to a loss: weight (at this epoch) times value.

        Raises:
            TypeError: If a weight is no floating-point tensor.
            ValueError: If there are none.
        """
        return self.value(weights) * self.weight_at(epoch)

    @abstractmethod
    def value(self, weights: Tensor | Iterable[Tensor]) -> Tensor:
        """The penalty without weight, of what a call takes before the epoch."""


class L1Weight(WeightRegularizer):
    """L1W: the sum of absolute weights (AAAI 2019, baseline).

    Example:
        >>> L1Weight(0.5)(torch.tensor([[1.0, -3.0]]))
        tensor(2.)
    """

    def value(self, weights: Tensor | Iterable[Tensor]) -> Tensor:
        """The sum of absolute weights."""
        return l1w(weights)


class L2Weight(WeightRegularizer):
    """L2W: the sum of squared weights (AAAI 2019, baseline).

    Example:
        >>> L2Weight(0.5)(torch.tensor([[1.0, -3.0]]))
        tensor(5.)
    """

    def value(self, weights: Tensor | Iterable[Tensor]) -> Tensor:
        """The sum of squared weights."""
        return l2w(weights)


__all__ = [
    "ClasswiseCovariance",
    "ClasswiseStableRank",
    "ClasswiseVariance",
    "Covariance",
    "L1Representation",
    "L1Weight",
    "L2Weight",
    "Regularizer",
    "StableRank",
    "SupervisedContrastive",
    "Variance",
    "VarianceCovariance",
    "WeightRegularizer",
]
