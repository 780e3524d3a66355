import inspect
import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError
from lightning_repshape.functional.stacked_heads import (
    EarlyStopping,
    GramWeight,
    HeadRecipe,
    StackedHeads,
    classification_error,
    feature_scale,
    gradient_descent,
    init_heads,
    ridge,
    solve_head,
    solve_heads,
    train_heads,
)
from lightning_repshape.functional.stacked_heads.descent import prefers_gram
from lightning_repshape.seeding import generator

CLASSES = 5


def data(count: int = 40, dim: int = 60, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    means = torch.randn(CLASSES, dim, generator=stream, dtype=torch.float64)
    features = means[labels] + 0.7 * torch.randn(count, dim, generator=stream, dtype=torch.float64)
    return (5 * features / features.norm(dim=1).mean()).to(dtype), labels


def sequential(heads: StackedHeads, head: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in heads.linear_layers(head):
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def torch_loss(logits: Tensor, labels: Tensor, loss: str, reduction: str) -> Tensor:
    if loss == "cross_entropy":
        return F.cross_entropy(logits, labels, reduction=reduction)
    targets = (2.0 * labels - 1)[:, None] if logits.shape[1] == 1 else F.one_hot(labels, logits.shape[1])
    squares = ((logits - targets.to(logits)) ** 2).sum(dim=1)
    return squares.mean() if reduction == "mean" else squares.sum()


def torch_sgd(
    heads: StackedHeads,
    head: int,
    features: Tensor,
    labels: Tensor,
    updates: int = 32,
    rate: float = 0.05,
    momentum: float = 0.9,
    lam: float = 0.0,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    nesterov: bool = False,
) -> nn.Sequential:
    """What everybody writes: the oracle."""
    net = sequential(heads, head)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum, weight_decay=2 * lam, nesterov=nesterov)
    for _ in range(updates):
        optimizer.zero_grad()
        torch_loss(net(features), labels, loss, reduction).backward()
        optimizer.step()
    return net


def distance(heads: StackedHeads, head: int, net: nn.Sequential) -> float:
    """Largest relative difference of any parameter tensor."""
    ours, truth = heads.state_dict(head), net.state_dict()
    assert list(ours) == list(truth)
    return max(float((ours[name].double() - truth[name]).norm() / truth[name].double().norm()) for name in truth)


def layer_distance(heads: StackedHeads, head: int, net: nn.Sequential) -> float:
    """Largest relative difference of any layer, its bias as one more column (alone, float32's tiny bias is noise)."""
    distances = []
    for ours, truth in zip(heads.linear_layers(head), net[::2], strict=True):
        a, b = (torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().double() for layer in (ours, truth))
        distances.append(float((a - b).norm() / b.norm()))
    return max(distances)


@pytest.mark.parametrize("form", ["gram", "primal"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize(("hidden", "updates", "momentum", "lam"), [
    ((), 64, 0.9, 1e-2), ((7,), 32, 0.9, 0.0), ((16, 9), 64, 0.9, 1e-3), ((8, 8, 8), 32, 0.0, 1e-2),
])  # fmt: skip
def test_float64_equals_separate_torch_runs(
    form: str, loss: str, nesterov: bool, hidden: tuple[int, ...], updates: int, momentum: float, lam: float
) -> None:
    features, labels = data()
    initial = init_heads(3, (60, *hidden, CLASSES), seed=1, dtype=torch.float64)
    rate = 0.05 if loss == "cross_entropy" else 0.01
    nesterov = nesterov and momentum > 0
    solved = gradient_descent(
        initial,
        features,
        labels,
        lam=lam,
        updates=updates,
        rate=rate,
        momentum=momentum,
        nesterov=nesterov,
        loss=loss,
        form=form,
    )
    assert isinstance(solved.heads.first, GramWeight) == (form == "gram")
    for head in range(3):
        net = torch_sgd(initial, head, features, labels, updates, rate, momentum, lam, loss, nesterov=nesterov)
        assert distance(solved.heads, head, net) < 1e-9
        torch.testing.assert_close(solved.losses[head], torch_loss(net(features), labels, loss, "mean").detach())


@pytest.mark.parametrize("form", ["gram", "primal"])
@pytest.mark.parametrize(("hidden", "updates"), [((), 32), ((), 64), ((64,), 64), ((32, 32), 32), ((128, 128), 64)])
def test_float32_stays_within_1e_6_of_float64(form: str, hidden: tuple[int, ...], updates: int) -> None:
    features, labels = data(100, 512)
    initial = init_heads(2, (512, *hidden, CLASSES), seed=2)
    exact = StackedHeads(
        initial.weights[0].double(),
        tuple(weight.double() for weight in initial.later),
        tuple(bias.double() for bias in initial.biases),
    )
    solved = gradient_descent(
        initial, features.float(), labels, lam=1e-3, updates=updates, rate=0.02, momentum=0.9, form=form
    )
    for head in range(2):
        net = torch_sgd(exact, head, features.float().double(), labels, updates, 0.02, 0.9, 1e-3)
        assert layer_distance(solved.heads, head, net) < 1e-6
        logits, truth = solved.heads(features.float())[head].double(), net(features.float().double()).detach()
        assert float((logits - truth).norm() / truth.norm()) < 1e-6


@pytest.mark.parametrize(("momentum", "lam"), [
    (0.0, 0.3), (0.9, 1e-9), (0.9, 0.02), (0.9, 0.4), (0.99, 1e-3), (1.0, 1e-3), (0.5, 1.2),
])  # fmt: skip
def test_weak_and_strong_decay(momentum: float, lam: float) -> None:  # anchors, and where there are none, velocities
    features, labels = data()
    initial = init_heads(2, (60, 8, CLASSES), seed=1, dtype=torch.float64)
    for form in ("gram", "primal"):
        solved = gradient_descent(initial, features, labels, lam=lam, momentum=momentum, updates=40, form=form)
        for head in range(2):
            net = torch_sgd(initial, head, features, labels, 40, momentum=momentum, lam=lam)
            assert distance(solved.heads, head, net) < 1e-9


@pytest.mark.parametrize("form", ["gram", "primal"])
def test_reduction_sum_and_single_output(form: str) -> None:
    features, labels = data(20, 30)
    labels = labels % 2
    initial = init_heads(2, (30, 6, 1), seed=1, dtype=torch.float64)
    options = {"lam": 1e-2, "rate": 1e-3, "loss": "squared", "reduction": "sum"}
    solved = gradient_descent(initial, features, labels, form=form, **options)
    for head in range(2):
        net = torch_sgd(initial, head, features, labels, **options)
        assert distance(solved.heads, head, net) < 1e-9
        torch.testing.assert_close(solved.losses[head], torch_loss(net(features), labels, "squared", "sum").detach())
        torch.testing.assert_close(solved.heads.predict(features)[head], (net(features)[:, 0] > 0).long())


def test_biases_that_do_not_start_at_zero() -> None:
    features, labels = data()
    start = init_heads(2, (60, 8, CLASSES), dtype=torch.float64)
    initial = StackedHeads(start.first, start.later, tuple(torch.randn_like(bias) for bias in start.biases))
    for form in ("gram", "primal"):
        solved = gradient_descent(initial, features, labels, lam=1e-2, form=form)
        for head in range(2):
            assert distance(solved.heads, head, torch_sgd(initial, head, features, labels, lam=1e-2)) < 1e-9


@pytest.mark.parametrize("form", ["gram", "primal"])
@pytest.mark.parametrize("total", [30, 400])  # 30: one kernel for all and rows of it; 400: each head gathers its own
def test_each_head_has_its_own_samples(form: str, total: int) -> None:
    features, labels = data(total, 60)
    indices = torch.stack([torch.randint(total, (30,), generator=torch.Generator().manual_seed(e)) for e in range(3)])
    initial = init_heads(3, (60, 8, CLASSES), dtype=torch.float64)
    solved = gradient_descent(initial, features, labels, lam=1e-3, indices=indices, form=form)
    if form == "gram":
        assert solved.heads.first.samples.ndim == (2 if total == 30 else 3)
    new, _ = data(17, 60, seed=5)
    for head in range(3):
        net = torch_sgd(initial, head, features[indices[head]], labels[indices[head]], lam=1e-3)
        assert distance(solved.heads, head, net) < 1e-9
        for how in ("gram", "primal"):
            torch.testing.assert_close(solved.heads.forward(new, form=how)[head], net(new).detach())


def test_features_of_each_head() -> None:
    parts = [data(30, 60, seed=head) for head in range(3)]
    features, labels = torch.stack([x for x, _ in parts]), torch.stack([y.roll(e) for e, (_, y) in enumerate(parts)])
    initial = init_heads(3, (60, 8, CLASSES), dtype=torch.float64)
    for form in ("gram", "primal"):
        solved = gradient_descent(initial, features, labels, lam=1e-3, form=form)
        for head in range(3):
            net = torch_sgd(initial, head, features[head], labels[head], lam=1e-3)
            assert distance(solved.heads, head, net) < 1e-9
            torch.testing.assert_close(solved.heads(features)[head], net(features[head]).detach())


@pytest.mark.parametrize("form", ["gram", "primal"])
@pytest.mark.parametrize("own_samples", [False, True])
def test_minibatches(form: str, own_samples: bool) -> None:
    features, labels = data(43, 60)
    initial = init_heads(2, (60, 8, CLASSES), seed=[11, 12], dtype=torch.float64)
    indices = torch.stack([torch.randperm(43)[:25], torch.randperm(43)[:25]]) if own_samples else None
    solved = gradient_descent(
        initial, features, labels, lam=1e-3, updates=15, batch_size=10, seed=[11, 12], indices=indices, form=form
    )
    for head, seed in enumerate([11, 12]):
        x, y = (features, labels) if indices is None else (features[indices[head]], labels[indices[head]])
        net = sequential(initial, head)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=2e-3)
        per_epoch = len(x) // 10
        for update in range(15):
            epoch, number = divmod(update, per_epoch)
            order = torch.randperm(len(x), generator=generator("minibatch", seed, epoch))
            rows = order[10 * number : 10 * number + 10]
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
        assert distance(solved.heads, head, net) < 1e-9
        torch.testing.assert_close(solved.losses[head], F.cross_entropy(net(x), y).detach())


@pytest.mark.parametrize("form", ["gram", "primal"])
def test_early_stopping_keeps_each_heads_best(form: str) -> None:
    features, labels = data(30, 60)
    noisy = labels[torch.randperm(30, generator=torch.Generator().manual_seed(0))]  # so that heads overfit
    held_out, truth = data(50, 60, seed=3)
    initial = init_heads(4, (60, 8, CLASSES), dtype=torch.float64)
    options = {"lam": 1e-3, "rate": 0.01, "updates": 100, "form": form}
    rule = EarlyStopping(held_out, truth, every=7, patience=2)
    solved = gradient_descent(initial, features, noisy, early_stopping=rule, **options)
    for head in range(4):
        best, stale = (math.inf, 0, None), 0
        for update in [*range(0, 100, 7), 100]:
            net = torch_sgd(initial, head, features, noisy, update, 0.01, lam=1e-3)
            value = float(F.cross_entropy(net(held_out), truth).detach())
            stale = 0 if value < best[0] else stale + 1
            best = (value, update, net) if value < best[0] else best
            if stale == 2:
                break
        assert int(solved.updates[head]) == best[1]
        assert distance(solved.heads, head, best[2]) < 1e-9
        torch.testing.assert_close(solved.losses[head], F.cross_entropy(best[2](features), noisy).detach())
    assert len(set(solved.updates.tolist())) > 1 or int(solved.updates[0]) < 100


def test_blocks_of_heads_change_nothing() -> None:
    features, labels = data(30, 60)
    indices = torch.stack([torch.randperm(30)[:20] for _ in range(5)])
    initial = init_heads(5, (60, 8, CLASSES), dtype=torch.float64)
    for form in ("gram", "primal"):
        for rows in (None, indices):
            alone, together = (
                gradient_descent(initial, features, labels, lam=1e-3, form=form, indices=rows, heads_at_once=size)
                for size in (2, 5)
            )
            for ours, theirs in zip(alone.heads.weights, together.heads.weights, strict=True):
                torch.testing.assert_close(ours, theirs)
            torch.testing.assert_close(alone.losses, together.losses)


def test_no_graph_and_no_autocast_in_the_solve() -> None:
    features, labels = data(dtype=torch.float32)
    plain = solve_heads(features, labels, num_classes=CLASSES, hidden=(8,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = solve_heads(features.clone().requires_grad_(), labels, num_classes=CLASSES, hidden=(8,))
        logits = cast.heads(features)
    assert not cast.losses.requires_grad
    assert logits.dtype == torch.float32
    for ours, theirs in zip(cast.heads.weights, plain.heads.weights, strict=True):
        assert not ours.requires_grad
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(logits, plain.heads(features))
    half = solve_heads(features.bfloat16(), labels, num_classes=CLASSES, hidden=(8,))
    assert half.losses.dtype == torch.float32
    assert half.heads(features.bfloat16()).dtype == torch.float32


def test_zero_updates_give_the_initial_heads() -> None:
    features, labels = data()
    initial = init_heads(2, (60, 8, CLASSES), dtype=torch.float64)
    for form in ("gram", "primal"):
        solved = gradient_descent(initial, features, labels, updates=0, form=form)
        assert solved.updates.tolist() == [0, 0]
        torch.testing.assert_close(solved.heads(features), initial(features))


def test_divergence_is_told_by_the_losses() -> None:
    features, labels = data(dtype=torch.float32)
    solved = solve_heads(1e4 * features, labels, num_classes=CLASSES, num_heads=2, rate=1e6, loss="squared")
    assert not solved.losses.isfinite().any()


def test_form_is_chosen_by_the_number_of_multiplications() -> None:
    assert prefers_gram(100, 4096, 128, 32)
    assert not prefers_gram(50_000, 4096, 128, 200)
    assert not prefers_gram(1000, 256, 64, 200)
    assert not prefers_gram(1000, 4096, 10, 2)  # two updates do not pay for K
    for dim in (64, 1000):  # with many updates the limit is n = 2 D
        assert prefers_gram(2 * dim - 1, dim, 128, 10**9)
        assert not prefers_gram(2 * dim + 1, dim, 128, 10**9)
    features, labels = data(40, 10)
    assert isinstance(solve_heads(features, labels, num_classes=CLASSES).heads.first, Tensor)
    features, labels = data(20, 60)
    assert isinstance(solve_heads(features, labels, num_classes=CLASSES).heads.first, GramWeight)


# ---- initial numbers


def test_a_heads_numbers_depend_on_its_own_seed_alone() -> None:
    features, labels = data()
    many = solve_heads(features, labels, num_classes=CLASSES, num_heads=3, hidden=(8, 6), seed=[4, 5, 6])
    lone = solve_heads(features, labels, num_classes=CLASSES, hidden=(8, 6), seed=[5])
    for ours, theirs in zip(many.heads.weights, lone.heads.weights, strict=True):
        torch.testing.assert_close(ours[1], theirs[0])
    fewer, more = init_heads(2, (9, 4), seed=3), init_heads(3, (9, 4), seed=3)
    assert torch.equal(fewer.weights[0], more.weights[0][:2])
    assert not torch.equal(more.weights[0][0], more.weights[0][1])
    streams = [torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)]
    twins = init_heads(2, (9, 4), seed=streams)
    assert torch.equal(twins.weights[0][0], twins.weights[0][1])


def test_initial_distribution_and_shared_first_layer() -> None:
    heads = init_heads(4, (300, 50, 3), init_std=0.2, seed=1, first_layer_seed=9)
    assert all(bool((bias == 0).all()) for bias in heads.biases)
    assert float(heads.weights[0].std()) == pytest.approx(0.2, rel=0.03)
    assert float(heads.weights[0].mean()) == pytest.approx(0.0, abs=0.01)
    assert torch.equal(heads.weights[0][0], heads.weights[0][3])
    assert not torch.equal(heads.weights[1][0], heads.weights[1][3])
    features, labels = data(12, 300)
    start = init_heads(4, (300, 50, CLASSES), seed=1, first_layer_seed=9, dtype=torch.float64)
    solved = gradient_descent(start, features, labels, lam=1e-3, heads_at_once=2)
    assert solved.heads.first.initial.stride(0) == 0  # still shared, so it is applied to new samples once
    new, _ = data(9, 300, seed=1)
    torch.testing.assert_close(solved.heads.forward(new, form="gram"), solved.heads.forward(new, form="primal"))
    assert distance(solved.heads, 2, torch_sgd(start, 2, features, labels, lam=1e-3)) < 1e-9


# ---- the heads


def test_forward_is_differentiable_in_the_features() -> None:
    features, labels = data()
    new, truth = data(11, 60, seed=4)
    solved = solve_heads(features, labels, num_classes=CLASSES, num_heads=3, hidden=(8, 6), lam=1e-3)
    nets = [sequential(solved.heads, head) for head in range(3)]
    x = new.clone().requires_grad_()
    expected = torch.autograd.grad(sum(F.cross_entropy(net(x), truth) for net in nets) / 3, x)[0]
    for form in ("gram", "primal", "auto"):
        logits = solved.heads.forward(x, form=form)
        loss = F.cross_entropy(logits.flatten(0, 1), truth.repeat(3))
        torch.testing.assert_close(torch.autograd.grad(loss, x)[0], expected)
    repeated = solved.heads.forward(x.expand(3, -1, -1), form="gram")
    torch.testing.assert_close(repeated, torch.stack([net(x) for net in nets]))
    assert torch.autograd.gradcheck(lambda z: solved.heads.forward(z, form="gram").square().sum(), x)


def test_forward_takes_the_cheaper_form() -> None:
    features, labels = data(20, 600)
    few = solve_heads(features, labels, num_classes=CLASSES, num_heads=8, hidden=(64,)).heads
    few(features[:2])
    assert "weights" not in few.__dict__  # factors were enough
    few(torch.randn(5000, 600, dtype=torch.float64))
    assert "weights" in few.__dict__  # multiplied out, and kept


def test_round_trip_through_linear_layers() -> None:
    features, labels = data()
    solved = solve_heads(features, labels, num_classes=CLASSES, num_heads=3, hidden=(8,)).heads
    again = StackedHeads.from_linear_layers([solved.linear_layers(head) for head in range(3)])
    torch.testing.assert_close(again(features), solved(features))
    assert (again.num_heads, again.num_features, again.num_outputs) == (3, 60, CLASSES)
    net = nn.Sequential(nn.Linear(60, 8), nn.ReLU(), nn.Linear(8, CLASSES)).double()
    net.load_state_dict(solved.state_dict(1))
    torch.testing.assert_close(net(features).detach(), solved(features)[1])
    torch.testing.assert_close(solved.select(slice(1, 3))(features), solved(features)[1:])
    assert isinstance(solved.multiplied_out().first, Tensor)
    with pytest.raises(ValueError, match="same layer shapes"):
        StackedHeads.from_linear_layers([[nn.Linear(2, 2)], [nn.Linear(2, 3)]])


@pytest.mark.parametrize("form", ["gram", "primal"])
def test_scale_moves_into_the_first_layer(form: str) -> None:
    features, labels = data()
    solved = solve_heads(3.0 * features, labels, num_classes=CLASSES, num_heads=2, hidden=(8,), form=form).heads
    torch.testing.assert_close(solved.scaled_features(3.0)(features), solved(3.0 * features))
    torch.testing.assert_close(solved.scaled_features(torch.tensor(3.0))(features), solved(3.0 * features))
    error = (solved(3.0 * features).argmax(-1) != labels).double().mean(dim=1)
    for chunk in (None, 7):
        torch.testing.assert_close(classification_error(solved, features, labels, scale=3.0, chunk_size=chunk), error)


def test_feature_scale() -> None:
    features, _ = data()
    assert float((features * feature_scale(features, 10.0)).norm(dim=1).mean()) == pytest.approx(10.0)
    assert float(feature_scale(torch.zeros(3, 2), 10.0)) == 1.0
    assert not feature_scale(features.requires_grad_(), 1.0).requires_grad


# ---- closed form


@pytest.mark.parametrize("form", ["auto", "gram", "primal"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("count", "dim"), [(20, 50), (60, 12)])
def test_ridge_is_the_minimum(form: str, reduction: str, count: int, dim: int) -> None:
    features, labels = data(count, dim)
    features = features + 3.0
    solved = ridge(features, labels, num_outputs=CLASSES, lam=0.1, reduction=reduction, form=form)
    weight = solved.heads.weights[0][0].clone().requires_grad_()
    bias = solved.heads.biases[0][0].clone().requires_grad_()
    loss = torch_loss(features @ weight.T + bias, labels, "squared", reduction)
    for gradient in torch.autograd.grad(loss + 0.1 * weight.square().sum(), (weight, bias)):
        assert float(gradient.abs().max()) < 1e-11
    torch.testing.assert_close(solved.losses[0], loss.detach())


def test_ridge_equals_scikit_learn() -> None:
    features, labels = data(30, 8)
    truth = Ridge(alpha=30 * 0.05).fit(features.numpy(), F.one_hot(labels).double().numpy())
    solved = ridge(features, labels, num_outputs=CLASSES, lam=0.05).heads
    torch.testing.assert_close(solved.weights[0][0], torch.from_numpy(truth.coef_))
    torch.testing.assert_close(solved.biases[0][0], torch.from_numpy(truth.intercept_))


def test_ridge_under_the_papers_condition_c5() -> None:
    """Two classes, one sample each, targets -1 and +1: by hand w = 2 d / (lambda_C5 + |d|^2), d the difference."""
    a, b = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([0.0, -1.0, 2.0]).double()
    c5 = 0.8
    labels = torch.tensor([0, 1])
    solved = ridge(torch.stack([a, b]), labels, num_outputs=1, lam=c5 / 4).heads
    # sum of losses: centred samples -d/2 and d/2, targets -1 and 1; (d d^T / 2 + c5/2) w = d
    d = b - a
    weight = 2 * d / (c5 + d @ d)
    torch.testing.assert_close(solved.weights[0][0, 0], weight)
    torch.testing.assert_close(solved.biases[0][0, 0], -weight @ (a + b) / 2)
    same = ridge(torch.stack([a, b]), labels, num_outputs=1, lam=c5 / 2, reduction="sum").heads
    torch.testing.assert_close(same.weights[0], solved.weights[0])


def test_ridge_for_many_heads() -> None:
    features, labels = data(40, 60)
    indices = torch.stack([torch.randperm(40)[:25] for _ in range(3)])
    for form in ("gram", "primal"):
        solved = solve_heads(
            features, labels, num_classes=CLASSES, num_heads=3, hidden=(), solver="ridge", loss="squared", lam=0.1,
            indices=indices, form=form,
        )  # fmt: skip
        for head in range(3):
            lone = ridge(features[indices[head]], labels[indices[head]], num_outputs=CLASSES, lam=0.1)
            torch.testing.assert_close(solved.heads.weights[0][head], lone.heads.weights[0][0])
            torch.testing.assert_close(solved.heads.biases[0][head], lone.heads.biases[0][0])
            torch.testing.assert_close(solved.losses[head], lone.losses[0])
    shared = ridge(features, labels, num_outputs=CLASSES, lam=0.1, num_heads=2)
    assert shared.losses.shape == (2,)
    assert shared.heads(features).shape == (2, 40, CLASSES)
    exact = ridge(features, labels, num_outputs=CLASSES, lam=0.1).heads.weights[0]
    single = ridge(features.float(), labels, num_outputs=CLASSES, lam=0.1).heads.weights[0]
    assert float((single - exact).norm() / exact.norm()) < 1e-6


def test_gradient_descent_goes_where_ridge_says() -> None:
    features, labels = data(20, 8)
    features = features - features.mean(dim=0)  # then the bias plays no part in the penalty but its own
    target = ridge(features, labels, num_outputs=CLASSES, lam=0.3).heads.weights[0]
    reached = gradient_descent(
        init_heads(1, (8, CLASSES), dtype=torch.float64), features, labels, lam=0.3, updates=3000, loss="squared"
    )
    torch.testing.assert_close(reached.heads.weights[0], target)


# ---- the secondary head


def test_solve_head_takes_features_as_they_are() -> None:
    features, labels = data(60, 20)
    raw = 37.0 * features
    scale = feature_scale(raw, 5.0)
    plain = solve_head(raw, labels, HeadRecipe(hidden=(16,), updates=50), num_classes=CLASSES)
    reference = solve_heads(
        raw * scale, labels, num_classes=CLASSES, hidden=(16,), updates=50, rate=0.02, lam=1e-4, seed=0
    )
    torch.testing.assert_close(plain.heads(raw), reference.heads(raw * scale))
    assert isinstance(plain.heads.first, Tensor)
    assert float(classification_error(plain.heads, raw, labels)) < 0.05
    unscaled = solve_head(
        features, labels, HeadRecipe(hidden=(), feature_norm=None, weight_decay=0.0), num_classes=CLASSES
    )
    assert float(unscaled.losses) < 0.5


# ---- bad input


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"lam": -1.0}, ValueError, r"lam \(lambda\) must be a finite number >= 0, got -1.0"),
    ({"num_heads": 0}, ValueError, r"num_heads \(E\) must be at least 1, got 0"),
    ({"num_classes": 4}, ValueError, "labels must lie in 0..3, got values from 0 to 4"),
    ({"labels": torch.full((40,), -1)}, ValueError, "labels must lie in 0..4, got values from -1 to -1"),
    ({"labels": torch.zeros(39, dtype=torch.int64)}, ValueError, "labels must have the shape"),
    ({"labels": torch.zeros(40)}, TypeError, "labels must be integers"),
    ({"features": torch.full((40, 60), torch.nan)}, ValueError, "features hold 2400 values that are NaN"),
    ({"features": torch.zeros(40, 60, dtype=torch.int64)}, TypeError, "features must be floating point"),
    ({"features": torch.zeros(2, 40, 60)}, ValueError, "features of 2 heads were given for 1 heads"),
    ({"features": torch.zeros(40)}, ValueError, "features must be N x D"),
    ({"loss": "hinge"}, ValueError, "loss must be one of 'cross_entropy', 'squared', got 'hinge'"),
    ({"reduction": "none"}, ValueError, "reduction must be one of"),
    ({"form": "dual"}, ValueError, "form must be one of 'auto', 'primal', 'gram', got 'dual'"),
    ({"solver": "newton"}, ValueError, "solver must be one of"),
    ({"solver": "ridge", "hidden": ()}, ValueError, "solver='ridge' minimises the squared loss"),
    ({"solver": "ridge", "loss": "squared"}, ValueError, "solver='ridge' solves linear heads"),
    ({"solver": "ridge", "loss": "squared", "hidden": (), "lam": 0.0}, ValueError, r"ridge needs lam \(lambda\) > 0"),
    ({"solver": "ridge", "loss": "squared", "hidden": (), "batch_size": 5}, ValueError, "makes no updates"),
    ({"num_outputs": 3}, ValueError, "num_outputs must be num_classes = 5"),
    ({"num_outputs": 1, "num_classes": 2}, ValueError, "cross entropy needs one output per class"),
    ({"updates": -1}, ValueError, "updates must be at least 0"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ({"hidden": (0,)}, ValueError, "sizes must be"),
    ({"seed": [1, 2]}, ValueError, "1 heads need 1 seeds, got 2"),
    ({"init_std": -0.1}, ValueError, "init_std must be"),
    ({"indices": torch.tensor([[40]])}, ValueError, "indices must lie in 0..39, got values from 40 to 40"),
    ({"indices": torch.tensor([[0], [1]])}, ValueError, "indices must be E x n with E = 1"),
    ({"indices": torch.tensor([[0.0]])}, TypeError, "indices must be int64"),
])  # fmt: skip
def test_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    features, labels = data(dtype=torch.float32)
    arguments: dict[str, object] = {"features": features, "labels": labels, "num_classes": CLASSES, "hidden": (8,)}
    with pytest.raises(error, match=message):
        solve_heads(**{**arguments, **change})


def test_bad_input_to_heads() -> None:
    heads = init_heads(2, (6, 3))
    with pytest.raises(ValueError, match="heads on 6 features need N x 6"):
        heads(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="features of 3 heads were given to 2 heads"):
        heads(torch.zeros(3, 4, 6))
    with pytest.raises(ValueError, match="heads on 6 features were given 5"):
        gradient_descent(heads, torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="norm must be above 0"):
        feature_scale(torch.ones(2, 2), 0.0)
    with pytest.raises(ValueError, match="features N x D and labels N"):
        classification_error(heads, torch.zeros(4, 6), torch.zeros(3, dtype=torch.int64))
    infinite = torch.zeros(4, 6)
    infinite[0, 0] = torch.inf
    with pytest.raises(ValueError, match="1 values that are NaN or infinite, of 24"):
        gradient_descent(heads, infinite, torch.zeros(4, dtype=torch.int64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_agrees_and_never_waits() -> None:
    features, labels = data(dtype=torch.float32)
    initial = init_heads(3, (60, 8, CLASSES), seed=1)
    there = StackedHeads(
        initial.first.cuda(), tuple(one.cuda() for one in initial.later), tuple(one.cuda() for one in initial.biases)
    )
    x, y = features.cuda(), labels.cuda()
    for form in ("gram", "primal"):
        expected = gradient_descent(initial, features, labels, lam=1e-3, form=form)
        torch.cuda.set_sync_debug_mode("error")
        try:
            solved = gradient_descent(there, x, y, lam=1e-3, form=form, validate=False)
            closed = ridge(x, y, num_outputs=CLASSES, lam=0.1, validate=False)
            fresh = solve_heads(x, y, num_classes=CLASSES, num_heads=2, validate=False)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(solved.heads(x).cpu(), expected.heads(features), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            closed.heads(x).cpu(), ridge(features, labels, num_outputs=CLASSES, lam=0.1).heads(features)
        )
        assert bool(fresh.losses.isfinite().all())


def hard_features(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features as a network without normalisation makes them: one large common direction, classes along small ones."""
    shared, stream = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    sizes = torch.logspace(0, -2, 40)
    means = 0.6 * torch.randn(CLASSES, 40, generator=shared) * sizes * (sizes < 0.1)
    common = 2 * torch.rand(40, generator=shared)
    labels = torch.randint(CLASSES, (count,), generator=stream)
    noise = torch.randn(count, 40, generator=stream) * sizes
    return means[labels] + noise + common, labels


def test_heads_are_trained_until_they_are_done() -> None:
    """Held against scikit-learn's logistic regression, which goes to the optimum."""
    (features, labels), (new, truth) = hard_features(4_000, 0), hard_features(4_000, 1)
    best = LogisticRegression(C=1e3, solver="newton-cholesky").fit(features.double().numpy(), labels.numpy())
    optimum = 1 - best.score(new.numpy(), truth.numpy())
    done = solve_head(features, labels, HeadRecipe(hidden=()), num_classes=CLASSES)
    stopped = solve_head(features, labels, HeadRecipe(hidden=(), updates=200), num_classes=CLASSES)
    error, early = (float(classification_error(one.heads, new, truth)) for one in (done, stopped))
    assert abs(error - optimum) < 0.005
    assert early > optimum + 0.02  # what 200 updates leave undone
    layers = solve_head(features, labels, HeadRecipe(hidden=(32,)), num_classes=CLASSES)
    assert float(classification_error(layers.heads, new, truth)) < optimum + 0.005


def test_noise_of_drawn_together_features_is_not_blown_up() -> None:
    """Training features are points along few directions, new ones lie about them; most units hold small noise alone."""

    def drawn_together(count: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
        shared, stream = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
        means = torch.cat([torch.randn(CLASSES, 8, generator=shared), torch.zeros(CLASSES, 120)], dim=1)
        labels = torch.randint(CLASSES, (count,), generator=stream)
        return means[labels] + spread * torch.randn(count, 128, generator=stream), labels

    (features, labels), (new, truth) = drawn_together(2_000, 0.01, 0), drawn_together(4_000, 0.45, 1)
    means = torch.stack([features[labels == label].mean(dim=0) for label in range(CLASSES)])
    nearest = float((torch.cdist(new, means).argmin(dim=1) != truth).float().mean())
    done = solve_head(features, labels, HeadRecipe(hidden=()), num_classes=CLASSES)
    assert float(classification_error(done.heads, new, truth)) < nearest + 0.005


def test_heads_with_samples_of_their_own_are_trained_as_each_alone() -> None:
    features, labels = hard_features(1_500, 0)
    more, theirs = hard_features(1_500, 1)
    recipe = HeadRecipe(hidden=(6,), patience=1)
    initial = init_heads(2, (40, 6, CLASSES), seed=[3, 4])
    both = train_heads(initial, torch.stack([features, more]), torch.stack([labels, theirs]), recipe, seed=[3, 4])
    for head, (x, y) in enumerate([(features, labels), (more, theirs)]):
        alone = train_heads(initial.select(slice(head, head + 1)), x, y, recipe, seed=[3 + head])
        assert int(alone.updates) == int(both.updates[head])
        torch.testing.assert_close(alone.losses[0], both.losses[head])


@pytest.mark.parametrize("own", ["features", "labels"])
def test_heads_share_features_or_labels(own: str) -> None:
    features, labels = hard_features(1_100, 0)
    recipe = HeadRecipe(hidden=(), patience=1, batch_size=500)
    initial = init_heads(2, (40, CLASSES), seed=[3, 4])
    stacked, all_labels = features.expand(2, -1, -1), labels.expand(2, -1)
    wanted = train_heads(initial, stacked, all_labels, recipe, seed=[3, 4])
    found = train_heads(
        initial,
        stacked if own == "features" else features,
        all_labels if own == "labels" else labels,
        recipe,
        seed=[3, 4],
    )
    torch.testing.assert_close(found.losses, wanted.losses)
    assert float(found.losses[0]) != float(found.losses[1])


def test_a_head_that_diverges_at_the_first_rate_goes_on_from_its_start() -> None:
    features, labels = hard_features(1_100, 0)
    ends = {}
    for norm in (5.0, 40.0, 4_000.0):  # both rates fit; the second alone; none
        recipe = HeadRecipe(hidden=(16,), feature_norm=norm)
        ends[norm] = train_heads(init_heads(1, (40, 16, CLASSES)), features, labels, recipe, loss="squared")
    assert float(ends[5.0].losses) < 0.7
    assert float(ends[40.0].losses) < 0.8 and int(ends[40.0].updates) > 0
    assert bool(ends[4_000.0].losses.isnan())  # told, and not hidden by the start


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-20, 1e6])
def test_constant_features_give_the_classes_shares(value: float) -> None:
    """Rounding leaves a spread of their own to constant features, which is not blown up."""
    labels = torch.arange(1_500) % 3 // 2  # two of three samples in class 0
    features = torch.full((1_500, 7), value)
    solution = solve_head(features, labels, HeadRecipe(hidden=()), num_classes=2)
    shares = torch.softmax(solution.heads(features[:1])[0, 0], dim=0)
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3]), atol=0.03, rtol=0)


