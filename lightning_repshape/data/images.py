"""Batches of uint8 images: crops and mirror images by one gather, normalisation by one multiply-add, on any device."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_repshape.seeding import generator


class Draws(NamedTuple):
    """What augmentation does to each sample.

    Attributes:
        offsets: int64 N x 2, the upper left corner (row, column) of the crop in the image padded by ``padding`` zeros
            on every side, as in ``torchvision.transforms.functional.crop``; None without crops.
        flips: bool N, whether the crop is mirrored left to right afterwards; None without mirroring.
        holes: int64 N x 2, the centre (row, column) of the square that :func:`cut_out` sets to zero; None without.
    """

    offsets: Tensor | None
    flips: Tensor | None
    holes: Tensor | None = None

    def select(self, index: Tensor) -> "Draws":
        """The draws of the samples at some positions, int64 B."""
        return Draws(
            None if self.offsets is None else self.offsets.index_select(0, index),
            None if self.flips is None else self.flips.index_select(0, index),
            None if self.holes is None else self.holes.index_select(0, index),
        )


def draw_augmentation(
    count: int,
    seed: int,
    epoch: int,
    padding: int,
    flip: bool,
    hole_in: tuple[int, int] | None = None,
    alternate: bool = False,
) -> Draws:
    """Draws the crops, mirrorings and holes of all samples of one epoch at once.

    A sample's draw depends on (seed, epoch, its position) alone: not on the batch size, the rank, the number of workers
    or on where a run was resumed.

    Args:
        count: Number of samples N.
        seed: The run's seed.
        epoch: The epoch's number.
        padding: Pixels of zeros around the image before the crop; 0: no crop.
        flip: Whether half of the samples are mirrored.
        hole_in: Height and width of the images, within which a hole has its centre; None: no holes.
        alternate: Whether flips are drawn for epoch 0 alone and change with every further one, so that an image and its
            mirror image come in turns (Jordan 2024); else they are drawn for every epoch.

    Returns:
        Offsets uniform over 0..2 * padding in both directions, flips of probability one half, and centres uniform over
        the image.
    """
    draws = draws_from(generator("augment", seed, epoch), count, padding, flip, hole_in)
    flips = draws_from(generator("augment", seed, 0), count, padding, flip).flips if alternate else None
    return draws if flips is None else draws._replace(flips=flips ^ bool(epoch % 2))


def draws_from(
    source: torch.Generator, count: int, padding: int, flip: bool, hole_in: tuple[int, int] | None = None
) -> Draws:
    """The same of a CPU generator's next numbers."""
    offsets = torch.randint(0, 2 * padding + 1, (count, 2), generator=source) if padding else None
    flips = torch.rand(count, generator=source) < 0.5 if flip else None
    holes = None
    if hole_in is not None:
        holes = torch.stack([torch.randint(side, (count,), generator=source) for side in hole_in], dim=1)
    return Draws(offsets, flips, holes)


