"""The additive state of features against the whole set at once."""

import pytest
import torch
from toy_features import clusters

from lightning_repshape.functional.discriminant import (
    ClassVsRestLDA,
    class_vs_rest_lda,
    lda_from_scatter,
)
from lightning_repshape.functional.scatter import ScatterState, centered_gram, scatter_state


def test_states_of_chunks_merge_to_the_state_of_all_rows() -> None:
    features, labels = clusters(3000, 20, 4)
    whole = scatter_state(features, labels, 4)
    parts = ScatterState(20, 4)
    for rows in torch.arange(3000).split([1, 999, 1500, 500]):
        parts.merge(ScatterState(20, 4).update(features[rows], labels[rows]))
    steps = ScatterState(20, 4)
    for rows in torch.arange(3000).split(700):
        steps.update(features[rows], labels[rows])
    moved = scatter_state(features, labels, 4).about(torch.zeros(20))
    reference = (features - features.mean(0)).T @ (features - features.mean(0))
    for state in (whole, parts, steps, moved):
        assert state.total == 3000
        torch.testing.assert_close(state.counts, torch.bincount(labels, minlength=4))
        torch.testing.assert_close(state.mean(), features.mean(0))
        torch.testing.assert_close(state.class_means()[2], features[labels == 2].mean(0))
        torch.testing.assert_close(state.total_scatter(), reference)
        torch.testing.assert_close(lda_from_scatter(state).eigenvalues, lda_from_scatter(whole).eigenvalues)


def test_states_about_one_point_add_as_tensors() -> None:
    features, labels = clusters(500, 6, 3)
    states = [
        scatter_state(features[rows], labels[rows], 3).about(torch.ones(6)) for rows in torch.arange(500).split(170)
    ]
    total = ScatterState(6, 3).about(torch.ones(6))
    for state in states:
        total.counts += state.counts
        total.sums += state.sums
        total.outer += state.outer
    torch.testing.assert_close(lda_from_scatter(total).eigenvalues, class_vs_rest_lda(features, labels, 3).eigenvalues)


def test_a_large_offset_costs_no_digits() -> None:
    features, labels = clusters(2000, 8, 3)
    exact = class_vs_rest_lda(features + 2.0**20, labels, 3)
    x = (features + 2.0**20) - 2.0**20  # what the sum can hold
    torch.testing.assert_close(exact.eigenvalues, class_vs_rest_lda(x, labels, 3).eigenvalues, rtol=1e-12, atol=0)


def test_states_refuse_what_does_not_belong_together() -> None:
    state = ScatterState(4, 2)
    with pytest.raises(ValueError, match="no rows yet"):
        state.mean()
    with pytest.raises(ValueError, match="needs labels"):
        state.update(torch.ones(3, 4))
    with pytest.raises(ValueError, match="5 columns, but the state has 4"):
        state.update(torch.ones(3, 5), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="differ"):
        state.merge(ScatterState(4, 3))
    with pytest.raises(ValueError, match="4 numbers"):
        state.about(torch.zeros(3))
    lda: ClassVsRestLDA = class_vs_rest_lda(*clusters(100, 4, 3), 3)
    with pytest.raises(ValueError, match="5 columns, but the axes have 4"):
        lda.scores(torch.ones(3, 5))


def test_columns_about_their_means_at_unit_length_but_for_rows_of_zeros() -> None:
    features, _ = clusters(40, 7, 2)
    features[3] = 0
    for normalize, rows in ((False, features), (True, torch.nn.functional.normalize(features))):
        centered = rows - rows.mean(0)
        torch.testing.assert_close(centered_gram(features, normalize), centered @ centered.T)
