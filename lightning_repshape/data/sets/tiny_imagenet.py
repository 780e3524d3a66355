"""Tiny ImageNet, in its folders of JPEG files."""

import os
from pathlib import Path

import torch

from lightning_repshape.data import download, files
from lightning_repshape.data.files import ImageFiles
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.errors import DataError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
_FOLDER = "tiny-imagenet-200"
_MEAN, _STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)


class TinyImageNetDataModule(ImageDataModule):
    """Tiny ImageNet: 200 classes of ImageNet, 500 training and 50 test images each, colour 64 x 64.

    ``root`` holds ``tiny-imagenet-200/`` as the official zip unpacks, or is that folder. The official validation
    images, by ``val/val_annotations.txt``, are the test part, because the official test part has no labels; by default
    a tenth of the training images, stratified, is the validation part. Classes are those of ``wnids.txt``, sorted by
    their WordNet number, so fewer than 200 work too, and ``val/<number>/`` in place of the annotations; the folders
    ``images`` may be left out; ``classes`` and ``class_names`` go by the first word of
    ``words.txt`` (with the number, where two classes share it), and ``classes`` by the numbers as well. Grey images
    become colour images.

    Before the set is downloaded, its 200 classes are known by number only ("class 0").
    """

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        self._wnids = self._read_wnids()
        names = self._read_words(self._wnids) or tuple(f"class {label}" for label in range(200))
        return ImageSet(
            name="Tiny ImageNet",
            class_names=names,
            input_shape=(3, 64, 64),
            mean=_MEAN,
            std=_STD,
            val_size=0.1,
            val_split="stratified",
            aliases=dict(zip(self._wnids, names, strict=False)),
        )

    def _folder(self) -> Path | None:
        for place in (self.root / _FOLDER, self.root):
            if (place / "wnids.txt").is_file():
                return place
        return None

    def _read_wnids(self) -> tuple[str, ...]:
        folder = self._folder()
        if folder is None:
            return ()
        wnids = sorted(set(_read_lines(folder / "wnids.txt")))
        odd = [wnid for wnid in wnids if wnid in (".", "..") or "/" in wnid or "\\" in wnid or len(wnid) > 100]
        if odd:
            raise DataError(
                f"{folder / 'wnids.txt'} has {odd[0][:80]!r}, which is no WordNet number; unpack the set again"
            )
        if not wnids:
            raise DataError(f"{folder / 'wnids.txt'} names no class; get the set again")
        return tuple(wnids)

    def _read_words(self, wnids: tuple[str, ...]) -> tuple[str, ...]:
        folder = self._folder()
        if folder is None or not (folder / "words.txt").is_file():
            return wnids
        words = {}
        for line in _read_lines(folder / "words.txt"):
            wnid, _, synonyms = line.partition("\t")
            words[wnid] = synonyms.split(",")[0].strip()
        names = [words.get(wnid) or wnid for wnid in wnids]
        return tuple(
            f"{name} ({wnid})" if names.count(name) > 1 else name for name, wnid in zip(names, wnids, strict=True)
        )

    def load_split(self, split: SplitName) -> SplitData:
        """Reads a split as published."""
        folder = self._folder()
        if folder is None:
            raise download.missing(self.root / _FOLDER, self.described.name, type(self).__name__)
        wnids = self._read_wnids()
        if not self._wnids and len(wnids) == len(self.described.class_names):  # downloaded since the constructor ran
            self._wnids = wnids
            self.name_classes(self._read_words(wnids))
        if wnids != self._wnids:
            raise DataError(
                f"{folder / 'wnids.txt'} has {len(wnids)} classes, other than when the data module was made"
            )
        paths, labels = self._list_train(folder) if split == "train" else self._list_val(folder)
        return SplitData(ImageFiles.of(paths, self.input_shape), torch.tensor(labels), paths)

    def _list_train(self, folder: Path) -> tuple[list[str], list[int]]:
        paths: list[str] = []
        labels: list[int] = []
        folders = [_with_images(folder / "train" / wnid) for wnid in self._wnids]
        for label, (wnid, found) in enumerate(zip(self._wnids, files.list_images(folders), strict=True)):
            if not found:
                raise DataError(
                    f"no images of class {wnid} in {folder / 'train' / wnid}; unpack the set again, or remove the "
                    f"class from {folder / 'wnids.txt'}"
                )
            paths += found
            labels += [label] * len(found)
        return paths, labels

    def _list_val(self, folder: Path) -> tuple[list[str], list[int]]:
        own = {wnid: folder / "val" / wnid for wnid in self._wnids if os.path.isdir(folder / "val" / wnid)}
        if own:
            absent = [wnid for wnid in self._wnids if wnid not in own]
            if absent:
                raise DataError(
                    f"{folder / 'val'} has no folder of class {files.some(absent, 3)}; unpack the set again"
                )
            labels = list(range(len(self._wnids)))
            return files.list_labelled([_with_images(own[wnid]) for wnid in self._wnids], labels)
        annotations = folder / "val" / "val_annotations.txt"
        images = _with_images(folder / "val")
        numbers = {wnid: label for label, wnid in enumerate(self._wnids)}
        paths: list[str] = []
        labels = []
        for line in _read_lines(annotations):
            name, _, rest = line.partition("\t")
            wnid = rest.split("\t")[0].strip()
            if wnid in numbers:
                paths.append(str(images / name))
                labels.append(numbers[wnid])
        absent = [path for path in paths if not os.path.isfile(path)]
        if absent:
            raise DataError(
                f"{annotations} names {len(absent)} image(s) that are not there, such as {files.some(absent, 1)}; "
                "unpack the set again"
            )
        if not paths:
            raise DataError(
                f"{annotations} names no image of the classes in {folder / 'wnids.txt'}; unpack the set again"
            )
        return paths, labels

    def download_files(self) -> None:
        """Fetches what is missing."""
        if self._folder() is None:
            with download.staging(self.root, self.described.name) as folder:
                download.unpack(download.fetch([URL], folder / f"{_FOLDER}.zip", MD5, self.described.name), folder)
                download.install(folder / _FOLDER, self.root / _FOLDER)


def _with_images(folder: Path) -> Path:
    """The folder ``images`` in a folder, or the folder itself where there is none."""
    return folder / "images" if os.path.isdir(folder / "images") else folder


def _read_lines(path: Path) -> list[str]:
    return [line for _, line in files.read_lines(path, "unpack the set again")]
