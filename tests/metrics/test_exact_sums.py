"""Sums in float64 stay float64 wherever their module goes: the dtype follows no ``module.to(...)``, nor ``reset()``."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_repshape import MLP, DigitsDataModule, SupervisedModule, metrics
from lightning_repshape.metrics import ClassificationSums, ExactSums

MADE: dict[str, Callable[[], ExactSums]] = {
    "ClassCosines": metrics.ClassCosines,
    "ClassMeans": lambda: metrics.ClassMeans(3, 4),
    "ClassificationSums": metrics.ClassificationSums,
    "LDAEigenvalueMetric": lambda: metrics.LDAEigenvalueMetric(3, 4, shift=0.1),
    "PairFeatures": lambda: metrics.PairFeatures(5, 4),
    "ReconstructionSums": metrics.ReconstructionSums,
    "RepresentationStatistics": lambda: metrics.RepresentationStatistics(3, 4, pairs=True, shift=0.1),
    "ScatterMetric": lambda: metrics.ScatterMetric(3, 4, shift=0.1),
    "VerificationMetric": metrics.VerificationMetric,
    "WeightSeparabilityMetric": metrics.WeightSeparabilityMetric,
}


def tensors(metric: ExactSums) -> dict[str, Tensor]:
    named: dict[str, Any] = {name: getattr(metric, name) for name in metric._defaults}
    named |= {f"default of {name}": value for name, value in metric._defaults.items()} | dict(metric.named_buffers())
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def test_every_metric_is_one() -> None:
    known = {name for name in metrics.__all__ if inspect.isclass(getattr(metrics, name))} - {"ExactSums"}
    assert known == set(MADE)
    assert all(issubclass(getattr(metrics, name), ExactSums) for name in known)


@pytest.mark.parametrize("convert", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.float()])
@pytest.mark.parametrize("name", MADE)
def test_no_conversion_makes_sums_coarser(name: str, convert: Callable[[nn.Module], nn.Module]) -> None:
    metric = MADE[name]()
    before = {key: value.clone() for key, value in tensors(metric).items()}
    convert(nn.ModuleList([metric]))
    metric.reset()
    after = tensors(metric)
    assert after.keys() == before.keys()
    for key, value in after.items():
        assert value.dtype == before[key].dtype, key
        assert torch.equal(value, before[key]), key


def test_rows_stay_exact() -> None:
    metric = metrics.VerificationMetric()
    score = torch.tensor([1 / 3], dtype=torch.float64)
    metric.update(score, torch.tensor([True]), torch.tensor([0]))
    nn.ModuleList([metric]).to(torch.bfloat16)
    assert metric.rows[0].dtype == torch.float64
    assert metric.rows[0].flatten()[0] == score[0]


def test_500_updates_after_a_reset() -> None:
    sums = ClassificationSums()
    nn.ModuleList([sums]).to(torch.bfloat16)
    sums.reset()
    for _ in range(500):
        sums.update(torch.tensor(2.3), torch.eye(2), torch.tensor([0, 1]))
    assert float(sums.compute()["loss"]) == pytest.approx(2.3, abs=1e-6)


def test_held_batches_give_the_same_sums_however_many_fit() -> None:
    stream = torch.Generator().manual_seed(0)
    one, held = ClassificationSums(), ClassificationSums()
    for size in (100, 100, 7, 3000, 1):
        logits = torch.randn(size, 100, generator=stream)
        target = torch.randint(100, (size,), generator=stream)
        batch = nn.functional.cross_entropy(logits, target), logits, target if size != 7 else logits.softmax(dim=1)
        one.update(*batch)
        held.hold(*batch)
    assert int(held.count) == 3207 and int(held.update_count) == 1  # 300,000 numbers were enough
    assert held.compute() == one.compute() and int(held.count) == 3208
    held.hold(*batch)
    held.reset()
    assert int(held.count) == 0 and not held.update_called
    held.settle()
    assert int(held.count) == 0


def test_the_mean_loss_of_a_bfloat16_training(tmp_path: Any) -> None:
    losses: list[float] = []

    class Watched(SupervisedModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            losses.append(float(loss.detach()) * len(batch[1]))
            return loss

    data = DigitsDataModule(batch_size=100)
    module = Watched(10, (1, 8, 8), backbone=MLP)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        precision="bf16-true",
        max_epochs=2,  # the second follows a reset
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(module, data)
    last = losses[len(losses) // 2 :]
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(
        sum(last) / len(data.train_dataloader().dataset), rel=1e-5
    )
