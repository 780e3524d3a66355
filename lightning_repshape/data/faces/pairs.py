"""Pairs of faces to verify, and the data module that trains on identities and tests on pairs of others."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_repshape.data import files
from lightning_repshape.data.faces.casia import check_fit, natural_order, some
from lightning_repshape.data.faces.records import FaceFiles
from lightning_repshape.data.files import IMAGE_SUFFIXES, ImageFiles
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.seeding import generator


class PairTable(NamedTuple):
    """Pairs as a set publishes them.

    Attributes:
        items: What pairs are made of, images or videos: a name for each.
        paths: The image files of each item: one, or the frames of a video.
        identities: Who each item shows, where that is known; else empty.
        first: int64 P, items.
        second: int64 P, items.
        same: bool P, whether both show one person.
        folds: int64 P.
    """

    items: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]
    identities: tuple[str, ...]
    first: Tensor
    second: Tensor
    same: Tensor
    folds: Tensor


@dataclass(frozen=True)
class PairSet:
    """Pairs ready for a model: every image once, and who is compared with whom.

    Attributes:
        name: Name in keys, tables and file names.
        images: The image files, each once.
        item_of_image: int64 N, the item (image or video) that each image belongs to.
        table: The pairs, over items.
    """

    name: str
    images: ImageFiles
    item_of_image: Tensor
    table: PairTable


class VerificationPairs(ABC):
    """Pairs of images or videos, some of one person, some of two.

    A set of one's own needs :meth:`read`.

    Args:
        root: Folder that holds the set.
        name: Name in keys, tables and file names; without "/".
        fit: What happens to an image of another size than the model's, see :class:`CASIAWebFaceDataModule`.
        center_crop: Rows and columns to cut out of the middle first.

    Raises:
        ConfigError: An option that cannot be.
    """

    def __init__(
        self,
        root: str,
        name: str,
        fit: Literal["crop", "stretch", "exact"] = "crop",
        center_crop: int | tuple[int, int] | None = None,
    ) -> None:
        check_fit(type(self).__name__, fit, center_crop)
        if not name or "/" in name:
            raise ConfigError(f"{type(self).__name__}: the name {name!r} cannot be used; give one without '/'")
        self.root = Path(root).expanduser()
        self.name = name
        self.fit = fit
        self.center_crop = (center_crop, center_crop) if isinstance(center_crop, int) else center_crop

    @abstractmethod
    def read(self) -> PairTable:
        """Reads the list of pairs.

        Returns:
            The pairs; files need not exist, :meth:`open` looks.

        Raises:
            DataError: The list is missing or of another format.
        """

    def open(self, input_shape: tuple[int, int, int]) -> PairSet:
        """Reads the pairs and looks whether their images are there.

        Args:
            input_shape: C, H, W of what the model takes.

        Returns:
            Pairs and image files.

        Raises:
            DataError: The list is missing or of another format, cannot be verified on (one fold, or pairs of one kind
                alone), or images are missing: all are listed.
        """
        table = self.read()
        absent = [path for paths in table.paths for path in paths if not Path(path).is_file()]
        empty = [name for name, paths in zip(table.items, table.paths, strict=True) if not paths]
        if absent or empty:
            listed = "".join(f"\n  {entry}" for entry in [*absent, *empty])
            raise DataError(
                f"{self.name}: {len(absent) + len(empty):,} of {len(table.items):,} images or videos named by the "
                f"pairs are not there; get them, or take their pairs out of the list:{listed}"
            )
        _check_usable(self.name, table)
        channels, height, width = input_shape
        images = FaceFiles(
            paths=tuple(path for paths in table.paths for path in paths),
            height=height,
            width=width,
            channels=channels,
            fit="stretch" if self.fit == "stretch" else "crop",
            exact=self.fit == "exact",
            center=self.center_crop,
        )
        items = torch.repeat_interleave(torch.tensor([len(paths) for paths in table.paths]))
        return PairSet(self.name, images, items, table)


class LFWPairs(VerificationPairs):
    """Labeled Faces in the Wild (Huang et al. 2007): 6,000 pairs in ten folds, and the development lists.

    The images, ``<name>/<name>_0001.jpg``, are looked for in ``root``, in ``root``'s folders ``lfw``, ``lfw_funneled``,
    ``lfw-deepfunneled`` and ``lfw-112``, and likewise in ``lfw-py`` (torchvision's layout) and ``lfw_home``
    (scikit-learn's); the list of pairs beside them or above. Another suffix than ``.jpg`` is found, too.

    Args:
        root: Folder that holds the unpacked set. Default: "data".
        pairs: The list: ``pairs.txt`` (ten folds), ``pairsDevTest.txt`` or ``pairsDevTrain.txt`` (one list, dealt out
            to ten folds here; for validation, as LFW's protocol has it), or a path. Default: "pairs.txt".
        images: The folder of images, below ``root`` or absolute. Default: None, looked for.
        fit: See :class:`CASIAWebFaceDataModule`. Default: "crop".
        center_crop: Rows and columns to cut out of the middle first; of LFW's 250 x 250 pixels the face fills about the
            middle 150. Default: None.
        name: Name in keys and tables. Default: "lfw".

    Raises:
        ConfigError: An option that cannot be.
    """

    def __init__(
        self,
        root: str = "data",
        pairs: str = "pairs.txt",
        images: str | None = None,
        fit: Literal["crop", "stretch", "exact"] = "crop",
        center_crop: int | tuple[int, int] | None = None,
        name: str = "lfw",
    ) -> None:
        super().__init__(root, name, fit, center_crop)
        self.pairs = pairs
        self.images = images

    def _find_images(self) -> Path:
        if self.images is not None:
            return self.root / Path(self.images).expanduser()
        below = ("lfw-deepfunneled", "lfw_funneled", "lfw-112", "lfw")
        for parent in (self.root, self.root / "lfw-py", self.root / "lfw_home", self.root / "lfw"):
            for place in (*(parent / name for name in below), parent):
                if place.is_dir() and _holds_people(place):
                    return place
        raise DataError(
            f"LFW's images are not in {self.root}: looked for <name>/<name>_0001.jpg there and in lfw, lfw_funneled, "
            "lfw-deepfunneled, also within lfw-py (torchvision) and lfw_home (scikit-learn); set root or images"
        )

    def read(self) -> PairTable:
        """See :meth:`VerificationPairs.read`.

        Returns:
            The pairs.

        Raises:
            DataError: Images or list are missing, or the list is of another format.
        """
        folder = self._find_images()
        given = self.root / Path(self.pairs).expanduser()
        places = [given, folder / self.pairs, folder.parent / self.pairs, folder.parent.parent / self.pairs]
        listed = next((place for place in places if place.is_file()), None)
        if listed is None:
            raise DataError(f"the list of pairs is not there: looked for {' and '.join(str(p) for p in places[:3])}")
        entries = read_lfw_list(listed)
        suffixes = _suffixes(folder)
        return _table(
            [
                (
                    tuple(
                        (who, f"{who}_{number:04d}", (_path(folder, who, number, suffixes),)) for who, number in pair
                    ),
                    fold,
                )
                for pair, fold in entries
            ]
        )


class YTFPairs(VerificationPairs):
    """YouTube Faces (Wolf et al. 2011): 5,000 pairs of videos in ten folds.

    ``root`` (or ``YouTubeFaces`` in it) holds ``splits.txt`` and the frames, ``<name>/<number>/*.jpg``, in
    ``aligned_images_DB``, ``frame_images_DB`` or beside it. A line of ``splits.txt`` is the fold, the two videos
    ("Name/2"), and as its last entry 1 for one person or 0, with commas between; entries between them are not looked
    at, and neither is a heading. The feature of a video is the mean over its frames' unit-length features.

    Args:
        root: Folder that holds the unpacked set. Default: "data".
        frames: Use at most this many frames of a video, evenly spread. Default: None, all (621,126 in all).
        splits: The list of pairs, below ``root`` or absolute. Default: "splits.txt".
        images: The folder of frames, below ``root`` or absolute. Default: None, looked for.
        fit: See :class:`CASIAWebFaceDataModule`. Default: "crop".
        center_crop: Rows and columns to cut out of the middle first. Default: None.
        name: Name in keys and tables. Default: "ytf".

    Raises:
        ConfigError: An option that cannot be.
    """

    def __init__(
        self,
        root: str = "data",
        frames: int | None = None,
        splits: str = "splits.txt",
        images: str | None = None,
        fit: Literal["crop", "stretch", "exact"] = "crop",
        center_crop: int | tuple[int, int] | None = None,
        name: str = "ytf",
    ) -> None:
        super().__init__(root, name, fit, center_crop)
        if frames is not None and frames < 1:
            raise ConfigError(f"YTFPairs: frames={frames}, but it must be at least 1")
        self.frames = frames
        self.splits = splits
        self.images = images

    def read(self) -> PairTable:
        """See :meth:`VerificationPairs.read`.

        Returns:
            The pairs.

        Raises:
            DataError: Frames or list are missing, or the list is of another format.
        """
        places = [self.root, self.root / "YouTubeFaces", self.root / "ytf"]
        base = next((place for place in places if (place / self.splits).is_file()), None)
        if base is None:
            raise DataError(f"{places[0] / self.splits} is not there; set root to the folder that holds YouTube Faces")
        listed = base / self.splits
        if self.images is not None:
            folder = self.root / Path(self.images).expanduser()
        else:
            folder = next((base / n for n in ("aligned_images_DB", "frame_images_DB") if (base / n).is_dir()), base)
        if not folder.is_dir():
            raise DataError(f"the frames of YouTube Faces are not there: no folder {folder}")
        entries: list[tuple[str, str, bool, int]] = []
        for place, (number, line) in enumerate(_lines(listed)):
            parts = [part.strip() for part in line.split(",")]
            if place == 0 and not parts[0].isdigit():
                continue  # the heading
            videos = parts[1:3]
            if (
                len(parts) < 4
                or not parts[0].isdigit()
                or parts[-1] not in ("0", "1")
                or not all("/" in v for v in videos)
            ):
                raise DataError(
                    f"{listed}, line {number}: expected 'fold, name/video, name/video, 0 or 1', got {line[:80]!r}"
                )
            entries.append((videos[0], videos[1], parts[-1] == "1", int(parts[0])))
        if not entries:
            raise DataError(f"{listed} names no pair of videos")
        wanted = list(dict.fromkeys(video for first, second, _, _ in entries for video in (first, second)))
        frames: dict[str, tuple[str, ...]] = {}
        for video in wanted:
            found = files.list_images([folder / video])[0] if (folder / video).is_dir() else []
            found = natural_order(found)
            if self.frames is not None and len(found) > self.frames:
                found = [found[(2 * step + 1) * len(found) // (2 * self.frames)] for step in range(self.frames)]
            frames[video] = tuple(found)
        return _table(
            [
                (tuple((video.split("/")[0], video, frames[video]) for video in (first, second)), fold)
                for first, second, _, fold in entries
            ],
            same=[same for _, _, same, _ in entries],
        )


class PairsFile(VerificationPairs):
    """Pairs from a list of one's own, of images anywhere below a folder.

    A line is two paths below ``root``, 1 for one person or 0, and the fold (a whole number; without it, pairs of each
    kind are dealt out to ten folds in turn), with commas or blanks between. Empty lines and those that begin with "#"
    are left out. LFW's own format (see :class:`LFWPairs`) is recognised by its first line, for images named
    ``<name>/<name>_0001.jpg`` or ``<name>/1.jpg``.

    Args:
        root: Folder that holds the images. Default: "data".
        pairs: The list, below ``root`` or absolute. Default: "pairs.txt".
        folder: Folder of the images, below ``root`` or absolute. Default: None, ``root``.
        fit: See :class:`CASIAWebFaceDataModule`. Default: "crop".
        center_crop: Rows and columns to cut out of the middle first. Default: None.
        name: Name in keys and tables. Default: "pairs".

    Raises:
        ConfigError: An option that cannot be.
    """

    def __init__(
        self,
        root: str = "data",
        pairs: str = "pairs.txt",
        folder: str | None = None,
        fit: Literal["crop", "stretch", "exact"] = "crop",
        center_crop: int | tuple[int, int] | None = None,
        name: str = "pairs",
    ) -> None:
        super().__init__(root, name, fit, center_crop)
        self.pairs = pairs
        self.folder = folder

    def read(self) -> PairTable:
        """See :meth:`VerificationPairs.read`.

        Returns:
            The pairs.

        Raises:
            DataError: The list is missing or of another format.
        """
        folder = self.root if self.folder is None else self.root / Path(self.folder).expanduser()
        listed = self.root / Path(self.pairs).expanduser()
        lines = [(number, line) for number, line in _lines(listed) if not line.startswith("#")]
        if lines and all(word.isdigit() for word in lines[0][1].split()):
            entries = read_lfw_list(listed)
            suffixes = _suffixes(folder)
            return _table(
                [
                    (tuple((who, f"{who}/{nr}", (_path(folder, who, nr, suffixes),)) for who, nr in pair), fold)
                    for pair, fold in entries
                ]
            )
        pairs: list[tuple[str, str, bool, int]] = []
        dealt = {True: 0, False: 0}
        for number, line in lines:
            parts = [part.strip() for part in line.split(",")] if "," in line else line.split()
            if len(parts) not in (3, 4) or parts[2] not in ("0", "1") or (len(parts) == 4 and not parts[3].isdigit()):
                raise DataError(
                    f"{listed}, line {number}: expected 'path path 0-or-1' and perhaps a fold, got {line[:80]!r}; or "
                    "LFW's format, whose first line is the number of folds and of pairs"
                )
            same = parts[2] == "1"
            pairs.append((parts[0], parts[1], same, int(parts[3]) if len(parts) == 4 else dealt[same] % 10))
            dealt[same] += 1
        if not pairs:
            raise DataError(f"{listed} names no pair")
        return _table(
            [
                (tuple((Path(p).parent.name, p, (str(folder / p),)) for p in (first, second)), fold)
                for first, second, _, fold in pairs
            ],
            same=[same for _, _, same, _ in pairs],
        )


class IdentityPairs(VerificationPairs):
    """Pairs made from a folder of identity folders: as many of one person as of two, in folds of different people.

    The people are dealt out to folds, and pairs are made within a fold, so that a threshold is always tried on people
    that it was not chosen on. A fold has all pairs of one person, and as many, drawn by ``seed``, of two; where the
    other kind is rarer, the former are drawn. The pairs are the same in every run.

    Args:
        root: Folder that holds the set. Default: "data".
        folder: The folder of identity folders, below ``root`` or absolute. Default: None, ``root``.
        identities: The first n people in natural order, or the last n where negative, or those named. Default: None,
            all.
        folds: Number of folds; each needs two people. Default: 10.
        pairs_per_fold: At most this many pairs of each kind a fold. Default: None, as many as there are.
        seed: Decides folds and pairs. Default: 0.
        fit: See :class:`CASIAWebFaceDataModule`. Default: "crop".
        center_crop: Rows and columns to cut out of the middle first. Default: None.
        name: Name in keys and tables. Default: "pairs".

    Raises:
        ConfigError: An option that cannot be.
    """

    def __init__(
        self,
        root: str = "data",
        folder: str | None = None,
        identities: int | list[str] | None = None,
        folds: int = 10,
        pairs_per_fold: int | None = None,
        seed: int = 0,
        fit: Literal["crop", "stretch", "exact"] = "crop",
        center_crop: int | tuple[int, int] | None = None,
        name: str = "pairs",
    ) -> None:
        super().__init__(root, name, fit, center_crop)
        if folds < 2:
            raise ConfigError(f"IdentityPairs: folds={folds}, but a threshold comes from the other folds: at least 2")
        if pairs_per_fold is not None and pairs_per_fold < 1:
            raise ConfigError(f"IdentityPairs: pairs_per_fold={pairs_per_fold}, but it must be at least 1")
        if identities == 0 or identities == []:
            raise ConfigError("IdentityPairs: identities leaves nobody")
        self.folder = folder
        self.identities = identities
        self.folds = folds
        self.pairs_per_fold = pairs_per_fold
        self.seed = seed

    def _people(self, folder: Path) -> list[str]:
        if not folder.is_dir():
            raise DataError(f"no folder {folder}; set root to the folder that holds a folder for each identity")
        known = natural_order(files.class_folders(folder))
        wanted = self.identities
        if isinstance(wanted, list):
            absent = [name for name in wanted if name not in known]
            if absent:
                raise DataError(f"{folder} has no identity folder {some(absent)}")
            return wanted
        if wanted is not None and abs(wanted) > len(known):
            raise DataError(f"{folder} has {len(known)} identities, fewer than the {abs(wanted)} asked for")
        return known if wanted is None else known[:wanted] if wanted > 0 else known[wanted:]

    def read(self) -> PairTable:
        """See :meth:`VerificationPairs.read`.

        Returns:
            The pairs.

        Raises:
            DataError: There are too few people or images.
        """
        folder = self.root if self.folder is None else self.root / Path(self.folder).expanduser()
        people = self._people(folder)
        if len(people) < 2 * self.folds:
            raise DataError(
                f"{len(people)} identities are too few for {self.folds} folds, which need two each; set folds to "
                f"{len(people) // 2}" + ("" if len(people) >= 4 else ", and give at least four identities")
            )
        images = dict(zip(people, files.list_images([folder / name for name in people]), strict=True))
        order = torch.randperm(len(people), generator=generator("pair-folds", self.seed)).tolist()
        entries: list[tuple[tuple[tuple[str, str, tuple[str, ...]], ...], int]] = []
        same: list[bool] = []
        for fold in range(self.folds):
            members = [people[place] for place in sorted(order[fold :: self.folds])]
            faces = [(who, path) for who in members for path in natural_order(images[who])]
            both = list(itertools.combinations(faces, 2))
            kinds = {True: [p for p in both if p[0][0] == p[1][0]], False: [p for p in both if p[0][0] != p[1][0]]}
            count = min(len(kinds[True]), len(kinds[False]), self.pairs_per_fold or len(both))
            if not count:
                raise DataError(
                    f"{folder}: fold {fold} ({some(members)}) has no pair of one person, because none of them has two "
                    "images; name other identities, or make folds fewer"
                )
            for kind, candidates in kinds.items():
                draw = torch.randperm(len(candidates), generator=generator("pairs", self.seed, fold, int(kind)))
                for place in draw[:count].sort().values.tolist():
                    pair = candidates[place]
                    entries.append((tuple((who, str(Path(p).relative_to(folder)), (p,)) for who, p in pair), fold))
                    same.append(kind)
        return _table(entries, same)


def read_lfw_list(path: Path) -> list[tuple[tuple[tuple[str, int], tuple[str, int]], int]]:
    """Reads a list of pairs in LFW's format.

    The first line has the number of folds and of pairs of each kind a fold, or the latter alone; then come, fold by
    fold, the lines "name number number" of one person and "name number name number" of two.

    Args:
        path: The list.

    Returns:
        For each pair its two images (name and number), and the fold; a list without folds is dealt out to ten.

    Raises:
        DataError: The list is missing or of another format; the message has the line's number.
    """
    lines = _lines(path)
    head = lines[0][1].split() if lines else []
    if len(head) not in (1, 2) or not all(word.isdigit() and int(word) > 0 for word in head):
        raise DataError(
            f"{path}, line 1: expected the number of folds and of pairs of each kind, such as '10 300', got "
            f"{lines[0][1][:80] if lines else ''!r}"
        )
    folds, count = (int(head[0]), int(head[1])) if len(head) == 2 else (1, int(head[0]))
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
                words = line.split("\t") if "\t" in line else line.split()
                numbers = words[1:3] if same else words[1::2]
                if len(words) != (3 if same else 4) or not all(word.strip().isdigit() for word in numbers):
                    form = "name number number" if same else "name number name number"
                    raise DataError(f"{path}, line {number}: expected '{form}', got {line[:80]!r}")
                first, second = (words[0], words[0]) if same else (words[0], words[2])
                pair = ((first.strip(), int(numbers[0])), (second.strip(), int(numbers[1])))
                entries.append((pair, fold if folds > 1 else number_in_kind % 10))
                position += 1
    if position < len(lines):
        raise DataError(
            f"{path}, line {lines[position][0]}: more pairs than the {2 * folds * count:,} that line 1 promises"
        )
    return entries


def _check_usable(name: str, table: PairTable) -> None:
    """Refuses, before anything is trained, pairs that no threshold can be chosen on."""
    same, folds = table.same, table.folds
    if bool(same.all()) or not bool(same.any()):
        kind = "one person" if bool(same.any()) else "two people"
        raise DataError(f"{name}: all {len(same):,} pairs are of {kind}; verification needs both kinds")
    if int(folds.min()) == int(folds.max()):
        raise DataError(
            f"{name}: all {len(folds):,} pairs are in fold {int(folds[0])}; a fold's threshold comes from the others, "
            "so give at least two folds, or none at all to have the pairs dealt out"
        )


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list of pairs {path}: {error}") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _holds_people(folder: Path) -> bool:
    """Whether a folder holds ``<name>/<name>_<number>.<suffix>``."""
    for name in itertools.islice(files.class_folders(folder), 20):
        if any(entry.name.startswith(f"{name}_") for entry in (folder / name).iterdir()):
            return True
    return False


def _suffixes(folder: Path) -> tuple[str, ...]:
    """The suffixes to try, that of the folder's first image in front."""
    for name in itertools.islice(files.class_folders(folder) if folder.is_dir() else [], 20):
        for entry in sorted((folder / name).iterdir()):
            if entry.suffix.lower() in IMAGE_SUFFIXES:
                return (entry.suffix, *sorted(IMAGE_SUFFIXES - {entry.suffix}))
    return (".jpg", *sorted(IMAGE_SUFFIXES - {".jpg"}))


def _path(folder: Path, who: str, number: int, suffixes: Sequence[str]) -> str:
    """The image of a person; where it does not exist, the name that it would have."""
    names = [f"{who}_{number:04d}{suffix}" for suffix in suffixes] + [f"{number}{suffix}" for suffix in suffixes]
    for name in names:
        if (folder / who / name).is_file():
            return str(folder / who / name)
    return str(folder / who / names[0])


def _table(
    entries: Sequence[tuple[tuple[tuple[str, str, tuple[str, ...]], ...], int]], same: Sequence[bool] | None = None
) -> PairTable:
    """Numbers the items (identity, name, files) of pairs, each once."""
    known: dict[str, tuple[str, tuple[str, ...]]] = {}
    numbers: dict[str, int] = {}
    for pair, _ in entries:
        for who, item, paths in pair:
            if item not in numbers:
                numbers[item] = len(numbers)
                known[item] = (who, paths)
    alike = [pair[0][0] == pair[1][0] for pair, _ in entries] if same is None else list(same)
    return PairTable(
        items=tuple(numbers),
        paths=tuple(paths for _, paths in known.values()),
        identities=tuple(who for who, _ in known.values()),
        first=torch.tensor([numbers[pair[0][1]] for pair, _ in entries]),
        second=torch.tensor([numbers[pair[1][1]] for pair, _ in entries]),
        same=torch.tensor(alike),
        folds=torch.tensor([fold for _, fold in entries]),
    )
