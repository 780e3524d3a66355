"""Training steps without what Lightning does around each of them for nobody."""

from functools import partial
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from lightning_repshape.performance import OPTIMIZER_HOOKS, STEP_HOOKS, overrides

_OWN = __name__.partition(".")[0] + "."
_AROUND, _WITHIN = STEP_HOOKS[:2], STEP_HOOKS[2:]
_CALLED = ("forward", "unpack", "loss", "classification_loss", "training_activations", "watch", "log_step")
_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class PlainSteps:
    """Runs the steps of an epoch that nobody watches: forward and backward pass, optimizer, counters, nothing else.

    Lightning's own step adds half of a small network's, in contexts, look-ups and closures for hooks that do nothing
    and metrics that nobody has logged. Here an epoch's first and last step, and those that are logged, are Lightning's
    own, and those between make the same calls on the same tensors and leave the same counters. So limits, validation
    within an epoch, schedulers, checkpoints and resumed runs know no difference.

    All steps are Lightning's own where others could tell: under several processes, a gradient scaler, accumulation,
    clipping or a profiler, with callbacks of other projects that have hooks in every step, and modules that override
    what a step calls.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self.trainer, self.module = trainer, module
        self.loop = trainer.fit_loop.epoch_loop
        self.lightnings = partial(type(self.loop).advance, self.loop)
        self._plain = False
        self._ahead: set[int] = set()
        self._logged = 0

    def __call__(self, data_fetcher: Any) -> None:
        """Takes the place of the epoch loop's ``advance``: one batch."""
        loop, trainer = self.loop, self.trainer
        progress = loop.batch_progress
        batch_idx = progress.current.ready
        whole = not batch_idx or loop.restarting
        if whole:
            self._look()
        if whole or not self._plain or batch_idx >= self._logged or trainer.should_stop:
            self._logged = self._next_logged(batch_idx + 1)
            self.lightnings(data_fetcher)
            return
        fetched = next(data_fetcher)
        batch = fetched[0]
        if data_fetcher.done or batch is None:
            self.lightnings(_Again(fetched, data_fetcher.done))  # type: ignore[arg-type]
            return
        progress.is_last_batch = False
        for transfer, arguments in self._transfers:
            batch = transfer(batch, *arguments)
        progress.increment_ready()
        for hook in self._starts:
            hook(batch, batch_idx)
        progress.increment_started()
        optimizer, counters = trainer.optimizers[0], loop.automatic_optimization.optim_progress.optimizer
        counters.step.increment_ready()
        loss = cast(Tensor, self._step(batch, batch_idx))
        counters.zero_grad.increment_ready()
        counters.zero_grad.increment_started()
        for parameter in self._trained:
            parameter.grad = None  # as zero_grad does, which takes as long as a layer
        counters.zero_grad.increment_completed()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        counters.step.increment_completed()
        progress.increment_processed()
        if trainer.lr_scheduler_configs:
            loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        for hook in self._ends:
            hook({"loss": loss.detach()}, batch, batch_idx)
        progress.increment_completed()

    def _next_logged(self, batch_idx: int) -> int:
        """The first batch from this one on whose figures are logged."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return batch_idx + min((-(batch_idx + 1 + before) % every for before in self._ahead), default=0)

    def _look(self) -> None:
        """Finds out whether the epoch can have plain steps, and what they call."""
        loop, trainer, module = self.loop, self.trainer, self.module
        self._plain = trainer.lightning_module is module and self._unwatched()
        if not self._plain:
            return
        # Logging counts steps in two ways, the module by the trainer's, Lightning by those of the loop.
        before = (trainer.global_step, *loop.on_save_checkpoint().values())
        self._ahead = {count - loop.batch_progress.current.ready for count in before}
        self._starts, self._ends = (
            [partial(getattr(callback, hook), trainer, module) for callback in _watching(trainer, hook)]
            + ([getattr(module, hook)] if is_overridden(hook, module) else [])
            for hook in _AROUND
        )
        precision = trainer.precision_plugin
        # The strategy's step is then the module's and no more, and inputs stay what they are.
        exact = type(precision) is Precision and trainer.strategy.model is module
        self._step = module.training_step if exact else trainer.strategy.training_step
        self._trained = [parameter for group in trainer.optimizers[0].param_groups for parameter in group["params"]]
        device, data = trainer.strategy.root_device, getattr(trainer, "datamodule", None)
        arguments: tuple[tuple[Any, ...], ...] = ((0,), (device, 0), (0,))
        self._transfers = [] if exact else [(precision.convert_input, ())]
        for hook, further in zip(_TRANSFER, arguments, strict=True):
            owner = data if data is not None and is_overridden(hook, data) else module
            if owner is data or is_overridden(hook, module) or hook == "transfer_batch_to_device":
                self._transfers.append((getattr(owner, hook), further))

    def _unwatched(self) -> bool:
        """Whether nobody could tell a plain step from Lightning's own."""
        trainer, module, kind = self.trainer, self.module, type(self.module)
        precision = trainer.precision_plugin
        return (
            type(trainer.strategy) is SingleDeviceStrategy
            and (type(precision) is Precision or (type(precision) is MixedPrecision and precision.scaler is None))
            and type(trainer.profiler) is PassThroughProfiler  # type: ignore[attr-defined]
            and module.automatic_optimization
            and trainer.accumulate_grad_batches == 1
            and not trainer.gradient_clip_val
            and trainer.log_every_n_steps > 1  # type: ignore[attr-defined]
            and not trainer.fast_dev_run  # type: ignore[attr-defined]
            and len(trainer.optimizers) == 1
            and type(trainer.optimizers[0]).zero_grad is Optimizer.zero_grad
            and all(_is_own(kind, method) for method in ("training_step", *_AROUND))
            and (getattr(kind, "plain_steps", False) or all(_is_own(kind, method) for method in _CALLED))
            and all(getattr(kind, hook) is getattr(LightningModule, hook) for hook in (*OPTIMIZER_HOOKS, *_WITHIN))
            and not any(hook in vars(module) for hook in ("training_step", *OPTIMIZER_HOOKS, *STEP_HOOKS))
            and not any(_watching(trainer, hook) for hook in _WITHIN)
            and all(
                isinstance(callback, ProgressBar) or _is_own(type(callback), hook)
                for hook in _AROUND
                for callback in _watching(trainer, hook)
            )
        )


class _Again:
    """A batch that was fetched already, for Lightning's own step."""

    def __init__(self, fetched: Any, done: bool) -> None:
        self.fetched, self.done = fetched, done

    def __next__(self) -> Any:
        return self.fetched


def take_plain_steps(trainer: Trainer, module: LightningModule) -> None:
    """Lets the epochs of a fit have plain steps where they can."""
    trainer.fit_loop.epoch_loop.advance = PlainSteps(trainer, module)  # type: ignore[method-assign]


def _watching(trainer: Trainer, hook: str) -> list[Callback]:
    """The callbacks that have a hook."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [
        callback
        for callback in callbacks
        if callable(getattr(callback, hook)) and (hook in vars(callback) or overrides(callback, hook))
    ]


def _is_own(kind: type, hook: str) -> bool:
    """Whether a class has a method from this package, or from Lightning's base class, where it does nothing."""
    function = getattr(kind, hook)
    return str(function.__module__).startswith(_OWN) or function is getattr(LightningModule, hook, None)
