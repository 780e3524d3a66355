import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_repshape.functional.geodesic import FisherGeodesic, fisher_geodesic, fisher_geodesic_module

Layer = tuple[Tensor, Tensor | None]


def heads(sizes: Sequence[int], bias: bool = True, seed: int = 0) -> tuple[list[Layer], list[Layer]]:
    """Two heads in float64: random numbers, and the same moved by other random numbers."""
    rng = torch.Generator().manual_seed(seed)

    def layer(fan_in: int, fan_out: int) -> Layer:
        weight = torch.randn(fan_out, fan_in, generator=rng, dtype=torch.float64) / math.sqrt(fan_in)
        return weight, torch.randn(fan_out, generator=rng, dtype=torch.float64) / 2 if bias else None

    start = [layer(*shape) for shape in pairwise(sizes)]
    step = [layer(*shape) for shape in pairwise(sizes)]
    end = [(w + dw, b if b is None or db is None else b + db) for (w, b), (dw, db) in zip(start, step, strict=True)]
    return start, end


def samples(rows: int, width: int, classes: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=rng, dtype=torch.float64), torch.randint(
        0, classes, (rows,), generator=rng
    )


def as_module(layers: Sequence[Layer]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
        linear.weight.data = weight.clone()
        if bias is not None:
            linear.bias.data = bias.clone()
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def sample_loss(logits: Tensor, label: Tensor, loss: str) -> Tensor:
    if loss == "cross_entropy":
        return F.cross_entropy(logits, label)
    if len(logits) == 1:
        return (logits[0] - (2 * label - 1)) ** 2
    return ((logits - F.one_hot(label, len(logits))) ** 2).sum()


def by_explicit_fisher_matrix(
    features: Tensor, labels: Tensor, start: list[Layer], end: list[Layer], segments: int, loss: str
) -> tuple[Tensor, Tensor]:
    """Equations 14 and 16 written out: d(theta_a, theta_{a+1}) by layer (P x L) and in full (P)."""
    first, last = as_module(start), as_module(end)
    owner = torch.cat([torch.full((p.numel(),), int(name.split(".")[0])) for name, p in first.named_parameters()])
    theta_ld, theta_sd = (nn.utils.parameters_to_vector(head.parameters()).detach() for head in (first, last))
    points = [(a * theta_sd + (segments - a) * theta_ld) / segments for a in range(segments + 1)]
    by_layer, full = [], []
    for here, there in pairwise(points):
        nn.utils.vector_to_parameters(here, first.parameters())
        matrix = torch.zeros(len(here), len(here), dtype=torch.float64)
        for x, y in zip(features, labels, strict=True):
            gradients = torch.autograd.grad(sample_loss(first(x), y, loss), list(first.parameters()))
            gradient = torch.cat([g.flatten() for g in gradients])
            matrix += torch.outer(gradient, gradient) / len(labels)
        delta = there - here
        full.append((delta @ matrix @ delta).sqrt())
        parts = [delta * (owner == number) for number in owner.unique()]
        by_layer.append(torch.stack([(part @ matrix @ part).sqrt() for part in parts]))
    return torch.stack(by_layer), torch.stack(full)


def by_layer(found: FisherGeodesic) -> Tensor:
    return torch.stack([lengths.segments for lengths in found.layers.values()], dim=1)


@pytest.mark.parametrize(
    "sizes, loss, bias",
    [
        ([5, 3], "cross_entropy", True),
        ([6, 5, 4, 3], "cross_entropy", True),
        ([6, 5, 4, 3], "cross_entropy", False),
        ([6, 5, 4, 4, 3], "squared", True),
        ([6, 5, 1], "squared", True),
    ],
)
def test_segments_are_those_of_the_explicit_fisher_matrix(sizes: list[int], loss: str, bias: bool) -> None:
    start, end = heads(sizes, bias)
    features, labels = samples(23, sizes[0], max(sizes[-1], 2))
    found = fisher_geodesic(features, labels, start, end, segments=4, loss=loss)  # type: ignore[arg-type]
    layers, full = by_explicit_fisher_matrix(features, labels, start, end, 4, loss)
    torch.testing.assert_close(by_layer(found), layers)
    torch.testing.assert_close(found.full.segments, full)
    assert list(found.layers) == [str(number + 1) for number in range(len(start))]
    for number, lengths in enumerate(found.layers.values()):
        assert lengths.total == pytest.approx(float(layers[:, number].square().sum().sqrt()))  # Eq. 15
        assert lengths.length == pytest.approx(float(layers[:, number].sum()))
    assert found.full.total == pytest.approx(float(full.square().sum().sqrt()))
    assert found.errors is None


def test_segments_are_those_of_per_sample_gradients() -> None:
    start, end = heads([9, 8, 7, 5])
    features, labels = samples(64, 9, 5)
    found = fisher_geodesic(features, labels, start, end, segments=15)
    first, last = (dict(as_module(layers).named_parameters()) for layers in (start, end))
    head = as_module(start)
    for a in (0, 7, 14):
        theta = {name: ((15 - a) * first[name] + a * last[name]).detach() / 15 for name in first}

        def loss(theta: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(torch.func.functional_call(head, theta, (x,)), y)

        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(theta, features, labels)
        along = {
            name: (g * (last[name] - first[name]).detach() / 15).flatten(1).sum(1) for name, g in gradients.items()
        }
        torch.testing.assert_close(found.full.segments[a], sum(along.values()).square().mean().sqrt())
        second = along["2.weight"] + along["2.bias"]
        torch.testing.assert_close(found.layers["2"].segments[a], second.square().mean().sqrt())


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("fisher", ["empirical", "model"])
def test_forward_mode_on_a_module_gives_the_same(loss: str, fisher: str) -> None:
    start, end = heads([6, 5, 4, 3])
    features, labels = samples(70, 6, 3)
    test = samples(33, 6, 3, seed=2)
    options = {"loss": loss, "fisher": fisher, "segments": 5, "test_features": test[0], "test_labels": test[1]}
    ours = fisher_geodesic(features, labels, start, end, **options)  # type: ignore[arg-type]
    head = as_module(start).train()
    states = as_module(start).state_dict(), as_module(end).state_dict()
    theirs = fisher_geodesic_module(features, labels, head, *states, chunk_size=16, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(by_layer(theirs), by_layer(ours))
    torch.testing.assert_close(theirs.full.segments, ours.full.segments)
    assert torch.equal(theirs.errors, ours.errors)  # type: ignore[arg-type]
    assert list(theirs.layers) == ["0", "2", "4"]
    assert all(module.training for module in head.modules())


def test_any_head_will_do_for_the_module_form() -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)).double()
    start = {name: value.clone() for name, value in head.state_dict().items()}
    end = {name: value + 0.1 if value.is_floating_point() else value for name, value in start.items()}
    features, labels = samples(40, 6, 3)
    found = fisher_geodesic_module(
        features, labels, head, start, end, segments=3, test_features=features, test_labels=labels
    )
    assert list(found.layers) == ["0", "1", "4"]
    assert all(torch.equal(value, start[name]) for name, value in head.state_dict().items())
    # an independent slope: the loss a tiny step further on, buffers kept where they are
    step = {name: (end[name] - start[name]) / 3 if "running" not in name else 0 * end[name] for name in start}

    def losses(position: float) -> Tensor:
        state = {
            name: value + position * step[name] if value.is_floating_point() else value for name, value in start.items()
        }
        return F.cross_entropy(torch.func.functional_call(head.eval(), state, (features,)), labels, reduction="none")

    slope = (losses(1e-5) - losses(-1e-5)) / 2e-5
    torch.testing.assert_close(found.full.segments[0], slope.square().mean().sqrt(), rtol=1e-7, atol=0)
    # both ends are the heads as they were trained, running statistics included
    assert found.errors is not None
    for state, error in ((start, found.errors[0]), (end, found.errors[-1])):
        wrong = torch.func.functional_call(head.eval(), state, (features,)).argmax(1) != labels
        assert error.item() == pytest.approx(wrong.double().mean().item())


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_length_tends_to_the_arc_between_two_categorical_distributions(classes: int) -> None:
    # biases alone, and one logit against the rest: the line is a great circle of the square roots of probabilities
    start = [(torch.zeros(classes, 4, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64))]
    moved = torch.zeros(classes, dtype=torch.float64).index_fill(0, torch.tensor([0]), 3.0)
    end = [(start[0][0], moved)]
    features, labels = samples(7, 4, classes)
    p, q = start[0][1].softmax(0), moved.softmax(0)
    arc = 2 * math.acos(float((p * q).sqrt().sum()))
    errors = [
        abs(fisher_geodesic(features, labels, start, end, segments=n, fisher="model").full.length - arc)
        for n in (200, 2000)
    ]
    assert errors[1] < 1e-3 * arc
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)  # the Fisher matrix is taken at the segment's beginning
    # Eq. 15 is no arc length: it falls with the square root of the number of segments
    totals = [fisher_geodesic(features, labels, start, end, segments=n, fisher="model").full.total for n in (100, 400)]
    assert totals[0] / totals[1] == pytest.approx(2, rel=0.02)


