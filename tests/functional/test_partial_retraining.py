from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError
from lightning_repshape.functional.partial_retraining import (
    PAPER_REPEATS,
    balanced_subset,
    partial_retraining,
)
from lightning_repshape.functional.stacked_heads import HeadRecipe, classification_error, held_out_scores, init_heads
from lightning_repshape.seeding import generator, key_to_seed

CLASSES = 4


def blobs(count: int, spread: float, dim: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    means = torch.randn(CLASSES, dim, generator=torch.Generator().manual_seed(99))
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=stream)
    return means[labels] + spread * torch.randn(count, dim, generator=stream), labels


def test_subsets_are_balanced_and_distinct() -> None:
    _, labels = blobs(400, 1.0)
    subset = balanced_subset(labels, 40, CLASSES, generator("a"))
    assert len(set(subset.tolist())) == 40
    assert torch.bincount(labels[subset]).tolist() == [10] * 4
    uneven = torch.bincount(labels[balanced_subset(labels, 42, CLASSES, generator("a"))])
    assert sorted(uneven.tolist()) == [10, 10, 11, 11]
    over = {int(torch.bincount(labels[balanced_subset(labels, 5, CLASSES, generator(i))]).argmax()) for i in range(30)}
    assert over == {0, 1, 2, 3}  # what is left over comes from any class
    assert sorted(balanced_subset(labels, 400, CLASSES, generator("a")).tolist()) == list(range(400))
    assert torch.equal(subset, balanced_subset(labels, 40, CLASSES, generator("a")))
    assert not torch.equal(subset, balanced_subset(labels, 40, CLASSES, generator("b")))


@pytest.mark.parametrize("size", [8, 60, 300])  # Gram form, Gram form, primal form
def test_equals_the_loop_that_everybody_writes(size: int) -> None:
    features, labels = blobs(500, 1.0)
    new, truth = blobs(200, 1.0, seed=1)
    features, new = features.double(), new.double()
    result = partial_retraining(features, labels, new, truth, [size], [3], HeadRecipe(hidden=(6,), updates=60), seed=5)
    scale = 5.0 / features.norm(dim=1).mean()
    for repeat in range(3):
        seed = key_to_seed("partial-retraining", 5, size, repeat)
        chosen = balanced_subset(labels, size, CLASSES, generator("subset", seed))
        first, second = init_heads(1, (24, 6, CLASSES), seed=[seed], dtype=torch.float64).linear_layers()
        net = nn.Sequential(first, nn.ReLU(), second)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=2e-4)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(net(features[chosen] * scale), labels[chosen]).backward()
            optimizer.step()
        error = (net(new * scale).argmax(dim=1) != truth).double().mean()
        torch.testing.assert_close(result.errors[size][repeat], error)
        loss = F.cross_entropy(net(features[chosen] * scale), labels[chosen]).detach()
        torch.testing.assert_close(result.losses[size][repeat], loss)


def test_result() -> None:
    features, labels = blobs(300, 1.5)
    new, truth = blobs(400, 1.5, seed=1)
    result = partial_retraining(
        features, labels, new, truth, [64, 4, 300], {4: 6, 64: 3, 300: 1, 7: 2}, HeadRecipe(hidden=(16,))
    )
    assert result.sizes == (4, 64, 300)
    assert [len(result.errors[size]) for size in result.sizes] == [6, 3, 1]
    assert result.diverged == {4: 0, 64: 0, 300: 0}
    torch.testing.assert_close(result.mean[0], result.errors[4].mean())
    torch.testing.assert_close(result.std[1], result.errors[64].std())
    assert result.std[2] == 0
    assert result.mean[0] > result.mean[1]  # wide classes need many samples
    points, same = blobs(300, 0.05)
    flat = partial_retraining(points, same, *blobs(400, 0.05, seed=1), [4, 64], [6, 3], HeadRecipe(hidden=(16,)))
    assert float(flat.mean.max()) == 0.0  # classes that are nearly points do not
    wild = HeadRecipe(hidden=(16,), rate=1e4, weight_decay=1.0)
    diverged = partial_retraining(features, labels, new, truth, [8], [2], wild)
    assert diverged.diverged == {8: 2}


def test_a_head_depends_on_its_own_key_alone() -> None:
    features, labels = blobs(300, 1.5)
    new, truth = blobs(300, 1.5, seed=1)
    full = HeadRecipe(hidden=(8,), updates=30)
    for recipe, share in ((full, False), (full, True), (replace(full, batch_size=5), False)):
        more = {"share_first_layer": share}
        many = partial_retraining(features, labels, new, truth, [8, 40], [5, 2], recipe, **more)
        few = partial_retraining(features, labels, new, truth, [40, 8], [1, 3], recipe, heads_at_once=2, **more)
        assert torch.equal(many.errors[8][:3], few.errors[8])
        assert torch.equal(many.errors[40][:1], few.errors[40])
    other = partial_retraining(features, labels, new, truth, [8], [5], full, seed=1)
    assert not torch.equal(many.errors[8], other.errors[8])


