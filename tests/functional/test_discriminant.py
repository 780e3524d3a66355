import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_features import clusters

from lightning_repshape.functional.discriminant import (
    class_vs_rest_lda,
    lda_from_scatter,
    threshold_errors,
)
from lightning_repshape.functional.scatter import scatter_state


def eigenvalue_of_scipy(features: Tensor, member: Tensor) -> tuple[float, np.ndarray]:
    """The largest eigenvalue of S_B v = lambda S_W v, and v, from both scatters written out."""
    from scipy.linalg import eigh

    x, inside = features.double().numpy(), member.numpy()
    groups = x[inside], x[~inside]
    within = sum((g - g.mean(0)).T @ (g - g.mean(0)) for g in groups)
    between = sum(len(g) * np.outer(g.mean(0) - x.mean(0), g.mean(0) - x.mean(0)) for g in groups)
    values, vectors = eigh(between, within)
    return float(values[-1]), vectors[:, -1]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_eigenvalues_and_axes_are_those_of_the_generalized_problem(dtype: torch.dtype, normalize: bool) -> None:
    features, labels = clusters(3000, 30, 5)
    features = features.to(dtype)
    lda = class_vs_rest_lda(features, labels, 5, normalize=normalize)
    x = features.double()
    x = x / x.norm(dim=1, keepdim=True) if normalize else x
    for k in range(5):
        value, axis = eigenvalue_of_scipy(x, labels == k)
        assert lda.eigenvalues[k].item() == pytest.approx(value, rel=1e-9)
        cosine = float(lda.axes[k] @ torch.from_numpy(axis) / np.linalg.norm(axis))
        assert abs(cosine) == pytest.approx(1, abs=1e-9)
        scores = lda.scores(features)[:, k]
        assert scores[labels == k].mean() > scores[labels != k].mean()
    assert lda.rank == 30 and lda.constant_features == 0 and not lda.separated.any()
    torch.testing.assert_close(lda.axes.norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert lda[0] is lda.eigenvalues


def test_axis_is_that_of_scikit_learn() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    features, labels = clusters(2000, 12, 3)
    lda = class_vs_rest_lda(features, labels, 3)
    for k in range(2):  # of the third class there is one sample, about which scikit-learn warns
        theirs = LinearDiscriminantAnalysis(solver="eigen").fit(features.numpy(), (labels == k).numpy())
        axis = torch.from_numpy(theirs.scalings_[:, 0])
        assert abs(float(lda.axes[k] @ axis / axis.norm())) == pytest.approx(1, abs=1e-10)


def test_a_hand_worked_case() -> None:
    # class means 0 and 3, within scatter 2 and 2, three samples each: 3 * 3 / 6 * 3^2 / 4
    features, labels = torch.tensor([[-1.0], [0.0], [1.0], [2.0], [3.0], [4.0]]), torch.tensor([0, 0, 0, 1, 1, 1])
    lda = class_vs_rest_lda(features, labels, 2)
    torch.testing.assert_close(lda.eigenvalues, torch.full((2,), 1.5 * 9 / 4, dtype=torch.float64))
    torch.testing.assert_close(lda.axes, torch.tensor([[-1.0], [1.0]], dtype=torch.float64))


def test_rotation_scale_shift_and_order_do_not_matter() -> None:
    features, labels = clusters(800, 15, 4)
    lda = class_vs_rest_lda(features, labels, 4)
    rng = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(15, 15, generator=rng, dtype=torch.float64)).Q
    turned = class_vs_rest_lda(features @ rotation, labels, 4)
    torch.testing.assert_close(turned.eigenvalues, lda.eigenvalues)
    torch.testing.assert_close(turned.axes, lda.axes @ rotation)
    scales = torch.logspace(-6, 6, 15, dtype=torch.float64)
    torch.testing.assert_close(class_vs_rest_lda(features * scales, labels, 4).eigenvalues, lda.eigenvalues)
    torch.testing.assert_close(class_vs_rest_lda(1e-9 * features, labels, 4).eigenvalues, lda.eigenvalues)
    torch.testing.assert_close(class_vs_rest_lda(features + 1e4, labels, 4).eigenvalues, lda.eigenvalues)
    order = torch.randperm(800, generator=rng)
    torch.testing.assert_close(class_vs_rest_lda(features[order], labels[order], 4).eigenvalues, lda.eigenvalues)
    renamed = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(class_vs_rest_lda(features, renamed[labels], 4).eigenvalues[renamed], lda.eigenvalues)
    lengths = torch.rand(800, 1, generator=rng, dtype=torch.float64) + 0.5
    torch.testing.assert_close(
        class_vs_rest_lda(features * lengths, labels, 4, normalize=True).eigenvalues,
        class_vs_rest_lda(features, labels, 4, normalize=True).eigenvalues,
    )


