"""What tests of the analyses share: small features, modules and data of other projects, one of each analysis."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_repshape.callbacks import (
    Analysis,
    FeatureInputs,
    FisherGeodesic,
    LDAEigenvalues,
    NeuralCollapse,
    PartialDatasetRetraining,
    PrincipalComponents,
    RepresentationCharacteristics,
    WeightSeparability,
)
from lightning_repshape.data import DigitsDataModule
from lightning_repshape.features.passes import Features
from lightning_repshape.modules import SupervisedModule
from lightning_repshape.networks import MLP

QUIET: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "logger": False,
}


FAST = {"updates": 10, "hidden": (8,)}


def every(**shared: Any) -> list[Analysis]:
    """One of each, quick."""
    return [
        LDAEigenvalues(**shared),
        PrincipalComponents(**shared),
        NeuralCollapse(**shared),
        WeightSeparability(**shared),
        RepresentationCharacteristics(**shared),
        FisherGeodesic(few=10, segments=3, part=0.5, **FAST, **shared),
        PartialDatasetRetraining(sizes=[10, 30], repeats=[3, 2], **FAST, **shared),
    ]


def clusters(seed: int = 0, count: int = 120, width: int = 6, classes: int = 3, spread: float = 0.5) -> Features:
    """Gaussian classes around fixed points, with logits of a linear layer."""
    stream = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(99)).relu() * 2 + 0.5
    labels = torch.arange(count) % classes
    features = centers[labels] + spread * torch.randn(count, width, generator=stream)
    return Features(features, labels, features @ centers.T)


def inputs(**changes: Any) -> FeatureInputs:
    return FeatureInputs({"train": clusters(0), "test": clusters(1, 60)}, **changes)


def outcome_of(analysis: Analysis, features: Features, test: Features | None = None, **more: Any) -> str:
    """The message of an analysis that these data do not allow."""
    given = {"train": features, **({"test": test} if test is not None else {})}
    done = analysis.run(FeatureInputs(given, **more))
    assert done.result is None, done.result
    return done.failure


def digits() -> DigitsDataModule:
    return DigitsDataModule(batch_size=100, train_size=400)


def module(data: DigitsDataModule) -> SupervisedModule:
    torch.manual_seed(0)
    return SupervisedModule(data.num_classes, data.input_shape, backbone=lambda shape: MLP(shape, widths=(16, 12)))


class DictData(Dataset[dict[str, Tensor]]):
    """Samples as dictionaries."""

    def __init__(self, count: int, seed: int) -> None:
        stream = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 4
        self.images = torch.randn(count, 3, 8, 8, generator=stream) + self.labels[:, None, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.images[index], "label": self.labels[index], "other": torch.zeros(2)}


class Foreign(LightningModule):
    """A module of another project: dictionaries as batches, a forward pass that returns one, its own loaders."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(5, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"scores": self.classifier(self.stem(images).flatten(1))}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch["image"])["scores"], batch["label"])

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self(batch["image"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(DictData(60, 0), batch_size=16, shuffle=True)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(DictData(31, 1), batch_size=16)


def images(count: int, seed: int) -> TensorDataset:
    data = DictData(count, seed)
    return TensorDataset(data.images, data.labels)


def Images(as_dictionaries: bool = False) -> Any:
    from lightning.pytorch import LightningDataModule

    kind = DictData if as_dictionaries else images

    class Data(LightningDataModule):
        def setup(self, stage: str) -> None:
            if stage == "fit":
                self.train = kind(64, 0)
            else:
                self.test = kind(40, 1)

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.train, batch_size=16, shuffle=True)

        def test_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.test, batch_size=16)

    return Data()


class Staged(LightningDataModule):
    """Prepares what a stage needs alone, splits at random, and augments while the trainer trains."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def setup(self, stage: str) -> None:
        self.calls.append(stage)
        if stage == "fit":
            self.train, self.val = torch.utils.data.random_split(images(80, 0), [64, 16])
        else:
            self.test = images(40, 1)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, batch_size=16)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test, batch_size=16)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return (x + 100 if self.trainer is not None and self.trainer.training else x), y


class Plain(Foreign):
    """The same on tensors."""

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stem(images).flatten(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])
