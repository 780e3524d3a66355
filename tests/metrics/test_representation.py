"""The additive metric of a layer against the functions of the whole set."""

import doctest
import math
import pickle

import pytest
import torch
from ddp_pool import GlooPool
from torch import Tensor
from toy_features import layer

import lightning_repshape.functional.characteristics as characteristics
import lightning_repshape.metrics.representation as representation
from lightning_repshape.functional import cw_vr, representation_characteristics, vr
from lightning_repshape.metrics import RepresentationStatistics

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