def test_length_of_a_linear_head_under_squared_loss_is_that_of_its_outputs() -> None:
    start, end = heads([5, 3])
    features, labels = samples(40, 5, 3)
    change = (as_module(end)(features) - as_module(start)(features)).detach()
    expected = math.sqrt(2 * float(change.square().sum(1).mean()))  # normal with variance 1/2: the Fisher matrix is 2
    for segments in (1, 7):
        found = fisher_geodesic(features, labels, start, end, segments=segments, loss="squared", fisher="model")
        assert found.full.length == pytest.approx(expected)
        assert found.full.total == pytest.approx(expected / math.sqrt(segments))


def test_model_fisher_is_the_mean_over_the_labels_that_the_head_holds_possible() -> None:
    start, end = heads([6, 5, 4])
    features, _ = samples(30, 6, 4)
    found = fisher_geodesic(features, torch.zeros(30, dtype=torch.int64), start, end, segments=1, fisher="model")
    probabilities = as_module(start)(features).softmax(1).detach()
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(30):
        for label in range(4):
            one = fisher_geodesic(features[[row]], torch.tensor([label]), start, end, segments=1)
            expected += probabilities[row, label] * one.full.segments[0] ** 2 / 30
    torch.testing.assert_close(found.full.segments[0], expected.sqrt())


