"""Folders of images, whole and not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published_formats import pixels, write_folder

from lightning_repshape.data import (
    ImageFolderDataModule,
    ImageFolderSet,
)
from lightning_repshape.errors import ConfigError, DataError


def test_image_folder(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train" / "ant" / "deeper").mkdir()
    Image.fromarray(pixels(12, 12)).save(tmp_path / "train" / "ant" / "deeper" / "x.pgm")
    (tmp_path / "train" / "bee" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "bee" / ".DS_Store").write_text("no image")
    module = ImageFolderDataModule(root=str(tmp_path), image_size=(12, 10))
    assert (module.num_classes, module.class_names, module.input_shape) == (3, ("ant", "bee", "cat"), (3, 12, 10))
    with pytest.warns(UserWarning, match=r"left out 1 file\(s\) that are no images: .*notes.txt"):
        module.setup()
    assert [len(module.labels(split)) for split in ("train", "val", "test")] == [28, 3, 30]
    assert sorted(module.labels("val").tolist()) == [0, 1, 2]
    path = module.sample_name("test", 14)
    assert path == str(tmp_path / "test" / "bee" / "04.png")
    expected = np.asarray(Image.open(path).resize((10, 12), Image.Resampling.BILINEAR))
    assert np.array_equal(module.images("test")[14], expected)
    grey = ImageFolderDataModule(root=str(tmp_path), image_size=8, channels=1, fit="crop", val_size=0)
    assert grey.images("test").shape == (30, 8, 8, 1) and len(grey.mean) == 1
    assert grey.val_dataloader() == []


def test_image_folder_with_validation_and_prediction_folders(tmp_path: Path) -> None:
    write_folder(tmp_path, ("train", "val"), per_class=4)
    (tmp_path / "new").mkdir()
    for number in range(3):
        Image.fromarray(pixels(9, 9, 3, seed=number)).save(tmp_path / "new" / f"{number}.png")
    module = ImageFolderDataModule(root=str(tmp_path), image_size=9, predict_dir=str(tmp_path / "new"))
    module.prepare_data()
    module.setup("fit")
    assert [len(module.labels(split)) for split in ("train", "val")] == [12, 12]
    assert module.sample_name("val", 0) == str(tmp_path / "val" / "ant" / "00.png")
    module.setup("predict")
    batch = next(iter(module.predict_dataloader()))
    x, y, index = batch.to("cpu")
    assert (x.shape, y.tolist(), index.tolist()) == ((3, 3, 9, 9), [-1, -1, -1], [0, 1, 2])
    assert module.sample_name("predict", 2) == str(tmp_path / "new" / "2.png")
    with pytest.raises(DataError, match=r"no folder .*test"):
        module.setup("test")
    assert ImageFolderDataModule(root=str(tmp_path), val_size=0).val_dataloader() == []
    with pytest.raises(ConfigError, match=r"val holds validation images; leave val_size out"):
        ImageFolderDataModule(root=str(tmp_path), val_size=3)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*train; set root"):
        ImageFolderDataModule(root=str(tmp_path))
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="has no class folders"):
        ImageFolderDataModule(root=str(tmp_path))
    (tmp_path / "train").rmdir()
    write_folder(tmp_path)
    (tmp_path / "test" / "cats").mkdir()
    with pytest.raises(DataError, match=r"cats is a class that .*train lacks; did you mean 'cat'"):
        ImageFolderDataModule(root=str(tmp_path)).setup("test")
    (tmp_path / "test" / "cats").rename(tmp_path / "train" / "dog")
    with pytest.raises(DataError, match=r"no images in the class folder .*dog; fill or remove it"):
        ImageFolderDataModule(root=str(tmp_path)).setup("fit")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in .*empty"):
        ImageFolderDataModule(root=str(tmp_path), predict_dir=str(tmp_path / "empty")).setup("predict")


def test_image_folder_options_that_cannot_be(tmp_path: Path) -> None:
    write_folder(tmp_path, per_class=1)
    options: Any
    for options, message in (
        ({"image_size": 0}, "image_size=0"),
        ({"channels": 2}, "channels=2"),
        ({"fit": "squash"}, "fit='squash'"),
        ({"mean": (0.5,)}, "has 1 values for 3 channel"),
        ({"std": (0.0, 1.0, 1.0)}, "must be positive"),
    ):
        with pytest.raises(ConfigError, match=message):
            ImageFolderDataModule(root=str(tmp_path), **options)


def test_a_set_that_lies_one_folder_further_down_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "good")
    (tmp_path / "twice" / "train").mkdir(parents=True)
    (tmp_path / "good" / "train").rename(tmp_path / "twice" / "train" / "train")
    with pytest.raises(
        DataError, match=r"3 folder\(s\) \(ant, bee, cat\): the classes are those of .*twice.train.train"
    ):
        ImageFolderDataModule(root=str(tmp_path / "twice"))
    (tmp_path / "twice" / "train" / "test").mkdir()
    with pytest.raises(DataError, match=r"named as parts of a set \(test, train\); set root to .*twice.train"):
        ImageFolderDataModule(root=str(tmp_path / "twice"))
    with pytest.raises(DataError, match=r"no folder .*train; set root to the folder .*such as .*twice$"):
        ImageFolderDataModule(root=str(tmp_path))
    with pytest.raises(DataError, match=r"outer holds the folder .photos. alone.*set root to it"):
        write_folder(tmp_path / "outer", ("photos",))
        ImageFolderSet(str(tmp_path / "outer")).open(("ant", "bee", "cat"), (3, 8, 8))


def test_what_an_archive_of_a_mac_adds_is_no_class(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train" / "__MACOSX").mkdir()
    assert ImageFolderDataModule(root=str(tmp_path)).class_names == ("ant", "bee", "cat")


def test_integers_that_name_folders_are_ambiguous(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "train" / str(number)).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "train" / str(number) / "x.png")
    for classes in ([2, 10], [0, 10], [11]):
        with pytest.raises(ConfigError, match="classes are named by integers"):
            ImageFolderDataModule(root=str(tmp_path), classes=classes)
    assert ImageFolderDataModule(root=str(tmp_path), classes=["2", "10"]).class_names == ("2", "10")
    assert ImageFolderDataModule(root=str(tmp_path), classes=[0, 1]).class_names == ("0", "1")  # one meaning only
    assert ImageFolderDataModule(root=str(tmp_path), classes=2).num_classes == 2
