"""A closed terminal ends a training as SIGTERM does, and leaves those alone that were told to ignore it."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import QUIET, checkpoint, same

from lightning_repshape.cli import main

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signal")
CONFIG = """
model: {class_path: SupervisedModule, init_args: {backbone: {class_path: MLP, init_args: {widths: [12]}}}}
data: {class_path: DigitsDataModule, init_args: {batch_size: 200}}
trainer: {max_epochs: 3}
"""
FIT = ["fit", "--config", "config.yaml", *QUIET]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def hang_up(patch: pytest.MonkeyPatch, hook: str) -> None:
    """Closes the terminal in a hook of the second epoch's third batch, or when the callbacks are made."""
    from lightning_repshape.callbacks import Reseeding

    before = getattr(Reseeding, hook)

    def closed(self: Reseeding, *arguments: Any) -> Any:
        if not arguments or (arguments[0].current_epoch, arguments[-1]) == (1, 2):
            os.kill(os.getpid(), signal.SIGHUP)
        return before(self, *arguments)

    def made(self: Reseeding) -> None:
        closed(self)

    def begun(self: Reseeding, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        closed(self, trainer, pl_module, batch, batch_idx)

    patch.setattr(Reseeding, hook, made if hook == "__init__" else begun)


def test_a_closed_terminal_ends_a_training_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    Path("config.yaml").write_text(CONFIG)
    with monkeypatch.context() as patch:
        hang_up(patch, "on_train_batch_start")
        assert main([*FIT, "--run_dir", "parts"]) == 129
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    assert json.loads(Path("parts/manifest.json").read_text())["sessions"][-1]["status"] == "interrupted"
    assert checkpoint("parts")["epoch"] == 0
    assert main([*FIT, "--run_dir", "parts", "--ckpt_path", "last"]) == 0
    assert main([*FIT, "--run_dir", "whole"]) == 0
    assert same(checkpoint("whole")["state_dict"], checkpoint("parts")["state_dict"])


def test_nohup_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Path("config.yaml").write_text(CONFIG)
    hang_up(monkeypatch, "on_train_batch_start")
    assert main([*FIT, "--run_dir", "run"]) == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_terminal_that_is_closed_before_the_training_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    Path("config.yaml").write_text(CONFIG)
    hang_up(monkeypatch, "__init__")
    assert main([*FIT, "--run_dir", "run"]) == 129
    assert "interrupted" in capsys.readouterr().err
    assert not Path("run").exists()


def test_nohup_is_kept_by_a_study() -> None:
    from lightning_repshape.cli import study

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGTERM)
    with study._listening():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is study._end
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("fit", "interrupted; fit goes on with --run_dir RUN --ckpt_path last\n"),
        ("study", "interrupted; the same command goes on\n"),
        ("analyze", "interrupted\n"),
    ],
)
def test_what_goes_on(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[main.__module__], "dispatch", interrupt)
    assert main([command, "run"]) == 130
    assert capsys.readouterr().err == said
