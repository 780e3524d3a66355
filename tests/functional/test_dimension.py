"""Dimensions, held against known manifolds, SciPy's neighbours and formulas written out."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_repshape.functional import (
    class_distance_variance,
    lidar,
    mle_dimension,
    nearest_distances,
    participation_ratio,
    spectral_decay,
    twonn_dimension,
)


def cube(dimension: int, count: int = 2000, width: int = 30) -> Tensor:
    """Points of a cube, turned into more dimensions."""
    source = torch.Generator().manual_seed(dimension)
    basis = torch.linalg.qr(torch.randn(width, width, generator=source)).Q[:dimension]
    return 3 + torch.rand(count, dimension, generator=source) @ basis


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_a_cube_has_its_dimension(dimension: int) -> None:
    x = cube(dimension)
    assert float(twonn_dimension(x)) == pytest.approx(dimension, rel=0.15), "edges of a cube make it less"
    assert float(mle_dimension(x)) == pytest.approx(dimension, rel=0.15)
    assert float(twonn_dimension(7 * x - 2)) == pytest.approx(float(twonn_dimension(x)), rel=1e-3), "no unit counts"


def test_twonn_is_the_papers_line() -> None:
    x = cube(3, 200).double()
    apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    first, second = apart.topk(2, largest=False).values.T
    mu = np.sort((second / first).numpy())[:180]
    height = -np.log(1 - np.arange(1, 181) / 200)
    slope = np.linalg.lstsq(np.log(mu)[:, None], height, rcond=None)[0]
    assert float(twonn_dimension(x)) == pytest.approx(float(slope[0]), rel=1e-9)


def test_neighbours_are_scipys_far_from_the_origin_too() -> None:
    from scipy.spatial import KDTree

    x = cube(4, 700).double() + 1e4
    wanted = KDTree(x.numpy()).query(x.numpy(), 7)[0][:, 1:]
    assert np.allclose(nearest_distances(x, 6).numpy(), wanted, rtol=1e-7)


def test_rows_that_are_twice_there_are_left_out() -> None:
    x = cube(2, 300)
    twice = torch.cat([x, x[:50]])
    assert float(twonn_dimension(twice)) == pytest.approx(2, rel=0.2)
    assert float(mle_dimension(twice)) == pytest.approx(2, rel=0.2)
    for function in (twonn_dimension, mle_dimension):
        with pytest.raises(ValueError, match="differ"):
            function(torch.ones(30, 3))
        with pytest.raises(ValueError, match="finite"):
            function(torch.full((30, 3), torch.nan))
    with pytest.raises(ValueError, match="at least 3 rows"):
        twonn_dimension(x[:2])
    with pytest.raises(TypeError, match="floating"):
        twonn_dimension(torch.ones(9, 2, dtype=torch.int64))


def test_spectra() -> None:
    assert float(participation_ratio(torch.tensor([2.0, 2.0, 0.0]))) == pytest.approx(2)
    values = torch.arange(1, 101, dtype=torch.float64) ** -1.5
    law = spectral_decay(values.flip(0))
    assert law.exponent == pytest.approx(1.5) and (law.first, law.last) == (11, 100)
    assert spectral_decay(values[:8]).first == 1
    with pytest.raises(ValueError, match="at least three"):
        spectral_decay(torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="not negative"):
        participation_ratio(torch.tensor([1.0, -1.0]))


def test_class_distance_variance_is_the_formula() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    means = [x[y == k].mean(0) for k in range(3)]
    spread = [float((x[y == k] - means[k]).square().sum(1).mean()) for k in range(3)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    wanted = np.mean([(spread[i] + spread[j]) / (2 * float((means[i] - means[j]).square().sum())) for i, j in pairs])
    assert float(class_distance_variance(x, y, 5)) == pytest.approx(float(wanted))
    assert float(class_distance_variance(torch.eye(3)[y], y, 3)) == 0
    with pytest.raises(ValueError, match="coincide"):
        class_distance_variance(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]), 2)
    with pytest.raises(ValueError, match="two classes"):
        class_distance_variance(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64), 2)


def test_lidar_is_the_papers_formula() -> None:
    from scipy.linalg import sqrtm

    source = torch.Generator().manual_seed(0)
    for samples, width in ((40, 6), (5, 12)):
        x = torch.randn(samples, 1, width, generator=source) + 0.3 * torch.randn(samples, 4, width, generator=source)
        views = x.double().numpy()
        means = views.mean(axis=1)
        within = sum(np.outer(v - m, v - m) for own, m in zip(views, means, strict=True) for v in own) / (4 * samples)
        between = sum(np.outer(m - means.mean(0), m - means.mean(0)) for m in means) / samples
        root = np.linalg.inv(sqrtm(within + 1e-4 * np.eye(width)).real)
        values = np.linalg.eigvalsh(root @ between @ root)
        shares = values[values > 1e-9 * values.max()] / values[values > 1e-9 * values.max()].sum()
        assert float(lidar(x)) == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())))
    one = torch.randn(30, 1, 1, generator=source) * torch.tensor([1.0, 0, 0]) + 0.01 * torch.randn(30, 5, 3)
    assert 1 <= float(lidar(one)) < 1.5


def test_lidar_refuses_what_it_cannot_tell() -> None:
    x = torch.randn(5, 3, 2)
    for bad, words in (
        (x[0], "N x V x D"),
        (x[:, :1], "two views"),
        (x[:1].expand(5, 3, 2), "same mean"),
        (torch.full_like(x, torch.nan), "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            lidar(bad)
    with pytest.raises(ValueError, match="delta"):
        lidar(x, delta=0)
    with pytest.raises(TypeError, match="floating"):
        lidar(x.long())
