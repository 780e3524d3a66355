"""The corruptions of CIFAR-C that are more than a call: noise, blurs, weather, colours and shifts of batches of images.

Each takes images float64 N x H x W x C in [0, 1], the constants of its severity, and of what it draws one generator an
image; it returns the like, not yet clipped. Nothing depends on which images stand in a batch together: all steps are
image by image, or element by element.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]
Draws = Sequence[torch.Generator]
Distortion = Callable[[Array, Any, Draws], Array]


def _normal(draws: Draws, shape: Sequence[int]) -> Array:
    """Standard normal numbers, ``shape`` of them for each generator."""
    found: Array = torch.stack(
        [torch.empty(tuple(shape), dtype=torch.float64).normal_(generator=one) for one in draws]
    ).numpy()
    return found


def _uniform(draws: Draws, shape: Sequence[int], low: float, high: float) -> Array:
    """Numbers from ``low`` to ``high``, ``shape`` of them for each generator."""
    numbers = [torch.rand(tuple(shape), dtype=torch.float64, generator=one) for one in draws]
    found: Array = torch.stack(numbers).numpy() * (high - low) + low
    return found


def smoothed(images: Array, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> Array:
    """A Gaussian over rows and columns of N x H x W or N x H x W x C."""
    from scipy.ndimage import gaussian_filter

    sigmas = (0, sigma, sigma, 0)[: images.ndim]
    found: Array = gaussian_filter(images, sigmas, mode=mode, truncate=truncate)
    return found


# --------------------------------------------------------------------------------------------------------------- noise


def gaussian_noise(images: Array, deviation: float, draws: Draws) -> Array:
    """Adds normal numbers to every value."""
    return images + deviation * _normal(draws, images.shape[1:])


def shot_noise(images: Array, photons: float, draws: Draws) -> Array:
    """What a sensor counts of so many photons for a white pixel (Poisson)."""
    rates = torch.from_numpy(images * photons)
    counts = torch.stack([torch.poisson(rate, generator=one) for rate, one in zip(rates, draws, strict=True)])
    found: Array = counts.numpy() / photons
    return found


def speckle_noise(images: Array, deviation: float, draws: Draws) -> Array:
    """Adds normal numbers that grow with the value."""
    return images * (1 + deviation * _normal(draws, images.shape[1:]))


# --------------------------------------------------------------------------------------------------------------- blurs


def gaussian_blur(images: Array, sigma: float, draws: Draws) -> Array:
    """A Gaussian."""
    return smoothed(images, sigma)


def glass_blur(images: Array, strength: tuple[float, int, int], draws: Draws) -> Array:
    """Frosted glass: each pixel takes the value of one near it, between two Gaussians.

    (The scripts mean to swap both pixels, but copy one over the other, as is done here.)
    """
    sigma, reach, times = strength
    height, width = images.shape[1:3]
    pixels = np.floor(smoothed(images, sigma).clip(0, 1) * 255) / 255
    rows = range(height - reach, reach, -1)
    columns = range(width - reach, reach, -1)
    shape = (times, len(rows), len(columns), 2)
    steps = torch.stack([torch.randint(-reach, reach, shape, generator=one) for one in draws]).numpy()
    every = np.arange(len(images))
    for turn in range(times):
        for down, row in enumerate(rows):
            for across, column in enumerate(columns):
                there = steps[:, turn, down, across]
                pixels[:, row, column] = pixels[every, row + there[:, 1], column + there[:, 0]]
    return smoothed(pixels, sigma)


def motion_blur(images: Array, strength: tuple[float, float], draws: Draws) -> Array:
    """Moves the camera in a direction within 45 degrees of the rows."""
    return _moved(images, *strength, _uniform(draws, (), -45, 45))


def _moved(images: Array, radius: float, sigma: float, angles: Array) -> Array:
    """ImageMagick's motion blur: half a Gaussian of ``2 radius + 1`` taps along a line, edges repeated."""
    height, width = images.shape[1:3]
    taps = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(taps) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    turns = np.deg2rad(angles)
    every, found = np.arange(len(images))[:, None, None], np.zeros_like(images)
    for tap, weight in enumerate(weights):
        down, across = (np.ceil(tap * part - 0.5).astype(np.int64)[:, None] for part in (np.sin(turns), np.cos(turns)))
        rows = (np.arange(height) + down).clip(0, height - 1)
        columns = (np.arange(width) + across).clip(0, width - 1)
        found += weight * images[every, rows[:, :, None], columns[:, None, :]]
    return found


