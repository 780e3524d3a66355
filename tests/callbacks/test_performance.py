"""What makes steps of small networks fast, by what can be counted rather than timed."""

import copy
import pickle
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from lightning.pytorch import Callback, Trainer

from lightning_repshape.data import DigitsDataModule
from lightning_repshape.modules import SupervisedModule
from lightning_repshape.networks import MLP, LeNet
from lightning_repshape.performance import choose_precision, skip_idle_hooks

# Ten blocks of 24 MB come and go. Pages that the system hands out anew are counted, once the heap has grown.
CODE = """
import resource
import torch
from lightning_repshape.performance import keep_freed_memory

torch.set_num_threads(1)
keep_freed_memory()
for number in range(8):
    if number == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(6 * 2**20) for _ in range(10)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.proof
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these thresholds")
def test_freed_memory_is_kept() -> None:
    """Without the setting, it is often 6,000 pages a round, but not always: that depends on what was freed before."""
    found = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True, timeout=120)
    assert int(found.stdout) < 1000


class Counts(Callback):
    """Somebody's callback with one hook."""

    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1


class CountsBefore(Counts):
    """A subclass with another one."""

    def on_train_batch_start(self, *args: Any) -> None:
        self.batches += 100


def test_idle_hooks_are_skipped_and_no_others() -> None:
    plain, more, own, mock = Counts(), CountsBefore(), Counts(), Mock(spec=Callback)
    own.on_after_backward = lambda *args: None  # type: ignore[method-assign]
    skip_idle_hooks([plain, more, own, mock])
    assert callable(plain.on_train_batch_end) and not callable(plain.on_train_batch_start)
    assert callable(more.on_train_batch_start) and callable(more.on_train_batch_end)
    assert callable(own.on_after_backward) and not callable(own.on_before_backward)
    assert callable(mock.on_train_batch_start) and callable(plain.on_validation_batch_end)
    for other in (copy.deepcopy(more), pickle.loads(pickle.dumps(more))):
        assert other.on_before_zero_grad is None and callable(other.on_train_batch_start)


def test_a_fit_skips_the_idle_hooks_of_every_callback(tmp_path: Path) -> None:
    class Late(Callback):
        def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
            trainer.callbacks.append(late)

    late = CountsBefore()
    data = DigitsDataModule(batch_size=100, train_size=200, val_size=0)
    module = SupervisedModule(10, data.input_shape, backbone=lambda shape: MLP(shape, widths=(8,)))
    first = Counts()
    Trainer(
        max_epochs=1, default_root_dir=tmp_path, callbacks=[first, Late()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, data)  # fmt: skip
    assert (first.batches, late.batches) == (2, 202)
    assert first.on_train_batch_start is None and late.on_before_backward is None


@pytest.mark.parametrize(
    ("network", "amx", "gpu", "accelerator", "expected"),
    [
        (LeNet, True, False, "auto", "bf16-mixed"),
        (LeNet, True, False, "cpu", "bf16-mixed"),
        (LeNet, False, False, "auto", "32-true"),
        (LeNet, False, True, "auto", "bf16-mixed"),
        (LeNet, False, True, "cpu", "32-true"),
        (LeNet, True, False, "mps", "32-true"),
        (MLP, True, True, "auto", "32-true"),
    ],
)
def test_precision_is_that_which_convolutions_gain_from(
    network: type, amx: bool, gpu: bool, accelerator: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_repshape.performance._has_amx", lambda: amx)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: gpu)
    assert choose_precision(network((1, 28, 28)), accelerator) == expected
