"""Faces: packed records, the cache, identities, pairs, verification, and all of it from the command line."""

import itertools
import json
import math
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ddp_pool import GlooPool
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.cli import main
from lightning_repshape.configs_library import names
from lightning_repshape.data import (
    CASIAWebFaceDataModule,
    FaceVerificationDataModule,
    IdentityPairs,
    LFWPairs,
    PairsFile,
    PairTable,
    RecordFile,
    VerificationPairs,
    YTFPairs,
    cache,
    files,
)
from lightning_repshape.data.faces.records import FaceFiles
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.functional import (
    area_under_curve,
    best_threshold,
    fold_verification,
    pair_cosines,
    roc_curve,
    tar_at_far,
)
from lightning_repshape.metrics import PairFeatures, VerificationMetric
from lightning_repshape.modules import SupervisedModule, VerificationModule, VerifiesPairs, verify_pairs
from lightning_repshape.networks import DDRL, DeepFace, DeepID2Plus, FaceResNet, InceptionResNetV1
from lightning_repshape.networks.faces import LocallyConnected2d

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


# ------------------------------------------------------------------------------------------------ packed records


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


def test_records_are_read_with_and_without_their_index(tmp_path: Path) -> None:
    path = write_rec(tmp_path)
    found = RecordFile(path)
    assert found.image_numbers() == [1, 2, 3, 4, 5, 6]
    assert found.labels(found.image_numbers()) == [0, 0, 1, 1, 2, 2]
    assert found.record(2).labels == (0.0, 7.0) and found.record(1).labels == (0.0,)
    picture = np.asarray(Image.open(BytesIO(found.record(3).payload)))
    assert np.array_equal(picture, face(2, 1))
    (tmp_path / "train.idx").unlink()
    assert RecordFile(path).offsets == found.offsets


def test_records_that_were_cut_at_the_magic_number_are_put_together(tmp_path: Path) -> None:
    payload = b"abcd" + MAGIC + b"efgh" + MAGIC + MAGIC + b"ij" + MAGIC  # the last one is not at a multiple of 4
    (tmp_path / "a.rec").write_bytes(image_record(3.0, 0, payload) + image_record(4.0, 1, b"x"))
    found = RecordFile(tmp_path / "a.rec")
    assert len(found.offsets) == 2
    assert found.record(0).payload == payload and found.record(1).payload == b"x"
    assert found.labels([0, 1]) == [3, 4]


@pytest.mark.parametrize("with_index", [True, False])
def test_a_rec_file_that_ends_early_is_an_error_with_its_offset(tmp_path: Path, with_index: bool) -> None:
    path = write_rec(tmp_path)
    offset = RecordFile(path).offsets[5]
    path.write_bytes(path.read_bytes()[: offset + 60])
    if not with_index:
        (tmp_path / "train.idx").unlink()
    with pytest.raises(DataError, match=rf"ends early.*byte {offset:,}"):
        CASIAWebFaceDataModule(str(tmp_path))


def test_damaged_records_and_indices_are_errors(tmp_path: Path) -> None:
    path = write_rec(tmp_path)
    good, index = path.read_bytes(), (tmp_path / "train.idx").read_text()
    offset = RecordFile(path).offsets[4]
    path.write_bytes(good[:offset] + b"\0\0\0\0" + good[offset + 4 :])
    with pytest.raises(DataError, match=rf"byte {offset:,}: no record begins here"):
        RecordFile(path).labels([1, 4])
    path.write_bytes(good)
    (tmp_path / "train.idx").write_text("\n".join(index.splitlines()[:3]))
    with pytest.raises(DataError, match="promises images 1 to 6, but 4 of them"):
        RecordFile(path).image_numbers()
    (tmp_path / "train.idx").write_text("0\t0\nnonsense here too\n")
    with pytest.raises(DataError, match="line 2"):
        RecordFile(path)
    (tmp_path / "train.idx").unlink()
    path.write_bytes(image_record(-1.0, 0, b"x"))
    with pytest.raises(DataError, match="record 0 at byte 0: its label"):
        RecordFile(path).labels([0])
    path.write_bytes(b"")
    with pytest.raises(DataError, match="no records"):
        RecordFile(path)


def test_packed_and_unpacked_identities_are_the_same(tmp_path: Path) -> None:
    write_rec(tmp_path / "packed" / "faces_webface_112x112")
    write_people(tmp_path / "folders", people=3, images=2)
    options: dict[str, Any] = {"image_size": (12, 10), "channels": 3, "seed": 0}
    packed = CASIAWebFaceDataModule(str(tmp_path / "packed"), **options)
    folders = CASIAWebFaceDataModule(str(tmp_path / "folders"), **options)
    assert packed.num_classes == folders.num_classes == 3
    assert packed.class_names == ("0", "1", "2") and folders.class_names == ("s1", "s2", "s3")
    assert packed.input_shape == (3, 12, 10)
    assert torch.equal(packed.images("train"), folders.images("train"))
    assert torch.equal(packed.labels("train"), folders.labels("train"))
    assert packed.sample_name("train", 0).endswith("train.rec#1")
    x, y = next(packed.batches("train"))
    assert x.shape == (6, 3, 12, 10) and y.unique().tolist() == [0, 1, 2]
    assert float(x.min()) >= -1.0 and float(x.max()) <= 1.0


