"""What every classifier module shares: forward pass, metrics of each stage, optimizers, the care of a run."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.parsing import collect_init_args
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError, DivergenceError, did_you_mean
from lightning_repshape.functional.class_statistics import class_indices
from lightning_repshape.heads import LinearHead
from lightning_repshape.metrics.classification import ClassificationSums
from lightning_repshape.metrics.representation import RepresentationStatistics
from lightning_repshape.modules.batches import single_samples_explained, unpacked
from lightning_repshape.modules.optimizers import PlateauSteps, fused, goes_with_fusion, made, scheduled
from lightning_repshape.modules.options import NOT_PLAIN, as_plain
from lightning_repshape.modules.plain_steps import take_plain_steps
from lightning_repshape.networks.base import Backbone
from lightning_repshape.performance import keep_freed_memory, quiet_cuda_checks, skip_idle_hooks

BackboneCallable = Callable[[tuple[int, ...]], Backbone]
HeadCallable = Callable[[int, int], nn.Module]


class ModelOutput(NamedTuple):
    """What a forward pass returns.

    Attributes:
        logits: N x K.
        features: N x D, what the head receives.
        activations: The activations asked for, by name.
    """

    logits: Tensor
    features: Tensor
    activations: dict[str, Tensor]


def trainer_of(module: LightningModule) -> Trainer | None:
    """The trainer of a module, or None outside of one, where Lightning's own property raises."""
    try:
        return module.trainer
    except RuntimeError:
        return None


