"""Options that had other names: runs made before go on, and users are told the new names."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_runs import QUIET, SMALL, checkpoint, metrics

from lightning_repshape.cli import main
from lightning_repshape.cli.training import parser_of
from lightning_repshape.errors import ConfigError
from lightning_repshape.modules.foca.renamed import RENAMED

WORDS = ["--model", "FOCAModule", "--model.backbone", "MLP", "--model.backbone.widths", "[8, 8]"]
WORDS += ["--data", "DigitsDataModule", "--data.batch_size", "400", "--data.val_size", "0"]
NESTED = {name.split(".")[0] for name in RENAMED.values() if "." in name}


def aged(options: dict[str, Any]) -> dict[str, Any]:
    """A module's options under the names that they had before."""
    old = {name: value for name, value in options.items() if name not in NESTED}
    for before, now in RENAMED.items():
        group, _, leaf = now.rpartition(".")
        if not group and now in old:
            old[before] = old.pop(now)
        elif leaf in (options.get(group) or {}):
            old[before] = options[group][leaf]
    return old


@pytest.fixture
def old_run() -> Path:
    """A run that looks as if it had been made before the renaming."""
    assert main(["fit", *WORDS, *SMALL, "--run_dir", "run", "--then_test", "true"]) == 0
    run = Path("run")
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["model"]["init_args"] = aged(content["model"]["init_args"])
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    for name in ("best", "last"):
        saved = checkpoint("run", name)
        saved["hyper_parameters"] = aged(saved["hyper_parameters"])
        torch.save(saved, run / "checkpoints" / f"{name}.ckpt")
    assert set(RENAMED) & set(content["model"]["init_args"])
    return run


@pytest.mark.proof
def test_a_run_made_before_is_read_and_goes_on(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tested = metrics("run")["test/error"]
    assert main(["test", "--run_dir", "run", *QUIET]) == 0, capsys.readouterr().err
    assert metrics("run")["test/error"] == tested
    assert main(["predict", "--config", "run/config.yaml", "--ckpt_path", "run/checkpoints/last.ckpt", *QUIET]) == 0
    assert main(["analyze", "--run_dir", "run", "--analyses", "weight_separability", *QUIET]) == 0
    assert Path("run/analysis/index.html").is_file()
    words = ["--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3", "--then_test", "false"]
    assert main(["fit", *words, *QUIET]) == 0, capsys.readouterr().err
    assert checkpoint("run")["epoch"] == 2
    assert math.isfinite(metrics("run")["train/loss"])
    assert "replaces the one given" not in capsys.readouterr().err
    assert not Path("run-2").exists()


def test_an_old_name_that_a_user_writes_is_answered_with_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    old = next(iter(RENAMED))
    answer = f"model: FOCAModule has no option {old!r}; it is called {RENAMED[old]!r} now"
    assert main(["fit", *WORDS, f"--model.{old}", "8"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {answer}"
    parser = parser_of("fit")
    for name, now in RENAMED.items():
        with pytest.raises(ConfigError, match=f"no option '{name}'; it is called '{now}' now$"):
            parser.parse_args(["fit", *WORDS, f"--model.{name}", "8"])
    Path("mine.yaml").write_text(f"model: {{class_path: FOCAModule, init_args: {{{old}: 8}}}}")
    with pytest.raises(ConfigError, match=f"no option '{old}'.*; it is called '{RENAMED[old]}' now$"):
        parser.parse_args(["fit", "--config", "mine.yaml", *WORDS[2:]])
