"""What all metrics here share: sums that stay exact wherever their module goes."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric


class ExactSums(Metric):
    """A metric whose states, their defaults and its buffers follow the module to a device, never to a coarser dtype.

    ``module.to(torch.bfloat16)``, as by ``Trainer(precision="bf16-true")``, converts whatever floating-point tensors it
    finds; a sum of float64 would then lose what it is there for, now or, by its default, after the next ``reset()``.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False

    def add_sums(self, *names: str, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> None:
        """Adds states of these names that begin at zero and are summed over processes."""
        for name in names:
            self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Self:
        """Moves all tensors as ``fn`` does, in the dtype that they have."""
        states, defaults, buffers = self.metric_state, dict(self._defaults), dict(self.named_buffers(recurse=False))
        super()._apply(fn, *args, **kwargs)
        for name, value in states.items():
            setattr(self, name, _beside(value, getattr(self, name)))
            self._defaults[name] = _beside(defaults[name], self._defaults[name])
        for name, buffer in buffers.items():
            setattr(self, name, _beside(buffer, getattr(self, name)))
        return self


def per_column(shift: float | Tensor, width: int) -> torch.nn.Buffer:
    """A shift, one number or ``width`` of them, as a buffer of float64 that checkpoints do not hold."""
    shifts = torch.as_tensor(shift, dtype=torch.float64)
    if shifts.ndim and shifts.shape != (width,):
        raise ValueError(f"shift must be a number or ({width},) numbers, got shape {tuple(shifts.shape)}")
    return torch.nn.Buffer(shifts.expand(width).clone(), persistent=False)


def _beside(value: Any, moved: Any) -> Any:
    """A tensor, or a list of them, on the device of what it was turned into."""
    if isinstance(value, list):
        return [_beside(item, other) for item, other in zip(value, moved, strict=True)]
    return value.to(moved.device) if isinstance(value, Tensor) else value
