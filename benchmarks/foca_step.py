"""FOCA's step against the step that a joint training takes anyway.

Limit: the backbone's forward pass over b, forward and backward pass over the m samples of phi through backbone and a
given head, and SGD's update: what no implementation of Algorithm 1 can leave out. Ours: the same with the module's
inner solve, phi's loss and max-norm projection, its weak classifier's initial numbers drawn afresh each time. Naive:
the solve by ``nn.Module`` and ``torch.optim.SGD``, on features computed once ("cached"), or on b's images at every
update ("recomputed").
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from timing import arguments, interleaved, processor_clock, report
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.functional.stacked_heads import solve_heads
from lightning_repshape.modules import FOCAModule, PhiUpdates, SupervisedModule, WeakRecipe
from lightning_repshape.networks import VGG16, FOCANet
from lightning_repshape.networks.base import Neck
from lightning_repshape.performance import keep_freed_memory

CLASSES, PER_CLASS, UPDATES, HIDDEN, SAMPLES = 10, 10, 32, (128, 128), 100
RATE, MOMENTUM, LAM, SCALE, MAX_NORM = 0.05, 0.9, 1e-3, 10.0, 4.0


class GivenSource:
    """Always the same b: drawing images is no part of these measurements."""

    def __init__(self, device: str, shape: tuple[int, ...]) -> None:
        self.y = torch.arange(CLASSES, device=device).repeat_interleave(PER_CLASS)
        self.x = torch.randn(len(self.y), *shape, device=device).to(memory_format=torch.channels_last)

    def balanced(
        self, per_class: int, generator: torch.Generator, replacement: bool, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """B's images and labels."""
        return self.x, self.y

    def uniform(
        self, count: int, generator: torch.Generator, replacement: bool = True, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The first of the same images."""
        return self.x[:count], self.y[:count]


def head(features: int, device: str) -> nn.Sequential:
    """A weak classifier as a module, with the paper's initial numbers."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((features, *HIDDEN, CLASSES)):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=device)
        nn.init.normal_(layer.weight, 0.0, 0.1)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def naive_solve(features: Callable[[], Tensor], y: Tensor) -> nn.Sequential:
    """A weak classifier by autograd and torch's optimizer; features are asked for at every update."""
    z = features()
    theta = head(z.shape[1], str(z.device))
    descent = torch.optim.SGD(theta.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=2 * LAM)
    for number in range(UPDATES):
        descent.zero_grad()
        F.cross_entropy(theta(features() if number else z), y).backward()
        descent.step()
    return theta.requires_grad_(False)


def inner_solves(dim: int, device: str, repeats: int, clock: Literal["wall", "processor"]) -> None:
    """The inner solve alone, its initial numbers drawn in both ways."""
    y = torch.arange(CLASSES, device=device).repeat_interleave(PER_CLASS)
    x = torch.randn(len(y), dim, device=device).relu_()
    x *= SCALE / x.norm(dim=1).mean()
    options: dict[str, Any] = {"hidden": HIDDEN, "lam": LAM, "updates": UPDATES, "rate": RATE, "momentum": MOMENTUM}
    ours, naive = "ours", "nn.Module + SGD"
    seconds = interleaved(
        {
            ours: lambda: solve_heads(x, y, num_classes=CLASSES, validate=False, **options),
            naive: lambda: naive_solve(lambda: x, y),
        },
        repeats=repeats,
        clock=clock,
    )
    rows = [
        {"inner solve": name, "ms": 1e3 * value, "naive / it": seconds[naive] / value}
        for name, value in seconds.items()
    ]
    report(f"Inner solve alone, D = {dim}", rows)


def steps(backbone: Any, shape: tuple[int, ...], device: str) -> dict[str, Callable[[], object]]:
    """The candidates, each on a network of its own, as functions that take one step."""
    source = GivenSource(device, shape)
    x = torch.randn(SAMPLES, *shape, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (SAMPLES,), device=device)
    sgd = partial(torch.optim.SGD, lr=1e-4, momentum=0.9)

    def parts() -> tuple[FOCAModule, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = FOCAModule(CLASSES, shape, backbone, phi=PhiUpdates(max_norm=MAX_NORM), optimizer=sgd).to(device)
        fused = torch.optim.SGD(module.trainable_parameters(), lr=1e-4, momentum=0.9, fused=True)
        return module.train(), fused

    def limit() -> Callable[[], object]:
        module, optimizer = parts()
        theta = head(module.num_features, device).requires_grad_(False)

        def step() -> None:
            with torch.no_grad():
                module.backbone(source.x)
            F.cross_entropy(theta(module.backbone(x)), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def ours(number: int = 1) -> Callable[[], object]:
        module, optimizer = parts()
        count = itertools.count()

        def step() -> None:
            key = ("benchmark", next(count))
            features, labels = module.draw_features(source, 1, *key)
            solution, scale, _ = module.solve_classifiers(features, labels, number, *key)
            loss, _ = module.phi_loss(solution.heads, scale, x, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            module.project()

        return step

    def naive(cached: bool) -> Callable[[], object]:
        module, optimizer = parts()

        def features_of_b() -> Tensor:
            with torch.no_grad():
                return module.backbone(source.x)

        def step() -> None:
            features = features_of_b()
            scale = SCALE / features.norm(dim=1).mean()
            theta = naive_solve((lambda: features * scale) if cached else (lambda: features_of_b() * scale), source.y)
            F.cross_entropy(theta(module.backbone(x) * scale), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            module.project()

        return step

    return {
        "limit": limit(),
        "ours": ours(),
        "ours, E = 16": ours(16),
        "naive, cached features": naive(cached=True),
        "naive, recomputed features": naive(cached=False),
    }


def later_form(device: str, repeats: int, clock: Literal["wall", "processor"]) -> None:
    """The authors' later form, u = 32 updates of m = 128 for one theta, against joint training of the same net."""
    number, samples = 32, 128
    backbone = partial(FOCANet, widths=(16, 32, 64), depth=1, neck=Neck((128, 128)))
    x = torch.randn(number * samples, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (len(x),), device=device)
    source, count = GivenSource(device, (3, 32, 32)), itertools.count()
    weak = WeakRecipe(hidden=(), updates=64, rate=0.03, nesterov=True, weight_decay=5e-3, feature_scale=None)
    chunks = list(zip(x.split(samples), y.split(samples), strict=True))
    torch.manual_seed(0)
    module = FOCAModule(CLASSES, (3, 32, 32), backbone, weak, phi=PhiUpdates(max_norm=None)).to(device).train()
    joint = SupervisedModule(CLASSES, (3, 32, 32), backbone).to(device).train()
    descents = [torch.optim.SGD(one.parameters(), lr=1e-4, momentum=0.9, fused=True) for one in (module, joint)]

    def foca() -> None:
        key = ("benchmark", next(count))
        solution, scale, _ = module.solve_classifiers(*module.draw_features(source, 1, *key), 1, *key)
        for part, labels in chunks:
            module.phi_loss(solution.heads, scale, part, labels)[0].backward()
            descents[0].step()
            descents[0].zero_grad()

    def jointly() -> None:
        for part, labels in chunks:
            F.cross_entropy(joint(part).logits, labels).backward()
            descents[1].step()
            descents[1].zero_grad()

    seconds = interleaved({"joint": jointly, "FOCA": foca}, repeats=repeats, clock=clock)
    rows = [
        {"training": name, "images a second": len(x) / value, "of joint's": seconds["joint"] / value}
        for name, value in seconds.items()
    ]
    report("The later form, u = 32, m = 128, a small net with the neck", rows)


def main() -> None:
    """Prints a table a network, one of the inner solve alone and one of the later form."""
    options = arguments(
        "FOCA's step against the passes and the update that it cannot do without",
        {"vgg": "VGG-16 alone, three rounds: one to three minutes on one core"},
    )
    clock = processor_clock(options)
    keep_freed_memory()  # as every module does before a training; here all candidates gain from it
    on_cpu = options.device == "cpu"
    # On the CPU as deep, but a step of seconds, not of minutes.
    vgg: tuple[Any, tuple[int, ...]] = (VGG16, (3, 32, 32) if on_cpu else (3, 96, 96))
    small: Any = partial(FOCANet, widths=(16, 32, 256), depth=1)
    networks: dict[str, tuple[Any, tuple[int, ...]]] = {
        "small net: 3 convolutions, D = 4096": (small, (3, 32, 32)),
        "FOCANet: 6 convolutions, D = 4096": (FOCANet, (3, 32, 32)),
        "VGG-16, D = 512" if on_cpu else "VGG-16, 96 x 96 pixels, D = 4608": vgg,
    }
    if options.vgg:
        networks = dict([networks.popitem()])
    elif options.quick or on_cpu:
        networks.popitem()
    for name, (backbone, shape) in networks.items():
        candidates = steps(backbone, shape, options.device)
        if options.quick or options.vgg:
            del candidates["naive, recomputed features"]
        if options.vgg:
            del candidates["ours, E = 16"]
        seconds = interleaved(candidates, repeats=3 if options.quick or options.vgg else 7, clock=clock)
        rows = [
            {"step": what, "ms": 1e3 * value, "ratio to limit": value / seconds["limit"], "naive / it": naive / value}
            for what, value in seconds.items()
            for naive in [seconds["naive, cached features"]]
        ]
        report(f"FOCA step, {name}, b = {CLASSES * PER_CLASS}, m = {SAMPLES}, {UPDATES} updates", rows)
    if not options.vgg:
        inner_solves(4096, options.device, 5 if options.quick else 15, clock)
        later_form(options.device, 3 if options.quick else 7, clock)


if __name__ == "__main__":
    main()
