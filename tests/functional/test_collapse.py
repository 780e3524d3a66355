import math

import pytest
import torch
from torch import Tensor

from lightning_repshape.functional.collapse import neural_collapse, simplex_deviation


def simplex(classes: int, width: int, seed: int = 0) -> Tensor:
    """The K corners of a simplex equiangular tight frame, of length one, turned at random in D dimensions."""
    corners = torch.eye(classes, dtype=torch.float64) - 1 / classes
    rng = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(width, classes, generator=rng, dtype=torch.float64)).Q
    return corners @ turn.T * math.sqrt(classes / (classes - 1))


def clusters(rows: int, width: int, classes: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    labels = torch.randint(0, classes, (rows,), generator=rng)
    centers = 2 * torch.randn(classes, width, generator=rng, dtype=torch.float64)
    return centers[labels] + spread * torch.randn(rows, width, generator=rng, dtype=torch.float64) + 3, labels


@pytest.mark.parametrize("classes, width", [(2, 2), (3, 3), (10, 30)])
def test_a_simplex_with_its_own_corners_as_class_vectors_is_the_limit(classes: int, width: int) -> None:
    corners = simplex(classes, width)
    labels = torch.arange(7 * classes) % classes
    found = neural_collapse(5 * corners[labels] + 2, labels, classes, weight=0.3 * corners)
    assert found.within_class_variability < 1e-25
    for deviation in (found.mean_simplex, found.weight_simplex):
        assert deviation is not None and max(deviation) < 1e-13
    assert found.self_duality is not None and found.self_duality < 1e-25
    assert found.mean_weight_cosine == pytest.approx(1)
    assert found.nearest_mean_error == 0
    assert found.num_classes == classes
    # what moves features moves the last layer's bias along: then both decide alike
    found = neural_collapse(5 * corners[labels] + 2, labels, classes, corners, -2 * corners.sum(1))
    assert found.nearest_mean_agreement == 1


@pytest.mark.parametrize("normalize", [False, True])
def test_measures_are_their_definitions_written_out(normalize: bool) -> None:
    features, labels = clusters(400, 6, 4)
    rng = torch.Generator().manual_seed(2)
    weight = torch.randn(4, 6, generator=rng, dtype=torch.float64)
    bias = torch.randn(4, generator=rng, dtype=torch.float64)
    found = neural_collapse(features, labels, 4, weight, bias, normalize=normalize)

    x = features / features.norm(dim=1, keepdim=True) if normalize else features
    groups = [x[labels == k] for k in range(4)]
    means = torch.stack([g.mean(0) for g in groups])
    within = torch.stack([(g - g.mean(0)).T @ (g - g.mean(0)) / len(g) for g in groups]).mean(0)
    centered = means - means.mean(0)
    between = centered.T @ centered / 4
    nc1 = torch.trace(within @ torch.linalg.pinv(between, hermitian=True, rtol=1e-10)) / 4
    assert found.within_class_variability == pytest.approx(float(nc1))
    lengths = centered.norm(dim=1)
    assert found.mean_simplex.norm_spread == pytest.approx(float(lengths.std(correction=0) / lengths.mean()))
    cosines = [float(centered[i] @ centered[j] / lengths[i] / lengths[j]) for i in range(4) for j in range(4) if i != j]
    assert found.mean_simplex.angle_spread == pytest.approx(float(torch.tensor(cosines).double().std(correction=0)))
    assert found.mean_simplex.angle_deviation == pytest.approx(sum(abs(c + 1 / 3) for c in cosines) / 12)
    apart = weight / weight.norm() - centered / centered.norm()
    assert found.self_duality == pytest.approx(float(apart.square().sum()))
    cosine = torch.nn.functional.cosine_similarity(weight, centered).mean()
    assert found.mean_weight_cosine == pytest.approx(float(cosine))
    nearest = torch.cdist(x, means).argmin(1)
    assert found.nearest_mean_error == pytest.approx(float((nearest != labels).double().mean()))
    same = nearest == (x @ weight.T + bias).argmax(1)
    assert found.nearest_mean_agreement == pytest.approx(float(same.double().mean()))


def test_hand_worked_within_class_variability() -> None:
    # class means -2 and 2: Sigma_B = 4; variances 1 and 3, mean 2; 2 / 4 / 2
    features = torch.tensor(
        [[-3.0], [-1.0], [2 - math.sqrt(3)], [2 + math.sqrt(3)], [2 - math.sqrt(3)], [2 + math.sqrt(3)]]
    )
    found = neural_collapse(features.double(), torch.tensor([0, 0, 1, 1, 1, 1]), 2)
    assert found.within_class_variability == pytest.approx(0.25)
    assert found.mean_simplex == pytest.approx((0, 0, 0))
    assert found.weight_simplex is None and found.self_duality is None and found.nearest_mean_agreement is None


def test_rotation_shift_scale_and_order_do_not_matter() -> None:
    features, labels = clusters(300, 8, 4)
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def figures(features: Tensor, labels: Tensor, weight: Tensor) -> list[float]:
        found = neural_collapse(features, labels, 4, weight)
        assert found.weight_simplex is not None and found.self_duality is not None
        return [
            found.within_class_variability,
            *found.mean_simplex,
            *found.weight_simplex,
            found.self_duality,
            found.mean_weight_cosine or 0.0,
            found.nearest_mean_agreement or 0.0,
            found.nearest_mean_error,
        ]

    expected = pytest.approx(figures(features, labels, weight))
    rng = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=rng, dtype=torch.float64)).Q
    assert figures(features @ turn, labels, weight @ turn) == expected
    assert figures(1e-6 * features, labels, 1e6 * weight) == expected
    order = torch.randperm(300, generator=rng)
    assert figures(features[order], labels[order], weight) == expected
    renamed = torch.tensor([2, 0, 3, 1])
    assert figures(features, renamed[labels], weight[renamed.argsort()]) == expected
    shifted = neural_collapse(features + 1e5, labels, 4)
    assert shifted.within_class_variability == pytest.approx(figures(features, labels, weight)[0])


