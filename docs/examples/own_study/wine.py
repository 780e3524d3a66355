"""Data and a network of one's own, for the study in ``wine.yaml``: 178 wines, 13 measurements, 3 growers."""

import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_wine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_repshape.networks import Backbone


class WineData(LightningDataModule):
    """Any LightningDataModule will do that yields (inputs, labels) and says what its inputs and classes are.

    Args:
        batch_size: Wines in a batch.
        noise: Deviation of what is added to the training set's standardised measurements.
    """

    num_classes = 3
    input_shape = (13,)

    def __init__(self, batch_size: int = 20, noise: float = 0.0) -> None:
        super().__init__()
        self.batch_size, self.noise = batch_size, noise

    def setup(self, stage: str) -> None:
        """Splits the wines.

        Args:
            stage: What is about to run.
        """
        wines, labels = (torch.as_tensor(part) for part in load_wine(return_X_y=True))
        wines = ((wines - wines.mean(0)) / wines.std(0)).float()
        parts = random_split(TensorDataset(wines, labels), [60, 40, 78], torch.Generator().manual_seed(0))
        train, self.val, self.test = parts
        x, y = train[:]
        self.train = TensorDataset(x + self.noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), y)

    def train_dataloader(self) -> DataLoader:
        """Wines to learn from."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Wines to choose by."""
        return DataLoader(self.val, 100)

    def test_dataloader(self) -> DataLoader:
        """Wines to judge by."""
        return DataLoader(self.test, 100)


class WineNet(Backbone):
    """Two layers whose outputs are known to penalties and analyses by name.

    Args:
        input_shape: What an input is, given by the data.
        width: Units of a layer.
    """

    def __init__(self, input_shape: tuple[int, ...], width: int = 32) -> None:
        stages = {
            "first": nn.Sequential(nn.Linear(input_shape[0], width), nn.Tanh()),
            "second": nn.Sequential(nn.Linear(width, width), nn.ReLU()),
        }
        super().__init__(input_shape, num_features=width, stages=stages)
