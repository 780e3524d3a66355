"""Similarity of representations, held against the formulas written out with N x N matrices."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_repshape.functional import linear_cka, linear_cka_matrix, procrustes_distance, procrustes_rotation


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


@pytest.mark.parametrize("function", [linear_cka, procrustes_distance])
def test_what_cannot_be_compared_is_refused(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    x = torch.randn(10, 3)
    for bad, words in ((x[:9], "10 and 9 rows"), (x[0], "matrix"), (torch.ones(10, 2), "constant|never changes")):
        with pytest.raises(ValueError, match=words):
            function(x, bad)
    with pytest.raises(TypeError, match="floating"):
        function(x, torch.ones(10, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least"):
        function(x[:1], x[:1])
