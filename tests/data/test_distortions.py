"""The further corruptions against the standard library, SciPy, and their definitions."""

import colorsys
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from lightning_repshape.data import corrupt, corruption_constants, distortions
from lightning_repshape.seeding import generator

Array = np.ndarray[Any, Any]


def photos(count: int = 2, size: int = 32) -> Array:
    """Smooth colours."""
    grid = np.arange(size) / size
    wave = np.sin(9 * grid[:, None] + 3 * np.arange(3)) * np.cos(7 * grid)[:, None, None]
    return np.stack([(0.5 + 0.45 * wave * np.cos(n)).clip(0, 1) for n in range(count)])


def draws(count: int = 2) -> list[torch.Generator]:
    return [generator("test", 0, number) for number in range(count)]


def test_noise_has_the_published_moments() -> None:
    flat = np.full((2, 200, 200, 3), 0.5)
    assert (distortions.gaussian_noise(flat, 0.08, draws()) - 0.5).std() == pytest.approx(0.08, rel=0.02)
    assert (distortions.speckle_noise(flat, 0.2, draws()) - 0.5).std() == pytest.approx(0.1, rel=0.02)
    shot = distortions.shot_noise(flat, 75, draws())
    assert shot.mean() == pytest.approx(0.5, rel=0.01)
    assert shot.std() == pytest.approx(math.sqrt(0.5 / 75), rel=0.02)
    assert np.allclose(shot * 75, np.rint(shot * 75))  # whole photons


def test_colours_are_those_of_the_standard_library() -> None:
    images = np.concatenate([photos()[:, ::4, ::4], np.zeros((2, 1, 8, 3)), np.full((2, 1, 8, 3), 0.4)], axis=1)
    brighter = distortions.brightness(images, 0.2, [])
    greyer, stronger = (distortions.saturate(images, how, []) for how in ((0.3, 0.0), (2.5, 0.2)))
    for at in np.ndindex(images.shape[:3]):
        hue, saturation, value = colorsys.rgb_to_hsv(*images[at])
        assert np.allclose(brighter[at], colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1)))
        assert np.allclose(greyer[at], colorsys.hsv_to_rgb(hue, 0.3 * saturation, value))
        assert np.allclose(stronger[at], colorsys.hsv_to_rgb(hue, min(2.5 * saturation + 0.2, 1), value))
    grey = images[..., :1]
    assert np.array_equal(distortions.saturate(grey, (0.3, 0), []), grey)
    assert np.allclose(distortions.brightness(grey, 0.1, []), (grey + 0.1).clip(0, 1))


def test_contrast_keeps_the_mean() -> None:
    images = np.rint(255 * photos()) / 255
    found = distortions.contrast(images, 0.3, [])
    assert np.allclose(found.mean(axis=(1, 2)), images.mean(axis=(1, 2)))
    assert np.allclose(found.std(axis=(1, 2)), 0.3 * images.std(axis=(1, 2)))


@pytest.mark.parametrize("factor", [1.0, 1.03, 1.25, 2.25])
def test_zooming_is_scipys(factor: float) -> None:
    images = photos(1)
    part = math.ceil(32 / factor)
    top = (32 - part) // 2
    grown = zoom(images[0, top : top + part, top : top + part], (factor, factor, 1), order=1)
    trim = (len(grown) - 32) // 2
    assert np.allclose(distortions._zoomed(images, factor)[0], grown[trim : trim + 32, trim : trim + 32])


def test_a_point_in_motion_is_half_a_gaussian_along_a_line() -> None:
    images = np.zeros((1, 41, 41, 1))
    images[0, 20, 20] = 1
    moved = distortions._moved(images, 6, 2, np.array([0.0]))[0, :, :, 0]
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    assert np.allclose(moved[20, 20 : 20 - 13 : -1], weights / weights.sum())
    assert moved.sum() == pytest.approx(1) and np.count_nonzero(moved.sum(axis=1)) == 1
    slanted = distortions._moved(images, 6, 2, np.array([45.0]))[0, :, :, 0]
    assert slanted.sum() == pytest.approx(1) and np.allclose(slanted, slanted.T)
    assert np.allclose(distortions._moved(np.full((1, 9, 9, 3), 0.7), 9, 2.5, np.array([30.0])), 0.7)


def test_fog_is_a_fractal_from_zero_to_one() -> None:
    heights = distortions.plasma(32, 1.75, draws())
    assert heights.shape == (2, 32, 32) and heights.min() == 0 and heights.max() == 1
    assert not np.array_equal(heights[0], heights[1])
    rough, smooth = (np.abs(np.diff(distortions.plasma(64, decay, draws()), axis=1)).mean() for decay in (1.2, 3.0))
    assert rough > 2 * smooth
    images = photos()
    foggy = distortions.fog(images, (1.0, 2.0), draws())
    assert foggy.max() <= images.max() + 1e-12 and foggy.std() < images.std() + 0.2


def test_elastic_of_no_strength_changes_nothing() -> None:
    images = photos()
    assert np.allclose(distortions.elastic_transform(images, (0, 0, 0), draws()), images)
    moved = distortions.elastic_transform(images, (0, 0, 0.08), draws())
    assert not np.allclose(moved, images) and abs(moved.mean() - images.mean()) < 0.1


def test_glass_moves_pixels_and_pixelation_averages() -> None:
    images = np.rint(255 * photos(1)) / 255
    moved = distortions.glass_blur(images, (1e-6, 1, 1), draws(1))
    inner = {tuple(pixel) for pixel in np.rint(255 * moved).astype(int).reshape(-1, 3).tolist()}
    assert inner <= {tuple(pixel) for pixel in np.rint(255 * images).astype(int).reshape(-1, 3).tolist()}
    halved = distortions.pixelate(images, 0.5, [])
    blocks = images.reshape(1, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved[:, ::2, ::2] - blocks).max() <= 1 / 255 + 1e-9  # rounded twice
    with pytest.raises(ValueError, match="1 or 3 channels"):
        distortions.pixelate(images[..., :2], 0.5, [])


def test_snow_falls_and_whitens() -> None:
    images = 0.3 * photos()
    strengths = corruption_constants("cifar-c").others["snow"]
    found = [distortions.snow(images, constants, draws()) for constants in strengths]
    assert all(one.mean() > images.mean() for one in found)
    still = distortions.snow(images, (0.0, 0.0, 1, 0.5, 8, 3, 1.0), draws())
    assert np.allclose(still, images)


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 33, 3)])
def test_grey_and_oblong_images(shape: tuple[int, int, int]) -> None:
    images = torch.randint(0, 256, (2, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for corruption in corruption_constants("cifar-c").others:
        found = corrupt(images, corruption, 5)  # type: ignore[arg-type]
        assert found.shape == images.shape and found.dtype == torch.uint8
    assert set(corruption_constants("cifar-c").others) == set(corruption_constants("imagenet-c").others)