def test_errors_along_the_line_are_those_of_each_head() -> None:
    start, end = heads([6, 20, 5])
    features, labels = samples(50, 6, 5)
    test_features, test_labels = samples(301, 6, 5, seed=3)
    found = fisher_geodesic(
        features, labels, start, end, segments=6, test_features=test_features, test_labels=test_labels
    )
    assert found.errors is not None and found.errors.shape == (7,)
    for a in range(7):
        between = [(w + a / 6 * (v - w), b + a / 6 * (c - b)) for (w, b), (v, c) in zip(start, end, strict=True)]
        wrong = as_module(between)(test_features).argmax(1) != test_labels
        assert found.errors[a].item() == pytest.approx(wrong.double().mean().item())


def test_single_precision_is_good_to_six_digits_and_sure_samples_keep_theirs() -> None:
    start, end = heads([200, 64, 64, 10])
    features, labels = samples(1500, 200, 10)
    single = fisher_geodesic(
        features.float(), labels, *([(w.float(), b.float()) for w, b in head] for head in (start, end))
    )
    double = fisher_geodesic(features.float(), labels, start, end, dtype=torch.float64)
    torch.testing.assert_close(by_layer(single), by_layer(double), rtol=1e-6, atol=0)
    # logits 30 apart: p - 1 is zero in single precision, the slope is not
    start, end = [(30 * torch.eye(2), None)], [(31 * torch.eye(2), None)]
    sure = fisher_geodesic(torch.eye(2), torch.arange(2), start, end, segments=1)
    assert sure.full.length == pytest.approx(1 / (1 + math.exp(30)), rel=1e-5)


