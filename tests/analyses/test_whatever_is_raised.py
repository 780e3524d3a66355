"""An analysis that cannot run takes neither a training nor a test down, whatever it raises."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_data import QUIET
from cli_runs import fit
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lightning_repshape.callbacks import Analysis, AnalysisInputs, AnalysisResult, LDAEigenvalues, NeuralCollapse


class Pictures(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": torch.randn(3, 4, 4), "labels": torch.tensor(index % 3)}


class LikeHuggingFace(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(48, 5)
        self.fc = nn.Linear(5, 3)

    def forward(self, **batch: Tensor) -> Tensor:
        return self.fc(self.stem(batch["pixel_values"].flatten(1)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(**batch), batch["labels"])

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("test_loss", F.cross_entropy(self(**batch), batch["labels"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return DataLoader(Pictures(), batch_size=6)

    test_dataloader = train_dataloader


class Odd(Analysis):
    kind = "odd"

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        raise KeyError("nothing of the kind")


class Undrawable(Analysis):
    kind = "undrawable"

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        def draw() -> Figure:
            raise RuntimeError("no ink")

        return AnalysisResult({"figure": 1.0}, figures={"": draw})


def test_training_and_test_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where: Any = {"layer": "stem", "unpack": ("pixel_values", "labels")}
    analyses = [LDAEigenvalues(**where), NeuralCollapse(**where, when="fit"), Odd(), Undrawable()]
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    module = LikeHuggingFace()
    trainer.fit(module)
    assert "test_loss" in trainer.test(module, verbose=False)[0]
    failures = [analysis.outcome.failure for analysis in analyses if analysis.outcome is not None]
    assert all("TypeError: " in failure and "positional argument" in failure for failure in failures[:2])
    assert failures[2:] == ["KeyError: 'nothing of the kind'", "RuntimeError: no ink"]
    found = json.loads((tmp_path / "analysis" / "undrawable.json").read_text())
    assert found["failure"] == "RuntimeError: no ink"
    assert "odd: KeyError" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--debug"]], ids=["short", "debug"])
def test_the_command_line_shows_the_traceback_with_debug(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)

    def broken(self: Any, inputs: Any) -> Any:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(LDAEigenvalues, "compute", broken)
    lda = ["--trainer.callbacks=lightning_repshape.callbacks.LDAEigenvalues", "--then_test=true"]
    assert fit("--trainer.max_epochs=1", "--run_dir=run", *lda, *words) == 0
    assert "ZeroDivisionError: by nothing" in (tmp_path / "run/analysis/lda.json").read_text()
    traceback = [record for record in caplog.records if record.name.startswith("lightning_repshape")]
    assert bool(traceback) == bool(words) and all(record.exc_info for record in traceback)
