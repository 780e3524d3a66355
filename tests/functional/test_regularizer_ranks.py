"""The kernels of a joined batch, by threads in the place of processes, against those of one process."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from lightning_repshape.functional import regularizer_kernels as kernels
from lightning_repshape.functional import regularizer_ranks as joined

SIZES, K = [5, 9, 2], 4


class Collectives:
    """Sums and gathers among threads; a thread's rank is its place in ``run``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
        self.here, self.meeting = threading.local(), threading.Barrier(ranks, timeout=10)
        self.slots: list[Tensor] = [torch.empty(0)] * ranks
        monkeypatch.setattr(dist, "get_rank", lambda group: self.here.rank)
        monkeypatch.setattr(dist, "all_reduce", lambda x, group: x.copy_(torch.stack(self.everybodys(x)).sum(0)))
        monkeypatch.setattr(
            dist, "all_gather", lambda out, x, group: [a.copy_(b) for a, b in zip(out, self.everybodys(x), strict=True)]
        )

    def everybodys(self, tensor: Tensor) -> list[Tensor]:
        self.meeting.wait()
        self.slots[self.here.rank] = tensor.clone()
        self.meeting.wait()
        return list(self.slots)

    def run(self, function: Callable[[int], Any]) -> list[Any]:
        def as_rank(rank: int) -> Any:
            self.here.rank = rank
            return function(rank)

        with ThreadPoolExecutor(len(self.slots)) as threads:
            return list(threads.map(as_rank, range(len(self.slots))))


def batches(units: int, soft: bool) -> tuple[Tensor, Tensor]:
    torch.manual_seed(units)
    rows, labels = torch.randn(sum(SIZES), units).double() + 3, torch.randint(K - 1, (sum(SIZES),))  # one is absent
    return rows, torch.rand(sum(SIZES), K).double() if soft else labels


@pytest.mark.parametrize("units", [2, 30])  # covariance matrices are reduced, activations are gathered
@pytest.mark.parametrize("kind", ["vr", "cr", "cw_vr", "cw_cr", "soft cw_vr", "soft cw_cr"])
def test_joined_kernels_are_those_of_the_joined_batch(kind: str, units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = batches(units, "soft" in kind)
    options = {"labels": labels, "num_classes": K} if "cw" in kind else {}
    one = {
        "vr": kernels.variance,
        "cr": kernels.covariance,
        "cw_vr": kernels.class_variance,
        "cw_cr": kernels.class_covariance_loop,
        "soft cw_vr": kernels.soft_class_variance,
        "soft cw_cr": kernels.class_covariance_loop,
    }[kind]
    value, direction, factor, degree = one(rows, **options)
    several = joined.joined_variance if "vr" in kind else joined.joined_covariance

    def of_rank(rank: int) -> kernels.Result:
        own = {**options, "labels": labels.split(SIZES)[rank]} if options else {}
        return several(rows.split(SIZES)[rank], **own, ranks=3, group=None)

    results = Collectives(monkeypatch, 3).run(of_rank)
    wanted = (3 * degree * factor * direction).split(SIZES)
    for (found, own, scale, power), gradient in zip(results, wanted, strict=True):
        torch.testing.assert_close(found * scale, value * factor)
        torch.testing.assert_close(power * scale * own, gradient)


def test_joined_l1_is_the_mean_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = batches(3, soft=False)
    rows -= 3
    parts = rows.split(SIZES)
    results = Collectives(monkeypatch, 3).run(lambda rank: joined.joined_l1(parts[rank], ranks=3, group=None))
    for (value, direction, factor, degree), own in zip(results, parts, strict=True):
        torch.testing.assert_close(value * factor, rows.abs().mean())
        torch.testing.assert_close(degree * factor * direction, 3 * own.sign() / rows.numel())


def test_batches_are_joined_only_where_processes_are_and_it_is_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joined.world_size(True, None) == 1
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda group: 5)
    assert joined.world_size(True, None) == 5
    assert joined.world_size(False, None) == 1