# ---------------------------------------------------------------------------------------------------- identities


def test_identities_come_in_natural_order(tmp_path: Path) -> None:
    write_people(tmp_path, people=11, images=1)
    data = CASIAWebFaceDataModule(str(tmp_path), image_size=8, classes=3)
    assert data.class_names == ("s1", "s2", "s3")
    assert CASIAWebFaceDataModule(str(tmp_path), image_size=8).class_names[-1] == "s11"


def test_identities_with_one_image_are_trained_on_but_not_split(tmp_path: Path) -> None:
    write_people(tmp_path, people=3, images=4)
    (tmp_path / "alone").mkdir()
    Image.fromarray(face(9, 1)).save(tmp_path / "alone" / "1.png")
    with pytest.warns(UserWarning, match="1 identities have one image \\(alone\\)"):
        assert len(CASIAWebFaceDataModule(str(tmp_path), image_size=8).labels("train")) == 13
    with pytest.raises(DataError, match=r"alone.*min_images=2"):
        CASIAWebFaceDataModule(str(tmp_path), image_size=8, val_size=0.25).setup("fit")
    with pytest.warns(UserWarning, match="left out 1 of 4 identities"):
        data = CASIAWebFaceDataModule(str(tmp_path), image_size=8, val_size=0.25, min_images=2)
    assert data.class_names == ("s1", "s2", "s3")
    assert data.labels("val").tolist() == [0, 1, 2] and len(data.labels("train")) == 9
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="hold no image: empty"):
        CASIAWebFaceDataModule(str(tmp_path), image_size=8).setup("fit")


@pytest.mark.filterwarnings("ignore:.*have one image.*")
def test_images_of_other_sizes_follow_the_rule_that_was_chosen(tmp_path: Path) -> None:
    write_people(tmp_path, people=2, images=1)
    wide = np.tile(np.arange(40, dtype=np.uint8)[None] * 6, (24, 1))  # a ramp from left to right
    Image.fromarray(wide).save(tmp_path / "s1" / "wide.png")

    def ramp(**options: Any) -> np.ndarray:
        data = CASIAWebFaceDataModule(str(tmp_path), image_size=(24, 20), channels=1, **options)
        return data.images("train")[1, 0, :, 0].numpy()

    assert np.array_equal(ramp(fit="crop"), wide[0, 10:30])
    assert ramp(fit="stretch")[-1] > 228 and ramp(fit="stretch")[0] < 6
    assert np.array_equal(ramp(fit="exact", center_crop=(24, 20)), wide[0, 10:30])
    with pytest.raises(DataError, match=r"wide\.png has 24 x 40 pixels instead of 24 x 20"):
        ramp(fit="exact")
    with pytest.raises(DataError, match="fewer than the 30 x 30"):
        ramp(center_crop=30)
    (tmp_path / "s2" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"s2.1\.png"):
        ramp()


def test_options_that_cannot_be_are_errors(tmp_path: Path) -> None:
    root = str(write_people(tmp_path / "set", people=2, images=1))
    for options, message in (
        ({"image_size": 0}, "image_size"),
        ({"channels": 2}, "channels"),
        ({"fit": "crp"}, "crop"),
        ({"center_crop": 0}, "center_crop"),
        ({"min_images": 0}, "min_images"),
        ({"mean": (0.5,)}, "1 values for 3"),
        ({"std": (0.0, 1.0, 1.0)}, "positive"),
    ):
        with pytest.raises(ConfigError, match=message):
            CASIAWebFaceDataModule(root, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="a folder for each identity"):
        CASIAWebFaceDataModule(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="pairs of other people"):
        CASIAWebFaceDataModule(root, image_size=8).setup("test")


# --------------------------------------------------------------------------------------------------------- cache


def face_files(root: Path) -> FaceFiles:
    paths = tuple(itertools.chain(*files.list_images(sorted(root.iterdir()))))
    return FaceFiles(paths, 12, 10, 1)


