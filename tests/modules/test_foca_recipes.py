"""FOCA: a rate and a scale that fit by themselves, how b is drawn, and what is said where nothing is learnt."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape import ClassVectorModule, DigitsDataModule, FOCAModule
from lightning_repshape.errors import ConfigError
from lightning_repshape.functional.class_statistics import within_over_between
from lightning_repshape.functional.stacked_heads import init_heads
from lightning_repshape.modules.foca import Draw, HeadRecipe, PhiUpdates, WeakRecipe
from lightning_repshape.modules.foca.source import DataModuleSource
from lightning_repshape.networks import MLP, Backbone
from lightning_repshape.networks.base import Neck

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def module(**options: Any) -> FOCAModule:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "backbone": lambda shape: MLP(shape, widths=(8,)),
        "weak": WeakRecipe(hidden=(), updates=4),
        "secondary": HeadRecipe(hidden=(), updates=4),
        "draw": Draw(samples_per_class=4),
        "val_classifiers": 2,
        "optimizer": lambda phi: SGD(phi, lr=0.01),
        **options,
    }
    return FOCAModule(num_classes=3, input_shape=(6,), **settings)


def loader(count: int = 24, batch: int = 12) -> DataLoader[Any]:
    source = torch.Generator().manual_seed(0)
    y = torch.arange(count) % 3
    return DataLoader(TensorDataset(torch.randn(count, 6, generator=source) + y[:, None], y), batch_size=batch)


@pytest.mark.parametrize(("hidden", "init_std"), [((), 0.1), ((64, 64), 0.1), ((128,), 0.3), ((96, 128, 64), 0.1)])
def test_rate_and_scale_fit_random_heads(hidden: tuple[int, ...], init_std: float) -> None:
    """Held against logits and gradients of many heads in float64."""
    recipe = WeakRecipe(hidden=hidden, init_std=init_std)
    norm = recipe.wanted_norm
    assert norm is not None
    features = F.normalize(torch.randn(40, 50, dtype=torch.float64), dim=1) * norm
    heads = init_heads(60, (50, *hidden, 10), init_std=init_std, seed=0, dtype=torch.float64)
    assert heads(features).square().mean().sqrt() == pytest.approx(1.0, rel=0.15)
    squares = []
    for head in range(0, 60, 3):
        layers: list[nn.Module] = []
        for layer in heads.linear_layers(head):
            layers += [layer, nn.ReLU()]
        net = nn.Sequential(*layers[:-1])
        weights = [parameter for name, parameter in net.named_parameters() if name.endswith("weight")]
        gradients = torch.autograd.grad(net(features[:1])[0, 0], weights)
        squares.append(sum(float(gradient.square().sum()) for gradient in gradients))
    # Eigenvalues of the Hessian over logits reach 1/2 (cross entropy) and are 2 (sum of squares).
    found = sum(squares) / len(squares)
    assert recipe.curvature(norm, "cross_entropy") == pytest.approx(0.5 * found, rel=0.35)
    assert recipe.curvature(norm, "squared") == pytest.approx(2.0 * found, rel=0.35)
    assert recipe.rate_at(torch.tensor(123.0), "cross_entropy", 30) * recipe.curvature(norm, "cross_entropy") == (
        pytest.approx(0.75)
    )


def test_raw_features_get_a_rate_by_their_norm_and_sums_one_by_their_number() -> None:
    raw = WeakRecipe(hidden=(), feature_scale=None)
    assert raw.wanted_norm is None
    assert raw.rate_at(torch.tensor(8.0), "cross_entropy", 30) == pytest.approx(0.75 / (0.5 * 64))
    assert raw.rate_at(torch.tensor(0.0), "cross_entropy", 30) == 1.0  # features that are all zero: told elsewhere
    summed = WeakRecipe(hidden=(), feature_scale=None, reduction="sum")
    assert summed.rate_at(torch.tensor(8.0), "cross_entropy", 30) == pytest.approx(0.75 / (0.5 * 64) / 30)
    assert WeakRecipe(rate=0.3).rate_at(torch.tensor(8.0), "squared", 30) == 0.3


def test_one_setting_serves_every_width_and_scale_of_heads() -> None:
    """The solve of weak classifiers ends alike, whatever the width of the head and the norm of the features."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(100) % 10
    centres = torch.randn(10, 64, generator=source)
    features = (centres[labels] + 1.5 * torch.randn(100, 64, generator=source)).relu()
    losses = []
    for hidden in ((), (32,), (64, 64), (256, 256)):
        for size in (0.01, 100.0):
            model = FOCAModule(
                10, (4,), lambda shape: MLP(shape, widths=(8,)), WeakRecipe(hidden=hidden), draw=Draw(num_classifiers=8)
            )
            solution, _, _ = model.solve_classifiers(size * features[None], labels[None], 8, "key")
            losses.append(float(solution.losses.mean()))
    assert losses[0::2] == pytest.approx(losses[1::2], rel=1e-3)
    assert max(losses) < 1.2  # chance is 2.3
    assert max(losses) < 2.5 * min(losses)


