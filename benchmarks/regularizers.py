"""What class-wise regularizers cost: alone against a loop over classes, and within training steps.

With one thread on a CPU, times are processor times.
"""

from typing import Literal

import torch
from timing import arguments, interleaved, processor_clock, report
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.functional import cr, cw_cr, cw_vr, vr
from lightning_repshape.networks import ConvNet

Clock = Literal["wall", "processor"]


def class_loop_covariance(z: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """cw-CR by one I x I covariance matrix after the other, each a matrix product, left to autograd."""
    units = z.shape[1]
    total = z.new_zeros(())
    off_diagonal = 1 - torch.eye(units, device=z.device)
    for k in range(num_classes):
        part = z[y == k]
        if part.shape[0]:
            centered = part - part.mean(0)
            covariance = centered.t() @ centered / part.shape[0]
            total = total + (covariance * off_diagonal).square().sum()
    return total / (num_classes * units * (units - 1))


def outer_loop_covariance(z: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """cw-CR as Eq. 5 reads, and as the authors compute it: the mean of every sample's I x I outer product."""
    units = z.shape[1]
    total = z.new_zeros(())
    for k in range(num_classes):
        part = z[y == k]
        if part.shape[0]:
            centered = part - part.mean(0)
            covariance = (centered.unsqueeze(2) @ centered.unsqueeze(1)).mean(0)
            total = total + covariance.square().sum() - covariance.diagonal().square().sum()
    return total / (num_classes * units * (units - 1))


def class_loop_variance(z: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """cw-VR as the formula reads."""
    total = z.new_zeros(())
    for k in range(num_classes):
        part = z[y == k]
        if part.shape[0]:
            total = total + (part - part.mean(0)).square().mean(0).sum()
    return total / (num_classes * z.shape[1])


def alone(device: str, repeats: int, quick: bool, clock: Clock) -> None:
    """cw-CR and cw-VR, forward and backward, without a network."""
    sizes = [(100, 100, 10), (100, 512, 10), (500, 128, 100), (500, 512, 100)]
    rows: list[dict[str, object]] = []
    for samples, units, classes in sizes[:1] + sizes[2:3] if quick else sizes:
        z = torch.randn(samples, units, device=device).relu_().requires_grad_()
        y = torch.randint(0, classes, (samples,), device=device)
        flat = z.detach()
        limit_blocks = torch.randn(classes, -(-samples // classes), units, device=device)
        seconds = interleaved(
            {
                "ours": lambda z=z, y=y, k=classes: cw_cr(z, y, k).backward(),
                "loop": lambda z=z, y=y, k=classes: class_loop_covariance(z, y, k).backward(),
                "outer": lambda z=z, y=y, k=classes: outer_loop_covariance(z, y, k).backward(),
                "limit": lambda b=limit_blocks: (b @ b.transpose(1, 2)) @ b,
                "ours v": lambda z=z, y=y, k=classes: cw_vr(z, y, k).backward(),
                "loop v": lambda z=z, y=y, k=classes: class_loop_variance(z, y, k).backward(),
                "limit v": lambda z=flat: z - z.mean(0),
            },
            repeats=repeats,
            clock=clock,
        )
        for name, suffix in (("cw-CR", ""), ("cw-VR", " v")):
            ours, loop, limit = (seconds[key + suffix] for key in ("ours", "loop", "limit"))
            outer = seconds["outer"] if not suffix else float("nan")
            rows.append(
                {
                    "penalty": name,
                    "N, I, K": f"{samples}, {units}, {classes}",
                    "ours us": ours * 1e6,
                    "class loop us": loop * 1e6,
                    "authors' loop us": outer * 1e6,
                    "limit us": limit * 1e6,
                    "class loop / ours": loop / ours,
                    "authors' / ours": outer / ours,
                    "ours / limit": ours / limit,
                }
            )
    report("Penalty alone, forward + backward (limit: the bare products, the bare centring)", rows)


def convolutional(device: str, repeats: int, quick: bool, clock: Clock) -> None:
    """Penalties on a convolutional layer of 32 x 32 x 32."""
    samples, channels, side = (100, 8, 16) if quick else (100, 32, 32)
    z = torch.randn(samples, channels, side, side, device=device).relu_()
    z = z.contiguous(memory_format=torch.channels_last).requires_grad_()
    y = torch.randint(0, 10, (samples,), device=device)
    rows: list[dict[str, object]] = []
    for positions in ("units", "samples"):
        seconds = interleaved(
            {
                "vr": lambda p=positions: vr(z, positions=p).backward(),
                "cw_vr": lambda p=positions: cw_vr(z, y, 10, positions=p).backward(),
                "cr": lambda p=positions: cr(z, positions=p).backward(),
                "cw_cr": lambda p=positions: cw_cr(z, y, 10, positions=p).backward(),
            },
            repeats=repeats,
            clock=clock,
        )
        rows.append({"positions": positions, **{f"{name} ms": value * 1e3 for name, value in seconds.items()}})
    report(f"On a convolutional layer, {samples} x {channels} x {side} x {side}, 10 classes, forward + backward", rows)


class _Step:
    """Training steps of one network with one penalty, fused Adam."""

    def __init__(self, body: nn.Module, units: int, x: Tensor, y: Tensor, penalty: object) -> None:
        self.body, self.x, self.y, self.penalty = body.to(x.device), x, y, penalty
        self.head = nn.Linear(units, 10).to(x.device)
        parameters = [*self.body.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        features = self.body(self.x)
        loss = F.cross_entropy(self.head(features), self.y)
        if callable(self.penalty):
            loss = loss + self.penalty(features, self.y)
        loss.backward()
        self.optimizer.step()


def _mlp() -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(784, 100), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Linear(100, 100), nn.ReLU()]
    return nn.Sequential(*layers)


def _convnet() -> nn.Module:
    def conv(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]

    body = nn.Sequential(
        *conv(3, 32),
        *conv(32, 64),
        nn.MaxPool2d(2),
        *conv(64, 128),
        nn.MaxPool2d(2),
        *conv(128, 128),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2048, 128),
        nn.ReLU(),
    )
    return body.to(memory_format=torch.channels_last)


def steps(device: str, repeats: int, quick: bool, clock: Clock) -> None:
    """Whole training steps with and without a penalty on the last hidden layer."""
    y = torch.randint(0, 10, (100,), device=device)
    images = torch.rand(100, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    penalties = {
        "none": None,
        "VR": lambda z, _: vr(z, scale=0.1),
        "cw-VR": lambda z, y: cw_vr(z, y, 10, scale=0.1),
        "CR": lambda z, _: cr(z, scale=0.1),
        "cw-CR": lambda z, y: cw_cr(z, y, 10, scale=0.1),
        "cw-VR loop": lambda z, y: 0.1 * class_loop_variance(z, y, 10),
        "cw-CR loop": lambda z, y: 0.1 * class_loop_covariance(z, y, 10),
        "cw-CR authors": lambda z, y: 0.1 * outer_loop_covariance(z, y, 10),
    }
    cases = [("MLP 784-100x5-10", _mlp, 100, torch.rand(100, 784, device=device), 3 * repeats)]
    if not quick:
        cases.append(("ConvNet 32-64-128-128-fc128", _convnet, 128, images, repeats))
    for title, body, units, x, rounds in cases:
        seconds = interleaved(
            {name: _Step(body(), units, x, y, penalty) for name, penalty in penalties.items()},
            repeats=rounds,
            clock=clock,
        )
        report(
            f"Training step, {title}, batch 100, fused Adam",
            [
                {"penalty": name, "ms": value * 1e3, "ratio to none": value / seconds["none"]}
                for name, value in seconds.items()
            ],
        )


class _LayerStep:
    """Training steps of the CIFAR network with a penalty on one of its layers, fused Adam."""

    def __init__(self, layer: str, penalty: object, x: Tensor, y: Tensor) -> None:
        self.layer, self.penalty, self.x, self.y = layer, penalty, x, y
        self.body = ConvNet((3, 32, 32)).to(x.device, memory_format=torch.channels_last)
        self.head = nn.Linear(128, 10).to(x.device)
        self.optimizer = torch.optim.Adam([*self.body.parameters(), *self.head.parameters()], lr=1e-6, fused=True)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        names = [self.layer] if callable(self.penalty) else []
        features, found = self.body.forward_activations(self.x, names)
        loss = F.cross_entropy(self.head(features), self.y)
        if callable(self.penalty):
            loss = loss + self.penalty(found[self.layer], self.y)
        loss.backward()
        self.optimizer.step()


def layers(device: str, repeats: int, quick: bool, clock: Clock) -> None:
    """Training steps of the CIFAR network with a penalty on one layer after the other (AAAI 2019, Figures 3 and 6)."""
    samples = 20 if quick else 100
    x = torch.rand(samples, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (samples,), device=device)
    penalties = {
        "VR": lambda z, _: vr(z, scale=0.1),
        "cw-VR": lambda z, y: cw_vr(z, y, 10, scale=0.1),
        "CR": lambda z, _: cr(z, scale=0.1),
        "cw-CR": lambda z, y: cw_cr(z, y, 10, scale=0.1),
    }
    names = ("conv1", "fc") if quick else ("conv1", "conv2", "conv3", "conv4", "fc")
    candidates = {"none": _LayerStep("fc", None, x, y)}
    for layer in names:
        candidates |= {f"{layer} {name}": _LayerStep(layer, penalty, x, y) for name, penalty in penalties.items()}
    seconds = interleaved(candidates, repeats=repeats, clock=clock)
    report(
        f"Training step of the CIFAR network, batch {samples}, with a penalty on a layer: ratio to none "
        f"({seconds['none'] * 1e3:.0f} ms)",
        [
            {"layer": layer, **{name: seconds[f"{layer} {name}"] / seconds["none"] for name in penalties}}
            for layer in names
        ],
    )


def main() -> None:
    """Prints all tables."""
    options = arguments(__doc__ or "")
    torch.manual_seed(0)
    repeats = 3 if options.quick else 9
    clock = processor_clock(options)
    alone(options.device, repeats, options.quick, clock)
    steps(options.device, repeats, options.quick, clock)
    convolutional(options.device, repeats, options.quick, clock)
    layers(options.device, max(3, repeats // 3), options.quick, clock)


if __name__ == "__main__":
    main()
