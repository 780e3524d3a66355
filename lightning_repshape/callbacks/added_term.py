"""What penalties inside other people's modules share: a forward hook whose backward pass starts a term's own."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_repshape.errors import ConfigError, DataError, did_you_mean
from lightning_repshape.features.reader import Unpack, unpack_batch
from lightning_repshape.performance import skip_idle_hooks


class HoldsHook(Callback):
    """A callback with a hook on a module for the time of a fit, which is taken off however the fit ends.

    Networks may be compiled, before the fit or in it: the hook runs between compiled parts, so not with ``fullgraph``.
    What was compiled before the hook came is compiled anew.
    """

    _handle: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Spares small networks the hooks that do nothing."""
        skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the hook off."""
        self._detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes the hook off."""
        self._detach()

    def _attach(self, layer: nn.Module, hook: Callable[[nn.Module, Any, Any], Any]) -> None:
        """Puts a forward hook on a layer; a compiler would keep what it saw of it in the first step, or no hook."""
        reason = f"the hook of {type(self).__name__} runs between compiled parts: compile without fullgraph"
        torch.compiler.reset()
        between = torch.compiler.disable(hook, reason=reason)  # type: ignore[no-untyped-call, unused-ignore]
        self._handle = layer.register_forward_hook(between)

    def _detach(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class AddedTerm(HoldsHook, ABC):
    """Adds a term to the training loss of any module: the gradient is that of loss + term.

    A forward hook hands a layer's output on unchanged, and its backward pass starts the term's own: it receives
    what the loss's gradient is multiplied by (the loss scale of 16-bit mixed precision, one over the accumulated
    batches). The result equals adding the term to the loss, to the last bits.

    Every call of the layer has a term, and one backward pass starts it: the first that Lightning runs
    (``manual_backward`` under manual optimization) and that reaches the call. ``torch.autograd.grad`` and a second pass
    over the same graph add nothing.

    Args:
        layer: Name of a submodule, as in ``named_modules``; None: :meth:`find_layer` looks for it.
        unpack: Positions or keys of inputs and labels in a batch.
        accumulate: Under manual optimization, the batches whose losses the module averages before a step; automatic
            optimization tells by itself.

    Raises:
        ConfigError: If ``accumulate`` is below 1.
    """

    def __init__(self, layer: str | None, unpack: tuple[int | str, int | str] = (0, 1), accumulate: int = 1) -> None:
        if accumulate < 1:
            raise ConfigError(f"{type(self).__name__}: accumulate is {accumulate}, but at least 1 is needed")
        self.layer = layer
        self.unpack: Unpack = unpack
        self.accumulate = accumulate
        self._active = False
        self._labels: Tensor | None = None
        self._epochs_done = 0.0
        self._last: dict[str, Tensor] = {}
        self._pass = _Pass()
        self._start: _Start | None = None
        self._warned = False

    @property
    def once(self) -> bool:
        """Whether a term does not depend on the call, so that of several calls before a backward pass one has it."""
        return False

    @property
    def needs_labels(self) -> bool:
        """Whether the term depends on labels; where it does not, batches need none."""
        return True

    def find_layer(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """The name of the layer to hook where none was given; ConfigError if there is none that fits."""
        raise ConfigError(f"{type(self).__name__} needs the name of a layer")

    def prepare(self, trainer: Trainer, pl_module: LightningModule, name: str, layer: nn.Module) -> None:
        """Looks at the layer once, at the start of a fit; ConfigError if the term cannot be computed there."""

    @abstractmethod
    def term(
        self, pl_module: LightningModule, layer: nn.Module, args: tuple[Any, ...], output: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The term of a training batch, a scalar with its weight, and scalars to log by name.

        The layer was called with ``args`` and returned ``output``; labels are N class indices or N x K memberships,
        None where :attr:`needs_labels` is false.
        """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attaches the hook."""
        modules = dict(pl_module.named_modules())
        name = self.find_layer(trainer, pl_module) if self.layer is None else self.layer
        if name not in modules or not name:
            known = [path for path in modules if path]
            raise ConfigError(f"{type(pl_module).__name__} has no layer {name!r}{did_you_mean(name, known)}")
        self.prepare(trainer, pl_module, name, modules[name])

        def attach(module: nn.Module, args: Any, output: Any) -> Any:
            if not self._active or not torch.is_grad_enabled():
                return None
            if not isinstance(output, Tensor):
                raise ConfigError(
                    f"layer {name!r} of {type(pl_module).__name__} returns {type(output).__name__}, not a "
                    "tensor; name a layer inside it or behind it"
                )
            term, figures = self.term(pl_module, module, args, output, self._labels)
            if self._start is None or not self.once:
                self._start = _Start(self._pass)
                self._keep(figures)
            return _Attach.apply(output, term, self._scale(trainer, pl_module), self._start)

        self._attach(modules[name], attach)

    def _keep(self, figures: dict[str, Tensor]) -> None:
        """Keeps what is logged: the sum over a batch's calls of the layer, since all of their terms count."""
        if self._pass.running and self._last:
            return  # a checkpointed layer that runs a second time
        for key, value in figures.items():
            self._last[key] = self._last[key] + value.detach() if key in self._last else value.detach()

    def _scale(self, trainer: Trainer, pl_module: LightningModule) -> Tensor:
        """What the loss is multiplied by before its backward pass."""
        batches = trainer.accumulate_grad_batches if pl_module.automatic_optimization else self.accumulate
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        factor = scaler.get_scale() if scaler is not None else 1.0
        return torch.tensor(factor / batches)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Takes the labels out of the batch, if the term needs any."""
        self._labels = labels_of(batch, self.unpack).to(pl_module.device) if self.needs_labels else None
        self._active, self._start, self._pass.started, self._last = True, None, False, {}
        # the number of batches is infinite where the data have no length
        self._epochs_done = trainer.current_epoch + batch_idx / max(1, trainer.num_training_batches)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """From here on, backward passes start terms."""
        self._pass.running = True

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, they do not."""
        self._pass.running, self._start = False, None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the term now and then; says once if a batch went by without it."""
        self._active, self._labels = False, None
        if not self._pass.started and not self._warned:
            self._warned = True
            reason = (
                "no backward pass of the trainer reached the layer (it is frozen, cut off by detach(), or the loss "
                "went backward without manual_backward)"
                if self._last
                else "the layer took no part in the training step"
            )
            rank_zero_warn(f"{self.state_key}: {reason}, so nothing was penalised in batch {batch_idx}")
        if self._last and self._is_logged(trainer, pl_module):
            for key, value in self._last.items():
                pl_module.log(f"train/{key}", value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the last batch's term where the epoch is shorter than ``log_every_n_steps``."""
        if trainer.num_training_batches / trainer.accumulate_grad_batches < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            for key, value in self._last.items():
                pl_module.log(f"train/{key}", value, sync_dist=trainer.world_size > 1)

    @staticmethod
    def _is_logged(trainer: Trainer, pl_module: LightningModule) -> bool:
        """Whether loggers take this batch's values: every ``log_every_n_steps`` batches that stepped."""
        # under manual optimization, several optimizers may step in one batch, and Lightning counts batches
        automatic = pl_module.automatic_optimization
        done = trainer.global_step if automatic else trainer.fit_loop.epoch_loop.total_batch_idx + 1
        return bool(done % max(1, trainer.log_every_n_steps) == 0)  # type: ignore[attr-defined]

    def _detach(self) -> None:
        super()._detach()
        self._active, self._labels, self._start = False, None, None
        self._pass.running, self._warned = False, False
        self._last = {}


def labels_of(batch: Any, unpack: Unpack) -> Tensor:
    """N class indices, or N x K memberships as they are."""
    try:
        return unpack_batch(batch, unpack)[1]
    except DataError:
        soft = batch[unpack[1]]
        if isinstance(soft, Tensor) and soft.is_floating_point() and soft.dim() == 2:
            return soft
        raise


class _Pass:
    """What a callback and its terms know of backward passes."""

    running = False  # one that Lightning runs
    started = False  # a term, in this batch


class _Start:
    """Starts terms once, in the first backward pass that Lightning runs."""

    def __init__(self, backward: _Pass) -> None:
        self.backward = backward
        self.done = False

    def __call__(self) -> bool:
        """Whether the term is started now."""
        now = self.backward.running and not self.done
        if now:
            self.done = self.backward.started = True
        return now


class _Attach(torch.autograd.Function):
    """The identity on an output; its backward pass also starts that of a term."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, term: Tensor, scale: Tensor, start: _Start) -> Tensor:
        ctx.scale, ctx.start = scale.to(device=term.device, dtype=term.dtype), start
        # no view: behind it may stand a layer that works in place
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        return gradient, ctx.scale if ctx.needs_input_grad[1] and ctx.start() else None, None, None
