"""A run folder and a checkpoint are data: nothing is imported or called because they say so."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_runs import QUIET, checkpoint, metrics

from lightning_repshape.cli import main
from lightning_repshape.runs.trust import names_in, strangers

SCHEDULE = "torch.optim.lr_scheduler.LambdaLR"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    words = ["--model", "SupervisedModule", "--model.backbone", "MLP", "--model.backbone.widths", "[8]"]
    words += ["--data", "DigitsDataModule", "--data.train_size", "100", "--data.val_size", "0"]
    assert main(["fit", *words, *QUIET, "--trainer.max_epochs", "1", "--run_dir", str(run)]) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def scheduled(value: Any) -> dict[str, Any]:
    return {"lr_scheduler": {"class_path": SCHEDULE, "init_args": {"lr_lambda": value}}}


CRAFTED = {
    "model": ({"_class_path": "trap.SupervisedModule"}, "trap.SupervisedModule"),
    "instantiator": ({"_instantiator": "trap.instantiate_module"}, "trap.instantiate_module"),
    "callable": (scheduled({"class_path": "trap.MLP", "init_args": {"expr": "1"}}), "trap.MLP"),
    "function": (scheduled("trap.anything"), "trap.anything"),
    "library": (scheduled({"class_path": "torch.os.popen", "init_args": {"cmd": "touch sprung"}}), "torch.os.popen"),
    "text": ({"lr_scheduler": f"{{class_path: {SCHEDULE}, init_args: {{lr_lambda: trap.f}}}}"}, "trap.f"),
    "file": ({"head": "head.yaml"}, "trap.LinearHead"),
    "options": ({"optimizer": {"class_path": "torch.optim.SGD", "dict_kwargs": {"lr": ["trap.lr"]}}}, "trap.lr"),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_checkpoint_imports_nothing(
    case: str, run: Path, trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, named = CRAFTED[case]
    (tmp_path / "head.yaml").write_text("class_path: trap.LinearHead")
    saved = checkpoint(str(run), "best")
    saved["hyper_parameters"] |= changes
    torch.save(saved, "crafted.ckpt")
    for words in (["test"], ["fit"], ["test", "--trust"]) if case == "model" else (["test"],):
        assert main([*words, "--run_dir", str(run), "--ckpt_path", "crafted.ckpt", *QUIET]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: crafted.ckpt names {named}, which the config does not")
    assert not trap.exists() and "trap" not in sys.modules
    if case == "callable":  # one that no command line wrote is parsed in another way
        del saved["hyper_parameters"]["_class_path"]
        torch.save(saved, "crafted.ckpt")
        assert main(["test", "--run_dir", str(run), "--ckpt_path", "crafted.ckpt", *QUIET]) == 1
        assert not trap.exists()


def test_a_run_from_elsewhere_imports_nothing_unless_it_is_trusted(
    run: Path, trap: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["model"]["init_args"]["backbone"]["class_path"] = "trap.MLP"
    content["trust"] = True  # nobody but the user says so
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    by_config = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    calls = [[name, "--run_dir", str(run)] for name in ("test", "validate", "predict", "analyze")]
    calls += [["fit", "--run_dir", str(run), "--ckpt_path", "last"], ["test", *by_config], ["test", *by_config[2:]]]
    for words in calls:
        assert main([*words, *QUIET]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: {run / 'config.yaml'} names trap.MLP: no classes of this package")
        assert "--trust" in error
    (run / "manifest.json").rename(run / "elsewhere.json")  # what makes it a run is no less anybody's
    assert main(["test", "--run_dir", str(run), "--ckpt_path", "best", *QUIET]) == 2
    (run / "elsewhere.json").rename(run / "manifest.json")
    assert not trap.exists() and "trap" not in sys.modules
    assert main(["test", "--run_dir", str(run), "--trust", *QUIET]) == 0
    assert trap.exists() and "test/error" in metrics(str(run))


def test_what_the_user_names_needs_no_trust(run: Path, trap: Path) -> None:
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["model"]["init_args"]["backbone"]["class_path"] = "trap.MLP"
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    assert main(["test", "--run_dir", str(run), "--model.backbone=trap.MLP", *QUIET]) == 0
    assert trap.exists()


def test_names_are_found_wherever_the_parser_finds_them(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("{a: more.in_file}")
    cycle: list[Any] = ["in_a.cycle"]
    cycle.append(cycle)
    deep = {"a": [{"b": ("deep.er",)}], "c": "[in.text, '{d: text.in_text}']", "e": "more.yaml", "f": cycle}
    deep |= {"date": "{d: 2001-99-99, x: after.date}", "no": ["a b.c", "val/error", "1.5", "../x.y", "x.", 3, None]}
    found = names_in(deep, [tmp_path])
    assert set(found) == {
        *("deep.er", "in.text", "text.in_text", "more.yaml", "more.in_file", "in_a.cycle", "after.date")
    }
    bomb = "a: &a [x.y, x]\n" + "".join(
        f"{chr(code + 1)}: &{chr(code + 1)} [{', '.join(['*' + chr(code)] * 9)}]\n" for code in range(97, 121)
    )
    assert names_in(bomb) == ["x.y"]


def test_what_is_a_stranger() -> None:
    ours = [
        "lightning_repshape.MLP",
        "lightning_repshape.networks.mlp.MLP",
        "lightning_repshape.loggers.MetricsCSVLogger",
    ]
    libraries = [SCHEDULE, "torch.nn.ReLU", "lightning.pytorch.cli.ReduceLROnPlateau", "torchmetrics.MeanMetric"]
    libraries += ["lightning.pytorch.callbacks.EarlyStopping", "lightning.pytorch.loggers.CSVLogger"]
    assert strangers([*ours, *libraries, "no_such_module.Class", "pairs.txt"], []) == []
    others = ["lightning_repshape.cli.main", "lightning_repshape.cli.training.RepshapeCLI", "torch.os.popen"]
    others += ["lightning.pytorch.cli.LightningCLI", "torch.hub.load", "this.s", "subprocess.Popen", "builtins.eval"]
    others += ["lightning_repshape.training_cli.RepshapeCLI", "lightning_repshape.data.download.os.system"]
    assert strangers(others, ["other.name"]) == others
    assert strangers(others, others) == []
