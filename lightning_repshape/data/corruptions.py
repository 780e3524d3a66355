"""Corrupted images at severities 1 to 5: seventeen of the nineteen corruptions that ImageNet-C and CIFAR-C have.

Frost, which overlays the authors' photographs, and spatter, which needs OpenCV's edges, are left to the published
copies (:class:`lightning_repshape.data.CIFARC`). Definitions and constants are those of Hendrycks and Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (2019), and of the scripts of theirs
that made ImageNet-C, Tiny ImageNet-C and CIFAR-C. Nothing here knows about Lightning or about data sets.
"""

import functools
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lightning_repshape.data import distortions
from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.seeding import generator

Corruption = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "saturate",
]
ConstantsName = Literal["cifar-c", "tiny-imagenet-c", "imagenet-c"]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)
USUAL_CORRUPTIONS: tuple[Corruption, ...] = ("impulse_noise", "jpeg_compression", "defocus_blur")
SEVERITIES = (1, 2, 3, 4, 5)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class CorruptionConstants:
    """How strong the corruptions are, each by severity 1 to 5.

    Attributes:
        name: The published set whose constants they are.
        size: Rows and columns of its images.
        amount: Share of the values that impulse noise replaces.
        quality: Quality of the JPEG encoder.
        disk: Radius of the defocused disk in pixels, and standard deviation of the Gaussian that smooths its edge.
        others: Of each other corruption what its function in :mod:`lightning_repshape.data.distortions` takes.
    """

    name: ConstantsName
    size: int
    amount: tuple[float, float, float, float, float]
    quality: tuple[int, int, int, int, int]
    disk: tuple[tuple[float, float], ...]
    others: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


