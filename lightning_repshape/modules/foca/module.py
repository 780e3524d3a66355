"""FOCA: a feature extractor trained against many random weak classifiers (Sato et al., ICML 2019)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError, DataError, DivergenceError
from lightning_repshape.functional.stacked_heads import HeadSolution, StackedHeads, feature_scale, solve_heads
from lightning_repshape.heads import MLPHead
from lightning_repshape.metrics.classification import ClassificationSums
from lightning_repshape.modules.base import BackboneCallable, ClassifierModule
from lightning_repshape.modules.foca.source import BalancedSource, BatchSource, source_for
from lightning_repshape.seeding import generator, global_seed, key_to_seed


class FOCAModule(ClassifierModule):
    """Feature-extractor Optimization through Classifier Anonymization (FOCA).

    Every training step draws a class-balanced batch b, solves E freshly initialised weak classifiers theta on its
    frozen features (Eq. 4), and updates the feature extractor phi with their averaged loss on other samples (Algorithm
    1). theta lives for one step: it is no parameter of the module. The module therefore predicts only with the head of
    the secondary optimisation (Eq. 5), which is trained from scratch on frozen features at the end of ``fit`` and
    stored in the checkpoints.

    What is counted: one optimizer (phi's) is registered, so ``global_step``, ``max_steps``, ``every_n_train_steps`` of
    checkpoints and an ``lr_scheduler_interval`` of ``"step"`` count phi updates; a training batch brings
    ``phi_updates`` of them. Deliver ``phi_updates`` * m samples a batch: they are split into that many chunks.

    Published: k, the number of inner updates, standard deviation 0.1, head widths, u (32 updates and u = 1 on CIFAR-10,
    64 and u = 8 on CIFAR-100, k = 10). Unpublished, with defaults that train: lambda, the inner rate and momentum, m,
    the max-norm bound, phi's rate and schedule, and everything of the secondary head.

    Args:
        num_classes: Number of classes K. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, (C, H, W). Linked to ``data.input_shape`` on the command line.
        backbone: Called with ``input_shape``; gives the feature extractor phi.
        hidden: Widths of the weak classifiers' hidden layers; empty for linear ones. The paper: (128, 128).
        samples_per_class: k, samples of each class in b. Default: 10; 100 under ``"early-stop"``.
        replacement: Whether b is drawn with replacement, as Algorithm 1 does.
        num_classifiers: E, weak classifiers a step, whose losses are averaged.
        shared_batch: Whether all E see the same images of b (each its own class-balanced resample of them where k > 1),
            which costs one backbone pass over b; else E batches are drawn.
        solver: ``"gd"``, full-batch gradient descent with momentum; ``"ridge"``, closed form for linear classifiers and
            the squared loss; ``"early-stop"``, gradient descent on one large batch, stopped after few updates.
        inner_updates: Updates of the inner solve. Default: 32; 20 under ``"early-stop"``.
        inner_rate: Learning rate of the inner solve.
        inner_momentum: Momentum of the inner solve.
        weight_decay: lambda of Eq. 4, in front of the sum of squares of all parameters of theta (of the weights under
            ``"ridge"``). Must be above 0, except under ``"early-stop"``.
        init_std: Standard deviation of the weak classifiers' initial weights.
        reduction: Mean over b as in Eq. 4, or the sum of Algorithm 1's line 5.
        classification_loss: Softmax cross entropy, or the squared loss against one-hot targets (for two classes and
            ``num_outputs=1``: against +1 and -1).
        num_outputs: Outputs of a weak classifier. Default: K; 1 is possible for two classes under the squared loss.
        feature_scale: Features are brought to this mean norm, in the solve and in phi's loss alike, by a factor that is
            a constant of the step; the solve then works at every scale of the features. None: the paper's raw features.
        hold_scale: Whether phi's gradient leaves the overall scale of the features alone, which the factor undoes in
            any case. Without it, weak classifiers that are too sure of themselves make phi shrink its features step by
            step, until they vanish. The loss is the same; ``feature_scale`` must be given.
        phi_updates: u, updates of phi for one theta.
        phi_draw: Whether phi's samples are the epoch's shuffled ones, or drawn with replacement as in Algorithm 1.
        max_norm: c, the largest norm of an output unit's incoming weight vector; None for no bound.
        clip_norm: Largest norm of phi's gradient; None for no clipping. (The Trainer's own clipping and accumulation do
            not apply to manual optimization.)
        accumulate: Chunks whose gradients are averaged before phi is updated.
        optimizer: Called with phi's parameters. The paper: SGD with momentum.
        lr_scheduler: Called with the optimizer. Default: none.
        lr_scheduler_interval: Whether the scheduler steps once an epoch or once a phi update.
        val_classifiers: Weak classifiers whose mean logits give ``val/error``; the paper's Fig. 1 has 256.
        secondary_hidden: Widths of the secondary head's hidden layers. The paper: (128, 128).
        secondary_updates: Full-batch updates of the secondary head.
        secondary_rate: Its learning rate.
        secondary_momentum: Its momentum.
        secondary_weight_decay: Its lambda; Eq. 5 has none, 0 is allowed.
        secondary_batch_size: Samples of an update of the secondary head. Default: all.
        secondary_feature_norm: Mean norm to which features are brought for the secondary head; None for raw ones.
        statistics_layer: The activation whose class-wise variance is reported at validation and test.
        channels_last: Whether convolutional weights lie channels-last in memory.

    Raises:
        ConfigError: If an option is out of range, or options exclude each other; the message says which.

    References:
        Sato, Ishikawa, Liu, Tanaka: Breaking Inter-Layer Co-Adaptation by Classifier Anonymization. ICML 2019.
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        backbone: BackboneCallable,
        hidden: Sequence[int] = (128, 128),
        samples_per_class: int | None = None,
        replacement: bool = True,
        num_classifiers: int = 1,
        shared_batch: bool = True,
        solver: Literal["gd", "ridge", "early-stop"] = "gd",
        inner_updates: int | None = None,
        inner_rate: float = 0.05,
        inner_momentum: float = 0.9,
        weight_decay: float = 1e-3,
        init_std: float = 0.1,
        reduction: Literal["mean", "sum"] = "mean",
        classification_loss: Literal["cross_entropy", "squared"] = "cross_entropy",
        num_outputs: int | None = None,
        feature_scale: float | None = 10.0,
        hold_scale: bool = False,
        phi_updates: int = 1,
        phi_draw: Literal["epoch", "replacement"] = "epoch",
        max_norm: float | None = 4.0,
        clip_norm: float | None = None,
        accumulate: int = 1,
        optimizer: OptimizerCallable = torch.optim.SGD,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        val_classifiers: int = 16,
        secondary_hidden: Sequence[int] = (128, 128),
        secondary_updates: int = 200,
        secondary_rate: float = 0.02,
        secondary_momentum: float = 0.9,
        secondary_weight_decay: float = 1e-4,
        secondary_batch_size: int | None = None,
        secondary_feature_norm: float | None = 5.0,
        statistics_layer: str = "features",
        channels_last: bool = True,
    ) -> None:
        secondary_widths = tuple(secondary_hidden)

        def secondary_head(num_features: int, outputs: int) -> nn.Module:
            return MLPHead(num_features, outputs, hidden=secondary_widths)

        super().__init__(
            num_classes=num_classes,
            input_shape=input_shape,
            backbone=backbone,
            head=secondary_head,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_scheduler_interval=lr_scheduler_interval,
            statistics_layer=statistics_layer,
            channels_last=channels_last,
        )
        early = solver == "early-stop"
        self.hidden = tuple(hidden)
        self.samples_per_class = samples_per_class if samples_per_class is not None else 100 if early else 10
        self.replacement = replacement
        self.num_classifiers = num_classifiers
        self.shared_batch = shared_batch
        self.solver = solver
        self.inner_updates = inner_updates if inner_updates is not None else 20 if early else 32
        self.inner_rate = inner_rate
        self.inner_momentum = inner_momentum
        self.weight_decay = weight_decay
        self.init_std = init_std
        self.reduction: Literal["mean", "sum"] = reduction
        self.loss_name: Literal["cross_entropy", "squared"] = classification_loss
        self.num_outputs = num_classes if num_outputs is None else num_outputs
        self.feature_scale = feature_scale
        self.hold_scale = hold_scale
        self.phi_updates = phi_updates
        self.phi_draw = phi_draw
        self.max_norm = max_norm
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        self.val_classifiers = val_classifiers
        self.secondary_hidden = secondary_widths
        self.secondary_updates = secondary_updates
        self.secondary_rate = secondary_rate
        self.secondary_momentum = secondary_momentum
        self.secondary_weight_decay = secondary_weight_decay
        self.secondary_batch_size = secondary_batch_size
        self.secondary_feature_norm = secondary_feature_norm
        self._check_options()

        self.automatic_optimization = False
        self.head.requires_grad_(False)
        self.head_trained: Tensor
        self.register_buffer("head_trained", torch.tensor(False))
        self.ncm_sums = ClassificationSums()
        self._source: BalancedSource | None = None
        self._accumulated = 0
        self._validation: tuple[StackedHeads, Tensor] | None = None
        self._latest: BatchSource | None = None
        self._norm_layers = [
            module for module in self.backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        self._projected = [parameter for parameter in self.backbone.parameters() if parameter.dim() > 1]

    def _check_options(self) -> None:
        least = {
            "samples_per_class": 1,
            "num_classifiers": 1,
            "inner_updates": 1,
            "phi_updates": 1,
            "accumulate": 1,
            "val_classifiers": 1,
            "secondary_updates": 1,
            "secondary_batch_size": 1,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ConfigError(f"FOCAModule: {name} is {value}, but at least {bound} is needed")
        for name in (
            "inner_rate",
            "feature_scale",
            "max_norm",
            "clip_norm",
            "secondary_rate",
            "secondary_feature_norm",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(
                    f"FOCAModule: {name} is {value}, but it must be above 0 (or null where it may be left out)"
                )
        if self.hold_scale and self.feature_scale is None:
            raise ConfigError("FOCAModule: hold_scale needs a feature_scale; raw features have no scale to hold")
        if not self.init_std >= 0:
            raise ConfigError(f"FOCAModule: init_std is {self.init_std}, but a standard deviation is not below 0")
        for name in ("inner_momentum", "secondary_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"FOCAModule: {name} is {getattr(self, name)}, but it must be at least 0 and below 1")
        if not self.weight_decay >= 0 or (self.weight_decay == 0 and self.solver != "early-stop"):
            raise ConfigError(
                f"FOCAModule: weight_decay (lambda of Eq. 4) is {self.weight_decay}, but FOCA needs it above 0: "
                "without it the weak classifiers blow up where two features of b nearly coincide"
            )
        if not self.secondary_weight_decay >= 0:
            raise ConfigError(
                f"FOCAModule: secondary_weight_decay is {self.secondary_weight_decay}, but must not be negative"
            )
        if self.solver == "ridge" and self.loss_name != "squared":
            raise ConfigError(
                "FOCAModule: solver 'ridge' minimises the squared loss; set classification_loss to 'squared'"
            )
        if self.solver == "ridge" and self.hidden:
            raise ConfigError(
                f"FOCAModule: solver 'ridge' solves linear classifiers; set hidden to [], not {list(self.hidden)}"
            )
        same = self.solver == "ridge" and self.num_classifiers > 1 and self.shared_batch and self.samples_per_class == 1
        if same:
            raise ConfigError(
                "FOCAModule: with solver 'ridge', samples_per_class 1 and shared_batch all weak classifiers of a step "
                "would be the same; set shared_batch to false"
            )
        one_output = self.num_outputs == 1 and self.num_classes == 2 and self.loss_name == "squared"
        if self.num_outputs != self.num_classes and not one_output:
            raise ConfigError(
                f"FOCAModule: num_outputs is {self.num_outputs}, but must be num_classes = {self.num_classes} "
                "(or 1 for two classes under the squared loss)"
            )

    # -- the step ----------------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """Adds the secondary optimisation at the end of ``fit``; refuses what manual optimization cannot have.

        Returns:
            The callback.

        Raises:
            ConfigError: If the Trainer clips or accumulates gradients.
        """
        from lightning_repshape.modules.foca.secondary import SecondaryOptimization

        if self.trainer.gradient_clip_val:
            raise ConfigError(
                f"FOCAModule optimizes by itself: set model.clip_norm to {self.trainer.gradient_clip_val} instead of "
                "trainer.gradient_clip_val"
            )
        if self.trainer.accumulate_grad_batches != 1:
            raise ConfigError(
                f"FOCAModule optimizes by itself: set model.accumulate to {self.trainer.accumulate_grad_batches} "
                "instead of trainer.accumulate_grad_batches"
            )
        return [SecondaryOptimization()]

    def trainable_parameters(self) -> list[nn.Parameter]:
        """phi: the backbone's parameters that require a gradient."""
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

    def on_train_start(self) -> None:
        """Finds where class-balanced batches come from; a secondary head of an earlier fit no longer fits."""
        self._source = source_for(self.trainer, self.num_classes, self.device)
        self._accumulated, self._latest = 0, None
        self.head_trained.fill_(False)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        """One solve and ``phi_updates`` updates of phi (Algorithm 1, lines 4 to 7).

        Args:
            batch: phi's inputs and class indices.
            batch_idx: Number of the batch within the epoch.

        Raises:
            DivergenceError: If the weak classifiers or phi's loss are no finite numbers.
        """
        x, target = batch[0], batch[1]
        key = (global_seed(), self.current_epoch, batch_idx, self.global_rank)
        source = self._source
        if source is None:
            source = self._latest = BatchSource(x, target, self.num_classes)
        if self.phi_draw == "replacement":
            x, target = source.uniform(len(target), generator("foca-phi", *key))
        batches = 1 if self.shared_batch else self.num_classifiers
        features, labels = self.draw_features(source, batches, "foca", *key)
        solution, scale, norm = self.solve_classifiers(features, labels, self.num_classifiers, "foca", *key)
        self._watch_solution(solution, norm)
        optimizer = self.optimizers()
        if not isinstance(optimizer, LightningOptimizer):
            raise ConfigError("FOCAModule takes exactly one optimizer")
        losses, logits = [], torch.empty(0)
        # Even parts, so that a short last batch brings u updates too.
        parts = min(self.phi_updates, len(x))
        chunks = list(zip(x.tensor_split(parts), target.tensor_split(parts), strict=True))
        for number, (part, labels) in enumerate(chunks):
            last = number == len(chunks) - 1
            loss, logits = self.phi_loss(solution.heads, scale, part, labels)
            self.update_phi(optimizer, loss, flush=last and self.trainer.is_last_batch)
            losses.append(loss.detach())
            self.train_sums.update(losses[-1], self.class_logits(logits.detach().mean(dim=0)), labels)
        self.watch(torch.stack(losses).mean())
        # The batches at which Lightning writes to the loggers; other values would be dropped.
        if (self.trainer.fit_loop.total_batch_idx + 1) % self._log_every == 0:
            weak_error = (self.class_logits(logits.detach()).argmax(dim=2) != labels).float().mean()
            figures = {"loss_step": losses[-1], "inner_loss": solution.losses.mean(), "feature_norm": norm}
            figures["weak_error"] = weak_error
            self.log_dict({f"train/{name}": value for name, value in figures.items()})

    @property
    def _log_every(self) -> int:
        return int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined, unused-ignore]

    def draw_features(self, source: BalancedSource, batches: int, *key: int | str) -> tuple[Tensor, Tensor]:
        """Draws class-balanced batches and computes their features once, without gradient (Algorithm 1, line 4).

        Args:
            source: Where the samples come from.
            batches: How many batches b.
            *key: Key of the draws.

        Returns:
            Features, batches x K k x D in float32 (float64 where phi is), and class indices, batches x K k.
        """
        features, labels = [], []
        kind = next((parameter.dtype for parameter in self.backbone.parameters()), torch.float32)
        # One pass a batch: batch normalisation sees one b at a time, and memory does not grow with their number.
        for number in range(batches):
            x, y = source.balanced(self.samples_per_class, generator(*key, "b", number), self.replacement)
            with torch.no_grad(), self.frozen_statistics():
                features.append(self._features(x.to(kind) if x.is_floating_point() else x))
            labels.append(y)
        return torch.stack(features), torch.stack(labels)

    def _features(self, x: Tensor) -> Tensor:
        """Phi's features N x D, in float32 unless phi is in float64."""
        features: Tensor = self.backbone(x).flatten(1)
        return features if features.dtype == torch.float64 else features.float()

    def solve_classifiers(
        self, features: Tensor, labels: Tensor, count: int, *key: int | str
    ) -> tuple[HeadSolution, Tensor | None, Tensor]:
        """Solves freshly initialised weak classifiers (Algorithm 1, line 5; Eq. 4).

        Args:
            features: Of one batch for all classifiers, 1 x K k x D, or of one batch each, E x K k x D.
            labels: As many class indices.
            count: E.
            *key: Key of the draws.

        Returns:
            The classifiers, the factor that brings features to their scale (None for raw features), and the mean norm
            of the features.
        """
        norm = torch.linalg.vector_norm(features, dim=2).mean()
        scale = feature_scale(features, self.feature_scale) if self.feature_scale is not None else None
        scaled = features if scale is None else features * scale
        indices = None
        if len(features) == 1:
            scaled, labels = scaled[0], labels[0]
            if count > 1 and self.samples_per_class > 1:
                indices = self._resamples(count, generator(*key, "resample")).to(scaled.device)
        solution = solve_heads(
            scaled,
            labels,
            num_classes=self.num_classes,
            num_heads=count,
            hidden=self.hidden,
            num_outputs=self.num_outputs,
            solver="ridge" if self.solver == "ridge" else "gd",
            loss=self.loss_name,
            reduction=self.reduction,
            lam=self.weight_decay,
            updates=self.inner_updates,
            rate=self.inner_rate,
            momentum=self.inner_momentum,
            init_std=self.init_std,
            seed=key_to_seed(*key, "theta"),
            indices=indices,
            validate=False,
        )
        return solution, scale, norm

    def _resamples(self, count: int, source: torch.Generator) -> Tensor:
        """For each classifier a class-balanced draw with replacement from b, whose samples lie class by class."""
        shape = (count, self.num_classes, self.samples_per_class)
        within = torch.randint(self.samples_per_class, shape, generator=source)
        first = torch.arange(self.num_classes)[:, None] * self.samples_per_class
        return (within + first).flatten(1)

    @contextmanager
    def frozen_statistics(self) -> Iterator[None]:
        """Batch normalisation uses its batch's statistics in training mode, but leaves the running ones alone."""
        tracking = [layer.track_running_stats for layer in self._norm_layers]
        for layer in self._norm_layers:
            layer.track_running_stats = not layer.training and layer.track_running_stats
        try:
            yield
        finally:
            for layer, value in zip(self._norm_layers, tracking, strict=True):
                layer.track_running_stats = value

    def phi_loss(self, heads: StackedHeads, scale: Tensor | None, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Phi's loss through frozen weak classifiers (Algorithm 1, line 7).

        Args:
            heads: E weak classifiers.
            scale: The factor of their features; None for raw ones.
            x: m inputs.
            target: m class indices.

        Returns:
            The loss, averaged over samples and classifiers, and the logits E x m x outputs.
        """
        features = self._features(x)
        if scale is not None:
            if self.hold_scale:
                # The factor 1, whose gradient takes away that along the features' mean norm.
                norm = torch.linalg.vector_norm(features, dim=1).mean().clamp_min(torch.finfo(features.dtype).tiny)
                scale = scale * (norm.detach() / norm)
            features = features * scale
        logits = heads(features)
        return self.stacked_loss(logits, target), logits

    def stacked_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean loss over E classifiers and their samples.

        Args:
            logits: E x N x outputs.
            target: N class indices.

        Returns:
            A scalar.
        """
        if self.loss_name == "cross_entropy":
            return F.cross_entropy(logits.flatten(0, 1), target.repeat(logits.shape[0]))
        if self.num_outputs == 1:
            wanted = target.to(logits.dtype)[:, None] * 2 - 1
        else:
            wanted = F.one_hot(target, self.num_classes).to(logits.dtype)
        return (logits - wanted).square().sum(dim=2).mean()

    def classification_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss that validation and test report.

        Args:
            logits: N x K.
            target: N class indices.

        Returns:
            A scalar.
        """
        if self.loss_name == "squared" and self.num_outputs == self.num_classes:
            return self.stacked_loss(logits[None], target)
        return F.cross_entropy(logits, target)

    def class_logits(self, logits: Tensor) -> Tensor:
        """Logits with one entry a class: a single output z becomes (-z, z).

        Args:
            logits: ... x outputs.

        Returns:
            ... x K.
        """
        return torch.cat([-logits, logits], dim=-1) if self.num_outputs == 1 else logits

    def update_phi(self, optimizer: LightningOptimizer, loss: Tensor, flush: bool = False) -> None:
        """Adds a chunk's gradient and, after ``accumulate`` of them, updates and projects phi.

        Args:
            optimizer: phi's optimizer.
            loss: The chunk's loss.
            flush: Whether to update now, since the epoch ends.
        """
        self._accumulated += 1
        ready = self._accumulated >= self.accumulate or flush
        self.manual_backward(loss / self.accumulate if self.accumulate > 1 else loss)
        if not ready:
            return
        if self._accumulated < self.accumulate:  # the epoch's last chunks: still the mean of what there is
            for parameter in self.trainable_parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.accumulate / self._accumulated)
        self._accumulated = 0
        optimizer.step()
        optimizer.zero_grad()
        self.project()
        # Mixed precision keeps phi's weights in half precision for the whole step; they have just changed.
        torch.clear_autocast_cache()
        if self.lr_scheduler_interval == "step":
            self._step_scheduler()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips phi's gradient, which mixed precision has unscaled by now.

        Args:
            optimizer: phi's optimizer.
        """
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.trainable_parameters(), self.clip_norm)

    @torch.no_grad()
    def project(self) -> None:
        """Max-norm projection: every output unit's incoming weight vector gets a norm of at most ``max_norm``."""
        if self.max_norm is None:
            return
        for weight in self._projected:
            norm = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)
            weight.mul_((self.max_norm / norm).clamp_(max=1.0))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Phi's optimizer and its scheduler, which the module steps by itself.

        Returns:
            What Lightning expects.
        """
        optimizer = self.build_optimizer(self.trainable_parameters())
        if self.lr_scheduler_callable is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.lr_scheduler_callable(optimizer)}}

    def _step_scheduler(self) -> None:
        scheduler = self.lr_schedulers()
        if scheduler is None or isinstance(scheduler, list):
            return
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            monitor = getattr(scheduler, "monitor", "val/error")
            if monitor not in self.trainer.callback_metrics:
                known = ", ".join(self.trainer.callback_metrics)
                raise ConfigError(f"the scheduler monitors {monitor!r}, which is not logged; there are: {known}")
            scheduler.step(self.trainer.callback_metrics[monitor])
        else:
            scheduler.step()

    def _watch_solution(self, solution: HeadSolution, norm: Tensor) -> None:
        if solution.losses.device.type != "cpu" and self.global_step % self.log_interval:
            return
        inner, size = float(solution.losses.max()), float(norm)
        if size == 0:
            raise DivergenceError(
                f"all features of b are zero in epoch {self.current_epoch} at step {self.global_step}: every unit "
                "of the feature layer is dead, and no gradient brings it back. A smaller learning rate of the "
                "optimizer, or a wider feature layer, is the usual remedy; the checkpoints written before are kept"
            )
        if math.isfinite(inner) and math.isfinite(size):
            return
        if not math.isfinite(size):
            raise DivergenceError(
                f"the features are NaN or infinite in epoch {self.current_epoch} at step {self.global_step}: phi "
                "diverged, or the inputs hold such values. A smaller learning rate of the optimizer or a smaller "
                "max_norm is the usual remedy; the checkpoints written before are kept"
            )
        raise DivergenceError(
            f"the weak classifiers diverged in epoch {self.current_epoch} at step {self.global_step} (inner loss "
            f"{inner}, mean feature norm {size:.3g}). A smaller inner_rate, or feature_scale in place of raw features, "
            "is the usual remedy; the checkpoints written before are kept"
        )

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's training figures and steps an epoch-wise scheduler."""
        super().on_train_epoch_end()
        if self.lr_scheduler_interval == "epoch":
            self._step_scheduler()

    # -- evaluation --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Draws the weak classifiers of the validation, the same images in every epoch and on every rank."""
        source = self._source or source_for(self.trainer, self.num_classes, self.device) or self._latest
        if source is None:
            if self.trainer.sanity_checking:  # Lightning has not made the training loader yet: only phi is tried
                return
            raise DataError(
                "FOCA's validation draws weak classifiers from the training set, of which nothing is known here: "
                "validate during fit, or with one of this package's data modules"
            )
        key = ("foca-validation", global_seed())
        features, labels = self.draw_features(source, self.val_classifiers, *key)
        solution, scale, _ = self.solve_classifiers(features, labels, self.val_classifiers, *key)
        heads = solution.heads if scale is None else solution.heads.scaled_features(scale)
        # b lies class by class.
        means = features.view(self.val_classifiers, self.num_classes, self.samples_per_class, -1).mean(dim=(0, 2))
        # They see the whole validation set: plain weights are the faster form then.
        self._validation = (heads.multiplied_out(), means)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to ``val/error`` (mean logits of weak classifiers) and ``val/ncm_error`` (nearest class mean).

        Args:
            batch: Inputs and class indices.
            batch_idx: Number of the batch.
            dataloader_idx: Number of the loader.
        """
        x, target = batch[0], batch[1]
        features = self.add_statistics(x, target)
        if self._validation is None:
            return
        heads, means = self._validation
        logits = self.class_logits(heads(features).mean(dim=0))
        self.val_sums.update(self.classification_loss(logits, target), logits, target)
        # -|f - mu|^2 up to what is the same for all classes.
        nearest = 2 * features @ means.T - means.square().sum(dim=1)
        self.ncm_sums.update(torch.zeros((), device=self.device), nearest, target)

    def add_statistics(self, x: Tensor, target: Tensor) -> Tensor:
        """Features of a batch; the statistics layer's activation is added to the stage's statistics.

        Args:
            x: Inputs.
            target: Class indices.

        Returns:
            Features N x D in float32.
        """
        output = self(x, (self.statistics_layer,))
        self.update_statistics(output.activations[self.statistics_layer], target)
        features: Tensor = output.features.flatten(1)
        return features if features.dtype == torch.float64 else features.float()

    def on_validation_epoch_end(self) -> None:
        """Logs the validation's figures."""
        if self._validation is None:
            self._statistics = []
            return
        ncm = self.ncm_sums.compute()["error"]
        self.ncm_sums.reset()
        self._validation = None
        self.end_evaluation("val", self.val_sums, {"ncm_error": ncm})

    def on_test_start(self) -> None:
        """Trains the secondary head first where the checkpoint holds none."""
        self.ensure_head()

    def on_predict_start(self) -> None:
        """Trains the secondary head first where the checkpoint holds none."""
        self.ensure_head()

    def ensure_head(self) -> None:
        """Solves the secondary head unless it is trained already.

        Raises:
            DataError: If it is not, and there is no training set to solve it on.
        """
        if bool(self.head_trained):
            return
        from lightning_repshape.modules.foca.secondary import SecondaryOptimization

        try:
            SecondaryOptimization().solve(self.trainer, self)
        except (DataError, MisconfigurationException) as error:
            raise DataError(
                "the secondary head of this FOCAModule is not trained, and there is no training set to train it on: "
                "fit first, load a checkpoint that a finished fit left, or give a data module with a training set"
            ) from error

    @property
    def secondary_options(self) -> dict[str, Any]:
        """Arguments of :func:`lightning_repshape.functional.stacked_heads.solve_head` for the secondary head."""
        return {
            "num_classes": self.num_classes,
            "hidden": self.secondary_hidden,
            "feature_norm": self.secondary_feature_norm,
            "updates": self.secondary_updates,
            "rate": self.secondary_rate,
            "momentum": self.secondary_momentum,
            "lam": self.secondary_weight_decay,
            "init_std": self.init_std,
            "batch_size": self.secondary_batch_size,
            "loss": self.loss_name,
            "seed": key_to_seed("secondary", global_seed()),
        }
