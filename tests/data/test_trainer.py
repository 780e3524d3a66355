"""The data modules under Lightning's Trainer: hooks, resuming, worker processes, ranks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_repshape.data import DigitsDataModule, ImageDataModule, ImageSet, RawBatch, SplitData
from lightning_repshape.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Small(ImageDataModule):
    """Thirty training images of noise and seven for the test."""

    def describe(self) -> ImageSet:
        return ImageSet("small", ("a", "b"), (3, 8, 8), (0.5,) * 3, (0.25,) * 3, largest=30)

    def load_split(self, split: Any) -> SplitData:
        count = 30 if split == "train" else 7
        source = torch.Generator().manual_seed(count)
        images = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=source)
        return SplitData(images, torch.arange(count) % 2)


class Recorder(LightningModule):
    """Keeps every batch that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(192, 2)
        self.seen: dict[str, list[tuple[int, tuple[Tensor, ...]]]] = {"train": [], "val": [], "test": [], "predict": []}

    def step(self, stage: str, batch: tuple[Tensor, ...]) -> Tensor:
        self.seen[stage].append((self.current_epoch, batch))
        return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def training_step(self, batch: tuple[Tensor, ...]) -> Tensor:
        return self.step("train", batch)

    def validation_step(self, batch: tuple[Tensor, ...]) -> None:
        self.step("val", batch)

    def test_step(self, batch: tuple[Tensor, ...]) -> None:
        self.step("test", batch)

    def predict_step(self, batch: tuple[Tensor, ...]) -> Tensor:
        self.step("predict", batch[:2])
        return batch[2]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def trainer(root: Path, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "default_root_dir": root,
        "max_epochs": 3,
    }
    return Trainer(**{**defaults, **options})


def data(**options: Any) -> Small:
    return Small(**{"batch_size": 8, "eval_batch_size": 5, "augment": "crop-flip", "seed": 3, **options})


def test_every_stage_gets_ready_batches(tmp_path: Path) -> None:
    model, module = Recorder(), data(val_size=6)
    run = trainer(tmp_path)
    run.fit(model, datamodule=module)
    run.test(model, datamodule=module)
    indices = run.predict(model, datamodule=module)
    assert torch.cat(indices).tolist() == list(range(7))  # type: ignore[arg-type]
    for stage, count in (
        ("train", 9),
        ("val", 8),
        ("test", 2),
        ("predict", 2),
    ):  # two validation batches before training
        assert len(model.seen[stage]) == count
        for _, (x, y) in model.seen[stage]:
            assert x.dtype == torch.float32 and y.dtype == torch.int64 and x.shape[1:] == (3, 8, 8)
            assert x.is_contiguous(memory_format=torch.channels_last)
    for epoch in range(3):
        expected = list(module.batches("train", epoch=epoch))
        found = [batch for seen_epoch, batch in model.seen["train"] if seen_epoch == epoch]
        for (x, y), (other_x, other_y) in zip(found, expected, strict=True):
            assert torch.equal(x, other_x) and torch.equal(y, other_y)
    x, y = model.seen["test"][0][1]
    assert torch.equal(x, module.normalize_images(module.images("test")[:5]))
    assert torch.equal(module.draw_class_balanced(2, torch.Generator())[1], torch.tensor([0, 0, 1, 1]))


def test_loaders_work_without_the_module(tmp_path: Path) -> None:
    module, other = data(), DigitsDataModule()
    model = Recorder()
    trainer(tmp_path, max_epochs=1).fit(model, train_dataloaders=module.train_dataloader())
    for (_, (x, _)), (expected, _) in zip(model.seen["train"], module.batches("train"), strict=True):
        assert torch.equal(x, expected)
    # Another module's hooks take a batch for what it is.
    batch = next(iter(module.analysis_dataloader("test")))
    other.setup("test")
    moved = other.transfer_batch_to_device(batch, torch.device("cpu"), 0)
    x, _ = other.on_after_batch_transfer(moved, 0)
    assert torch.equal(x, module.normalize_images(module.images("test")[:5]))
    foreign = (torch.ones(2), torch.zeros(2))
    assert other.on_after_batch_transfer(foreign, 0) is foreign
    assert torch.equal(other.transfer_batch_to_device(foreign, torch.device("cpu"), 0)[0], foreign[0])
    with pytest.raises(TypeError, match="belongs to no data set"):
        RawBatch(None, torch.tensor([0]), torch.tensor([0]), None, None).to("cpu")