def decoded_during(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    original = FaceFiles._decode_one

    def noted(self: FaceFiles, path: str) -> Any:
        seen.append(path)
        return original(self, path)

    monkeypatch.setattr(FaceFiles, "_decode_one", noted)
    return seen


def test_an_interrupted_cache_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = face_files(write_people(tmp_path / "set", people=5, images=4))
    wanted, folder = images.decode(), tmp_path / "cache"
    seen = decoded_during(monkeypatch)
    original = FaceFiles.decode

    def killed(self: FaceFiles, out: Tensor | None = None) -> Tensor:
        if images.paths[12] in self.paths:
            raise KeyboardInterrupt
        return original(self, out)

    with monkeypatch.context() as patch:
        patch.setattr(FaceFiles, "decode", killed)
        with pytest.raises(KeyboardInterrupt):
            cache.build_cache(images, folder, "faces", block_bytes=4 * 120)
    assert len(seen) == 12 and not list(folder.glob("*.u8"))  # nothing half-written under its name
    journal = next(folder.glob(".*.journal"))
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 3
    # the second block was damaged meanwhile, and the last line was being written
    part = next(folder.glob(".*.part"))
    content = bytearray(part.read_bytes())
    content[500] ^= 255
    part.write_bytes(content)
    journal.write_text("".join(lines) + "3 1234")
    seen.clear()
    mapped, key = cache.build_cache(images, folder, "faces", block_bytes=4 * 120)
    assert torch.equal(mapped, wanted)
    assert sorted(seen) == sorted(images.paths[4:8] + images.paths[12:])
    assert {path.name for path in folder.iterdir()} == {f"faces-{key}.u8"}
    seen.clear()
    assert torch.equal(cache.build_cache(images, folder, "faces")[0], wanted) and not seen
    # another size is another cache
    assert cache.build_cache(FaceFiles(images.paths, 10, 10, 1), folder, "faces")[1] != key


def test_a_damaged_image_is_named_and_what_was_decoded_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = face_files(write_people(tmp_path / "set", people=3, images=4))
    Path(images.paths[9]).write_bytes(b"")
    with pytest.raises(DataError, match=Path(images.paths[9]).name):
        cache.build_cache(images, tmp_path / "cache", "faces", block_bytes=4 * 120)
    assert len(next((tmp_path / "cache").glob(".*.journal")).read_text().splitlines()) == 3
    with pytest.raises(DataError, match="cannot write the image cache"):
        cache.build_cache(torch.zeros(1, 2, 2, 1, dtype=torch.uint8), tmp_path / "set" / "s1" / "1.png", "faces")


def _build_and_count(rank: int, world_size: int, root: str, folder: str) -> tuple[int, int]:
    images, seen = face_files(Path(root)), 0
    original = FaceFiles._decode_one

    def noted(self: FaceFiles, path: str) -> Any:
        nonlocal seen
        seen += 1
        return original(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaceFiles, "_decode_one", noted)
        mapped, _ = cache.build_cache(images, Path(folder), "faces", block_bytes=480)
    return seen, int(mapped.sum())


def test_two_processes_build_one_cache(tmp_path: Path, gloo: GlooPool) -> None:
    images = face_files(write_people(tmp_path / "set", people=20, images=4))
    results = gloo.run(_build_and_count, str(tmp_path / "set"), str(tmp_path / "cache"))
    assert {total for _, total in results} == {int(images.decode().sum())}
    assert sum(seen for seen, _ in results) == 80  # every image once, by whichever came first
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_batches_from_the_mapped_file_are_those_from_memory(tmp_path: Path) -> None:
    root = str(write_people(tmp_path, people=4, images=5))
    options: dict[str, Any] = {"image_size": 12, "batch_size": 7, "seed": 3, "augment": "crop-flip", "val_size": 4}
    memory = CASIAWebFaceDataModule(root, **options)
    mapped = CASIAWebFaceDataModule(root, memory_budget_gb=0.0, **options)
    for epoch in range(2):
        pairs = zip(memory.batches("train", epoch=epoch), mapped.batches("train", epoch=epoch), strict=True)
        for (x, y), (again, labels) in pairs:
            assert torch.equal(x, again) and torch.equal(y, labels)
    assert torch.equal(memory.images("val"), mapped.images("val"))
    assert len(list((tmp_path / ".repshape-cache").glob("*.u8"))) == 1
    assert mapped.checksums()["train.images"].startswith("files:")


# --------------------------------------------------------------------------------------------------------- pairs


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


@pytest.mark.parametrize("layout", ["lfw", "lfw-py/lfw_funneled", "lfw_home/lfw_funneled", "."])
def test_lfw_is_found_in_every_layout(tmp_path: Path, layout: str) -> None:
    folder = write_lfw(tmp_path / layout)
    (folder if layout == "." else folder.parent).joinpath("pairs.txt").write_text(LFW_LIST)
    opened = LFWPairs(str(tmp_path)).open((3, 12, 12))
    table = opened.table
    assert table.same.tolist() == [True, True, False, False] * 2
    assert table.folds.tolist() == [0] * 4 + [1] * 4
    names = [(table.items[a], table.items[b]) for a, b in zip(table.first, table.second, strict=True)]
    assert names[1] == ("Person_B_0001", "Person_B_0003") and names[3] == ("Person_A_0003", "Person_B_0001")
    assert len(opened.images.paths) == len(set(opened.images.paths)) == len(table.items)
    assert opened.images.paths[opened.table.first[0]].endswith("Person_A_0001.jpg")


def test_development_lists_without_folds_are_dealt_out(tmp_path: Path) -> None:
    write_lfw(tmp_path / "lfw")
    lines = LFW_LIST.splitlines()
    order = [1, 2, 5, 6, 3, 4, 7, 8]
    (tmp_path / "pairsDevTest.txt").write_text("\n".join(["4", *(lines[place] for place in order)]))
    table = LFWPairs(str(tmp_path), pairs="pairsDevTest.txt").read()
    assert table.same.tolist() == [True] * 4 + [False] * 4
    assert table.folds.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["name\tother", *lines[1:]], "line 1: expected the number of folds"),
        (lambda lines: [*lines[:3], "Person_A\t1\t2", *lines[4:]], "line 4: expected 'name number name number'"),
        (lambda lines: [lines[0], "a,b,1", *lines[2:]], "line 2: expected 'name number number'"),
        (lambda lines: [*lines[:2], "Person_B one 3", *lines[3:]], "line 3"),
        (lambda lines: lines[:-1], "ends after 7 pairs, but line 1 promises 8"),
        (lambda lines: [*lines, "Person_C\t1\t2"], "line 10: more pairs"),
        (lambda lines: [], "line 1"),
    ],
)
def test_lists_of_another_format_are_errors_with_the_line(tmp_path: Path, change: Any, message: str) -> None:
    write_lfw(tmp_path / "lfw", people=2)
    (tmp_path / "pairs.txt").write_text("\n".join(change(LFW_LIST.splitlines())))
    with pytest.raises(DataError, match=message):
        LFWPairs(str(tmp_path)).read()