def test_a_head_that_is_trained_until_it_is_done_depends_on_its_own_key_alone() -> None:
    features, labels = blobs(1_200, 3.0)
    new, truth = blobs(500, 3.0, seed=1)
    recipe = HeadRecipe(hidden=(), patience=1, batch_size=400)
    for size in (1_100, 1_200):  # draws of their own; the whole set
        many = partial_retraining(features, labels, new, truth, [size], [3], recipe)
        few = partial_retraining(features, labels, new, truth, [size], [3], recipe, heads_at_once=1)
        torch.testing.assert_close(many.losses[size], few.losses[size])
        assert len(set(many.losses[size].tolist())) == 3


def test_scale_of_features_does_not_matter() -> None:
    features, labels = blobs(200, 1.0)
    new, truth = blobs(200, 1.0, seed=1)
    plain = partial_retraining(features, labels, new, truth, [8], [4], HeadRecipe(hidden=(8,)))
    large = partial_retraining(1024 * features, labels, 1024 * new, truth, [8], [4], HeadRecipe(hidden=(8,)))
    assert torch.equal(plain.errors[8], large.errors[8])
    raw = partial_retraining(features, labels, new, truth, [8], [4], HeadRecipe(hidden=(8,), feature_norm=None))
    assert not torch.equal(plain.losses[8], raw.losses[8])


def test_half_precision_features() -> None:
    features, labels = blobs(200, 0.3)
    new, truth = blobs(100, 0.3, seed=1)
    result = partial_retraining(features.half(), labels, new.half(), truth, [8, 200], [4, 1], HeadRecipe(hidden=()))
    assert float(result.mean.max()) < 0.1


def test_default_repeats_are_the_papers() -> None:
    assert dict(PAPER_REPEATS) == {50_000: 1, 10_000: 5, 1_000: 15, 100: 50, 10: 150}
    features, labels = blobs(200, 0.5)
    result = partial_retraining(
        features, labels, features, labels, [10, 100], recipe=HeadRecipe(hidden=(4,), updates=2)
    )
    assert [len(errors) for errors in result.errors.values()] == [150, 50]


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"sizes": [3]}, ValueError, "of 4 classes needs n' >= 4 samples, got 3"),
    ({"sizes": [500]}, ValueError, "n' = 500 samples was asked for, but there are 100"),
    ({"sizes": [96]}, ValueError, "needs 24 of every class, but class 3 has 10"),
    ({"sizes": []}, ValueError, "sizes must be one or more"),
    ({"sizes": [8, 8], "repeats": [1, 1]}, ValueError, "sizes must be one or more different"),
    ({"sizes": [8], "repeats": {4: 1}}, ValueError, "how often to train on n' = 8"),
    ({"sizes": [8], "repeats": [1, 2]}, ValueError, "repeats must be one number for each of the 1 sizes, got 2"),
    ({"sizes": [8], "repeats": [0]}, ValueError, "repeats of n' = 8 must be at least 1"),
    ({"sizes": [8], "num_classes": 5}, ValueError, "needs n' = 8 samples needs|class 4 has 0"),
    ({"sizes": [8], "num_classes": 3}, ValueError, "labels must lie in 0..2"),
    ({"train_features": torch.full((100, 24), torch.nan)}, ValueError, "NaN"),
    ({"test_features": torch.zeros(100, 23)}, ValueError, "N x D and M x D"),
    ({"test_labels": torch.zeros(100)}, TypeError, "labels must be integers"),
])  # fmt: skip
def test_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    features, _ = blobs(100, 1.0)
    labels = torch.tensor([0, 1, 2] * 30 + [3] * 10)
    arguments: dict[str, object] = {
        "train_features": features, "train_labels": labels, "test_features": features, "test_labels": labels,
        "sizes": [8], "repeats": [2] if "sizes" not in change else {size: 1 for size in change["sizes"]},
    }  # fmt: skip
    with pytest.raises(error, match=message):
        partial_retraining(**{**arguments, **change})


@pytest.mark.parametrize(("change", "message"), [
    ({"weight_decay": -1.0}, r"weight_decay is -1\.0"),
    ({"init_std": float("nan")}, "init_std is nan"),
    ({"hidden": (8, 0)}, "hidden is 0, but at least 1"),
    ({"updates": 0}, "updates is 0"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"rate": 0.0}, r"rate is 0\.0.*above 0"),
    ({"momentum": 1.0}, r"momentum is 1\.0"),
    ({"feature_norm": -5.0}, r"feature_norm is -5\.0"),
])  # fmt: skip
def test_recipes_check_themselves(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HeadRecipe(**change)


def test_held_out_losses_are_those_of_each_head() -> None:
    heads = init_heads(3, (6, 5, 4), init_std=1.0, seed=0)
    stream = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 6, generator=stream), torch.arange(50) % 4
    errors, losses = held_out_scores(heads, x, y, scale=0.5, chunk_size=7)
    logits = heads(0.5 * x)
    wanted = torch.stack([F.cross_entropy(own.double(), y) for own in logits])
    torch.testing.assert_close(losses, wanted, atol=1e-6, rtol=0)
    assert torch.equal(errors, classification_error(heads, x, y, scale=0.5))
    one = init_heads(2, (6, 1), init_std=1.0, seed=0)
    _, squared = held_out_scores(one, x, y % 2, "squared")
    wanted = (one(x)[..., 0].double() - (2 * (y % 2) - 1)).square().mean(dim=1)
    torch.testing.assert_close(squared, wanted, atol=1e-5, rtol=0)