def test_no_validation_images(tmp_path: Path) -> None:
    model = Recorder()
    trainer(tmp_path, max_epochs=1).fit(model, datamodule=data(val_size=0))
    assert model.seen["val"] == [] and len(model.seen["train"]) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_the_same_batches(tmp_path: Path, workers: int) -> None:
    whole = Recorder()
    keep = ModelCheckpoint(tmp_path, filename="first", every_n_epochs=1, save_top_k=1, monitor=None)
    trainer(tmp_path, max_epochs=1, callbacks=[keep], enable_checkpointing=True).fit(Recorder(), datamodule=data())
    trainer(tmp_path).fit(whole, datamodule=data())
    resumed = Recorder()
    trainer(tmp_path).fit(resumed, datamodule=data(num_workers=workers), ckpt_path=keep.best_model_path)
    expected = [batch for epoch, batch in whole.seen["train"] if epoch > 0]
    found = [batch for _, batch in resumed.seen["train"]]
    assert len(found) == 8
    for (x, y), (other_x, other_y) in zip(found, expected, strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


def test_overfitting_on_few_batches(tmp_path: Path) -> None:
    model = Recorder()
    trainer(tmp_path, overfit_batches=2, max_epochs=2).fit(model, datamodule=data(val_size=10))
    epochs = [[x for seen, (x, _) in model.seen["train"] if seen == epoch] for epoch in range(2)]
    assert len(epochs[0]) == len(epochs[1]) == 2
    for first, second in zip(*epochs, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_images(ranks: int) -> None:
    modules = [data(val_size=7) for _ in range(ranks)]
    for rank, module in enumerate(modules):
        module.trainer = SimpleNamespace(world_size=ranks, global_rank=rank)  # type: ignore[assignment]
        module.prepare_data()
        module.setup("fit")
    train = [[batch.indices for batch in module.train_dataloader()] for module in modules]
    assert len({len(batches) for batches in train}) == 1
    assert torch.cat([torch.cat(batches) for batches in train]).unique().tolist() == list(range(23))
    for split, count in (("val", 7), ("test", 7), ("train", 23)):
        parts = [[b.indices for b in module.analysis_dataloader(split)] for module in modules]  # type: ignore[arg-type]
        together = torch.cat([torch.cat(batches) for batches in parts])
        assert together.sort().values.tolist() == list(range(count))
    assert sum(len(b.indices) for b in modules[1].analysis_dataloader("test", shard=False)) == 7
    # A sample's augmentation is the same whichever rank it falls to.
    alone = data(val_size=7)
    alone.setup("fit")
    expected = {}
    for batch in alone.train_dataloader():
        expected.update(zip(batch.indices.tolist(), batch.to("cpu")[0], strict=True))
    for module in modules:
        for batch in module.train_dataloader():
            for index, x in zip(batch.indices.tolist(), batch.to("cpu")[0], strict=True):
                assert torch.equal(x, expected[index])


def test_more_ranks_than_samples() -> None:
    module = data(val_size=3)
    module.trainer = SimpleNamespace(world_size=4, global_rank=0)  # type: ignore[assignment]
    module.setup("fit")
    module.train_dataloader()
    with pytest.raises(DataError, match="4 ranks share 3 samples"):
        module.val_dataloader()


def test_a_batch_for_another_device_is_finished_there() -> None:
    # The meta device holds no numbers, but refuses tensors that are elsewhere, as an accelerator does.
    for augment in ("none", "flip", "shift", "crop-flip"):
        batch = next(iter(data(augment=augment).train_dataloader()))
        x, y = batch.to("meta")
        assert x.device.type == y.device.type == "meta" and x.shape == (8, 3, 8, 8)
        assert x.is_contiguous(memory_format=torch.channels_last)
    x, y = data().draw_class_balanced(2, torch.Generator(), device="meta")
    assert x.device.type == y.device.type == "meta"
