"""Penalties beside a loss: which activations and weights they read, and what they add to it."""

from collections.abc import Callable, Mapping, Sequence

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.regularizers import Regularizer, WeightRegularizer


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
            if isinstance(regularizer, WeightRegularizer):
                layer = whole if regularizer.scope == "all" else find_layer(regularizer.layer)
                self.weights[number] = regularizer.weights_of(layer)

    @property
    def layers(self) -> tuple[str, ...]:
        """The activations that the penalties read, each once."""
        return tuple(dict.fromkeys(term.layer for term in self.regularizers if not isinstance(term, WeightRegularizer)))

    def add_to(
        self, loss: Tensor, activations: Mapping[str, Tensor], target: Tensor, num_classes: int, epoch: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss plus the penalties, and terms by name: ``<regularizer>/<layer>``, and unweighted with ``_raw`` behind.

        ``_2`` stands behind the layer of the second penalty of one class on it. K is for penalties without a number of
        classes of their own; ``epoch``, the epochs done so far, is for warm-ups.
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
    """A list of penalties; ConfigError if it is no list, or something else stands in it."""
    if not isinstance(regularizers, Sequence) or not all(isinstance(term, Regularizer) for term in regularizers):
        raise ConfigError(f"regularizers must be a list of penalties, such as ClasswiseVariance; got {regularizers!r}")
    return tuple(regularizers)


def layer_of(owner: nn.Module, path: str) -> nn.Module:
    """The part of a network whose weights compute the activation of a path, for penalties on them.

    Where that part holds no weights, as a pool or an activation function, it is the last one before it that does.
    Raises ConfigError if there is none; the message has the nearest paths.
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
    """How far the training is, in epochs: whole ones and the share of the present one."""
    # the number of batches is infinite where the data have no length
    return module.current_epoch + batch_idx / max(1, module.trainer.num_training_batches)