class ImageStore:
    """uint8 images laid out so that a crop, mirrored or not, of every sample of a batch is one gather.

    The images lie one after the other, channels last, each row followed by ``padding`` zero pixels and each image by
    ``padding`` zero rows: the zeros right of a row are also those left of the next row, and the zeros below an image
    those above the next. Every crop of every image is then a block of one strided view, whose first index is the crop's
    first pixel. Mirrored copies, where asked for, follow the images. Without padding and mirrored copies, the images
    are used as they are and nothing is copied.

    Args:
        images: uint8 N x H x W x C.
        padding: Zero pixels around every image, p.
        mirrored: Whether to keep mirrored copies too.

    Raises:
        ValueError: ``images`` is no uint8 tensor of four dimensions.
    """

    def __init__(self, images: Tensor, padding: int = 0, mirrored: bool = False) -> None:
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(f"images must be uint8 N x H x W x C, got {images.dtype} {tuple(images.shape)}")
        self.count, self.height, self.width, self.channels = images.shape
        self.padding = padding
        self.mirrored = mirrored
        self.plain = padding == 0 and not mirrored
        self._row_pixels = self.width + padding
        self._image_pixels = (self.height + padding) * self._row_pixels
        if self.plain:
            self._view = images.reshape(self.count, math.prod(images.shape[1:]))
            return
        copies = 2 if mirrored else 1
        row_bytes = self._row_pixels * self.channels
        lead = padding * (row_bytes + self.channels)
        buffer = images.new_zeros(lead + copies * self.count * self._image_pixels * self.channels)
        body = buffer[lead:].view(copies, self.count, self.height + padding, self._row_pixels, self.channels)
        body[0, :, : self.height, : self.width] = images
        if mirrored:
            body[1, :, : self.height, : self.width] = images.flip(2)
        last = (copies * self.count - 1) * self._image_pixels + 2 * padding * (self._row_pixels + 1)
        self._view = buffer.as_strided(
            (max(last + 1, 0), self.height, self.width * self.channels), (self.channels, row_bytes, 1)
        )

    @staticmethod
    def bytes_needed(shape: Sequence[int], padding: int = 0, mirrored: bool = False) -> int:
        """Memory that a store of images of ``shape`` N, H, W, C takes, in bytes."""
        count, height, width, channels = shape
        return count * (height + padding) * (width + padding) * channels * (2 if mirrored else 1)

    def first_pixels(self, rows: Tensor, draws: Draws | None = None) -> Tensor:
        """Where the crops begin, for :meth:`gather`: int64 B, on the device of ``rows``.

        Args:
            rows: int64 B, which images.
            draws: Crops and mirrorings of these B samples; None: the images as they are.

        Raises:
            ValueError: The draws need padding or mirrored copies that the store lacks.
        """
        offsets, flips = (None, None) if draws is None else draws[:2]
        if (offsets is not None and not self.padding) or (flips is not None and not self.mirrored):
            raise ValueError("the store lacks the padding or the mirrored copies that these draws need")
        if self.plain:
            return rows
        first = rows * self._image_pixels
        if flips is not None:
            first += flips * (self.count * self._image_pixels)
        if offsets is None:
            return first + self.padding * (self._row_pixels + 1)
        down, right = offsets.unbind(1)
        if flips is not None:  # mirroring the crop at column c is cropping the mirror image at column 2p - c
            right = torch.where(flips, 2 * self.padding - right, right)
        return first + down * self._row_pixels + right

    def gather(self, first: Tensor) -> Tensor:
        """The images, or crops of them, at what :meth:`first_pixels` gave: uint8 B x H x W x C, a new tensor."""
        return self._view.index_select(0, first).view(len(first), self.height, self.width, self.channels)


def crop_and_flip(images: Tensor, draws: Draws, padding: int = 0) -> Tensor:
    """Crops and mirrors every image of a batch by itself, on the batch's device.

    Equal to ``torchvision.transforms.functional``'s ``pad`` (zeros on all sides), ``crop`` at the sample's offsets and
    ``hflip`` where its flip is set.

    Args:
        images: uint8 B x H x W x C, as the result.
        draws: The samples' offsets and flips; moved to the images' device where they are elsewhere.
        padding: The padding that the offsets refer to.
    """
    offsets, flips = (None if part is None else part.to(images.device, non_blocking=True) for part in draws[:2])
    if offsets is None and flips is None:
        return images
    store = ImageStore(images, padding if offsets is not None else 0, mirrored=flips is not None)
    rows = torch.arange(images.shape[0], device=images.device)
    return store.gather(store.first_pixels(rows, Draws(offsets, flips)))


def cut_out(x: Tensor, holes: Tensor, size: int) -> Tensor:
    """Sets a square of each image to zero, the mean pixel where ``x`` is normalised (DeVries and Taylor 2017).

    Args:
        x: Images N x C x H x W; changed in place.
        holes: int64 N x 2, centres (row, column); moved to the images' device.
        size: Side of the square, from ``size // 2`` pixels before its centre on, as far as the image goes.

    Returns:
        ``x``.
    """
    first = holes.to(x.device, non_blocking=True) - size // 2
    rows, columns = (
        (torch.arange(side, device=x.device) - first[:, axis, None]).div(size, rounding_mode="floor") == 0
        for axis, side in enumerate(x.shape[2:])
    )
    return x.masked_fill_((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0.0)


class Normalizer:
    """Turns uint8 images into what a network takes: ``(pixel / 255 - mean) / std``, as one multiply-add.

    Args:
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._scale = [1 / (255 * value) for value in std]
        self._bias = [-center / spread for center, spread in zip(mean, std, strict=True)]
        self._rows: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 B x H x W x C to float32 B x C x H x W on the same device, in channels_last memory format."""
        pixels = math.prod(images.shape[1:3])
        key = (images.device, pixels)
        if key not in self._rows:
            # Written out for every pixel: a vector as long as an image is added faster than one as long as C.
            self._rows[key] = (
                torch.tensor(self._scale, device=images.device).repeat(pixels),
                torch.tensor(self._bias, device=images.device).repeat(pixels),
            )
        scale, bias = self._rows[key]
        values = images.reshape(images.shape[0], -1).to(torch.float32)
        torch.addcmul(bias, values, scale, out=values)
        return values.view(images.shape).permute(0, 3, 1, 2)