def test_missing_images_are_counted_and_listed(tmp_path: Path) -> None:
    folder = write_lfw(tmp_path / "lfw")
    (tmp_path / "pairs.txt").write_text(LFW_LIST)
    for name in ("Person_A_0001", "Person_D_0003"):
        (folder / name[:8] / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of \d+ images.*\n.*Person_A_0001.jpg\n.*Person_D_0003.jpg"):
        LFWPairs(str(tmp_path)).open((1, 8, 8))
    for picture in folder.rglob("*.jpg"):
        if "_0001" not in picture.name:
            picture.unlink()
    for person in range(3):
        (folder / f"Person_{'ABC'[person]}" / f"Person_{'ABC'[person]}_0001.jpg").unlink(missing_ok=True)
    with pytest.raises(DataError, match="11 of 12 images") as caught:
        LFWPairs(str(tmp_path)).open((1, 8, 8))
    assert str(caught.value).count("\n  ") == 11  # all are listed
    with pytest.raises(DataError, match="torchvision"):
        LFWPairs(str(tmp_path / "nowhere")).read()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("s1/1.png s1/2.png 1 4", "s1/1.png s2/1.png 0 4"), "all 2 pairs are in fold 4"),
        (("s1/1.png s1/2.png 1", "s2/1.png s2/2.png 1"), "all 2 pairs are of one person"),
        (("s1/1.png s2/2.png 0", "s2/1.png s1/2.png 0"), "all 2 pairs are of two people"),
    ],
)
def test_pairs_without_a_threshold_are_refused_before_training(
    tmp_path: Path, lines: Sequence[str], message: str
) -> None:
    write_people(tmp_path, people=2, images=2)
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        PairsFile(str(tmp_path)).open((1, 8, 8))


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


def test_videos_are_items_of_several_frames(tmp_path: Path) -> None:
    write_ytf(tmp_path)
    opened = YTFPairs(str(tmp_path)).open((1, 12, 12))
    assert opened.table.same.tolist() == [True, True, False, False] * 2
    assert opened.table.folds.tolist() == [1] * 4 + [2] * 4
    assert len(opened.table.items) == 8 and len(opened.images.paths) == 4 * 7
    counts = torch.bincount(opened.item_of_image).tolist()
    assert {name: count for name, count in zip(opened.table.items, counts, strict=True)}["P2/1"] == 4
    assert [Path(p).name for p in opened.table.paths[0]] == ["0.8.jpg", "0.9.jpg", "0.10.jpg"]  # natural order
    few = YTFPairs(str(tmp_path), frames=2).open((1, 12, 12))
    assert torch.bincount(few.item_of_image).unique().tolist() == [2]
    (tmp_path / "splits.txt").write_text("head\n1, P0/0, P0/1, 1\n1, P0/0, P1, 0\n")
    with pytest.raises(DataError, match="line 3: expected 'fold, name/video"):
        YTFPairs(str(tmp_path)).read()
    (tmp_path / "splits.txt").write_text(LFW_LIST)
    with pytest.raises(DataError, match="line 2: expected 'fold, name/video"):
        YTFPairs(str(tmp_path)).read()
    (tmp_path / "splits.txt").write_text("1, P0/0, P0/7, 1\n")
    with pytest.raises(DataError, match=r"1 of 2 .*\n.*P0/7"):
        YTFPairs(str(tmp_path)).open((1, 8, 8))


def test_lists_of_ones_own(tmp_path: Path) -> None:
    write_people(tmp_path, people=3, images=2)
    (tmp_path / "pairs.txt").write_text("# mine\ns1/1.png s1/2.png 1 0\n\ns1/1.png,s2/1.png,0,1\n")
    table = PairsFile(str(tmp_path)).open((1, 8, 8)).table
    assert table.same.tolist() == [True, False] and table.folds.tolist() == [0, 1]
    assert table.identities == ("s1", "s1", "s2")
    (tmp_path / "pairs.txt").write_text("s1/1.png s1/2.png 1\ns2/1.png s2/2.png 1\ns1/1.png s2/1.png 0\n")
    assert PairsFile(str(tmp_path)).read().folds.tolist() == [0, 1, 0]
    (tmp_path / "pairs.txt").write_text("2 1\ns1 1 2\ns1 1 s2 2\ns2 1 2\ns3 1 s2 2\n")
    opened = PairsFile(str(tmp_path)).open((1, 8, 8))
    assert opened.table.same.tolist() == [True, False] * 2 and opened.images.paths[0].endswith("s1/1.png")
    (tmp_path / "pairs.txt").write_text("s1/1.png s1/2.png 1\ns2/1.png s2/2.png yes\n")
    with pytest.raises(DataError, match="line 2"):
        PairsFile(str(tmp_path)).read()