def counts(labels: Tensor) -> list[int]:
    return torch.bincount(labels, minlength=10).tolist()


def test_batches_b_are_balanced_or_uniform_augmented_or_not() -> None:
    data = DigitsDataModule(augment="shift", crop_padding=2, cutout=2, batch_size=20)
    data.setup("fit")
    source = DataModuleSource(data, torch.device("cpu"))
    plain = {tuple(image.flatten().tolist()) for image in data.normalize_images(data.images("train"))}

    def drawn(training: bool = True, **options: Any) -> tuple[list[int], float]:
        model = FOCAModule(10, (1, 8, 8), lambda shape: MLP(shape, widths=(8,)), draw=Draw(**options)).train(training)
        x, y = model._draw(source, torch.Generator().manual_seed(0))
        return counts(y), sum(tuple(image.flatten().tolist()) in plain for image in x) / len(x)

    assert drawn() == ([10] * 10, 1.0)
    uniform, share = drawn(balanced=False)
    assert sum(uniform) == 100 and uniform != [10] * 10 and share == 1.0
    uniform, share = drawn(balanced=False, augment=True)
    assert sum(uniform) == 100 and share < 0.2
    assert drawn(augment=True)[0] == [10] * 10 and drawn(augment=True)[1] < 0.2
    assert drawn(training=False, balanced=False, augment=True) == ([10] * 10, 1.0)  # validation


