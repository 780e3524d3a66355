"""Class vectors that are laid out rather than drawn: simplex, recursion, Hadamard, hypercube; and turned to features.

Each takes the number of classes K and the width D, and returns K x D float64 rows of unit length. What does not fit is
a ValueError that says which width would.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_choice, check_sizes
from lightning_repshape.functional.class_vectors import random_class_vectors
from lightning_repshape.functional.numerics import unit_rows
from lightning_repshape.functional.similarity import procrustes_rotation

Layout = Literal["random", "etf", "hadamard", "separated", "hypercube"]
LAYOUTS: tuple[Layout, ...] = ("random", "etf", "hadamard", "separated", "hypercube")

_DISTINCT = 16  # coordinates of a hypercube by which vectors are told apart, where there are so many


def simplex_etf(num_classes: int, num_features: int, generator: torch.Generator) -> Tensor:
    """A simplex equiangular tight frame, turned at random: every two cosines are -1 / (K - 1), the least possible.

    sqrt(K / (K - 1)) (I - 11' / K) U, U of random orthonormal directions (Papyan, Han, Donoho 2020; as a fixed
    classifier Zhu et al. 2021 and Yang et al. 2022). A single class is a random direction.

    Args:
        num_classes: K.
        num_features: D, at least K - 1.
        generator: A generator of the CPU, so that every machine and rank draws the same.

    Raises:
        ValueError: If D is too small.
    """
    check_sizes(num_classes, num_features)
    _check_simplex(num_classes, num_features, "a simplex ETF")
    if num_classes == 1:
        return random_class_vectors(1, num_features, generator)
    drawn = torch.randn(num_features, num_classes - 1, generator=generator, dtype=torch.float64, device="cpu")
    directions, triangle = torch.linalg.qr(drawn)
    directions = directions * triangle.diagonal().sign()  # else they would not be uniformly turned
    found: Tensor = _simplex(num_classes) @ directions.T
    return found


def separated_vectors(num_classes: int, num_features: int) -> Tensor:
    """Maximally separated class vectors by the recursion of Kasarla et al. (2022), in the first K - 1 coordinates.

    P_1 = (1, -1); P_k has the column (1, 0, ..., 0), then columns of -1 / k over sqrt(1 - 1 / k^2) P_(k-1). Their
    cosines are those of :func:`simplex_etf`; what differs is how they lie. Further coordinates are 0.

    Args:
        num_classes: K, at least 2.
        num_features: D, at least K - 1.

    Raises:
        ValueError: If K or D is too small.
    """
    check_sizes(num_classes, num_features)
    if num_classes < 2:
        raise ValueError("maximally separated vectors need at least two classes")
    _check_simplex(num_classes, num_features, "maximally separated vectors")
    found = torch.zeros(num_classes, num_features, dtype=torch.float64)
    found[:, : num_classes - 1] = _simplex(num_classes)
    return found


def hadamard_vectors(num_classes: int, num_features: int) -> Tensor:
    """The first K rows of Sylvester's Hadamard matrix: entries of one size, all at right angles (Hoffer et al. 2018).

    Its order is the largest power of two that D holds; further coordinates are 0.

    Args:
        num_classes: K.
        num_features: D, with a power of two from K to D.

    Raises:
        ValueError: If there is no such power.
    """
    check_sizes(num_classes, num_features)
    order = 1 << (num_features.bit_length() - 1)
    if order < num_classes:
        raise ValueError(
            f"Hadamard vectors of {num_classes} classes need a power of two of at least {num_classes} features: "
            f"{1 << (num_classes - 1).bit_length()} or more, not {num_features}"
        )
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], dim=1), torch.cat([matrix, -matrix], dim=1)])
    found = torch.zeros(num_classes, num_features, dtype=torch.float64)
    found[:, :order] = matrix[:num_classes] / order**0.5
    return found


def hypercube_vectors(num_classes: int, num_features: int, generator: torch.Generator) -> Tensor:
    """Different corners of the cube {-1, 1}^D, drawn at random, of unit length (Pernici et al. 2021: the d-cube).

    With D = ceil(log2 K), as there, they are as compact as can be; with more features they lie further apart.

    Args:
        num_classes: K.
        num_features: D, at least log2 K.
        generator: A generator of the CPU, so that every machine and rank draws the same.

    Raises:
        ValueError: If the cube has fewer than K corners.
    """
    check_sizes(num_classes, num_features)
    least = (num_classes - 1).bit_length()
    if num_features < least:
        raise ValueError(
            f"a hypercube of {num_features} dimensions has {2**num_features} corners, fewer than {num_classes} "
            f"classes: {least} features or more are needed"
        )
    # numbers without repetition for some coordinates, coins for the others
    told = min(num_features, max(_DISTINCT, least))
    numbers = torch.randperm(2**told, generator=generator, device="cpu")[:num_classes]
    corners = (numbers.unsqueeze(1) >> torch.arange(told)) & 1
    coins = torch.randint(2, (num_classes, num_features - told), generator=generator, device="cpu")
    found: Tensor = (2 * torch.cat([corners, coins], dim=1) - 1).double() / num_features**0.5
    return found


def laid_out(layout: Layout, num_classes: int, num_features: int, generator: torch.Generator) -> Tensor:
    """Class vectors by the name of their layout; ``hadamard`` and ``separated`` have nothing random.

    Args:
        layout: ``random`` (:func:`~lightning_repshape.functional.class_vectors.random_class_vectors`), ``etf``,
            ``hadamard``, ``separated`` or ``hypercube``.
        num_classes: K.
        num_features: D.
        generator: A generator of the CPU.

    Raises:
        ValueError: If there is no such layout, or it has no place for K vectors in D dimensions.
    """
    check_choice("layout", layout, LAYOUTS)
    drawn: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {
        "random": random_class_vectors,
        "etf": simplex_etf,
        "hypercube": hypercube_vectors,
    }
    if layout in drawn:
        return drawn[layout](num_classes, num_features, generator)
    return (hadamard_vectors if layout == "hadamard" else separated_vectors)(num_classes, num_features)


def nearest_turned(vectors: Tensor, means: Tensor) -> Tensor:
    """Class vectors turned (or mirrored) as a whole to lie nearest to class means: angles between them stay.

    Of a simplex ETF that is the nearest one (Markou et al. 2024), in closed form: the orthogonal Procrustes problem of
    both about their centres. Where the part that all vectors share comes to lie is open, and changes no softmax.

    Args:
        vectors: K x D.
        means: K x D, whose scale does not matter. Rows of NaN, of classes without samples, have no say.

    Returns:
        K x D, float64, on the device of the vectors.

    Raises:
        ValueError: If the shapes differ, or fewer than two classes have a mean.
    """
    if vectors.shape != means.shape:
        raise ValueError(f"{tuple(vectors.shape)} class vectors cannot be turned to {tuple(means.shape)} class means")
    here, there = vectors.detach().double().cpu(), means.detach().double().cpu()
    known = ~there.isnan().any(dim=1)
    return (here @ procrustes_rotation(there[known], here[known])).to(vectors.device)


def _check_simplex(num_classes: int, num_features: int, what: str) -> None:
    if num_features < num_classes - 1:
        raise ValueError(
            f"{what} of {num_classes} classes {'needs' if what[0] == 'a' else 'need'} at least {num_classes - 1} "
            f"features, not {num_features}"
        )


def _simplex(num_classes: int) -> Tensor:
    """K x (K - 1): the corners of a regular simplex on the unit sphere, Kasarla's recursion written out."""
    left = torch.arange(num_classes - 1, 0, -1, dtype=torch.float64)  # classes behind the one of each column
    sizes = torch.cat([left.new_ones(1), (1 - 1 / left[:-1].square()).cumprod(0).sqrt()])
    found = -(sizes / left).expand(num_classes, -1).tril(-1)
    return unit_rows(found + torch.eye(num_classes, num_classes - 1, dtype=torch.float64) * sizes)


__all__ = [
    "hadamard_vectors",
    "hypercube_vectors",
    "laid_out",
    "nearest_turned",
    "separated_vectors",
    "simplex_etf",
]