def test_pairs_of_identities_are_balanced_and_folds_share_nobody(tmp_path: Path) -> None:
    write_people(tmp_path, people=10, images=4)

    def make(**options: Any) -> PairTable:
        return IdentityPairs(str(tmp_path), **options).read()

    table = make(identities=-6, folds=3)
    assert set(table.identities) == {f"s{person}" for person in range(5, 11)}
    who = [table.identities[item] for item in range(len(table.items))]
    people: list[set[str]] = []
    for fold in range(3):
        rows = (table.folds == fold).nonzero().flatten().tolist()
        assert sum(bool(table.same[row]) for row in rows) == len(rows) / 2 == 12
        people.append({who[item] for row in rows for item in (table.first[row], table.second[row])})
        for row in rows:
            assert (who[table.first[row]] == who[table.second[row]]) == bool(table.same[row])
    assert sum(len(group) for group in people) == 6
    pairs = {frozenset(pair) for pair in zip(table.first.tolist(), table.second.tolist(), strict=True)}
    assert len(pairs) == len(table.first)  # none twice, none with itself
    again, other = make(identities=-6, folds=3), make(identities=-6, folds=3, seed=1)
    assert torch.equal(table.second, again.second) and again.items == table.items
    assert other.items != table.items or not torch.equal(table.second, other.second)
    assert len(make(folds=2, pairs_per_fold=3).same) == 12
    for options, message in (
        ({"folds": 6}, "too few for 6 folds"),
        ({"identities": 11}, "has 10 identities"),
        ({"identities": ["s99"]}, "s99"),
    ):
        with pytest.raises(DataError, match=message):
            make(**options)
    for wrong in ({"folds": 1}, {"identities": 0}, {"pairs_per_fold": 0}):
        with pytest.raises(ConfigError):
            make(**wrong)


# -------------------------------------------------------------------------------------------------- verification


def brute_force_threshold(scores: Sequence[float], same: Sequence[bool]) -> float:
    """Every cut, one by one: highest accuracy, then widest gap, then lowest."""
    values = sorted(set(scores))
    cuts = [(-math.inf, 0.0), *(((a + b) / 2, b - a) for a, b in itertools.pairwise(values)), (math.inf, 0.0)]

    def quality(cut: tuple[float, float]) -> tuple[int, float, float]:
        right = sum((score >= cut[0]) == label for score, label in zip(scores, same, strict=True))
        return right, cut[1], -cut[0]

    return max(cuts, key=quality)[0]


