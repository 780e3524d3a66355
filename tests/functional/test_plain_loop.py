"""FOCA and a regularizer in a plain PyTorch loop: no method needs the Trainer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.functional.stacked_heads import (
    HeadRecipe,
    classification_error,
    feature_scale,
    solve_head,
    solve_heads,
)
from lightning_repshape.regularizers import ClasswiseVariance, L2Weight

CLASSES, SAMPLES = 3, 600


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    labels = torch.arange(SAMPLES) % CLASSES
    return torch.randn(CLASSES, 20)[labels] + torch.randn(SAMPLES, 20), labels


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU())


def test_foca() -> None:
    x, y = data()
    members = torch.stack([(y == k).nonzero().flatten() for k in range(CLASSES)])
    phi = network()
    optimizer = torch.optim.SGD(phi.parameters(), lr=3e-3, momentum=0.9)
    for step in range(50):
        b = members.gather(1, torch.randint(SAMPLES // CLASSES, (CLASSES, 10))).flatten()
        with torch.no_grad():
            features = phi(x[b])
        scale = feature_scale(features, 10.0)
        weak = solve_heads(features * scale, y[b], num_classes=CLASSES, hidden=(32,), updates=32, seed=step)
        chosen = torch.randint(SAMPLES, (100,))
        loss = F.cross_entropy(weak.heads(phi(x[chosen]) * scale)[0], y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        features = phi(x)
    head = solve_head(features, y, HeadRecipe(hidden=(32,)), num_classes=CLASSES).heads
    assert float(classification_error(head, features, y)) < 0.2


def test_regularizers() -> None:
    def train(weight: float) -> tuple[float, float]:
        x, y = data()
        net, head = network(), nn.Linear(16, CLASSES)
        penalty = ClasswiseVariance(weight, num_classes=CLASSES, warmup_epochs=1)
        decay = L2Weight(1e-4)
        optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=0.01)
        for epoch in range(4):
            for rows in torch.randperm(SAMPLES).split(60):
                z = net(x[rows])
                loss = F.cross_entropy(head(z), y[rows]) + penalty(z, y[rows], epoch=epoch) + decay(head.weight)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        z = net(x).detach()
        return float(penalty.value(z, y)), float((head(z).argmax(1) != y).float().mean())

    free, held = train(0.0), train(1.0)
    assert held[0] < 0.5 * free[0] and held[1] < 0.2 and free[1] < 0.2
