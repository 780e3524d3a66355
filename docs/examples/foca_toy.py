"""FOCA's Fig. 1 and Proposition 3.2 on two interleaved half-moons; writes docs/figures/foca-toy.png and -spread.png.

Feature extractor: 2-128-128-128-2 with ReLU inside and softplus features, so positive and strictly monotone as the
proposition asks, and without corners that collect what is pushed far enough; sigmoid features, which have them, are
trained beside them with linear heads. Squared loss against -1 and +1, one output; Adam, its rate falls to zero.
"joint" trains the extractor and one head; "FOCA" draws 64 weak classifiers afresh at every step:
linear ones in closed form on one sample a class, as in (C1) to (C5), or multi-layer ones by gradient descent. With 16
a step the noise of their draw keeps features apart. Takes some minutes on one core.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

from lightning_repshape.functional.stacked_heads import StackedHeads, feature_scale, solve_heads
from lightning_repshape.plots import save_figure, spread_figure, toy_figure
from lightning_repshape.seeding import generator, key_to_seed

HIDDEN = (16, 16)
Curve = list[tuple[int, float]]


def half_moons(count: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two interleaved half-moons: points N x 2 and labels 0 or 1."""
    points, labels = make_moons(count, noise=0.1, random_state=seed)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(labels)


def extractor(activation: type[nn.Module] = nn.Softplus) -> nn.Sequential:
    """Makes phi, with two features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inner = [part for inputs in (2, 128, 128) for part in (nn.Linear(inputs, 128), nn.ReLU())]
        return nn.Sequential(*inner, nn.Linear(128, 2), activation())


def relative_spread(features: Tensor, labels: Tensor) -> float:
    """Mean distance of samples from their class mean, over the distance of the two class means."""
    means = torch.stack([features[labels == label].mean(dim=0) for label in (0, 1)])
    return float((features - means[labels]).norm(dim=1).mean() / (means[0] - means[1]).norm())


def weak_classifiers(features: Tensor, labels: Tensor, hidden: tuple[int, ...], count: int, key: int) -> StackedHeads:
    """Weak classifiers, each solved on a batch of its own that has k samples of both classes."""
    k = 8 if hidden else 1
    stream = generator("toy-batches", key)
    members = [(labels == label).nonzero().flatten() for label in (0, 1)]
    rows = torch.cat([of_class[torch.randint(len(of_class), (count, k), generator=stream)] for of_class in members], 1)
    if not hidden:
        # (C5) with lambda 1: the sum of two losses + 1/2 |theta|^2, which is their mean + 1/4 |theta|^2 (Eq. 4).
        return solve_heads(
            features[rows], labels[rows], num_classes=2, num_outputs=1, num_heads=count, hidden=(), solver="ridge",
            loss="squared", lam=0.25,
        ).heads  # fmt: skip
    scale = feature_scale(features, 1.0)  # softplus features have no bound, and gradient descent needs one
    return solve_heads(
        (features * scale)[rows], labels[rows], num_classes=2, num_outputs=1, num_heads=count, hidden=hidden,
        loss="squared", lam=1e-2, updates=64, rate=0.05, init_std=0.5, seed=key_to_seed("toy-theta", key),
    ).heads.scaled_features(scale)  # fmt: skip


def train_foca(
    points: Tensor,
    labels: Tensor,
    hidden: tuple[int, ...],
    steps: int,
    count: int = 64,
    activation: type[nn.Module] = nn.Softplus,
) -> tuple[nn.Module, Curve]:
    """Algorithm 1 with ``count`` weak classifiers a step; phi's samples are all of them. Gives phi and the spread."""
    phi, curve = extractor(activation), []
    optimizer = torch.optim.Adam(phi.parameters(), lr=3e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        with torch.no_grad():
            features = phi(points)
        heads = weak_classifiers(features, labels, hidden, count, key=step)
        loss = (heads(phi(points))[..., 0] - (2 * labels - 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        if noted(step, steps):
            curve.append((step, relative_spread(phi(points).detach(), labels)))
    return phi, curve


def train_joint(
    points: Tensor,
    labels: Tensor,
    hidden: tuple[int, ...],
    steps: int,
    activation: type[nn.Module] = nn.Softplus,
) -> tuple[nn.Module, nn.Module, Curve]:
    """Trains phi and one head together. Gives both and the spread."""
    phi, curve = extractor(activation), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        widths = (2, *hidden, 1)
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        head = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]
    optimizer = torch.optim.Adam([*phi.parameters(), *head.parameters()], lr=3e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        loss = (head(phi(points))[:, 0] - (2 * labels - 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        if noted(step, steps):
            curve.append((step, relative_spread(phi(points).detach(), labels)))
    return phi, head, curve


def noted(step: int, steps: int) -> bool:
    """Whether a step's spread is kept: a tenth of them at first, then ever fewer."""
    return step == steps or step % max(1, 10 ** (len(str(step)) - 2)) == 0


@torch.no_grad()
def panel(
    phi: nn.Module, points: Tensor, labels: Tensor, head: nn.Module | None, hidden: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels, and the outputs over the square of all features; FOCA: of 256 weak classifiers on average."""
    features = phi(points)
    low, high = features.min(dim=0).values, features.max(dim=0).values
    middle, half = (low + high) / 2, 0.65 * (high - low).max()  # as far in both directions
    (left, bottom), (right, top) = (middle - half).tolist(), (middle + half).tolist()
    vertical, horizontal = torch.meshgrid(
        torch.linspace(bottom, top, 100), torch.linspace(left, right, 100), indexing="ij"
    )
    grid = torch.stack([horizontal, vertical], dim=-1).view(-1, 2)
    if head is not None:
        outputs = head(grid)[:, 0]
    else:
        parts = [weak_classifiers(features, labels, hidden, 32, key=-number)(grid)[..., 0] for number in range(1, 9)]
        outputs = torch.cat(parts).mean(dim=0)
    extent = np.array([left, right, bottom, top])
    return features.numpy(), labels.numpy(), outputs.view(100, 100).numpy(), extent


def main() -> None:
    """Trains the four and writes the figures."""
    parser = argparse.ArgumentParser(description="FOCA's Fig. 1 and Proposition 3.2 on two half-moons.")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent.parent / "figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    points, labels = half_moons()
    panels, curves = {}, {}
    for hidden, kind in (((), "linear"), (HIDDEN, "multi-layer")):
        phi, head, curve = train_joint(points, labels, hidden, options.steps)
        panels[f"joint, {kind} head"] = panel(phi, points, labels, head, hidden)
        curves[f"joint, {kind} head"] = curve
    for hidden, kind in (((), "linear"), (HIDDEN, "multi-layer")):
        phi, curve = train_foca(points, labels, hidden, options.steps)
        panels[f"FOCA, {kind} heads"] = panel(phi, points, labels, None, hidden)
        curves[f"FOCA, {kind} heads"] = curve
    *_, curves["joint, linear head, sigmoid"] = train_joint(points, labels, (), options.steps, nn.Sigmoid)
    *_, curves["FOCA, linear heads, sigmoid"] = train_foca(points, labels, (), options.steps, activation=nn.Sigmoid)
    options.folder.mkdir(parents=True, exist_ok=True)
    save_figure(toy_figure(panels), options.folder / "foca-toy.png", vector=False)
    lines = {name: tuple(np.array(column) for column in zip(*curve, strict=True)) for name, curve in curves.items()}
    save_figure(spread_figure(lines, goal=2e-4), options.folder / "foca-toy-spread.png", vector=False)
    for name, curve in curves.items():
        chosen = [f"{value:.2g} at {step}" for step, value in curve if step in (100, 1000, options.steps)]
        print(f"{name}: spread {', '.join(chosen)}")


if __name__ == "__main__":
    main()
