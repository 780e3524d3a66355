"""LayerPenalty equals adding the term to the loss, in modules that know nothing of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_repshape import (
    ClasswiseCovariance,
    ClasswiseVariance,
    Covariance,
    L1Representation,
    L1Weight,
    L2Weight,
    Variance,
)
from lightning_repshape.callbacks import LayerPenalty
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.functional import cw_vr
from lightning_repshape.regularizers import Regularizer, WeightRegularizer


class Foreign(LightningModule):
    """A module of somebody else's; ``extra`` adds the term by hand, which is what the callback has to equal."""

    def __init__(self, extra: float = 0.0, manual: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU())
        self.classifier = nn.Linear(5, 3)
        self.extra = extra
        self.automatic_optimization = not manual

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = (batch["image"], batch["label"]) if isinstance(batch, dict) else batch
        z = self.encoder(x)
        loss = F.cross_entropy(self.classifier(z), y)
        if self.extra:
            loss = loss + cw_vr(z, y, 3, scale=self.extra)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Dictionaries(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.x[index], "label": self.y[index]}


def samples() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    return torch.randn(36, 6, generator=source), torch.arange(36) % 3


def train(module: LightningModule, callbacks: list[Any], loader: Any = None, **options: Any) -> LightningModule:
    options = {"max_epochs": 2, "logger": False, **options}
    trainer = Trainer(
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks, accelerator="cpu", **options,
    )  # fmt: skip
    trainer.fit(module, loader if loader is not None else DataLoader(TensorDataset(*samples()), batch_size=12))
    return module


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def penalty(weight: float = 0.7, **options: Any) -> LayerPenalty:
    return LayerPenalty("encoder", ClasswiseVariance(weight=weight, sync=False), num_classes=3, **options)


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
def test_equals_the_added_term_to_the_bit(manual: bool) -> None:
    by_hand = train(Foreign(extra=0.7, manual=manual), [])
    assert equal(by_hand, train(Foreign(manual=manual), [penalty()]))
    assert not equal(by_hand, train(Foreign(manual=manual), []))


def test_accumulated_batches() -> None:
    by_hand = train(Foreign(extra=0.7), [], accumulate_grad_batches=3)
    assert equal(by_hand, train(Foreign(), [penalty()], accumulate_grad_batches=3))


def test_bfloat16_and_dictionary_batches() -> None:
    by_hand = train(Foreign(extra=0.7), [], DataLoader(Dictionaries(*samples()), batch_size=12), precision="bf16-mixed")
    found = train(
        Foreign(), [penalty(unpack=("image", "label"))], DataLoader(Dictionaries(*samples()), batch_size=12),
        precision="bf16-mixed",
    )  # fmt: skip
    for one, other in zip(by_hand.parameters(), found.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-3)


def test_the_loss_scale_of_16_bit_precision_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaler:
        def get_scale(self) -> float:
            return 1024.0

    callback = penalty()
    module = Foreign()
    trainer = Trainer(logger=False, enable_checkpointing=False, accumulate_grad_batches=4)
    monkeypatch.setattr(trainer.precision_plugin, "scaler", Scaler(), raising=False)
    assert float(callback._scale(trainer, module)) == 256.0


