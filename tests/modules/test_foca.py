"""FOCA's step, its draws, its secondary optimisation and its messages, against transcriptions written independently."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, LearningRateFinder, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_repshape.data import DigitsDataModule
from lightning_repshape.errors import ConfigError, DataError, DivergenceError
from lightning_repshape.functional.stacked_heads import HeadRecipe, head_seeds, init_heads
from lightning_repshape.modules import Draw, FOCAModule, PhiUpdates, WeakRecipe
from lightning_repshape.modules.foca.renamed import RENAMED, current_options
from lightning_repshape.networks import MLP, FOCANet
from lightning_repshape.seeding import key_to_seed

CLASSES, SHAPE = 3, (1, 4, 4)
SMALL = partial(MLP, widths=[6, 5])
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)


def data(count: int = 36, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    means = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(7))
    return (means[y] + 0.5 * torch.randn(count, *SHAPE, generator=stream)).to(dtype), y


def loader(batch: int = 12, **kwargs: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data(**kwargs)), batch_size=batch)


def module(backbone: Any = SMALL, **options: Any) -> FOCAModule:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden": (4,),
        "samples_per_class": 2,
        "inner_updates": 5,
        "inner_rate": 0.05,
        "feature_scale": 10.0,
        "hold_scale": False,
        "val_classifiers": 2,
        "secondary_hidden": (4,),
        "secondary_updates": 5,
        "optimizer": SGD,
    }
    settings.update(options)
    shape = settings.pop("input_shape", SHAPE)
    # The tests call options by the short names that they had before they stood in groups.
    return FOCAModule(settings.pop("num_classes", CLASSES), shape, backbone, **current_options(settings))


def trainer(**options: Any) -> Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**settings, **options})


class Spy:
    """Keeps what the module drew, by putting itself between a module and its source."""

    def __init__(self, model: FOCAModule) -> None:
        self.drawn: list[tuple[Tensor, Tensor]] = []
        self.indices: list[Tensor] = []
        self.keys: list[tuple[int | str, ...]] = []
        draw, resample, solve = model.draw_features, model._resamples, model.solve_classifiers

        def draw_features(source: Any, batches: int, *key: int | str) -> tuple[Tensor, Tensor]:
            balanced = source.balanced

            def recorded(*arguments: Any) -> tuple[Tensor, Tensor]:
                self.drawn.append(balanced(*arguments))
                return self.drawn[-1]

            source.balanced = recorded
            try:
                return draw(source, batches, *key)
            finally:
                del source.balanced

        def resamples(*arguments: Any) -> Tensor:
            self.indices.append(resample(*arguments))
            return self.indices[-1]

        def solve_classifiers(features: Tensor, labels: Tensor, count: int, *key: int | str) -> Any:
            self.keys.append(key)
            return solve(features, labels, count, *key)

        model.draw_features = draw_features  # type: ignore[method-assign]
        model._resamples = resamples  # type: ignore[method-assign]
        model.solve_classifiers = solve_classifiers  # type: ignore[method-assign]


def target_of(y: Tensor, outputs: int) -> Tensor:
    return (2.0 * y.double() - 1)[:, None] if outputs == 1 else F.one_hot(y, outputs).double()


def loss_of(logits: Tensor, y: Tensor, name: str, total: bool = False) -> Tensor:
    if name == "cross_entropy":
        return F.cross_entropy(logits, y, reduction="sum" if total else "mean")
    each = (logits - target_of(y, logits.shape[1])).square().sum(dim=1)
    return each.sum() if total else each.mean()


def solved_by_hand(model: FOCAModule, f: Tensor, y: Tensor, start: list[Tensor]) -> nn.Sequential:
    """Eq. 4 for one classifier, with autograd and torch.optim.SGD, or with the normal equations."""
    widths = [f.shape[1], *model.weak.hidden, model.weak.num_outputs]
    layers: list[nn.Module] = []
    for weight, (inputs, outputs) in zip(start, pairwise(widths), strict=True):
        layer = nn.Linear(inputs, outputs, dtype=torch.float64)
        layer.weight.data.copy_(weight)
        layer.bias.data.zero_()
        layers += [layer, nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    if model.weak.solver == "ridge":
        ones = torch.cat([f, torch.ones(len(f), 1, dtype=f.dtype)], dim=1)
        penalty = torch.eye(f.shape[1] + 1, dtype=f.dtype) * model.weak.weight_decay
        penalty[-1, -1] = 0
        count = len(f) if model.weak.reduction == "mean" else 1
        solved = torch.linalg.solve(
            ones.T @ ones / count + penalty, ones.T @ target_of(y, model.weak.num_outputs) / count
        )
        net[0].weight.data.copy_(solved[:-1].T)
        net[0].bias.data.copy_(solved[-1])
        return net
    rate = model.weak.rate
    if rate == "auto":  # cross entropy of features at the norm for a spread of 1: L / init_std^2 is a logit's gradient
        rate = 0.75 / (0.5 * len(start) / model.weak.init_std**2)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=rate, momentum=model.weak.momentum, weight_decay=2 * model.weak.weight_decay
    )
    for _ in range(model.weak.updates):
        optimizer.zero_grad()
        loss_of(net(f), y, model.loss_name, model.weak.reduction == "sum").backward()
        optimizer.step()
    return net


def trained_by_hand(model: FOCAModule, phi: nn.Module, batches: list[tuple[Tensor, Tensor]], spy: Spy) -> nn.Module:
    """Algorithm 1 over some batches."""
    optimizer = torch.optim.SGD(phi.parameters(), lr=0.05, momentum=0.9)
    drawn, indices, pending = list(spy.drawn), list(spy.indices), 0
    count = model.draw.num_classifiers
    for number, (x, y) in enumerate(batches):
        with torch.no_grad():
            features = [(phi(bx).flatten(1), by) for bx, by in (drawn.pop(0) for _ in range(_batches(model)))]
        norm = torch.cat([f for f, _ in features]).norm(dim=1).mean()
        wanted = model.weak.feature_scale
        if wanted == "auto":
            spread = model.weak.init_std
            for width in model.weak.hidden:
                spread *= model.weak.init_std * (width / 2) ** 0.5
            wanted = 1 / spread
        scale = 1.0 if wanted is None else float(wanted / norm)
        own = indices.pop(0) if model.draw.shared_batch and count > 1 and model.samples_per_class > 1 else None
        seeds = head_seeds(key_to_seed(*spy.keys[number], "theta"), count)
        sizes = (features[0][0].shape[1], *model.weak.hidden, model.weak.num_outputs)
        start = init_heads(count, sizes, seed=seeds, init_std=model.weak.init_std, dtype=torch.float64)
        heads = []
        for e in range(count):
            f, labels = features[0 if model.draw.shared_batch else e]
            if own is not None:
                f, labels = f[own[e]], labels[own[e]]
            heads.append(solved_by_hand(model, f * scale, labels, [weight[e] for weight in start.weights]))
        for part, labels in zip(x.tensor_split(model.phi.updates), y.tensor_split(model.phi.updates), strict=True):
            features_of_part = phi(part).flatten(1)
            scaled = features_of_part * scale
            loss = torch.stack([loss_of(head(scaled), labels, model.loss_name) for head in heads]).mean()
            (gradient,) = torch.autograd.grad(loss / model.phi.accumulate, features_of_part, retain_graph=True)
            if model.phi.hold_scale:  # less its part along the mean norm n, which is homogeneous: sum f dn/df = n
                lengths = features_of_part.detach().norm(dim=1, keepdim=True)
                growth = features_of_part.detach() / lengths / len(lengths)
                gradient = gradient - (gradient * features_of_part).sum().detach() / lengths.mean() * growth
            features_of_part.backward(gradient)
            pending += 1
            if pending < model.phi.accumulate:
                continue
            pending = 0
            if model.phi.clip_norm is not None:
                nn.utils.clip_grad_norm_(phi.parameters(), model.phi.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            if model.phi.max_norm is not None:
                for weight in phi.parameters():
                    if weight.dim() > 1:
                        for unit in weight.data:
                            unit *= min(1.0, model.phi.max_norm / float(unit.norm()))
    return phi


def _batches(model: FOCAModule) -> int:
    return 1 if model.draw.shared_batch else model.draw.num_classifiers


LINEAR = {"hidden": (), "classification_loss": "squared", "solver": "ridge", "weight_decay": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale and rate by themselves": {"feature_scale": "auto", "inner_rate": "auto", "hold_scale": True},
    "raw features": {"feature_scale": None},
    "scale held": {"hold_scale": True, "phi_updates": 2},
    "sum": {"reduction": "sum", "inner_rate": 0.01},
    "three classifiers": {"num_classifiers": 3},
    "three batches": {"num_classifiers": 3, "shared_batch": False},
    "without replacement": {"replacement": False, "samples_per_class": 5},
    "squared": {"classification_loss": "squared", "inner_rate": 0.01},
    "ridge": LINEAR,
    "ridge, sum, three": {**LINEAR, "reduction": "sum", "num_classifiers": 3},
    "ridge, k = 1, three batches": {**LINEAR, "samples_per_class": 1, "num_classifiers": 3, "shared_batch": False},
    "early-stop": {"solver": "early-stop", "weight_decay": 0.0, "samples_per_class": 8, "inner_updates": None},
    "u = 2": {"phi_updates": 2},
    "accumulate": {"phi_updates": 3, "accumulate": 3},
    "clip": {"clip_norm": 0.05},
    "max-norm": {"max_norm": 0.5},
    "no max-norm": {"max_norm": None},
    "two hidden layers, convolutions": {
        "hidden": (4, 3),
        "backbone": partial(FOCANet, widths=(2, 3, 4), depth=1),
        "input_shape": (1, 8, 8),
        "max_norm": 0.7,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_algorithm_1(case: str) -> None:
    options = dict(CASES[case])
    model = module(**options)
    x, y = data(dtype=torch.float64)
    if "input_shape" in options:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    start, spy = copy.deepcopy(model.backbone).double(), Spy(model)
    batches = list(DataLoader(TensorDataset(x, y), batch_size=12))
    if case == "raw features":
        assert model.weak.rate == 0.05
    runner = trainer(precision="64-true")
    runner.fit(model, DataLoader(TensorDataset(x, y), batch_size=12))
    expected = trained_by_hand(model, start, batches, spy)
    assert runner.global_step == len(batches) * model.phi.updates // model.phi.accumulate
    for (name, mine), theirs in zip(model.backbone.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), rtol=1e-7, atol=1e-9, msg=name)


def test_float32_step_is_near_the_float64_one() -> None:
    models = {}
    for precision, dtype in (("32-true", torch.float32), ("64-true", torch.float64)):
        model = models[precision] = module(inner_updates=1, init_std=0.0, hidden=())
        trainer(precision=precision).fit(model, loader(dtype=dtype))
    for one, other in zip(
        models["32-true"].backbone.parameters(), models["64-true"].backbone.parameters(), strict=True
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


def test_epoch_with_a_remainder_of_accumulated_gradients_updates_with_their_mean() -> None:
    model = module(accumulate=2)
    runner = trainer()
    runner.fit(model, loader(batch=12))  # three batches: two and one
    assert runner.global_step == 2


def test_two_classes_with_one_output() -> None:
    model = module(**LINEAR, num_classes=2, num_outputs=1, samples_per_class=1)
    x, y = data(dtype=torch.float64)
    x, y = x[y < 2], y[y < 2]
    start, spy = copy.deepcopy(model.backbone).double(), Spy(model)
    batches = list(DataLoader(TensorDataset(x, y), batch_size=12))
    runner = trainer(precision="64-true")
    runner.fit(model, DataLoader(TensorDataset(x, y), batch_size=12), DataLoader(TensorDataset(x, y), batch_size=12))
    spy.keys = [key for key in spy.keys if key[0] == "foca"]
    expected = trained_by_hand(model, start, batches, spy)
    for mine, theirs in zip(model.backbone.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), rtol=1e-7, atol=1e-9)
    assert model.head.output.out_features == 2
    assert "val/error" in runner.callback_metrics


def test_inner_solve_leaves_running_statistics_alone() -> None:
    model = module(partial(MLP, widths=[6, 5], batch_norm=True), max_norm=None)
    norms = [layer for layer in model.backbone.modules() if isinstance(layer, nn.BatchNorm1d)]
    seen: list[int] = []
    for layer in norms:
        layer.register_forward_pre_hook(lambda layer, _: seen.append(layer.training))
    x, y = data()
    reference = copy.deepcopy(model.backbone)
    runner = trainer()
    before_secondary: dict[str, Tensor] = {}

    class Keep(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            before_secondary.update({k: v.clone() for k, v in pl_module.backbone.state_dict().items()})

    runner = trainer(callbacks=[Keep()])
    runner.fit(model, DataLoader(TensorDataset(x, y), batch_size=36))
    assert all(seen[: 2 * len(norms)])  # both passes of the step were in training mode
    reference.train()
    reference(x)  # phi's pass alone moves the statistics
    for name, value in reference.state_dict().items():
        if "running" in name or "tracked" in name:
            torch.testing.assert_close(before_secondary[name], value)
    assert all(layer.track_running_stats for layer in norms)


@pytest.mark.parametrize(("interval", "steps"), [("epoch", 2), ("step", 12)])
def test_schedulers_count_epochs_or_phi_updates(interval: str, steps: int) -> None:
    model = module(
        phi_updates=2,
        lr_scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9),
        lr_scheduler_interval=interval,
    )
    runner = trainer(max_epochs=2)
    runner.fit(model, loader())
    assert runner.global_step == 12
    assert len(runner.optimizers) == 1
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * 0.9**steps)
    theirs = {id(parameter) for group in runner.optimizers[0].param_groups for parameter in group["params"]}
    assert theirs == {id(parameter) for parameter in model.backbone.parameters()}


def test_plateau_scheduler_reads_what_is_logged() -> None:
    from lightning.pytorch.cli import ReduceLROnPlateau

    def plateau(optimizer: torch.optim.Optimizer, monitor: str) -> ReduceLROnPlateau:
        return ReduceLROnPlateau(optimizer, monitor=monitor, patience=0, factor=0.5, threshold=10.0)

    model = module(lr_scheduler=partial(plateau, monitor="val/error"))
    runner = trainer(max_epochs=3)
    runner.fit(model, loader(), loader())
    assert runner.optimizers[0].param_groups[0]["lr"] < 0.05
    with pytest.raises(ConfigError, match=r"monitors 'val/nothing'.*there are"):
        trainer().fit(module(lr_scheduler=partial(plateau, monitor="val/nothing")), loader(), loader())


def test_max_steps_counts_phi_updates() -> None:
    model = module(phi_updates=3)
    runner = trainer(max_epochs=-1, max_steps=9)
    runner.fit(model, loader())
    assert runner.global_step == 9


def test_draws_depend_on_seed_step_and_rank_alone() -> None:
    drawn = {}
    for name, seed, noise in (("one", 3, 0), ("again", 3, 99), ("other seed", 4, 0)):
        seed_everything(seed, verbose=False)
        model = module()
        spy = Spy(model)
        torch.manual_seed(noise)
        trainer().fit(model, loader())
        drawn[name] = [x for x, _ in spy.drawn], spy.keys
    for one, again in zip(drawn["one"][0], drawn["again"][0], strict=True):
        assert torch.equal(one, again)
    assert drawn["one"][1] == drawn["again"][1]
    assert not torch.equal(drawn["one"][0][0], drawn["one"][0][1])
    assert not torch.equal(drawn["one"][0][0], drawn["other seed"][0][0])
    assert [key[-1] for key in drawn["one"][1]] == [0, 0, 0]  # the rank
    assert len(set(drawn["one"][1])) == 3


def test_phi_draw_with_replacement_leaves_the_epochs_order() -> None:
    seen: dict[str, Tensor] = {}
    for draw in ("epoch", "replacement"):
        model = module(phi_draw=draw)
        loss = model.phi_loss

        def recorded(
            heads: Any, scale: Any, x: Tensor, y: Tensor, draw: str = draw, loss: Any = loss
        ) -> tuple[Tensor, Tensor]:
            seen.setdefault(draw, x.detach().clone())
            return loss(heads, scale, x, y)

        model.phi_loss = recorded  # type: ignore[method-assign]
        trainer().fit(model, loader())
    x, _ = data()
    assert torch.equal(seen["epoch"], x[:12])
    assert not torch.equal(seen["replacement"], x[:12])
    assert all(any(torch.equal(row, one) for one in x) for row in seen["replacement"])


# -- where samples come from ------------------------------------------------------------------------------------------


class WithTargets(Dataset[Any]):
    """As torchvision's data sets are: samples by index, and all labels in ``targets``."""

    def __init__(self, classes: int = CLASSES) -> None:
        self.x, y = data()
        self.targets = (y % classes).tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], self.targets[index]


