"""Tiny data sets in the formats in which the real ones are published."""

import gzip
import hashlib
import itertools
import pickle
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from lightning_repshape.data.sets import cifar


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


def _cifar_parts(monkeypatch: pytest.MonkeyPatch, fine: bool, folder: Path) -> dict[str, dict[str, Any]]:
    """The arrays of the Python version, which is not left there."""
    entries = write_cifar(folder, monkeypatch, fine)
    for name in entries:
        (folder / name).unlink()
    return entries


def write_cifar_binary(folder: Path, monkeypatch: pytest.MonkeyPatch, fine: bool = False) -> dict[str, dict[str, Any]]:
    entries = _cifar_parts(monkeypatch, fine, folder)
    for name, entry in entries.items():
        labels = np.array(entry["fine_labels" if fine else "labels"], dtype=np.uint8)[:, None]
        columns = [labels // 5, labels] if fine else [labels]  # the coarse label first
        (folder / f"{name}.bin").write_bytes(np.hstack([*columns, entry["data"]]).tobytes())
    return entries


def write_cifar_matlab(folder: Path, monkeypatch: pytest.MonkeyPatch, fine: bool = False) -> dict[str, dict[str, Any]]:
    entries = _cifar_parts(monkeypatch, fine, folder)
    key = "fine_labels" if fine else "labels"
    for name, entry in entries.items():
        labels = np.array(entry[key], dtype=np.uint8)[:, None]
        content = {"batch_label": name, "data": entry["data"], key: labels}
        savemat(folder / f"{name}.mat", content, do_compression=len(name) % 2 == 0)
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


MAGIC = struct.pack("<I", 0xCED7230A)


def face(person: int, number: int, height: int = 24, width: int = 20) -> np.ndarray:
    """A grey picture: a pattern of the person, and noise of the image."""
    pattern = np.random.default_rng(person).integers(0, 200, (4, 4)).astype(float)
    big = np.kron(pattern, np.ones((height // 4, width // 4)))
    noise = np.random.default_rng(1000 * person + number).integers(0, 50, big.shape)
    return (big + noise).astype(np.uint8)


def write_people(root: Path, people: int = 6, images: int = 4, suffix: str = ".png") -> Path:
    for person in range(1, people + 1):
        (root / f"s{person}").mkdir(parents=True, exist_ok=True)
        for number in range(1, images + 1):
            Image.fromarray(face(person, number)).save(root / f"s{person}" / f"{number}{suffix}")
    return root


def png(picture: np.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(picture).save(content, "png")
    return content.getvalue()


def record(content: bytes) -> bytes:
    """A record by dmlc's description: content is cut where the magic number stands at a multiple of 4 bytes."""
    cuts = [place for place in range(0, len(content) - 3, 4) if content[place : place + 4] == MAGIC]
    pieces, start = [], 0
    for cut in cuts:
        pieces.append(content[start:cut])
        start = cut + 4
    pieces.append(content[start:])
    out = b""
    for place, piece in enumerate(pieces):
        part = 0 if len(pieces) == 1 else 1 if place == 0 else 3 if place == len(pieces) - 1 else 2
        out += MAGIC + struct.pack("<I", part << 29 | len(piece)) + piece + b"\0" * (-len(piece) % 4)
    return out


def image_record(label: float | Sequence[float], number: int, payload: bytes) -> bytes:
    if isinstance(label, float):
        return record(struct.pack("<IfQQ", 0, label, number, 0) + payload)
    return record(struct.pack(f"<IfQQ{len(label)}f", len(label), 0.0, number, 0, *label) + payload)


def write_rec(folder: Path, people: int = 3, images: int = 2) -> Path:
    """As face sets are packed: record 0 with two numbers, the images, then a record for each identity."""
    folder.mkdir(parents=True, exist_ok=True)
    count = people * images
    records = [image_record([float(count + 1), float(count + 1 + people)], 0, b"")]
    for person, number in itertools.product(range(people), range(images)):
        payload = png(face(person + 1, number + 1))
        # some sets give the landmarks' indices as further labels
        label: Any = float(person) if number % 2 == 0 else [float(person), 7.0]
        records.append(image_record(label, len(records), payload))
    for person in range(people):
        records.append(image_record([1.0 + person * images, 1.0 + (person + 1) * images], len(records), b""))
    offsets = np.cumsum([0, *(len(entry) for entry in records[:-1])])
    (folder / "train.rec").write_bytes(b"".join(records))
    (folder / "train.idx").write_text("".join(f"{number}\t{offset}\n" for number, offset in enumerate(offsets)))
    return folder / "train.rec"


def write_lfw(folder: Path, people: int = 4, images: int = 3) -> Path:
    for person in range(people):
        name = f"Person_{'ABCDEFGH'[person]}"
        (folder / name).mkdir(parents=True)
        for number in range(1, images + 1):
            Image.fromarray(face(person, number)).save(folder / name / f"{name}_{number:04d}.jpg")
    return folder


LFW_LIST = """2\t2
Person_A\t1\t2
Person_B\t1\t3
Person_A\t1\tPerson_B\t2
Person_A\t3\tPerson_B\t1
Person_C\t1\t2
Person_D\t2\t3
Person_C\t1\tPerson_D\t2
Person_C\t3\tPerson_D\t1
"""


def lfw_table() -> str:
    """The same list as Kaggle has it: a table with a heading, and without the number of folds."""
    rows = [line.split("\t") for line in LFW_LIST.splitlines()[1:]]
    return "name,imagenum1,imagenum2,\n" + "".join(",".join([*row, ""][:4]) + "\n" for row in rows)


def write_ytf(root: Path) -> Path:
    for person, video in itertools.product(range(4), (0, 1)):
        folder = root / "frame_images_DB" / f"P{person}" / str(video)
        folder.mkdir(parents=True)
        for frame in range(3 + video):
            Image.fromarray(face(person, 10 * video + frame)).save(folder / f"{video}.{frame + 8}.jpg")
    lines = ["split number, first name, second name, is same"]
    for fold, (a, b) in enumerate(((0, 1), (2, 3)), start=1):
        lines += [f"{fold}, P{a}/0, P{a}/1, 9, 1", f"{fold}, P{b}/0, P{b}/1, 9, 1"]
        lines += [f"{fold}, P{a}/0, P{b}/1, 9, 0", f"{fold}, P{a}/1, P{b}/0, 9, 0"]
    (root / "splits.txt").write_text("\n".join(lines))
    return root