def test_several_penalties_and_weight_penalties() -> None:
    class Many(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            hidden = self.encoder[1](self.encoder[0](x))
            z = self.encoder[3](self.encoder[2](hidden))
            loss = F.cross_entropy(self.classifier(z), y)
            terms = Variance(weight=0.3, sync=False)(hidden), ClasswiseCovariance(weight=0.2, sync=False)(z, y, 3)
            return loss + terms[0] + terms[1] + 0.05 * self.encoder[2].weight.square().sum()

    callbacks = [
        LayerPenalty("encoder.1", Variance(weight=0.3, sync=False)),
        LayerPenalty("encoder.3", ClasswiseCovariance(weight=0.2, sync=False), num_classes=3),
        LayerPenalty("encoder.2", L2Weight(weight=0.05)),
    ]
    for one, other in zip(train(Many(), []).parameters(), train(Foreign(), callbacks).parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def _optimizer(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)


def _pictures() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(2)
    labels = torch.arange(32) % 4
    return torch.randn(32, 3, 8, 8, generator=source) + 0.3 * labels[:, None, None, None], labels


def test_inside_torch_uncertainty() -> None:
    """The callback equals a subclass whose training step adds the term."""
    routines = pytest.importorskip("torch_uncertainty.routines")

    class Subclass(routines.ClassificationRoutine):  # type: ignore[misc, name-defined]
        def training_step(self, batch: Any) -> Tensor:
            loss: Tensor = super().training_step(batch)
            x, y = batch
            return loss + cw_vr(self.model[:3](x), y, 4, scale=0.7)

    def trained(kind: Any, callbacks: list[Any]) -> LightningModule:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))
        routine = kind(body, num_classes=4, loss=nn.CrossEntropyLoss(), optim_recipe=_optimizer(body))
        return train(routine, callbacks, DataLoader(TensorDataset(*_pictures()), batch_size=8))

    callback = LayerPenalty("model.2", ClasswiseVariance(weight=0.7, sync=False), num_classes=4)
    by_hand, found = trained(Subclass, []), trained(routines.ClassificationRoutine, [callback])
    for one, other in zip(by_hand.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)  # two passes round otherwise than one
    assert not equal(found, trained(routines.ClassificationRoutine, []))


def test_inside_torchgeo() -> None:
    """The callback equals a subclass whose loss adds the term to that of the task, to the last bit."""
    trainers = pytest.importorskip("torchgeo.trainers")
    layer = "model.global_pool"

    class Subclass(trainers.ClassificationTask):  # type: ignore[misc, name-defined]
        def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
            seen: list[Tensor] = []
            hook = self.get_submodule(layer).register_forward_hook(lambda module, args, output: seen.append(output))
            loss: Tensor = super().training_step(batch, batch_idx, dataloader_idx)
            hook.remove()
            return loss + cw_vr(seen[0], batch["label"], 4, scale=0.7)

        def configure_optimizers(self) -> Any:
            return _optimizer(self)

    class Task(trainers.ClassificationTask):  # type: ignore[misc, name-defined]
        def configure_optimizers(self) -> Any:
            return _optimizer(self)

    def trained(kind: Any, callbacks: list[Any]) -> LightningModule:
        torch.manual_seed(0)
        task = kind(model="resnet18", weights=None, in_channels=3, num_classes=4)
        loader = DataLoader(Dictionaries(*_pictures()), batch_size=16)
        return train(task, callbacks, loader, limit_train_batches=2)

    callback = LayerPenalty(layer, ClasswiseVariance(weight=0.7, sync=False), unpack=("image", "label"), num_classes=4)
    by_hand, found = trained(Subclass, []), trained(Task, [callback])
    assert equal(by_hand, found)
    assert not equal(found, trained(Task, []))


def test_the_hook_leaves_no_trace() -> None:
    module = Foreign()
    train(module, [penalty()])
    assert not module.encoder._forward_hooks
    x = torch.randn(2, 6)
    assert torch.equal(module.encoder(x), module.encoder(x))


class Inplace(Foreign):
    """Behind the hooked layer stand a sum and a ReLU that work in place."""

    def __init__(self, terms: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True))
        self.terms = terms

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        hidden = self.encoder[0](x)
        added = Variance(0.3, sync=False)(hidden) + L1Representation(0.2, sync=False)(hidden) if self.terms else 0.0
        hidden = hidden.clone() if self.terms else hidden
        hidden += 0.5
        z = self.encoder[1](hidden)
        return F.cross_entropy(self.classifier(z), y) + added