class Stream(IterableDataset[Any]):
    def __init__(self, classes: int = CLASSES) -> None:
        self.classes = classes

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = data()
        yield from zip(x, y % self.classes, strict=True)


class Silent(Dataset[Any]):
    """Tells no labels."""

    def __len__(self) -> int:
        return 36

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = data()
        return x[index], y[index]


@pytest.mark.parametrize(
    "dataset",
    [
        TensorDataset(*data()),
        WithTargets(),
        torch.utils.data.Subset(WithTargets(), range(30)),
        Stream(),
        Silent(),
    ],
    ids=["tensors", "targets", "subset", "stream", "silent"],
)
def test_foreign_loaders(dataset: Any) -> None:
    train = DataLoader(dataset, batch_size=15)
    model = module(optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9))
    spy = Spy(model)
    runner = trainer(max_epochs=2)
    runner.fit(model, train, loader())
    for _, labels in spy.drawn:
        assert torch.equal(labels, torch.arange(CLASSES).repeat_interleave(2))
    if isinstance(dataset, Stream | Silent):
        first = next(iter(train))[0]
        assert all(any(torch.equal(row, one) for one in first) for row in spy.drawn[0][0])
    assert {"val/error", "val/ncm_error", "val/loss"} <= set(runner.callback_metrics)
    assert bool(model.head_trained)
    result = runner.test(model, loader(seed=1), verbose=False)[0]
    assert 0 <= result["test/error"] <= 1


