"""Layouts of fixed class vectors against their definitions, and the Procrustes turn against SciPy's."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from lightning_repshape.functional import (
    class_vector_cosines,
    hadamard_vectors,
    hypercube_vectors,
    laid_out,
    nearest_turned,
    random_class_vectors,
    separated_vectors,
    simplex_etf,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def recursion(classes: int) -> np.ndarray:
    """Kasarla et al. (2022), Eq. 3 and 4, columns as class vectors."""
    found = np.array([[1.0, -1.0]])
    for k in range(2, classes):
        top = np.concatenate([[1.0], np.full(k, -1 / k)])[None]
        below = np.concatenate([np.zeros((k - 1, 1)), math.sqrt(1 - 1 / k**2) * found], axis=1)
        found = np.concatenate([top, below])
    return found.T


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_separated_vectors_are_those_of_the_recursion(classes: int) -> None:
    found = separated_vectors(classes, classes + 3)
    np.testing.assert_allclose(found[:, : classes - 1].numpy(), recursion(classes), atol=1e-12)
    assert not found[:, classes - 1 :].any()


@pytest.mark.parametrize(("classes", "width"), [(2, 1), (3, 2), (10, 9), (10, 64), (100, 99)])
def test_a_simplex_is_equiangular_and_centred(classes: int, width: int) -> None:
    found = simplex_etf(classes, width, seeded())
    wanted = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(found @ found.T, wanted)
    torch.testing.assert_close(found.sum(dim=0), torch.zeros(width, dtype=torch.float64))
    torch.testing.assert_close(class_vector_cosines(separated_vectors(classes, width)), wanted)
    if width > 1:
        assert not torch.allclose(found, simplex_etf(classes, width, seeded(1)), atol=0.1)
    assert torch.equal(found, simplex_etf(classes, width, seeded()))


@pytest.mark.parametrize(("classes", "width"), [(1, 1), (10, 16), (10, 31), (100, 128)])
def test_hadamard_vectors_are_sylvesters(classes: int, width: int) -> None:
    found, order = hadamard_vectors(classes, width), 2 ** int(math.log2(width))
    np.testing.assert_allclose(found[:, :order].numpy(), scipy.linalg.hadamard(order)[:classes] / order**0.5)
    assert not found[:, order:].any()


@pytest.mark.parametrize(("classes", "width"), [(1, 1), (2, 1), (8, 3), (10, 4), (100, 7), (100, 512), (5000, 13)])
def test_corners_of_a_cube_differ(classes: int, width: int) -> None:
    found = hypercube_vectors(classes, width, seeded())
    torch.testing.assert_close(found.abs(), torch.full((classes, width), width**-0.5, dtype=torch.float64))
    assert len(found.sign().unique(dim=0)) == classes
    assert torch.equal(found, hypercube_vectors(classes, width, seeded()))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: simplex_etf(10, 8, seeded()), "a simplex ETF of 10 classes needs at least 9 features, not 8"),
        (lambda: separated_vectors(10, 8), "maximally separated vectors of 10 classes need at least 9 features, not 8"),
        (lambda: separated_vectors(1, 8), "at least two classes"),
        (lambda: hadamard_vectors(10, 15), "a power of two of at least 10 features: 16 or more, not 15"),
        (lambda: hypercube_vectors(10, 3, seeded()), "3 dimensions has 8 corners, fewer than 10 classes: 4 features"),
        (lambda: simplex_etf(0, 8, seeded()), "at least one class"),
        (lambda: laid_out("simplx", 3, 8, seeded()), "layout must be one of 'random', 'etf'"),  # type: ignore[arg-type]
        (lambda: nearest_turned(torch.ones(3, 2), torch.ones(3, 3)), "cannot be turned to"),
        (lambda: nearest_turned(torch.ones(2, 2), torch.tensor([[1.0, 1.0], [torch.nan, 0]])), "at least 2"),
    ],
)
def test_what_does_not_fit_is_refused(build: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_layouts_by_name() -> None:
    assert torch.equal(laid_out("random", 5, 7, seeded()), random_class_vectors(5, 7, seeded()))
    assert torch.equal(laid_out("etf", 5, 7, seeded()), simplex_etf(5, 7, seeded()))
    assert torch.equal(laid_out("separated", 5, 7, seeded()), separated_vectors(5, 7))
    assert torch.equal(laid_out("hadamard", 4, 7, seeded()), hadamard_vectors(4, 7))
    assert torch.equal(laid_out("hypercube", 5, 7, seeded()), hypercube_vectors(5, 7, seeded()))


@pytest.mark.parametrize("layout", ["random", "etf", "hadamard", "separated", "hypercube"])
def test_the_nearest_turn_is_that_of_scipy_and_keeps_angles(layout: str) -> None:
    vectors = laid_out(layout, 6, 9, seeded())  # type: ignore[arg-type]
    means = torch.randn(6, 9, generator=seeded(1), dtype=torch.float64) + 5
    found = nearest_turned(vectors, means)
    torch.testing.assert_close(found @ found.T, vectors @ vectors.T)
    a, b = (part - part.mean(dim=0) for part in (vectors, means))
    _, best = scipy.linalg.orthogonal_procrustes(a.numpy(), b.numpy())
    turned = found - found.mean(dim=0)
    assert float((turned * b).sum()) == pytest.approx(best)  # the trace that is greatest at the nearest
    again = nearest_turned(found, 3 * means)  # but for what all vectors have in common, which is free
    torch.testing.assert_close(again - again.mean(dim=0), turned, atol=1e-8, rtol=0)


def test_classes_without_samples_have_no_say() -> None:
    vectors = simplex_etf(4, 6, seeded())
    turned, _ = torch.linalg.qr(torch.randn(6, 6, generator=seeded(2), dtype=torch.float64))
    means = 7 * vectors @ turned
    means[2] = torch.nan
    found, wanted = nearest_turned(vectors, means)[[0, 1, 3]], (vectors @ turned)[[0, 1, 3]]
    torch.testing.assert_close(found - found.mean(dim=0), wanted - wanted.mean(dim=0))
