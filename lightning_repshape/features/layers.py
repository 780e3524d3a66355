"""Many layers of a model in one forward pass, handed on one by one."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_repshape.features.reader import LayerReader, run_model


class EachLayer:
    """Runs a model and hands on what each of its layers gives; nothing is kept.

    Layers of this package's modules are values that a forward pass returns, all at its end. Those of other models are
    caught by hooks, and handed on as soon as they are there.

    Args:
        model: Any module; it is called with the inputs alone, or with keyword arguments, see :class:`LayerReader`.
        layers: Names, see :class:`LayerReader`. Default: the named activations or, of another model, all submodules.

    Attributes:
        left_out: What gave no tensor with a row of numbers for each sample, and what it gave, by layer.

    Raises:
        ConfigError: If there is no such layer.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] | None = None) -> None:
        if layers is None:
            named = tuple(getattr(model, "activation_names", ()))
            layers = named or [name for name, _ in model.named_modules() if name]
        self.model = model
        readers = [LayerReader(model, name) for name in layers]
        self.named = tuple(reader.layer for reader in readers if reader.by_name)
        self.caught = [reader for reader in readers if not reader.by_name]
        self.left_out: dict[str, str] = {}

    def keep(self, names: Sequence[str]) -> None:
        """Reads no other layers any more."""
        self.named = tuple(name for name in self.named if name in names)
        self.caught = [reader for reader in self.caught if reader.layer in names]

    def __call__(self, x: Any, rows: int, receive: Callable[[str, Tensor], None]) -> None:
        """Calls ``receive`` with the name and the output, ``rows`` x D, of every layer; several calls of one, too."""

        def hand_on(name: str, value: Any) -> None:
            if not isinstance(value, Tensor):
                self.left_out[name] = type(value).__name__
            elif not value.is_floating_point() or value.dim() < 2 or len(value) != rows or not value.numel():
                self.left_out[name] = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
            else:
                receive(name, value.flatten(1))

        with ExitStack() as hooks:
            for reader in self.caught:
                hooks.callback(reader.hook(partial(hand_on, reader.layer)).remove)
            if self.caught:  # compiled code may know nothing of a hook
                hooks.enter_context(torch.compiler.set_stance("force_eager"))
            output = run_model(self.model, x, self.named)
        for name in self.named:
            hand_on(name, output.activations[name])


def different(values: Mapping[str, Tensor]) -> list[str]:
    """Names of the layers whose values are not another's; of equal ones ``features``, the outermost, else the first.

    What tells of them, such as their Gram matrices, will do in place of the values.
    """
    kept: dict[str, Tensor] = {}
    for name in sorted(values, key=lambda one: (one != "features", one.count("."))):
        if not any(torch.equal(values[name], other) for other in kept.values()):
            kept[name] = values[name]
    return [name for name in values if name in kept]