@pytest.mark.parametrize("seed", range(6))
def test_thresholds_are_those_of_a_search_over_all(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    same = torch.rand(40, generator=random) < 0.5
    scores = (torch.randn(40, generator=random, dtype=torch.float64) + same).mul(4).round().div(4)  # ties
    assert best_threshold(scores, same) == brute_force_threshold(scores.tolist(), same.tolist())


def test_thresholds_at_the_ends_and_between_neighbours() -> None:
    scores = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    assert best_threshold(scores, torch.tensor([True] * 3)) == -math.inf
    assert best_threshold(scores, torch.tensor([False] * 3)) == math.inf
    low = torch.tensor(0.5, dtype=torch.float64)
    high = torch.nextafter(low, torch.tensor(1.0, dtype=torch.float64))
    threshold = best_threshold(torch.stack([low, high]), torch.tensor([False, True]))
    assert low < threshold <= high


@pytest.mark.parametrize("ties", [False, True])
def test_curve_and_area_are_those_of_scikit_learn(ties: bool) -> None:
    from sklearn import metrics

    random = torch.Generator().manual_seed(0)
    same = torch.rand(500, generator=random) < 0.4
    scores = torch.randn(500, generator=random, dtype=torch.float64) + 1.5 * same
    scores = scores.mul(3).round() if ties else scores
    curve = roc_curve(scores, same)
    far, tar, thresholds = metrics.roc_curve(same.numpy(), scores.numpy(), drop_intermediate=False)
    np.testing.assert_allclose(curve.far.numpy(), far, atol=1e-15)
    np.testing.assert_allclose(curve.tar.numpy(), tar, atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds.numpy(), thresholds)
    assert area_under_curve(curve) == pytest.approx(metrics.roc_auc_score(same.numpy(), scores.numpy()), abs=1e-12)
    different = scores[~same]
    for allowed in (0.5, 0.1, 0.02, 1 / 291):
        # the laxest of all possible thresholds that lets no more than this share of different pairs in
        rates = [
            float((scores[same] >= t).double().mean())
            for t in scores
            if float((different >= t).double().mean()) <= allowed * (1 + 1e-12)
        ]
        assert tar_at_far(curve, allowed) == pytest.approx(max(rates, default=0.0), abs=1e-15)
    assert math.isnan(tar_at_far(curve, 1e-3, len(different)))
    assert not math.isnan(tar_at_far(curve, 1e-2, 100))


def test_accuracy_of_a_fold_uses_the_threshold_of_the_others() -> None:
    random = torch.Generator().manual_seed(1)
    same = torch.arange(200) % 2 == 0
    folds = torch.arange(200) // 20
    scores = torch.randn(200, generator=random, dtype=torch.float64) + 2 * same
    result = fold_verification(scores, same, folds)
    accuracies = []
    for fold in range(10):
        others = [i for i in range(200) if folds[i] != fold]
        threshold = brute_force_threshold([float(scores[i]) for i in others], [bool(same[i]) for i in others])
        assert float(result.thresholds[fold]) == threshold
        own = [i for i in range(200) if folds[i] == fold]
        accuracies.append(sum((float(scores[i]) >= threshold) == bool(same[i]) for i in own) / 20)
    np.testing.assert_allclose(result.fold_accuracies.numpy(), accuracies)
    assert result.accuracy == pytest.approx(np.mean(accuracies)) and result.std == pytest.approx(
        np.std(accuracies, ddof=1)
    )
    assert (result.same, result.different) == (100, 100)
    assert not math.isnan(result.tar[1e-2]) and math.isnan(result.tar[1e-3])
    # any increasing function of the scores leaves everything but the thresholds
    other = fold_verification(scores.exp(), same, folds)
    assert other.auc == result.auc and other.tar[1e-2] == result.tar[1e-2]


def test_bad_arguments_of_the_functions() -> None:
    same, folds = torch.tensor([True, False]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="NaN"):
        roc_curve(torch.tensor([0.0, math.nan]), same)
    with pytest.raises(ValueError, match="both kinds"):
        roc_curve(torch.tensor([0.0, 1.0]), torch.tensor([True, True]))
    with pytest.raises(ValueError, match="two folds"):
        fold_verification(torch.rand(2), same, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="floating"):
        best_threshold(torch.tensor([0, 1]), same)
    with pytest.raises(TypeError, match="booleans"):
        best_threshold(torch.rand(2), folds)
    with pytest.raises(ValueError, match="between 0 and 1"):
        tar_at_far(roc_curve(torch.rand(2), same), 1.0)
    assert pair_cosines(torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]])).tolist() == [
        1,
        0,
    ]


def some_pairs() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    same = torch.arange(60) % 2 == 0
    return torch.randn(60, generator=random, dtype=torch.float64) + same, same, torch.arange(60) // 6


def _share_of_the_pairs(rank: int, world_size: int, empty_rank: bool) -> tuple[float, Tensor, float]:
    scores, same, folds = some_pairs()
    # Uneven shares, and pairs 0 and 1 twice, as samplers that pad repeat them; or a rank without any pair.
    rows = [*range(40), 0, 1] if rank == 0 else list(range(40, 60))
    if empty_rank:
        rows = list(range(60)) if rank == 0 else []
    metric = VerificationMetric()
    for start in range(0, len(rows), 16):
        index = torch.tensor(rows[start : start + 16])
        metric.update(scores[index], same[index], folds[index], index)
    result = metric.compute()
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(3))
    pairs = PairFeatures(6, 4)
    index = torch.arange(rank, 20, 2)
    pairs.update(features[index], index % 6)
    cosines, complete = pairs.scores(torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]))
    return result.accuracy, cosines, result.auc + len(complete)


@pytest.mark.parametrize("empty_rank", [False, True])
def test_two_processes_give_the_figures_of_one(gloo: GlooPool, empty_rank: bool) -> None:
    scores, same, folds = some_pairs()
    expected = fold_verification(scores, same, folds)
    features = F.normalize(torch.randn(20, 4, generator=torch.Generator().manual_seed(3)).double(), dim=1)
    means = torch.stack([features[item::6].mean(0) for item in range(6)])
    for accuracy, cosines, auc in gloo.run(_share_of_the_pairs, empty_rank):
        assert accuracy == expected.accuracy and auc == expected.auc + 3
        torch.testing.assert_close(cosines, F.cosine_similarity(means[:3], means[3:]), rtol=0, atol=1e-12)


def test_the_metric_counts_pairs_without_numbers_as_they_come() -> None:
    scores, same, folds = some_pairs()
    metric = VerificationMetric(fars=(0.1,)).half()
    metric.update(scores, same, folds)
    assert metric.compute().accuracy == fold_verification(scores, same, folds).accuracy
    assert list(metric.compute().tar) == [0.1]
    metric.reset()
    with pytest.raises(ValueError, match="at least one"):
        metric.compute()
    with pytest.raises(ValueError, match="one length"):
        metric.update(scores, same[1:], folds)


