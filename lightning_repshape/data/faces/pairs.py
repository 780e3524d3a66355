"""Pairs of faces to verify: what they are, what a set of them must offer, and pairs made from identities."""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from lightning_repshape.data.files import (
    FITS,
    IMAGE_SUFFIXES,
    Fit,
    ImageFiles,
    both_sides,
    check_fit,
    check_not_nested,
    class_folders,
    list_images,
    natural_order,
    some,
)
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.seeding import generator

Item = tuple[str, str, tuple[str, ...]]
"""What pairs are made of: who it shows, its name, its files."""


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


def pair_table(entries: Sequence[tuple[tuple[Item, ...], int]], same: Sequence[bool] | None = None) -> PairTable:
    """The table of pairs, each given by its two items and its fold; ``same`` None: where the identities are equal."""
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


class VerificationPairs(ABC):
    """Pairs of images or videos, some of one person, some of two.

    A set of one's own needs :meth:`read`; where it looks for files by names of its own, ``expected`` says which.

    Args:
        root: Folder that holds the set.
        name: Name in keys, tables and file names; without "/".
        fit: What happens to an image of another size than the model's, see :class:`CASIAWebFaceDataModule`.
        center_crop: Rows and columns to cut out of the middle first; of LFW's 250 x 250 pixels the face fills about the
            middle 150.
        exif_orientation: Whether images are turned as their EXIF data say.

    Raises:
        ConfigError: An option that cannot be.
    """

    expected: ClassVar[str] = ""

    def __init__(
        self,
        root: str,
        name: str,
        fit: Fit = "crop",
        center_crop: int | tuple[int, int] | None = None,
        exif_orientation: bool = True,
    ) -> None:
        where = type(self).__name__
        check_fit(where, fit, FITS)
        if not name or "/" in name:
            raise ConfigError(f"{where}: the name {name!r} cannot be used; give one without '/'")
        self.root = Path(root).expanduser()
        self.name = name
        self.fit: Fit = fit
        self.center_crop = None if center_crop is None else both_sides(where, "center_crop", center_crop)
        self.exif_orientation = exif_orientation

    @abstractmethod
    def read(self) -> PairTable:
        """Reads the list of pairs; files need not exist, :meth:`open` looks.

        Raises:
            DataError: The list is missing or of another format.
        """

    def open(self, input_shape: tuple[int, int, int]) -> PairSet:
        """Reads the pairs and looks whether their images are there, for a model that takes ``input_shape`` C, H, W.

        Raises:
            DataError: The list is missing or of another format, cannot be verified on (one fold, or pairs of one kind
                alone), or images are missing: the first are named.
        """
        table = self.read()
        absent = [path for paths in table.paths for path in paths if not os.path.isfile(path)]
        absent += [name for name, paths in zip(table.items, table.paths, strict=True) if not paths]
        if absent:
            near = os.path.dirname(absent[0])
            there = sorted(os.listdir(near)) if os.path.isdir(near) else []
            there = [name for name in there if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
            raise DataError(
                f"{self.name}, in {self.root}: {len(absent):,} of {len(table.items):,} images or videos named by the "
                f"pairs are not there, such as {some(absent, 3)}"
                f"{f'; {near} holds {some(there, 3)}' if there else ''}"
                f"{f'; taken are {self.expected}' if self.expected else ''}; get them, or take their pairs out of the "
                "list"
            )
        _check_usable(f"{self.name}, in {self.root}", table)
        paths = [path for paths in table.paths for path in paths]
        images = ImageFiles.of(paths, input_shape, self.fit, self.center_crop, exif=self.exif_orientation)
        items = torch.repeat_interleave(torch.tensor([len(paths) for paths in table.paths]))
        return PairSet(self.name, images, items, table)


class IdentityPairs(VerificationPairs):
    """Pairs made from a folder of identity folders: as many of one person as of two, in folds of different people.

    The people are dealt out to folds, and pairs are made within a fold, so that a threshold is always tried on people
    that it was not chosen on. A fold has all pairs of one person, and as many, drawn by ``seed``, of two; where the
    other kind is rarer, the former are drawn. The pairs are the same in every run.

    Args:
        root: Folder that holds the set.
        folder: The folder of identity folders, below ``root`` or absolute. None: ``root``.
        identities: The first n people in natural order, or the last n where negative, or those named. None: all.
        folds: Number of folds; each needs two people.
        pairs_per_fold: At most this many pairs of each kind a fold. None: as many as there are.
        seed: Decides folds and pairs.
        name: Name in keys and tables.
        **kwargs: ``fit`` and ``center_crop``, see :class:`VerificationPairs`.
    """

    def __init__(
        self,
        root: str = "data",
        folder: str | None = None,
        identities: int | list[str] | None = None,
        folds: int = 10,
        pairs_per_fold: int | None = None,
        seed: int = 0,
        *,
        name: str = "pairs",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, name, **kwargs)
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
        known = natural_order(class_folders(folder))
        check_not_nested(folder, known, "set folder to it")
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
        """Makes the pairs."""
        folder = self.root if self.folder is None else self.root / Path(self.folder).expanduser()
        people = self._people(folder)
        if len(people) < 2 * self.folds:
            raise DataError(
                f"{len(people)} identities are too few for {self.folds} folds, which need two each; set folds to "
                f"{len(people) // 2}" + ("" if len(people) >= 4 else ", and give at least four identities")
            )
        images = dict(zip(people, list_images([folder / name for name in people]), strict=True))
        order = torch.randperm(len(people), generator=generator("pair-folds", self.seed)).tolist()
        entries: list[tuple[tuple[Item, ...], int]] = []
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
        return pair_table(entries, same)


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
