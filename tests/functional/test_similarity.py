"""Similarity of representations, held against the formulas written out with N x N matrices."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_repshape.functional import (
    MinibatchCKA,
    linear_cka,
    linear_cka_matrix,
    mutual_neighbours,
    procrustes_distance,
    procrustes_rotation,
    regression_score,
    unbiased_gram,
)
from lightning_repshape.functional.similarity import similarity_matrices, sketched


def written_out(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012, Eq. 5, with Gram matrices of uncentred rows."""

    def criterion(a: Tensor, b: Tensor) -> Tensor:
        n = len(a)
        k, m = a @ a.T, b @ b.T
        k, m = k - k.diag().diag(), m - m.diag().diag()
        one = torch.ones(n, dtype=torch.float64)
        return (
            (k @ m).trace()
            + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ k @ m @ one)
        ) / (n * (n - 3))

    x, y = x.double(), y.double()
    return float(criterion(x, y) / (criterion(x, x) * criterion(y, y)).sqrt())


@pytest.mark.parametrize("widths", [(3, 5), (3, 40), (60, 40)], ids=["tall", "mixed", "wide"])
def test_cka_is_the_formula_with_gram_matrices(widths: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, widths[0], dtype=torch.float64) + 2
    y = torch.cat([x[:, :2], torch.randn(20, widths[1] - 2, dtype=torch.float64)], dim=1)
    assert float(linear_cka(x, y)) == pytest.approx(written_out(x, y), rel=1e-9)
    found = linear_cka_matrix([x, y, x + y[:, :1]])
    assert found.shape == (3, 3) and float(found[1, 0]) == pytest.approx(float(linear_cka(x, y)))
    assert torch.equal(found, found.T) and found.diag().tolist() == [1, 1, 1]


def test_cka_of_unrelated_features_is_zero_even_where_they_outnumber_samples() -> None:
    torch.manual_seed(0)
    values = [float(linear_cka(torch.randn(30, 400), torch.randn(30, 400))) for _ in range(50)]
    assert abs(float(np.mean(values))) < 0.02 and max(map(abs, values)) < 0.2


def test_similarities_know_no_rotation_shift_or_scale() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 6)
    turned = 3 * x @ torch.linalg.qr(torch.randn(6, 6)).Q + 5
    assert float(linear_cka(x, turned)) == pytest.approx(1, abs=1e-5)
    assert float(procrustes_distance(x, turned)) == pytest.approx(0, abs=2e-3)
    assert float(procrustes_distance(x, torch.cat([turned, torch.zeros(50, 4)], dim=1))) == pytest.approx(0, abs=2e-3)
    back = (turned - turned.mean(0)).double() / 3 @ procrustes_rotation(x, turned)
    assert torch.allclose(back, (x - x.mean(0)).double(), atol=1e-4)


def test_procrustes_distance_is_what_the_best_rotation_leaves() -> None:
    from scipy.linalg import orthogonal_procrustes

    torch.manual_seed(0)
    for shape in ((30, 5), (8, 20)):
        x, y = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
        a, b = ((part - part.mean(0)) / (part - part.mean(0)).norm() for part in (x, y))
        rotation, _ = orthogonal_procrustes(b.numpy(), a.numpy())
        wanted = np.linalg.norm(a.numpy() - b.numpy() @ rotation)
        assert float(procrustes_distance(x, y)) == pytest.approx(wanted, rel=1e-9)
        assert float(procrustes_distance(y, x)) == pytest.approx(wanted, rel=1e-9)
    x, y, z = (torch.randn(40, width) for width in (3, 7, 5))
    assert procrustes_distance(x, z) <= procrustes_distance(x, y) + procrustes_distance(y, z)


def test_mutual_neighbours_are_scikit_learns() -> None:
    from sklearn.neighbors import NearestNeighbors

    torch.manual_seed(0)
    x = torch.randn(600, 6)
    y = torch.cat([x[:, :3], torch.randn(600, 2)], dim=1)
    near = []
    for part in (x, y):
        fitted = NearestNeighbors(n_neighbors=10, metric="cosine").fit(part.double().numpy())
        near.append(fitted.kneighbors(return_distance=False))
    wanted = np.mean([len(set(one) & set(two)) / 10 for one, two in zip(*near, strict=True)])
    assert float(mutual_neighbours(x, y)) == pytest.approx(wanted)
    assert float(mutual_neighbours(x, 5 * x.flip(1))) == 1
    chance = np.mean([float(mutual_neighbours(torch.randn(50, 8), torch.randn(50, 8))) for _ in range(40)])
    assert chance == pytest.approx(10 / 49, abs=0.02)


