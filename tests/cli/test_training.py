"""Training and reading runs as a person does, in process, on the embedded digits."""

import csv
from pathlib import Path

import pytest
import torch
from cli_runs import SMALL, fit, metrics

from lightning_repshape.cli import main
from lightning_repshape.runs.files import read_json


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    for run, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert fit("--run_dir", run, "--seed_everything", seed, "--then_test", "false") == 0
    states = [torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in "abc"]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["head.output.weight"], states[2]["head.output.weight"])


def test_later_commands_read_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    tested = metrics("runs/quickstart")["test/error"]
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert main(["test", "--run_dir", "runs/quickstart", *quiet]) == 0
    assert metrics("runs/quickstart")["test/error"] == tested
    assert main(["validate", "--config", "runs/quickstart/config.yaml", *quiet]) == 0
    assert main(["test", "--ckpt_path", "runs/quickstart/checkpoints/best.ckpt", *quiet]) == 0
    assert main(["test", "--config", "quickstart", "--run_dir", "runs/quickstart", "--ckpt_path", "last", *quiet]) == 0
    assert not Path("runs/quickstart-2").exists()
    # Untrained weights have to be asked for.
    assert main(["test", "--config", "quickstart", "--ckpt_path", "none", "--run_dir", "untrained", *quiet]) == 0
    assert metrics("untrained")["test/error"] > 0.5
    capsys.readouterr()
    assert main(["predict", "--run_dir", "runs/quickstart", *quiet]) == 0
    assert "predictions: runs/quickstart/predictions.csv" in capsys.readouterr().out
    with Path("runs/quickstart/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300
    assert list(rows[0]) == ["image", "predicted_class", "probability", "true_class"]
    wrong = sum(row["predicted_class"] != row["true_class"] for row in rows)
    assert metrics("runs/quickstart")["test/error"] == pytest.approx(wrong / 300, abs=1e-6)
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)
    assert len({row["image"] for row in rows}) == 300


def test_several_configs_compose_and_print(capsys: pytest.CaptureFixture[str]) -> None:
    Path("more.yaml").write_text(
        "trainer: {max_epochs: 7}\nmodel: {init_args: {backbone: {init_args: {widths: [12]}}}}\n"
    )
    assert main(["fit", "--config", "quickstart", "--config", "more.yaml", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "max_epochs: 7" in printed
    assert "- 12" in printed


def test_short_class_names_without_any_config() -> None:
    words = ["--model", "SupervisedModule", "--model.backbone", "MLP", "--model.backbone.widths", "[8]"]
    words += ["--data", "DigitsDataModule", "--data.batch_size", "400"]
    assert main(["fit", *words, *SMALL]) == 0
    assert Path("runs/SupervisedModule+DigitsDataModule/checkpoints/best.ckpt").is_file()


def test_fast_dev_run_leaves_nothing() -> None:
    assert fit("--trainer.fast_dev_run", "true") == 0
    assert not Path("runs").exists()


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_precisions(precision: str) -> None:
    assert fit("--trainer.precision", precision) == 0
    assert metrics("runs/quickstart")["test/error"] < 0.9


def test_the_precision_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def choose(module: torch.nn.Module, accelerator: str) -> str:
        asked.append(accelerator)
        return "bf16-mixed"

    monkeypatch.setattr("lightning_repshape.cli.training.choose_precision", choose)
    assert fit("--trainer.precision", "auto", "--trainer.accelerator", "cpu") == 0
    (session, *_) = read_json(Path("runs/quickstart/manifest.json"))["sessions"]
    assert session["precision"] == "bf16-mixed" and "precision: auto" in Path("runs/quickstart/config.yaml").read_text()
    assert main(["test", "--run_dir", "runs/quickstart", "--trainer.precision", "32-true"]) == 0
    assert set(asked) == {"cpu"}
