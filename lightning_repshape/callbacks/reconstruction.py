"""What an autoencoder makes of images: a figure, and the table of errors that ``predict`` writes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.reader import unpack_batch
from lightning_repshape.features.store import analysis_loader, on_device
from lightning_repshape.layers import evaluating
from lightning_repshape.runs.folders import analysis_folder
from lightning_repshape.runs.predictions import PredictionWriter
from lightning_repshape.runs.record import run_folder
from lightning_repshape.runs.summary import say_where

_LOOKED_AT = 2000  # images among which those of all classes are looked for


class ReconstructionFigure(Callback):
    """Draws a row of images above a row of their reconstructions, with the names of their classes.

    The files are ``<run>/analysis/reconstruction.png`` after a test and ``reconstruction-fit.png`` after a fit (of the
    last weights), each with a PDF beside it. The images are the first of each class, then the second of each, and so
    on; normalisation is undone with the data module's ``mean`` and ``std``.

    It works with any module that returns something with a ``reconstruction`` of the inputs' shape, or such a tensor.

    Args:
        num_images: How many images are drawn, 1 to 100.
        when: At the end of the test, of the fit, or of both.
        split: Which images are drawn.
        unpack: Positions or keys of inputs and labels in a batch.
    """

    def __init__(
        self,
        num_images: int = 10,
        when: Literal["fit", "test", "both"] = "test",
        split: Literal["train", "val", "test"] = "test",
        unpack: tuple[int | str, int | str] = (0, 1),
    ) -> None:
        if not 1 <= num_images <= 100:
            raise ConfigError(f"num_images is {num_images}; 1 to 100 images can be drawn")
        if when not in ("fit", "test", "both"):
            raise ConfigError(f"when is {when!r}; it is one of 'fit', 'test' and 'both'")
        if split not in ("train", "val", "test"):
            raise ConfigError(f"split is {split!r}; it is one of 'train', 'val' and 'test'")
        self.num_images = num_images
        self.when = when
        self.split = split
        self.unpack = unpack

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws after training."""
        if self.when != "test":
            self._draw(trainer, pl_module, "reconstruction-fit.png")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws after testing."""
        if self.when != "fit":
            self._draw(trainer, pl_module, "reconstruction.png")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        folder = analysis_folder(run_folder(trainer))
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        images, labels = self._images(trainer, pl_module)
        with evaluating(pl_module), torch.no_grad(), trainer.precision_plugin.forward_context():
            output = pl_module(images)
        reconstructions = getattr(output, "reconstruction", output)
        if not isinstance(reconstructions, Tensor) or reconstructions.shape != images.shape:
            raise ConfigError(
                f"{type(pl_module).__name__} returns no reconstruction of its inputs' shape "
                f"({' x '.join(map(str, images.shape))}): ReconstructionFigure is for autoencoders"
            )
        data = getattr(trainer, "datamodule", None)
        names: Sequence[str] = getattr(data, "class_names", ())
        figure = draw_reconstructions(
            images.float().cpu(),
            reconstructions.float().cpu(),
            [names[label] if 0 <= label < len(names) else str(label) for label in labels.tolist()],
            getattr(data, "mean", None),
            getattr(data, "std", None),
            title=f"{self.split} images, reconstructions below",
        )
        say_where(trainer, "reconstructions", plots.save_figure(figure, Path(folder) / name))

    def _images(self, trainer: Trainer, pl_module: LightningModule) -> tuple[Tensor, Tensor]:
        """The images to draw, on the module's device, and their labels."""
        inputs, labels = [], []
        seen = 0
        for batch in analysis_loader(trainer, self.split):
            x, y = unpack_batch(on_device(trainer, batch, pl_module), self.unpack)
            inputs.append(x)
            labels.append(y)
            seen += len(y)
            if seen >= max(_LOOKED_AT, self.num_images):
                break
        chosen = by_class_in_turn(torch.cat(labels).cpu(), self.num_images)
        return torch.cat(inputs)[chosen.to(pl_module.device)], torch.cat(labels).cpu()[chosen]


def by_class_in_turn(labels: Tensor, count: int) -> Tensor:
    """Positions of the first sample of each class, then of the second of each, and so on, ``count`` at most.

    Example:
        >>> by_class_in_turn(torch.tensor([1, 1, 0, 1, 0]), 3)
        tensor([2, 0, 4])
    """
    occurrence = torch.zeros_like(labels)
    for label in torch.unique(labels).tolist():
        mask = labels == label
        occurrence[mask] = torch.arange(int(mask.sum()))
    order = sorted(range(len(labels)), key=lambda i: (int(occurrence[i]), int(labels[i])))
    return torch.tensor(order[:count])


def draw_reconstructions(
    images: Tensor,
    reconstructions: Tensor,
    class_names: Sequence[str],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    title: str = "",
) -> Any:
    """The figure of images N x C x H x W, grey or colour, and their reconstructions.

    ``mean`` and ``std`` are what was taken off each channel, and what it was then divided by. Raises ConfigError if C
    is neither 1 nor 3.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        shape = " x ".join(map(str, images.shape[1:]))
        raise ConfigError(f"only grey and colour images can be drawn, C x H x W with C = 1 or 3; these are {shape}")
    shift = torch.tensor(mean or (0.0,)).view(1, -1, 1, 1)
    scale = torch.tensor(std or (1.0,)).view(1, -1, 1, 1)
    shown = [
        (values * scale + shift).clamp(0, 1).permute(0, 2, 3, 1).squeeze(-1).numpy()
        for values in (images, reconstructions)
    ]
    errors = (images - reconstructions).double().flatten(1).square().mean(dim=1)
    return plots.reconstruction_figure(shown[0], shown[1], class_names, errors.tolist(), title)


class ReconstructionErrors(PredictionWriter):
    """Writes ``predictions.csv`` of an autoencoder: image, mean squared error, and the class where it is known.

    Under several processes rank 0 writes all rows, in the order of the set.

    Args:
        filename: The file's name in the run folder.
    """

    header = ("mse",)

    def columns(self, prediction: Any, pl_module: LightningModule) -> tuple[list[Any], ...]:
        """The errors."""
        if not isinstance(prediction, Mapping) or not {"mse", "target"} <= set(prediction):
            raise ConfigError(
                f"{type(pl_module).__name__}.predict_step returns no dictionary with 'mse' (N) and 'target' (N), "
                "which this table is made of"
            )
        return (prediction["mse"].tolist(),)

    def cells(self, values: Sequence[Any], class_name: Callable[[int], str]) -> tuple[str, ...]:
        """A row's cell between the image and its class."""
        return (f"{values[0]:.8f}",)
