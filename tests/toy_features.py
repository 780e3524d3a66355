"""Features and labels that several tests are tried on."""

import torch
from torch import Tensor


def clusters(rows: int, width: int, classes: int, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Classes of different sizes, correlated features of different scales."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.cat(
        [torch.arange(classes), torch.randint(0, classes, (rows - classes,), generator=rng) ** 2 % classes]
    )
    centers = torch.randn(classes, width, generator=rng, dtype=torch.float64)
    mixing = torch.randn(width, width, generator=rng, dtype=torch.float64)
    noise = torch.randn(rows, width, generator=rng, dtype=torch.float64) @ mixing
    return centers[labels] * 3 + spread * noise + 5, labels


def layer(samples: int = 60, units: int = 7, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (samples,), generator=generator)
    centers = 2 * torch.randn(classes, units, generator=generator)
    return (centers[y] + torch.randn(samples, units, generator=generator)).relu_(), y
