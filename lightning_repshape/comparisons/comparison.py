"""What comes out where several models meet on the same test samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from lightning_repshape.comparisons.contender import Contender, TestSamples
from lightning_repshape.errors import DataError
from lightning_repshape.functional.bootstrap import PairedDifference, paired_bootstrap
from lightning_repshape.functional.projection import pca
from lightning_repshape.functional.similarity import linear_cka_matrix, procrustes_rotation, similarity_matrices
from lightning_repshape.seeding import generator


@dataclass(frozen=True)
class Comparison:
    """Models side by side; the first is what the others are compared with.

    Attributes:
        contenders: The models.
        points: Of each, the same test samples on the first two principal components of its features, n x 2: scaled to a
            mean squared distance of 1 from their mean, and turned to where they lie nearest to the first model's.
        labels: Classes of these samples, n.
        scalars: Figures by name, one of each model; NaN where one has none.
        differences: Error of the second less error of the first with an interval, by pair of names.
        cka: Debiased linear CKA of all pairs, M x M.
        distance: Procrustes distance of all pairs, M x M.
        neighbours: Share of common nearest neighbours of all pairs, M x M, out of ten (of fewer samples, fewer).
        regression: R^2 of a linear map from the row's features to the column's, adjusted, M x M; NaN where samples are
            too few to tell.
        layers: Debiased linear CKA of all layers of all models, by heading (model and layer), L x L; None where
            there are fewer than two.
    """

    contenders: tuple[Contender, ...]
    points: tuple[Tensor, ...]
    labels: Tensor
    scalars: Mapping[str, tuple[float, ...]]
    differences: Mapping[tuple[str, str], PairedDifference]
    cka: Tensor
    distance: Tensor
    neighbours: Tensor
    regression: Tensor
    layers: tuple[tuple[str, ...], Tensor] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names."""
        return tuple(contender.name for contender in self.contenders)


def compare(contenders: Sequence[Contender], same_samples: bool = False, seed: int = 0) -> Comparison:
    """Compares models.

    Args:
        contenders: At least two, of the same test samples in the same order.
        same_samples: Take equal labels, row by row, for the same samples where nothing else is known of them.
        seed: Of the bootstrap's draws.

    Raises:
        DataError: If there are fewer than two, names are used twice, or the test samples are not the same.
    """
    check_same(contenders, same_samples)
    first = contenders[0]
    points: list[Tensor] = []
    for contender in contenders:
        own = _plane(contender.features)
        if points:
            own = own @ procrustes_rotation(points[0], own).to(own)
        points.append(own)
    pairs = list(combinations(contenders, 2)) if len(contenders) <= 4 else [(first, one) for one in contenders[1:]]
    known = [contender.scalars() for contender in contenders]
    scalars = {
        key: tuple(own.get(key, math.nan) for own in known) for key in dict.fromkeys(k for own in known for k in own)
    }
    layers = {
        f"{contender.name}: {layer}": values for contender in contenders for layer, values in contender.layers.items()
    }
    layers = {
        name: values
        for name, values in layers.items()
        if bool(values.isfinite().all()) and bool((values != values[:1]).any())
    }
    features = [contender.features for contender in contenders]
    alike = similarity_matrices(features)
    return Comparison(
        tuple(contenders),
        tuple(points),
        first.samples.labels[first.rows],
        scalars,
        {
            (a.name, b.name): paired_bootstrap(a.wrong, b.wrong, generator=generator("bootstrap", a.name, b.name, seed))
            for a, b in pairs
            if a.wrong is not None and b.wrong is not None
        },
        linear_cka_matrix(features),
        *alike,
        (tuple(layers), linear_cka_matrix(list(layers.values()))) if len(layers) > 1 else None,
    )


def check_same(contenders: Sequence[Contender], same_samples: bool = False) -> None:
    """Raises DataError unless there are two models or more, with names of their own and the same test samples."""
    if len(contenders) < 2:
        raise DataError("at least two models are needed for a comparison")
    check_samples([(contender.name, contender.samples) for contender in contenders], same_samples)


def check_samples(models: Sequence[tuple[str, TestSamples]], same_samples: bool = False) -> None:
    """Raises DataError where two of the models have one name, or other test samples than the first."""
    names = [name for name, _ in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"two models are called {twice!r}: name them, as in NAME=PATH")
    for name, samples in models[1:]:
        reason = models[0][1].difference(samples)
        if reason.startswith("nothing says") and same_samples:
            continue
        if reason.startswith("nothing says"):
            reason += "; save the array test_ids (a number or name for each) with the features, or give --same_samples"
        if reason:
            raise DataError(f"{names[0]} and {name} were not tested on the same samples: {reason}")


def _plane(features: Tensor) -> Tensor:
    """Rows on their first two components, n x 2, at a mean squared distance of 1 from their mean."""
    if not bool((features != features[:1]).any()):
        return torch.zeros(len(features), 2)
    count = min(2, features.shape[1], len(features) - 1)
    found = pca(features, max(count, 1)).apply(features).float()
    if found.shape[1] < 2:
        found = torch.cat([found, torch.zeros(len(found), 1)], dim=1)
    scale = (features - features.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    return found / scale
