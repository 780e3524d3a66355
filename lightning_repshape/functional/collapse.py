"""Neural collapse: how close features and last layer are to one point a class, on the corners of a simplex.

The four measures of Papyan, Han, Donoho 2020, each zero (or, for agreement, one) in the limit. Classes count alike
whatever their numbers of samples, and classes without samples are left out.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_repshape.functional.checks import check_class_indices, check_features
from lightning_repshape.functional.class_statistics import class_counts
from lightning_repshape.functional.numerics import chunks, float64_device, rounding, sums_by_class, unit_rows


class SimplexDeviation(NamedTuple):
    """How far K vectors are from a simplex equiangular tight frame: of one length, and all as far apart as can be.

    Attributes:
        norm_spread: Standard deviation of the lengths over their mean; 0 where all are equal.
        angle_spread: Standard deviation of the cosines over all pairs; 0 where all angles are equal.
        angle_deviation: Mean distance of the cosines from -1/(K - 1), the simplex's.
    """

    norm_spread: float
    angle_spread: float
    angle_deviation: float


class NeuralCollapse(NamedTuple):
    """The neural-collapse measures, see :func:`neural_collapse`; what needs the last layer is None without weights.

    Attributes:
        within_class_variability: NC1, tr(Sigma_W pinv(Sigma_B)) / K; 0 where every class is one point.
        mean_simplex: NC2 of the class means, taken from the mean of the class means.
        weight_simplex: NC2 of the class vectors.
        self_duality: NC3, the squared Frobenius distance of the class vectors and the centred class means, each matrix
            divided by its Frobenius norm: 0 (the same up to a factor) to 4.
        mean_weight_cosine: NC3 as an angle, the mean over classes of the cosine of class mean and class vector.
        nearest_mean_agreement: NC4, the fraction of rows for which last layer and nearest class mean decide alike.
        nearest_mean_error: The fraction of rows that are nearest to another class's mean than their own.
        num_classes: Classes with samples, over which everything was taken.
    """

    within_class_variability: float
    mean_simplex: SimplexDeviation
    weight_simplex: SimplexDeviation | None
    self_duality: float | None
    mean_weight_cosine: float | None
    nearest_mean_agreement: float | None
    nearest_mean_error: float
    num_classes: int


def neural_collapse(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    normalize: bool = False,
) -> NeuralCollapse:
    """The four neural-collapse measures in two passes over the features, in float64; no D x D matrix is formed.

    Sigma_W is the mean over classes of the within-class covariance (1/n_k), Sigma_B that of the class means (1/K).

    Args:
        features: N x D, the input of the last linear layer.
        labels: N integers in 0 .. K - 1.
        num_classes: K.
        weight: K x D, the last layer's weight as in ``nn.Linear``. Default: none, which leaves NC3 and NC4 out.
        bias: K.
        normalize: Scale every row of the features to unit length first (the class vectors stay as they are).

    Returns:
        The measures.

    Raises:
        TypeError: Features are not floating-point, or labels not integers.
        ValueError: Fewer than two classes with samples, class means that all coincide, shapes that do not fit, labels
            out of range, values that are not finite.
    """
    check_features(features)
    check_class_indices(labels, features.shape[0], num_classes)
    weight, bias = _checked_layer(weight, bias, num_classes, features)
    device = float64_device(features.device)
    labels = labels.to(device, torch.int64)
    counts = class_counts(labels, num_classes)
    present = counts > 0
    classes = int(present.sum())
    if classes < 2:
        raise ValueError(f"neural collapse needs at least two classes with samples, but there is only {classes}")

    means = _class_means(features, labels, num_classes, normalize)[present]
    center = means.mean(dim=0)
    means -= center
    if bool((means.abs() <= 64 * torch.finfo(torch.float64).eps * center.abs()).all()):
        raise ValueError("all class means coincide: there is nothing that the classes could collapse to")

    # Where the class means span all of the space, NC1 does not depend on the features' units, and is computed so.
    scale = means.square().mean(dim=0).sqrt()
    scale = torch.where(scale > 0, scale, 1)
    singular, directions = _between(means / scale)
    if len(singular) < means.shape[1]:
        scale = torch.ones_like(scale)
        singular, directions = _between(means)
    between = singular.square()

    position = torch.full_like(counts, -1)  # of a class among those present
    position[present] = torch.arange(classes, device=device)
    within, misplaced, agreeing = torch.zeros_like(between), 0, 0
    for span, chunk in chunks(features, normalize):
        own = position[labels[span]]
        logits = None if weight is None else F.linear(chunk, weight, bias)[:, present]
        chunk -= center
        nearest = (chunk @ means.T - means.square().sum(dim=1) / 2).argmax(dim=1)
        misplaced += int((nearest != own).sum())
        if logits is not None:
            agreeing += int((nearest == logits.argmax(dim=1)).sum())
        spread = ((chunk - means[own]) / scale @ directions.T).square()
        within += (spread / counts[present][own].unsqueeze(1)).sum(dim=0)

    rows = features.shape[0]
    result = NeuralCollapse(
        within_class_variability=float((within / classes / between).sum()) / classes,
        mean_simplex=simplex_deviation(means),
        weight_simplex=None,
        self_duality=None,
        mean_weight_cosine=None,
        nearest_mean_agreement=None,
        nearest_mean_error=misplaced / rows,
        num_classes=classes,
    )
    if weight is None:
        return result
    vectors = weight[present]
    apart = vectors / torch.linalg.matrix_norm(vectors) - means / torch.linalg.matrix_norm(means)
    return result._replace(
        weight_simplex=simplex_deviation(vectors),
        self_duality=float(apart.square().sum()),
        mean_weight_cosine=float(F.cosine_similarity(vectors, means, eps=torch.finfo(torch.float64).tiny).mean()),
        nearest_mean_agreement=agreeing / rows,
    )


def _between(means: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values of the centred class means over sqrt(K), but for rounding, and their directions."""
    _, singular, directions = torch.linalg.svd(means / math.sqrt(len(means)), full_matrices=False)
    kept = singular.square() > rounding(len(means)) * singular[0].square()
    return singular[kept], directions[kept]


