"""Where a model's last linear layer is, whose rows are the class vectors, and how many classes there are."""

from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.features.passes import Features
from lightning_repshape.features.reader import ENTRY, LayerReader
from lightning_repshape.functional.class_vectors import cosine_logits
from lightning_repshape.heads import Head
from lightning_repshape.layers import NamedActivations

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class ClassVectors(NamedTuple):
    """The last linear layer.

    Attributes:
        weight: K x D, a class vector a row.
        bias: K, or None.
        name: The layer's name in its model.
        takes_features: Whether the analysed features are what the layer receives.
        cosine: Whether the logits go by cosines with the class vectors, whose lengths then play no part.
    """

    weight: Tensor
    bias: Tensor | None
    name: str
    takes_features: bool
    cosine: bool = False


def last_linear(model: nn.Module, num_classes: int | None = None) -> tuple[str, nn.Linear] | None:
    """Name and layer of a model's last linear layer with K outputs (None: with any), None where there is none.

    Of a module of this package the head is looked at first, whatever else it holds.
    """
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and num_classes in (None, module.out_features)
    ]
    own = [(name, module) for name, module in found if name.startswith("head.")]
    fitting = own or found
    return fitting[-1] if fitting else None


def find_last_linear(trainer: "Trainer", pl_module: "LightningModule", num_classes: int | None) -> str:
    """The name of the last linear layer with one output a class, of a module that is trained.

    Without ``num_classes`` K is the module's or its data's; where neither knows, any number of outputs will do. Raises
    ConfigError if there is no such layer.
    """
    num_classes = known_num_classes(trainer, pl_module, num_classes)
    found = last_linear(pl_module, num_classes)
    if found is None:
        raise ConfigError(
            f"{type(pl_module).__name__} has no linear layer with {num_classes} outputs, whose rows would be the class "
            "vectors; name the layer"
        )
    return found[0]


def find_class_vectors(model: nn.Module, num_classes: int, sample: Features | None = None) -> ClassVectors | None:
    """The class vectors of a model: the weight of its last linear layer with K outputs, None where there is none.

    Models that name their activations and have no ``logits`` among them, such as autoencoders, have no class vectors,
    even where a layer has K units by chance. Where a ``sample`` of a pass has logits, the layer is held against them to
    find out whether its features are what the layer receives; else only widths are compared.
    """
    named = getattr(model, "activation_names", ())
    if named and "logits" not in named and not isinstance(model, Head):
        return None
    found = last_linear(model, num_classes)
    if found is None:
        return None
    name, layer = found
    bias = getattr(layer, "bias", None)
    bias = bias.detach().cpu() if isinstance(bias, Tensor) and bias.shape == (num_classes,) else None
    weight = layer.weight.detach().float().cpu()
    takes, cosine = sample is None or sample.features.shape[1] == weight.shape[1], False
    if takes and sample is not None and sample.logits is not None and sample.logits.shape[1] == num_classes:
        features, theirs = sample.features[:256].float(), sample.logits[:256].float()
        takes = _proportional(features @ weight.T + (0 if bias is None else bias.float()), theirs)
        if not takes and bias is None:
            takes = cosine = _proportional(cosine_logits(features, weight), theirs)
    return ClassVectors(weight, bias, name, takes, cosine)


def layer_of_features(model: nn.Module, layer: str, num_classes: int | None = None) -> str:
    """The layer to read where ``layer`` is asked for; ConfigError if the model has none that is called so.

    ``"features"`` of a model without any are what enters its last linear layer, if possible one with K outputs.
    """
    try:
        return LayerReader(model, layer).layer
    except ConfigError:
        found = last_linear(model, num_classes) or last_linear(model)
        if layer != "features" or found is None:
            raise
        return f"{found[0]}{ENTRY}"


def weight_matrix(layer: nn.Module | None) -> Tensor | None:
    """A layer's weight K x D, where it is a matrix, whose rows can be class vectors; else None."""
    weight = getattr(layer, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.dim() == 2 else None


def entrance(head: nn.Module) -> tuple[str, nn.Linear]:
    """The name of the activation that enters a head's last linear layer, and that layer.

    The head is such a layer itself, or has it as its attribute ``output``. Raises ConfigError if there is none, or the
    head cannot hand out what enters it.
    """
    layer = getattr(head, "output", head)
    if not isinstance(layer, nn.Linear) or weight_matrix(layer) is None:
        raise ConfigError(
            f"{type(head).__name__} has no last linear layer with a weight matrix, whose rows are the class vectors: "
            "take LinearHead, MLPHead or a head with such a layer as its attribute 'output'"
        )
    if layer is head:
        return "features", layer
    steps = [name for name, _ in head.named_children()]
    before = steps.index("output")
    if before == 0:
        return "features", layer
    if not isinstance(head, NamedActivations):
        raise ConfigError(
            f"{type(head).__name__} cannot hand out what enters its last layer: derive it from "
            "lightning_repshape.heads.Head"
        )
    return f"head.{steps[before - 1]}", layer


def known_num_classes(trainer: "Trainer", pl_module: "LightningModule", *first: int | None) -> int | None:
    """The first that is not None of ``first``, the module's and the data module's :func:`class_count`."""
    found = (*first, class_count(pl_module), class_count(getattr(trainer, "datamodule", None)))
    return next((number for number in found if number is not None), None)


def class_count(owner: object) -> int | None:
    """The ``num_classes`` of a module or a data module where it is a whole number above 0, else None."""
    number = getattr(owner, "num_classes", None)
    return int(number) if isinstance(number, Integral) and int(number) > 0 else None


def _proportional(logits: Tensor, theirs: Tensor) -> bool:
    """Whether a model's logits are these, up to rounding and to a positive factor such as the S of cosine logits."""
    factor = float((logits * theirs).sum() / logits.square().sum().clamp(min=1e-30))
    return factor > 0 and bool((factor * logits - theirs).abs().max() <= 0.02 * theirs.abs().max().clamp(min=1e-6))
