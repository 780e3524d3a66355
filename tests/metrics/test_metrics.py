"""Table 5 and the additive metric against slow transcriptions and hand-worked values."""

import doctest
import math
import pickle

import pytest
import torch
from ddp_pool import GlooPool
from torch import Tensor

import lightning_repshape.functional.characteristics as characteristics
import lightning_repshape.metrics.representation as representation
from lightning_repshape.functional import cw_vr, representation_characteristics, vr
from lightning_repshape.metrics import RepresentationStatistics


def layer(samples: int = 60, units: int = 7, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (samples,), generator=generator)
    centers = 2 * torch.randn(classes, units, generator=generator)
    return (centers[y] + torch.randn(samples, units, generator=generator)).relu_(), y


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def transcribed(z: Tensor, y: Tensor, classes: int, positive_only: bool) -> dict[str, float]:
    """Table 5 unit by unit and pair by pair, on two-pass statistics of the samples used."""
    z = z.double()
    units = z.shape[1]
    everywhere = torch.ones(len(z), dtype=torch.bool)

    def used(i: int, where: Tensor) -> Tensor:
        return where & (z[:, i] > 0) if positive_only else where

    def varies(x: Tensor) -> bool:
        return len(x) >= 2 and float(x.max()) > float(x.min())

    alive = [i for i in range(units) if varies(z[used(i, everywhere), i])]

    def pairs(where: Tensor) -> tuple[list[float], list[float]]:
        covariances, correlations = [], []
        for i in alive:
            for j in alive:
                rows = used(i, where) & used(j, where)
                if i == j or int(rows.sum()) < 2:
                    continue
                a, b = z[rows, i], z[rows, j]
                covariance = float(((a - a.mean()) * (b - b.mean())).mean())
                covariances.append(abs(covariance))
                if varies(a) and varies(b):
                    correlations.append(abs(covariance) / float(a.std(correction=0) * b.std(correction=0)))
        return covariances, correlations

    covariances, correlations = pairs(everywhere)
    by_class = [pairs(y == k)[1] for k in range(classes)]
    class_variances, normalized = [], []
    for i in alive:
        x = z[used(i, everywhere), i]
        for k in range(classes):
            part = z[used(i, y == k), i]
            if len(part) >= 2:
                class_variances.append(float(part.var(correction=0)))
                scaled = 10 * (part - x.min()) / (x.max() - x.min())
                normalized.append(float(scaled.var(correction=0)))
    all_pairs = units * (units - 1) // 2
    return {
        "amplitude": float(z[z > 0].mean()),
        "covariance": mean(covariances),
        "correlation": mean(correlations),
        "classwise_correlation": mean([mean(found) for found in by_class if found]),
        "variance": mean([float(z[used(i, everywhere), i].var(correction=0)) for i in alive]),
        "normalized_classwise_variance": mean(normalized),
        "classwise_variance": mean(class_variances),
        "units_left_out": units - len(alive),
        "pairs_left_out": all_pairs - len(covariances) // 2,
        "correlations_left_out": all_pairs - len(correlations) // 2,
        "class_units_left_out": classes * units - len(normalized),
        "class_pairs_left_out": classes * all_pairs - sum(len(found) // 2 for found in by_class),
        "classes_left_out": sum(not found for found in by_class),
    }


# ---------------------------------------------------------------------------------------------------- characteristics


def test_hand_worked_row() -> None:
    z = torch.tensor([[1.0, 2.0, 0.0], [3.0, 6.0, 0.0], [5.0, 0.0, 4.0], [0.0, 4.0, 0.0], [3.0, 8.0, 0.0]])
    y = torch.tensor([0, 0, 1, 1, 1])
    found = representation_characteristics(z, y, 2)
    # Unit 0 is positive on 1 3 5 3 (variance 2, range 4), unit 1 on 2 6 4 8 (variance 5, range 6), unit 2 on 4 alone.
    # Units 0 and 1 are both positive on (1, 2), (3, 6), (3, 8): means 7/3, 16/3; covariance
    # (-4/3 * -10/3 + 2/3 * 2/3 + 2/3 * 8/3) / 3 = (40 + 4 + 16) / 27 = 20/9; variances 8/9 and 56/9.
    # Class 0: (1, 2), (3, 6): correlation 1. Class 1: one joint sample (3, 8), none left.
    # Class-wise variances: class 0: 1 and 4; class 1: of 5, 3: 1, of 4, 8: 4. Scaled by (10/4)^2 and (10/6)^2.
    assert found.amplitude == pytest.approx((1 + 3 + 5 + 3 + 2 + 6 + 4 + 8 + 4) / 9)
    assert found.variance == pytest.approx((2 + 5) / 2)
    assert found.covariance == pytest.approx(20 / 9)
    assert found.correlation == pytest.approx((20 / 9) / math.sqrt(8 / 9 * 56 / 9))
    assert found.classwise_correlation == pytest.approx(1)
    assert found.classwise_variance == pytest.approx((1 + 4 + 1 + 4) / 4)
    assert found.normalized_classwise_variance == pytest.approx((6.25 + 4 * 100 / 36) / 2)
    assert found[7:] == (1, 2, 2, 2, 5, 1)
    everything = representation_characteristics(z, y, 2, positive_only=False)
    assert everything.amplitude == found.amplitude
    assert everything.variance == pytest.approx(float(z.var(0, correction=0).mean()))
    assert everything.units_left_out == everything.pairs_left_out == 0


@pytest.mark.parametrize("positive_only", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_transcription(positive_only: bool, seed: int) -> None:
    z, y = layer(seed=seed)
    z[:, 1] = 0  # a dead unit
    z[:, 2] = 3  # one that never varies
    z[1:, 3] = 0  # one that is positive once
    z[:3, 4] = torch.tensor([1.0, 2.0, 2.0])
    z[3:, 4] = 0
    y[y == 3] = 2  # an absent class
    found = representation_characteristics(z, y, 4, positive_only)._asdict()
    assert found == pytest.approx(transcribed(z, y, 4, positive_only), rel=1e-10, nan_ok=True)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = layer()
    expected = representation_characteristics(z, y, 4)
    monkeypatch.setattr(characteristics, "_BLOCK", 20)  # two samples, two units at a time
    assert representation_characteristics(z, y, 4) == pytest.approx(expected, rel=1e-12)
    assert representation_characteristics(z.view(60, 7, 1), y.int(), 4) == pytest.approx(expected, rel=1e-12)


def test_far_from_the_origin() -> None:
    z, y = layer()
    z = z.double() + 0.5
    near, far = (representation_characteristics(z + offset, y, 4) for offset in (0.0, 1e6))
    assert far[1:] == pytest.approx(near[1:], rel=1e-8)


def test_nothing_left() -> None:
    found = representation_characteristics(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]), 2)
    assert all(math.isnan(value) for value in found[:7])
    assert found[7:] == (3, 3, 3, 6, 6, 2)
    single = representation_characteristics(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0]), 1)
    assert single.variance == 0.25
    assert math.isnan(single.covariance)


