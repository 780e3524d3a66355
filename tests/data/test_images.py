"""The image store, crops and normalisation against torchvision's, image by image."""

import itertools

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from lightning_repshape.data import Draws, ImageStore, Normalizer, crop_and_flip, cut_out, draw_augmentation


def random_images(count: int, height: int, width: int, channels: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=source)


def by_torchvision(image: Tensor, padding: int, offset: tuple[int, int] | None, flip: bool) -> Tensor:
    result = image.permute(2, 0, 1)
    if offset is not None:
        result = reference.pad(result, [padding])
        result = reference.crop(result, offset[0], offset[1], image.shape[0], image.shape[1])
    return (reference.hflip(result) if flip else result).permute(1, 2, 0)


@pytest.mark.parametrize("shape", [(5, 7, 3), (8, 8, 1), (1, 1, 3)])
@pytest.mark.parametrize("padding", [1, 3, 9])
def test_every_crop_and_mirror_image_equals_torchvisions(shape: tuple[int, int, int], padding: int) -> None:
    images = random_images(3, *shape)
    cases = list(itertools.product(range(3), range(2 * padding + 1), range(2 * padding + 1), (False, True)))
    rows = torch.tensor([case[0] for case in cases])
    draws = Draws(torch.tensor([case[1:3] for case in cases]), torch.tensor([case[3] for case in cases]))
    expected = torch.stack([by_torchvision(images[i], padding, (y, x), flip) for i, y, x, flip in cases])
    store = ImageStore(images, padding, mirrored=True)
    assert torch.equal(store.gather(store.first_pixels(rows, draws)), expected)
    assert torch.equal(crop_and_flip(images[rows], draws, padding), expected)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("mirrored", [False, True])
def test_images_come_back_as_they_are_without_draws(padding: int, mirrored: bool) -> None:
    images = random_images(11, 6, 5, 3)
    store = ImageStore(images, padding, mirrored)
    rows = torch.tensor([3, 0, 10, 3])
    assert torch.equal(store.gather(store.first_pixels(rows)), images[rows])
    assert len(store.gather(torch.tensor([], dtype=torch.long))) == 0
    assert ImageStore.bytes_needed(images.shape, padding, mirrored) == 11 * (6 + padding) * (5 + padding) * 3 * (
        2 if mirrored else 1
    )


def test_flips_alone_and_shifts_alone() -> None:
    images = random_images(4, 6, 6, 3)
    flips = torch.tensor([True, False, True, False])
    flipped = crop_and_flip(images, Draws(None, flips))
    assert torch.equal(flipped[flips], images[flips].flip(2)) and torch.equal(flipped[~flips], images[~flips])
    offsets = torch.tensor([[0, 0], [4, 4], [2, 2], [2, 3]])
    shifted = crop_and_flip(images, Draws(offsets, None), padding=2)
    assert torch.equal(shifted[2], images[2])
    assert torch.equal(shifted[0, 2:, 2:], images[0, :-2, :-2]) and not shifted[0, :2].any()
    assert torch.equal(shifted[3, :, :-1], images[3, :, 1:]) and not shifted[3, :, -1].any()
    assert crop_and_flip(images, Draws(None, None)) is images


def test_a_store_refuses_draws_that_it_is_not_laid_out_for() -> None:
    images = random_images(2, 4, 4, 1)
    rows, offsets, flips = torch.tensor([0, 1]), torch.zeros(2, 2, dtype=torch.long), torch.tensor([True, False])
    with pytest.raises(ValueError, match="lacks the padding"):
        ImageStore(images).first_pixels(rows, Draws(offsets, None))
    with pytest.raises(ValueError, match="mirrored copies"):
        ImageStore(images, padding=1).first_pixels(rows, Draws(offsets, flips))
    with pytest.raises(ValueError, match="uint8 N x H x W x C"):
        ImageStore(images.float())


