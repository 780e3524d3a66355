"""MNIST's files, good and bad."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from published_formats import write_mnist

from lightning_repshape.data import (
    FashionMNISTDataModule,
    MNISTDataModule,
    download,
)
from lightning_repshape.errors import DataError


@pytest.mark.parametrize("place", ["MNIST/raw", "raw", ""])
def test_mnist_is_found_and_read(tmp_path: Path, place: str) -> None:
    root = tmp_path / "data"
    content = write_mnist(root / place)
    module = MNISTDataModule(root=str(root), val_size=15, normalize="unit")
    assert (module.num_classes, module.input_shape, module.class_names[3]) == (10, (1, 28, 28), "3")
    assert (module.mean, module.std) == ((0.0,), (1.0,))
    assert np.array_equal(module.images("train")[..., 0], content["train-images-idx3-ubyte"][:45])
    assert np.array_equal(module.images("val")[..., 0], content["train-images-idx3-ubyte"][45:])
    assert np.array_equal(module.labels("test"), content["t10k-labels-idx1-ubyte"])
    x, y = next(module.batches("test"))
    torch.testing.assert_close(x[:, 0], torch.from_numpy(content["t10k-images-idx3-ubyte"]) / 255, rtol=0, atol=1e-6)
    assert (x.shape, y.dtype) == ((20, 1, 28, 28), torch.int64)
    assert module.sample_name("val", 3) == "train/00048" and module.sample_name("test", 17) == "test/00017"


def test_mnist_packed_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    content = write_mnist(folder, packed=True)
    module = FashionMNISTDataModule(root=str(tmp_path), val_size=0)
    with pytest.raises(DataError, match=r"checksum mismatch: .*train-images-idx3-ubyte.gz.*download=True"):
        module.setup("fit")
    sums = [(path.name, download.md5_of(path)) for path in sorted(folder.iterdir())]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", sums)
    assert np.array_equal(module.images("train")[..., 0], content["train-images-idx3-ubyte"])
    assert module.class_names[0] == "T-shirt/top" and module.val_dataloader() == []


@pytest.mark.parametrize(
    "damage,message",
    [
        (lambda data: data[:-5], r"47,035 bytes of data, but its header states 47,040"),
        (lambda data: data[:3], r"is no IDX file of 3 dimension"),
        (lambda data: b"\x00\x00\x0d" + data[3:], r"is no IDX file"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte.*{message}"):
        MNISTDataModule(root=str(tmp_path), val_size=0).setup("fit")


def test_an_mnist_folder_that_lacks_a_file(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"not complete: .*train-labels-idx1-ubyte"):
        MNISTDataModule(root=str(tmp_path), val_size=0).setup("fit")


def test_a_packed_idx_file_that_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    sums = [(file.name, download.md5_of(file)) for file in tmp_path.iterdir()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    with pytest.raises(DataError, match=r"cannot read .*train-images-idx3-ubyte.gz"):
        MNISTDataModule(root=str(tmp_path), val_size=0).setup("fit")


@pytest.mark.parametrize("form", ["dots", "folders", "dots in folders", "packed in folders"])
def test_mnist_as_it_is_passed_around(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = "packed" in form
    content = write_mnist(tmp_path, packed)
    sums = []
    for path in sorted(tmp_path.iterdir()):
        sums.append((path.name, hashlib.md5(path.read_bytes()).hexdigest()))
        name = path.name.replace("-idx", ".idx") if "dots" in form else path.name
        place = tmp_path / path.name.removesuffix(".gz") if "folders" in form else tmp_path
        moved = path.rename(tmp_path / "moving")
        place.mkdir(exist_ok=True)
        moved.rename(place / name)
    if packed:
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    module = MNISTDataModule(root=str(tmp_path), val_size=0)
    assert np.array_equal(module.images("train")[..., 0], content["train-images-idx3-ubyte"])
    assert np.array_equal(module.labels("test"), content["t10k-labels-idx1-ubyte"])
    MNISTDataModule(root=str(tmp_path), download=True).prepare_data()  # nothing is missing
