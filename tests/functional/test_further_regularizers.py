"""SupCon, VCReg, RR and cw-RR: float64 transcriptions, gradients, cases by hand, and the joined batch."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ddp_pool import GlooPool
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError
from lightning_repshape.functional import cw_rr, rr, supcon, vcreg
from lightning_repshape.regularizers import (
    ClasswiseStableRank,
    Regularizer,
    StableRank,
    SupervisedContrastive,
    VarianceCovariance,
)

K = 4


def data(samples: int = 9, units: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, units, generator=generator, dtype=torch.float64)
    return z + 1, torch.randint(0, K - 1, (samples,), generator=generator)  # the last class is always absent


def soft(samples: int = 9) -> Tensor:
    drawn = torch.rand(samples, K, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return drawn / drawn.sum(dim=1, keepdim=True)


def transcribed_supcon(z: Tensor, y: Tensor, t: float) -> float:
    u = [row / math.sqrt(float(row @ row)) for row in z]
    total = 0.0
    for n in range(len(u)):
        rest = sum(math.exp(float(u[n] @ u[a]) / t) for a in range(len(u)) if a != n)
        own = [p for p in range(len(u)) if p != n and y[p] == y[n]]
        if own:
            total -= sum(math.log(math.exp(float(u[n] @ u[p]) / t) / rest) for p in own) / len(own)
    return total / len(u)


def transcribed_vcreg(z: Tensor, ratio: float) -> float:
    c = np.cov(z.numpy(), rowvar=False)
    units = len(c)
    variance = sum(max(0.0, 1 - math.sqrt(c[i, i] + 1e-4)) for i in range(units)) / units
    pairs = sum(c[i, j] ** 2 for i in range(units) for j in range(units) if i != j)
    return variance + ratio * pairs / (units * (units - 1))


def transcribed_rr(z: Tensor) -> float:
    a = z.numpy()
    return float(np.trace(a.T @ a) / (np.linalg.norm(a, 1) * np.linalg.norm(a, np.inf)))


@pytest.mark.parametrize(("samples", "units"), [(9, 5), (4, 12), (30, 2)])
def test_transcriptions(samples: int, units: int) -> None:
    z, y = data(samples, units)
    assert float(supcon(z, y, K, temperature=0.3)) == pytest.approx(transcribed_supcon(z, y, 0.3), rel=1e-12)
    assert float(vcreg(0.5 * z, ratio=0.7)) == pytest.approx(transcribed_vcreg(0.5 * z, 0.7), rel=1e-12)
    assert float(rr(z)) == pytest.approx(transcribed_rr(z), rel=1e-12)
    classes = [transcribed_rr(z[y == k]) for k in y.unique()]
    assert float(cw_rr(z, y, K)) == pytest.approx(sum(classes) / K, rel=1e-12)
    assert float(rr(z)) <= np.linalg.norm(z.numpy()) ** 2 / np.linalg.norm(z.numpy(), 2) ** 2


def functions(y: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    return {
        "supcon": lambda z: supcon(z, y, K, temperature=0.5, scale=2.0),
        "vcreg": lambda z: vcreg(z, ratio=0.7, scale=2.0),
        "rr": lambda z: rr(z, scale=2.0),
        "cw_rr": lambda z: cw_rr(z, y, K, scale=2.0),
    }


@pytest.mark.parametrize("name", ["supcon", "vcreg", "rr", "cw_rr"])
def test_gradients(name: str) -> None:
    z, y = data()
    for labels in (y, soft()):
        assert torch.autograd.gradcheck(functions(labels)[name], (0.4 * z).requires_grad_())


@pytest.mark.parametrize("name", ["supcon", "cw_rr"])
def test_certain_memberships_are_labels(name: str) -> None:
    z, y = data()
    one_hot = F.one_hot(y, K).double()
    torch.testing.assert_close(functions(one_hot)[name](z), functions(y)[name](z))


def test_by_hand() -> None:
    # RR of the rows (1, -2), (3, 0): squares 14; columns 4, 2; rows 3, 3
    assert float(rr(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))) == pytest.approx(14 / (4 * 3))
    # a row is its class's only one where the classes differ: 5 / (2 * 3) and 9 / (3 * 3), of four classes
    assert float(cw_rr(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), torch.tensor([0, 1]), 4)) == pytest.approx(
        (5 / 6 + 1) / 4
    )
    # two alike samples of one class and one at a right angle: each of the two has log(e + 1) - 1
    z, y = torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1])
    assert float(supcon(z, y, 2, temperature=1.0)) == pytest.approx(2 / 3 * (math.log(math.e + 1) - 1))


@pytest.mark.parametrize("name", ["supcon", "vcreg", "rr", "cw_rr"])
@pytest.mark.parametrize("case", ["single", "each its class", "zeros", "equal rows"])
def test_where_there_is_little_to_say_gradients_are_finite(name: str, case: str) -> None:
    z = {"single": torch.ones(1, 3), "zeros": torch.zeros(4, 3), "equal rows": torch.ones(4, 3)}.get(case, torch.eye(4))
    y = torch.arange(len(z)) if case == "each its class" else torch.zeros(len(z), dtype=torch.int64)
    z = z.clone().requires_grad_()
    value = functions(y)[name](z)
    value.backward()
    assert bool(value.isfinite()) and z.grad is not None and bool(z.grad.isfinite().all())
    if name == "supcon" and case in ("single", "each its class"):
        assert float(value.detach()) == 0 and not z.grad.any()
    if case == "zeros" and name in ("rr", "cw_rr"):
        assert float(value.detach()) == 0


def test_half_precision_and_positions() -> None:
    z, y = data(8, 6)
    for name, function in functions(y).items():
        exact = function(z.bfloat16().float())
        assert torch.equal(function(z.bfloat16()), exact), name
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(function(z.bfloat16().float()), exact), name
    maps = z.view(8, 3, 2).unsqueeze(-1)
    units = z.view(8, 3, 2).movedim(1, 2).reshape(16, 3)
    torch.testing.assert_close(vcreg(maps, positions="samples"), vcreg(units))
    torch.testing.assert_close(cw_rr(maps, y, K, positions="samples"), cw_rr(units, y.repeat_interleave(2), K))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda z, y: supcon(z, y, K, temperature=0.0), ValueError, "temperature must be a finite number above 0"),
        (lambda z, y: supcon(z, y + 9, K), ValueError, "0 .. 3|out of range|0..3"),
        (lambda z, y: supcon(z, y[:2], K), ValueError, "label"),
        (lambda z, y: vcreg(z[:, :1]), ValueError, "at least two units"),
        (lambda z, y: vcreg(z, ratio=-1.0), ValueError, "ratio must be a finite number >= 0"),
        (lambda z, y: rr(z.long()), TypeError, "must be floating point"),
        (lambda z, y: rr(z[:0]), ValueError, "the batch is empty"),
        (lambda z, y: cw_rr(z, None, K), ValueError, "needs labels"),
    ],
)
def test_what_is_refused(call: Callable[[Tensor, Tensor], Tensor], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(*data())


FACES: list[tuple[Regularizer, str]] = [
    (SupervisedContrastive(2.0, temperature=0.5, num_classes=K), "supcon"),
    (VarianceCovariance(2.0, ratio=0.7), "vcreg"),
    (StableRank(2.0), "rr"),
    (ClasswiseStableRank(2.0, num_classes=K), "cw_rr"),
]


@pytest.mark.parametrize(("face", "name"), FACES, ids=lambda part: part if isinstance(part, str) else "")
def test_faces_are_the_functions(face: Regularizer, name: str) -> None:
    z, y = data()
    torch.testing.assert_close(face(z, y), functions(y)[name](z))
    weighted, raw = face.weighted_and_raw(z, y, K, epoch=None)
    torch.testing.assert_close(weighted, 2 * raw)


def test_options_of_faces_are_checked() -> None:
    for build in (
        lambda: SupervisedContrastive(1.0, temperature=0),
        lambda: VarianceCovariance(1.0, ratio=-1),
        lambda: StableRank(-1.0),
        lambda: ClasswiseStableRank(1.0, positions="pixels"),
    ):
        with pytest.raises(ConfigError):
            build()


def gradient_of_rank(rank: int, world_size: int, name: str, sizes: list[int]) -> tuple[Tensor, Tensor]:
    z, y = data()
    own, labels = z.split(sizes)[rank].clone().requires_grad_(), y.split(sizes)[rank]
    face = dict((kind, part) for part, kind in FACES)[name].train()
    value = face(own, labels, K)
    value.backward()
    assert own.grad is not None
    return value.detach(), own.grad


@pytest.fixture(scope="module")
def pool() -> "GlooPool":
    found = GlooPool()
    yield found  # type: ignore[misc]
    found.close()


@pytest.mark.parametrize("name", ["supcon", "vcreg", "rr", "cw_rr"])
def test_processes_have_the_joined_batch(name: str, pool: GlooPool) -> None:
    z, y = data()
    whole = z.clone().requires_grad_()
    value = functions(y)[name](whole)
    value.backward()
    found = pool.run(gradient_of_rank, name, [5, 4])
    for own, _ in found:
        torch.testing.assert_close(own, value.detach())
    # DistributedDataParallel divides the sum of the processes' gradients by their number
    torch.testing.assert_close(torch.cat([grad for _, grad in found]) / 2, whole.grad)
