"""Class vectors: cosines between them, of samples with them, and how they go along with confusions.

Source: "Redesigning the classification layer by randomizing the class representation vectors" (submitted to ICLR 2021).
A cosine with a vector of zeros is 0 throughout, and so is its gradient. Shapes that do not fit, classes out of range
and numbers below 1 are a ValueError.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_repshape.functional.checks import check_features_and_vectors, check_sizes
from lightning_repshape.functional.numerics import unit_rows

_ROWS = 4096  # samples that are looked at together


def random_class_vectors(num_classes: int, num_features: int, generator: torch.Generator) -> Tensor:
    """Draws class vectors from N(0, I) and divides each by its length (sections 2 and 3 of the paper).

    Args:
        num_classes: K.
        num_features: D.
        generator: A generator of the CPU, so that every machine and rank draws the same.

    Returns:
        K x D, float64, rows of unit length.

    Raises:
        ValueError: If K or D is below 1.
    """
    check_sizes(num_classes, num_features)
    drawn = torch.randn(num_classes, num_features, generator=generator, dtype=torch.float64, device="cpu")
    return unit_rows(drawn)


def cosine_logits(features: Tensor, vectors: Tensor) -> Tensor:
    """The cosine of every sample with every class vector (Eq. 2), differentiable in both.

    Computed in float32 (float64 for float64), under autocast too: the differences that matter between cosines are below
    the resolution of 16 bits. Only angles count, so the vectors need not be of unit length.

    Args:
        features: N x D.
        vectors: K x D.

    Returns:
        N x K cosines. Those of features of zeros are 0, with a gradient of 0 (the cosine has none there).

    Raises:
        ValueError: If the widths differ.
    """
    check_features_and_vectors(features, vectors)
    dtype = torch.promote_types(torch.promote_types(features.dtype, vectors.dtype), torch.float32)
    features, vectors = features.to(dtype), vectors.to(dtype)
    kind = features.device.type
    with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
        # The N x K products are scaled, not the N x D features: one pass over the features fewer.
        products = F.linear(features, vectors * _inverse_lengths(vectors).unsqueeze(1))
        return products * _inverse_lengths(features).unsqueeze(1)


def class_vector_cosines(vectors: Tensor) -> Tensor:
    """Cosines between class vectors.

    Args:
        vectors: K x D.

    Returns:
        K x K, float64, exactly symmetric; the diagonal is 1 but for vectors of zeros.

    Raises:
        ValueError: If it is no matrix.
    """
    if vectors.dim() != 2 or vectors.numel() == 0:
        raise ValueError(f"class vectors must be a non-empty K x D matrix, not of shape {tuple(vectors.shape)}")
    units = vectors.detach().double()
    units = units * _inverse_lengths(units).unsqueeze(1)
    cosines = units @ units.T
    # (i, j) and (j, i) must tie exactly, or rank correlations would depend on rounding
    return ((cosines + cosines.T) / 2).clamp(-1, 1)


def largest_class_cosine(vectors: Tensor) -> Tensor:
    """The largest cosine between two class vectors: near 1 says that two classes have closed up.

    Args:
        vectors: K x D.

    Returns:
        A float64 scalar; NaN for a single vector.
    """
    cosines = class_vector_cosines(vectors)
    if len(cosines) < 2:
        return torch.full((), torch.nan, dtype=torch.float64, device=cosines.device)
    return cosines.masked_fill(torch.eye(len(cosines), dtype=torch.bool, device=cosines.device), -2).max()


def sample_cosines(features: Tensor, vectors: Tensor, classes: Tensor) -> Tensor:
    """The cosine of each sample with the vector of one class, such as its own or the predicted one (table 4).

    Args:
        features: N x D.
        vectors: K x D.
        classes: N class indices.

    Returns:
        N float64 cosines, on the features' device.

    Raises:
        ValueError: If shapes do not fit.
    """
    check_features_and_vectors(features, vectors)
    if classes.shape != features.shape[:1]:
        raise ValueError(f"{features.shape[0]} samples need as many classes, not {tuple(classes.shape)}")
    units = vectors.detach().double()
    units = (units * _inverse_lengths(units).unsqueeze(1)).to(features.device)
    found = []
    for part, chosen in zip(torch.split(features.detach(), _ROWS), torch.split(classes, _ROWS), strict=True):
        rows = part.double()
        found.append((rows * units[chosen]).sum(dim=1) * _inverse_lengths(rows))
    return torch.cat(found) if found else features.new_zeros(0, dtype=torch.float64)


def confusion_counts(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """How often samples of class i were taken for class j.

    Args:
        labels: N class indices.
        predicted: N class indices.
        num_classes: K.

    Returns:
        K x K int64: rows true, columns predicted classes.

    Raises:
        ValueError: If shapes differ or a class is not in 0 .. K - 1.
    """
    if labels.shape != predicted.shape or labels.dim() != 1:
        raise ValueError(f"labels and predictions must be N each, not {tuple(labels.shape)}, {tuple(predicted.shape)}")
    for name, values in (("labels", labels), ("predictions", predicted)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise ValueError(f"{name} must lie in 0 .. {num_classes - 1}, not {int(values.min())}..{int(values.max())}")
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def confusion_pairs(cosines: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ordered pairs of different classes with their cosine and how often the first was taken for the second.

    Classes without samples are never taken for another one; pairs that begin with one are left out.

    Args:
        cosines: K x K, see :func:`class_vector_cosines`.
        counts: K x K, see :func:`confusion_counts`.

    Returns:
        The pairs P x 2, their cosines P and their counts P.

    Raises:
        ValueError: If the shapes differ.
    """
    if cosines.shape != counts.shape or cosines.dim() != 2 or cosines.shape[0] != cosines.shape[1]:
        raise ValueError(f"two K x K matrices are needed, not {tuple(cosines.shape)} and {tuple(counts.shape)}")
    wanted = ~torch.eye(len(counts), dtype=torch.bool, device=counts.device)
    wanted &= (counts.sum(dim=1) > 0).unsqueeze(1)
    return wanted.nonzero(), cosines[wanted], counts[wanted]


def spearman(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation; tied values share their mean rank.

    Args:
        x: N numbers.
        y: N numbers.

    Returns:
        The correlation; NaN for fewer than two pairs, or where all x or all y are equal.

    Raises:
        ValueError: If the shapes differ.
    """
    if x.shape != y.shape or x.dim() != 1:
        raise ValueError(f"two lists of the same length are needed, not {tuple(x.shape)} and {tuple(y.shape)}")
    if len(x) < 2:
        return float("nan")
    first, second = (ranks - ranks.mean() for ranks in (_ranks(x), _ranks(y)))
    scale = torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second)
    return float((first @ second) / scale) if float(scale) > 0 else float("nan")


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1, the mean rank for ties."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0) - (counts.double() - 1) / 2
    return ranks[place].cpu()


def _inverse_lengths(rows: Tensor) -> Tensor:
    """1 / length of each row, 0 for rows of zeros, with gradients that are finite for all rows."""
    lengths = torch.linalg.vector_norm(rows, dim=1)
    there = lengths > torch.finfo(lengths.dtype).tiny  # whatever the features' units
    inverse: Tensor = torch.where(there, 1 / torch.where(there, lengths, 1), 0)
    return inverse


__all__ = [
    "class_vector_cosines",
    "confusion_counts",
    "confusion_pairs",
    "cosine_logits",
    "largest_class_cosine",
    "random_class_vectors",
    "sample_cosines",
    "spearman",
]