def test_bad_input_of_characteristics() -> None:
    z, y = layer()
    with pytest.raises(TypeError, match="floating point"):
        representation_characteristics(z.long(), y, 4)
    with pytest.raises(TypeError, match="integer labels"):
        representation_characteristics(z, torch.rand(60, 4), 4)
    with pytest.raises(ValueError, match="labels must lie in"):
        representation_characteristics(z, y, 2)
    with pytest.raises(ValueError, match="shape"):
        representation_characteristics(z[:0], y[:0], 4)
    with pytest.raises(ValueError, match="finite"):
        representation_characteristics(z / 0, y, 4)


# ------------------------------------------------------------------------------------------------------------- metric


def filled(metric: RepresentationStatistics, z: Tensor, y: Tensor, step: int = 17) -> RepresentationStatistics:
    for start in range(0, len(z), step):
        metric.update(z[start : start + step], y[start : start + step])
    return metric


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_metric_equals_the_functions(shift: float) -> None:
    z, y = layer()
    y[y == 3] = 2
    figures = filled(RepresentationStatistics(4, 7, pairs=True, shift=shift), z, y).compute()
    torch.testing.assert_close(figures.pop("classwise_variance"), cw_vr(z.double(), y, 4))
    torch.testing.assert_close(figures.pop("variance"), vr(z.double()))
    found = {name.removeprefix("characteristics/"): float(value) for name, value in figures.items()}
    assert found == pytest.approx(representation_characteristics(z, y, 4)._asdict(), rel=1e-10)


