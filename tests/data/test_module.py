"""What every data module does with its options, and bad ones."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from numbered import Numbered, number_of

from lightning_repshape.data import (
    CASIAWebFaceDataModule,
    CIFAR10DataModule,
    DigitsDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    MNISTDataModule,
    SplitData,
    STL10DataModule,
    stratified,
)
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.seeding import generator


def test_validation_images_are_the_last_ones_or_a_stratified_draw(tmp_path: Path) -> None:
    last = Numbered(val_size=12)
    assert number_of(next(last.batches("val"))[0], last).tolist() == list(range(48, 60))
    assert number_of(next(last.batches("train", shuffle=False))[0], last).tolist() == list(range(48))
    drawn = Numbered(val_size=0.2, val_split="stratified")
    assert torch.bincount(drawn.labels("val")).tolist() == [2, 4, 6]
    numbers = [number_of(next(drawn.batches(split, shuffle=False))[0], drawn).tolist() for split in ("train", "val")]
    assert sorted(numbers[0] + numbers[1]) == list(range(60)) and numbers[1] == sorted(numbers[1]) != list(
        range(48, 60)
    )
    same = Numbered(val_size=0.2, val_split="stratified", seed=7)
    other = Numbered(val_size=0.2, val_split="stratified", split_seed=7)
    assert torch.equal(same.images("val"), drawn.images("val"))
    assert not torch.equal(other.images("val"), drawn.images("val"))


def test_stratified_draws_keep_shares_and_add_up() -> None:
    labels = torch.tensor([0] * 50 + [2] * 30 + [3] * 21)[torch.randperm(101, generator=generator("test"))]
    for count in range(102):
        rows = stratified(labels, count, seed=1)
        assert len(rows.unique()) == count == len(rows) and torch.equal(rows, rows.sort().values)
        shares = torch.bincount(labels[rows], minlength=4) - torch.bincount(labels).double() * count / 101
        assert shares.abs().max() < 1


def test_fewer_training_images() -> None:
    first = Numbered(train_size=7, val_size=20)
    assert number_of(next(first.batches("train", shuffle=False))[0], first).tolist() == list(range(7))
    assert len(first.labels("val")) == 20
    drawn = Numbered(train_size=4, train_subset="per-class", seed=1)
    assert torch.bincount(drawn.labels("train")).tolist() == [4, 4, 4]
    assert torch.equal(drawn.images("train"), Numbered(train_size=4, train_subset="per-class", seed=2).images("train"))
    moved = Numbered(train_size=4, train_subset="per-class", split_seed=3)
    assert not torch.equal(drawn.images("train"), moved.images("train"))


def test_absent_classes_are_pointed_out() -> None:
    with pytest.warns(UserWarning, match=r"no training image of 2 of 3 classes \('b', 'c'\)"):
        Numbered(train_size=1).setup("fit")


def test_class_balanced_draws() -> None:
    module = Numbered(augment="crop-flip", val_size=10)
    x, y = module.draw_class_balanced(30, generator("draw", 1))
    assert y.tolist() == [0] * 30 + [1] * 30 + [2] * 30 and x.shape == (90, 3, 8, 8)
    numbers = number_of(x, module)
    assert torch.equal(module.labels("train")[numbers], y)
    torch.testing.assert_close(x, module.normalize_images(module.images("train", numbers)), rtol=0, atol=0)
    assert numbers.unique().numel() > 35  # drawn from all 50
    again, _ = module.draw_class_balanced(30, generator("draw", 1))
    assert torch.equal(again, x)
    x, y = module.draw_class_balanced(8, generator("draw", 2), replacement=False)
    assert number_of(x, module).unique().numel() == 24 and torch.bincount(y).tolist() == [8, 8, 8]
    with pytest.raises(DataError, match="class 'a' has 9 training images, but 10 are to be drawn"):
        module.draw_class_balanced(10, generator("draw"), replacement=False)
    with pytest.raises(DataError, match="has 0 training images"), pytest.warns(UserWarning):
        Numbered(train_size=1).draw_class_balanced(1, generator("draw"))
    with pytest.raises(ConfigError, match="per_class=0"):
        module.draw_class_balanced(0, generator("draw"))


def test_class_balanced_draws_are_uniform() -> None:
    module = Numbered(val_size=0)
    x, _ = module.draw_class_balanced(20_000, generator("uniform"))
    counts = torch.bincount(number_of(x[:20_000], module), minlength=60)[0::6].double()
    assert counts.sum() == 20_000 and ((counts - 2000).abs() < 6 * 2000**0.5).all()


def test_checksums_name_the_data_in_use() -> None:
    module = Numbered(augment="crop-flip", val_size=10)
    module.setup()
    sums = module.checksums()
    assert sorted(sums) == sorted(f"{s}.{k}" for s in ("train", "val", "test") for k in ("images", "index", "labels"))
    digest = hashlib.blake2b(module.images("test").numpy().tobytes(), digest_size=16).hexdigest()
    assert sums["test.images"] == f"blake2b:{digest}"
    plain = Numbered(val_size=10)
    plain.setup("fit")
    assert plain.checksums()["train.images"] == sums["train.images"] and "test.images" not in plain.checksums()
    other = Numbered(val_size=11)
    other.setup("fit")
    assert other.checksums()["train.index"] != sums["train.index"]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"val_size": 60}, r"val_size=60 takes 60 images, but the training part has 60"),
        ({"val_size": 0.999}, r"val_size=0.999 takes 60 images"),
        ({"train_size": 61}, r"train_size=61, but there are 60 training images"),
        ({"train_size": 41, "val_size": 20}, r"there are 40 training images beside 20 for validation"),
        ({"train_size": 11, "train_subset": "per-class"}, r"of every class, but class 'a' has 10 training images"),
        ({"classes": ["a"], "val_size": 10}, r"the training part has 10"),
    ],
)
def test_sizes_larger_than_the_set(options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Numbered(**options).setup("fit")


def test_a_whole_float_is_a_number_of_images() -> None:
    assert MNISTDataModule("data", val_size=500.0).val_size == 500


@pytest.mark.parametrize(
    "options,message",
    [
        ({"batch_size": 0}, "batch_size=0, but it must be at least 1"),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"crop_padding": -1}, "crop_padding=-1"),
        ({"val_size": -1}, "val_size=-1"),
        ({"val_size": 1.0}, "a share must be below 1; write 1 for a number"),
        ({"train_size": 0}, "train_size=0"),
        ({"classes": []}, "no class is left"),
        ({"classes": 0}, "must be 1 to 10"),
        ({"classes": 11}, "must be 1 to 10"),
        ({"classes": ["aeroplane"]}, "unknown class 'aeroplane'; did you mean 'airplane'"),
        ({"classes": ["cat", "cat"]}, "names 'cat' twice"),
        ({"classes": [3, "cat"]}, "names 'cat' twice"),
        ({"classes": [10]}, "label 10, but labels go from 0 to 9"),
        ({"augment": "crop_flip"}, "augment='crop_flip'; did you mean 'crop-flip'"),
        ({"normalize": "unity"}, "did you mean 'unit'"),
        ({"val_split": "first"}, "val_split='first'"),
        ({"train_subset": "last"}, "train_subset='last'"),
    ],
)
def test_options_that_cannot_be(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CIFAR10DataModule(**options)


def test_splits_that_are_not_there() -> None:
    with pytest.raises(DataError, match="no validation images, because val_size is 0"):
        list(Numbered().batches("val"))
    with pytest.raises(ConfigError, match="unknown split 'tests'; did you mean 'test'"):
        Numbered().labels("tests")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="numbered cannot be downloaded"):
        Numbered(download=True).prepare_data()


def test_a_reader_that_delivers_something_else() -> None:
    class Wrong(Numbered):
        def load_split(self, split: Any) -> SplitData:
            return SplitData(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))

    with pytest.raises(DataError, match=r"images of \(3, 8, 8\) and 4 labels, expected images of \(8, 8, 3\)"):
        Wrong().setup("fit")


@pytest.mark.parametrize(
    "cls,defaults",
    [
        (CIFAR10DataModule, {}),
        (DigitsDataModule, {"crop_padding": 1}),
        (STL10DataModule, {"crop_padding": 12, "fold": None}),
        (ImageFolderDataModule, {"train_subset": "per-class", "image_size": 64}),
        (CASIAWebFaceDataModule, {"augment": "flip", "eval_batch_size": 512, "fit": "crop"}),
    ],
)
def test_the_parser_sees_every_option_with_its_default(cls: Any, defaults: dict[str, Any]) -> None:
    def options(of: Any) -> dict[str, Any]:
        parser = ArgumentParser()
        parser.add_class_arguments(of, "data")
        return vars(parser.get_defaults().data)

    without = {
        DigitsDataModule: {"root", "download", "memory_budget_gb", "cache_dir"},
        ImageFolderDataModule: {"download"},
        CASIAWebFaceDataModule: {"download", "renumber"},
    }.get(cls, set())
    shared = {name: value for name, value in options(ImageDataModule).items() if name not in without}
    found = options(cls)
    assert shared.keys() <= found.keys() and not without & found.keys()
    assert {name: found[name] for name in shared | defaults} == shared | defaults


def test_a_batch_above_the_whole_set_is_told() -> None:
    with pytest.warns(UserWarning, match="batch_size=61 is above the 60 training images: every epoch is one batch"):
        assert len(Numbered(batch_size=61).train_dataloader()) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Numbered(batch_size=60).train_dataloader()) == 1


def test_a_hole_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cutout=9, but images are 8 x 8 pixels"):
        DigitsDataModule(cutout=9)
    DigitsDataModule(cutout=8)


@pytest.mark.parametrize(("size", "given", "wanted"), [(96, 1000, 1000), (224, 1000, 222), (224, 64, 64), (9000, 9, 1)])
def test_evaluation_batches_of_large_images_are_smaller(size: int, given: int, wanted: int, tmp_path: Path) -> None:
    (tmp_path / "train" / "ant").mkdir(parents=True)
    data = ImageFolderDataModule(str(tmp_path), image_size=size, eval_batch_size=given)
    assert data.eval_batch_size == wanted
    assert wanted == 1 or wanted * 3 * size * size * 4 <= 2**27