@pytest.mark.parametrize("mean,std", [((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)), ((0.0,) * 3, (1.0,) * 3)])
def test_normalisation_equals_torchvisions(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(2, 16, 16, 3).contiguous()
    x = Normalizer(mean, std)(images)
    expected = reference.normalize(images.permute(0, 3, 1, 2).float() / 255, list(mean), list(std))
    assert x.dtype == torch.float32 and x.shape == (2, 3, 16, 16)
    assert x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    exact = (images.permute(0, 3, 1, 2).double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=1e-6)


def test_normalisation_follows_the_image_size() -> None:
    normalizer = Normalizer((0.5,), (0.25,))
    for size in (4, 7, 4):
        images = random_images(3, size, size, 1)
        expected = (images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        torch.testing.assert_close(normalizer(images), expected, rtol=0, atol=1e-6)


def test_draws_are_a_function_of_seed_and_epoch_and_differ_between_samples() -> None:
    first = draw_augmentation(2000, seed=3, epoch=5, padding=4, flip=True)
    again = draw_augmentation(2000, seed=3, epoch=5, padding=4, flip=True)
    assert first.offsets is not None and first.flips is not None
    assert torch.equal(first.offsets, again.offsets) and torch.equal(first.flips, again.flips)
    for seed, epoch in ((3, 6), (4, 5)):
        other = draw_augmentation(2000, seed, epoch, padding=4, flip=True)
        assert other.offsets is not None and (other.offsets != first.offsets).any(1).float().mean() > 0.9
    counts = torch.bincount((first.offsets[:, 0] * 9 + first.offsets[:, 1]), minlength=81)
    assert counts.min() > 5 and counts.max() < 60  # 25 expected in each of the 81 places
    assert 0.45 < first.flips.float().mean() < 0.55
    assert draw_augmentation(5, 0, 0, padding=0, flip=False) == Draws(None, None)
    # What moves says nothing about what is mirrored.
    assert abs(torch.corrcoef(torch.stack([first.offsets[:, 0].float(), first.flips.float()]))[0, 1]) < 0.1


@pytest.mark.parametrize("size", [1, 2, 5, 8, 40])
def test_cutout_clears_a_square(size: int) -> None:
    x = torch.randn(20, 2, 9, 13)
    holes = draw_augmentation(20, 0, 0, 0, False, (9, 13)).holes
    assert holes is not None
    expected = x.clone()
    for image, (row, column) in zip(expected, holes.tolist(), strict=True):
        top, left = row - size // 2, column - size // 2
        image[:, max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = 0
    assert torch.equal(cut_out(x.clone(), holes, size), expected)


def test_holes_are_drawn_after_what_was_drawn_before_them() -> None:
    with_holes = draw_augmentation(30, 1, 2, 4, True, (9, 13))
    without = draw_augmentation(30, 1, 2, 4, True)
    assert all(torch.equal(*pair) for pair in zip(with_holes[:2], without[:2], strict=True))
    assert without.holes is None
    assert with_holes.holes is not None and with_holes.holes.amax(0).tolist() <= [8, 12]


def test_flips_that_alternate() -> None:
    """Drawn once as for the first epoch; then every image and its mirror image come in turns. Crops are drawn anew."""
    drawn = [draw_augmentation(200, 3, epoch, 4, True, (9, 13), alternate=True) for epoch in range(4)]
    random = [draw_augmentation(200, 3, epoch, 4, True, (9, 13)) for epoch in range(4)]
    first = random[0].flips
    assert first is not None and not torch.equal(first, random[2].flips)
    for epoch, (ours, others) in enumerate(zip(drawn, random, strict=True)):
        assert torch.equal(ours.flips, first if epoch % 2 == 0 else ~first)
        assert torch.equal(ours.offsets, others.offsets) and torch.equal(ours.holes, others.holes)
    assert draw_augmentation(5, 0, 1, padding=0, flip=False, alternate=True) == Draws(None, None)
