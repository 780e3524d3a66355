"""One list of checks for every loss, head, regularizer, metric, network and analysis; none can be forgotten.

The parts are found by introspection. One whose constructor or call needs more than its room's common arguments has an
entry here, and a new one without fails with a message that says so.
"""

import copy
import importlib
import inspect
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ddp_pool import GlooPool
from torch import Tensor, nn

from lightning_repshape.analyses import Analysis, Corruptions, FeatureInputs, LayerSimilarity
from lightning_repshape.features.passes import Features
from lightning_repshape.heads import Head
from lightning_repshape.losses import ClassificationLoss, FeedBackwardReconstruction
from lightning_repshape.metrics import ExactSums
from lightning_repshape.networks import Backbone
from lightning_repshape.regularizers import Regularizer, WeightRegularizer

N, D, K = 12, 6, 3


def parts(room: str, base: type | tuple[type, ...]) -> list[type]:
    """The concrete public classes of a room."""
    module = importlib.import_module(f"lightning_repshape.{room}")
    found = [vars(module)[name] for name in module.__all__]
    bases = base if isinstance(base, tuple) else (base,)
    return [
        part
        for part in found
        if inspect.isclass(part) and issubclass(part, bases) and part not in bases and not inspect.isabstract(part)
    ]


def named(*groups: list[type]) -> Any:
    every = [part for group in groups for part in group]
    return pytest.mark.parametrize("part", every, ids=[part.__name__ for part in every])


def samples(dtype: torch.dtype = torch.float32, rows: int = N) -> tuple[Tensor, Tensor]:
    """Features, and labels of which the last class is empty."""
    source = torch.Generator().manual_seed(0)
    return torch.randn(rows, D, generator=source).to(dtype), torch.arange(rows) % (K - 1)


def copies(module: nn.Module) -> list[nn.Module]:
    """Deep copied, pickled, and its state in a new copy."""
    other = copy.deepcopy(module)
    other.load_state_dict(module.state_dict())
    return [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), other]


def close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True, check_device=False)


# -- losses, heads and regularizers -----------------------------------------------------------------------------------

LOSSES = [*parts("losses", (ClassificationLoss, FeedBackwardReconstruction)), FeedBackwardReconstruction]
HEADS = parts("heads", Head)
REGULARIZERS = parts("regularizers", (Regularizer, WeightRegularizer))


def made(part: type) -> tuple[nn.Module, Callable[[nn.Module, Tensor, Tensor], Tensor]]:
    """A loss, head or regularizer, and how it is called."""
    torch.manual_seed(0)
    weight = torch.randn(K, D)
    if issubclass(part, ClassificationLoss):
        return part(D, K), lambda loss, x, y: loss(x, weight.to(x), None, y)
    if issubclass(part, FeedBackwardReconstruction):
        return part(weight=0.5), lambda term, x, y: term(x, weight.to(x), y)
    if issubclass(part, Head):
        return part(D, K), lambda head, x, y: head(x)
    if issubclass(part, WeightRegularizer):
        return part(0.5), lambda penalty, x, y: penalty([x])
    return part(0.5), lambda penalty, x, y: penalty(x, y, K)


@named(LOSSES, HEADS, REGULARIZERS)
def test_terms_and_heads(part: type) -> None:
    module, call = made(part)
    module.eval()
    x, y = samples()
    value = call(module, x, y)
    assert value.isfinite().all()
    for other in copies(module):
        close(call(other, x, y), value)
    # dtypes: double throughout is more exact, half precision no worse than its own digits
    double = call(copy.deepcopy(module).double(), x.double(), y)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), value, rtol=1e-3, atol=1e-4)
    for dtype in (torch.bfloat16, torch.float16):
        half = call(copy.deepcopy(module).to(dtype), x.to(dtype), y)
        torch.testing.assert_close(half.float(), value, rtol=0.1, atol=0.05)
        with torch.autocast("cpu", dtype=dtype):
            torch.testing.assert_close(call(module, x, y).float(), value, rtol=0.1, atol=0.05)
    # one sample, and a sample of zeros, have finite values and gradients
    module.train()
    for rows in (x[:1], torch.cat([x[:2], torch.zeros(1, D)])):
        leaf = rows.clone().requires_grad_()
        call(module, leaf, y[: len(rows)]).sum().backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all()
    memberships = nn.functional.one_hot(y, K).float()
    close(call(module.eval(), x, memberships), call(module, x, y))