def test_order_of_samples_and_hidden_units_does_not_matter_and_equal_heads_are_no_way_apart() -> None:
    start, end = heads([6, 5, 4, 3])
    features, labels = samples(600, 6, 3)
    found = fisher_geodesic(features, labels, start, end)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(by_layer(fisher_geodesic(features[order], labels[order], start, end)), by_layer(found))
    units = torch.tensor([3, 1, 4, 0, 2])

    def renamed(head: list[Layer]) -> list[Layer]:
        (w1, b1), (w2, b2), last = head
        assert b1 is not None
        return [(w1[units], b1[units]), (w2[:, units], b2), last]

    torch.testing.assert_close(
        by_layer(fisher_geodesic(features, labels, renamed(start), renamed(end))), by_layer(found)
    )
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    turned = [[(head[0][0] @ rotation, head[0][1]), *head[1:]] for head in (start, end)]
    torch.testing.assert_close(by_layer(fisher_geodesic(features @ rotation, labels, *turned)), by_layer(found))
    same = fisher_geodesic(features, labels, start, start)
    assert same.full.total == 0 and same.full.length == 0
    again = fisher_geodesic(features, labels, start, end)
    assert torch.equal(by_layer(again), by_layer(found))


def test_autocast_and_reduced_products_do_not_reach_in() -> None:
    start, end = heads([6, 5, 3])
    features, labels = samples(60, 6, 3)
    found = fisher_geodesic(features, labels, start, end, dtype=torch.float32)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = fisher_geodesic(features, labels, start, end, dtype=torch.float32)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(by_layer(inside), by_layer(found))


def test_bad_input_gets_one_clear_message() -> None:
    start, end = heads([6, 5, 3])
    features, labels = samples(20, 6, 3)
    with pytest.raises(ValueError, match="layers of the same shapes"):
        fisher_geodesic(features, labels, start, end[:1])
    with pytest.raises(ValueError, match="do not follow on each other"):
        fisher_geodesic(features, labels, [start[0], start[0]], [end[0], end[0]])
    with pytest.raises(ValueError, match="4 columns, but the heads take 6"):
        fisher_geodesic(features[:, :4], labels, start, end)
    with pytest.raises(ValueError, match="segments must be at least 1"):
        fisher_geodesic(features, labels, start, end, segments=0)
    with pytest.raises(ValueError, match="'cross_entropy' or 'squared', not 'hinge'"):
        fisher_geodesic(features, labels, start, end, loss="hinge")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'empirical' or 'model', not 'true'"):
        fisher_geodesic(features, labels, start, end, fisher="true")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="labels must be integers"):
        fisher_geodesic(features, labels.double(), start, end)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        fisher_geodesic(features, labels + 3, start, end)
    with pytest.raises(ValueError, match="features must be finite"):
        fisher_geodesic(features.index_fill(0, torch.tensor([3]), torch.nan), labels, start, end)
    with pytest.raises(ValueError, match="both features and labels of the test set"):
        fisher_geodesic(features, labels, start, end, test_features=features)
    with pytest.raises(ValueError, match="a single output goes with loss='squared'"):
        fisher_geodesic(features, labels % 2, *heads([6, 5, 1]))
    head = as_module(start)
    with pytest.raises(ValueError, match="the state of end does not fit the head"):
        fisher_geodesic_module(features, labels, head, head.state_dict(), {"0.weight": start[0][0]})
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        fisher_geodesic_module(features, labels, head, head.state_dict(), head.state_dict(), chunk_size=0)
    with pytest.raises(ValueError, match="no parameters"):
        fisher_geodesic_module(features, labels, nn.ReLU(), {}, {})
