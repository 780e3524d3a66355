"""The memory-mapped store: built once, resumed, shared."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ddp_pool import GlooPool
from published_formats import write_folder, write_people
from torch import Tensor

from lightning_repshape.data import (
    FaceFiles,
    ImageFolderDataModule,
    cache,
    files,
)
from lightning_repshape.errors import DataError


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
    monkeypatch.setattr(files.ImageFiles, "decode_one", no_decoding)
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


def test_an_interrupted_cache_is_not_taken_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "images")
    decode = files.ImageFiles.decode_one

    def interrupted(self: Any, path: str) -> Any:
        if path.endswith("05.png"):
            raise KeyboardInterrupt
        return decode(self, path)

    module = ImageFolderDataModule(root=str(tmp_path / "images"), image_size=12, memory_budget_gb=0)
    with monkeypatch.context() as patch:
        patch.setattr(files.ImageFiles, "decode_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            module.prepare_data()
    assert not [path for path in (tmp_path / "images" / ".repshape-cache").iterdir() if not path.name.startswith(".")]
    module.prepare_data()
    assert len(list((tmp_path / "images" / ".repshape-cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    (tmp_path / "taken").write_text("a file where the folder should be")
    module = ImageFolderDataModule(root=str(tmp_path / "images"), cache_dir=str(tmp_path / "taken"))
    with pytest.raises(DataError, match=r"cannot write the image cache .*taken.*set cache_dir"):
        module.prepare_data()


def face_files(root: Path) -> FaceFiles:
    paths = tuple(itertools.chain(*files.list_images(sorted(root.iterdir()))))
    return FaceFiles(paths, 12, 10, 1)


def decoded_during(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    original = FaceFiles.decode_one

    def noted(self: FaceFiles, path: str) -> Any:
        seen.append(path)
        return original(self, path)

    monkeypatch.setattr(FaceFiles, "decode_one", noted)
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
    original = FaceFiles.decode_one

    def noted(self: FaceFiles, path: str) -> Any:
        nonlocal seen
        seen += 1
        return original(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaceFiles, "decode_one", noted)
        mapped, _ = cache.build_cache(images, Path(folder), "faces", block_bytes=480)
    return seen, int(mapped.sum())


def test_two_processes_build_one_cache(tmp_path: Path, gloo: GlooPool) -> None:
    images = face_files(write_people(tmp_path / "set", people=20, images=4))
    results = gloo.run(_build_and_count, str(tmp_path / "set"), str(tmp_path / "cache"))
    assert {total for _, total in results} == {int(images.decode().sum())}
    assert sum(seen for seen, _ in results) == 80  # every image once, by whichever came first
    assert len(list((tmp_path / "cache").iterdir())) == 1
