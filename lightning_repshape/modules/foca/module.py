"""FOCA (Sato et al., ICML 2019): step, evaluation and head in one file, since all read the step's parts."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError, DataError, DivergenceError
from lightning_repshape.functional.class_statistics import within_over_between
from lightning_repshape.functional.stacked_heads import (
    HeadRecipe,
    HeadSolution,
    StackedHeads,
    feature_scale,
    solve_head,
    solve_heads,
)
from lightning_repshape.functional.stacked_heads.recipe import check_counts
from lightning_repshape.heads import MLPHead
from lightning_repshape.metrics.classification import ClassificationSums
from lightning_repshape.modules.base import BackboneCallable, ClassifierModule
from lightning_repshape.modules.batches import single_samples_explained
from lightning_repshape.modules.foca.recipes import Draw, PhiUpdates, WeakRecipe, recipe_of, resolved
from lightning_repshape.modules.foca.renamed import RENAMED, current_options
from lightning_repshape.modules.foca.secondary import SecondaryOptimization, training_features
from lightning_repshape.modules.foca.source import BalancedSource, BatchSource, source_for
from lightning_repshape.modules.optimizers import scheduled
from lightning_repshape.modules.options import Options, SharedButOptimizer
from lightning_repshape.seeding import generator, global_seed, key_to_seed

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class FOCAModule(ClassifierModule):
    """Feature-extractor Optimization through Classifier Anonymization (FOCA).

    Every training step draws a class-balanced batch b, solves E freshly initialised weak classifiers theta on its
    frozen features (Eq. 4), and updates the feature extractor phi with their averaged loss on other samples (Algorithm
    1). theta lives for one step: it is no parameter of the module. The module therefore predicts only with the head of
    the secondary optimisation (Eq. 5), which is trained from scratch on frozen features at the end of ``fit`` and
    stored in the checkpoints.

    What is counted: one optimizer (phi's) is registered, so ``global_step``, ``max_steps``, ``every_n_train_steps`` of
    checkpoints and an ``lr_scheduler_interval`` of ``"step"`` count phi updates; a training batch brings
    ``phi.updates`` of them. Deliver ``phi.updates`` * m samples a batch: they are split into that many chunks.

    Published: k, the number of inner updates, standard deviation 0.1, head widths, u (32 updates and u = 1 on CIFAR-10,
    64 and u = 8 on CIFAR-100, k = 10). Unpublished, with defaults that train: lambda, the inner rate and momentum, m,
    the max-norm bound, phi's rate and schedule, and everything of the secondary head.

    Args:
        num_classes: Number of classes K. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, (C, H, W). Linked to ``data.input_shape`` on the command line.
        backbone: Called with ``input_shape``; gives the feature extractor phi.
        weak: How weak classifiers theta are solved.
        secondary: How the head of the secondary optimisation is trained.
        draw: The class-balanced batches b, and how many weak classifiers a step has.
        phi: How phi is updated.
        classification_loss: Softmax cross entropy, or the squared loss against one-hot targets (for two classes and
            ``weak.num_outputs`` 1: against +1 and -1).
        val_classifiers: Weak classifiers whose mean logits give ``val/error``; the paper's Fig. 1 has 256.
        optimizer: Called with phi's parameters. The paper: SGD with momentum. Default: rate 0.02, momentum 0.9.
        **kwargs: The shared options but ``optimizer``, see :class:`ClassifierModule`; with ``lr_scheduler_interval``
            ``"step"`` the scheduler steps once a phi update.

    Raises:
        ConfigError: If an option is out of range, or options exclude each other; the message says which.

    References:
        Sato, Ishikawa, Liu, Tanaka: Breaking Inter-Layer Co-Adaptation by Classifier Anonymization. ICML 2019.
    """

    takes_memberships: ClassVar[bool] = False
    fractions: ClassVar[tuple[str, ...]] = (*ClassifierModule.fractions, "ncm_error")

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        backbone: BackboneCallable,
        weak: WeakRecipe = WeakRecipe(),  # noqa: B008, it is frozen
        secondary: HeadRecipe = HeadRecipe(),  # noqa: B008
        draw: Draw = Draw(),  # noqa: B008
        phi: PhiUpdates = PhiUpdates(),  # noqa: B008
        classification_loss: Literal["cross_entropy", "squared"] = "cross_entropy",
        val_classifiers: int = 16,
        optimizer: OptimizerCallable = lambda phi: torch.optim.SGD(phi, lr=0.02, momentum=0.9),
        **kwargs: Options[SharedButOptimizer],
    ) -> None:
        for name in kwargs:
            if name in RENAMED:
                raise ConfigError(f"FOCAModule: {name} is called {RENAMED[name]} now")
        # A checkpoint of a module that was made in Python holds recipes as dictionaries.
        secondary = recipe_of(HeadRecipe, "secondary", secondary)

        def secondary_head(num_features: int, outputs: int) -> nn.Module:
            return MLPHead(num_features, outputs, hidden=secondary.hidden)

        super().__init__(
            num_classes=num_classes,
            input_shape=input_shape,
            backbone=backbone,
            head=secondary_head,
            optimizer=optimizer,
            **kwargs,
        )
        self.weak, self.draw = resolved(
            recipe_of(WeakRecipe, "weak", weak), recipe_of(Draw, "draw", draw), self.num_classes
        )
        self.secondary = secondary
        self.phi = recipe_of(PhiUpdates, "phi", phi)
        self.loss_name: Literal["cross_entropy", "squared"] = classification_loss
        self.val_classifiers = val_classifiers
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
        self._first_norm: Tensor | None = None
        self._last_norm: Tensor | None = None
        self._warned = False
        self._norm_layers = [module for module in self.backbone.modules() if isinstance(module, _BATCH_NORM)]
        self._projected = [parameter for parameter in self.trainable_parameters() if parameter.dim() > 1]

    def _check_options(self) -> None:
        """What recipes cannot check by themselves."""
        check_counts("FOCAModule: ", val_classifiers=self.val_classifiers)
        weak, draw = self.weak, self.draw
        if weak.solver == "ridge" and self.loss_name != "squared":
            raise ConfigError(
                "FOCAModule: weak.solver 'ridge' minimises the squared loss; set classification_loss to 'squared'"
            )
        if weak.solver == "ridge" and draw.num_classifiers > 1 and draw.shared_batch and draw.samples_per_class == 1:
            raise ConfigError(
                "FOCAModule: with weak.solver 'ridge', draw.samples_per_class 1 and draw.shared_batch all weak "
                "classifiers of a step would be the same; set draw.shared_batch to false"
            )
        if weak.solver == "ridge" and not draw.balanced:
            rank_zero_warn(
                "FOCAModule: draw.balanced is false, so a batch b may miss a class, and weak.solver 'ridge' then pulls "
                "that class's output to 0 everywhere; balanced batches, or 'gd' with cross entropy, do not"
            )
        one_output = weak.num_outputs == 1 and self.num_classes == 2 and self.loss_name == "squared"
        if weak.num_outputs != self.num_classes and not one_output:
            raise ConfigError(
                f"FOCAModule: weak.num_outputs is {weak.num_outputs}, but must be num_classes = {self.num_classes} "
                "(or 1 for two classes under the squared loss)"
            )

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """As in Lightning; options of a checkpoint from before they stood in groups are translated."""
        local = hasattr(checkpoint_path, "read") or Path(checkpoint_path).is_file()
        content = _read(checkpoint_path, kwargs.get("weights_only") is not False) if local else {}
        known = content.get(cls.CHECKPOINT_HYPER_PARAMS_KEY) or {}
        if not RENAMED.keys() & known.keys():
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        content[cls.CHECKPOINT_HYPER_PARAMS_KEY] = current_options(known)
        file = BytesIO()
        torch.save(content, file)
        file.seek(0)
        return super().load_from_checkpoint(file, *args, **kwargs)

    @property
    def samples_per_class(self) -> int:
        """The number k, samples of each class in b."""
        return cast("int", self.draw.samples_per_class)

    # -- the step ----------------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """The secondary optimisation at the end of ``fit``; refuses what manual optimization cannot have."""
        if self.trainer.gradient_clip_val:
            raise ConfigError(
                f"FOCAModule optimizes by itself: set model.phi.clip_norm to {self.trainer.gradient_clip_val} "
                "instead of trainer.gradient_clip_val"
            )
        if self.trainer.accumulate_grad_batches != 1:
            raise ConfigError(
                f"FOCAModule optimizes by itself: set model.phi.accumulate to {self.trainer.accumulate_grad_batches} "
                "instead of trainer.accumulate_grad_batches"
            )
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined, unused-ignore]
        if any(isinstance(callback, LearningRateFinder) for callback in callbacks):
            raise ConfigError(
                "FOCAModule optimizes by itself: LearningRateFinder cannot change its learning rate; set "
                "model.optimizer.lr, and leave the callback out"
            )
        return [SecondaryOptimization(self.solve_secondary)]

    def trainable_parameters(self) -> list[nn.Parameter]:
        """phi: the backbone's parameters that require a gradient."""
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

    def on_train_start(self) -> None:
        """Finds where class-balanced batches come from; a secondary head of an earlier fit no longer fits."""
        super().on_train_start()
        self._source = source_for(self.trainer, self.num_classes, self.device)
        self._accumulated, self._latest, self._first_norm = 0, None, None
        self.head_trained.fill_(False)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        """One solve and ``phi.updates`` updates of phi (Algorithm 1, lines 4 to 7)."""
        x, target = self.unpack(batch)
        if batch_idx == 0 and len(x) < self.phi.updates:
            raise ConfigError(
                f"FOCAModule: phi.updates is {self.phi.updates}, but a batch has {len(x)} samples, which are split "
                "among the updates: give the batch size u * m, such as 100 for each update, or fewer updates"
            )
        key = (global_seed(), self.current_epoch, batch_idx, self.global_rank)
        source = self._source
        if source is None:
            source = self._latest = BatchSource(x, target, self.num_classes)
        if self.phi.draw == "replacement":
            x, target = source.uniform(len(target), generator("foca-phi", *key), augment=True)
        batches = 1 if self.draw.shared_batch else self.draw.num_classifiers
        with single_samples_explained():
            drawn, drawn_labels = self.draw_features(source, batches, "foca", *key)
        solution, scale, norm = self.solve_classifiers(drawn, drawn_labels, self.draw.num_classifiers, "foca", *key)
        self._watch_solution(solution, norm)
        self._first_norm, self._last_norm = norm if self._first_norm is None else self._first_norm, norm
        optimizer = self.optimizers()
        if not isinstance(optimizer, LightningOptimizer):
            raise ConfigError("FOCAModule takes exactly one optimizer")
        losses, logits = [], torch.empty(0)
        # Even parts, so that a short last batch brings u updates too.
        parts = min(self.phi.updates, len(x))
        chunks = list(zip(x.tensor_split(parts), target.tensor_split(parts), strict=True))
        for number, (part, labels) in enumerate(chunks):
            last = number == len(chunks) - 1
            with single_samples_explained():
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
            figures["within_over_between"] = within_over_between(drawn[0], drawn_labels[0], self.num_classes)
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
            x, y = self._draw(source, generator(*key, "b", number))
            with torch.no_grad(), self.frozen_statistics():
                features.append(self._features(x.to(kind) if x.is_floating_point() else x))
            labels.append(y)
        return torch.stack(features), torch.stack(labels)

    def _draw(self, source: BalancedSource, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        draw, training = self.draw, self.training
        augment = training and draw.augment
        if draw.balanced or not training:
            return source.balanced(self.samples_per_class, stream, draw.replacement, augment)
        return source.uniform(self.samples_per_class * self.num_classes, stream, draw.replacement, augment)

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
        wanted = self.weak.wanted_norm
        scale = feature_scale(features, wanted) if wanted is not None else None
        scaled = features if scale is None else features * scale
        indices = None
        if len(features) == 1:
            scaled, labels = scaled[0], labels[0]
            if count > 1 and self.samples_per_class > 1:
                indices = self._resamples(count, generator(*key, "resample")).to(scaled.device)
        weak = self.weak
        solution = solve_heads(
            scaled,
            labels,
            num_classes=self.num_classes,
            num_heads=count,
            hidden=weak.hidden,
            num_outputs=weak.num_outputs,
            solver="ridge" if weak.solver == "ridge" else "gd",
            loss=self.loss_name,
            reduction=weak.reduction,
            lam=weak.weight_decay,
            updates=cast("int", weak.updates),
            rate=weak.rate_at(norm, self.loss_name, labels.shape[-1]),
            momentum=weak.momentum,
            nesterov=weak.nesterov,
            init_std=weak.init_std,
            seed=key_to_seed(*key, "theta"),
            indices=indices,
            validate=False,
        )
        return solution, scale, norm

    def _resamples(self, count: int, source: torch.Generator) -> Tensor:
        """For each classifier a draw with replacement from b: as many of every class where b lies class by class."""
        if self.training and not self.draw.balanced:
            total = self.num_classes * self.samples_per_class
            return torch.randint(total, (count, total), generator=source)
        shape = (count, self.num_classes, self.samples_per_class)
        within = torch.randint(self.samples_per_class, shape, generator=source)
        first = torch.arange(self.num_classes)[:, None] * self.samples_per_class
        return (within + first).flatten(1)

    @contextmanager
    def frozen_statistics(self) -> Iterator[None]:
        """Batch normalisation uses its batch's statistics in training mode, but leaves the running ones alone.

        Unless ``draw.running_statistics`` wants them moved.
        """
        if self.draw.running_statistics:
            yield
            return
        tracking = [layer.track_running_stats for layer in self._norm_layers]
        for layer in self._norm_layers:
            layer.track_running_stats = not layer.training and layer.track_running_stats
        try:
            yield
        finally:
            for layer, value in zip(self._norm_layers, tracking, strict=True):
                layer.track_running_stats = value

    def phi_loss(self, heads: StackedHeads, scale: Tensor | None, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Phi's loss through frozen weak classifiers (Algorithm 1, line 7), and their logits E x m x outputs.

        The loss is averaged over samples and classifiers; ``scale`` is the factor of their features, None for raw ones.
        """
        features = self._features(x)
        if scale is not None:
            if self.phi.hold_scale:
                # The factor 1, whose gradient takes away that along the features' mean norm.
                norm = torch.linalg.vector_norm(features, dim=1).mean().clamp_min(torch.finfo(features.dtype).tiny)
                scale = scale * (norm.detach() / norm)
            features = features * scale
        logits = heads(features)
        return self.stacked_loss(logits, target), logits

    def stacked_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean loss over E classifiers and their samples, from logits E x N x outputs and N class indices."""
        if self.loss_name == "cross_entropy":
            return F.cross_entropy(logits.flatten(0, 1), target.repeat(logits.shape[0]))
        if self.weak.num_outputs == 1:
            wanted = target.to(logits.dtype)[:, None] * 2 - 1
        else:
            wanted = F.one_hot(target, self.num_classes).to(logits.dtype)
        return (logits - wanted).square().sum(dim=2).mean()

    def classification_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss that validation and test report."""
        if self.loss_name == "squared" and self.weak.num_outputs == self.num_classes:
            return self.stacked_loss(logits[None], target)
        return F.cross_entropy(logits, target)

    def class_logits(self, logits: Tensor) -> Tensor:
        """Logits ... x K from logits ... x outputs: a single output z becomes (-z, z)."""
        return torch.cat([-logits, logits], dim=-1) if self.weak.num_outputs == 1 else logits

    def update_phi(self, optimizer: LightningOptimizer, loss: Tensor, flush: bool = False) -> None:
        """Adds a chunk's gradient and, after ``phi.accumulate`` of them, updates and projects phi.

        ``flush`` updates now, since the epoch ends.
        """
        self._accumulated += 1
        ready = self._accumulated >= self.phi.accumulate or flush
        self.manual_backward(loss / self.phi.accumulate if self.phi.accumulate > 1 else loss)
        if not ready:
            return
        if self._accumulated < self.phi.accumulate:  # the epoch's last chunks: still the mean of what there is
            for parameter in self.trainable_parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.phi.accumulate / self._accumulated)
        self._accumulated = 0
        optimizer.step()
        optimizer.zero_grad()
        self.project()
        # Mixed precision keeps phi's weights in half precision for the whole step; they have just changed.
        torch.clear_autocast_cache()
        self._step_scheduler(epoch_end=False)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips phi's gradient, which mixed precision has unscaled by now."""
        if self.phi.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.trainable_parameters(), self.phi.clip_norm)

    @torch.no_grad()
    def project(self) -> None:
        """Max-norm projection: every output unit's incoming weight vector gets a norm of at most ``phi.max_norm``."""
        if self.phi.max_norm is None:
            return
        for weight in self._projected:
            norm = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)
            weight.mul_((self.phi.max_norm / norm).clamp_(max=1.0))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Phi's optimizer and its scheduler, which the module steps by itself."""
        optimizer = self.build_optimizer(self.trainable_parameters())
        if self.lr_scheduler_callable is None:
            return optimizer
        scheduler = scheduled(self.lr_scheduler_callable, optimizer, self.optimizer_callable)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}

    def _step_scheduler(self, epoch_end: bool) -> None:
        scheduler = self.lr_schedulers()
        if scheduler is None or isinstance(scheduler, list):
            return
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            if epoch_end or self.lr_scheduler_interval == "step":  # a step's value may come with the epoch's end
                monitor = getattr(scheduler, "monitor", "val/error")
                self.plateau_steps.step(scheduler, monitor, self.trainer, epoch_end)
        elif epoch_end == (self.lr_scheduler_interval == "epoch"):
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
                "phi.max_norm is the usual remedy; the checkpoints written before are kept"
            )
        raise DivergenceError(
            f"the weak classifiers diverged in epoch {self.current_epoch} at step {self.global_step} (inner loss "
            f"{inner}, mean feature norm {size:.3g}). A smaller weak.rate, or weak.feature_scale in place of raw "
            "features, is the usual remedy; the checkpoints written before are kept"
        )

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's figures, says what goes nowhere, and steps a scheduler that waits for epoch or figure."""
        super().on_train_epoch_end()
        error = self.trainer.callback_metrics.get("train/error")  # of all ranks
        if error is not None:
            self._warn_of_no_progress(float(error))
        self._step_scheduler(epoch_end=True)

    def _warn_of_no_progress(self, error: float) -> None:
        """One line, once a fit, where an epoch's weak classifiers did no better than chance, or features shrink."""
        if self._warned:
            return
        chance = 1 - 1 / self.num_classes
        norms = [float(norm) for norm in (self._first_norm, self._last_norm) if norm is not None]
        shrunk = len(norms) == 2 and norms[1] < 0.01 * norms[0]
        if error < 0.98 * chance and not shrunk:
            return
        self._warned = True
        found = (
            f"features have shrunk from a norm of {norms[0]:.3g} to {norms[1]:.3g}"
            if shrunk
            else f"weak classifiers were wrong on {100 * error:.0f} % of phi's samples, which is chance"
        )
        rank_zero_warn(f"FOCA goes nowhere in epoch {self.current_epoch}: {found}; {self._remedy(shrunk)}")

    def _remedy(self, shrunk: bool) -> str:
        """What of all that helps is not done yet."""
        names = ("feature_scale",) if self.weak.solver == "ridge" else ("rate", "feature_scale")
        fixed = [f"weak.{name}" for name in names if getattr(self.weak, name) != "auto"]
        if shrunk and not self.phi.hold_scale:
            return "set phi.hold_scale, or lower the optimizer's learning rate"
        if fixed:
            return f"set {' and '.join(fixed)} to 'auto', or change the optimizer's learning rate"
        if shrunk:
            return "lower the optimizer's learning rate"
        return (
            "the optimizer's learning rate may be too large or too small for this set, labels may be noise, or it "
            "takes more epochs"
        )

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
        """Adds a batch to ``val/error`` (weak classifiers' mean logits) and ``val/ncm_error`` (nearest class mean)."""
        x, target = self.unpack(batch)
        features = self.add_statistics(x, target)
        if self._validation is None:
            return
        heads, means = self._validation
        logits = self.class_logits(heads(features).mean(dim=0))
        if self.test_flip:
            logits = (logits + self.class_logits(heads(self._features(x.flip(-1))).mean(dim=0))) / 2
        self.val_sums.update(self.classification_loss(logits, target), logits, target)
        # -|f - mu|^2 up to what is the same for all classes.
        nearest = 2 * features @ means.T - means.square().sum(dim=1)
        self.ncm_sums.update(torch.zeros((), device=self.device), nearest, target)

    def add_statistics(self, x: Tensor, target: Tensor) -> Tensor:
        """Features N x D, float32; the statistics layer's activation is added to the stage's statistics."""
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
        """Solves the secondary head unless it is trained; DataError if there is no training set to solve it on.

        Under ``fast_dev_run`` it only says that it does not.
        """
        if bool(self.head_trained):
            return
        if getattr(self.trainer, "fast_dev_run", False):
            rank_zero_warn("FOCA's secondary head is not trained under fast_dev_run: these figures are a random head's")
            return
        try:
            self.solve_secondary(self.trainer)
        except (DataError, MisconfigurationException) as error:
            raise DataError(
                "the secondary head of this FOCAModule is not trained, and there is no training set to train it on: "
                "fit first, load a checkpoint that a finished fit left, or give a data module with a training set"
            ) from error

    def solve_secondary(self, trainer: Trainer) -> None:
        """Takes the features of the trainer's training set and trains the head on them (Eq. 5).

        Raises:
            DataError: If there is no training set.
            DivergenceError: If the solve did not end in finite numbers.
        """
        features = training_features(trainer, self)
        # Inference mode, in which a test runs, would leave parameters that cannot be trained again.
        with torch.inference_mode(False), torch.no_grad():
            x = features.features.to(self.device)
            solution = solve_head(
                x.clone() if x.is_inference() else x,
                features.labels.to(self.device),
                self.secondary,
                num_classes=self.num_classes,
                loss=self.loss_name,
                seed=key_to_seed("secondary", global_seed()),
            )
            if not bool(torch.isfinite(solution.losses).all()):
                raise DivergenceError(
                    "the secondary head diverged: lower secondary.rate, or leave secondary.feature_norm at a number so "
                    "that features are brought to one scale"
                )
            layers = [layer for layer in self.head.modules() if isinstance(layer, nn.Linear)]
            for layer, solved in zip(layers, solution.heads.linear_layers(), strict=True):
                layer.weight.copy_(solved.weight)
                layer.bias.copy_(solved.bias)
            self.head_trained.fill_(True)
        if trainer.world_size > 1:  # the same features give the same head everywhere but for a GPU's rounding
            for parameter in self.head.parameters():
                torch.distributed.broadcast(parameter.data, 0)


def _read(file: Any, weights_only: bool) -> dict[str, Any]:
    """A checkpoint's content; an open file stays where it was."""
    start = file.tell() if hasattr(file, "tell") else None
    content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=weights_only)
    if start is not None:
        file.seek(start)
    return content
