"""Steps of several modules as one program are those of each alone."""

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_repshape.heads import ClassVectorHead, MLPHead
from lightning_repshape.modules import FeedBackwardModule, FOCAModule, RegularizedModule, SupervisedModule
from lightning_repshape.modules.base import ClassifierModule
from lightning_repshape.modules.stacked import Cell, refusal, train
from lightning_repshape.networks import MLP, ConvNet, ResNet18
from lightning_repshape.regularizers import ClasswiseVariance, L1Weight, L2Weight

SHAPE, CLASSES, STEPS = (1, 8, 8), 4, 3
SMALL = partial(MLP, widths=(12, 8), init="he")


class Given(Cell):
    """A training whose batches are ready."""

    def left(self) -> int:
        return STEPS

    def fetch(self) -> tuple[Tensor, Tensor]:
        return next(self.batches)


def alone(module: ClassifierModule, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]]) -> None:
    for x, target in batches:
        loss, _ = module.loss(module(x, module.training_activations()), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def modules_of(kind: str) -> list[ClassifierModule]:
    if kind == "penalties":
        on_weights = [L2Weight(weight=0.1, layer="fc2"), L1Weight(weight=0.1, layer="fc2", scope="all")]
        return [
            SupervisedModule(CLASSES, SHAPE, SMALL),
            RegularizedModule(CLASSES, SHAPE, SMALL, [ClasswiseVariance(weight=1.0, layer="fc2")]),
            RegularizedModule(CLASSES, SHAPE, SMALL, on_weights),
            FeedBackwardModule(CLASSES, SHAPE, SMALL, reconstruction_weight=0.5),
        ]
    if kind == "convolutions":
        network = partial(ConvNet, width=8, batch_norm=True)
        return [SupervisedModule(CLASSES, SHAPE, network, partial(MLPHead, hidden=(6,))) for _ in range(2)]
    return [SupervisedModule(CLASSES, SHAPE, SMALL, classification_loss="squared") for _ in range(2)]


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        ("penalties", partial(torch.optim.Adam, lr=1e-2, fused=True)),
        ("convolutions", partial(torch.optim.SGD, lr=1e-2, momentum=0.9, weight_decay=1e-3, fused=True)),
        ("squared", partial(torch.optim.NAdam, lr=1e-2)),
        ("squared", partial(torch.optim.Adagrad, lr=1e-2)),
    ],
)
def test_steps_are_those_of_each_alone(kind: str, optimizer: Any) -> None:
    torch.manual_seed(0)
    modules = modules_of(kind)
    batches = [[(torch.rand(9, *SHAPE), torch.randint(CLASSES, (9,))) for _ in range(2 * STEPS)] for _ in modules]
    own = [copy.deepcopy(module) for module in modules]
    optimizers = [optimizer(module.parameters()) for module in modules]
    cells = []
    for module, each, steps in zip(modules, optimizers, batches, strict=True):
        trainer: Any = SimpleNamespace(optimizers=[each])
        cells.append(Given(trainer, module, iter(steps)))
    train(cells)
    train(cells)
    for alike, module, each, steps in zip(own, modules, optimizers, batches, strict=True):
        theirs = optimizer(alike.parameters())
        alone(alike, theirs, steps)
        torch.testing.assert_close(dict(module.state_dict()), dict(alike.state_dict()), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(each.state_dict(), theirs.state_dict(), atol=1e-5, rtol=1e-3)
        assert [one.stride() for one in module.parameters()] == [one.stride() for one in alike.parameters()]


def test_one_that_is_over_stays_as_it_is() -> None:
    modules = modules_of("squared")
    steps = [(torch.rand(9, *SHAPE), torch.randint(CLASSES, (9,))) for _ in range(STEPS)]
    broken = [*steps[:2], (steps[2][0] * torch.nan, steps[2][1]), *steps[3:]]
    alike = copy.deepcopy(modules[1])
    cells = []
    for module, own in zip(modules, (broken, steps), strict=True):
        trainer: Any = SimpleNamespace(optimizers=[torch.optim.SGD(module.parameters(), lr=0.1)])
        cells.append(Given(trainer, module, iter(own)))
    train(cells)
    assert (cells[0].over, cells[0].done, cells[1].over, cells[1].done) == (True, 3, False, STEPS)
    alone(alike, torch.optim.SGD(alike.parameters(), lr=0.1), steps)
    torch.testing.assert_close(modules[1].state_dict(), alike.state_dict(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("module", "options", "reason"),
    [
        (lambda: SupervisedModule(CLASSES, SHAPE, SMALL), {}, ""),
        (lambda: SupervisedModule(CLASSES, SHAPE, ConvNet), {}, ""),
        (lambda: SupervisedModule(CLASSES, SHAPE, SMALL), {"precision": "bf16-mixed"}, "precision is bf16-mixed"),
        (lambda: SupervisedModule(CLASSES, SHAPE, SMALL), {"gradient_clip_val": 1.0}, "clipped"),
        (lambda: SupervisedModule(CLASSES, SHAPE, SMALL), {"accumulate_grad_batches": 2}, "accumulated"),
        (lambda: SupervisedModule(CLASSES, SHAPE, partial(MLP, dropout=0.5)), {}, "a Dropout"),
        (lambda: SupervisedModule(CLASSES, (3, 8, 8), ResNet18), {}, "its network has a"),
        (lambda: SupervisedModule(CLASSES, SHAPE, SMALL, ClassVectorHead), {}, "a _ClassVectors"),
        (lambda: SupervisedModule(CLASSES, SHAPE, SMALL, optimizer=torch.optim.LBFGS), {}, "LBFGS"),
        (lambda: FOCAModule(CLASSES, SHAPE, SMALL), {}, "FOCAModule has a training_step of its own"),
        (lambda: nn.Linear(1, 1), {}, "Linear is no classifier"),
    ],
)
def test_says_why_it_cannot_be_stacked(module: Any, options: dict[str, Any], reason: str) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)
    found = refusal(trainer, module())
    assert reason in found if reason else not found