# ------------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize(
    ("network", "shape", "count"),
    [
        (DeepFace, (3, 152, 152), 102_412_864),
        (DeepID2Plus, (3, 55, 47), 3_187_072),
        (InceptionResNetV1, (3, 160, 160), 23_482_624),  # that of the implementations in use, without their head
        (FaceResNet, (3, 112, 96), 22_666_944),
        (DDRL, (3, 112, 96), 33_303_968),
    ],
)
def test_parameter_counts_of_face_networks(network: Any, shape: tuple[int, int, int], count: int) -> None:
    with torch.device("meta"):
        net = network(shape)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize(
    "net",
    [
        lambda: DeepFace((3, 72, 80), width=12, filters=(4, 3, 3, 3, 3)),
        lambda: DeepID2Plus((1, 55, 47), width=12, filters=4),
        lambda: InceptionResNetV1((3, 80, 80), width=12, width_multiplier=0.05),
        lambda: FaceResNet((1, 28, 23), width=12, filters=2, batch_norm=True),
        lambda: FaceResNet((1, 28, 23), width=12, filters=2, units=(0, 1, 0, 1)),
        lambda: DDRL((3, 32, 32), width=12, filters=2),
    ],
)
def test_face_networks_hand_out_their_activations(net: Any) -> None:
    torch.manual_seed(0)
    backbone = net().eval()
    x = torch.randn(2, *backbone.input_shape)
    features, activations = backbone.forward_activations(x, backbone.activation_names)
    assert features.shape == (2, 12) == (2, backbone.num_features)
    assert torch.equal(activations[backbone.activation_names[-1]], features)
    assert torch.equal(backbone(x), features)
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_places_of_a_locally_connected_layer_have_filters_of_their_own() -> None:
    torch.manual_seed(0)
    layer = LocallyConnected2d(3, 5, 3, 9, 7, stride=2).double()
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    out = layer(x)
    assert out.shape == (2, 5, 4, 3)
    nn.init.normal_(layer.bias)
    for row, column in itertools.product(range(4), range(3)):
        weight = layer.weight[row * 3 + column].T.reshape(5, 3, 3, 3)
        patch = x[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        expected = torch.einsum("nchw,ochw->no", patch, weight) + layer.bias[:, row, column]
        torch.testing.assert_close(layer(x)[:, :, row, column], expected)
    with pytest.raises(ConfigError, match="do not fit"):
        LocallyConnected2d(3, 5, 3, 2, 7)
    with pytest.raises(ConfigError, match="at least 72 x 72"):
        DeepFace((3, 71, 112))


# -------------------------------------------------------------------------------------------------------- module


def small_net(shape: tuple[int, ...]) -> FaceResNet:
    return FaceResNet(shape, width=8, filters=4, units=(0, 0, 0, 0), batch_norm=True)


def identities(root: str) -> CASIAWebFaceDataModule:
    return CASIAWebFaceDataModule(root, image_size=(24, 20), channels=1, classes=6, batch_size=8, eval_batch_size=9)


def strangers(root: str) -> VerificationPairs:
    return IdentityPairs(root, identities=-6, folds=3, name="strangers")


def friends(root: str) -> VerificationPairs:
    return IdentityPairs(root, identities=["s7", "s8", "s9", "s10"], folds=2, name="friends")


def quiet(folder: Path, **options: Any) -> Trainer:
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    more = {"enable_model_summary": False, "default_root_dir": str(folder), "accelerator": "cpu", "max_epochs": 1}
    return Trainer(**{**settings, **more, **options})  # type: ignore[arg-type]


def reference(module: VerificationModule, table: PairTable, data: CASIAWebFaceDataModule) -> float:
    """The accuracy, from images that are read here one by one."""
    features = []
    module.eval()
    for (path,) in table.paths:
        picture = torch.from_numpy(np.asarray(Image.open(path)).copy())[None, None].float() / 255
        x = (picture - 0.5) / 0.5
        with torch.no_grad():
            features.append((module.backbone(x) + module.backbone(x.flip(3)))[0].double())
    stacked = torch.stack(features)
    return fold_verification(
        pair_cosines(stacked[table.first], stacked[table.second]), table.same, table.folds
    ).accuracy


def test_the_module_trains_on_identities_and_verifies_pairs(tmp_path: Path) -> None:
    root = str(write_people(tmp_path / "set", people=12, images=4))
    data = FaceVerificationDataModule(root, identities, [strangers, friends], friends)
    torch.manual_seed(0)
    module = VerificationModule(6, (1, 24, 20), small_net, flip_average=True)
    trainer = quiet(tmp_path, max_epochs=2)
    trainer.fit(module, data)
    assert 0 <= float(trainer.callback_metrics["val/verification_error"]) <= 1
    assert "train/loss" in trainer.callback_metrics and "val/error" not in trainer.callback_metrics
    assert module.monitor == "val/verification_error"
    trainer.test(module, data, verbose=False)
    figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
    table = data.pair_sets("test")[0].table
    accuracy = reference(module, table, data.identities)  # type: ignore[arg-type]
    assert figures["test/verification_accuracy"] == pytest.approx(accuracy)
    assert figures["test/verification_error"] == figures["test/strangers/verification_error"]
    assert figures["test/friends/auc"] <= 1 and figures["test/weight_separability"] > 0
    assert "test/tar_at_far_0.001" not in figures  # too few pairs to tell
    for name in ("strangers", "friends"):
        assert (tmp_path / "analysis" / f"roc-{name}.png").is_file()
        assert (tmp_path / "analysis" / f"roc-{name}.pdf").is_file()
    content = json.loads((tmp_path / "analysis" / "roc-strangers.json").read_text())
    assert content["accuracy"] == pytest.approx(accuracy) and content["tar_at_far"]["0.001"] is None
    again = verify_pairs(module, data, flip_average=True)
    assert again["strangers"].accuracy == pytest.approx(accuracy) and set(again) == {"strangers", "friends"}
    assert data.checksums()["test-strangers.pairs"].startswith("blake2b:")
    with pytest.raises(DataError, match="without class labels"):
        data.analysis_dataloader("test")


def test_videos_are_compared_by_the_mean_of_their_frames(tmp_path: Path) -> None:
    write_ytf(tmp_path)
    write_people(tmp_path / "people", people=3, images=2)

    def people(root: str) -> CASIAWebFaceDataModule:
        return CASIAWebFaceDataModule(root, folder="people", image_size=(24, 20), channels=1, eval_batch_size=5)

    data = FaceVerificationDataModule(str(tmp_path), people, [YTFPairs])
    torch.manual_seed(0)
    net = small_net((1, 24, 20)).eval()
    result = verify_pairs(net, data)["ytf"]
    table = data.pair_sets("test")[0].table
    means = []
    for paths in table.paths:
        frames = torch.stack([torch.from_numpy(np.asarray(Image.open(path)).copy()) for path in paths])
        with torch.no_grad():
            features = net((frames[:, None].float() / 255 - 0.5) / 0.5)
        means.append(F.normalize(features.double(), dim=1).mean(dim=0))
    means_of = torch.stack(means)
    scores = pair_cosines(means_of[table.first], means_of[table.second])
    assert result.auc == pytest.approx(area_under_curve(roc_curve(scores, table.same)))


def test_without_validation_pairs_classification_is_validated(tmp_path: Path) -> None:
    root = str(write_people(tmp_path / "set", people=12, images=4))

    def with_validation(root: str) -> CASIAWebFaceDataModule:
        return CASIAWebFaceDataModule(root, image_size=(24, 20), channels=1, classes=6, val_size=6)

    data = FaceVerificationDataModule(root, with_validation, [strangers])
    module = VerificationModule(6, (1, 24, 20), small_net)
    trainer = quiet(tmp_path)
    trainer.fit(module, data)
    assert module.monitor == "val/error" and "val/error" in trainer.callback_metrics


def test_partial_passes_and_wrong_modules_say_so(tmp_path: Path) -> None:
    root = str(write_people(tmp_path / "set", people=12, images=4))
    data = FaceVerificationDataModule(root, identities, [strangers], friends)
    module = VerificationModule(6, (1, 24, 20), small_net)
    with pytest.warns(UserWarning, match="pairs have been seen"):
        quiet(tmp_path, limit_test_batches=1).test(module, data, verbose=False)
    with pytest.raises(ConfigError, match="SupervisedModule cannot verify pairs"):
        quiet(tmp_path).fit(SupervisedModule(6, (1, 24, 20), small_net), data)
    with pytest.raises(ConfigError, match="several sets with one name"):
        FaceVerificationDataModule(root, identities, [strangers, strangers])
    with pytest.raises(ConfigError, match="no test pairs"):
        quiet(tmp_path).test(module, FaceVerificationDataModule(root, identities), verbose=False)
    known = FaceVerificationDataModule(root, identities, [lambda root: IdentityPairs(root, folds=2, name="all")])
    with pytest.warns(UserWarning, match="6 people of the test pairs have the names of identities to train on"):
        known.pair_sets("test")


def test_any_module_can_verify_pairs(tmp_path: Path) -> None:
    class Plain(VerifiesPairs, SupervisedModule):
        pass

    root = str(write_people(tmp_path / "set", people=12, images=4))
    data = FaceVerificationDataModule(root, identities, [strangers])
    module = Plain(6, (1, 24, 20), small_net)
    trainer = quiet(tmp_path)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert "test/verification_error" in trainer.callback_metrics


def test_faces_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_people(tmp_path / "faces", people=40, images=3)
    words = ["fit", "--config", "faces-att", "--data.root", "faces", "--run_dir", "run", "--trainer.max_epochs", "1"]
    words += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    words += ["--model.backbone.filters", "2", "--model.reconstruction_weight", "0.001"]
    assert main(words) == 0
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 <= figures["test/verification_error"] <= 1 and 0 <= figures["test/auc"] <= 1
    assert (tmp_path / "run" / "analysis" / "roc-att.png").is_file()
    again = ["test", "--run_dir", "run", "--trainer.enable_progress_bar", "false"]
    assert main(again) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test/auc"] == figures["test/auc"]
    assert main([*words[:-2], "--data.root", "nowhere", "--run_dir", "other"]) == 1


@pytest.mark.parametrize("name", [name for name in names() if name.startswith("faces/")])
def test_configs_of_table_2_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", name, "--model.reconstruction_weight", "0.001", "--print_config"]) == 0
    assert "VerificationModule" in capsys.readouterr().out
