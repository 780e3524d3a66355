"""Figures do not depend on the units of the features: scaling one column, or all of them, changes none of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_repshape.functional import (
    class_vs_rest_lda,
    neural_collapse,
    representation_characteristics,
    threshold_errors,
)
from lightning_repshape.functional.class_vectors import class_vector_cosines, cosine_logits
from lightning_repshape.functional.numerics import unit_rows
from lightning_repshape.functional.projection import effective_rank, pca
from lightning_repshape.functional.reconstruction import weight_separability
from lightning_repshape.functional.verification import pair_cosines

ONE: list[tuple[Any, float]] = [(0, 1e-8), (0, 1e8), (3, 1e-25)]
ALL: list[tuple[Any, float]] = [(slice(None), 1e6), (slice(None), 1e-8), (slice(None), 1e-20)]


def blobs(rows: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    means = torch.randn(classes, width, generator=source, dtype=torch.float64)
    return torch.randn(rows, width, generator=source, dtype=torch.float64) + 0.5 * means[labels], labels


def scaled(features: Tensor, column: Any, factor: float) -> Tensor:
    changed = features.clone()
    changed[:, column] *= factor
    return changed


def few_directions() -> tuple[Tensor, Tensor]:
    """Fewer rows than columns, and fewer directions than rows: the first column is the only one of its kind."""
    features, labels = blobs(12, 4, 3, seed=1)
    return torch.cat([features, features[:, 1:].repeat(1, 6)], dim=1), labels


@pytest.mark.parametrize(("column", "factor"), ONE + ALL)
@pytest.mark.parametrize("case", ["many", "dependent", "few", "few directions", "wide"])
def test_discriminants(case: str, column: Any, factor: float) -> None:
    shapes = {"many": (200, 10, 4), "dependent": (200, 10, 4), "few": (12, 20, 3), "wide": (700, 512, 4)}
    features, labels = few_directions() if case == "few directions" else blobs(*shapes[case])
    if case == "dependent":
        features[:, 1] = features[:, 0] + features[:, 2]
    other = scaled(features, column, factor)
    classes = int(labels.max()) + 1
    before, after = (class_vs_rest_lda(x, labels, classes) for x in (features, other))
    assert (after.rank, after.constant_features) == (before.rank, before.constant_features)
    assert torch.equal(after.separated, before.separated)
    torch.testing.assert_close(after.eigenvalues, before.eigenvalues, rtol=1e-7, atol=0)
    errors = [threshold_errors(lda.scores(x), labels).errors for lda, x in ((before, features), (after, other))]
    torch.testing.assert_close(errors[1], errors[0], rtol=0, atol=0)


@pytest.mark.parametrize(("column", "factor"), ONE + ALL)
def test_collapse_where_the_class_means_span_the_space(column: Any, factor: float) -> None:
    features, labels = blobs(300, 4, 6)
    before, after = (neural_collapse(x, labels, 6) for x in (features, scaled(features, column, factor)))
    assert after.within_class_variability == pytest.approx(before.within_class_variability, rel=1e-7)


@pytest.mark.parametrize(("column", "factor"), ALL)
def test_what_depends_on_relative_units_only(column: Any, factor: float) -> None:
    features, labels = blobs(300, 20, 6)
    other = scaled(features, column, factor)
    weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before, after = (neural_collapse(x, labels, 6, weight) for x in (features, other))
    for ours, theirs in zip(after, before, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-7)
    assert effective_rank(other) == pytest.approx(effective_rank(features), rel=1e-9)
    ratios = [pca(x, 3).explained_variance_ratio for x in (features, other)]
    torch.testing.assert_close(ratios[1], ratios[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(pair_cosines(other, other.roll(1, 0)), pair_cosines(features, features.roll(1, 0)))
    torch.testing.assert_close(class_vector_cosines(scaled(weight, column, factor)), class_vector_cosines(weight))
    small = scaled(weight.float(), column, factor)
    torch.testing.assert_close(
        weight_separability(small, normalize=True), weight_separability(weight.float(), normalize=True)
    )


@pytest.mark.parametrize(("column", "factor"), ONE + ALL)
def test_correlations(column: Any, factor: float) -> None:
    features, labels = blobs(300, 8, 4)
    before, after = (representation_characteristics(x, labels, 4) for x in (features, scaled(features, column, factor)))
    for name in ("correlation", "classwise_correlation", "classwise_correlation_all", "normalized_classwise_variance"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-7)
    for name in before._fields[8:]:
        assert getattr(after, name) == getattr(before, name)


def test_rows_of_zeros_have_no_direction_and_no_gradient() -> None:
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    rows[1], rows[2] = 0, rows[2] * 1e-18
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    signs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    (unit_rows(ours) * signs).sum().backward()
    (torch.nn.functional.normalize(theirs, dim=1) * signs).sum().backward()
    assert torch.equal(unit_rows(rows)[1], torch.zeros(3)) and torch.equal(ours.grad[1], torch.zeros(3))  # type: ignore[index]
    assert float(unit_rows(rows)[2].norm()) == pytest.approx(1)
    for row in (0, 3, 4):  # bit for bit what the common function gives
        assert torch.equal(unit_rows(rows)[row], torch.nn.functional.normalize(rows, dim=1)[row])
        assert torch.equal(ours.grad[row], theirs.grad[row])  # type: ignore[index]


@pytest.mark.parametrize("name", ["weight_separability", "cosine_logits", "pair_cosines"])
def test_zeros_get_a_gradient_of_zeros(name: str) -> None:
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    rows[2] = 0
    rows.requires_grad_()
    others = torch.ones(4, 6)
    {
        "weight_separability": lambda: weight_separability(rows, normalize=True),
        "cosine_logits": lambda: cosine_logits(rows, others).sum(),
        "pair_cosines": lambda: pair_cosines(rows, others).sum(),
    }[name]().backward()
    assert rows.grad is not None and torch.equal(rows.grad[2], torch.zeros(6)) and bool((rows.grad[0] != 0).any())
