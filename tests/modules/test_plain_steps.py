"""Plain steps: to the bit what Lightning's own steps give, and Lightning's own wherever somebody could tell."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.profilers import SimpleProfiler
from torch import Tensor

from lightning_repshape import (
    AutoencoderModule,
    ClassVectorModule,
    ClasswiseVariance,
    DigitsDataModule,
    FeedBackwardModule,
    RegularizedModule,
    SupervisedModule,
)
from lightning_repshape.callbacks import BestCheckpoint, LastCheckpoint, Reseeding, SeparabilityCurve
from lightning_repshape.modules import ClassifierModule
from lightning_repshape.networks import MLP
from lightning_repshape.runs.checkpoints import AtomicCheckpointIO
from lightning_repshape.runs.curves import MetricsCSVLogger

Made = dict[str, Any]
network = partial(MLP, widths=(16, 16), dropout=0.2)
penalty = partial(ClasswiseVariance, weight=0.1, layer="fc2")


class Watcher(Callback):
    """Somebody's callback with a hook in every step, so that all steps are Lightning's own."""

    def on_train_batch_end(self, *args: Any) -> None:
        pass


class Logging(SupervisedModule):
    """Somebody's module, which logs from its loss."""

    def loss(self, *args: Any) -> Any:
        loss, terms = super().loss(*args)
        self.log("train/own", loss.detach())
        return loss, terms


class Quiet(SupervisedModule):
    """Somebody's module, which says that it does not."""

    plain_steps = True

    def loss(self, *args: Any) -> Any:
        return super().loss(*args)


def build(kind: type[ClassifierModule], **further: Any) -> ClassifierModule:
    torch.manual_seed(0)
    options: Made = {"num_classes": 10, "input_shape": (1, 8, 8), **further}
    if kind is AutoencoderModule:
        return AutoencoderModule(**options, widths=(12, 6), regularizers=[penalty()])
    if kind in (RegularizedModule, FeedBackwardModule):
        options["regularizers"] = [penalty()]
    return kind(**options, backbone=network)


def trained(
    folder: Path, module: LightningModule, *callbacks: Callback, resumed: str | None = None, **options: Any
) -> tuple[int, Any, Any, bytes]:
    """Lightning's own steps, the checkpoint, the loops' counters and the curves of a training."""
    seed_everything(1)
    data = DigitsDataModule(batch_size=100)
    made: Made = {"max_epochs": 2, "log_every_n_steps": 4, "num_sanity_val_steps": 0, **options}
    trainer = Trainer(
        accelerator="cpu",
        logger=MetricsCSVLogger(folder),
        callbacks=[Reseeding(), *callbacks, BestCheckpoint(folder), LastCheckpoint(folder)],
        enable_progress_bar=any(isinstance(callback, RichProgressBar) for callback in callbacks),
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        **made,
    )
    steps = trainer.fit_loop.epoch_loop.automatic_optimization
    whole, run = [], steps.run
    steps.run = lambda *arguments: whole.append(1) or run(*arguments)  # type: ignore[func-returns-value, method-assign]
    trainer.fit(module, datamodule=data, ckpt_path=resumed)
    content = torch.load(folder / "last.ckpt", weights_only=True)
    curves = (folder / "metrics.csv").read_bytes()
    return len(whole), {key: content[key] for key in ("state_dict", "optimizer_states")}, content["loops"], curves


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def by_step(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.5)


@pytest.mark.parametrize(
    "kind", [SupervisedModule, RegularizedModule, FeedBackwardModule, ClassVectorModule, AutoencoderModule, Quiet]
)
def test_plain_steps_equal_lightnings_own_to_the_bit(kind: type[ClassifierModule], tmp_path: Path) -> None:
    further = {"lr_scheduler": by_step, "lr_scheduler_interval": "step"} if kind is RegularizedModule else {}
    curve = [SeparabilityCurve(every_n_steps=3)] if kind is FeedBackwardModule else []
    options = {"val_check_interval": 5} if kind is FeedBackwardModule else {}
    few, *plain = trained(tmp_path / "a", build(kind, **further), RichProgressBar(), *curve, **options)
    curve = [SeparabilityCurve(every_n_steps=3)] if kind is FeedBackwardModule else []
    all_of_them, *own = trained(tmp_path / "b", build(kind, **further), Watcher(), *curve, **options)
    assert same(plain, own)
    # 12 batches an epoch: the first, the last, and every fourth of all
    assert (few, all_of_them) == (8, 24)


def test_a_run_resumed_within_its_plain_steps_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    _, *whole = trained(tmp_path / "a", build(SupervisedModule), max_epochs=3)
    trained(tmp_path / "b", build(SupervisedModule), max_epochs=3, max_steps=22)
    last = str(tmp_path / "b/last.ckpt")
    few, *resumed = trained(tmp_path / "b", build(SupervisedModule), max_epochs=3, resumed=last)
    assert few == 8 and same(whole[0], resumed[0])
    assert whole[2].splitlines()[-1] == resumed[2].splitlines()[-1]


@pytest.mark.parametrize(
    ("kind", "options", "callbacks"),
    [
        (SupervisedModule, {"accumulate_grad_batches": 2}, []),
        (SupervisedModule, {"gradient_clip_val": 1.0}, []),
        (SupervisedModule, {"profiler": SimpleProfiler()}, []),
        (SupervisedModule, {"log_every_n_steps": 1}, []),
        (SupervisedModule, {}, [Watcher()]),
        (Logging, {}, []),
    ],
)
def test_steps_are_lightnings_own_where_somebody_could_tell(
    kind: type[ClassifierModule], options: Made, callbacks: list[Callback], tmp_path: Path
) -> None:
    options = {"max_epochs": 1, "limit_val_batches": 0, **options}
    assert trained(tmp_path, build(kind), *callbacks, **options)[0] == 12
