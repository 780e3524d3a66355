"""Lists of pairs: LFW's and YouTube Faces' as published, and one's own."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning_repshape.data.faces.pairs import PairTable, VerificationPairs, pair_table
from lightning_repshape.data.files import (
    IMAGE_SUFFIXES,
    class_folders,
    list_images,
    natural_order,
    read_lines,
    whole_number,
)
from lightning_repshape.errors import ConfigError, DataError

LFWPair = tuple[tuple[str, int], tuple[str, int]]
"""Two images, each a name and a number."""
LFWEntry = tuple[LFWPair, int]
"""A pair and its fold."""


class LFWPairs(VerificationPairs):
    """Labeled Faces in the Wild (Huang et al. 2007): 6,000 pairs in ten folds, and the development lists.

    The images, ``<name>/<name>_0001.jpg``, are looked for in ``root``, in ``root``'s folders ``lfw``, ``lfw_funneled``,
    ``lfw-deepfunneled`` and ``lfw-112``, and likewise in ``lfw-py`` (torchvision's layout) and ``lfw_home``
    (scikit-learn's), also where such a folder holds one of its own name; the list of pairs beside them or above, also
    as a table (``pairs.csv`` with a heading, as Kaggle has it). Found are another suffix than ``.jpg``, too, and
    ``<name>/1.jpg``, ``<name>/<name>_1.jpg``, ``<name>/0001.jpg`` and ``<name>_0001.jpg`` without a folder.

    Args:
        root: Folder that holds the unpacked set.
        pairs: The list: ``pairs.txt`` (ten folds), ``pairsDevTest.txt`` or ``pairsDevTrain.txt`` (one list, dealt out
            to ten folds here; for validation, as LFW's protocol has it), or a path.
        images: The folder of images, below ``root`` or absolute. None: looked for.
        name: Name in keys and tables.
        **kwargs: ``fit``, ``center_crop`` and ``exif_orientation``, see :class:`VerificationPairs`.
    """

    expected: ClassVar[str] = (
        "<name>/<name>_0001.jpg, <name>/<name>_1.jpg, <name>/0001.jpg, <name>/1.jpg and <name>_0001.jpg, of any format"
    )

    def __init__(
        self,
        root: str = "data",
        pairs: str = "pairs.txt",
        images: str | None = None,
        *,
        name: str = "lfw",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, name, **kwargs)
        self.pairs = pairs
        self.images = images

    def _find_images(self) -> Path:
        if self.images is not None:
            return self.root / Path(self.images).expanduser()
        below = ("lfw-deepfunneled", "lfw_funneled", "lfw-112", "lfw")
        for parent in (self.root, self.root / "lfw-py", self.root / "lfw_home", self.root / "lfw"):
            for place in (*(parent / name / again for name in below for again in (name, "")), parent):
                if place.is_dir() and _holds_people(place):
                    return place
        raise DataError(
            f"LFW's images are not in {self.root}: looked for <name>/<name>_0001.jpg there and in lfw, lfw_funneled, "
            "lfw-deepfunneled, also within lfw-py (torchvision) and lfw_home (scikit-learn); set root or images"
        )

    def read(self) -> PairTable:
        """Reads the list of pairs."""
        folder = self._find_images()
        given = self.root / Path(self.pairs).expanduser()
        places = [given, folder / self.pairs, folder.parent / self.pairs, folder.parent.parent / self.pairs]
        places += [place.with_suffix(".csv") for place in places]
        listed = next((place for place in places if place.is_file()), None)
        if listed is None:
            raise DataError(
                f"the list of pairs is not there: looked for {' and '.join(str(p.absolute()) for p in places[:3])}"
            )
        return _lfw_table(listed, folder, "{0}_{1:04d}")


class YTFPairs(VerificationPairs):
    """YouTube Faces (Wolf et al. 2011): 5,000 pairs of videos in ten folds.

    ``root`` (or ``YouTubeFaces`` in it) holds ``splits.txt`` and the frames, ``<name>/<number>/*.jpg``, in
    ``aligned_images_DB``, ``frame_images_DB`` or beside it. A line of ``splits.txt`` is the fold, the two videos
    ("Name/2"), and as its last entry 1 for one person or 0, with commas between; entries between them are not looked
    at, and neither is a heading. The feature of a video is the mean over its frames' unit-length features.

    Args:
        root: Folder that holds the unpacked set.
        frames: Use at most this many frames of a video, evenly spread. None: all (621,126 in all).
        splits: The list of pairs, below ``root`` or absolute.
        images: The folder of frames, below ``root`` or absolute. None: looked for.
        name: Name in keys and tables.
        **kwargs: ``fit``, ``center_crop`` and ``exif_orientation``, see :class:`VerificationPairs`.
    """

    def __init__(
        self,
        root: str = "data",
        frames: int | None = None,
        splits: str = "splits.txt",
        images: str | None = None,
        *,
        name: str = "ytf",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, name, **kwargs)
        if frames is not None and frames < 1:
            raise ConfigError(f"YTFPairs: frames={frames}, but it must be at least 1")
        self.frames = frames
        self.splits = splits
        self.images = images

    def read(self) -> PairTable:
        """Reads the list of pairs."""
        places = [self.root, self.root / "YouTubeFaces", self.root / "ytf"]
        base = next((place for place in places if (place / self.splits).is_file()), None)
        if base is None:
            raise DataError(
                f"{(places[0] / self.splits).absolute()} is not there; set root to the folder that holds YouTube Faces"
            )
        listed = base / self.splits
        if self.images is not None:
            folder = self.root / Path(self.images).expanduser()
        else:
            folder = next((base / n for n in ("aligned_images_DB", "frame_images_DB") if (base / n).is_dir()), base)
        if not folder.is_dir():
            raise DataError(f"the frames of YouTube Faces are not there: no folder {folder.absolute()}")
        entries: list[tuple[str, str, bool, int]] = []
        for place, (number, line) in enumerate(_lines(listed)):
            parts = [part.strip() for part in line.split(",")]
            if place == 0 and whole_number(parts[0]) is None:
                continue  # the heading
            videos = [part.replace("\\", "/") for part in parts[1:3]]
            fold = whole_number(parts[0])
            if len(parts) < 4 or fold is None or parts[-1] not in ("0", "1") or not all(map(_is_video, videos)):
                raise DataError(
                    f"{listed}, line {number}: expected 'fold, name/video, name/video, 0 or 1', got {line[:80]!r}"
                )
            entries.append((videos[0], videos[1], parts[-1] == "1", fold))
        if not entries:
            raise DataError(f"{listed} names no pair of videos")
        wanted = list(dict.fromkeys(video for first, second, _, _ in entries for video in (first, second)))
        frames: dict[str, tuple[str, ...]] = {}
        for video in wanted:
            found = list_images([folder / video])[0] if os.path.isdir(folder / video) else []
            found = natural_order(found)
            if self.frames is not None and len(found) > self.frames:
                found = [found[(2 * step + 1) * len(found) // (2 * self.frames)] for step in range(self.frames)]
            frames[video] = tuple(found)
        return pair_table(
            [
                (tuple((video.split("/")[0], video, frames[video]) for video in (first, second)), fold)
                for first, second, _, fold in entries
            ],
            same=[same for _, _, same, _ in entries],
        )


class PairsFile(VerificationPairs):
    """Pairs from a list of one's own, of images anywhere below a folder.

    A line is two paths below ``root``, 1 for one person or 0, and the fold (a whole number; without it, pairs of each
    kind are dealt out to ten folds in turn), with commas or blanks between; backslashes in paths count as "/". Empty
    lines, those that begin with "#" and the heading of a table with commas are left out. LFW's own format (see
    :class:`LFWPairs`) is recognised by its first line, for images named as there.

    Args:
        root: Folder that holds the images.
        pairs: The list, below ``root`` or absolute.
        folder: Folder of the images, below ``root`` or absolute. None: ``root``.
        name: Name in keys and tables.
        **kwargs: ``fit``, ``center_crop`` and ``exif_orientation``, see :class:`VerificationPairs`.
    """

    def __init__(
        self,
        root: str = "data",
        pairs: str = "pairs.txt",
        folder: str | None = None,
        *,
        name: str = "pairs",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, name, **kwargs)
        self.pairs = pairs
        self.folder = folder

    def read(self) -> PairTable:
        """Reads the list of pairs."""
        folder = self.root if self.folder is None else self.root / Path(self.folder).expanduser()
        listed = self.root / Path(self.pairs).expanduser()
        lines = [(number, line) for number, line in _lines(listed) if not line.startswith("#")]
        if lines and (all(whole_number(word) is not None for word in _words(lines[0][1])) or _is_lfw_table(lines)):
            return _lfw_table(listed, folder, "{0}/{1}")
        if lines and _is_heading(lines[0][1]):
            del lines[0]
        pairs: list[tuple[str, str, bool, int]] = []
        dealt = {True: 0, False: 0}
        for number, line in lines:
            parts = [part.replace("\\", "/") for part in _words(line)]
            fold = whole_number(parts[3]) if len(parts) == 4 else 0
            if len(parts) not in (3, 4) or parts[2] not in ("0", "1") or fold is None:
                raise DataError(
                    f"{listed}, line {number}: expected 'path path 0-or-1' and perhaps a fold, got {line[:80]!r}; or "
                    "LFW's format, whose first line is the number of folds and of pairs"
                )
            same = parts[2] == "1"
            pairs.append((parts[0], parts[1], same, fold if len(parts) == 4 else dealt[same] % 10))
            dealt[same] += 1
        if not pairs:
            raise DataError(f"{listed} names no pair")
        return pair_table(
            [
                (tuple((Path(p).parent.name, p, (str(folder / p),)) for p in (first, second)), fold)
                for first, second, _, fold in pairs
            ],
            same=[same for _, _, same, _ in pairs],
        )


def read_lfw_list(path: Path) -> list[LFWEntry]:
    """Reads a list in LFW's format: for each pair its two images (name and number), and the fold.

    The first line has the number of folds and of pairs of each kind a fold, or the latter alone (then they are dealt
    out to ten); then come, fold by fold, the lines "name number number" of one person and "name number name number" of
    two. DataError: the list is missing or of another format; the message has the line's number.
    """
    lines = _lines(path)
    if _is_lfw_table(lines):
        return _read_lfw_rows(path, lines[1:])
    head = [whole_number(word) or 0 for word in _words(lines[0][1])] if lines else []
    if len(head) not in (1, 2) or min(head) < 1:
        raise DataError(
            f"{path}, line 1: expected the number of folds and of pairs of each kind, such as '10 300', got "
            f"{lines[0][1][:80] if lines else ''!r}"
        )
    folds, count = (head[0], head[1]) if len(head) == 2 else (1, head[0])
    entries = []
    position = 1
    for fold in range(folds):
        for same in (True, False):
            for number_in_kind in range(count):
                if position >= len(lines):
                    raise DataError(
                        f"{path} ends after {position - 1:,} pairs, but line 1 promises {2 * folds * count:,}; get it "
                        "again"
                    )
                number, line = lines[position]
                pair = _lfw_pair(path, number, line, same)
                entries.append((pair, fold if folds > 1 else number_in_kind % 10))
                position += 1
    if position < len(lines):
        raise DataError(
            f"{path}, line {lines[position][0]}: more pairs than the {2 * folds * count:,} that line 1 promises"
        )
    return entries


def _lfw_table(listed: Path, folder: Path, form: str) -> PairTable:
    """The pairs of a list in LFW's format, whose items are named by a form of person and number."""
    suffixes = _suffixes(folder)
    entries = []
    for pair, fold in read_lfw_list(listed):
        items = [(who, form.format(who, nr), (_path(folder, who, nr, suffixes),)) for who, nr in pair]
        entries.append((tuple(items), fold))
    return pair_table(entries)


def _read_lfw_rows(path: Path, lines: list[tuple[int, str]]) -> list[LFWEntry]:
    """The rows of a table of pairs. Pairs of one person, then as many of two, are a fold, or one list without folds."""
    runs: list[tuple[bool, list[LFWPair]]] = []
    for number, line in lines:
        same = len(_words(line)) == 3
        if not runs or runs[-1][0] != same:
            runs.append((same, []))
        runs[-1][1].append(_lfw_pair(path, number, line, same))
    published = len(runs) > 2 and len(runs) % 2 == 0 and len({len(pairs) for _, pairs in runs}) == 1
    return [
        (pair, place // 2 if published else row % 10)
        for place, (_, pairs) in enumerate(runs)
        for row, pair in enumerate(pairs)
    ]


def _lfw_pair(path: Path, number: int, line: str, same: bool) -> LFWPair:
    words = _words(line)
    found = [whole_number(word) for word in (words[1:3] if same else words[1::2])]
    numbers = [number for number in found if number is not None]
    if len(words) != (3 if same else 4) or len(numbers) < 2:
        form = "name number number" if same else "name number name number"
        raise DataError(f"{path}, line {number}: expected '{form}', got {line[:80]!r}")
    return (words[0], numbers[0]), (words[0] if same else words[2], numbers[1])


def _lines(path: Path) -> list[tuple[int, str]]:
    return read_lines(path, "it must be a text file of pairs in UTF-8")


def _words(line: str) -> list[str]:
    """The entries of a line, with tabs, commas or blanks between; empty ones at its end are none."""
    separator = next((mark for mark in ("\t", ",") if mark in line), None)
    words = [word.strip().strip('"') for word in line.split(separator)]
    while words and not words[-1]:
        words.pop()
    return words


def _is_heading(line: str) -> bool:
    """Whether a line of a table names its columns: no entry is a number or an image."""
    return "," in line and not any(
        whole_number(word) is not None or Path(word).suffix.lower() in IMAGE_SUFFIXES for word in _words(line)
    )


def _is_lfw_table(lines: list[tuple[int, str]]) -> bool:
    """Whether lines are LFW's pairs as a table: a heading, then "name,number,number" or "name,number,name,number"."""
    if len(lines) < 2 or not _is_heading(lines[0][1]):
        return False
    first = _words(lines[1][1])
    return len(first) in (3, 4) and whole_number(first[1]) is not None and whole_number(first[-1]) is not None


def _is_video(name: str) -> bool:
    """Whether a name is "name/video", and leads nowhere else."""
    parts = name.split("/")
    return len(parts) > 1 and not {"", ".", ".."}.intersection(parts)


def _holds_people(folder: Path) -> bool:
    """Whether a folder holds ``<name>/<name>_<number>.<suffix>``, or ``<name>_<number>.<suffix>``."""
    for name in itertools.islice(class_folders(folder), 20):
        if any(entry.name.startswith(f"{name}_") for entry in (folder / name).iterdir()):
            return True
    flat = (entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)
    return any(whole_number(entry.stem.rpartition("_")[2]) is not None for entry in itertools.islice(flat, 20))


def _suffixes(folder: Path) -> tuple[str, ...]:
    """The suffixes to try, that of the folder's first image in front."""
    inner = [folder / name for name in itertools.islice(class_folders(folder) if folder.is_dir() else [], 20)]
    for place in (*inner, folder):
        for entry in sorted(place.iterdir()) if place.is_dir() else ():
            if entry.suffix.lower() in IMAGE_SUFFIXES:
                return (entry.suffix, *sorted(IMAGE_SUFFIXES - {entry.suffix}))
    return (".jpg", *sorted(IMAGE_SUFFIXES - {".jpg"}))


def _path(folder: Path, who: str, number: int, suffixes: Sequence[str]) -> str:
    """The image of a person; where it does not exist, the name that it would have."""
    stems = (
        f"{who}/{who}_{number:04d}",
        f"{who}/{number}",
        f"{who}/{who}_{number}",
        f"{who}/{number:04d}",
        f"{who}_{number:04d}",
    )
    names = [f"{stem}{suffix}" for stem in stems for suffix in suffixes]
    found = next((name for name in names if os.path.isfile(folder / name)), names[0])
    return str(folder / found)