_CONSTANTS: tuple[CorruptionConstants, ...] = (
    CorruptionConstants(
        "cifar-c",
        32,
        (0.01, 0.02, 0.03, 0.05, 0.07),
        (80, 65, 58, 50, 40),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
        {
            "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
            "shot_noise": (500, 250, 100, 75, 50),
            "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
            "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
            "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
            "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
            "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
            "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            "snow": (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ),
            "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
            "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
            "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
            "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
            "elastic_transform": (
                (0, 0, 0.08),
                (0.05, 0.2, 0.07),
                (0.08, 0.06, 0.06),
                (0.1, 0.04, 0.05),
                (0.1, 0.03, 0.03),
            ),
        },
    ),
    CorruptionConstants(
        "tiny-imagenet-c",
        64,
        (0.01, 0.02, 0.05, 0.08, 0.14),
        (65, 58, 50, 40, 25),
        ((0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)),
        {
            "gaussian_noise": (0.04, 0.08, 0.12, 0.15, 0.18),
            "shot_noise": (250, 100, 50, 30, 15),
            "speckle_noise": (0.15, 0.2, 0.25, 0.3, 0.35),
            "gaussian_blur": (0.5, 0.75, 1, 1.25, 1.5),
            "glass_blur": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
            "motion_blur": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
            "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
            "fog": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
            "snow": (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
            ),
            "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
            "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
            "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
            "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),
            "elastic_transform": (
                (0, 0, 0.08),
                (0.05, 0.3, 0.06),
                (0.1, 0.08, 0.06),
                (0.1, 0.03, 0.03),
                (0.16, 0.03, 0.02),
            ),
        },
    ),
    CorruptionConstants(
        "imagenet-c",
        224,
        (0.03, 0.06, 0.09, 0.17, 0.27),
        (25, 18, 15, 10, 7),
        ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
        {
            "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
            "shot_noise": (60, 25, 12, 5, 3),
            "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
            "gaussian_blur": (1, 2, 3, 4, 6),
            "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
            "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
            "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
            "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
            "snow": (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
            "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
            "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
            "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
            "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
            # the script reckons with 244 pixels where images have 224
            "elastic_transform": tuple(
                tuple(244 / 224 * share for share in shares)
                for shares in (
                    (2, 0.7, 0.1),
                    (2, 0.08, 0.2),
                    (0.05, 0.01, 0.02),
                    (0.07, 0.01, 0.02),
                    (0.12, 0.01, 0.02),
                )
            ),
        },
    ),
)


def corruption_constants(of: tuple[int, int] | ConstantsName) -> CorruptionConstants:
    """The published constants for images of a size.

    There are three published sets of constants, for 32, 64 and 224 pixels. An image takes those of the size that is
    nearest by ratio to its shorter side: up to 45 pixels CIFAR-C's (so MNIST's 28, CIFAR's 32), up to 119 Tiny
    ImageNet-C's (so 64, and STL-10's 96, for which nobody has published any), above ImageNet-C's.

    Args:
        of: Rows and columns of the images, or the name of a set.

    Raises:
        ConfigError: There is no such set.

    Example:
        >>> corruption_constants((96, 96)).name
        'tiny-imagenet-c'
    """
    if isinstance(of, str):
        for known in _CONSTANTS:
            if known.name == of:
                return known
        raise ConfigError(f"there are no constants {of!r}{did_you_mean(of, get_args(ConstantsName))}")
    side = max(1, min(of))
    return min(_CONSTANTS, key=lambda known: abs(math.log(side / known.size)))


def check_corruption(corruption: str, severity: int = 1) -> None:
    """Raises ConfigError, with the nearest name, unless the corruption exists and the severity is 1 to 5."""
    if corruption not in CORRUPTIONS:
        raise ConfigError(f"there is no corruption {corruption!r}{did_you_mean(str(corruption), CORRUPTIONS)}")
    if type(severity) is not int or severity not in SEVERITIES:
        raise ConfigError(f"severity {severity} of {corruption}: severities are 1, 2, 3, 4 and 5")


def corrupt(
    images: Tensor,
    corruption: Corruption,
    severity: int,
    index: Tensor | None = None,
    seed: int = 0,
    constants: ConstantsName | None = None,
) -> Tensor:
    """Corrupts a batch of images.

    * ``impulse_noise``: salt and pepper. A share of the values (of each channel by itself) becomes 0 or 255, half and
      half. The draw depends on the seed and the image's ``index`` alone, and what a severity replaces, the next
      replaces in the same way and more.
    * ``jpeg_compression``: encoded and decoded as JPEG (by PIL, with its defaults).
    * ``defocus_blur``: the mean over a disk with a smoothed edge (:func:`defocus_kernel`), the image mirrored at its
      borders.
    * the others: see the functions of their names in :mod:`lightning_repshape.data.distortions`. What is drawn for an
      image is the same at every severity, as far as their constants allow.

    Values are rounded to whole ones (the published sets cut the fraction off, which darkens by half a step).
    ``saturate`` becomes greyer, then more colourful, so that its severities are in no order, nor are those of
    ``elastic_transform``; the published constants of ``glass_blur``, ``snow`` and ``motion_blur`` do not grow in all
    their parts.

    The result depends on nothing but the arguments: not on how a set is cut into batches, the machine or its threads.

    Args:
        images: uint8 N x H x W x C; C is 1 or 3 for JPEG and pixelate, and saturate.
        corruption: One of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        index: int64 N, the images' positions in their set, which key the draws. None: 0 to N - 1.
        seed: Seed of the draws.
        constants: The set whose constants apply. None: by the images' size, see :func:`corruption_constants`.

    Returns:
        uint8 N x H x W x C, a new tensor on the images' device; the work is done on the CPU.

    Raises:
        ConfigError: There is no such corruption, severity or set of constants.
        ValueError: ``images`` is no uint8 tensor of four dimensions, or ``index`` is of another length.

    Example:
        >>> import torch
        >>> image = torch.full((1, 32, 32, 3), 100, dtype=torch.uint8)
        >>> sorted(set(corrupt(image, "impulse_noise", 5).flatten().tolist()))
        [0, 100, 255]
    """
    check_corruption(corruption, severity)
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise ValueError(f"images must be uint8 N x H x W x C, got {images.dtype} {tuple(images.shape)}")
    if index is not None and tuple(index.shape) != (len(images),):
        raise ValueError(f"index must name one position an image, got {tuple(index.shape)} for {len(images)} images")
    height, width = images.shape[1:3]
    strength = corruption_constants(constants if constants is not None else (height, width))
    given = images.cpu()
    if not images.numel():
        return images.clone()
    if corruption == "impulse_noise":
        positions = range(len(images)) if index is None else index.tolist()
        changed = _impulse_noise(given, strength.amount[severity - 1], positions, seed)
    elif corruption == "jpeg_compression":
        changed = _jpeg(given, strength.quality[severity - 1])
    elif corruption == "defocus_blur":
        changed = _correlate(given, defocus_kernel(*strength.disk[severity - 1]))
    else:
        positions = range(len(images)) if index is None else index.tolist()
        draws = [generator(corruption, seed, position) for position in positions]
        distort: distortions.Distortion = getattr(distortions, corruption)
        values = distort(given.numpy() / 255, strength.others[corruption][severity - 1], draws)
        changed = torch.from_numpy(np.rint(255 * values.clip(0, 1)).astype(np.uint8))
    return changed.to(images.device)


def _impulse_noise(images: Tensor, amount: float, positions: Any, seed: int) -> Tensor:
    draws = torch.empty(images.shape)
    for row, position in enumerate(positions):
        draws[row].uniform_(generator=generator("impulse_noise", seed, position))
    # Salt from the upper end and pepper from the lower, so that more of them keeps those that were there.
    noisy = images.masked_fill(draws < amount / 2, 0)
    return noisy.masked_fill_(draws >= 1 - amount / 2, 255)


def _jpeg(images: Tensor, quality: int) -> Tensor:
    from PIL import Image

    channels = images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"JPEG takes images of 1 or 3 channels, got {channels}")
    coded = torch.empty_like(images)
    target = coded.numpy()
    for row, pixels in enumerate(images.numpy()):
        file = io.BytesIO()
        Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            target[row] = np.asarray(image).reshape(pixels.shape)
    return coded


