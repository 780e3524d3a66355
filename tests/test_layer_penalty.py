"""LayerPenalty equals adding the term to the loss, in modules that know nothing of it."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape import ClasswiseCovariance, ClasswiseVariance, L2Weight, Variance
from lightning_repshape.callbacks import LayerPenalty
from lightning_repshape.errors import ConfigError
from lightning_repshape.functional import cw_vr


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
    trainer = Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks, accelerator="cpu", **options,
    )  # fmt: skip
    trainer.fit(module, loader or DataLoader(TensorDataset(*samples()), batch_size=12))
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


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="did you mean 'encoder'"):
        train(Foreign(), [LayerPenalty("encodr", Variance(weight=1.0))])
    with pytest.raises(ConfigError, match="needs the number of classes"):
        train(Foreign(), [LayerPenalty("encoder", ClasswiseVariance(weight=1.0))])
    with pytest.raises(ConfigError, match="unpack"):
        train(Foreign(), [penalty(unpack=("image", "label"))])
    with pytest.raises(ConfigError, match="accumulate"):
        penalty(accumulate=0)