class ClassifierModule(LightningModule):
    """A backbone and a head, their metrics and optimizer; methods add a loss or a step of their own.

    Subclasses implement :meth:`loss` (or :meth:`training_step`). The names of activations are the backbone's own
    (``backbone.activation_names``), ``features``, ``logits``, and ``head.<name>`` for the head's.

    Args:
        num_classes: Number of classes K. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, (C, H, W). Linked to ``data.input_shape`` on the command line.
        backbone: Called with ``input_shape``; gives the feature extractor.
        head: Called with the number of features and ``num_classes``; gives the head.
        optimizer: Called with the trainable parameters.
        lr_scheduler: Called with the optimizer. Default: none.
        lr_scheduler_interval: Whether the scheduler steps once an epoch or once an optimizer step. One that monitors a
            figure steps once a value of it; with ``"step"`` as soon as there is one, as with ``val_check_interval``.
        statistics_layer: The activation whose class-wise variance is reported at validation and test. Default: the
            layer of the first regularizer, else the features.
        channels_last: Whether convolutional weights and images lie channels-last in memory, which is faster on CPUs and
            GPUs alike.

    Raises:
        ConfigError: If ``num_classes`` is below 1 or ``statistics_layer`` names no activation.
    """

    takes_memberships: ClassVar[bool] = True
    """Whether labels may be N x K memberships; errors are counted against the largest."""

    fractions: ClassVar[tuple[str, ...]] = ("error", "accuracy")
    """Figures that are fractions of one, which tables show in percent."""

    plain_steps: ClassVar[bool] = False
    """Whether what a class of your own overrides of a step (:meth:`loss`, say) logs nothing by ``self.log``.

    Steps between those that are logged then run without Lightning around them. Where nothing of a step is overridden,
    they do so anyway, and with a ``training_step`` of your own never.
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        backbone: BackboneCallable,
        head: HeadCallable = LinearHead,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        statistics_layer: str | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes is {num_classes}; a classifier needs at least one class")
        self.num_classes = num_classes
        self.input_shape = tuple(input_shape)
        self.backbone = backbone(self.input_shape)
        self.head = head(self.num_features, num_classes)
        self.optimizer_callable = optimizer
        self.lr_scheduler_callable = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self._lr: float | None = None
        self.channels_last = channels_last
        if channels_last:
            self.backbone.to(memory_format=torch.channels_last)
        self.statistics_layer = self.check_activation_name(statistics_layer or "features")
        self.train_sums = ClassificationSums()
        self._last_terms: dict[str, Tensor] = {}
        self.plateau_steps = PlateauSteps()
        self.val_sums = ClassificationSums()
        self.test_sums = ClassificationSums()
        # In a list, since a submodule would be cast along with the weights.
        self._statistics: list[RepresentationStatistics] = []
        self.keep_plain_hyperparameters()

    # -- construction ------------------------------------------------------------------------------------------------

    @property
    def num_features(self) -> int:
        """Number of features D that the backbone hands to the head."""
        return self.backbone.num_features

    def keep_plain_hyperparameters(self) -> None:
        """Saves the constructor's arguments with the checkpoint, as far as they are plain data.

        Classes, functions and modules given from Python are left out: a checkpoint that holds them cannot be loaded
        with ``weights_only=True``. Values from the command line are plain (class path and arguments) and stay.
        """
        self.save_hyperparameters(logger=False)
        # Lightning has added what constructors between the outermost one and this one have set by themselves.
        *inner, own = collect_init_args(cast("FrameType", inspect.currentframe()), [], classes=(ClassifierModule,))
        fixed = {name for arguments in inner for name in arguments} - own.keys()
        plain = {name: as_plain(value) for name, value in self.hparams.items() if name not in fixed}
        self.hparams.clear()
        kept = {name: value for name, value in plain.items() if value is not NOT_PLAIN}
        if kept:
            self.save_hyperparameters(kept)  # these are what loggers receive, too

    @property
    def activation_names(self) -> tuple[str, ...]:
        """The names that :meth:`forward` takes, in the order in which they are computed."""
        backbone_names = tuple(getattr(self.backbone, "activation_names", ()))
        head_names = tuple(f"head.{name}" for name in getattr(self.head, "activation_names", ()))
        return (*backbone_names, "features", *head_names, "logits")

    def check_activation_name(self, name: str) -> str:
        """Returns the name of an activation; if there is none of that name, a ConfigError says which exist."""
        if name not in self.activation_names:
            owner = f"{type(self).__name__} with {type(self.backbone).__name__} and {type(self.head).__name__}"
            raise ConfigError(f"{owner} has no activation {name!r}{did_you_mean(name, self.activation_names)}")
        return name

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, activations: Sequence[str] = ()) -> ModelOutput:
        """Logits N x K, features N x D and the activations asked for, by name, of inputs N x C x H x W."""
        if not activations:
            features = self.backbone(x)
            return ModelOutput(self.head(features), features, {})
        of_head = [name.removeprefix("head.") for name in activations if name.startswith("head.")]
        of_backbone = [
            name for name in activations if not name.startswith("head.") and name not in ("features", "logits")
        ]
        if of_backbone:
            features, found = self.backbone.forward_activations(x, of_backbone)
        else:
            features, found = self.backbone(x), {}
        if of_head:
            logits, inner = self.head.forward_activations(features, of_head)  # type: ignore[operator, unused-ignore]
            found.update({f"head.{name}": value for name, value in inner.items()})
        else:
            logits = self.head(features)
        available = {**found, "features": features, "logits": logits}
        return ModelOutput(logits, features, {name: available[name] for name in activations})

    def training_activations(self) -> tuple[str, ...]:
        """The activations that the training loss reads. Default: none."""
        return ()

    def loss(self, output: ModelOutput, target: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The training loss.

        Args:
            output: What :meth:`forward` returned.
            target: N class indices, or N x K memberships.

        Returns:
            The loss to minimise (scalar) and further scalars to log by name.
        """
        return self.classification_loss(output.logits, target), {}

    def classification_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean loss over samples that validation and test report. Default: softmax cross entropy."""
        return F.cross_entropy(logits, target)

    # -- stages ------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Prepares the process for fast steps."""
        quiet_cuda_checks()
        keep_freed_memory()

    def on_fit_start(self) -> None:
        """Spares small networks the hooks that do nothing."""
        skip_idle_hooks(self.trainer.callbacks)  # type: ignore[attr-defined]
        take_plain_steps(self.trainer, self)
        if getattr(self.backbone, "frozen", False):  # on purpose
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")

    def unpack(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a batch: N class indices, or N x K memberships as of mixup and CutMix.

        Raises:
            DataError: If the labels are neither, or memberships do not sum to one.
        """
        # whether it is the first step matters to memberships alone
        first = isinstance(batch[1], Tensor) and batch[1].is_floating_point() and not self.global_step
        x, target = unpacked(batch, self.num_classes, type(self).__name__, self.takes_memberships, first)
        return x, target.to(self.dtype) if target.is_floating_point() else target

    def begin_step(self, batch_idx: int) -> None:
        """Called before each step with the number of its batch in the epoch, for losses that change with time."""

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """One joint step: forward pass, loss, sums for the epoch's metrics."""
        self.begin_step(batch_idx)
        x, target = self.unpack(batch)
        with single_samples_explained():
            output = self(x, self.training_activations())
        loss, terms = self.loss(output, target)
        self.watch(loss)
        self.train_sums.hold(loss, output.logits, target)
        self.log_step(loss, terms)
        return loss

    def log_step(self, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Logs a step's loss and its terms every ``log_every_n_steps`` steps: logging costs more than a small step.

        Of epochs shorter than that, the terms of the last step are logged at their end.
        """
        interval, trainer = self.log_interval, self.trainer
        if (trainer.global_step + 1) % interval == 0:
            self.log("train/loss_step", loss.detach())
            for name, value in terms.items():
                self.log(f"train/{name}", value.detach())
        if terms and trainer.num_training_batches / trainer.accumulate_grad_batches < interval:
            self._last_terms = {name: value.detach() for name, value in terms.items()}

    def log_last_terms(self) -> None:
        """Logs the terms of the epoch's last step where the epoch was too short for :meth:`log_step`."""
        if self._last_terms:
            self.log_figures("train", self._last_terms)
            self._last_terms = {}

    @property
    def log_interval(self) -> int:
        """The trainer's ``log_every_n_steps``."""
        return max(1, int(getattr(self.trainer, "log_every_n_steps", 50)))

    def watch(self, loss: Tensor, what: str = "loss") -> None:
        """Stops the training as soon as the loss is no finite number, so that no broken weights reach a checkpoint.

        On an accelerator the look costs a synchronisation, so it is taken every ``log_every_n_steps`` steps there and
        once more at the end of the epoch.

        Raises:
            DivergenceError: If the loss, named ``what``, is NaN or infinite.
        """
        if loss.device.type != "cpu" and self.global_step % self.log_interval:
            return
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergenceError(
                f"the {what} became {value} in epoch {self.current_epoch} at step {self.global_step}; the checkpoints "
                "written before are kept. A smaller learning rate, or a look at the inputs for NaN, is the usual remedy"
            )

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's ``train/loss``, ``train/error`` and ``train/accuracy``."""
        if int(self.train_sums.update_count) > 0:
            figures = self.train_sums.compute()
            self.train_sums.reset()
            self._stop_unless_finite(figures["loss"], "training loss")
            self.log_figures("train", figures)
            self.log_last_terms()
        # The last update may have broken the weights behind a loss that was still finite.
        weights = [parameter.detach() for parameter in self.trainable_parameters()]
        if weights:
            self._stop_unless_finite(nn.utils.get_total_norm(weights), "size of the weights")
        self._step_plateau_schedulers()

    def _stop_unless_finite(self, value: Tensor, what: str) -> None:
        if not math.isfinite(float(value)):
            raise DivergenceError(
                f"the {what} is {float(value)} in epoch {self.current_epoch}, at step {self.global_step}; the "
                "checkpoints written before are kept. A smaller learning rate is the usual remedy"
            )

    def _step_plateau_schedulers(self) -> None:
        """Steps ReduceLROnPlateau here, before the epoch's checkpoints are written.

        Lightning does so after them, and never makes up for it when it resumes.
        """
        for config in self.trainer.lr_scheduler_configs if self.automatic_optimization else ():
            due = config.interval == "step" or (self.current_epoch + 1) % config.frequency == 0
            if config.reduce_on_plateau and due:
                self.plateau_steps.step(config.scheduler, str(config.monitor), self.trainer)

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Steps a scheduler when Lightning asks for it; at an epoch's end, plateau schedulers have been already."""
        if metric is None:
            scheduler.step()
            return
        for config in self.trainer.lr_scheduler_configs:
            if config.scheduler is scheduler and config.interval == "step":
                self.plateau_steps.step(scheduler, str(config.monitor), self.trainer, epoch_end=False)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the validation figures."""
        self.evaluation_step(batch, self.val_sums)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the test figures."""
        self.evaluation_step(batch, self.test_sums)

    def evaluation_step(self, batch: Sequence[Tensor], sums: ClassificationSums) -> None:
        """Forward pass of one evaluation batch, added to the stage's sums and to the layer's statistics."""
        x, target = self.unpack(batch)
        output = self(x, (self.statistics_layer,))
        sums.update(self.classification_loss(output.logits, target), output.logits, target)
        self.update_statistics(output.activations[self.statistics_layer], target)

    def update_statistics(self, activation: Tensor, target: Tensor) -> None:
        """Adds the statistics layer's activation of one evaluation batch, N x I or N x C x H x W."""
        values = activation.flatten(1)
        if not self._statistics or self._statistics[0].num_units != values.shape[1]:
            self._statistics = [RepresentationStatistics(self.num_classes, values.shape[1]).to(self.device)]
        self._statistics[0].update(values, class_indices(target))

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/loss``, ``val/error``, ``val/accuracy`` and ``val/classwise_variance``."""
        self.end_evaluation("val", self.val_sums)

    def on_test_epoch_end(self) -> None:
        """Logs ``test/loss``, ``test/error``, ``test/accuracy`` and ``test/classwise_variance``."""
        self.end_evaluation("test", self.test_sums)

    def end_evaluation(self, stage: str, sums: ClassificationSums, further: Mapping[str, Tensor] | None = None) -> None:
        """Logs figures of ``val`` or ``test``, and further ones equal on all ranks, and empties the stage's sums."""
        figures = {**sums.compute(), **(further or {})}
        if stage == "val" and self.trainer.state.fn == "fit" and int(sums.update_count) > 0:
            self._stop_unless_finite(figures["loss"], "validation loss")
        sums.reset()
        for statistics in self._statistics:
            figures["classwise_variance"] = statistics.compute()["classwise_variance"]
        self._statistics = []
        self.log_figures(stage, figures)

    def log_figures(self, stage: str, figures: Mapping[str, Tensor]) -> None:
        """Logs figures that are already equal on all ranks, with the stage in front of their names."""
        values = {f"{stage}/{name}": value.float() for name, value in figures.items()}
        self.log_dict(values, sync_dist=self.trainer.world_size > 1)
        progress = {"train": "loss", "val": "error"}.get(stage)
        if progress is not None and f"{stage}/{progress}" in values:
            shown = values[f"{stage}/{progress}"]
            self.log(f"{stage}_{progress}", shown, prog_bar=True, logger=False, sync_dist=self.trainer.world_size > 1)

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """``probability`` N x K, ``target`` N (-1: unknown), and the samples' numbers ``index`` N where known."""
        prediction = {"probability": self(batch[0]).logits.float().softmax(dim=1), "target": class_indices(batch[1])}
        if len(batch) > 2:
            prediction["index"] = batch[2]
        return prediction

    # -- optimization ------------------------------------------------------------------------------------------------

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimizer receives: all that require a gradient."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @property
    def lr(self) -> float:
        """The optimizer's learning rate at the start, by which LearningRateFinder finds and sets it."""
        if self._lr is None:
            return float(self.optimizer_callable([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"])
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = float(value)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Calls the optimizer callable, with the fused implementation where it exists and fits.

        It is left out where it does not go with the trainer's precision or clipping.

        Raises:
            ConfigError: If there is nothing to train.
        """
        if not parameters:
            raise ConfigError(
                f"nothing is left to train in {type(self).__name__}: set backbone.frozen to false, or name parts of "
                "it in backbone.trainable"
            )
        plain = made("optimizer", self.optimizer_callable, parameters)
        for group in plain.param_groups if self._lr is not None else ():
            group["lr"] = self._lr
        trainer = trainer_of(self)
        return fused(plain) if trainer is None or goes_with_fusion(trainer) else plain

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over the trainable parameters and, where one was given, its scheduler."""
        optimizer = self.build_optimizer(self.trainable_parameters())
        if self.lr_scheduler_callable is None:
            return optimizer
        scheduler = scheduled(self.lr_scheduler_callable, optimizer, self.optimizer_callable)
        entry: dict[str, Any] = {"scheduler": scheduler, "interval": self.lr_scheduler_interval}
        if hasattr(scheduler, "monitor"):
            entry["monitor"] = scheduler.monitor
            entry["strict"] = False  # it may come with a later epoch; plateau_steps says so if it cannot
        return {"optimizer": optimizer, "lr_scheduler": entry}  # type: ignore[typeddict-item, return-value, unused-ignore]