def test_regression_scores_are_scikit_learns() -> None:
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    torch.manual_seed(0)
    x = torch.randn(40, 5, dtype=torch.float64) + 2
    y = x[:, :3] @ torch.randn(3, 7, dtype=torch.float64) + torch.randn(40, 7, dtype=torch.float64)
    fitted = LinearRegression().fit(x.numpy(), y.numpy()).predict(x.numpy())
    residual = ((y.numpy() - fitted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
    assert float(regression_score(x, y)) == pytest.approx(1 - float(residual))
    columns = r2_score(y.numpy(), fitted, multioutput="variance_weighted")
    assert float(regression_score(x, y)) == pytest.approx(columns)
    twice = torch.cat([x, x], dim=1)  # five independent features all the same
    assert float(regression_score(twice, y, adjusted=True)) == pytest.approx(1 - float(residual) * 39 / 34)
    distance = float(procrustes_distance(x, y))
    assert float(regression_score(x, y, orthogonal=True)) == pytest.approx((1 - distance**2 / 2) ** 2)
    turned = 3 * x @ torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    assert float(regression_score(x, turned, orthogonal=True)) == pytest.approx(1)
    chance = np.mean(
        [float(regression_score(torch.randn(50, 30), torch.randn(50, 4), adjusted=True)) for _ in range(60)]
    )
    assert abs(chance) < 0.03
    assert float(regression_score(torch.randn(9, 30), torch.randn(9, 4))) == pytest.approx(1)
    with pytest.raises(ValueError, match="8 independent features of 9 samples"):
        regression_score(torch.randn(9, 30), torch.randn(9, 4), adjusted=True)


def test_unbiased_gram_matrices_give_the_debiased_cka() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 30) + 5, torch.randn(20, 4)
    grams = [unbiased_gram(part.double()) for part in (x, y)]
    assert torch.allclose(grams[0].sum(dim=1), torch.zeros(20, dtype=torch.float64), atol=1e-9)
    state = MinibatchCKA()
    state.update(grams)
    assert float(state.matrix()[0, 1]) == pytest.approx(written_out(x, y), rel=1e-9)
    assert state.matrix().diagonal().tolist() == pytest.approx([1, 1])


def test_minibatches_estimate_the_cka_of_all_samples() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 40)
    parts = [x, torch.cat([x[:, :20], torch.randn(4000, 20)], dim=1), torch.randn(4000, 9), torch.ones(4000, 3)]
    state = MinibatchCKA()
    for batch in torch.arange(4000).split(50):
        state.update([unbiased_gram(part[batch]) for part in parts])
    found = state.matrix()
    assert state.samples == 4000 and bool(found[3].isnan().all()) and not bool(found[:3, :3].isnan().any())
    assert torch.allclose(found[:3, :3], linear_cka_matrix(parts[:3]), atol=0.02)
    with pytest.raises(ValueError, match="4 representations before, and there are 3"):
        state.update([unbiased_gram(part[:50]) for part in parts[:3]])
    with pytest.raises(ValueError, match="same samples"):
        state.update([unbiased_gram(x[:50]), unbiased_gram(x[:40])])
    with pytest.raises(ValueError, match="no batches"):
        MinibatchCKA().matrix()


@pytest.mark.parametrize("function", [linear_cka, procrustes_distance, regression_score])
def test_what_cannot_be_compared_is_refused(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    x = torch.randn(10, 3)
    for bad, words in (
        (x[:9], "10 and 9 rows"),
        (torch.full((10, 3), torch.nan), "finite"),
        (x[0], "matrix"),
        (torch.ones(10, 2), "constant|never changes"),
    ):
        with pytest.raises(ValueError, match=words):
            function(x, bad)
    with pytest.raises(TypeError, match="floating"):
        function(x, torch.ones(10, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least"):
        function(x[:1], x[:1])


def test_all_pairs_are_the_functions_of_two() -> None:
    stream = torch.Generator().manual_seed(3)
    parts = [torch.randn(30, width, generator=stream) for width in (5, 80, 12)]  # one wider than there are samples
    found = similarity_matrices(parts)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        for matrix, way in ((found.distance, procrustes_distance), (found.neighbours, mutual_neighbours)):
            assert float(matrix[i, j]) == float(matrix[j, i]) == pytest.approx(float(way(parts[i], parts[j])), abs=1e-9)
    wanted = float(regression_score(parts[0], parts[2], adjusted=True))
    assert float(found.regression[0, 2]) == pytest.approx(wanted, abs=1e-9)
    assert found.regression[1].isnan().tolist() == [True, False, True], "more features than samples"


def test_a_sketch_keeps_inner_products() -> None:
    x = torch.randn(40, 3000, generator=torch.Generator().manual_seed(0))
    near = sketched(x, 1500)
    assert near.shape == (40, 1500) and torch.equal(near, sketched(x, 1500)) and sketched(x, 3000) is x
    lost = (near @ near.T - x @ x.T) / x.norm(dim=1) / x.norm(dim=1)[:, None]
    assert float(lost.square().mean().sqrt()) < (2 / 1500) ** 0.5
