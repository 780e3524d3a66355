"""The data sets in their real formats (tiny ones, written here), their options, and bad input."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as reference

from lightning_repshape.data import (
    CIFAR101,
    CIFARC,
    CIFAR10DataModule,
    CIFAR100DataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    ImageSet,
    MNISTDataModule,
    SplitData,
    STL10DataModule,
    TinyImageNetDataModule,
    files,
    stratified,
)
from lightning_repshape.data.sets import cifar, tiny_imagenet
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.seeding import generator

# Writing the published formats


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, packed: bool = False) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "train-images-idx3-ubyte": pixels(60, 28, 28),
        "train-labels-idx1-ubyte": (np.arange(60) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": pixels(20, 28, 28, seed=1),
        "t10k-labels-idx1-ubyte": (np.arange(20) % 10).astype(np.uint8),
    }
    for name, array in content.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return content


def write_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch, fine: bool = False) -> dict[str, dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    names = ["train", "test"] if fine else [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    classes = 100 if fine else 10
    entries, sums = {}, {}
    for seed, name in enumerate(names):
        count = 200 if fine else 20
        labels = (np.arange(count) % classes).tolist()
        entry = {"data": pixels(count, 3072, seed=seed), ("fine_labels" if fine else "labels"): labels}
        content = pickle.dumps(entry, protocol=2)
        (folder / name).write_bytes(content)
        entries[name], sums[name] = entry, hashlib.md5(content).hexdigest()
    published = torchvision.datasets.CIFAR100 if fine else torchvision.datasets.CIFAR10
    monkeypatch.setattr(published, "train_list", [[name, sums[name]] for name in names[:-1]])
    monkeypatch.setattr(published, "test_list", [[names[-1], sums[names[-1]]]])
    return entries


def write_stl10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = pixels(20, 3, 96, 96)  # columns before rows
    content = {
        "train_X.bin": images.tobytes(),
        "train_y.bin": (np.arange(20) % 10 + 1).astype(np.uint8).tobytes(),
        "unlabeled_X.bin": b"",
        "test_X.bin": pixels(10, 3, 96, 96, seed=1).tobytes(),
        "test_y.bin": np.arange(1, 11, dtype=np.uint8).tobytes(),
    }
    for name, data in content.items():
        (folder / name).write_bytes(data)
    (folder / "fold_indices.txt").write_text("".join(f"{fold} {fold + 10} \n" for fold in range(10)))
    sums = {name: hashlib.md5(data).hexdigest() for name, data in content.items()}
    published = torchvision.datasets.STL10
    train = ("train_X.bin", "train_y.bin", "unlabeled_X.bin")
    monkeypatch.setattr(published, "train_list", [[n, sums[n]] for n in train])
    monkeypatch.setattr(published, "test_list", [[n, sums[n]] for n in ("test_X.bin", "test_y.bin")])
    return images


WNIDS = ("n02", "n01", "n03")


def write_tiny(folder: Path) -> None:
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tcrane\nn03\tcrane\nn09\tnot there\n")
    lines = []
    for label, wnid in enumerate(WNIDS):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
        for number in range(10):
            mode = "L" if number == 3 else "RGB"
            Image.fromarray(pixels(64, 64, 3, seed=number)).convert(mode).save(images / f"{wnid}_{number}.JPEG")
        for number in range(2):
            name = f"val_{2 * label + number}.JPEG"
            Image.fromarray(pixels(64, 64, 3, seed=label)).save(folder / "val" / "images" / name)
            lines.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    lines.append("val_99.JPEG\tn09\t0\t32\t44\t62\n")  # of a class that wnids.txt does not name
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))


def write_cifar101(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str = "v6") -> tuple[Any, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    count = {"v4": 2021, "v6": 2000}[version]
    images, labels = pixels(count, 32, 32, 3), (np.arange(count) * 7 % 10).astype(np.int32)
    sums = []
    for kind, array in (("data", images), ("labels", labels)):
        path = folder / f"cifar10.1_{version}_{kind}.npy"
        np.save(path, array)
        sums.append((path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    monkeypatch.setitem(cifar._CIFAR101_FILES, version, tuple(sums))
    return images, labels


def write_cifar_c(folder: Path, names: tuple[str, ...], classes: int = 10) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: pixels(5 * classes, 32, 32, 3, seed=seed) for seed, name in enumerate(names)}
    content["labels"] = np.tile(np.arange(classes)[::-1].astype(np.uint8), 5)
    for name, array in content.items():
        np.save(folder / f"{name}.npy", array)
    return content


def write_folder(root: Path, parts: tuple[str, ...] = ("train", "test"), per_class: int = 10) -> None:
    for part in parts:
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                size = (20 + number, 16 + label)
                Image.fromarray(pixels(*size, 3, seed=label * 100 + number)).save(folder / f"{number:02d}.png")


class Numbered(ImageDataModule):
    """60 training and 13 test images that show their own position, in three classes of unequal size."""

    def _describe(self) -> ImageSet:
        return ImageSet("numbered", ("a", "b", "c"), (3, 8, 8), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), largest=60)

    def _load(self, split: Any) -> SplitData:
        count = 60 if split == "train" else 13
        images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 8, 8, 3)
        images[:, 0, 0] += 100  # a corner to tell directions by
        return SplitData(images, torch.tensor([0, 1, 1, 2, 2, 2] * 10)[:count])


def number_of(x: Tensor, module: ImageDataModule) -> Tensor:
    """The positions that a batch of Numbered shows."""
    mean, std = torch.tensor(module.mean).view(3, 1, 1), torch.tensor(module.std).view(3, 1, 1)
    return ((x * std + mean) * 255).round().long()[:, 0, 4, 4]


# The sets


def test_digits_are_split_once_and_for_all() -> None:
    module = DigitsDataModule()
    assert (module.num_classes, module.input_shape) == (10, (1, 8, 8))
    module.setup()
    labels = {split: module.labels(split) for split in ("train", "val", "test")}
    assert {split: len(values) for split, values in labels.items()} == {"train": 1197, "val": 300, "test": 300}
    for values in labels.values():
        assert torch.bincount(values).max() - torch.bincount(values).min() <= 0.05 * len(values)
    names = [module.sample_name(split, i) for split in ("train", "val", "test") for i in range(len(labels[split]))]
    assert sorted(names) == [f"digits/{row:05d}" for row in range(1797)]
    assert names[-1] == "digits/01793"  # a change here would change every published figure
    everything = torch.cat([module.images(split) for split in ("train", "val", "test")])
    from sklearn.datasets import load_digits

    order = torch.tensor([int(name[-5:]) for name in names])
    sixteenths = (everything.double() * 16 / 255).round().flatten(1)
    assert np.array_equal(sixteenths.numpy(), load_digits().data[order])
    assert abs(everything.double().mean() / 255 - module.mean[0]) < 1e-3
    assert abs((everything.double() / 255).std() - module.std[0]) < 1e-3
    other = DigitsDataModule(split_seed=1, val_size=100)
    assert torch.equal(other.images("test"), module.images("test"))
    assert len(other.labels("train")) == 1397 and not torch.equal(other.images("val"), module.images("val")[:100])


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
    sums = [(path.name, files.md5_of(path)) for path in sorted(folder.iterdir())]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", sums)
    assert np.array_equal(module.images("train")[..., 0], content["train-images-idx3-ubyte"])
    assert module.class_names[0] == "T-shirt/top" and module.val_dataloader() == []


def test_cifar10_equals_torchvisions_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py", monkeypatch)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda self: None)
    for root in (tmp_path, tmp_path / "cifar-10-batches-py"):
        module = CIFAR10DataModule(root=str(root), val_size=20)
        for split, train in (("train", True), ("test", False)):
            theirs = torchvision.datasets.CIFAR10(tmp_path, train=train)
            count = 80 if train else 20
            assert np.array_equal(module.images(split), theirs.data[:count])
            assert module.labels(split).tolist() == theirs.targets[:count]
    assert module.class_names[3] == "cat"


def test_cifar100_reads_fine_labels_and_chooses_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = write_cifar(tmp_path / "cifar-100-python", monkeypatch, fine=True)
    whole = CIFAR100DataModule(root=str(tmp_path), val_size=0)
    assert len(set(whole.class_names)) == 100 and whole.class_names[:2] == ("apple", "aquarium_fish")
    assert whole.labels("train").tolist() == entries["train"]["fine_labels"]
    four = CIFAR100DataModule(root=str(tmp_path), val_size=0.25, classes=4)
    assert (four.num_classes, four.class_names[3]) == (4, "bear")
    assert torch.bincount(four.labels("train"), minlength=4).sum() == 6 and len(four.labels("val")) == 2
    named = CIFAR100DataModule(root=str(tmp_path), val_size=0, classes=["bear", "apple"])
    assert named.class_names == ("bear", "apple")
    assert named.labels("train").tolist() == [1, 0, 1, 0]
    expected = entries["train"]["data"][[0, 3, 100, 103]].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert np.array_equal(named.images("train"), expected)
    assert named.sample_name("train", 1) == "train/00003"
    kept = CIFAR100DataModule(root=str(tmp_path), val_size=0, classes=[4, 0], renumber=False)
    assert kept.num_classes == 100 and kept.labels("train").tolist() == [0, 4, 0, 4]


def test_stl10_turns_columns_into_rows_and_takes_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_stl10(tmp_path / "stl10_binary", monkeypatch)
    module = STL10DataModule(root=str(tmp_path), val_size=0)
    theirs = torchvision.datasets.STL10(tmp_path, split="train")
    assert np.array_equal(module.images("train").permute(0, 3, 1, 2), theirs.data)
    assert module.labels("train").tolist() == theirs.labels.tolist()
    fold = STL10DataModule(root=str(tmp_path), fold=3, val_size=0)
    assert np.array_equal(fold.images("train"), images[[3, 13]].transpose(0, 3, 2, 1))
    assert fold.labels("train").tolist() == [3, 3] and fold.sample_name("train", 1) == "train/00013"
    assert len(fold.labels("test")) == 10
    with pytest.raises(ConfigError, match="folds 0 to 9"):
        STL10DataModule(root=str(tmp_path), fold=10)
    (tmp_path / "stl10_binary" / "fold_indices.txt").write_text("0 99\n")
    with pytest.raises(DataError, match=r"fold 0 of .*fold_indices.txt"):
        STL10DataModule(root=str(tmp_path), fold=0).setup("fit")


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


def test_sixteen_bit_images_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 0x8040, dtype=np.uint16)).save(path)
    assert (files.ImageFiles((str(path),), 4, 4, 1).decode() == 0x80).all()


# Options


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


@pytest.mark.parametrize("augment", ["flip", "shift", "crop-flip"])
def test_augmented_batches_equal_torchvisions_for_the_same_draws(augment: Any) -> None:
    module = Numbered(augment=augment, crop_padding=3, batch_size=16, seed=5)
    loader = module.train_dataloader()
    loader.sampler.set_epoch(4)  # type: ignore[attr-defined]
    originals = module.images("train")
    places = set()
    for batch in loader:
        x, y = batch.to("cpu")
        assert x.is_contiguous(memory_format=torch.channels_last)
        draws = batch.augmentation.draws  # type: ignore[union-attr]
        for row, sample in enumerate(batch.indices.tolist()):
            image = originals[sample].permute(2, 0, 1)
            if draws.offsets is not None:
                top, left = draws.offsets[sample].tolist()
                places.add((top, left))
                image = reference.crop(reference.pad(image, [3]), top, left, 8, 8)
            if draws.flips is not None and draws.flips[sample]:
                image = reference.hflip(image)
            expected = reference.normalize(image / 255, list(module.mean), list(module.std))
            torch.testing.assert_close(x[row], expected, rtol=0, atol=1e-6)
            assert y[row] == module.labels("train")[sample]
    assert len(places) > 20 or augment == "flip"


def epoch_by_sample(module: ImageDataModule, epoch: int, **options: Any) -> Tensor:
    """The images of an epoch in the order of the samples, whatever the order of the batches."""
    loader = module._loader("train", module.batch_size, augment=True, shuffle=True, **options)
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    found = [(batch.indices, batch.to("cpu")[0]) for batch in loader]
    order = torch.cat([indices for indices, _ in found]).argsort()
    return torch.cat([x for _, x in found])[order]


def test_augmentation_depends_on_seed_epoch_and_sample_alone(tmp_path: Path) -> None:
    module = Numbered(augment="crop-flip", seed=1, batch_size=16)
    images = epoch_by_sample(module, 3)
    assert torch.equal(epoch_by_sample(module, 3), images)
    assert torch.equal(epoch_by_sample(Numbered(augment="crop-flip", seed=1, batch_size=7), 3), images)
    assert not torch.equal(epoch_by_sample(module, 4), images)
    assert not torch.equal(epoch_by_sample(Numbered(augment="crop-flip", seed=2), 3), images)
    # Images too large for the memory are cropped after the transfer, with the same result.
    mapped = Numbered(root=str(tmp_path), augment="crop-flip", seed=1, memory_budget_gb=0)
    assert torch.equal(epoch_by_sample(mapped, 3), images)
    tight = Numbered(augment="crop-flip", seed=1, memory_budget_gb=60 * 8 * 8 * 3 / 1e9)
    assert torch.equal(epoch_by_sample(tight, 3), images)
    assert tight._splits["train"].store.plain and mapped._splits["train"].mapped is not None


def test_worker_processes_yield_the_same_batches_in_every_epoch() -> None:
    module = Numbered(augment="crop-flip", seed=1, batch_size=16)
    loader = Numbered(augment="crop-flip", seed=1, batch_size=16, num_workers=2).train_dataloader()
    for epoch in (2, 3):  # the workers live on, and must not keep the first epoch's draws
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        expected = list(module.batches("train", epoch=epoch))
        found = [batch.to("cpu") for batch in loader]
        assert len(found) == len(expected) == 4
        for (x, y), (other_x, other_y) in zip(found, expected, strict=True):
            assert torch.equal(x, other_x) and torch.equal(y, other_y)


def test_the_runs_seed_is_read_when_loaders_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Numbered()
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    assert torch.equal(next(module.batches())[0], next(Numbered(seed=11).batches())[0])
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    assert not torch.equal(next(module.batches())[0], next(Numbered(seed=11).batches())[0])


def test_evaluation_is_in_order_and_never_augmented() -> None:
    module = Numbered(augment="crop-flip", val_size=10, eval_batch_size=7)
    for split, count in (("train", 50), ("val", 10), ("test", 13)):
        batches = [batch.to("cpu") for batch in module.analysis_dataloader(split)]  # type: ignore[arg-type]
        numbers = torch.cat([number_of(x, module) for x, _ in batches])
        assert numbers.tolist() == (list(range(50, 60)) if split == "val" else list(range(count)))
        assert [len(y) for _, y in batches][:-1] == [7] * (len(batches) - 1)
    assert [batch.augmentation for batch in module.test_dataloader()] == [None, None]
    assert len(list(module.batches("test", augment=True))) == 2


def test_iterating_takes_no_number_of_the_global_generator() -> None:
    module = Numbered(augment="crop-flip", val_size=10)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for split in ("train", "val", "test"):
        list(module.batches(split))  # type: ignore[arg-type]
    module.draw_class_balanced(2, generator("draw"))
    assert torch.equal(torch.get_rng_state(), before)


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


def test_more_ranks_than_samples_and_whole_batches() -> None:
    with pytest.raises(ConfigError, match="batch_size=61 with drop_last leaves no training batch of 60"):
        Numbered(batch_size=61, drop_last=True).train_dataloader()
    assert [len(y) for _, y in Numbered(batch_size=25).batches()] == [25, 25, 10]
    assert [len(b.labels) for b in Numbered(batch_size=25, drop_last=True).train_dataloader()] == [25, 25]


# The cache


def test_the_cache_is_written_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "images")
    options: Any = {"root": str(tmp_path / "images"), "image_size": 12, "cache_dir": str(tmp_path / "cache")}
    plain = ImageFolderDataModule(root=str(tmp_path / "images"), image_size=12)
    module = ImageFolderDataModule(**options)
    module.prepare_data()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(written) == 2 and all(path.suffix == ".u8" for path in written)

    def no_decoding(self: Any, path: str) -> Any:
        raise AssertionError(path)

    expected = {split: plain.images(split) for split in ("train", "val", "test")}
    monkeypatch.setattr(files.ImageFiles, "_decode_one", no_decoding)
    for budget in (4.0, 0.0):
        again = ImageFolderDataModule(**options, memory_budget_gb=budget)
        again.prepare_data()
        for split, images in expected.items():
            assert torch.equal(again.images(split), images)  # type: ignore[arg-type]
        assert (again._splits["train"].mapped is None) == (budget > 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == written
    os.utime(tmp_path / "images" / "train" / "ant" / "00.png", (1, 1))
    with pytest.raises(AssertionError, match="png"):  # an image that changed is decoded again
        ImageFolderDataModule(**options).prepare_data()


def test_an_interrupted_cache_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "images")
    decode = files.ImageFiles._decode_one

    def interrupted(self: Any, path: str) -> Any:
        if path.endswith("05.png"):
            raise KeyboardInterrupt
        return decode(self, path)

    module = ImageFolderDataModule(root=str(tmp_path / "images"), image_size=12, memory_budget_gb=0)
    with monkeypatch.context() as patch:
        patch.setattr(files.ImageFiles, "_decode_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            module.prepare_data()
    assert list((tmp_path / "images" / ".repshape-cache").iterdir()) == []
    module.prepare_data()
    assert len(list((tmp_path / "images" / ".repshape-cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    (tmp_path / "taken").write_text("a file where the folder should be")
    module = ImageFolderDataModule(root=str(tmp_path / "images"), cache_dir=str(tmp_path / "taken"))
    with pytest.raises(DataError, match=r"cannot write the image cache .*taken.*set cache_dir"):
        module.prepare_data()


# Downloads


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


# Further test sets

CIFAR10_NAMES = CIFAR10DataModule().class_names
COLOUR = (3, 32, 32)


@pytest.mark.parametrize("place", ["", "cifar-10.1", "CIFAR-10.1/datasets"])
def test_cifar101_is_found_checked_and_put_in_the_models_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    images, labels = write_cifar101(tmp_path / place, monkeypatch)
    read = CIFAR101(root=str(tmp_path)).open(CIFAR10_NAMES, COLOUR)
    assert read.images is not None and np.array_equal(read.images, images)
    assert read.labels.dtype == torch.int64 and np.array_equal(read.labels, labels)
    turned = CIFAR101(root=str(tmp_path)).open(CIFAR10_NAMES[::-1], COLOUR)
    assert np.array_equal(turned.labels, 9 - labels)
    v4, _ = write_cifar101(tmp_path / place, monkeypatch, "v4")
    other = CIFAR101(root=str(tmp_path), version="v4")
    assert other.name == "cifar10.1-v4" and len(other.open(CIFAR10_NAMES, COLOUR).labels) == len(v4) == 2021


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


def test_cifar101_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"CIFAR-10.1 v6 is not there: .*CIFAR101\(download=True\)"):
        CIFAR101(root=str(tmp_path)).open(CIFAR10_NAMES, COLOUR)
    with pytest.raises(ConfigError, match=r"version='v5'"):
        CIFAR101(version="v5")  # type: ignore[arg-type]
    write_cifar101(tmp_path, monkeypatch)
    further = CIFAR101(root=str(tmp_path))
    with pytest.raises(DataError, match=r"it lacks 'aeroplane'; .*'airplane' besides \('airplane'; did you mean 'aero"):
        further.open(("aeroplane", *CIFAR10_NAMES[1:]), COLOUR)
    with pytest.raises(DataError, match=r"images of 32 x 32 x 3 .*but the model takes 64 x 64 x 3"):
        further.open(CIFAR10_NAMES, (3, 64, 64))
    path = tmp_path / "cifar10.1_v6_data.npy"
    np.save(path, pixels(2000, 32, 32, 3, seed=5))
    with pytest.raises(DataError, match=r"checksum mismatch: .*v6_data.npy .*sha256"):
        further.open(CIFAR10_NAMES, COLOUR)
    labels = cifar._CIFAR101_FILES["v6"][1]
    for array in (pixels(1999, 32, 32, 3), pixels(2000, 32, 32, 3).astype(np.float32)):
        np.save(path, array)
        entry = (path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        monkeypatch.setitem(cifar._CIFAR101_FILES, "v6", (entry, labels))
        with pytest.raises(DataError, match=r"expected uint8 of 2000 x 32 x 32 x 3"):
            further.open(CIFAR10_NAMES, COLOUR)


def test_the_published_checksums_of_cifar101_are_whole() -> None:
    for version, entries in cifar._CIFAR101_FILES.items():
        assert [name for name, _ in entries] == [f"cifar10.1_{version}_{kind}.npy" for kind in ("data", "labels")]
        assert all(len(checksum) == 64 and int(checksum, 16) for _, checksum in entries)


def test_cifar_c_is_mapped_by_severity(tmp_path: Path) -> None:
    content = write_cifar_c(tmp_path / "CIFAR-10-C", cifar.CIFAR_C_CORRUPTIONS)
    for root in (tmp_path, tmp_path / "CIFAR-10-C"):
        read = CIFARC(root=str(root)).open(CIFAR10_NAMES, COLOUR)
        assert read.images is None and read.labels.tolist() == list(range(9, -1, -1))
        assert tuple(read.corrupted) == cifar.CIFAR_C_CORRUPTIONS
        assert all(np.array_equal(read.corrupted[name], content[name]) for name in read.corrupted)
    read.corrupted["fog"][0] = 0  # a private copy: the file stays as it is
    assert np.array_equal(np.load(tmp_path / "CIFAR-10-C" / "fog.npy"), content["fog"])
    write_cifar_c(tmp_path / "CIFAR-100-C", ("fog",), classes=100)
    hundred = CIFARC(root=str(tmp_path / "CIFAR-100-C"), corruptions=["fog"])
    assert hundred.name == "cifar100-c"
    assert len(hundred.open(CIFAR100DataModule().class_names, COLOUR).labels) == 100
    with pytest.raises(DataError, match=r"CIFAR-100-C \(CIFAR-100\) has other classes than the model: it lacks 10"):
        hundred.open(CIFAR10_NAMES, COLOUR)


def test_cifar_c_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no corruption 'fogg'; did you mean 'fog'"):
        CIFARC(corruptions=["fogg"])
    with pytest.raises(ConfigError, match="corruptions is empty"):
        CIFARC(corruptions=[])
    write_cifar_c(tmp_path, ("fog", "snow"))
    with pytest.raises(DataError, match=r"gaussian_noise.npy, .*saturate.npy missing; .*corruptions=\[...\]") as found:
        CIFARC(root=str(tmp_path)).open(CIFAR10_NAMES, COLOUR)
    assert "fog.npy" not in str(found.value) and str(found.value).count(".npy") == 17
    some = CIFARC(root=str(tmp_path), corruptions=["snow", "fog"])
    assert list(some.open(CIFAR10_NAMES, COLOUR).corrupted) == ["snow", "fog"]
    np.save(tmp_path / "fog.npy", pixels(49, 32, 32, 3))
    with pytest.raises(DataError, match=r"fog.npy holds uint8 of shape \(49, 32, 32, 3\), expected uint8 of 50 x 32"):
        some.open(CIFAR10_NAMES, COLOUR)
    (tmp_path / "fog.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"cannot read .*fog.npy"):
        some.open(CIFAR10_NAMES, COLOUR)
    np.save(tmp_path / "labels.npy", np.arange(50) % 7)
    with pytest.raises(DataError, match="50 labels are not five times the same ones"):
        some.open(CIFAR10_NAMES, COLOUR)


# Bad input


@pytest.mark.parametrize("cls", [MNISTDataModule, CIFAR10DataModule, STL10DataModule, TinyImageNetDataModule])
def test_a_missing_set(tmp_path: Path, cls: Any) -> None:
    module = cls(root=str(tmp_path))
    with pytest.raises(
        DataError, match=rf"is not there: looked for .*{tmp_path.name}.*{cls.__name__}\(download=True\)"
    ):
        module.setup("fit")


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
    sums = [(file.name, files.md5_of(file)) for file in tmp_path.iterdir()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    with pytest.raises(DataError, match=r"cannot read .*train-images-idx3-ubyte.gz"):
        MNISTDataModule(root=str(tmp_path), val_size=0).setup("fit")


def test_a_cifar_file_with_another_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar(folder, monkeypatch)
    path = folder / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"checksum mismatch: .*data_batch_3"):
        CIFAR10DataModule(root=str(tmp_path), val_size=0).setup("fit")
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*data_batch_3"):
        CIFAR10DataModule(root=str(tmp_path), val_size=0).setup("fit")


@pytest.mark.parametrize("content", [b"no pickle at all", pickle.dumps({"data": [1, 2]}), pickle.dumps([1])])
def test_a_cifar_pickle_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar(folder, monkeypatch)
    (folder / "test_batch").write_bytes(content)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", [["test_batch", hashlib.md5(content).hexdigest()]])
    with pytest.raises(DataError, match=r"cannot read .*test_batch"):
        CIFAR10DataModule(root=str(tmp_path)).setup("test")


@pytest.mark.parametrize("cut", [0, 30, 300])
def test_damaged_images_are_named(tmp_path: Path, cut: int) -> None:
    write_folder(tmp_path)
    path = tmp_path / "train" / "bee" / "03.png"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"cannot read the image .*bee.03.png"):
        ImageFolderDataModule(root=str(tmp_path), image_size=8, val_size=0).setup("fit")


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


def test_splits_that_are_not_there() -> None:
    with pytest.raises(DataError, match="no validation images, because val_size is 0"):
        list(Numbered().batches("val"))
    with pytest.raises(ConfigError, match="unknown split 'tests'; did you mean 'test'"):
        Numbered().labels("tests")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="numbered cannot be downloaded"):
        Numbered(download=True).prepare_data()


def test_a_reader_that_delivers_something_else() -> None:
    class Wrong(Numbered):
        def _load(self, split: Any) -> SplitData:
            return SplitData(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))

    with pytest.raises(DataError, match=r"images of \(3, 8, 8\) and 4 labels, expected images of \(8, 8, 3\)"):
        Wrong().setup("fit")
