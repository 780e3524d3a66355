"""Settings of the process that make small networks fast."""

import os

import torch
from torch import nn

_NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"


def quiet_cuda_checks() -> None:
    """Makes ``torch.cuda.is_available()`` cheap again on machines without a GPU.

    Importing Lightning switches that check to NVML, which takes some 150 microseconds a call where a CUDA build of
    PyTorch finds no GPU, and optimizers ask at every step.
    """
    if os.environ.get(_NVML_CHECK) == "1" and not torch.cuda.is_available():
        os.environ[_NVML_CHECK] = "0"


def has_convolutions(module: nn.Module) -> bool:
    """Whether a module holds a convolution, the sign that its steps are long enough to share among threads.

    Args:
        module: Any module.

    Returns:
        True where it does.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
    return any(isinstance(child, kinds) for child in module.modules())


def choose_threads(module: nn.Module) -> int:
    """The number of CPU threads that a network's training gains from.

    Steps of networks without convolutions take about a millisecond; there a second thread gains little, and waiting for
    one that shares its core with another process costs whole time slices.

    Args:
        module: The network to be trained.

    Returns:
        1 for networks without convolutions, else what PyTorch has chosen.
    """
    return torch.get_num_threads() if has_convolutions(module) else 1


def keep_freed_memory() -> None:
    """Makes the C library keep up to 64 MB of freed memory for the next step.

    glibc hands large blocks back to the system, and takes them again page by page, until it has seen a larger one
    freed. Activations of small convolutional nets come and go in blocks of a few MB: their forward and backward pass
    takes a fifth longer without this. The block below is never touched, so it takes no memory; other C libraries and
    GPUs have nothing to gain and lose nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)  # just below the 32 MB from which on nothing is kept
