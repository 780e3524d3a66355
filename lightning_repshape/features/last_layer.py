"""Where a model's last linear layer is, whose rows are the class vectors, and how many classes there are."""

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.class_vectors import cosine_logits
from lightning_repshape.heads import Head

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


def find_class_vectors(model: nn.Module, num_classes: int, sample: Features | None = None) -> ClassVectors | None:
    """Finds a model's last linear layer with a K x D weight.

    Models that name their activations and have no ``logits`` among them, such as autoencoders, have no class vectors,
    even where a layer has K units by chance.

    Args:
        model: Any module.
        num_classes: K.
        sample: Features of a pass; where they come with logits, the layer is held against them to find out whether
            these features are what it receives. Default: only widths are compared.

    Returns:
        The layer, or None where there is none.
    """
    found = None
    named = getattr(model, "activation_names", ())
    if named and "logits" not in named and not isinstance(model, Head):
        return None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.weight.shape[0] == num_classes:
            found = (name, module, module.weight)
    if found is None:
        return None
    name, module, weight = found
    bias = getattr(module, "bias", None)
    bias = bias.detach().cpu() if isinstance(bias, Tensor) and bias.shape == (num_classes,) else None
    weight = weight.detach().float().cpu()
    takes, cosine = sample is None or sample.features.shape[1] == weight.shape[1], False
    if takes and sample is not None and sample.logits is not None and sample.logits.shape[1] == num_classes:
        features, theirs = sample.features[:256].float(), sample.logits[:256].float()
        takes = _proportional(features @ weight.T + (0 if bias is None else bias.float()), theirs)
        if not takes and bias is None:
            takes = cosine = _proportional(cosine_logits(features, weight), theirs)
    return ClassVectors(weight, bias, name, takes, cosine)


def _proportional(logits: Tensor, theirs: Tensor) -> bool:
    """Whether a model's logits are these, up to rounding and to a positive factor such as the S of cosine logits."""
    factor = float((logits * theirs).sum() / logits.square().sum().clamp(min=1e-30))
    return factor > 0 and bool((factor * logits - theirs).abs().max() <= 0.02 * theirs.abs().max().clamp(min=1e-6))


def known_num_classes(trainer: "Trainer", pl_module: "LightningModule", *first: int | None) -> int | None:
    """The number of classes as far as it is known.

    Args:
        trainer: The trainer, whose data module may know it.
        pl_module: The module, which may know it.
        first: What is asked before these two.

    Returns:
        The first that is not None of what was given, the module's and the data module's ``num_classes``.
    """
    of_data = getattr(getattr(trainer, "datamodule", None), "num_classes", None)
    found = (*first, getattr(pl_module, "num_classes", None), of_data)
    return next((number for number in found if number is not None), None)


def find_last_linear(trainer: "Trainer", pl_module: "LightningModule", num_classes: int | None) -> str:
    """The last linear layer with one output a class.

    Args:
        trainer: The trainer.
        pl_module: Any module.
        num_classes: K. Default (None): of the module or its data; where neither knows, any number of outputs will do.

    Returns:
        The layer's name.

    Raises:
        ConfigError: If there is none.
    """
    num_classes = known_num_classes(trainer, pl_module, num_classes)
    found: list[str] = [
        name
        for name, module in pl_module.named_modules()
        if name and isinstance(module, nn.Linear) and num_classes in (None, module.out_features)
    ]
    # a module of this package has its class vectors in the head, whatever else it holds
    own = [name for name in found if name.startswith("head.")]
    if not found:
        raise ConfigError(
            f"{type(pl_module).__name__} has no linear layer with {num_classes} outputs, whose rows would be the class "
            "vectors; name the layer"
        )
    return (own or found)[-1]