@pytest.mark.parametrize("dataset", [WithTargets(2), Stream(2)], ids=["targets", "stream"])
def test_missing_class_is_named(dataset: Any) -> None:
    with pytest.raises(DataError, match=r"class 2 of .*has 0 samples"):
        trainer().fit(module(), DataLoader(dataset, batch_size=12))


def test_too_few_samples_without_replacement() -> None:
    with pytest.raises(DataError, match=r"class 0 .*has 12 samples, but 13 .*without replacement"):
        trainer().fit(module(replacement=False, samples_per_class=13), loader())
    digits = DigitsDataModule(train_size=30, batch_size=10)
    few = module(num_classes=10, input_shape=(1, 8, 8), replacement=False, samples_per_class=10)
    with pytest.raises(DataError, match="training images, but 10 are to be drawn"):
        trainer().fit(few, datamodule=digits)


# -- evaluation and the secondary head --------------------------------------------------------------------------------


def digits_module(**options: Any) -> FOCAModule:
    settings = {"hidden": (16,), "secondary_hidden": (32, 16), "secondary_updates": 200, "inner_updates": 16}
    rate = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
    return module(
        partial(MLP, widths=[32, 16]),
        **{"num_classes": 10, "input_shape": (1, 8, 8), "optimizer": rate, **settings, **options},
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, FOCAModule, DigitsDataModule]:
    """A fit with nothing but Lightning's own Trainer and ModelCheckpoint."""
    folder = tmp_path_factory.mktemp("foca")
    seed_everything(0, verbose=False)
    digits = DigitsDataModule(batch_size=100)
    model = digits_module()
    checkpoints = ModelCheckpoint(folder, "best", monitor="val/error", save_last=True)
    runner = trainer(max_epochs=5, callbacks=[checkpoints], enable_checkpointing=True)
    runner.fit(model, datamodule=digits)
    return folder, runner, model, digits


