"""Settings of the process that make small networks fast."""

import ctypes
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Callback
from torch import nn

_NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
OPTIMIZER_HOOKS = ("backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def quiet_cuda_checks() -> None:
    """Makes ``torch.cuda.is_available()`` cheap again on machines without a GPU.

    Importing Lightning switches that check to NVML, which takes some 150 microseconds a call where a CUDA build of
    PyTorch finds no GPU, and optimizers ask at every step.
    """
    if os.environ.get(_NVML_CHECK) == "1" and not torch.cuda.is_available():
        os.environ[_NVML_CHECK] = "0"


def overrides(callback: Callback, hook: str) -> bool:
    """Whether a callback's class has a hook of its own in place of that of ``Callback``, which does nothing."""
    return getattr(type(callback), hook, None) is not getattr(Callback, hook)


def skip_idle_hooks(callbacks: Iterable[Callback]) -> None:
    """Lets Lightning skip the hooks of a training step that do nothing, those of other people's callbacks too.

    Lightning enters a profiler's context for every callable hook of every callback, which with ten callbacks costs more
    than the step of a small network. A hook that a callback's class has from ``Callback`` itself becomes None on the
    callback, and Lightning does not call it. Hooks of subclasses, and those set on a callback, stay.
    """
    for callback in callbacks:
        for hook in STEP_HOOKS:
            if not overrides(callback, hook):
                vars(callback).setdefault(hook, None)


def has_convolutions(module: nn.Module) -> bool:
    """Whether a module holds a convolution, the sign that its steps are long enough to share among threads."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
    return any(isinstance(child, kinds) for child in module.modules())


def choose_threads(module: nn.Module) -> int:
    """The CPU threads that a network's training gains from: 1 without convolutions, else what PyTorch has chosen.

    Steps of networks without convolutions take about a millisecond; there a second thread gains little, and waiting for
    one that shares its core with another process costs whole time slices.
    """
    return torch.get_num_threads() if has_convolutions(module) else 1


def choose_precision(module: nn.Module, accelerator: str = "auto") -> Literal["bf16-mixed", "32-true"]:
    """The precision that a network's training gains from: bfloat16 products for convolutions where they are fast.

    On a CPU that is where it has AMX (two to three times faster), on an NVIDIA GPU from compute capability 8.0 on.
    Steps of networks without convolutions are too short to gain. ``accelerator`` is the trainer's.
    """
    if not has_convolutions(module):
        return "32-true"
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if on_gpu and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = accelerator in ("cpu", "auto") and _has_amx()
    return "bf16-mixed" if fast else "32-true"


def _has_amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:  # another system than Linux
        return False


def keep_freed_memory() -> None:
    """Makes the C library keep freed memory for the next step.

    glibc hands the end of its heap, and blocks above a size, back to the system as soon as they are freed, and takes
    them again page by page. Activations of small convolutional nets, blocks of a few MB, go that way at every step,
    which makes the CPU's step of ``ConvNet`` an eighth longer (``benchmarks/freed_memory.py``). Afterwards up to 1 GB
    that is free stays with the process. Other C libraries and GPUs have nothing to gain and lose nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # as much as glibc allows; larger blocks still go at once
    mallopt(_M_TRIM_THRESHOLD, 2**30)
