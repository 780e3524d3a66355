"""Principal components, planes of a class and effective rank against scikit-learn and closed forms."""

import math

import pytest
import torch
from toy_features import clusters

from lightning_repshape.functional.discriminant import (
    lda_from_scatter,
)
from lightning_repshape.functional.projection import (
    discriminant_plane,
    effective_rank,
    effective_rank_from_scatter,
    pca,
    pca_from_scatter,
)
from lightning_repshape.functional.scatter import ScatterState, scatter_state


@pytest.mark.parametrize("rows, width", [(400, 20), (30, 80), (2000, 700), (50, 50)])
def test_principal_components_are_those_of_scikit_learn(rows: int, width: int) -> None:
    from sklearn.decomposition import PCA

    features, labels = clusters(rows, width, 5)
    ours, theirs = pca(features, 3), PCA(3, svd_solver="full").fit(features.numpy())
    torch.testing.assert_close(ours.components, torch.from_numpy(theirs.components_), atol=1e-9, rtol=0)
    torch.testing.assert_close(ours.explained_variance, torch.from_numpy(theirs.explained_variance_))
    torch.testing.assert_close(ours.explained_variance_ratio, torch.from_numpy(theirs.explained_variance_ratio_))
    torch.testing.assert_close(ours.apply(features), torch.from_numpy(theirs.transform(features.numpy())))
    by_class = pca_from_scatter(scatter_state(features, labels, 5), 3)
    torch.testing.assert_close(by_class.components, ours.components, atol=1e-9, rtol=0)
    assert (ours.components.gather(1, ours.components.abs().argmax(1, keepdim=True)) > 0).all()
    assert torch.equal(pca(features, 3).components, ours.components)


@pytest.mark.parametrize("rows, width", [(400, 20), (15, 80)])
def test_components_of_degenerate_features_stay_orthonormal(rows: int, width: int) -> None:
    features = torch.outer(torch.arange(rows).double(), torch.ones(width, dtype=torch.float64)) + 3
    found = pca(features, 2)
    torch.testing.assert_close(found.components @ found.components.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(found.explained_variance_ratio, torch.tensor([1.0, 0.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="never change"):
        pca(torch.full((rows, width), 0.1), 2)
    with pytest.raises(ValueError, match=f"1 to {min(rows - 1, width)} components, not 90"):
        pca(features, 90)


def test_the_plane_of_a_class_has_the_axis_and_the_largest_spread_orthogonal_to_it() -> None:
    features, labels = clusters(500, 12, 3)
    state = scatter_state(features, labels, 3)
    lda = lda_from_scatter(state)
    plane = discriminant_plane(state, lda, 1)
    torch.testing.assert_close(plane.components @ plane.components.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(plane.components[0], lda.axes[1])
    centered = features - features.mean(0)
    rest = centered - torch.outer(centered @ lda.axes[1], lda.axes[1])
    torch.testing.assert_close(plane.components[1], pca(rest, 1).components[0])
    torch.testing.assert_close(plane.explained_variance, plane.apply(features).var(dim=0))
    torch.testing.assert_close(plane.apply(features)[:, 0], lda.scores(features)[:, 1])
    # features on one line: nothing is left beside the axis, and any direction orthogonal to it will do
    for width in (5, 600):
        line = torch.outer(torch.arange(700).double(), torch.ones(width, dtype=torch.float64))
        state_of_line = scatter_state(line, (torch.arange(700) > 300).long(), 2)
        flat = discriminant_plane(state_of_line, lda_from_scatter(state_of_line), 0)
        torch.testing.assert_close(flat.components @ flat.components.T, torch.eye(2, dtype=torch.float64))
        assert flat.explained_variance_ratio[1] < 1e-12
    with pytest.raises(ValueError, match=r"label must lie in 0 \.\. 2, not 3"):
        discriminant_plane(state, lda, 3)
    with pytest.raises(ValueError, match="not of the same features"):
        discriminant_plane(ScatterState(5, 3), lda, 1)


def test_effective_rank_counts_equal_directions() -> None:
    corners = torch.cat([torch.eye(6), -torch.eye(6)]).double()
    assert effective_rank(corners) == pytest.approx(6)
    assert effective_rank(torch.cat([corners, torch.zeros(12, 30)], dim=1)) == pytest.approx(6)
    assert effective_rank(corners + 7) == pytest.approx(6)
    assert effective_rank(torch.ones(5, 3), center=False) == pytest.approx(1)
    features, labels = clusters(300, 9, 3)
    singular = torch.linalg.svdvals(features - features.mean(0))
    shares = singular / singular.sum()
    expected = math.exp(-float((shares * shares.log()).sum()))
    assert effective_rank(features) == pytest.approx(expected)
    assert effective_rank_from_scatter(scatter_state(features, labels, 3)) == pytest.approx(expected)
    assert effective_rank(features[:8]) == pytest.approx(effective_rank_from_scatter(scatter_state(features[:8])))
    assert effective_rank(3 * features @ torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q) == pytest.approx(
        expected
    )
    with pytest.raises(ValueError, match="never change"):
        effective_rank(torch.full((20, 3), 0.1))
