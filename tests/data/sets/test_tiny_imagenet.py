"""Tiny ImageNet's folders, whole and not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_formats import write_tiny

from lightning_repshape.data import (
    TinyImageNetDataModule,
)
from lightning_repshape.errors import DataError


def test_tiny_imagenet_with_few_classes(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny-imagenet-200")
    for root in (tmp_path, tmp_path / "tiny-imagenet-200"):
        module = TinyImageNetDataModule(root=str(root))
        assert module.class_names == ("goldfish", "crane (n02)", "crane (n03)")
        assert {split: len(module.labels(split)) for split in ("train", "val", "test")} == {
            "train": 27,
            "val": 3,
            "test": 6,
        }
    assert sorted(module.labels("val").tolist()) == [0, 1, 2]
    assert module.labels("test").tolist() == [1, 1, 0, 0, 2, 2]
    path = Path(module.sample_name("test", 2))
    assert path.name == "val_2.JPEG"
    assert np.array_equal(module.images("test")[2], np.asarray(Image.open(path)))
    grey = next(i for i in range(27) if module.sample_name("train", i).endswith("n01_3.JPEG"))
    image = module.images("train")[grey]
    assert torch.equal(image[..., 0], image[..., 2])
    chosen = TinyImageNetDataModule(root=str(tmp_path), classes=["n03", "goldfish"])
    assert chosen.class_names == ("crane (n03)", "goldfish") and sorted(chosen.labels("test").tolist()) == [0, 0, 1, 1]


def test_tiny_imagenet_bad_folders(tmp_path: Path) -> None:
    assert TinyImageNetDataModule(root=str(tmp_path)).num_classes == 200
    with pytest.raises(DataError, match=r"Tiny ImageNet is not there.*TinyImageNetDataModule\(download=True\)"):
        TinyImageNetDataModule(root=str(tmp_path)).prepare_data()
    write_tiny(tmp_path)
    (tmp_path / "val" / "images" / "val_2.JPEG").unlink()
    with pytest.raises(DataError, match=r"not there, such as .*val_2.JPEG"):
        TinyImageNetDataModule(root=str(tmp_path)).setup("test")
    for path in (tmp_path / "train" / "n01" / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no images of class n01"):
        TinyImageNetDataModule(root=str(tmp_path)).setup("fit")