def test_checkpoints_hold_a_head_that_fits_their_phi(
    fitted: tuple[Path, Trainer, FOCAModule, DigitsDataModule],
) -> None:
    folder, _, model, digits = fitted
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    states = {}
    for name in ("best", "last"):
        checkpoint = torch.load(folder / f"{name}.ckpt", weights_only=True)
        states[name] = state = checkpoint["state_dict"]
        assert bool(state["head_trained"])
        fresh = digits_module()
        fresh.load_state_dict(state)
        fresh.eval()
        with torch.no_grad():
            logits = fresh(digits.normalize_images(digits.images("train"))).logits
        assert float((logits.argmax(1) != digits.labels("train")).float().mean()) < 0.3, name
        assert [layer.out_features for layer in fresh.head.linears] == [32, 16, 10]
    # The module kept the best one.
    for key, value in model.state_dict().items():
        assert torch.equal(value, states["best"][key]), key


def test_test_and_predict_use_the_stored_head(fitted: tuple[Path, Trainer, FOCAModule, DigitsDataModule]) -> None:
    folder, _, model, digits = fitted
    before = copy.deepcopy(model.state_dict())
    runner = trainer()
    fresh = digits_module()
    error = runner.test(fresh, datamodule=digits, ckpt_path=folder / "best.ckpt", weights_only=True, verbose=False)[0]
    assert error["test/error"] < 0.35
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, before[key]), key
    predicted = runner.predict(fresh, datamodule=digits, ckpt_path=folder / "best.ckpt", weights_only=True)
    assert predicted is not None
    probability = torch.cat([batch["probability"] for batch in predicted])
    assert probability.shape[1] == 10
    torch.testing.assert_close(probability.sum(1), torch.ones(len(probability)))


