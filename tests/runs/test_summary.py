"""The table at the end and metrics.json keep all figures, of other people's modules too."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape.callbacks import ResultTable, RunRecord


class Regression(LightningModule):
    """Logs what comes to its author's mind."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.net(batch[0]).square().mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", 0.5)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        for name, value in {"test_acc": 0.75, "test/accuracy": 93.2, "test/mean_squared_error": 3.25}.items():
            self.log(name, value)
        self.log("test/by/class/0", 0.125)
        self.log("mAP", 0.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_all_figures_of_a_foreign_module_are_kept_as_they_are(tmp_path: Path) -> None:
    text = io.StringIO()
    loader = DataLoader(TensorDataset(torch.randn(8, 3)), batch_size=4)
    trainer = Trainer(
        max_epochs=1, default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[RunRecord(tmp_path), ResultTable(Console(file=text, width=120))],
    )  # fmt: skip
    module = Regression()
    trainer.fit(module, loader, loader)
    fitted = json.loads((tmp_path / "metrics.json").read_text())
    assert fitted["val_loss"] == 0.5 and "loss" in fitted
    trainer.test(module, loader, verbose=False)
    tested = {"test_acc": 0.75, "test/accuracy": 93.2, "test/mean_squared_error": 3.25, "mAP": 0.5}
    tested["test/by/class/0"] = 0.125
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert {key: found[key] for key in tested} == tested and found["val_loss"] == 0.5
    table = text.getvalue()
    for label, value in {"test acc": "0.75", "accuracy": "93.2", "mean squared error": "3.25", "mAP": "0.5"}.items():
        assert any(label in line and line.split()[-1:] == [value] for line in table.splitlines()), (label, table)
    assert "by/class/0" in table and "%" not in table

    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader, loader)  # other weights than those that were tested
    resumed = json.loads((tmp_path / "metrics.json").read_text())
    assert not set(tested) & set(resumed) and "loss" in resumed


def test_fractions_of_this_package_are_shown_in_percent_and_named_once(tmp_path: Path) -> None:
    from lightning_repshape import SupervisedModule
    from lightning_repshape.networks import MLP

    text = io.StringIO()
    loader = DataLoader(TensorDataset(torch.randn(8, 1, 2, 2), torch.arange(8) % 2), batch_size=4)
    trainer = Trainer(
        max_epochs=1, default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[RunRecord(tmp_path), ResultTable(Console(file=text, width=120))],
    )  # fmt: skip
    module = SupervisedModule(2, (1, 2, 2), MLP)
    trainer.fit(module, loader, loader)
    trainer.test(module, loader, verbose=False)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert "val/error" in found and "val_error" not in found and "train_loss" not in found
    assert f"{100 * found['test/error']:.2f} %" in text.getvalue()


def test_what_is_printed_is_calm_at_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lightning_repshape import SupervisedModule
    from lightning_repshape.networks import MLP
    from lightning_repshape.runs.summary import EpochBar, ModelTable

    text = io.StringIO()
    figures = {f"some/figure_{number}": float(number) for number in range(60)}

    class Named:
        name = "some"

    class Some(Callback):
        outcome = Named()

        def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.log_dict({f"test/{key}": value for key, value in figures.items()})

    def headline(found: Mapping[str, float], classes: int) -> list[tuple[str, str]]:
        assert found == figures
        return [("what matters", "7 %")]

    bar = EpochBar()
    loader = DataLoader(TensorDataset(torch.randn(8, 1, 2, 2), torch.arange(8) % 2), batch_size=4)
    trainer = Trainer(
        max_epochs=3, default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        callbacks=[Some(), RunRecord(tmp_path), bar, ModelTable(), ResultTable(Console(file=text, width=80), headline)],
    )  # fmt: skip
    trainer.fit(SupervisedModule(2, (1, 2, 2), MLP), loader, loader)
    model = capsys.readouterr().out.partition("Epoch")[0]
    assert "backbone: MLP" in model and "sums" not in model and "FLOPs" not in model
    assert bar._get_train_description(0).strip() == "Epoch 1/3"
    trainer.test(trainer.lightning_module, loader, verbose=False)
    lines = text.getvalue().splitlines()
    assert lines[0] == "test: SupervisedModule of MLP on given loader, 8 samples"
    assert len(lines) < 12 and max(map(len, lines[:-2])) <= 80 and "\x1b" not in text.getvalue()
    assert any(line.split() == ["what", "matters", "7", "%"] for line in lines)
    assert any(line.strip().startswith("all 60 figures of the analyses: ") for line in lines)
