import math

import pytest
import torch
import torch.nn.functional as F

from lightning_repshape.functional.reconstruction import feed_backward_loss, weight_separability


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_orthonormal_class_vectors_have_separability_zero() -> None:
    orthonormal = torch.linalg.qr(random(20, 6)).Q.T
    assert weight_separability(orthonormal) < 1e-28
    assert weight_separability(3 * orthonormal).item() == pytest.approx(64.0)  # (9 - 1)^2 for each of the classes
    assert weight_separability(3 * orthonormal, normalize=True) < 1e-28


def test_separability_of_a_hand_worked_case() -> None:
    weight = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 0.0]])
    # W^T W - I = [[4, 1], [1, 1]]
    assert weight_separability(weight).item() == pytest.approx((16 + 1 + 1 + 1) / 2)
    assert weight_separability(weight, normalize=True).item() == pytest.approx(2 * (1 / math.sqrt(10)) ** 2 / 2)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
@pytest.mark.parametrize("normalize", [False, True])
def test_separability_is_the_definition_in_either_shape(shape: tuple[int, int], normalize: bool) -> None:
    weight = random(*shape).requires_grad_()
    columns = weight.T / weight.T.norm(dim=0) if normalize else weight.T
    error = columns.T @ columns - torch.eye(shape[0], dtype=torch.float64)
    expected = torch.trace(error.T @ error) / shape[0]  # Eq. 8
    value = weight_separability(weight, normalize=normalize)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, weight)[0] for v in (value, expected)))


def test_separability_ignores_rotations_and_the_order_of_classes() -> None:
    weight, rotation = random(5, 8), torch.linalg.qr(random(8, 8, seed=1)).Q
    for changed in (weight @ rotation, weight.flip(0), -weight):
        torch.testing.assert_close(weight_separability(changed), weight_separability(weight))
    torch.testing.assert_close(
        weight_separability(7 * weight, normalize=True), weight_separability(weight, normalize=True)
    )


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_loss_is_the_sum_of_equation_9(classes: int, temperature: float) -> None:
    features, weight, y = random(12, 7), random(classes, 7, seed=1), torch.arange(12) % 3
    expected = 0.0
    for feature, label in zip(features.tolist(), y.tolist(), strict=True):
        p = [math.exp(a / temperature) for a in feature]
        q = [math.exp(a / temperature) for a in weight[label].tolist()]
        expected += sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    assert feed_backward_loss(features, weight, y, temperature=temperature).item() == pytest.approx(expected / 12)
    assert feed_backward_loss(features, weight, y, temperature=temperature, reduction="sum").item() == pytest.approx(
        expected
    )
    assert feed_backward_loss(features, weight, y, reduction="none").shape == (12,)


@pytest.mark.parametrize("classes", [3, 40])
def test_gradients_are_those_worked_out_by_hand(classes: int) -> None:
    features, weight, y = (
        random(12, 7).requires_grad_(),
        random(classes, 7, seed=1).requires_grad_(),
        torch.arange(12) % 3,
    )
    to_features, to_weight = torch.autograd.grad(feed_backward_loss(features, weight, y), (features, weight))
    with torch.no_grad():
        p, q = features.softmax(1), weight[y].softmax(1)
        ratio = (p / q).log()
        torch.testing.assert_close(to_features, p * (ratio - (p * ratio).sum(1, keepdim=True)) / 12)
        torch.testing.assert_close(to_weight, torch.zeros_like(weight).index_add_(0, y, (q - p) / 12))


def test_either_gradient_can_be_stopped() -> None:
    y = torch.arange(12) % 3
    for stopped in ("features", "weight"):
        features, weight = random(12, 7).requires_grad_(), random(3, 7, seed=1).requires_grad_()
        free = torch.autograd.grad(feed_backward_loss(features, weight, y), (features, weight))
        feed_backward_loss(features, weight, y, stop_gradient=stopped).backward()  # type: ignore[arg-type]
        assert (features.grad is None) == (stopped == "features")
        assert (weight.grad is None) == (stopped == "weight")
        torch.testing.assert_close(*((weight.grad, free[1]) if stopped == "features" else (features.grad, free[0])))


def test_loss_is_zero_where_features_are_their_class_vectors_up_to_a_shift() -> None:
    weight, y = random(3, 7), torch.arange(12) % 3
    assert feed_backward_loss(weight[y] + 5, weight, y).abs() < 1e-14
    features = random(12, 7)
    torch.testing.assert_close(
        feed_backward_loss(features, weight, y),
        F.kl_div(weight[y].log_softmax(1), features.log_softmax(1), reduction="batchmean", log_target=True),
    )


def test_half_precision_is_computed_in_float32() -> None:
    features, weight, y = random(12, 7).bfloat16(), random(3, 7, seed=1).bfloat16(), torch.arange(12) % 3
    assert feed_backward_loss(features, weight, y).dtype == torch.float32
    assert weight_separability(weight).dtype == torch.float32
    torch.testing.assert_close(
        feed_backward_loss(features, weight, y), feed_backward_loss(features.float(), weight.float(), y)
    )


def test_bad_input_gets_one_clear_message() -> None:
    features, weight, y = random(12, 7), random(3, 7), torch.arange(12) % 3
    with pytest.raises(ValueError, match="7 columns, but the class vectors have 6"):
        feed_backward_loss(features, weight[:, :6], y)
    with pytest.raises(TypeError, match="labels must be integers or soft memberships"):
        feed_backward_loss(features, weight, y == 0)
    with pytest.raises(ValueError, match="soft labels must have shape"):
        feed_backward_loss(features, weight, y.double())
    with pytest.raises(ValueError, match="integer labels must have shape"):
        feed_backward_loss(features, weight, y[:5])
    with pytest.raises(ValueError, match="temperature must be positive"):
        feed_backward_loss(features, weight, y, temperature=0.0)
    with pytest.raises(ValueError, match="'none', 'features' or 'weight'"):
        feed_backward_loss(features, weight, y, stop_gradient="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="K x D matrix"):
        weight_separability(features[0])
    with pytest.raises(TypeError, match="floating-point"):
        weight_separability(torch.ones(2, 2, dtype=torch.int64))


def test_memberships_weigh_the_divergences_from_all_classes() -> None:
    features, weight, shares = 3 * random(5, 4), 2 * random(3, 4, seed=1), random(5, 3, seed=2).softmax(1)
    shares[0] = torch.tensor([0.25, 0.5, 0.0])  # what is left out counts nothing
    p, q = (features / 2).softmax(1), (weight / 2).softmax(1)
    wanted = sum(shares[:, k] * (p * (p / q[k]).log()).sum(1) for k in range(3))
    found = feed_backward_loss(features, weight, shares, temperature=2.0, reduction="none")
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(feed_backward_loss(features, weight, shares, temperature=2.0), wanted.mean())
