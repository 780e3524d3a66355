"""Modules of the package pytorch_lightning: callbacks work in its Trainer, and what does not work names the remedy."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape import ClasswiseVariance, DigitsDataModule
from lightning_repshape.callbacks import (
    FeedBackwardPenalty,
    LayerPenalty,
    LDAEigenvalues,
    NeuralCollapse,
    ResultTable,
    RunRecord,
    SeparabilityCurve,
)
from lightning_repshape.cli import main
from lightning_repshape.errors import ConfigError
from lightning_repshape.functional import cw_vr

pl = pytest.importorskip("pytorch_lightning")


class Theirs(pl.LightningModule):
    def __init__(self, extra: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        self.fc = nn.Linear(8, 10)
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.net(x))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        z = self.net(batch[0])
        loss = F.cross_entropy(self.fc(z), batch[1])
        return loss + cw_vr(z, batch[1], 10, scale=self.extra) if self.extra else loss

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, *callbacks: Any) -> Any:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **quiet)


def test_a_penalty_in_its_trainer_equals_the_added_term(tmp_path: Path) -> None:
    data = DigitsDataModule(batch_size=256)
    by_hand, found = Theirs(extra=0.7), Theirs()
    trainer(tmp_path).fit(by_hand, data.train_dataloader())
    callbacks = LayerPenalty("net", ClasswiseVariance(weight=0.7), num_classes=10), SeparabilityCurve(head="fc")
    trainer(tmp_path, *callbacks).fit(found, data.train_dataloader())
    for one, other in zip(by_hand.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    trainer(tmp_path, FeedBackwardPenalty(num_classes=10)).fit(Theirs(), data.train_dataloader())


def test_analyses_and_records_in_its_trainer(tmp_path: Path) -> None:
    data = DigitsDataModule(batch_size=256)
    loaders = {"train": data.analysis_dataloader("train")}
    analyses = [LDAEigenvalues("net", loaders=loaders), NeuralCollapse("net")]
    run = trainer(tmp_path, *analyses, RunRecord(tmp_path), ResultTable())
    module = Theirs()
    run.test(module, data.test_dataloader(), verbose=False)
    assert analyses[0].outcome is not None and analyses[0].outcome.failure == ""
    assert analyses[1].outcome is not None and "no train set" in analyses[1].outcome.failure
    assert "test_acc" in json.loads((tmp_path / "metrics.json").read_text())


def test_its_trainer_is_told_to_take_the_loaders(tmp_path: Path) -> None:
    for where in ({"train_dataloaders": DigitsDataModule()}, {"datamodule": DigitsDataModule()}):
        with pytest.raises(ConfigError, match="train_dataloader"):
            trainer(tmp_path).fit(Theirs(), **where)
    with pytest.raises(ConfigError, match="train_dataloader"):
        trainer(tmp_path).test(Theirs(), datamodule=DigitsDataModule())


def test_analyze_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = ModuleType("theirs")
    theirs.Theirs = Theirs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "theirs", theirs)
    words = ["--data", "DigitsDataModule", "--ckpt_path", "none", "--layer", "net"]
    assert main(["analyze", "--model", "theirs.Theirs", *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "theirs.Theirs at model is no LightningModule" in line and "import lightning.pytorch in its place" in line