def test_layers_behind_may_work_in_place() -> None:
    callbacks = [
        LayerPenalty("encoder.0", Variance(0.3, sync=False)),
        LayerPenalty("encoder.0", L1Representation(0.2, sync=False)),
    ]
    by_hand, found = train(Inplace(terms=True), []), train(Inplace(), callbacks)
    for one, other in zip(by_hand.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert not equal(found, train(Inplace(), []))


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(list(zip(*samples(), strict=True)))


def test_data_without_a_length() -> None:
    """The same training as on data of known length, with a warm-up too."""
    streamed = train(Foreign(), [penalty()], DataLoader(Stream(), batch_size=12))
    assert equal(streamed, train(Foreign(), [penalty()]))
    warm = LayerPenalty("encoder", Variance(1.0, sync=False, warmup_epochs=4))
    train(Foreign(), [warm], DataLoader(Stream(), batch_size=12))
    assert warm._epochs_done == 1.0


@pytest.mark.parametrize("kind", [L1Weight, L2Weight])
def test_penalties_on_the_weights_of_all_layers(kind: Any) -> None:
    class All(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            weights = [self.encoder[0].weight, self.encoder[2].weight, self.classifier.weight]
            return super().training_step(batch, batch_idx) + kind(0.05)(weights)

    found = train(Foreign(), [LayerPenalty("encoder.2", kind(0.05, scope="all"))])
    for one, other in zip(train(All(), []).parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert not equal(found, train(Foreign(), [LayerPenalty("encoder.2", kind(0.05))]))


class Norms(WeightRegularizer):
    """A penalty on weights that this package does not have."""

    def value(self, weights: Any) -> Tensor:
        return torch.stack([weight.norm() for weight in weights]).sum()


class Largest(Regularizer):
    """A penalty on activations that this package does not have."""

    def value(self, activations: Tensor, labels: Tensor | None = None, num_classes: int | None = None) -> Tensor:
        return activations.amax(dim=1).mean()

    def forward(self, activations: Tensor, *more: Any, epoch: float | None = None) -> Tensor:
        return self.value(activations) * self.weight_at(epoch)


def test_regularizers_of_ones_own() -> None:
    class ByHand(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            norms = self.encoder[0].weight.norm() + self.encoder[2].weight.norm()
            largest = self.encoder(batch[0]).amax(dim=1).mean()
            return super().training_step(batch, batch_idx) + 0.3 * norms + 0.2 * largest

    callbacks = [LayerPenalty("encoder", Norms(0.3)), LayerPenalty("encoder", Largest(0.2))]
    found = train(Foreign(), callbacks)
    for one, other in zip(train(ByHand(), []).parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other)


class Rows(DummyLogger):
    """Keeps what is logged, by step."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:  # type: ignore[override]
        self.rows.setdefault(step, {}).update(metrics)


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
def test_terms_are_logged_at_the_logging_steps(manual: bool) -> None:
    """Three batches an epoch and a row every five steps, counted on from epoch to epoch, and at the epochs' ends."""
    rows = Rows()
    callbacks = [
        penalty(),
        penalty(weight=0.1),
        LayerPenalty("encoder", Variance(2.0, sync=False, warmup_epochs=2.0)),
        LayerPenalty("encoder.0", Variance(0.0, sync=False)),
    ]
    train(Foreign(manual=manual), callbacks, logger=rows, log_every_n_steps=5, max_epochs=4)
    known = {step: row for step, row in rows.rows.items() if "train/ClasswiseVariance/encoder" in row}
    assert sorted(known) == [2, 4, 5, 8, 9, 11]
    for row in known.values():
        raw = row["train/ClasswiseVariance/encoder_raw"]
        assert raw > 0
        assert row["train/ClasswiseVariance/encoder"] == pytest.approx(0.7 * raw)
        # the second one of its class on the layer
        assert row["train/ClasswiseVariance/encoder_2_raw"] == pytest.approx(raw)
        assert row["train/ClasswiseVariance/encoder_2"] == pytest.approx(0.1 * raw)
        assert row["train/Variance/encoder.0"] == 0 < row["train/Variance/encoder.0_raw"]
    assert known[4]["train/Variance/encoder"] == pytest.approx(known[4]["train/Variance/encoder_raw"] * 2 * (4 / 3) / 2)


class Alone(Foreign):
    """Trained on batches without labels."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.classifier(self.encoder(batch[0])).square().mean()


@pytest.mark.parametrize(
    "regularizer",
    [Variance(0.7), Covariance(0.7), L1Representation(0.7), L1Weight(0.7), L2Weight(0.7)],
    ids=lambda regularizer: type(regularizer).__name__,
)
def test_penalties_without_classes_need_no_labels(regularizer: Any) -> None:
    x, _ = samples()
    targets = torch.randn(36, 2)  # as of a regression
    plain = train(Alone(), [], DataLoader(TensorDataset(x), batch_size=12))
    for data in (TensorDataset(x), TensorDataset(x, targets[:, 0])):
        assert not equal(plain, train(Alone(), [LayerPenalty("encoder", regularizer)], DataLoader(data, batch_size=12)))


def test_soft_labels() -> None:
    x, y = samples()
    soft = 0.9 * F.one_hot(y, 3).float() + 0.1 / 3

    def trained(module: LightningModule, callbacks: list[Any]) -> LightningModule:
        return train(module, callbacks, DataLoader(TensorDataset(x, soft), batch_size=12))

    found = trained(Foreign(), [penalty()])
    for one, other in zip(trained(Foreign(extra=0.7), []).parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(DataError, match="one integer a sample"):
        train(Alone(), [penalty()], DataLoader(TensorDataset(x, soft[:, 0]), batch_size=12))


def test_the_number_of_classes_is_the_first_that_is_known() -> None:
    regularizer = ClasswiseVariance(0.7, num_classes=3, sync=False)
    by_hand = train(Foreign(extra=0.7), [])
    assert equal(by_hand, train(Foreign(), [LayerPenalty("encoder", regularizer)]))
    module = Foreign()
    module.num_classes = 50  # more than there are; the regularizer's counts
    assert equal(by_hand, train(module, [LayerPenalty("encoder", regularizer)]))

    class Data(LightningDataModule):
        num_classes = 3

        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(*samples()), batch_size=12)

    module = Foreign()
    module.num_classes = None  # unknown: the data module is asked
    assert equal(by_hand, train(module, [LayerPenalty("encoder", ClasswiseVariance(0.7, sync=False))], Data()))


class Twice(Foreign):
    """Two views a step; ``extra`` adds the squared weights by hand, once, or the variance of both views."""

    def __init__(self, extra: str = "") -> None:
        super().__init__()
        self.by_hand = extra

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        one, other = self.encoder(x), self.encoder(x + 1)
        loss = F.cross_entropy(self.classifier(one), y) + F.cross_entropy(self.classifier(other), y)
        if self.by_hand == "weights":
            loss = loss + 0.05 * self.encoder[0].weight.square().sum()
        if self.by_hand == "variance":
            loss = loss + Variance(0.3, sync=False)(one) + Variance(0.3, sync=False)(other)
        return loss


@pytest.mark.parametrize(
    ("by_hand", "callback"),
    [
        ("weights", LayerPenalty("encoder.0", L2Weight(0.05))),
        ("variance", LayerPenalty("encoder", Variance(0.3, sync=False))),
    ],
    ids=["weights once", "every output"],
)
def test_a_layer_that_is_called_twice(by_hand: str, callback: LayerPenalty) -> None:
    rows = Rows()
    found = train(Twice(), [callback], logger=rows, log_every_n_steps=1)
    for one, other in zip(train(Twice(by_hand), []).parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    if by_hand == "variance":  # what is logged is what is added: both views'
        module, (x, _) = Twice(), samples()
        with torch.no_grad():
            views = [Variance(0.3, sync=False)(module.encoder(view)) for view in (x[:12], x[:12] + 1)]
        assert rows.rows[0]["train/Variance/encoder"] == pytest.approx(float(sum(views)))


class Steps(Foreign):
    """Manual optimization that goes backward in several ways."""

    def __init__(self, way: str, extra: float = 0.0) -> None:
        super().__init__(extra, manual=True)
        self.way = way
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        x = x.clone().requires_grad_()
        z = self.encoder(x)
        loss = F.cross_entropy(self.classifier(z), y)
        term = cw_vr(z, y, 3, scale=self.extra) if self.extra else 0.0
        optimizer = self.optimizers()
        optimizer.zero_grad()
        if self.way == "two losses of one pass":
            self.manual_backward(loss + term, retain_graph=True)
            self.manual_backward(z.square().mean())
        elif self.way == "gradient by the input":
            (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
            self.seen.append(gradient)
            self.manual_backward(loss + term)
        elif self.way == "gradient penalty":
            (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
            self.manual_backward(loss + term + gradient.square().sum())
        else:
            (loss + term).backward()
        optimizer.step()


@pytest.mark.parametrize("way", ["two losses of one pass", "gradient by the input", "gradient penalty"])
def test_one_backward_pass_starts_the_penalty(way: str) -> None:
    by_hand, found = train(Steps(way, extra=0.7), []), train(Steps(way), [penalty()])
    for one, other in zip(by_hand.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for one, other in zip(by_hand.seen, found.seen, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert not equal(found, train(Steps(way), []))


class Frozen(Foreign):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        with torch.no_grad():
            z = self.encoder(x)
        return F.cross_entropy(self.classifier(z), y)


class CutOff(Foreign):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.classifier(self.encoder(x).detach()), y)


@pytest.mark.parametrize(
    ("module", "reason"),
    [(Frozen, "took no part"), (CutOff, r"cut off by detach\(\)"), (lambda: Steps("plain"), "without manual_backward")],
    ids=["no gradient", "detached", "bare backward"],
)
def test_a_penalty_without_effect_is_said_once(module: Any, reason: str) -> None:
    with pytest.warns(UserWarning, match=reason) as caught:
        train(module(), [penalty()], accumulate_grad_batches=1 if reason.startswith("without") else 2)
    assert sum("nothing was penalised" in str(one.message) for one in caught) == 1


def test_weights_that_are_unfrozen_later() -> None:
    class Thaw(Foreign):
        def on_train_epoch_start(self) -> None:
            self.encoder[0].requires_grad_(self.current_epoch > 0)

    class ByHand(Thaw):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) + 0.05 * sum(
                weight.square().sum() for weight in self.parameters() if weight.ndim == 2
            )

    found = train(Thaw(), [LayerPenalty("encoder.2", L2Weight(0.05, scope="all"))])
    for one, other in zip(train(ByHand(), []).parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_training_with_a_scaled_loss() -> None:
    """The loss scale of 16-bit precision reaches the penalty: with this one, single precision would be no other."""

    def scaled() -> MixedPrecision:
        return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=512.0))

    for manual in (False, True):
        by_hand = train(Foreign(extra=0.7, manual=manual), [], plugins=[scaled()])
        assert equal(by_hand, train(Foreign(manual=manual), [penalty()], plugins=[scaled()]))


def test_what_is_no_regularizer() -> None:
    with pytest.raises(ConfigError, match="needs a regularizer, such as"):
        LayerPenalty("encoder", nn.ReLU())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"layer 'encoder\.1': ReLU has no trained weights"):
        train(Foreign(), [LayerPenalty("encoder.1", L2Weight(0.1))])
    strings = DataLoader([(samples()[0][:12], ["a"] * 12)], batch_size=None)  # type: ignore[arg-type, var-annotated]
    with pytest.raises(DataError, match="one integer a sample, got list"):
        train(Foreign(), [penalty()], strings)


def test_messages_name_the_hooked_layer() -> None:
    callback = LayerPenalty("encoder.3", ClasswiseVariance(0.7), num_classes=2)
    with pytest.raises(ConfigError, match=r"on layer 'encoder\.3'"):
        train(Foreign(), [callback])


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="did you mean 'encoder'"):
        train(Foreign(), [LayerPenalty("encodr", Variance(weight=1.0))])
    with pytest.raises(ConfigError, match="needs the number of classes"):
        train(Foreign(), [LayerPenalty("encoder", ClasswiseVariance(weight=1.0))])
    with pytest.raises(ConfigError, match="unpack"):
        train(Foreign(), [penalty(unpack=("image", "label"))])
    with pytest.raises(ConfigError, match="accumulate"):
        penalty(accumulate=0)
