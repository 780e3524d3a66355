"""Memberships as of mixup and CutMix, labels of other tasks, precisions with plain loaders, and small last batches."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape import (
    ClassVectorModule,
    ClasswiseVariance,
    DigitsDataModule,
    FeedBackwardModule,
    FOCAModule,
    RegularizedModule,
    SupervisedModule,
)
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.functional import feed_backward_loss
from lightning_repshape.losses import ArcFace, CenterLoss, ClassificationLoss, CosFace, L2Softmax, LargeMarginSoftmax
from lightning_repshape.networks import MLP

K, SHAPE = 3, (1, 4, 4)
SMALL = partial(MLP, widths=(8, 5))
LOSSES = [ArcFace, CenterLoss, CosFace, L2Softmax, LargeMarginSoftmax]


def trainer(**options: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(**{"max_epochs": 1, "accelerator": "cpu", **quiet, **options})


def mixed(one_hot: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, memberships, and the class of the largest."""
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, *SHAPE, generator=source), torch.arange(12) % K
    share = 1.0 if one_hot else 0.7
    return x, share * F.one_hot(y, K).float() + (1 - share) * F.one_hot((y + 1) % K, K), y


def modules() -> dict[str, SupervisedModule]:
    torch.manual_seed(0)
    made: dict[str, Any] = {
        "supervised": SupervisedModule(K, SHAPE, SMALL, label_smoothing=0.1),
        "squared": SupervisedModule(K, SHAPE, SMALL, classification_loss="squared"),
        "regularized": RegularizedModule(K, SHAPE, SMALL, [ClasswiseVariance(weight=0.5)]),
        "class vectors": ClassVectorModule(K, SHAPE, SMALL),
    }
    for loss in LOSSES:
        made[loss.__name__] = FeedBackwardModule(
            K, SHAPE, SMALL, head=partial(_linear_head, bias=loss.takes_bias), classification_loss=loss,
            reconstruction_weight=0.5,
        )  # fmt: skip
    return made


def _linear_head(num_features: int, num_classes: int, bias: bool) -> nn.Module:
    from lightning_repshape.heads import LinearHead

    return LinearHead(num_features, num_classes, bias=bias)


@pytest.mark.parametrize("name", modules())
def test_one_hot_memberships_train_as_indices_do(name: str) -> None:
    x, soft, y = mixed(one_hot=True)
    weights = []
    for labels in (y, soft):
        module = modules()[name]
        run = trainer()
        run.fit(module, DataLoader(TensorDataset(x, labels), batch_size=6))
        run.test(module, DataLoader(TensorDataset(x, labels), batch_size=6), verbose=False)
        weights.append(([p.detach() for p in module.parameters()], float(run.callback_metrics["test/error"])))
    for one, other in zip(*(parameters for parameters, _ in weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert weights[0][1] == weights[1][1]


def test_the_loss_of_memberships_is_torchs_own_and_errors_count_against_the_largest() -> None:
    x, soft, y = mixed()
    module = SupervisedModule(K, SHAPE, SMALL)
    run = trainer()
    run.test(module, DataLoader(TensorDataset(x, soft.double()), batch_size=12), verbose=False)
    logits = module(x).logits
    assert float(run.callback_metrics["test/loss"]) == pytest.approx(float(F.cross_entropy(logits, soft)), rel=1e-5)
    wrong = float((logits.argmax(1) != y).float().mean())
    assert float(run.callback_metrics["test/error"]) == pytest.approx(wrong)


@pytest.mark.parametrize("kind", LOSSES)
def test_margins_count_in_proportion_to_memberships(kind: type[ClassificationLoss]) -> None:
    source = torch.Generator().manual_seed(3)
    x, weight = (torch.randn(n, 4, generator=source, dtype=torch.float64) for n in (6, K))
    y = torch.arange(6) % K
    loss = kind(4, K).double().eval()
    soft = 0.6 * F.one_hot(y, K).double() + 0.4 * F.one_hot((y + 1) % K, K)
    one, other = (loss.training_logits(x, weight, None, labels) for labels in (y, (y + 1) % K))
    plain = loss.logits(x, weight)
    wanted = F.cross_entropy(plain + 0.6 * (one - plain) + 0.4 * (other - plain), soft)
    further = [loss.further(x, labels) for labels in (y, (y + 1) % K)]
    if further[0] is not None and further[1] is not None:
        wanted = wanted + 0.6 * further[0] + 0.4 * further[1]
    torch.testing.assert_close(loss(x, weight, None, soft), wanted)


def test_centers_follow_memberships() -> None:
    x, soft = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    loss = CenterLoss(2, 2, rate=1.0)
    loss.further(x.requires_grad_(), soft)
    torch.testing.assert_close(loss.centers, torch.tensor([[1.5 / 1.75, 0.0], [0.5 / 2.25, 4.0 / 2.25]]))


def test_feed_backward_reconstruction_of_memberships_is_the_classes_mean() -> None:
    source = torch.Generator().manual_seed(3)
    x, weight = (torch.randn(n, 4, generator=source, dtype=torch.float64) for n in (6, K))
    y = torch.arange(6) % K
    soft = 0.6 * F.one_hot(y, K).double() + 0.4 * F.one_hot((y + 1) % K, K)
    wanted = 0.6 * feed_backward_loss(x, weight, y) + 0.4 * feed_backward_loss(x, weight, (y + 1) % K)
    torch.testing.assert_close(feed_backward_loss(x, weight, soft), wanted)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(4, 4, 4, dtype=torch.int64), "a label for every pixel, as in segmentation"),
        (torch.zeros(4, K, 4, 4), "a label for every pixel, as in segmentation"),
        (torch.tensor([[1.0, 1.0, 0.0]] * 4), "multi-hot labels"),
        (torch.tensor([[1, 1, 0]] * 4), "integer labels must have shape"),
        (torch.rand(4, K + 1), "soft labels must have shape"),
    ],
)
def test_labels_of_other_tasks_are_refused(labels: Tensor, message: str) -> None:
    loader = DataLoader(TensorDataset(torch.randn(4, *SHAPE), labels), batch_size=4)
    for run in (trainer().fit, partial(trainer().test, verbose=False)):
        with pytest.raises(DataError, match=message):
            run(SupervisedModule(K, SHAPE, SMALL), loader)
    with pytest.raises(DataError):
        trainer().fit(FOCAModule(K, SHAPE, SMALL), loader)


