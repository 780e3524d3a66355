"""A default goes with what else is chosen."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_repshape.data import DigitsDataModule
from lightning_repshape.errors import ConfigError
from lightning_repshape.modules import SupervisedModule
from lightning_repshape.modules.optimizers import fused, scheduled
from lightning_repshape.networks import MLP


def fit(optimizer: type[torch.optim.Optimizer], **options: object) -> torch.optim.Optimizer:
    data = DigitsDataModule(train_size=64, batch_size=32)
    module = SupervisedModule(
        10, data.input_shape, backbone=lambda shape: MLP(shape, widths=[8]), optimizer=lambda p: optimizer(p, lr=0.1)
    )
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 2
    return trainer.optimizers[0]


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_gradients_are_clipped_under_mixed_precision(
    optimizer: type[torch.optim.Optimizer], precision: str, algorithm: str
) -> None:
    made = fit(optimizer, precision=precision, gradient_clip_val=1.0, gradient_clip_algorithm=algorithm)
    assert not made.defaults.get("fused")


@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 1.0}, {"precision": "bf16-mixed"}])
def test_the_rest_is_fused(options: dict[str, object]) -> None:
    assert fit(torch.optim.Adam, **options).defaults["fused"]


def test_complex_weights_are_not_fused() -> None:
    plain = torch.optim.Adam([nn.Parameter(torch.zeros(2, dtype=torch.complex64))])
    assert fused(plain) is plain


def test_a_scheduler_that_can_step_is_the_one_that_was_built() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=1.0)
    scheduler = scheduled(lambda o: torch.optim.lr_scheduler.StepLR(o, 2), optimizer, torch.optim.SGD)
    assert scheduler.optimizer is optimizer
    assert optimizer.param_groups[0]["lr"] == 1.0
    with pytest.raises(ConfigError, match="StepLR cannot step"):
        scheduled(lambda o: torch.optim.lr_scheduler.StepLR(o, 0), optimizer, torch.optim.SGD)
