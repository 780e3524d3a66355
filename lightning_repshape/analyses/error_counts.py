"""A model's errors on corrupted copies of the test set and on further test sets, counted."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lightning_repshape.data.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    USUAL_CORRUPTIONS,
    ConstantsName,
    Corruption,
    check_corruption,
    corrupt,
    corruption_constants,
)
from lightning_repshape.data.further import GeneralizationSet, TestImages
from lightning_repshape.data.module import ImageDataModule
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.layers import evaluating
from lightning_repshape.runs.files import csv_text, written_atomically
from lightning_repshape.terminal.progress import task

CLEAN = "clean"
OWN = "test"


class ErrorCount(NamedTuple):
    """How often a model was wrong on one version of one set.

    Attributes:
        set: The set's name; ``"test"`` is the model's own test set.
        corruption: The corruption's name, or ``"clean"``.
        severity: 1 to 5; 0 for clean images.
        errors: Images that were taken for another class.
        images: All images.
    """

    set: str
    corruption: str
    severity: int
    errors: int
    images: int

    @property
    def error(self) -> float:
        """The share of images that were taken for another class."""
        return self.errors / self.images if self.images else math.nan

    @property
    def key(self) -> str:
        """The name under which the error is logged."""
        place = CLEAN if self.corruption == CLEAN else f"{self.corruption}/{self.severity}"
        return f"{self.set}/{place}/error"


class Version(NamedTuple):
    """One version of one set, fetched a batch at a time."""

    set: str
    corruption: str
    severity: int
    labels: Tensor
    fetch: Callable[[Tensor], Tensor]  # int64 B -> uint8 B x H x W x C


def _versions(
    name: str,
    labels: Tensor,
    fetch: Callable[[Tensor], Tensor],
    corruptions: Sequence[Corruption],
    severities: Sequence[int],
    seed: int,
    constants: ConstantsName | None,
) -> list[Version]:
    """A set as it is, and its copies that are corrupted as they are needed."""
    versions = [Version(name, CLEAN, 0, labels, fetch)]
    for corruption in corruptions:
        for severity in severities:

            def corrupted(index: Tensor, kind: Corruption = corruption, strength: int = severity) -> Tensor:
                return corrupt(fetch(index), kind, strength, index, seed, constants)

            versions.append(Version(name, corruption, severity, labels, corrupted))
    return versions


def _published(name: str, read: TestImages, severities: Sequence[int]) -> list[Version]:
    """The corrupted copies that a set brings itself."""
    count, versions = len(read.labels), []
    for corruption, images in read.corrupted.items():
        for severity in severities:
            block = images[(severity - 1) * count : severity * count]
            versions.append(Version(name, corruption, severity, read.labels, block.__getitem__))
    return versions


def all_versions(
    data: ImageDataModule,
    opened: Mapping[str, TestImages],
    corruptions: Sequence[Corruption],
    severities: Sequence[int],
    seed: int,
    constants: ConstantsName | None,
) -> list[Version]:
    """Every version of the own test set, then of the further sets: clean, then each corruption by severity.

    Without ``constants`` the images' size says which published set's apply.
    """

    def own(index: Tensor) -> Tensor:
        return data.images("test", index)

    versions = _versions(OWN, data.labels("test"), own, corruptions, severities, seed, constants)
    for name, read in opened.items():
        if read.images is not None:
            fetch = read.images.__getitem__
            versions += _versions(name, read.labels, fetch, corruptions, severities, seed, constants)
        versions += _published(name, read, severities)
    return versions


def count_errors(
    versions: Sequence[Version],
    predict: Callable[[Tensor], Tensor],
    batch_size: int,
    share: tuple[int, int] = (0, 1),
) -> list[int]:
    """Errors of each version among every so manieth of its images."""
    rank, ranks = share
    total = sum(len(range(rank, len(version.labels), ranks)) for version in versions)
    found = []
    with task("corrupted and further test sets", total) as advance:
        for version in versions:
            errors = 0
            mine = torch.tensor(range(rank, len(version.labels), ranks), dtype=torch.int64)
            for index in torch.split(mine, batch_size) if len(mine) else ():
                wrong = predict(version.fetch(index)).argmax(dim=1).cpu() != version.labels[index]
                errors += int(wrong.sum())
                advance(len(index))
            found.append(errors)
    return found


def counts_of(versions: Sequence[Version], errors: Sequence[int]) -> list[ErrorCount]:
    """Errors beside the versions that they were counted on."""
    return [
        ErrorCount(version.set, version.corruption, version.severity, wrong, len(version.labels))
        for version, wrong in zip(versions, errors, strict=True)
    ]


def checked_choice(
    corruptions: Sequence[str] | None, severities: Sequence[int]
) -> tuple[tuple[Corruption, ...], tuple[int, ...]]:
    """Corruptions (None: the usual three, "all": all) in the order given, severities in ascending order, each once.

    Raises ConfigError where there is no such corruption or severity, or no severity at all.
    """
    given = USUAL_CORRUPTIONS if corruptions is None else corruptions
    kinds = tuple(dict.fromkeys(name for word in given for name in (CORRUPTIONS if word == "all" else (word,))))
    strengths = tuple(sorted(set(severities)))
    for corruption in kinds or CORRUPTIONS[:1]:
        for severity in strengths:
            check_corruption(corruption, severity)
    if not strengths:
        raise ConfigError("severities is empty; give some of 1, 2, 3, 4, 5 (to corrupt nothing, leave corruptions=[])")
    return cast(tuple[Corruption, ...], kinds), strengths


def open_sets(sets: Sequence[GeneralizationSet], data: ImageDataModule) -> dict[str, TestImages]:
    """Images of further sets by name, which have to fit the data module's classes and shape.

    Raises DataError if a set is missing, damaged, empty, or has other classes or another shape.
    """
    opened = {}
    for each in sets:
        read = each.open(data.class_names, data.input_shape)
        if not len(read.labels):
            raise DataError(f"{each.name}: there are no images in this set")
        opened[each.name] = read
    return opened


def check_names(sets: Sequence[GeneralizationSet]) -> None:
    """Refuses two further sets of one name with a ConfigError."""
    names = [each.name for each in sets]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two further test sets are called {name!r}: give one of them another name")


def corruption_errors(
    model: nn.Module,
    data: ImageDataModule,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    sets: Sequence[GeneralizationSet] = (),
    seed: int = 0,
    constants: ConstantsName | None = None,
    batch_size: int | None = None,
) -> list[ErrorCount]:
    """Counts a model's errors on every set, corruption and severity, without a trainer.

    Args:
        model: Any module that takes normalised images and returns logits N x K, or something that has ``logits``.
        data: Where the test images come from, and how they are normalised.
        corruptions: Some of impulse_noise, jpeg_compression, defocus_blur; empty: none. Default: all three.
        severities: Some of 1 to 5.
        sets: Further test sets, which are corrupted as well.
        seed: Seed of the noise.
        constants: The published set whose constants apply. Default: by the images' size.
        batch_size: Images a batch. Default: the data module's ``eval_batch_size``.

    Returns:
        For the test set, then for each further set: clean images, then each corruption by severity.

    Raises:
        ConfigError: There is no such corruption, severity or set of constants, or two sets share a name.
        DataError: A set is missing, damaged, or has other classes or another shape.
    """
    kinds, strengths = checked_choice(corruptions, severities)
    if constants is not None:
        corruption_constants(constants)
    check_names(sets)
    for each in sets:
        each.prepare()
    versions = all_versions(data, open_sets(sets, data), kinds, strengths, seed, constants)
    parameter = next(iter(model.parameters()), None)
    device = parameter.device if parameter is not None else torch.device("cpu")

    def predict(images: Tensor) -> Tensor:
        return logits_of(model(data.normalize_images(images.to(device))))

    with evaluating(model), torch.no_grad():
        return counts_of(versions, count_errors(versions, predict, batch_size or data.eval_batch_size))


def logits_of(output: Any) -> Tensor:
    """The logits N x K in what a model returns: itself, or its ``logits``; DataError if there are none."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise DataError(f"the model returns {type(output).__name__}, in which there are no logits N x K")
    return logits


def write_counts(counts: Sequence[ErrorCount], path: Path) -> None:
    """Writes counts as a CSV file: set, corruption, severity, errors, images, error."""
    with written_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*ErrorCount._fields, "error"])
        for count in counts:
            cells = [csv_text(cell) if isinstance(cell, str) else cell for cell in count]
            writer.writerow([*cells, f"{count.error:.6f}"])
