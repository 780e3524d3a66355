"""CIFAR's files, and CIFAR-10.1 and CIFAR-C, good and bad."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from published_formats import (
    pixels,
    write_cifar,
    write_cifar101,
    write_cifar_binary,
    write_cifar_c,
    write_cifar_matlab,
)

from lightning_repshape.data import (
    CIFAR101,
    CIFARC,
    CIFAR10DataModule,
    CIFAR100DataModule,
)
from lightning_repshape.data.sets import cifar
from lightning_repshape.errors import ConfigError, DataError


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


@pytest.mark.parametrize("version", ["pkl", "binary", "matlab"])
@pytest.mark.parametrize("fine", [False, True])
def test_the_authors_other_versions_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, fine: bool
) -> None:
    python, binary, matlab = (
        ("cifar-100-python", "cifar-100-binary", "cifar-100-matlab")
        if fine
        else ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-batches-mat")
    )
    module_class = CIFAR100DataModule if fine else CIFAR10DataModule
    write_cifar(tmp_path / "published" / python, monkeypatch, fine)
    expected = module_class(root=str(tmp_path / "published"), val_size=0)
    other = tmp_path / "other"
    if version == "pkl":
        for path in sorted((tmp_path / "published" / python).iterdir()):
            (other / python).mkdir(parents=True, exist_ok=True)
            (other / python / f"{path.name}.pkl").write_bytes(path.read_bytes())
    elif version == "binary":
        write_cifar_binary(other / binary, monkeypatch, fine)
    else:
        write_cifar_matlab(other / matlab, monkeypatch, fine)
    found = module_class(root=str(other), val_size=0, download=True)  # nothing is missing
    found.prepare_data()
    for split in ("train", "test"):
        assert torch.equal(found.images(split), expected.images(split))  # type: ignore[arg-type]
        assert torch.equal(found.labels(split), expected.labels(split))  # type: ignore[arg-type]
    damaged = sorted((other).rglob("*.*"))[-1]
    damaged.write_bytes(damaged.read_bytes()[:5000])
    with pytest.raises(DataError, match=damaged.name):
        module_class(root=str(other), val_size=0).images("test" if "test" in damaged.name else "train")


def test_a_header_of_cifar_c_that_is_no_python(tmp_path: Path) -> None:
    write_cifar_c(tmp_path, ("fog",))
    path = tmp_path / "fog.npy"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(50, 32", b"(50, 3("))  # tokenize.TokenError
    with pytest.raises(DataError, match=r"fog\.npy"):
        CIFARC(str(tmp_path), ["fog"]).open(cifar.CIFAR10.class_names, (3, 32, 32))
    path.write_bytes(content.replace(b"'fortran_order': False", b"'fortran_order': True "))
    with pytest.raises(DataError, match=r"fog\.npy"):  # the right shape, other pixels
        CIFARC(str(tmp_path), ["fog"]).open(cifar.CIFAR10.class_names, (3, 32, 32))