def test_dead_and_repeated_units_change_nothing_but_the_rank() -> None:
    features, labels = clusters(900, 10, 3)
    lda = class_vs_rest_lda(features, labels, 3)
    dead = torch.cat(
        [
            torch.zeros(900, 2, dtype=torch.float64),
            features,
            torch.full((900, 1), 0.1, dtype=torch.float64),
            features[:, :4] @ torch.ones(4, 3, dtype=torch.float64),
        ],
        dim=1,
    )
    more = class_vs_rest_lda(dead, labels, 3)
    torch.testing.assert_close(more.eigenvalues, lda.eigenvalues)
    assert (more.rank, more.constant_features) == (10, 3)
    assert not more.axes[:, [0, 1, 12]].any()
    # the axes lie in the range of the scatter: a direction in which no row ever varied has no say
    repeated = more.axes[:, 13:]
    torch.testing.assert_close(repeated, repeated[:, :1].expand(-1, 3))


@pytest.mark.parametrize("rows, width, classes", [(60, 8, 3), (5000, 64, 10), (600, 200, 10), (20, 50, 3)])
@pytest.mark.parametrize("normalize", [False, True])
def test_collapsed_classes_are_separated_and_never_negative(
    rows: int, width: int, classes: int, normalize: bool
) -> None:
    features, labels = clusters(rows, width, classes, spread=0.0)
    for values in (features, features.float(), features.float() + 100):
        lda = class_vs_rest_lda(values, labels, classes, normalize=normalize)
        assert lda.separated.all() and torch.isposinf(lda.eigenvalues).all()
        assert lda.rank == classes - 1
        best = threshold_errors(lda.scores(values), labels)
        assert not best.errors.any()


