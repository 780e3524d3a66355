"""What a model's inputs are, as plain data: what a checkpoint and an export carry, so that images alone suffice."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape.data.files import ImageFiles, list_images
from lightning_repshape.data.images import Normalizer
from lightning_repshape.errors import CheckpointError, DataError

STATE_KEY = "preprocessing"  # in the state that a data module leaves in a checkpoint


@dataclass(frozen=True)
class Preprocessing:
    """From images of any size to what a network was trained on: size, channels, normalisation; and the classes' names.

    Attributes:
        class_names: In the order of the labels.
        input_shape: C, H, W of the network's inputs.
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel.
        fit: How an image of another size is brought to this one, see :class:`ImageFiles`.
        center: Rows and columns that are cut out of the middle of every image first; None: nothing is cut.
        exif: Whether an image is turned as its EXIF data say.
        data: What it was trained on, such as "MNIST"; for texts alone.
    """

    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Literal["stretch", "crop"] = "stretch"
    center: tuple[int, int] | None = None
    exif: bool = True
    data: str = ""

    def plain(self) -> dict[str, Any]:
        """Numbers, texts and lists alone, as JSON and ``torch.load(weights_only=True)`` have them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def of_plain(cls, content: Any, where: str | Path) -> Self:
        """What :meth:`plain` gave. CheckpointError: it is something else; ``where`` it was read is named."""
        try:
            known: dict[str, Any] = {}
            for name in (field.name for field in fields(cls) if field.name in content):
                known[name] = tuple(content[name]) if isinstance(content[name], list) else content[name]
            made = cls(**known)
            channels, height, width = made.input_shape
            sizes = [channels, height, width, *(made.center or ())]
            right = (
                all(type(size) is int and size > 0 for size in sizes)
                and len(made.mean) == len(made.std) == channels
                and all(isinstance(value, int | float) for value in (*made.mean, *made.std))
                and all(isinstance(name, str) for name in (*made.class_names, made.data))
                and min(made.std) > 0
                and made.fit in ("stretch", "crop")
            )
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{where}: what it says of the inputs cannot be read ({error!r})") from error
        if not right:
            raise CheckpointError(f"{where}: what it says of the inputs cannot be: {content}")
        return made

    @classmethod
    def in_checkpoint(cls, checkpoint: Mapping[str, Any], where: str | Path) -> Self | None:
        """What a data module left in a checkpoint; None where it left nothing, as earlier versions did."""
        states = [state.get(STATE_KEY) for state in checkpoint.values() if isinstance(state, Mapping)]
        found = [state for state in states if isinstance(state, Mapping) and "class_names" in state]
        return cls.of_plain(found[0], where) if found else None

    def files(self, paths: Sequence[str] = ()) -> ImageFiles:
        """Image files that are to be decoded to the network's size. DataError: it takes other channels than images."""
        channels, height, width = self.input_shape
        if channels not in (1, 3):
            raise DataError(f"images have 1 or 3 channels, but the model takes {channels}; give it tensors")
        return ImageFiles(tuple(paths), height, width, channels, self.fit, False, self.center, self.exif)

    def normalize(self, images: Tensor) -> Tensor:
        """Inputs, float32 N x C x H x W, of uint8 images N x H x W x C of the network's size, as in training."""
        return Normalizer(self.mean, self.std)(images)

    def inputs(self, image: Any, name: str = "image") -> Tensor:
        """The network's input 1 x C x H x W of an image: a path or an image of PIL; N x C x H x W of a tensor.

        Args:
            image: Tensors are C x H x W or N x C x H x W, uint8 or floating-point with pixels in [0, 1], of any height
                and width, grey or with the network's channels.
            name: What a message calls an image that has no path.

        Raises:
            DataError: It cannot be read, or is none of these.
        """
        if isinstance(image, Tensor):
            return self._of_tensor(image, name)
        files = self.files()
        pixels = files.decode_one(str(image)) if isinstance(image, str | Path) else None
        if pixels is None and not hasattr(image, "getexif"):
            raise DataError(
                f"{name} is {type(image).__name__}; give a path, an image of PIL (Image.fromarray makes one of an "
                "array), or a tensor C x H x W"
            )
        return self.normalize(torch.tensor(files.formed(image, name) if pixels is None else pixels)[None])

    def _of_tensor(self, images: Tensor, name: str) -> Tensor:
        channels, *size = self.input_shape
        images = images[None] if images.dim() == 3 else images
        if images.dim() != 4 or images.shape[1] not in (1, channels) or 0 in images.shape:
            raise DataError(
                f"{name} is a tensor of shape {tuple(images.shape)}; C x H x W or N x C x H x W with C = {channels} "
                "is expected"
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise DataError(f"{name} is a tensor of {images.dtype}; uint8, or floating-point in [0, 1], is expected")
        whole = images.dtype == torch.uint8
        values = images.float() if whole else images.float() * 255
        if not whole and not (values.min() >= 0 and values.max() <= 255.0):
            raise DataError(
                f"{name} has values from {float(images.min()):.4g} to {float(images.max()):.4g}; floating-point pixels "
                "lie in [0, 1], before any normalisation"
            )
        values = self._resized(values, size, name).expand(-1, channels, -1, -1)
        if whole:  # by the same multiply-add as in training
            return self.normalize(values.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous())
        mean, std = (values.new_tensor(numbers).view(1, -1, 1, 1) for numbers in (self.mean, self.std))
        return (values / 255 - mean) / std

    def _resized(self, values: Tensor, size: Sequence[int], name: str) -> Tensor:
        if self.center is not None:
            values = _middle(values, *self.center, name)
        height, width = values.shape[2:]
        if [height, width] == list(size):
            return values
        if self.fit == "crop":
            scale = min(height / size[0], width / size[1])
            values = _middle(values, max(1, round(size[0] * scale)), max(1, round(size[1] * scale)), name)
        return F.interpolate(values, size=list(size), mode="bilinear", antialias=True, align_corners=False)


def _middle(values: Tensor, rows: int, columns: int, name: str) -> Tensor:
    height, width = values.shape[2:]
    if rows > height or columns > width:
        raise DataError(f"{name} has {height} x {width} pixels, fewer than the {rows} x {columns} that are cut out")
    top, left = (height - rows) // 2, (width - columns) // 2
    return values[:, :, top : top + rows, left : left + columns]


def find_images(path: Path) -> list[str]:
    """A file, or the images in a folder and below, sorted, see :func:`list_images`. DataError: there are none."""
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise DataError(f"no folder or file {path.absolute()}; name an image, or a folder of images")
    found = list_images([path])[0]
    if not found:
        raise DataError(f"no images in {path}; name an image, or a folder of images (PNG, JPEG, TIFF, WebP, ...)")
    return found