@named(
    [
        part
        for part in (*LOSSES, *HEADS, *REGULARIZERS)
        if part.__name__ in ("CosFace", "CenterLoss", "MLPHead", "Covariance")
    ]
)
def test_compiled(part: type) -> None:
    module, call = made(part)
    x, y = samples()
    wanted = call(module.eval(), x, y)
    module.compile(backend="eager")
    close(call(module, x, y), wanted)


# -- metrics ----------------------------------------------------------------------------------------------------------

METRICS = parts("metrics", ExactSums) + [
    part for part in parts("metrics", nn.Module) if not issubclass(part, ExactSums) and part is not ExactSums
]
Arguments = Callable[[Tensor, Tensor], tuple[Any, ...]]
# the constructor's arguments, and those of an update
METRIC_CALLS: dict[str, tuple[tuple[Any, ...], Arguments]] = {
    "ClassCosines": ((), lambda x, y: (x, torch.eye(K, D, dtype=x.dtype), y, y)),
    "ClassMeans": ((K, D), lambda x, y: (x, y)),
    "ClassificationSums": ((), lambda x, y: (x.mean(), x[:, :K], y)),
    "LDAEigenvalueMetric": ((K, D), lambda x, y: (x, y)),
    "PairFeatures": ((N, D), lambda x, y: (x, torch.arange(len(x)))),
    "ReconstructionSums": ((), lambda x, y: (x.square().mean(), x.square().mean(), len(x))),
    "RepresentationStatistics": ((K, D), lambda x, y: (x, y)),
    "ScatterMetric": ((K, D), lambda x, y: (x, y)),
    "VerificationMetric": ((), lambda x, y: (x[:, 0].float(), y == 0, torch.arange(len(x)) // 2 % 3)),
    "WeightSeparabilityMetric": ((), lambda x, y: (x[:K],)),
}


def numbers(value: Any) -> list[float]:
    """All numbers of a result, whatever holds them."""
    if isinstance(value, Tensor):
        return [float(number) for number in value.flatten().double()]
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list | tuple):
        return [number for item in value for number in numbers(item)]
    if isinstance(value, int | float):
        return [float(value)]
    return [number for item in vars(value).values() for number in numbers(item)] if hasattr(value, "__dict__") else []


@named(METRICS)
def test_metrics(part: type) -> None:
    assert part.__name__ in METRIC_CALLS, f"{part.__name__} is new: say in METRIC_CALLS how it is made and called"
    options, arguments = METRIC_CALLS[part.__name__]
    x, y = samples()
    metric = part(*options)
    metric.update(*arguments(x, y))
    before = numbers(result(metric))
    assert before
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert numbers(result(other)) == pytest.approx(before, nan_ok=True)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        other = part(*options).to(dtype)
        other.update(*arguments(x.to(dtype), y))
        found = numbers(result(other))
        assert found == pytest.approx(before, rel=0.2, abs=0.1, nan_ok=True)
    # additive: two batches are one; reset forgets
    if part.__name__ not in ("ClassificationSums", "ReconstructionSums", "PairFeatures", "VerificationMetric"):
        other = part(*options)
        for rows in (
            (slice(0, 5), slice(5, None)) if part.__name__ != "WeightSeparabilityMetric" else (slice(None),) * 2
        ):
            other.update(*arguments(x[rows], y[rows]))
        assert numbers(result(other)) == pytest.approx(before, nan_ok=True)
    metric.reset()
    metric.update(*arguments(x, y))
    assert numbers(result(metric)) == pytest.approx(before, nan_ok=True)
    one = part(*options)
    one.update(*arguments(x[:1], y[:1]))
    with suppress(ValueError):  # of one pair, or one class, there is no figure, and a sentence says so
        result(one)


def update(metric: Any, x: Tensor, y: Tensor, rows: Tensor) -> None:
    """Adds some rows; pairs' features are kept by their positions."""
    if type(metric).__name__ == "PairFeatures":
        metric.update(x[rows], rows)
    else:
        metric.update(*METRIC_CALLS[type(metric).__name__][1](x[rows], y[rows]))


def result(metric: Any) -> Any:
    if type(metric).__name__ == "PairFeatures":
        return metric.scores(torch.tensor([0, 0]), torch.tensor([0, 0]))[0]
    if type(metric).__name__ == "VerificationMetric":
        found = metric.compute()
        return found.accuracy, found.auc
    if type(metric).__name__ == "ScatterMetric":
        return metric.compute().total_scatter()
    return metric.compute()


# -- several processes, other devices ---------------------------------------------------------------------------------


def figures_of_all(rank: int = 0, world_size: int = 1) -> dict[str, Any]:
    """What every metric, loss and regularizer gives for this rank's rows, or for both ranks' in one process."""
    x, y = samples(torch.float64)
    shares = [torch.arange(N)[start::2] for start in range(2)]  # each has one class alone
    together, found = not dist.is_initialized(), {}
    for part in METRICS:
        metric = part(*METRIC_CALLS[part.__name__][0])
        for rows in shares if together else [shares[rank]]:
            update(metric, x, y, rows)
        if isinstance(metric, ExactSums):
            found[part.__name__] = numbers(result(metric))
    for part in (*LOSSES, *REGULARIZERS):
        module, call = made(part)
        module.double().train(part in REGULARIZERS)  # which join their batches in training alone
        rows = torch.arange(N) if together or issubclass(part, WeightRegularizer) else shares[rank]
        value = call(module, x[rows], y[rows]).mean()
        if not together and part in LOSSES:  # DistributedDataParallel takes the mean of their gradients
            dist.all_reduce(value)
            value = value / world_size
        found[part.__name__] = numbers(value)
    return found


def test_two_processes_give_what_one_gives(gloo: GlooPool) -> None:
    wanted = figures_of_all()
    for found in gloo.run(figures_of_all):
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            assert found[name] == pytest.approx(values, rel=1e-9, abs=1e-12, nan_ok=True), name


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All tensors of a module by their names, those that are no parameters or buffers, too."""
    own = {name: value for part in module.modules() for name, value in vars(part).items() if isinstance(value, Tensor)}
    return {**dict(module.named_parameters()), **dict(module.named_buffers()), **own}


@named(LOSSES, HEADS, REGULARIZERS, METRICS)
def test_nothing_stays_behind_when_a_part_moves(part: type) -> None:
    module = part(*METRIC_CALLS[part.__name__][0]) if part in METRICS else made(part)[0]
    assert {value.device.type for value in tensors_of(module.to("meta")).values()} <= {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@named(LOSSES, HEADS, REGULARIZERS, METRICS)
def test_on_a_gpu(part: type) -> None:
    x, y = samples()
    if part in METRICS:
        metrics = [part(*METRIC_CALLS[part.__name__][0]) for _ in range(2)]
        update(metrics[0], x, y, torch.arange(N))
        with torch.device("cuda"):
            update(metrics[1].to("cuda"), x.cuda(), y.cuda(), torch.arange(N).cuda())
            found = numbers(result(metrics[1]))
        assert found == pytest.approx(numbers(result(metrics[0])), rel=1e-4, abs=1e-5, nan_ok=True)
        return
    module, call = made(part)
    wanted = call(module.eval(), x, y)
    close(call(module.to("cuda"), x.cuda(), y.cuda()).cpu(), wanted)


# -- networks ---------------------------------------------------------------------------------------------------------

# small versions: the input shape, and options
SMALL: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "ConvNet": ((3, 8, 8), {"width": 10}),
    "DDRL": ((3, 32, 32), {"width": 12, "filters": 2}),
    "DeepFace": ((3, 72, 80), {"width": 12, "filters": (4, 3, 3, 3, 3)}),
    "DeepID2Plus": ((1, 55, 47), {"width": 12, "filters": 4}),
    "DenseNet40": ((3, 8, 8), {"growth": 2}),
    "FOCANet": ((3, 8, 8), {"widths": (4, 6, 8), "batch_norm": True}),
    "FaceResNet": ((1, 28, 23), {"width": 12, "filters": 2, "units": (0, 1, 0, 1)}),
    "Highway": ((3, 8, 8), {"width": 6, "depth": 6}),
    "InceptionResNetV1": ((3, 80, 80), {"width": 12, "width_multiplier": 0.05}),
    "LeNet": ((3, 16, 16), {"width": 10}),
    "MLP": ((1, 6, 6), {"widths": (7, 5), "batch_norm": True}),
    "MobileNetV2": ((3, 16, 16), {"width_multiplier": 0.25}),
    "NiN": ((3, 8, 8), {"layout": "nine", "batch_norm": True}),
    "PreActResNet18": ((3, 16, 16), {"width": 4}),
    "QuickNet": ((3, 12, 12), {"widths": (4, 6, 8), "depths": (1, 1, 2)}),
    "ResNet110": ((3, 8, 8), {"width": 2}),
    "ResNet18": ((3, 16, 16), {"width": 4}),
    "ResNet32": ((3, 8, 8), {"width": 4}),
    "TimmBackbone": ((3, 32, 32), {"name": "test_resnet"}),
    "TorchvisionBackbone": ((3, 32, 32), {"name": "squeezenet1_1"}),
    "VGG16": ((3, 32, 32), {}),
    "WideResNet": ((3, 8, 8), {"depth": 10, "width": 1, "dropout": 0.1}),
}


@named(parts("networks", Backbone))
def test_networks(part: type) -> None:
    assert part.__name__ in SMALL, f"{part.__name__} is new: add a small version to SMALL"
    if part.__name__ == "TimmBackbone":
        pytest.importorskip("timm")
    shape, options = SMALL[part.__name__]
    torch.manual_seed(0)
    net = part(shape, **options).eval()
    x = torch.randn(2, *shape)
    with torch.no_grad():
        features = net(x)
        assert features.shape == (2, net.num_features) and features.isfinite().all()
        torch.testing.assert_close(net(x[:1]), features[:1], rtol=1e-3, atol=1e-4)
        for other in copies(net) if part.__name__ != "VGG16" else ():  # which is large
            close(other(x), features)
        for dtype in (torch.float64, torch.bfloat16) if part.__name__ != "VGG16" else ():
            other = copy.deepcopy(net).to(dtype)(x.to(dtype))
            assert other.dtype == dtype and other.isfinite().all()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert net(x).isfinite().all()
    net.train()
    net(x).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


# -- analyses ---------------------------------------------------------------------------------------------------------

QUICK: dict[str, dict[str, Any]] = {
    "FisherGeodesic": {"few": 10, "segments": 3, "part": 0.5, "updates": 5, "hidden": (4,)},
    "PartialDatasetRetraining": {"sizes": [6, 12], "repeats": [2, 2], "updates": 5, "hidden": (4,)},
}


def analysis_inputs(dtype: torch.dtype = torch.float32, rows: int = 30, empty: bool = False) -> FeatureInputs:
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % (K - 1 if empty else K)
    weight = torch.randn(K, D, generator=source)
    features = weight[labels] + 0.5 * torch.randn(rows, D, generator=source).relu()
    given = Features(features.to(dtype), labels, (features @ weight.T).to(dtype))
    far = Features((features + 3).to(dtype), torch.full_like(labels, -1), ((features + 3) @ weight.T).to(dtype))
    return FeatureInputs({"train": given, "test": given}, K, weight=weight, other={"test": far})


# the first needs images, the second a model
@named([part for part in parts("analyses", Analysis) if part not in (Corruptions, LayerSimilarity)])
def test_analyses(part: type) -> None:
    analysis = part(**QUICK.get(part.__name__, {}))
    for other in (copy.deepcopy(analysis), pickle.loads(pickle.dumps(analysis))):
        assert other.name == analysis.name
    first = analysis.run(analysis_inputs())
    assert first.failure == "" and first.result is not None
    again = copy.deepcopy(analysis).run(analysis_inputs())
    assert again.result is not None and again.result.scalars == pytest.approx(first.result.scalars, nan_ok=True)
    for given in (
        analysis_inputs(torch.float64),
        analysis_inputs(torch.float16),
        analysis_inputs(torch.bfloat16),
        analysis_inputs(empty=True),
        analysis_inputs(rows=1),
    ):
        outcome = analysis.run(given)
        # what cannot be is said in words: nothing of another library, no name of an exception
        assert (outcome.result is not None) != bool(outcome.failure)
        assert "Error" not in outcome.failure, outcome.failure
    assert analysis.run(analysis_inputs(torch.float64)).failure == ""
    assert analysis.run(analysis_inputs(torch.bfloat16)).failure == ""
