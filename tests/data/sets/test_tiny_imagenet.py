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


@pytest.mark.parametrize("images", ["images", ""])
@pytest.mark.parametrize("validation", ["annotations", "folders"])
def test_tiny_imagenet_as_it_is_passed_around(tmp_path: Path, images: str, validation: str) -> None:
    write_tiny(tmp_path)
    published = TinyImageNetDataModule(root=str(tmp_path), val_size=0)
    expected = {split: published.load_split(split) for split in ("train", "test")}  # type: ignore[arg-type]
    pixels = {
        split: part.images.decode() for split, part in expected.items() if not isinstance(part.images, torch.Tensor)
    }
    folders = [*(path for path in (tmp_path / "train").iterdir())]
    if validation == "folders":
        for line in (tmp_path / "val" / "val_annotations.txt").read_text().splitlines()[:-1]:
            name, wnid = line.split("\t")[:2]
            target = tmp_path / "val" / wnid / images
            target.mkdir(parents=True, exist_ok=True)
            (tmp_path / "val" / "images" / name).rename(target / name)
        (tmp_path / "val" / "images").rmdir()
        (tmp_path / "val" / "val_annotations.txt").unlink()
    else:
        folders.append(tmp_path / "val")
    if not images:
        for folder in folders:
            for path in (folder / "images").iterdir():
                path.rename(folder / path.name)
            (folder / "images").rmdir()
    module = TinyImageNetDataModule(root=str(tmp_path), val_size=0)
    assert torch.equal(module.images("train"), pixels["train"])
    order = expected["test"].labels.argsort(stable=True) if validation == "folders" else torch.arange(6)
    assert torch.equal(module.images("test"), pixels["test"][order])
    assert torch.equal(module.labels("test"), expected["test"].labels[order])
    if validation == "folders":
        (tmp_path / "val" / "n01").rename(tmp_path / "val" / "n77")
        with pytest.raises(DataError, match="no folder of class n01"):
            TinyImageNetDataModule(root=str(tmp_path)).load_split("test")


@pytest.mark.parametrize("name", ["wnids.txt", "val/val_annotations.txt"])
def test_lists_with_a_null_byte_are_refused(tmp_path: Path, name: str) -> None:
    write_tiny(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes().replace(b"n02", b"n\0", 1))
    with pytest.raises(DataError, match=rf"{path.name}: line \d+ holds a null byte"):
        TinyImageNetDataModule(root=str(tmp_path)).load_split("test")