def simplex_deviation(vectors: Tensor) -> SimplexDeviation:
    """How far K vectors are from a simplex equiangular tight frame, in lengths and angles (NC2).

    Args:
        vectors: K x D, K at least 2; class means must have their mean taken away already.

    Returns:
        Spread of the lengths, spread of the cosines, and the cosines' mean distance from -1/(K - 1). A vector of zeros
        has cosine 0 with all others.

    Raises:
        ValueError: Fewer than two vectors, or nothing but zeros.
    """
    if vectors.dim() != 2 or len(vectors) < 2:
        raise ValueError(f"a simplex needs K x D vectors with K at least 2, but the shape is {tuple(vectors.shape)}")
    vectors = vectors.detach().to(float64_device(vectors.device)).double()
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    if not bool(lengths.any()):
        raise ValueError("all vectors are zero: they have no angles")
    units = unit_rows(vectors)
    classes = len(vectors)
    above = torch.ones(classes, classes, dtype=torch.bool, device=vectors.device).triu(1)
    cosines = (units @ units.T)[above]
    return SimplexDeviation(
        norm_spread=float(lengths.std(correction=0) / lengths.mean()),
        angle_spread=float(cosines.std(correction=0)),
        angle_deviation=float((cosines + 1 / (classes - 1)).abs().mean()),
    )


def _class_means(features: Tensor, labels: Tensor, num_classes: int, normalize: bool) -> Tensor:
    """Means of all classes, K x D in float64, summed about a rough mean; NaN for classes without samples."""
    counts = class_counts(labels, num_classes).unsqueeze(1)
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=labels.device)
    shift = sums.new_zeros(features.shape[1])
    for span, chunk in chunks(features, normalize):
        if span.start == 0:
            shift = chunk.mean(dim=0).float().double()
        sums += sums_by_class(chunk - shift, labels[span], num_classes)
    return sums / counts + shift


def _checked_layer(
    weight: Tensor | None, bias: Tensor | None, num_classes: int, features: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The last layer in float64 beside the features, or (None, None)."""
    device = float64_device(features.device)
    if weight is None:
        if bias is not None:
            raise ValueError("a bias without a weight decides nothing; give both or none")
        return None, None
    if weight.shape != (num_classes, features.shape[1]):
        raise ValueError(f"weight must be {num_classes} x {features.shape[1]}, but the shape is {tuple(weight.shape)}")
    if bias is not None and bias.shape != (num_classes,):
        raise ValueError(f"bias must be {num_classes} numbers, but the shape is {tuple(bias.shape)}")
    return weight.detach().to(device).double(), None if bias is None else bias.detach().to(device).double()