def test_a_penalty_takes_multi_hot_labels_with_a_word() -> None:
    with pytest.warns(UserWarning, match="multi-hot"):
        ClasswiseVariance(1.0, num_classes=2)(torch.randn(3, 2), torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))


class Plain(LightningModule):
    """Somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        assert batch[0].dtype == self.dtype and len(self.net(batch[0])) == len(batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true", "bf16-mixed", "32-true"])
@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_every_precision_with_plain_loaders(precision: str, kind: str) -> None:
    data = DigitsDataModule(batch_size=256, augment="shift", crop_padding=1)
    weights = []
    for plain in (True, False):
        torch.manual_seed(0)
        module = SupervisedModule(10, (1, 8, 8), SMALL) if kind == "ours" else Plain()
        run = trainer(precision=precision, num_sanity_val_steps=0)
        if plain:
            run.fit(module, data.train_dataloader(), data.val_dataloader())
        else:
            run.fit(module, data)
        weights.append([parameter.detach() for parameter in module.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_a_last_batch_of_one_sample_under_batch_normalisation_names_the_remedy() -> None:
    x, _, y = mixed()
    for module in (SupervisedModule, FOCAModule):
        made = module(K, SHAPE, partial(SMALL, batch_norm=True))
        with pytest.raises(ConfigError, match="drop_last"):
            trainer().fit(made, DataLoader(TensorDataset(x[:10], y[:10]), batch_size=9))


def test_finders_find_learning_rate_and_batch_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = SupervisedModule(10, (1, 8, 8), SMALL)
    assert module.lr == 0.001  # Adam's own
    finder = LearningRateFinder(num_training_steps=20)
    run = trainer(callbacks=[finder], default_root_dir=tmp_path, max_epochs=1, num_sanity_val_steps=0)
    run.fit(module, DigitsDataModule(batch_size=64))
    assert finder.optimal_lr is not None
    found = finder.optimal_lr.suggestion()
    assert module.lr == found == run.optimizers[0].param_groups[0]["lr"] != 0.001
    data = DigitsDataModule(batch_size=2)
    sizes = BatchSizeFinder(max_trials=2, steps_per_trial=1)
    trainer(callbacks=[sizes], default_root_dir=tmp_path, num_sanity_val_steps=0).fit(
        SupervisedModule(10, (1, 8, 8), SMALL), data
    )
    assert data.batch_size == sizes.optimal_batch_size > 2