@functools.cache
def _kernel(radius: float, alias_blur: float) -> Array:
    from scipy.ndimage import correlate1d

    ring = 1 if radius <= 8 else 2  # half the width of the Gaussian
    reach = math.floor(radius) + ring
    steps = np.arange(-reach, reach + 1)
    disk = (steps[:, None] ** 2 + steps[None, :] ** 2 <= radius**2).astype(np.float64)
    edge = np.exp(-(np.arange(-ring, ring + 1) ** 2) / (2 * alias_blur**2))
    for axis in (0, 1):
        disk = correlate1d(disk, edge / edge.sum(), axis=axis, mode="constant")
    kernel: Array = disk / disk.sum()
    kernel.flags.writeable = False
    return kernel


def defocus_kernel(radius: float, alias_blur: float) -> Array:
    """A disk whose edge a small Gaussian smooths: what a point becomes out of focus.

    All pixels whose centres are within the radius count alike; then a Gaussian of 3 x 3 taps (5 x 5 for radii above 8)
    passes over them.

    Args:
        radius: In pixels.
        alias_blur: Standard deviation of the Gaussian, in pixels.

    Returns:
        float64, a square with an odd side, symmetric, with sum 1; not to be written to.

    Raises:
        ValueError: The radius is negative or the standard deviation not positive.
    """
    if radius < 0 or alias_blur <= 0:
        raise ValueError(f"radius {radius} must not be negative, and alias_blur {alias_blur} must be positive")
    return _kernel(float(radius), float(alias_blur))


def _correlate(images: Tensor, kernel: Array) -> Tensor:
    from scipy.ndimage import correlate

    # In float64, since a convolution in float32 rounds differently for other batch sizes.
    values = correlate(images.numpy(), kernel[None, :, :, None], output=np.float64, mode="mirror")
    return torch.from_numpy(np.rint(values).clip(0, 255).astype(np.uint8))
