"""What the command line answers by itself: help, version, configs, tracebacks."""

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_repshape.cli import main
from lightning_repshape.configs_library import names


def test_help_and_version_need_no_lightning() -> None:
    code = (
        "import sys; from lightning_repshape.cli import main;"
        "main(['--help']); main(['--version']); main(['configs', 'list']);"
        "sys.exit(int('lightning' in sys.modules or 'torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lightning-repshape fit --config quickstart" in done.stdout
    assert "quickstart" in done.stdout


def test_help_of_a_command_names_our_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--run_dir", "--then_test", "--init_from", "--threads", "--ckpt_path", "--print_config"):
        assert option in text


def test_configs_are_shown_and_copied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["configs", "show", "quickstart"]) == 0
    shown = capsys.readouterr().out
    assert "DigitsDataModule" in shown
    assert main(["configs", "copy", "quickstart", "mine.yaml"]) == 0
    assert (tmp_path / "mine.yaml").read_text() == shown
    assert main(["configs", "copy", "quickstart", "mine.yaml"]) == 2  # never overwritten
    assert main(["configs", "show", "quikstart"]) == 2
    assert "did you mean 'quickstart'" in capsys.readouterr().err


def test_every_shipped_config_has_a_description() -> None:
    from lightning_repshape.configs_library import description

    assert all(len(description(name)) > 20 for name in names())


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "fit", "--config", "quickstart", "--data.batch_size", "0"]) == 2
    assert "Traceback" in capsys.readouterr().err
