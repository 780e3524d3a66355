"""What a Trainer costs: the AAAI MLP at batch 100 under this package's defaults, a typical script, and a bare loop.

Progress bar, metrics by epoch and a CSV log are on in both Trainer runs; ours has the command line's callbacks,
checkpoints among them. The bare loop has none of them: fused Adam on batches that lie ready. Seconds are those of whole
epochs after a warm-up epoch, the three in turn; with one thread on a CPU those of the processor.
"""

import contextlib
import io
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from timing import CLOCKS, arguments, processor_clock, report
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.callbacks import BestCheckpoint, FeaturePlots, LastCheckpoint, Reseeding, ResultTable, RunRecord
from lightning_repshape.data import ImageDataModule, ImageSet, SplitData
from lightning_repshape.modules import SupervisedModule
from lightning_repshape.networks import MLP, Backbone, ConvNet
from lightning_repshape.runs.curves import MetricsCSVLogger
from lightning_repshape.runs.summary import EpochBar


class RandomImages(ImageDataModule):
    """Random pixels in the shape of MNIST or CIFAR-10; the time of a step does not depend on them."""

    def __init__(self, count: int, shape: tuple[int, int, int], batch_size: int = 100) -> None:
        self.count, self.shape = count, shape
        super().__init__(batch_size=batch_size, val_size=0)

    def describe(self) -> ImageSet:
        """The shape that was asked for."""
        channels = self.shape[0]
        names = tuple(str(k) for k in range(10))
        return ImageSet("random", names, self.shape, (0.5,) * channels, (0.25,) * channels)

    def load_split(self, split: str) -> SplitData:
        """Random images."""
        channels, height, width = self.shape
        count = self.count if split == "train" else 100
        images = torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8)
        return SplitData(images, torch.arange(count) % 10)


class Typical(LightningModule):
    """What tutorials show: metrics and logging in every step, the default optimizer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss and accuracy, logged."""
        x, y = batch
        logits = self.network(x)
        loss = F.cross_entropy(logits, y)
        self.accuracy(logits, y)
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("train/accuracy", self.accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam as it comes."""
        return torch.optim.Adam(self.parameters(), lr=1e-4)


class EpochTimes(Callback):
    """Seconds of each epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._start = self.now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self.seconds.append(self.now() - self._start)


def bare(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]], epochs: int, device: str, now: Callable[[], float]
) -> list[float]:
    """Seconds an epoch of a loop with nothing in it but the training."""
    network = network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    seconds = []
    for _ in range(epochs):
        start = now()
        for x, y in batches:
            loss = F.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(now() - start)
    return seconds


def compare(
    title: str,
    make: Callable[[], Backbone],
    data: RandomImages,
    epochs: int,
    rounds: int,
    device: str,
    now: Callable[[], float],
) -> None:
    """Times the three in turn and prints the ratios."""
    data.setup("fit")
    ready = [tuple(part.to(device) for part in batch) for batch in data.batches("train")]

    def network() -> nn.Module:
        backbone = make()
        return nn.Sequential(backbone, nn.Linear(backbone.num_features, 10)).to(memory_format=torch.channels_last)

    def trainer(folder: Path, ours: bool, times: EpochTimes) -> Trainer:
        callbacks: list[Any] = [times, EpochBar() if ours else RichProgressBar(refresh_rate=1)]
        return Trainer(
            max_epochs=epochs,
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            logger=MetricsCSVLogger(folder) if ours else CSVLogger(folder),
            callbacks=[*callbacks, *(_of_the_command(folder) if ours else [])],
            enable_checkpointing=ours,
            enable_model_summary=False,
        )

    samples: dict[str, list[float]] = {"bare loop": [], "this package": [], "typical script": []}
    for _ in range(rounds):
        samples["bare loop"] += bare(network(), ready, epochs, device, now)[1:]
        for name, ours in (("this package", True), ("typical script", False)):
            times = EpochTimes(now)
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                module = (
                    SupervisedModule(10, data.input_shape, backbone=lambda shape: make(), optimizer=_adam)
                    if ours
                    else Typical(network())
                )
                trainer(Path(folder), ours, times).fit(module, datamodule=data if ours else None, **_loader(data, ours))
            samples[name] += times.seconds[1:]
    steps = len(ready)
    medians = {name: statistics.median(values) / steps * 1e3 for name, values in samples.items()}
    rows = [
        {"what": name, "ms a step": value, "ratio to the bare loop": value / medians["bare loop"]}
        for name, value in medians.items()
    ]
    report(f"{title}, batch {data.batch_size}, {steps} steps an epoch", rows)
    print(f"typical script / this package: {medians['typical script'] / medians['this package']:.2f}")


def _of_the_command(folder: Path) -> list[Callback]:
    """The callbacks that ``lightning-repshape fit`` adds."""
    return [
        Reseeding(),
        FeaturePlots(),
        ResultTable(),
        RunRecord(folder),
        BestCheckpoint(folder),
        LastCheckpoint(folder),
    ]


def _adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-4)


def _loader(data: RandomImages, ours: bool) -> dict[str, Any]:
    """A typical script's loader: tensors, shuffled, collated sample by sample."""
    if ours:
        return {}
    x = data.normalize_images(data.images("train"))
    return {
        "train_dataloaders": torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x, data.labels("train")), batch_size=data.batch_size, shuffle=True
        )
    }


def main() -> None:
    """Runs the comparison for the MLP and the CNN."""
    options = arguments("Cost of the Trainer against a bare loop")
    warnings.filterwarnings("ignore")
    quick, now = options.quick, CLOCKS[processor_clock(options)]
    compare(
        "MLP 784-100x5-10",
        lambda: MLP((1, 28, 28)),
        RandomImages(5_000 if quick else 20_000, (1, 28, 28)),
        3 if quick else 4,
        1 if quick else 3,
        options.device,
        now,
    )
    compare(
        "ConvNet of the AAAI paper, CIFAR-10",
        lambda: ConvNet((3, 32, 32)),
        RandomImages(500 if quick else 2_000, (3, 32, 32)),
        3,
        1 if quick else 3,
        options.device,
        now,
    )


if __name__ == "__main__":
    main()