def test_untrained_head_is_solved_before_a_test(fitted: tuple[Path, Trainer, FOCAModule, DigitsDataModule]) -> None:
    _, _, model, digits = fitted
    bare = digits_module()
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if k.startswith("backbone")}, strict=False)
    assert not bool(bare.head_trained)
    runner = trainer()
    error = runner.test(bare, datamodule=digits, verbose=False)[0]["test/error"]
    assert bool(bare.head_trained)
    assert error < 0.35
    assert not any(parameter.requires_grad for parameter in bare.head.parameters())
    assert not bare.head.output.weight.is_inference()
    # The same head as at the end of fit: its numbers are keyed by the seed.
    for key, value in bare.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], msg=key)


def test_untrained_head_without_a_training_set_is_refused() -> None:
    with pytest.raises(DataError, match="secondary head of this FOCAModule is not trained"):
        trainer().test(module(), loader(), verbose=False)
    with pytest.raises(DataError, match="validate during fit"):
        trainer().validate(module(), loader(), verbose=False)


def test_weights_only_loading_from_a_checkpoint(
    fitted: tuple[Path, Trainer, FOCAModule, DigitsDataModule],
) -> None:
    folder, _, model, _ = fitted
    again = FOCAModule.load_from_checkpoint(
        folder / "best.ckpt", backbone=partial(MLP, widths=[32, 16]), optimizer=SGD, weights_only=True
    )
    assert again.weak.hidden == (16,)
    assert torch.equal(again.backbone(torch.ones(1, 1, 8, 8)), model.backbone(torch.ones(1, 1, 8, 8)))


