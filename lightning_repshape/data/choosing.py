"""Which images of a published set are used: classes, and draws that keep or level their shares."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_repshape.errors import ConfigError, DataError, did_you_mean
from lightning_repshape.seeding import generator


def choose_classes(
    classes: int | Sequence[str | int] | None, names: Sequence[str], aliases: Mapping[str, str], where: str
) -> list[int] | None:
    """The published labels of the classes asked for (the first n, or names, aliases or labels, in order); None: all.

    ConfigError, which begins with ``where``: there is no such class, one is named twice, or none is left.
    """
    if classes is None:
        return None
    if isinstance(classes, int):
        if not 1 <= classes <= len(names):
            raise ConfigError(f"{where}={classes}, but it must be 1 to {len(names)}, the number of classes of the set")
        return list(range(classes))
    chosen: list[int] = []
    for entry in classes:
        if isinstance(entry, int):
            _check_means_a_label(entry, names, where)
            if not 0 <= entry < len(names):
                raise ConfigError(f"{where} has the label {entry}, but labels go from 0 to {len(names) - 1}")
            label = entry
        else:
            name = aliases.get(entry, entry)
            if name not in names:
                raise ConfigError(f"{where} has an unknown class {entry!r}{did_you_mean(entry, names)}")
            label = names.index(name)
        if label in chosen:
            raise ConfigError(f"{where} names {names[label]!r} twice")
        chosen.append(label)
    if not chosen:
        raise ConfigError(f"{where} is empty, so that no class is left; leave it out to use all {len(names)}")
    return chosen


def _check_means_a_label(entry: int, names: Sequence[str], where: str) -> None:
    """Refuses an integer where classes are named by integers, and this one is another class's name, or no name."""
    name = names[entry] if 0 <= entry < len(names) else None
    if (str(entry) in names and name != str(entry)) or (
        name is not None and name.isascii() and name.isdigit() and int(name) != entry
    ):
        other = f" and class {name!r} has the label {entry}" if name is not None else ""
        raise ConfigError(
            f"{where} has the integer {entry}, but the classes are named by integers ({', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}){other}: give names, in quotes, such as '{name or entry}'"
        )


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draws ``count`` samples so that every class keeps its share, as far as whole numbers allow.

    Args:
        labels: int64 N, none negative.
        count: At most N.
        seed: Decides the draw.

    Returns:
        int64 ``count``, their positions, sorted.
    """
    sizes = torch.bincount(labels)
    exact = sizes.double() * count / len(labels)
    quota = exact.floor().long()
    missing = count - int(quota.sum())
    quota[(exact - quota).argsort(descending=True, stable=True)[:missing]] += 1
    chosen = []
    for label, take in enumerate(quota.tolist()):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator("stratified", seed, label))
        chosen.append(members[order[:take]])
    return torch.cat(chosen).sort().values


def per_class(rows: Tensor, labels: Tensor, count: int, seed: int, names: Sequence[str], where: str) -> Tensor:
    """Draws ``count`` of the ``rows`` (int64 M, into ``labels``) of every class that occurs; int64, sorted.

    DataError, which begins with ``where``: a class has fewer.
    """
    chosen = []
    for label in torch.bincount(labels[rows]).nonzero().flatten().tolist():
        members = rows[labels[rows] == label]
        if count > len(members):
            raise DataError(
                f"{where}={count:,} images of every class, but class {names[label]!r} has {len(members):,} training "
                "images"
            )
        order = torch.randperm(len(members), generator=generator("train-subset", seed, label))
        chosen.append(members[order[:count]])
    return torch.cat(chosen).sort().values


class ClassRows:
    """The samples of each class (``labels`` int64 N), to draw equally many of every class from."""

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self.counts = torch.bincount(labels, minlength=num_classes)
        self._order = labels.argsort(stable=True)
        self._starts = self.counts.cumsum(0) - self.counts

    def draw(self, per_class: int, source: torch.Generator, replacement: bool = True) -> Tensor:
        """Draws so many of each class, int64 K k, by class; each must have one, and without replacement enough."""
        if replacement:
            shape = (len(self.counts), per_class)
            share = torch.rand(shape, generator=source, device=source.device, dtype=torch.float64).cpu()
            place = (share * self.counts[:, None]).long()
        else:
            draws = (torch.randperm(count, generator=source, device=source.device) for count in self.counts.tolist())
            place = torch.stack([draw[:per_class].cpu() for draw in draws])
        return self._order[(self._starts[:, None] + place).flatten()]