def test_features_and_labels_that_cannot_be_are_told_before_they_are_standardised() -> None:
    features, labels = hard_features(1_100, 0)
    recipe, initial = HeadRecipe(hidden=()), init_heads(1, (40, CLASSES))
    broken = features.clone()
    broken[7, 3] = math.nan
    with pytest.raises(ValueError, match="hold 1 values that are NaN or infinite, of 44000"):
        train_heads(initial, broken, labels, recipe)
    with pytest.raises(ValueError, match=r"labels must lie in 0..4, got values from 0 to 9"):
        train_heads(initial, features, labels.clone().index_fill_(0, torch.tensor([5]), 9), recipe)
    with pytest.raises(ValueError, match=r"labels must have the shape \(1100,\)"):
        train_heads(initial, features, labels[1:], recipe)


def test_training_leaves_its_features_as_they_are() -> None:
    features, labels = hard_features(1_100, 0)
    for given in (features, features[None]):
        before = given.clone()
        train_heads(init_heads(1, (40, CLASSES)), given, labels, HeadRecipe(hidden=(), patience=1))
        assert torch.equal(given, before)


@pytest.mark.parametrize("count", [30, 1_000])
def test_few_samples_get_200_updates_on_all_of_them(count: int) -> None:
    features, labels = hard_features(count, 0)
    recipe = HeadRecipe(hidden=(6,))
    initial = init_heads(1, (40, 6, CLASSES), seed=3)
    rule = train_heads(initial, features, labels, recipe)
    given = gradient_descent(initial, features, labels, lam=1e-4, updates=200, rate=0.02)
    assert recipe.held_out(count) == 0 and int(rule.updates) == 200
    torch.testing.assert_close(rule.losses, given.losses)