def test_samples_of_a_class_twice_count_once() -> None:
    features, labels = clusters(200, 5, 3)
    rows = torch.cat([torch.arange(200), (labels == 1).nonzero()[:, 0]])
    once, twice = neural_collapse(features, labels, 3), neural_collapse(features[rows], labels[rows], 3)
    assert twice.within_class_variability == pytest.approx(once.within_class_variability)
    assert twice.mean_simplex == pytest.approx(once.mean_simplex)


def test_absent_classes_are_left_out_and_single_samples_have_no_spread() -> None:
    features, labels = clusters(200, 5, 3)
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    places = torch.tensor([1, 3, 5])
    few = neural_collapse(features, labels, 3, weight[places])
    many = neural_collapse(features, places[labels], 6, weight)
    assert many == few and many.num_classes == 3
    alone = neural_collapse(features[:3], torch.tensor([0, 1, 2]), 3)
    assert alone.within_class_variability == pytest.approx(0, abs=1e-25)


def test_more_features_than_samples_need_no_large_matrix() -> None:
    features, labels = clusters(60, 20_000, 3)
    found = neural_collapse(features.float(), labels, 3)
    assert math.isfinite(found.within_class_variability) and found.nearest_mean_error == 0


def test_deviation_of_vectors_from_a_simplex() -> None:
    assert simplex_deviation(torch.eye(3)) == pytest.approx((0, 0, 0.5))
    assert simplex_deviation(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx((0.5, 0, 0))
    with pytest.raises(ValueError, match="K at least 2"):
        simplex_deviation(torch.ones(1, 3))
    with pytest.raises(ValueError, match="no angles"):
        simplex_deviation(torch.zeros(2, 3))


def test_bad_input_gets_one_clear_message() -> None:
    features, labels = clusters(50, 4, 3)
    with pytest.raises(ValueError, match="at least two classes with samples, but there is only 1"):
        neural_collapse(features, torch.zeros_like(labels), 3)
    with pytest.raises(ValueError, match="all class means coincide"):
        neural_collapse(torch.full((50, 4), 0.1), labels, 3)
    with pytest.raises(ValueError, match="features must be finite"):
        neural_collapse(features.index_fill(0, torch.tensor([2]), torch.inf), labels, 3)
    with pytest.raises(TypeError, match="labels must be integers"):
        neural_collapse(features, labels.double(), 3)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1"):
        neural_collapse(features, labels, 2)
    with pytest.raises(ValueError, match="weight must be 3 x 4"):
        neural_collapse(features, labels, 3, torch.ones(4, 3))
    with pytest.raises(ValueError, match="bias must be 3 numbers"):
        neural_collapse(features, labels, 3, torch.ones(3, 4), torch.ones(4))
    with pytest.raises(ValueError, match="give both or none"):
        neural_collapse(features, labels, 3, bias=torch.ones(3))