def test_validation_figures_are_those_of_the_definition() -> None:
    model = module(val_classifiers=3)
    x, y = data()
    xv, yv = data(30, seed=5)
    spy = Spy(model)
    runner = trainer(limit_train_batches=1, num_sanity_val_steps=0)
    runner.fit(model, DataLoader(TensorDataset(x, y), batch_size=12), DataLoader(TensorDataset(xv, yv), batch_size=7))
    drawn = spy.drawn[-3:]
    assert spy.keys[-1][0] == "foca-validation"
    with torch.no_grad():
        model.eval()
        features = torch.stack([model.backbone(bx) for bx, _ in drawn])
        scale = 10 / features.norm(dim=2).mean()
        values = model.backbone(xv)
        seeds = head_seeds(key_to_seed(*spy.keys[-1], "theta"), 3)
    start = init_heads(3, (5, 4, CLASSES), seed=seeds)
    logits = torch.zeros(len(xv), CLASSES, dtype=torch.float64)
    for e in range(3):
        head = solved_by_hand(model, (features[e] * scale).double(), drawn[e][1], [w[e] for w in start.weights])
        logits += head((values * scale).double()) / 3
    means = torch.stack([features.flatten(0, 1)[torch.cat([by for _, by in drawn]) == k].mean(0) for k in range(3)])
    nearest = torch.cdist(values, means).argmin(dim=1)
    assert float(runner.callback_metrics["val/error"]) == pytest.approx(float((logits.argmax(1) != yv).float().mean()))
    assert float(runner.callback_metrics["val/ncm_error"]) == pytest.approx(float((nearest != yv).float().mean()))
    assert float(runner.callback_metrics["val/loss"]) == pytest.approx(float(F.cross_entropy(logits, yv)), rel=1e-4)


def test_step_figures_reach_the_logger_at_every_setting(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    runner = trainer(logger=CSVLogger(tmp_path, "", ""), log_every_n_steps=2, max_epochs=2)
    runner.fit(module(phi_updates=3, accumulate=2), loader(), loader())
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    names = header.split(",")
    figures = {"train/inner_loss", "train/feature_norm", "train/weak_error", "train/loss_step"}
    assert figures <= set(names)
    assert sum(bool(row.split(",")[names.index("train/inner_loss")]) for row in rows) == 3


# -- precision --------------------------------------------------------------------------------------------------------


def mixed(precision: str) -> dict[str, Any]:
    if precision == "bf16-mixed":
        return {"precision": precision}
    # Lightning turns this into bfloat16 on a CPU unless the plugin is given; its scaler does what it does on a GPU.
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=64.0)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_steps_are_near_full_ones(precision: str) -> None:
    options = {"phi_updates": 3, "clip_norm": 0.5, "accumulate": 1, "inner_updates": 3}
    models, starts = [], []
    for settings in ({}, mixed(precision)):
        model = module(**options)
        starts.append(torch.cat([p.detach().clone().flatten() for p in model.backbone.parameters()]))
        trainer(**settings, limit_train_batches=1).fit(model, loader())
        models.append(torch.cat([p.detach().flatten() for p in model.backbone.parameters()]))
    full, half = (end - start for end, start in zip(models, starts, strict=True))
    assert float(full.norm()) > 0
    assert float(F.cosine_similarity(full, half, dim=0)) > 0.98
    assert float(half.norm()) == pytest.approx(float(full.norm()), rel=0.1)