def zoom_blur(images: Array, strength: tuple[float, float], draws: Draws) -> Array:
    """The mean of the image and of its middle at growing sizes."""
    most, step = strength
    factors = np.arange(1, most, step)
    total = images.copy()
    for factor in factors:
        total += _zoomed(images, float(factor))
    found: Array = total / (len(factors) + 1)
    return found


def _zoomed(images: Array, factor: float) -> Array:
    """The middle of images, enlarged to their size."""
    return _stretched(_stretched(images, factor, 1), factor, 2)


def _stretched(images: Array, factor: float, axis: int) -> Array:
    size = images.shape[axis]
    part = math.ceil(size / factor)
    out = round(part * factor)
    trim = (out - size) // 2
    at = np.arange(trim, trim + size) * ((part - 1) / max(out - 1, 1))
    low = np.minimum(np.floor(at).astype(np.int64), max(part - 2, 0))
    share = (at - low).reshape([-1 if number == axis else 1 for number in range(images.ndim)])
    low, last = low + (size - part) // 2, (size - part) // 2 + part - 1
    found: Array = images.take(low, axis) * (1 - share) + images.take(np.minimum(low + 1, last), axis) * share
    return found


# ------------------------------------------------------------------------------------------------------------- weather


def fog(images: Array, strength: tuple[float, float], draws: Draws) -> Array:
    """Adds a plasma fractal, and takes the range back to what it was."""
    amount, decay = strength
    height, width = images.shape[1:3]
    clouds = plasma(2 ** math.ceil(math.log2(max(height, width, 2))), decay, draws)[:, :height, :width, None]
    most = images.max(axis=(1, 2, 3), keepdims=True)
    found: Array = (images + amount * clouds) * most / (most + amount)
    return found


def plasma(size: int, decay: float, draws: Draws) -> Array:
    """Heights in [0, 1] by the diamond-square algorithm, N x size x size; ``size`` is a power of two, edges wrap.

    What is added to the mean of four neighbours is uniform, and falls by the square of ``decay`` from level to level.
    """
    heights = np.zeros((len(draws), size, size))
    step, wobble = size, 100.0
    while step >= 2:
        half = step // 2
        count = size // step

        def rough(sums: Array, count: int = count, wobble: float = wobble) -> Array:
            return sums / 4 + wobble * _uniform(draws, (count, count), -wobble, wobble)

        corners = heights[:, ::step, ::step]
        right = np.roll(corners, -1, 2)
        heights[:, half::step, half::step] = rough(corners + right + np.roll(corners + right, -1, 1))
        middles = heights[:, half::step, half::step]
        heights[:, ::step, half::step] = rough(middles + np.roll(middles, 1, 1) + corners + right)
        below = np.roll(corners, -1, 1)
        heights[:, half::step, ::step] = rough(middles + np.roll(middles, 1, 2) + corners + below)
        step, wobble = half, wobble / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    found: Array = heights / heights.max(axis=(1, 2), keepdims=True)
    return found


def snow(images: Array, strength: tuple[float, ...], draws: Draws) -> Array:
    """Whitens, and adds flakes: bright spots of noise, enlarged, blurred along their fall, and once more turned."""
    mean, deviation, size, least, radius, sigma, kept = strength
    flakes = _zoomed(mean + deviation * _normal(draws, (*images.shape[1:3], 1)), size)
    flakes = np.where(flakes < least, 0, flakes).clip(0, 1)
    flakes = _moved(np.floor(flakes * 255) / 255, radius, sigma, _uniform(draws, (), -135, -45))
    white = np.maximum(images, 1.5 * _grey(images) + 0.5)
    found: Array = kept * images + (1 - kept) * white + flakes + flakes[:, ::-1, ::-1]
    return found


