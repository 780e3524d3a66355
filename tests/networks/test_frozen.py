"""Backbones that stay as they are, whole or but for some parts."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import QUIET, checkpoint, same
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_repshape import (
    MLP,
    ClassVectorModule,
    ClasswiseVariance,
    DigitsDataModule,
    FeedBackwardModule,
    FOCAModule,
    MLPHead,
    RegularizedModule,
    SupervisedModule,
)
from lightning_repshape.cli import main
from lightning_repshape.errors import ConfigError
from lightning_repshape.networks import Backbone, FOCANet, ResNet32, TorchvisionBackbone
from lightning_repshape.networks.base import Neck

SHAPE = (1, 8, 8)
NET = partial(MLP, widths=(12, 8), batch_norm=True, dropout=0.2, frozen=True)


def state(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def changed(before: dict[str, Tensor], net: torch.nn.Module) -> set[str]:
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


def fitted(module: Any, epochs: int = 1) -> Any:
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=epochs, enable_model_summary=False, accelerator="cpu", devices=1, **options)
    trainer.fit(module, datamodule=DigitsDataModule(batch_size=200))
    return module


def test_what_is_frozen_stays_in_evaluation_mode() -> None:
    net = ResNet32(SHAPE, width=4, neck=Neck((6,)), frozen=True, trainable=("layer3.4",)).train()
    trained = {name.split(".")[0] for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {"layer3", "neck1"}  # the neck is new
    assert {name for name, part in net.named_modules() if part.training} == {
        name for name, _ in net.named_modules() if name.startswith(("layer3.4", "neck1"))
    }
    before = state(net)
    x = torch.randn(8, *SHAPE)
    net(x).sum().backward()
    torch.optim.SGD((p for p in net.parameters() if p.requires_grad), lr=0.1).step()
    moved = changed(before, net)
    assert moved and all(name.startswith(("layer3.4", "neck1")) for name in moved)
    assert any(name.endswith("running_mean") for name in moved)
    net.eval()
    assert not any(part.training for part in net.modules())


def test_names_of_torchvision() -> None:
    net = TorchvisionBackbone((3, 32, 32), frozen=True, trainable=("layer4.1",))
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained and all(name.startswith("net.layer4.1.") for name in trained)


@pytest.mark.parametrize(
    "build",
    [
        lambda: SupervisedModule(10, SHAPE, NET),
        lambda: RegularizedModule(
            10, SHAPE, NET, [ClasswiseVariance(1.0, layer="head.fc1")], head=partial(MLPHead, hidden=(8,))
        ),
        lambda: FeedBackwardModule(10, SHAPE, NET),
        lambda: ClassVectorModule(10, SHAPE, NET, embedding=6),
    ],
)
def test_only_the_head_is_trained(build: Any) -> None:
    torch.manual_seed(0)
    module = build()
    before = state(module)
    moved = changed(before, fitted(module))
    assert moved and all(name.startswith("head.") for name in moved)


def test_foca_trains_a_part_and_bounds_no_frozen_weights() -> None:
    net = partial(FOCANet, widths=(4, 6, 8), frozen=True, trainable=("conv3_1",))
    module = FOCAModule(10, SHAPE, net, val_classifiers=2)
    assert [p.shape[0] for p in module._projected] == [8]
    before = state(module)
    moved = changed(before, fitted(module))
    assert {name.split(".")[1] for name in moved if name.startswith("backbone")} == {"conv3_1"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: RegularizedModule(10, SHAPE, NET, [ClasswiseVariance(1.0, layer="fc2")]),
            "a penalty on 'fc2' moves nothing",
        ),
        (lambda: NET(SHAPE, trainable=("fc3",)), "trainable: MLP has no part 'fc3'; did you mean 'fc"),
        (lambda: NET(SHAPE, trainable=("fc1.act",)), "'fc1.act' of MLP has nothing to train"),
        (lambda: MLP(SHAPE, trainable=("fc1",)), "set frozen to true"),
        (lambda: fitted(FOCAModule(10, SHAPE, NET)), "nothing is left to train in FOCAModule: set backbone.frozen"),
        (lambda: fitted(ClassVectorModule(10, SHAPE, NET)), "nothing is left to train in ClassVectorModule"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.proof
def test_by_config_and_resumed(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained, then its head alone on the frozen network, interrupted and resumed, to the bit."""
    words = ["fit", "--config", "quickstart", "--data.train_size", "300", *QUIET]
    assert main([*words, "--trainer.max_epochs", "1", "--run_dir", "first"]) == 0
    frozen = ["--model.backbone.frozen", "true", "--init_from", "first/checkpoints/last.ckpt"]
    assert main([*words, *frozen, "--trainer.max_epochs", "2", "--run_dir", "whole"]) == 0
    assert main([*words, *frozen, "--trainer.max_epochs", "1", "--run_dir", "part"]) == 0
    again = ["--run_dir", "part", "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    assert main(["fit", *again, *QUIET]) == 0
    first, whole, part = (checkpoint(run)["state_dict"] for run in ("first", "whole", "part"))
    assert same(whole, part)
    assert {name.split(".")[0] for name in whole if not torch.equal(whole[name], first[name])} == {"head"}
    assert "in eval mode" not in capsys.readouterr().err
    assert isinstance(MLP(SHAPE), Backbone)