def test_draws_are_repeatable_and_without_replacement_distinct() -> None:
    data = DigitsDataModule(augment="flip")
    data.setup("fit")
    one, two = (data.draw_uniform(50, torch.Generator().manual_seed(3), False, augment=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    images = data.draw_uniform(len(data.labels("train")), torch.Generator(), replacement=False)[0]
    assert images.flatten(1).double().sum() == pytest.approx(
        float(data.normalize_images(data.images("train")).flatten(1).double().sum()), rel=1e-6
    )


@pytest.mark.parametrize("moved", [False, True])
def test_running_statistics_move_with_b_where_asked(moved: bool) -> None:
    model = module(
        backbone=lambda shape: MLP(shape, widths=(8,), neck=Neck((4,))),
        draw=Draw(samples_per_class=4, running_statistics=moved),
    )
    norm = model.backbone.get_submodule("neck1.norm")
    before = norm.running_mean.clone()
    x = torch.randn(30, 6)
    y = torch.arange(30) % 3
    from lightning_repshape.modules.foca.source import BatchSource

    model.draw_features(BatchSource(x, y, 3), 1, "key")
    assert torch.equal(norm.running_mean, before) != moved


def test_nesterov_momentum_reaches_the_solve() -> None:
    features = torch.randn(1, 12, 8)
    labels = (torch.arange(12) % 3)[None]
    solved = [
        module(weak=WeakRecipe(hidden=(), updates=4, nesterov=nesterov)).solve_classifiers(features, labels, 1, "k")[0]
        for nesterov in (False, True)
    ]
    assert not torch.allclose(solved[0].losses, solved[1].losses)


def test_updates_need_samples() -> None:
    with pytest.raises(ConfigError, match=r"phi.updates is 16, but a batch has 12 samples.*batch size u \* m"):
        Trainer(max_epochs=1, **QUIET).fit(module(phi=PhiUpdates(updates=16)), loader())


def test_a_uniform_b_under_ridge_is_said() -> None:
    with pytest.warns(UserWarning, match=r"draw.balanced is false.*miss a class"):
        module(weak=WeakRecipe(hidden=(), solver="ridge"), draw=Draw(balanced=False), classification_loss="squared")


@pytest.mark.parametrize(("options", "message"), [
    ({"nesterov": True, "momentum": 0.0}, "nesterov needs a momentum"),
    ({"init_std": 0.0}, "init_std is 0"),
    ({"rate": 0.0}, r"weak.rate is 0.0, but it must be above 0, or 'auto'$"),
    ({"feature_scale": -1.0}, r"feature_scale is -1.0, but it must be above 0, or 'auto' or null$"),
])  # fmt: skip
def test_values_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WeakRecipe(**options)


def test_a_training_that_goes_nowhere_says_so_once() -> None:
    seed_everything(0)
    with pytest.warns(UserWarning) as found:
        Trainer(max_epochs=3, **QUIET).fit(
            module(optimizer=lambda phi: SGD(phi, lr=0.0)),
            DataLoader(TensorDataset(torch.randn(240, 6), torch.arange(240) % 3), batch_size=120),
        )
    said = [str(one.message) for one in found if "FOCA goes nowhere" in str(one.message)]
    assert len(said) == 1 and "chance" in said[0] and "learning rate" in said[0]


def test_shrinking_features_are_said() -> None:
    model = module()
    model._first_norm, model._last_norm = torch.tensor(10.0), torch.tensor(0.05)
    model.trainer = Trainer(**QUIET)
    with pytest.warns(UserWarning, match=r"shrunk from a norm of 10 to 0.05"):
        model._warn_of_no_progress(0.0)


@pytest.mark.parametrize(("weak", "shrunk", "hold", "said"), [
    ({}, False, True, "learning rate may be too large or too small"),
    ({}, True, True, "lower the optimizer's learning rate"),
    ({}, True, False, "set phi.hold_scale, or"),
    ({"rate": 0.1}, False, True, "set weak.rate to 'auto', or"),
    ({"rate": 0.1, "feature_scale": 5.0}, True, True, "set weak.rate and weak.feature_scale to 'auto', or"),
])  # fmt: skip
def test_the_remedy_is_one_that_is_left(weak: dict[str, Any], shrunk: bool, hold: bool, said: str) -> None:
    remedy = module(weak=WeakRecipe(**weak), phi=PhiUpdates(hold_scale=hold))._remedy(shrunk)
    assert remedy.startswith(("the optimizer's " + said) if said.startswith("learning") else said)
    assert "auto" not in remedy or weak


def test_under_fast_dev_run_the_head_is_said_to_be_random() -> None:
    with pytest.warns(UserWarning, match="not trained under fast_dev_run: these figures are a random head's"):
        Trainer(fast_dev_run=True, **QUIET).test(module(), loader(), verbose=False)


def test_other_options_say_what_they_take() -> None:
    with pytest.raises(ConfigError, match=r"max_norm is 0.0, but it must be above 0, or null$"):
        PhiUpdates(max_norm=0.0)
    with pytest.raises(ConfigError, match=r"rate is -1, but it must be above 0$"):
        HeadRecipe(rate=-1)
    with pytest.raises(ConfigError, match=r"feature_norm is -1, but it must be above 0, or null$"):
        HeadRecipe(feature_norm=-1)


def test_within_over_between_is_scikit_learns_ratio() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 3, 3])
    features = torch.randn(7, 5, dtype=torch.float64)
    within = between = 0.0
    for label in (0, 1, 3):
        part = features[labels == label]
        within += float((part - part.mean(0)).square().sum())
        between += len(part) * float((part.mean(0) - features.mean(0)).square().sum())
    assert float(within_over_between(features, labels, 4)) == pytest.approx(within / between)


def test_health_reaches_the_logger() -> None:
    seed_everything(0)
    run = Trainer(max_epochs=1, log_every_n_steps=1, **QUIET)
    run.fit(module(), loader())
    assert {"train/within_over_between", "train/weak_error", "train/feature_norm"} <= set(run.callback_metrics)


def test_a_neck_in_front_of_fixed_vectors_is_refused() -> None:
    def necked(shape: tuple[int, ...]) -> Backbone:
        return MLP(shape, widths=(8,), neck=Neck((4,)))

    with pytest.raises(ConfigError, match="neck ends in ReLU"):
        ClassVectorModule(3, (6,), necked)
    ClassVectorModule(3, (6,), necked, fixed=False)
    ClassVectorModule(3, (6,), necked, embedding=4)