def test_eigenvalue_grows_with_the_inverse_of_the_spread_up_to_the_last_digits() -> None:
    features, labels = clusters(2000, 6, 3, spread=0.0)
    noise = torch.randn(2000, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    previous = 0.0
    for spread in (1.0, 1e-1, 1e-2, 1e-3, 1e-4):
        lda = class_vs_rest_lda(features + spread * noise, labels, 3)
        value, _ = eigenvalue_of_scipy(features + spread * noise, labels == 0)
        assert lda.eigenvalues[0].item() == pytest.approx(value, rel=1e-5)
        assert lda.eigenvalues.min() > previous
        previous = float(lda.eigenvalues.min())
    assert previous > 1e6


@pytest.mark.parametrize("kind", ["regular", "offset", "dead", "nearly dependent", "dependent", "collapsed"])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_quick_way_for_wide_features_is_exact_or_gives_way(kind: str, normalize: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(2500) % 10
    features = torch.randn(10, 520, generator=rng)[labels] + torch.randn(2500, 520, generator=rng)
    features = features.relu() + (100 if kind == "offset" else 0)
    if kind == "dead":
        features[:, 7:30] = 0
    if kind == "nearly dependent":
        features[:, 1] = features[:, 0] + 1e-3 * features[:, 1]
    if kind == "dependent":
        features[:, 2] = features[:, 0]
    if kind == "collapsed":
        features = features[labels]
    lda = class_vs_rest_lda(features, labels, 10, normalize=normalize)
    exact = lda_from_scatter(scatter_state(features, labels, 10, normalize=normalize))
    torch.testing.assert_close(lda.eigenvalues, exact.eigenvalues, rtol=1e-9, atol=0)
    torch.testing.assert_close(lda.axes, exact.axes, rtol=0, atol=1e-8)
    assert (lda.rank, lda.constant_features) == (exact.rank, exact.constant_features)
    assert torch.equal(lda.separated, exact.separated) and bool(lda.separated.all()) == (kind == "collapsed")
    if kind in ("regular", "offset"):
        x = features.double()
        x = x / x.norm(dim=1, keepdim=True) if normalize else x
        value, _ = eigenvalue_of_scipy(x, labels == 3)
        assert lda.eigenvalues[3].item() == pytest.approx(value, rel=1e-9)


def test_more_features_than_samples_are_always_separated() -> None:
    features, labels = clusters(40, 90, 4)
    lda = class_vs_rest_lda(features, labels, 4)
    assert lda.separated.all() and lda.rank == 39
    scores = lda.scores(features)
    for k in range(4):
        inside, outside = scores[labels == k, k], scores[labels != k, k]
        assert inside.min() > outside.max()
        assert float(inside.std(correction=0)) < 1e-6 * float(inside.mean() - outside.mean())
    state = lda_from_scatter(scatter_state(features, labels, 4))
    assert state.rank == 39 and state.separated.all()
    torch.testing.assert_close(state.axes, lda.axes, atol=1e-6, rtol=0)


def test_few_rows_with_repeats_go_either_way_to_the_same_result() -> None:
    base, _ = clusters(12, 40, 3)
    features = base[torch.arange(36) % 12]
    labels = torch.arange(36) // 7 % 3
    few = class_vs_rest_lda(features, labels, 3)
    many = lda_from_scatter(scatter_state(features, labels, 3))
    assert few.rank == many.rank == 11 and not few.separated.any()
    torch.testing.assert_close(few.eigenvalues, many.eigenvalues)
    torch.testing.assert_close(few.axes, many.axes)
    torch.testing.assert_close(few.mean, many.mean)


def test_threshold_error_is_the_smallest_of_all_thresholds() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (200,), generator=rng)
    scores = (torch.randn(200, 3, generator=rng) + 1.5 * torch.nn.functional.one_hot(labels, 3)).mul(4).round()  # ties
    found = threshold_errors(scores, labels)
    for k in range(3):
        member = labels == k
        candidates = [-math.inf, *(float(v) for v in scores[:, k].unique()), math.inf]
        errors = [float(((scores[:, k] > c) != member).float().mean()) for c in candidates]
        assert found.errors[k].item() == pytest.approx(min(errors))
        assert float(((scores[:, k] > found.thresholds[k]) != member).double().mean()) == pytest.approx(min(errors))


def test_threshold_error_of_hand_worked_cases() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1])
    ascending = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    found = threshold_errors(torch.stack([-ascending, ascending], dim=1), labels)
    torch.testing.assert_close(found.errors, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(found.thresholds, torch.tensor([-1.5, 1.5], dtype=torch.float64))
    # the wrong way round: the best is to call everything the commoner side
    found = threshold_errors(torch.stack([ascending, -ascending], dim=1), labels)
    torch.testing.assert_close(found.errors, torch.tensor([0.4, 0.4], dtype=torch.float64))
    assert found.thresholds[0] == math.inf and found.thresholds[1] == -math.inf
    # no threshold parts equal scores, and a class that the test set lacks has no error
    found = threshold_errors(torch.zeros(5, 3), labels)
    torch.testing.assert_close(found.errors[:2], torch.tensor([0.4, 0.4], dtype=torch.float64))
    assert found.errors[2].isnan() and found.thresholds[2].isnan()


def test_a_class_with_one_sample_and_a_class_with_none() -> None:
    features, labels = clusters(300, 6, 3)
    labels[labels == 2] = 1
    labels[0] = 2
    lda = class_vs_rest_lda(features, labels, 5)
    assert lda.eigenvalues[:3].isfinite().all() and (lda.eigenvalues[:3] > 0).all()
    assert lda.eigenvalues[2].item() == pytest.approx(eigenvalue_of_scipy(features, labels == 2)[0])
    assert lda.eigenvalues[3:].isnan().all() and lda.axes[3:].isnan().all() and not lda.separated[3:].any()
    assert lda.counts.tolist()[2:] == [1, 0, 0]
    assert threshold_errors(lda.scores(features), labels).errors[3:].isnan().all()


@pytest.mark.parametrize("shape", [(50, 4), (4, 50)])
def test_bad_input_gets_one_clear_message(shape: tuple[int, int]) -> None:
    features = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(shape[0]) % 2
    with pytest.raises(ValueError, match="at least two classes with samples, but there is only 1"):
        class_vs_rest_lda(features, torch.zeros_like(labels), 2)
    with pytest.raises(ValueError, match="every feature is constant"):
        class_vs_rest_lda(torch.full(shape, 0.1), labels, 2)
    with pytest.raises(ValueError, match="features must be finite, but 1 of the rows"):
        class_vs_rest_lda(features.index_fill(0, torch.tensor([2]), torch.nan), labels, 2)
    with pytest.raises(TypeError, match=r"labels must be integers, not torch\.float32"):
        class_vs_rest_lda(features, labels.float(), 2)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1"):
        class_vs_rest_lda(features, labels + 1, 2)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1"):
        class_vs_rest_lda(features, labels - 1, 2)
    with pytest.raises(ValueError, match="one integer for each of"):
        class_vs_rest_lda(features, labels[:-1], 2)
    with pytest.raises(ValueError, match="N x D"):
        class_vs_rest_lda(features[0], labels, 2)
    with pytest.raises(TypeError, match="floating-point"):
        class_vs_rest_lda(labels.unsqueeze(1), labels, 2)
    with pytest.raises(TypeError, match="not list"):
        class_vs_rest_lda(features.tolist(), labels, 2)  # type: ignore[arg-type]


def test_examples_of_the_page_on_analysis_functions_run() -> None:
    page = Path(__file__).parents[2] / "docs" / "analysis-functions.md"
    space: dict[str, object] = {}
    snippets = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(snippets) > 5
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec"), space)
