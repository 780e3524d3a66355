"""What all metrics here share: sums that stay exact wherever their module goes."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor
from torchmetrics import Metric


class ExactSums(Metric):
    """A metric whose states, their defaults and its buffers follow the module to a device, never to a coarser dtype.

    ``module.to(torch.bfloat16)``, as by ``Trainer(precision="bf16-true")``, converts whatever floating-point tensors it
    finds; a sum of float64 would then lose what it is there for, now or, by its default, after the next ``reset()``.
    """

    def _apply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Self:
        """Moves all tensors as ``fn`` does, in the dtype that they have."""
        states = {name: getattr(self, name) for name in self._defaults}
        defaults, buffers = dict(self._defaults), dict(self._buffers)
        super()._apply(fn, *args, **kwargs)
        for name, value in states.items():
            setattr(self, name, _beside(value, getattr(self, name)))
            self._defaults[name] = _beside(defaults[name], self._defaults[name])
        for name, buffer in buffers.items():
            self._buffers[name] = _beside(buffer, self._buffers[name])
        return self


def _beside(value: Any, moved: Any) -> Any:
    """A tensor, or a list of them, on the device of what it was turned into."""
    if isinstance(value, list):
        return [_beside(item, other) for item, other in zip(value, moved, strict=True)]
    return value.to(moved.device) if isinstance(value, Tensor) else value