@pytest.mark.parametrize(("count", "held"), [(1_000, 0), (1_001, 100), (45_000, 4_500), (10**6, 5_000)])
def test_a_tenth_is_held_out_of_many(count: int, held: int) -> None:
    assert HeadRecipe().held_out(count) == held
    assert HeadRecipe(updates=7).held_out(count) == 0


def test_what_nobody_sets_is_what_the_documentation_says() -> None:
    recipe = HeadRecipe()
    assert (recipe.hidden, recipe.init_std) == ((128, 128), 0.1)  # the paper's
    assert (recipe.updates, recipe.rate, recipe.momentum, recipe.weight_decay) == (None, 0.02, 0.9, 1e-4)
    assert (recipe.batch_size, recipe.patience, recipe.feature_norm) == (None, 3, 5.0)
    given = {name: option.default for name, option in inspect.signature(solve_heads).parameters.items()}
    assert (given["num_heads"], given["hidden"], given["lam"], given["updates"]) == (1, (128, 128), 1e-3, 32)
    assert (given["rate"], given["momentum"], given["init_std"], given["seed"]) == (0.05, 0.9, 0.1, 0)


@pytest.mark.parametrize(
    "option, last, wrong",
    [
        ("updates", 1, 0),
        ("batch_size", 1, 0),
        ("hidden", (1,), (0,)),
        ("rate", 1e-9, 0.0),
        ("rate", 1e-9, "auto"),
        ("patience", 1, 0),
        ("feature_norm", 1e-9, 0.0),
        ("momentum", 0.0, 1.0),
        ("momentum", 0.999, -0.001),
        ("weight_decay", 0.0, -1e-9),
        ("weight_decay", 1e9, math.inf),
        ("init_std", 0.0, math.inf),
    ],
)
def test_options_of_a_recipe_at_their_bounds(option: str, last: object, wrong: object) -> None:
    assert getattr(HeadRecipe(**{option: last}), option) == last
    with pytest.raises(ConfigError, match=f"a head's {option} is"):
        HeadRecipe(**{option: wrong})


def test_raw_features_of_any_norm_are_trained_alike() -> None:
    (features, labels), (new, truth) = hard_features(1_500, 0), hard_features(2_000, 1)
    errors = []
    for size in (0.01, 1.0, 100.0):
        head = solve_head(size * features, labels, HeadRecipe(hidden=(), feature_norm=None), num_classes=CLASSES)
        errors.append(float(classification_error(head.heads, size * new, truth)))
    assert max(errors) - min(errors) < 0.003 and max(errors) < 0.13