def test_mixed_precision_sees_the_updated_weights_within_a_step() -> None:
    # Autocast keeps casted weights for the whole step; with u = 2 the second part must not read the first one's.
    model = module(phi_updates=2, optimizer=partial(torch.optim.SGD, lr=1.0), max_norm=None)
    seen: list[Tensor] = []
    original = model._features

    def recorded(x: Tensor) -> Tensor:
        features = original(x)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            seen.append((features.detach() - model.backbone(x).flatten(1)).abs().max())
        return features

    model._features = recorded  # type: ignore[method-assign]
    trainer(precision="bf16-mixed", limit_train_batches=1).fit(model, loader())
    assert len(seen) == 3
    assert float(torch.stack(seen).max()) < 0.1


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": 0.0}, r"lambda of Eq\. 4\) is 0\.0, but FOCA needs it above 0"),
        ({"weight_decay": float("nan")}, "above 0"),
        ({"solver": "ridge", "hidden": ()}, "set classification_loss to 'squared'"),
        ({"solver": "ridge", "classification_loss": "squared"}, r"set weak\.hidden to \[\], not \[4\]"),
        ({"num_classifiers": 0}, "num_classifiers is 0, but at least 1"),
        ({"samples_per_class": 0}, "samples_per_class is 0"),
        ({"inner_updates": 0}, r"weak\.updates is 0"),
        ({"phi_updates": 0}, r"phi\.updates is 0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"val_classifiers": 0}, "val_classifiers is 0"),
        ({"feature_scale": 0.0}, r"feature_scale is 0\.0.*above 0"),
        ({"max_norm": -1.0}, r"max_norm is -1\.0"),
        ({"init_std": -0.1}, r"init_std is -0\.1"),
        ({"inner_momentum": 1.0}, r"weak\.momentum is 1\.0"),
        ({"secondary_weight_decay": -1.0}, "weight_decay"),
        ({"num_outputs": 1}, "num_outputs is 1, but must be num_classes = 3"),
        ({**LINEAR, "samples_per_class": 1, "num_classifiers": 2}, r"set draw\.shared_batch to false"),
        ({"statistics_layer": "fc9"}, "no activation 'fc9'"),
    ],
    ids=str,
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        module(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callbacks": [LearningRateFinder()]}, r"set model\.optimizer\.lr, and leave the callback out"),
        ({"gradient_clip_val": 0.5}, r"set model\.phi\.clip_norm to 0\.5 instead of trainer\.gradient_clip_val"),
        (
            {"accumulate_grad_batches": 4},
            r"set model\.phi\.accumulate to 4 instead of trainer\.accumulate_grad_batches",
        ),
    ],
)
def test_trainer_options_that_manual_optimization_cannot_have(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(**options).fit(module(), loader())


def test_nan_features_stop_before_phi_moves() -> None:
    x, y = data()
    x[:] = float("nan")
    model = module()
    before = copy.deepcopy(model.backbone.state_dict())
    with pytest.raises(DivergenceError, match="features are NaN or infinite in epoch 0 at step 0"):
        trainer().fit(model, DataLoader(TensorDataset(x, y), batch_size=12))
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())


def test_dead_features_stop() -> None:
    model = module()
    with torch.no_grad():
        model.backbone.fc2.linear.bias.fill_(-1e3)
    with pytest.raises(DivergenceError, match="all features of b are zero"):
        trainer().fit(model, loader())


def test_diverged_classifiers_stop() -> None:
    with pytest.raises(DivergenceError, match=r"weak classifiers diverged.*weak\.rate"):
        trainer().fit(module(inner_rate=1e6, inner_updates=60, classification_loss="squared"), loader())


def test_divergence_of_the_secondary_head_is_told() -> None:
    with pytest.raises(DivergenceError, match=r"secondary\.rate"):
        trainer().fit(module(secondary_rate=1e20, secondary_updates=100, secondary_weight_decay=1.0), loader())


def test_secondary_optimization_refuses_other_modules() -> None:
    from lightning_repshape.callbacks import SecondaryOptimization
    from lightning_repshape.modules import SupervisedModule

    other = SupervisedModule(CLASSES, SHAPE, MLP)
    with pytest.raises(ConfigError, match="works on a FOCAModule, not on SupervisedModule"):
        trainer(callbacks=[SecondaryOptimization()]).fit(other, loader())


