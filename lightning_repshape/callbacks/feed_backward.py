"""Feed-backward reconstruction inside any LightningModule, and e(W), loss and accuracy by step."""

from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_repshape import plots
from lightning_repshape.callbacks.added_term import AddedTerm, HoldsHook, labels_of
from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.features.last_layer import find_last_linear, weight_matrix
from lightning_repshape.features.reader import Unpack
from lightning_repshape.functional.class_statistics import class_indices
from lightning_repshape.functional.reconstruction import weight_separability
from lightning_repshape.losses import FeedBackwardReconstruction
from lightning_repshape.metrics.separability import too_few_features
from lightning_repshape.modules.base import ClassifierModule
from lightning_repshape.modules.feed_backward import FeedBackwardModule
from lightning_repshape.plots import save_figure
from lightning_repshape.runs.files import plain_number, write_json
from lightning_repshape.runs.folders import analysis_folder
from lightning_repshape.runs.record import run_folder


class FeedBackwardPenalty(AddedTerm):
    """Adds the feed-backward reconstruction loss to the training of any module, without a change to its code.

    A forward hook on the last linear layer sees its input alpha and its weight W; the term's gradient reaches both, as
    if it were added to the loss, to the last bits, whatever that loss is. Networks may be compiled, without
    ``fullgraph``.

    Logged every ``log_every_n_steps`` steps: ``train/feed_backward``, with its weight, and ``train/feed_backward_raw``.

    Args:
        term: The loss with its weight, temperature and stopped gradients. Default: the paper's.
        layer: Name of the linear layer, as in ``named_modules``. Default: the last one with as many outputs as there
            are classes.
        unpack: Positions or keys of inputs and labels in a batch.
        num_classes: Number of classes, to find the layer. Default: the module's or the data module's attribute
            ``num_classes``; where neither has one, the last linear layer of the module is taken.
        accumulate: Under manual optimization, the batches whose losses the module averages before a step; automatic
            optimization tells by itself.

    Raises:
        ConfigError: At the start of training, if there is no such layer, or it has no weight matrix.

    Example:
        >>> from lightning_repshape import FeedBackwardReconstruction
        >>> penalty = FeedBackwardPenalty(FeedBackwardReconstruction(weight=0.001), layer="classifier")
    """

    def __init__(
        self,
        term: FeedBackwardReconstruction | None = None,
        layer: str | None = None,
        unpack: tuple[int | str, int | str] = (0, 1),
        num_classes: int | None = None,
        accumulate: int = 1,
    ) -> None:
        super().__init__(layer, unpack, accumulate)
        self.reconstruction = FeedBackwardReconstruction() if term is None else term
        self.num_classes = num_classes

    @property
    def state_key(self) -> str:
        """One name a layer."""
        return f"FeedBackwardPenalty[{self.layer}]"

    def find_layer(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """The last linear layer with one output a class."""
        return find_last_linear(trainer, pl_module, self.num_classes)

    def prepare(self, trainer: Trainer, pl_module: LightningModule, name: str, layer: nn.Module) -> None:
        """Refuses a layer without a weight matrix."""
        _weight_of(layer, name, pl_module)

    def term(
        self, pl_module: LightningModule, layer: nn.Module, args: tuple[Any, ...], output: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The term of a batch."""
        weight = getattr(layer, "weight")  # noqa: B009 - typed as Module
        raw = self.reconstruction.value(args[0], weight, cast(Tensor, labels))
        weighted = raw * self.reconstruction.weight
        return weighted, {"feed_backward": weighted, "feed_backward_raw": raw}


class SeparabilityCurve(HoldsHook):
    """Records e(W), e(W) of unit class vectors, loss and accuracy by training step (feed-backward paper, Fig. 3).

    Loss and accuracy are of the training batches since the point before: of this package's modules the loss they
    minimise and all samples; of other modules the loss of the last batch and, where the last linear layer runs in the
    training step, its predictions on that batch. Under several processes they are of all processes' batches. The curve
    is kept in checkpoints, so a resumed run goes on with it.

    Writes ``<run>/analysis/<name>.json`` and ``.png`` at the end of the fit, and logs ``train/weight_separability``
    and ``train/weight_separability_unit`` at every point.

    Args:
        every_n_steps: Optimizer steps from one point to the next.
        head: Name of the submodule whose weight holds the class vectors. Default: the last linear layer with as many
            outputs as there are classes.
        unpack: Positions or keys of inputs and labels in a batch, for other modules than this package's.
        name: The name of the files.

    Raises:
        ConfigError: If an option cannot work, or at the start of training, if there is no such layer.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        head: str | None = None,
        unpack: tuple[int | str, int | str] = (0, 1),
        name: str = "separability_curve",
    ) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"SeparabilityCurve: every_n_steps is {every_n_steps}, but at least 1 is needed")
        self.every_n_steps = every_n_steps
        self.head = head
        self.unpack: Unpack = unpack
        self.name = name
        self.points: dict[str, list[float]] = {key: [] for key in _CURVES}
        self._layer: nn.Module | None = None
        self._layer_name = ""
        self._logits: Tensor | None = None
        self._before = (0, 0.0, 0)

    @property
    def state_key(self) -> str:
        """One name a curve."""
        return f"SeparabilityCurve[{self.name}]"

    def state_dict(self) -> dict[str, Any]:
        """The points so far."""
        return {"points": {key: list(values) for key, values in self.points.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the points of a checkpoint."""
        self.points = {key: list(state_dict["points"].get(key, [])) for key in _CURVES}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the layer."""
        modules = dict(pl_module.named_modules())
        name = find_last_linear(trainer, pl_module, None) if self.head is None else self.head
        if name not in modules or not name:
            known = [path for path in modules if path]
            raise ConfigError(f"{type(pl_module).__name__} has no layer {name!r}{did_you_mean(name, known)}")
        self._layer, self._layer_name = modules[name], name
        warning = too_few_features(_weight_of(self._layer, name, pl_module))
        # FeedBackwardModule says it itself, with the e(W) that it logs
        if warning and not isinstance(pl_module, FeedBackwardModule):
            rank_zero_warn(f"SeparabilityCurve: {warning}")
        if not isinstance(pl_module, ClassifierModule):

            def catch(module: nn.Module, args: Any, output: Any) -> None:
                if module.training and isinstance(output, Tensor):
                    self._logits = output.detach()

            self._attach(self._layer, catch)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the initial weights."""
        self._before = (0, 0.0, 0)
        if trainer.global_step == 0:
            self._record(trainer, pl_module, float("nan"), float("nan"))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Records a point every so many steps."""
        step = trainer.global_step
        if step % self.every_n_steps or (self.points["step"] and self.points["step"][-1] >= step):
            return
        count, loss, errors = 0.0, float("nan"), float("nan")
        if isinstance(pl_module, ClassifierModule):
            sums = pl_module.train_sums
            sums.settle()
            now = (int(sums.count), float(sums.loss_sum), int(sums.errors))
            # the sums begin anew with every epoch
            before = self._before if now[0] > self._before[0] else (0, 0.0, 0)
            count, loss, errors = (new - old for new, old in zip(now, before, strict=True))
            self._before = now
        else:
            labels = class_indices(labels_of(batch, self.unpack))
            value = outputs.get("loss") if isinstance(outputs, dict) else outputs
            count = len(labels)
            batches = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            if isinstance(value, Tensor):
                loss = float(value.detach()) * batches * count
            if self._logits is not None and self._logits.dim() == 2 and len(self._logits) == count:
                errors = float((self._logits.argmax(dim=1).cpu() != labels.cpu()).sum())
        totals = torch.tensor([count, loss, errors], dtype=torch.float64, device=pl_module.device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(totals)
        count, loss, errors = totals.tolist()
        none = float("nan")
        self._record(trainer, pl_module, loss / count if count else none, 1 - errors / count if count else none)

    def _record(self, trainer: Trainer, pl_module: LightningModule, loss: float, accuracy: float) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        weight = getattr(self._layer, "weight").detach().double()  # noqa: B009 - typed as Module
        raw, unit = (float(weight_separability(weight, normalize=normalize)) for normalize in (False, True))
        values = (trainer.global_step, raw, unit, loss, accuracy)
        for key, value in zip(_CURVES, values, strict=True):
            self.points[key].append(value)
        for logger in trainer.loggers:
            figures = {"train/weight_separability": raw, "train/weight_separability_unit": unit}
            # by its epoch, a resumed run knows the rows that come anew
            logger.log_metrics({**figures, "epoch": float(trainer.current_epoch)}, step=trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the curve, also of a run that was complete when it was resumed."""
        super().on_fit_end(trainer, pl_module)
        if not trainer.is_global_zero or trainer.fast_dev_run or not self.points["step"]:  # type: ignore[attr-defined]
            return
        folder = analysis_folder(run_folder(trainer))
        curves = {key: [plain_number(value) for value in values] for key, values in self.points.items()}
        weight = getattr(self._layer, "weight")  # noqa: B009 - typed as Module
        about = {"analysis": self.name, "head": self._layer_name, "class_vectors": list(weight.shape)}
        write_json(Path(folder) / f"{self.name}.json", {**about, **curves})
        save_figure(plots.curve_figure({"": self.points}), Path(folder) / f"{self.name}.png")

    def _detach(self) -> None:
        super()._detach()
        self._logits = None


_CURVES = ("step", "raw", "unit", "loss", "accuracy")


def _weight_of(layer: nn.Module, name: str, pl_module: LightningModule) -> Tensor:
    weight = weight_matrix(layer)
    if weight is None:
        raise ConfigError(
            f"layer {name!r} of {type(pl_module).__name__} is a {type(layer).__name__} without a weight matrix; "
            "the class vectors are the rows of a linear layer's weight: name that layer"
        )
    return weight