def test_metric_of_units_alone() -> None:
    z, y = layer()
    assert set(RepresentationStatistics(4, 7).state_dict()) == set()
    plain = filled(RepresentationStatistics(4, 7), z.view(60, 7, 1), y).compute()
    assert set(plain) == {"classwise_variance", "variance"}
    figures = filled(RepresentationStatistics(4, 7, characteristics=True, positive_only=False), z, y).compute()
    expected = representation_characteristics(z, y, 4, positive_only=False)
    assert float(figures["characteristics/variance"]) == pytest.approx(expected.variance)
    assert math.isnan(figures["characteristics/covariance"])


def test_large_means() -> None:
    z, y = layer()
    z = z.double() + 1e4
    figures = filled(RepresentationStatistics(4, 7), z, y).compute()
    torch.testing.assert_close(figures["classwise_variance"], cw_vr(z, y, 4), rtol=1e-6, atol=0)
    figures = filled(RepresentationStatistics(4, 7, shift=z[0]), z, y).compute()
    torch.testing.assert_close(figures["classwise_variance"], cw_vr(z, y, 4), rtol=1e-12, atol=0)


def test_reset_forward_pickle_and_half() -> None:
    z, y = layer()
    metric = RepresentationStatistics(4, 7, pairs=True)
    assert math.isnan(metric.compute()["variance"])
    batch = metric(z[:20], y[:20])
    torch.testing.assert_close(batch["classwise_variance"], cw_vr(z[:20].double(), y[:20], 4))
    metric = pickle.loads(pickle.dumps(metric))
    metric(z[20:], y[20:])
    expected = filled(RepresentationStatistics(4, 7, pairs=True), z, y).compute()
    for name, value in metric.compute().items():
        torch.testing.assert_close(value, expected[name])
    metric.reset()
    halves = torch.nn.ModuleList([metric]).half()[0]
    half = z.to(torch.bfloat16)
    assert halves.sums.dtype == torch.float64
    halves.update(half, y)
    torch.testing.assert_close(halves.compute()["variance"], vr(half.double()))


def test_bad_input_of_metric() -> None:
    z, y = layer()
    metric = RepresentationStatistics(4, 7)
    with pytest.raises(ValueError, match="units"):
        metric.update(z[:, :5], y)
    with pytest.raises(TypeError, match="floating point"):
        metric.update(z.long(), y)
    with pytest.raises(TypeError, match="integer labels"):
        metric.update(z, torch.rand(60, 4))
    with pytest.raises(ValueError, match="labels must lie in"):
        metric.update(z, y + 1)
    with pytest.raises(ValueError, match="num_units"):
        RepresentationStatistics(4, 0)
    with pytest.raises(ValueError, match="num_classes"):
        RepresentationStatistics(0, 4)
    with pytest.raises(ValueError, match="shift"):
        RepresentationStatistics(4, 3, shift=torch.zeros(2))


@pytest.mark.parametrize("module", [characteristics, representation])
def test_examples_in_docstrings(module: object) -> None:
    failed, attempted = doctest.testmod(module, extraglobs={"torch": torch})  # type: ignore[arg-type]
    assert attempted > 0
    assert failed == 0


# ----------------------------------------------------------------------------------------------------- many processes


def rank_figures(rank: int, world_size: int) -> dict[str, Tensor]:
    z, y = layer()
    bounds = [0, 5, 30, 31, 60] if world_size == 4 else [0, 13, 60]
    mine = slice(bounds[rank], bounds[rank + 1])
    return filled(RepresentationStatistics(4, 7, pairs=True), z[mine], y[mine]).compute()


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_equal_one(gloo: GlooPool, world_size: int) -> None:
    z, y = layer()
    expected = filled(RepresentationStatistics(4, 7, pairs=True), z, y).compute()
    for figures in gloo.run(rank_figures, world_size=world_size):
        for name, value in figures.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)