def _grey(images: Array) -> Array:
    """Brightness as the eye has it (ITU-R BT.601), N x H x W x 1."""
    if images.shape[-1] == 1:
        return images
    return 0.299 * images[..., :1] + 0.587 * images[..., 1:2] + 0.114 * images[..., 2:3]


# ------------------------------------------------------------------------------------------------------------- colours


def brightness(images: Array, more: float, draws: Draws) -> Array:
    """Raises the value of each pixel (of hue, saturation and value), so that its colour stays."""
    value = images.max(axis=-1, keepdims=True)
    raised = (value + more).clip(0, 1)
    found: Array = np.where(value > 0, images * (raised / np.where(value > 0, value, 1)), raised)
    return found


def contrast(images: Array, share: float, draws: Draws) -> Array:
    """Moves values towards each channel's mean."""
    count = images.shape[1] * images.shape[2]
    # in whole numbers, whose sums do not depend on their order
    totals = np.rint(images * 255).astype(np.int64).sum(axis=(1, 2), keepdims=True)
    means = totals / (255 * count)
    found: Array = (images - means) * share + means
    return found


def saturate(images: Array, strength: tuple[float, float], draws: Draws) -> Array:
    """Multiplies and raises the saturation (of hue, saturation and value); grey pixels turn red where it is raised.

    Images of one channel have none and stay as they are.
    """
    if images.shape[-1] == 1:
        return images
    factor, more = strength
    value, least = images.max(axis=-1, keepdims=True), images.min(axis=-1, keepdims=True)
    spread = value - least
    before = spread / np.where(value > 0, value, 1)
    after = (before * factor + more).clip(0, 1)
    coloured = value - (value - images) * (after / np.where(before > 0, before, 1))
    red = value * np.concatenate([np.ones_like(after), 1 - after, 1 - after], axis=-1)
    found: Array = np.where(before > 0, coloured, red)
    return found


# -------------------------------------------------------------------------------------------------------------- shifts


def pixelate(images: Array, share: float, draws: Draws) -> Array:
    """Shrinks to a share of the size, and enlarges again, by PIL's box filter."""
    from PIL import Image

    height, width, channels = images.shape[1:]
    if channels not in (1, 3):
        raise ValueError(f"pixelate takes images of 1 or 3 channels, got {channels}")
    small = (max(1, int(width * share)), max(1, int(height * share)))
    found = np.empty_like(images)
    for row, pixels in enumerate(np.rint(images * 255).astype(np.uint8)):
        image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
        image = image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
        found[row] = np.asarray(image).reshape(pixels.shape) / 255
    return found


def elastic_transform(images: Array, strength: tuple[float, float, float], draws: Draws) -> Array:
    """Moves three points of the image, and then every pixel along a smooth random field.

    The constants (how far pixels move, how smooth the field is, how far the points move) are shares of the size.
    """
    from scipy.ndimage import map_coordinates

    height, width, channels = images.shape[1:]
    far, smooth, points = (share * min(height, width) for share in strength)
    moved = _uniform(draws, (3, 2), -points, points)
    field = _uniform(draws, (2, height, width), -1, 1)
    field = np.stack([smoothed(part, smooth, "reflect", 3.0) for part in (field[:, 0], field[:, 1])], axis=1) * far
    middle, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    corners = middle + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    rows, columns = np.mgrid[:height, :width]
    there = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3)
    found = np.empty_like(images)
    for number, image in enumerate(images):
        # the affine map that leads from where the corners are moved to back to the corners
        source = np.linalg.solve(np.concatenate([corners + moved[number], np.ones((3, 1))], axis=1), corners)
        across, down = (there @ source).T
        for channel in range(channels):
            plane = map_coordinates(image[..., channel], [down, across], order=1, mode="mirror").reshape(height, width)
            at = [rows + field[number, 1], columns + field[number, 0]]
            found[number, ..., channel] = map_coordinates(plane, at, order=1, mode="reflect")
    return found
