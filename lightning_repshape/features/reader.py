"""One layer's activations of any model, by name, and inputs and labels of any batch."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_repshape.errors import ConfigError, DataError, did_you_mean
from lightning_repshape.layers import Chain, NamedActivations

Unpack = tuple[int | str, int | str]
ALL = "**"  # as the place of the inputs: everything of a batch but its labels, as keyword arguments
PRE = ".pre"  # behind a layer's name: the values before its activation function
ENTRY = ".input"  # behind a layer's name: what enters it


class Keywords(dict[str, Any]):
    """Inputs that a model takes as keyword arguments."""


def unpack_batch(batch: Any, unpack: Unpack = (0, 1)) -> tuple[Any, Tensor]:
    """Takes inputs and labels out of a batch, a sequence or a mapping, by their positions or keys.

    ``("**", "labels")`` takes everything but the labels out of a mapping, as the model's keyword arguments.

    Raises:
        ConfigError: If the batch has no such entries.
        DataError: If the labels are not integers.
    """
    try:
        y = batch[unpack[1]]
        if unpack[0] == ALL and isinstance(batch, Mapping):
            x: Any = Keywords({key: value for key, value in batch.items() if key != unpack[1]})
        else:
            x = batch[unpack[0]]
    except (KeyError, IndexError, TypeError) as error:
        kind = f"keys {list(batch)}" if isinstance(batch, Mapping) else f"{type(batch).__name__}"
        if isinstance(batch, Sequence):
            kind += f" of {len(batch)} entries"
        raise ConfigError(
            f"unpack={tuple(unpack)} does not fit the batches, which are {kind}; say where inputs and labels lie, "
            "such as unpack=(0, 1), unpack=('image', 'label') or, for a mapping whose entries are the model's keyword "
            "arguments, unpack=('**', 'label')"
        ) from error
    try:
        labels = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"labels must be one integer a sample, got {type(y).__name__} at {unpack[1]!r} that is no tensor"
        ) from error
    if labels.is_floating_point() or labels.is_complex() or labels.dim() != 1:
        raise DataError(
            f"labels must be one integer a sample, got {labels.dtype} of shape {tuple(labels.shape)} at {unpack[1]!r}"
        )
    return x, labels.long()


def unpack_samples(batch: Any, unpack: Unpack = (0, 1)) -> tuple[Any, Tensor]:
    """As :func:`unpack_batch`; labels are -1, unknown, of inputs alone: a tensor, or a list of one."""
    alone = batch if isinstance(batch, Tensor) else None
    if isinstance(batch, list | tuple) and len(batch) == 1 and isinstance(batch[0], Tensor):
        alone = batch[0]
    return unpack_batch(batch, unpack) if alone is None else (alone, torch.full((len(alone),), -1))


def run_model(model: nn.Module, x: Any, names: Sequence[str] = ()) -> Any:
    """What a model makes of its inputs, with the activations of these names where it gives them by name.

    Raises ConfigError if keyword arguments are to go to a model that gives activations by name: it takes none.
    """
    if not isinstance(x, Keywords):
        return model(x, tuple(names)) if names else model(x)
    if names:
        raise ConfigError(f"{type(model).__name__} takes no keyword arguments: unpack must name its inputs")
    return model(**x)


class LayerReader:
    """Runs a model and returns the activations of one of its layers.

    Modules of this package return activations by name. Of any other model, ``layer`` names a submodule (as in
    ``named_modules``), whose output a forward hook catches.

    ``NAME.pre`` is what enters the activation function in which the layer NAME ends: ``fc5.pre`` or ``features.pre`` of
    this package's modules, ``model.2.pre`` of another's whose ``model.2`` is a ReLU or a Sequential that ends in one.
    ``NAME.input`` is what enters the submodule NAME, such as ``fc.input``.

    Of a submodule that returns a tuple, a mapping or a dataclass, ``NAME[KEY]`` is one of its values, by position, key
    or attribute, such as ``encoder[last_hidden_state]``; ``[KEY]`` is one of what the model itself returns. A tuple
    with one tensor among its values needs no key.

    Args:
        model: Any module; it is called with the inputs alone, with :class:`Keywords` as keyword arguments.
        layer: The activation's or submodule's name.

    Raises:
        ConfigError: If there is no such layer (the message names the nearest), or ``.pre`` stands behind one that does
            not end in an activation function.
    """

    def __init__(self, model: nn.Module, layer: str = "features") -> None:
        self.model = model
        self.layer = layer
        names = getattr(model, "activation_names", ())
        self.by_name = layer in names
        self.before = False
        self.key: str | None = None
        if self.by_name:
            return
        module = _submodule(model, layer)
        if module is None and layer.endswith("]"):
            before, _, self.key = layer[:-1].rpartition("[")
            module = _submodule(model, before) if before else model
        if module is None and layer.endswith(ENTRY):
            module, self.before = _submodule(model, layer.removesuffix(ENTRY)), True
        if module is None and layer.endswith(PRE):
            owner = _submodule(model, layer.removesuffix(PRE))
            module, self.before = _last_activation(owner), True
            if owner is not None and module is None:
                raise ConfigError(
                    f"layer {layer.removesuffix(PRE)!r} of {type(model).__name__} does not end in an activation "
                    f"function, so nothing is {layer!r}; name the layer whose output enters the function"
                )
        if module is None:
            known = [*names, *(name for name, _ in model.named_modules() if name)]
            known += [name + PRE for name in known] if layer.endswith(PRE) else []
            raise ConfigError(f"{type(model).__name__} has no layer {layer!r}{did_you_mean(layer, known)}")
        self.module = module

    def __call__(self, x: Any) -> tuple[Tensor, Tensor | None]:
        """The layer's output, N x D (further dimensions flattened), and the model's logits where it returns some.

        Raises ConfigError if the layer did not run or returned something else than a tensor.
        """
        if self.by_name:
            output = run_model(self.model, x, (self.layer,))
            return output.activations[self.layer].flatten(1), output.logits
        caught: list[Any] = []

        def keep(value: Any) -> None:
            # a copy, since a ReLU behind may work in place; the last call of several counts
            caught[:] = [value.clone() if isinstance(value, Tensor) else value]

        handle = self.hook(keep)
        try:
            with torch.compiler.set_stance("force_eager"):  # compiled code may know nothing of the hook
                output = run_model(self.model, x)
        finally:
            handle.remove()
        if not caught:
            raise ConfigError(f"layer {self.layer!r} took no part in the forward pass of {type(self.model).__name__}")
        value = caught[-1]
        if not isinstance(value, Tensor) or value.dim() == 0:
            what = "a single number" if isinstance(value, Tensor) else f"{type(value).__name__}, not a tensor"
            places = [f"{self.layer}[{name}]" for name in _tensors_in(value)]
            raise ConfigError(
                f"layer {self.layer!r} of {type(self.model).__name__} returns {what}; name "
                + (f"one of its values: {', '.join(places)}" if places else "a layer inside it or behind it")
            )
        logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
        is_logits = isinstance(logits, Tensor) and logits.dim() == 2 and logits.shape[0] == value.shape[0]
        return value.flatten(1), logits if is_logits else None

    def hook(self, receive: Callable[[Any], None]) -> RemovableHandle:
        """Calls ``receive`` with what enters the submodule, or with the value asked for, whenever it runs."""
        if self.before:
            return self.module.register_forward_pre_hook(
                lambda module, args, named: receive(next(iter((*args, *named.values())), None)), with_kwargs=True
            )
        return self.module.register_forward_hook(lambda module, args, result: receive(self._chosen(result)))

    def _chosen(self, result: Any) -> Any:
        """The value asked for of what a module returned."""
        within = _tensors_in(result)
        if self.key is None:
            return next(iter(within.values())) if isinstance(result, tuple | list) and len(within) == 1 else result
        if self.key not in within:
            owner = self.layer.rpartition("[")[0]
            raise ConfigError(
                f"{owner or type(self.model).__name__} returns no tensor {self.key!r}{did_you_mean(self.key, within)}"
            )
        return within[self.key]


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    """The submodule of this name; of this package's modules also by the backbone's own names, and ``features``."""
    modules: dict[str, nn.Module] = {path: module for path, module in model.named_modules() if path}
    if name in modules:
        return modules[name]
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, NamedActivations):
        path = backbone.output_name if name == "features" else name
        return modules.get(f"backbone.{path}")
    return None


def _tensors_in(value: Any) -> dict[str, Tensor]:
    """The tensors of a tuple, a mapping or a dataclass, by position, key or attribute."""
    if isinstance(value, Mapping):
        found = dict(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        found = value._asdict()
    else:
        found = dict(enumerate(value)) if isinstance(value, tuple | list) else {}
    return {str(name): part for name, part in found.items() if isinstance(part, Tensor)}


def _last_activation(module: nn.Module | None) -> nn.Module | None:
    """The activation function that a module is or ends in."""
    while isinstance(module, nn.Sequential | Chain) and (parts := list(module.children())):
        module = parts[-1]
    elementwise = type(module).__module__ == "torch.nn.modules.activation" and "Softm" not in type(module).__name__
    return module if elementwise and not isinstance(module, nn.MultiheadAttention) else None
