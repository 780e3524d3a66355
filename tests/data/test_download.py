"""Downloads: from mirrors, checked, and without a network."""

import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from published_formats import (
    pixels,
    write_cifar,
    write_cifar101,
    write_mnist,
)

from lightning_repshape.data import (
    CIFAR101,
    CIFAR10DataModule,
    MNISTDataModule,
    STL10DataModule,
    TinyImageNetDataModule,
)
from lightning_repshape.data.sets import tiny_imagenet
from lightning_repshape.errors import DataError

CIFAR10_NAMES = CIFAR10DataModule().class_names
COLOUR = (3, 32, 32)


class Network:
    """Serves files from memory; an address it lacks fails as a machine without a network does."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = content
        self.asked: list[str] = []

    def __call__(self, request: urllib.request.Request, timeout: float) -> io.BytesIO:
        self.asked.append(request.full_url)
        assert timeout <= 60
        if request.full_url not in self.content:
            raise urllib.error.URLError("Name or service not known")
        return io.BytesIO(self.content[request.full_url])


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], Network]:
    def start(content: dict[str, bytes]) -> Network:
        served = Network(content)
        monkeypatch.setattr(urllib.request, "urlopen", served)
        return served

    return start


@pytest.mark.parametrize("cls", [MNISTDataModule, CIFAR10DataModule, STL10DataModule, TinyImageNetDataModule])
def test_without_a_network_nothing_is_left_behind(tmp_path: Path, network: Any, cls: Any) -> None:
    network({})
    root = tmp_path / "new" / "data"
    with pytest.raises(DataError, match=r"cannot download .*Name or service not known.*check the network"):
        cls(root=str(root), download=True).prepare_data()
    assert list(tmp_path.iterdir()) == []


def test_mnist_is_downloaded_from_the_first_mirror_that_works(
    tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_mnist(tmp_path / "source", packed=True)
    published = torchvision.datasets.MNIST
    packed = {path.name: path.read_bytes() for path in (tmp_path / "source").iterdir()}
    monkeypatch.setattr(published, "resources", [(n, hashlib.md5(data).hexdigest()) for n, data in packed.items()])
    served = network({published.mirrors[1] + name: data for name, data in packed.items()})
    root = tmp_path / "data"
    module = MNISTDataModule(root=str(root), download=True, val_size=0)
    assert np.array_equal(module.images("train")[..., 0], content["train-images-idx3-ubyte"])
    assert sorted(path.name for path in (root / "MNIST" / "raw").iterdir()) == sorted(content)
    assert [path.name for path in root.iterdir()] == ["MNIST"]
    torchvision.datasets.MNIST(root)
    asked = len(served.asked)
    MNISTDataModule(root=str(root), download=True).prepare_data()
    assert len(served.asked) == asked  # there already


def test_archives_are_checked_unpacked_and_put_in_place(
    tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py", monkeypatch)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as bundle:
        bundle.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    published = torchvision.datasets.CIFAR10
    network({published.url: packed.getvalue()})
    root = str(tmp_path / "data")
    with pytest.raises(
        DataError, match=r"cannot download CIFAR-10 .*md5 .* instead of c58f30108f718f92721af3b95e74349a"
    ):
        CIFAR10DataModule(root=root, download=True).prepare_data()
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(published, "tgz_md5", hashlib.md5(packed.getvalue()).hexdigest())
    assert len(CIFAR10DataModule(root=root, download=True, val_size=0).labels("train")) == 100
    assert os.listdir(root) == ["cifar-10-batches-py"]


def test_a_full_set_of_tiny_imagenet_gets_its_names_after_the_download(
    tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "tiny-imagenet-200"
    image = io.BytesIO()
    Image.fromarray(pixels(64, 64, 3)).save(image, "JPEG")
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        wnids = [f"n{label:03d}" for label in range(200)]
        archive.writestr(f"{source.name}/wnids.txt", "\n".join(reversed(wnids)))
        archive.writestr(f"{source.name}/words.txt", "".join(f"{wnid}\tword {wnid}, other\n" for wnid in wnids))
        archive.writestr(f"{source.name}/val/val_annotations.txt", "val_0.JPEG\tn007\t0\t0\t1\t1\n")
        archive.writestr(f"{source.name}/val/images/val_0.JPEG", image.getvalue())
        for wnid in wnids:
            archive.writestr(f"{source.name}/train/{wnid}/images/{wnid}_0.JPEG", image.getvalue())
    network({tiny_imagenet.URL: zipped.getvalue()})
    monkeypatch.setattr(tiny_imagenet, "MD5", hashlib.md5(zipped.getvalue()).hexdigest())
    module = TinyImageNetDataModule(root=str(tmp_path / "data"), download=True, classes=10, val_size=0)
    assert module.num_classes == 10 and module.class_names[7] == "class 7"
    assert module.labels("test").tolist() == [7] and len(module.labels("train")) == 10
    assert module.class_names[7] == "word n007"


def test_cifar101_is_downloaded_once(tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network({})
    with pytest.raises(DataError, match=r"cannot download CIFAR-10.1 .*Name or service not known"):
        CIFAR101(root=str(tmp_path / "new"), download=True).prepare()
    assert list(tmp_path.iterdir()) == []
    _, labels = write_cifar101(tmp_path / "source", monkeypatch)
    url = "https://github.com/modestyachts/CIFAR-10.1/raw/master/datasets/"
    served = network({url + path.name: path.read_bytes() for path in (tmp_path / "source").iterdir()})
    further = CIFAR101(root=str(tmp_path / "data"), download=True)
    further.prepare()
    further.prepare()
    assert len(served.asked) == 2 and [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10.1"]
    assert np.array_equal(further.open(CIFAR10_NAMES, COLOUR).labels, labels)
    served.content[url + "cifar10.1_v6_data.npy"] = b"another file"
    with pytest.raises(DataError, match=r"sha256 .* instead of [0-9a-f]{64}"):
        CIFAR101(root=str(tmp_path / "again"), download=True).prepare()


@pytest.mark.parametrize("cls", [MNISTDataModule, CIFAR10DataModule, STL10DataModule, TinyImageNetDataModule])
def test_a_missing_set(tmp_path: Path, cls: Any) -> None:
    module = cls(root=str(tmp_path))
    with pytest.raises(
        DataError, match=rf"is not there: looked for .*{tmp_path.name}.*{cls.__name__}\(download=True\)"
    ):
        module.setup("fit")
