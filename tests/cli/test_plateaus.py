"""Schedulers that read a figure step once a value, by epochs or by steps, and go on exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import QUIET, checkpoint, same
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_repshape import DigitsDataModule
from lightning_repshape.cli import main
from lightning_repshape.errors import ConfigError
from lightning_repshape.runs.checkpoints import AtomicCheckpointIO, LastCheckpoint

CONFIG = """
model:
  class_path: {module}
  init_args:
    backbone: {{class_path: MLP, init_args: {{widths: [12]}}}}{more}
    lr_scheduler_interval: step
    lr_scheduler:
      class_path: lightning.pytorch.cli.ReduceLROnPlateau
      init_args: {{monitor: {monitor}, patience: 100}}
data: {{class_path: DigitsDataModule, init_args: {{batch_size: 100}}}}
trainer: {{max_epochs: 3, log_every_n_steps: 4, val_check_interval: 5}}
"""
FOCA = """
    weak: {hidden: [8], updates: 4}
    secondary: {hidden: [8], updates: 10}
    draw: {num_classifiers: 2, samples_per_class: 4}
    val_classifiers: 2"""


@pytest.mark.parametrize(
    ("module", "monitor", "steps"),
    [
        ("SupervisedModule", "val/loss", 6),  # two validations in each of three epochs of 12 steps
        ("SupervisedModule", "train/loss_step", 9),
        ("SupervisedModule", "train/loss", 3),  # comes with an epoch's end
        ("FOCAModule", "val/error", 6),
    ],
)
def test_a_plateau_of_steps_is_looked_for_once_a_value(module: str, monitor: str, steps: int) -> None:
    text = CONFIG.format(module=module, monitor=monitor, more=FOCA if module == "FOCAModule" else "")
    Path("config.yaml").write_text(text)
    fit = ["fit", "--config", "config.yaml", *QUIET]
    assert main([*fit, "--run_dir", "whole"]) == 0
    assert checkpoint("whole")["lr_schedulers"][0]["last_epoch"] == steps
    assert main([*fit, "--run_dir", "parts", "--trainer.max_epochs", "1"]) == 0
    assert main([*fit, "--run_dir", "parts", "--ckpt_path", "last"]) == 0
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert same(checkpoint("whole")[key], checkpoint("parts")[key]), key


def test_a_plateau_of_steps_says_what_is_not_logged() -> None:
    from lightning.pytorch.cli import ReduceLROnPlateau

    from lightning_repshape import MLP, SupervisedModule

    data = DigitsDataModule(batch_size=500)
    module = SupervisedModule(
        data.num_classes,
        data.input_shape,
        lambda shape: MLP(shape, widths=(8,)),
        lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val/nothing"),
        lr_scheduler_interval="step",
    )
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    with pytest.raises(ConfigError, match=r"monitors 'val/nothing'.*there are"):
        Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **options).fit(module, data)


class Foreign(LightningModule):
    """A module of somebody else, whose scheduler Lightning steps after an epoch's checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.layer(batch[0].float().flatten(1)), batch[1])
        self.log("loss", loss, on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=9.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "loss"}}


@pytest.mark.parametrize("limit", ["epochs", "steps"])
def test_a_foreign_module_s_plateau_goes_on_exactly(limit: str) -> None:
    torch.manual_seed(0)
    batches = [(torch.rand(8, 1, 8, 8), torch.randint(10, (8,))) for _ in range(4)]
    start = {name: value.clone() for name, value in Foreign().state_dict().items()}

    def fit(folder: str, epochs: int, ckpt_path: str | None = None) -> Trainer:
        module = Foreign()
        module.load_state_dict(start)
        trainer = Trainer(
            **{f"max_{limit}": epochs * (4 if limit == "steps" else 1)},  # type: ignore[arg-type]
            accelerator="cpu",
            logger=False,
            callbacks=[LastCheckpoint(folder)],
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    whole = fit("whole", 4)
    fit("parts", 2)
    parts = fit("parts", 4, "parts/last.ckpt")
    assert whole.lr_scheduler_configs[0].scheduler.state_dict() == parts.lr_scheduler_configs[0].scheduler.state_dict()
    assert same(whole.lightning_module.state_dict(), parts.lightning_module.state_dict())
