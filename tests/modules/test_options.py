"""Options that modules share: declared once, shown with defaults, and what of them a checkpoint keeps."""

import inspect
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_repshape.cli import main
from lightning_repshape.modules import ClassifierModule, SupervisedModule
from lightning_repshape.modules.options import Shared, SharedButOptimizer
from lightning_repshape.networks import MLP

SMALL = partial(MLP, widths=[4])


def test_the_base_class_declares_every_shared_option() -> None:
    parameters = inspect.signature(ClassifierModule.__init__).parameters
    shared = get_type_hints(Shared)
    assert set(shared) == set(parameters) - {"self", "num_classes", "input_shape", "backbone", "head"}
    assert {name: parameters[name].annotation for name in shared} == shared
    assert set(get_type_hints(SharedButOptimizer)) == set(shared) - {"optimizer"}


@pytest.mark.parametrize(("module", "optimizer"), [("VerificationModule", "Adam"), ("FOCAModule", "SGD")])
def test_shared_options_show_their_defaults(module: str, optimizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--model", module, "--model.backbone", "MLP", "--data", "DigitsDataModule", "--print_config"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert f"class_path: torch.optim.{optimizer}" in shown
    assert "lr_scheduler_interval: epoch" in shown and "channels_last: true" in shown
    if module == "FOCAModule":
        top = shown[shown.index("model:") : shown.index("\ndata:")].split("\n")
        assert sum(line.startswith("    ") and line[4] != " " for line in top) <= 25
        assert "      feature_scale: auto" in top


def test_hyper_parameters_are_what_the_outermost_constructor_was_given(tmp_path: Path) -> None:
    class Mine(SupervisedModule):
        def __init__(self, width: int, **kwargs: Any) -> None:
            super().__init__(10, (1, 8, 8), partial(MLP, widths=[width]), label_smoothing=0.1, **kwargs)

    model = Mine(5, statistics_layer="fc1")
    assert dict(model.hparams) == {"width": 5, "statistics_layer": "fc1"} == dict(model.hparams_initial)
    runner = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    runner.strategy.connect(model)
    runner.save_checkpoint(tmp_path / "mine.ckpt")
    again = Mine.load_from_checkpoint(tmp_path / "mine.ckpt", weights_only=True)
    assert again.backbone.num_features == 5 and again.label_smoothing == 0.1
    assert again.statistics_layer == "fc1"


def test_loggers_receive_plain_hyper_parameters_alone() -> None:
    model: LightningModule = SupervisedModule(10, (1, 8, 8), SMALL, optimizer=torch.optim.SGD, lr_scheduler=None)
    assert "optimizer" not in model.hparams_initial and model.hparams_initial["num_classes"] == 10