# -- the toy of Fig. 1 ------------------------------------------------------------------------------------------------


def test_toy_features_shrink_to_points_as_proposition_3_2_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "docs" / "examples"))
    import foca_toy

    points, labels = foca_toy.half_moons(200)
    phi, curve = foca_toy.train_foca(points, labels, (), 300, count=16, activation=nn.Sigmoid)
    assert curve[0][1] > 0.3
    assert curve[-1][1] < 0.02
    features = phi(points).detach()
    weak = foca_toy.weak_classifiers(features, labels, (), 4, key=0)
    assert torch.equal(weak.predict(features), labels.expand(4, -1))


# -- options in groups ------------------------------------------------------------------------------------------------


def test_recipes_reach_checkpoints_as_plain_values(tmp_path: Path) -> None:
    recipes: dict[str, Any] = {
        "weak": WeakRecipe(hidden=(4,), updates=8),
        "secondary": HeadRecipe(hidden=(4,), updates=3),
        "draw": Draw(samples_per_class=2),
        "phi": PhiUpdates(max_norm=None),
    }
    model = FOCAModule(CLASSES, SHAPE, SMALL, **recipes, val_classifiers=2)
    assert (model.weak.updates, model.draw.samples_per_class, model.phi.max_norm) == (8, 2, None)
    runner = trainer()
    runner.fit(model, loader())
    runner.save_checkpoint(tmp_path / "foca.ckpt")
    kept = torch.load(tmp_path / "foca.ckpt", weights_only=True)["hyper_parameters"]
    assert kept["weak"]["updates"] == 8 and kept["phi"]["max_norm"] is None and "backbone" not in kept
    again = FOCAModule.load_from_checkpoint(tmp_path / "foca.ckpt", backbone=SMALL)
    assert {name: getattr(again, name) for name in recipes} == {name: getattr(model, name) for name in recipes}
    assert again.weak == replace(recipes["weak"], num_outputs=CLASSES)


@pytest.mark.parametrize("instantiator", [{}, {"_instantiator": "lightning.pytorch.cli.instantiate_module"}])
def test_checkpoints_from_before_the_groups_can_be_loaded(tmp_path: Path, instantiator: dict[str, str]) -> None:
    model = module(hidden=(4, 3), inner_updates=7, init_std=0.2, phi_updates=2, secondary_hidden=(5,))
    runner = trainer()
    runner.fit(model, loader())
    runner.save_checkpoint(tmp_path / "foca.ckpt")
    content = torch.load(tmp_path / "foca.ckpt", weights_only=True)
    net = {"class_path": "lightning_repshape.MLP", "init_args": {"widths": [6, 5]}}
    old = {"hidden": [4, 3], "inner_updates": 7, "init_std": 0.2, "phi_updates": 2, "secondary_hidden": [5]}
    named = {"_class_path": "lightning_repshape.modules.FOCAModule", "backbone": net} if instantiator else {}
    content["hyper_parameters"] = {"num_classes": CLASSES, "input_shape": SHAPE, **old, **named, **instantiator}
    torch.save(content, tmp_path / "old.ckpt")
    again = FOCAModule.load_from_checkpoint(tmp_path / "old.ckpt", **({} if instantiator else {"backbone": SMALL}))
    assert again.weak == replace(WeakRecipe((4, 3), 7, init_std=0.2), num_outputs=CLASSES)
    assert (again.secondary, again.phi) == (HeadRecipe((5,), init_std=0.2), PhiUpdates(2))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", RENAMED)
def test_old_names_end_in_the_new_one(name: str) -> None:
    with pytest.raises(ConfigError, match=f"FOCAModule: {name} is called {RENAMED[name]} now"):
        FOCAModule(CLASSES, SHAPE, SMALL, **{name: 1})
    group, option = RENAMED[name].split(".")
    assert current_options({name: 1, "optimizer": SGD})[group] == {option: 1}
    assert current_options({group: {option: 2}}) == {group: {option: 2}}


def test_unknown_values_of_a_recipe_are_named() -> None:
    with pytest.raises(ConfigError, match="weak has no option 'update'; did you mean 'updates'"):
        FOCAModule(CLASSES, SHAPE, SMALL, weak={"update": 3})
    with pytest.raises(ConfigError, match="phi must be a PhiUpdates, got 3"):
        FOCAModule(CLASSES, SHAPE, SMALL, phi=3)
    with pytest.raises(TypeError, match="optimiser"):
        FOCAModule(CLASSES, SHAPE, SMALL, optimiser=SGD)
