"""Penalties by hooks have their effect on networks that were compiled, whenever and however that was."""

import shutil
from collections.abc import Iterator

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape import ClasswiseVariance, FeedBackwardReconstruction
from lightning_repshape.callbacks import FeedBackwardPenalty, LayerPenalty, SeparabilityCurve
from lightning_repshape.features.reader import LayerReader


class Compiled(LightningModule):
    def __init__(self, how: str = "", backend: str = "eager") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
        self.fc = nn.Linear(5, 3)
        self.how, self.backend = how, backend
        if how == "net.compile()":
            self.net.compile(backend=backend)
        elif how == "torch.compile(net)":
            self.net = torch.compile(self.net, backend=backend)
        elif how == "module.compile()":
            self.compile(backend=backend)
        if how:  # it has run before the fit
            self(torch.zeros(12, 6)).sum().backward()
            self.zero_grad()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.net(x))

    def on_train_start(self) -> None:
        if self.how == "in the fit":
            self.net.compile(backend=self.backend)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(autouse=True)
def _own_compilations() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def train(module: Compiled) -> list[Tensor]:
    source = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(36, 6, generator=source), torch.arange(36) % 3)
    layer = "net._orig_mod.1" if module.how == "torch.compile(net)" else "net.1"
    curve = SeparabilityCurve(every_n_steps=1, head="fc")
    callbacks = [
        LayerPenalty(layer, ClasswiseVariance(weight=10.0, num_classes=3)),
        FeedBackwardPenalty(FeedBackwardReconstruction(weight=10.0), layer="fc"),
        curve,
    ]
    Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks, accelerator="cpu", limit_test_batches=0,
    ).fit(module, DataLoader(data, batch_size=12))  # fmt: skip
    assert all(0 <= value <= 1 for value in curve.points["accuracy"][1:])
    return [parameter.detach() for parameter in module.parameters()]


WAYS = [
    ("net.compile()", "aot_eager"),
    ("torch.compile(net)", "eager"),
    ("module.compile()", "eager"),
    ("in the fit", "eager"),
    ("net.compile()", "inductor"),
]


@pytest.mark.parametrize(("how", "backend"), WAYS)
@pytest.mark.usefixtures("in_tmp")
def test_penalties_change_a_compiled_network_as_they_change_any(how: str, backend: str) -> None:
    if backend == "inductor" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("inductor needs a C++ compiler")
    wanted = train(Compiled())
    for one, other in zip(wanted, train(Compiled(how, backend)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_layer_of_a_compiled_network_is_read_as_often_as_it_is_asked_for() -> None:
    module = Compiled("net.compile()")
    reader = LayerReader(module, "net.1")
    x = torch.randn(12, 6)
    for scale in (1.0, 2.0):
        torch.testing.assert_close(reader(scale * x)[0], module.net[1](module.net[0](scale * x)))
