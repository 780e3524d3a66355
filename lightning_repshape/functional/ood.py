"""Does a sample look like those that a model was trained on? Scores of logits and features, and how well they tell.

All scores are float64, the higher the more a sample looks like the training samples. Rows that are not finite are a
ValueError, as are shapes that do not fit; what is no floating-point tensor is a TypeError. Training features are gone
through by pieces; beside them a function holds a D x D matrix, and :func:`neighbour_score` a copy.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_class_indices, check_columns, check_matrix
from lightning_repshape.functional.class_statistics import class_moments
from lightning_repshape.functional.numerics import chunks, eigh, float64_device, rounding, unit_rows
from lightning_repshape.functional.probes import cosine_neighbours
from lightning_repshape.functional.scatter import scatter_state
from lightning_repshape.functional.verification import area_under_curve, roc_curve


class Detection(NamedTuple):
    """How well a score tells known samples from others.

    Attributes:
        auroc: The chance that a known sample scores higher than another one, ties counting half.
        fpr95: The share of the others that score as high as 95 % of the known samples do.
    """

    auroc: float
    fpr95: float


def detection(known: Tensor, others: Tensor, recall: float = 0.95) -> Detection:
    """Area under the ROC curve, and the false positive rate where ``recall`` of the known samples are recognised.

    Args:
        known: Scores of samples like those of the training, N.
        others: Scores of samples that are not, M.
        recall: The share of known samples that must be recognised; of several thresholds the strictest counts.

    Raises:
        TypeError, ValueError: If they are no vectors of floating-point numbers, one is empty or has a NaN.
    """
    if not len(known) or not len(others):
        raise ValueError(f"scores of both kinds of samples are needed, got {len(known)} and {len(others)}")
    curve = roc_curve(torch.cat([known, others]), torch.arange(len(known) + len(others)) < len(known))
    enough = (curve.tar >= recall * (1 - 1e-12)).nonzero()
    return Detection(area_under_curve(curve), float(curve.far[enough[0, 0]]))


# ------------------------------------------------------------------------------------------------------- from logits


def softmax_score(logits: Tensor) -> Tensor:
    """The largest softmax probability of logits M x K (Hendrycks and Gimpel 2017), M."""
    return _double("logits", logits, "M x K").softmax(dim=1).amax(dim=1)


def logit_score(logits: Tensor) -> Tensor:
    """The largest of logits M x K (Hendrycks et al. 2022), M."""
    return _double("logits", logits, "M x K").amax(dim=1)


def energy_score(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The negative energy T log sum exp(logits / T) of logits M x K (Liu et al. 2020), M."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a finite number above 0, got {temperature}")
    return temperature * (_double("logits", logits, "M x K") / temperature).logsumexp(dim=1)


# ----------------------------------------------------------------------------------------------------- from features


def mahalanobis_score(features: Tensor, train: Tensor, labels: Tensor, num_classes: int, shared: bool = True) -> Tensor:
    """Log density of Gaussian classes at the class that fits best, but for constants (Lee et al. 2018).

    With one scatter for all classes this is the paper's -(x - m_k)^T S^-1 (x - m_k) of the nearest class mean m_k;
    with one of each class, -(x - m_k)^T S_k^-1 (x - m_k) - log det S_k. Scatters are shrunk towards a sphere as far as
    the number of samples calls for (oracle approximating shrinkage, Chen et al. 2010), so that more features than
    samples and dead units do no harm.

    Args:
        features: M x D.
        train: Features of training samples, N x D.
        labels: Their N class indices.
        num_classes: K; classes without samples are left out, with a scatter of each class also those that are a point.
        shared: One scatter for all classes.

    Returns:
        M scores.

    Raises:
        TypeError, ValueError: As said above; also if there is no class, or none whose samples differ.
    """
    rows = _rows(features, train)
    check_class_indices(labels, len(train), num_classes)
    labels = labels.to(rows.device)
    moments = class_moments(train.to(rows.device), labels, num_classes)
    present = [k for k in range(num_classes) if float(moments.counts[k]) > 0]
    best = torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=rows.device)
    if shared:
        scatter = rows.new_zeros(rows.shape[1], rows.shape[1])
        for span, chunk in chunks(train):
            chunk -= moments.means[labels[span]]
            scatter += chunk.mT @ chunk
        factor = torch.linalg.cholesky(_shrunk(scatter / len(train), len(train)))
        means, points = (
            torch.linalg.solve_triangular(factor, part.mT, upper=False).mT for part in (moments.means, rows)
        )
        apart = torch.cdist(points, means[present], compute_mode="donot_use_mm_for_euclid_dist")
        return -apart.amin(dim=1).square()
    for k in present:
        own = train[(labels == k).to(train.device)].to(rows) - moments.means[k]
        if not bool(own.isfinite().all()):
            raise ValueError("train must be finite")
        if len(own) < 2 or not bool(own.any()):
            continue
        factor = torch.linalg.cholesky(_shrunk(own.mT @ own / len(own), len(own)))
        points = torch.linalg.solve_triangular(factor, (rows - moments.means[k]).mT, upper=False)
        best = torch.maximum(best, -points.square().sum(dim=0) - 2 * factor.diagonal().log().sum())
    if bool(best.isinf().all()):
        raise ValueError("no class has two samples that differ, and so none has a scatter of its own")
    return best


def neighbour_score(features: Tensor, train: Tensor, neighbours: int = 50) -> Tensor:
    """Negative distance to the k-th nearest training sample, all features of unit length (Sun et al. 2022).

    Args:
        features: M x D.
        train: N x D.
        neighbours: k, at most N.

    Returns:
        M scores between -2 and 0.
    """
    rows = _rows(features, train)
    if not bool(train.isfinite().all()):
        raise ValueError("train must be finite")
    nearest = cosine_neighbours(train.to(rows.device).float(), rows.float(), neighbours)[:, -1]
    known = _double("train", train[nearest.to(train.device)]).to(rows.device)
    found: Tensor = -(unit_rows(rows) - unit_rows(known)).norm(dim=1)
    return found


def vim_score(
    features: Tensor, train: Tensor, weight: Tensor, bias: Tensor | None = None, dimension: int | None = None
) -> Tensor:
    """Energy less the length of what lies outside of the training features' main directions (ViM, Wang et al. 2022).

    Features are taken from where all logits are zero as nearly as can be; the length is scaled so that its mean over
    training samples is that of their largest logit.

    Args:
        features: M x D.
        train: N x D.
        weight: K x D of the last layer.
        bias: K.
        dimension: How many main directions. Default, as in the paper: 1000 of 2048 features or more, 512 of 768 or
            more, else half of them.

    Returns:
        M scores.

    Raises:
        TypeError, ValueError: As said above; also if training features lie in so many directions altogether.
    """
    rows = _rows(features, train)
    width = rows.shape[1]
    matrix = _double("weight", weight, "K x D").to(rows.device)
    check_columns(matrix, width, "train has")
    offset = matrix.new_zeros(len(matrix)) if bias is None else bias.detach().to(matrix)
    if offset.shape != (len(matrix),):
        raise ValueError(f"bias must be {len(matrix)} numbers, but the shape is {tuple(offset.shape)}")
    main = (1000 if width >= 2048 else 512 if width >= 768 else width // 2) if dimension is None else dimension
    if not 0 < main < width:
        raise ValueError(f"dimension must be at least 1 and below the {width} features, got {main}")
    origin = -torch.linalg.pinv(matrix) @ offset
    state = scatter_state(train)
    apart = state.mean() - origin
    values, vectors = eigh(state.total_scatter().addr_(apart, apart, alpha=state.total))
    rest = vectors[:, : width - main]
    if not float(values[: width - main].clamp_min(0).sum()) > rounding(width) * float(values.sum()):
        raise ValueError(f"all training features lie in {main} directions, so that nothing is outside of them")
    largest, outside = rows.new_zeros(()), rows.new_zeros(())
    for _, chunk in chunks(train):
        largest += (chunk @ matrix.mT + offset).amax(dim=1).sum()
        outside += ((chunk - origin) @ rest).norm(dim=1).sum()
    scale = largest / outside
    found: Tensor = energy_score(rows @ matrix.mT + offset) - scale * ((rows - origin) @ rest).norm(dim=1)
    return found


def neco_score(features: Tensor, train: Tensor, dimension: int) -> Tensor:
    """Share of a feature vector's length that lies in the training features' main directions (NECO, Ben Ammar 2024).

    Features are standardised as the training features are, units that never change being left out, and P are their
    first principal components: ||P z|| / ||z||. For Transformers its authors multiply by the largest logit.

    Args:
        features: M x D.
        train: N x D.
        dimension: How many components; K - 1 hold the means of K classes.

    Returns:
        M scores between 0 and 1.

    Raises:
        TypeError, ValueError: As said above; also if there are not so many features that change, with one to spare.
    """
    rows, state = _rows(features, train), scatter_state(train)
    changing = ~state.constant_features()
    if not 1 <= dimension < int(changing.sum()):
        raise ValueError(
            f"dimension must be at least 1 and below the {int(changing.sum())} features that change, got {dimension}"
        )
    mean = state.mean()[changing]
    scatter = state.total_scatter()[changing][:, changing]
    std = (scatter.diagonal() / len(train)).sqrt()
    _, vectors = eigh(scatter / std / std.unsqueeze(1))
    z = (rows[:, changing] - mean) / std
    found: Tensor = (z @ vectors[:, -dimension:]).norm(dim=1) / z.norm(dim=1).clamp_min(torch.finfo(z.dtype).tiny)
    return found


def class_orthogonality(train: Tensor, labels: Tensor, num_classes: int, others: Tensor) -> float:
    """NC5: mean size of the cosine between the class means and the mean of other samples (Ben Ammar et al. 2024).

    Args:
        train: Features of training samples, N x D.
        labels: Their N class indices.
        num_classes: K; classes without samples are left out.
        others: Features of samples that are of no class, M x D.

    Returns:
        0 where that mean is orthogonal to all class means, at most 1.
    """
    rows = _rows(others, train)
    check_class_indices(labels, len(train), num_classes)
    moments = class_moments(train.to(rows.device), labels.to(rows.device), num_classes)
    means = unit_rows(_double("the class means of train", moments.means[moments.counts > 0], "K x D"))
    return float((means @ unit_rows(rows.mean(dim=0, keepdim=True)).mT).abs().mean())


def _double(name: str, values: Tensor, shape: str = "M x D") -> Tensor:
    check_matrix(name, values, shape)
    found = values.detach().to(float64_device(values.device)).double()
    if not bool(found.isfinite().all()):
        broken = int((~found.isfinite().all(dim=1)).sum())
        raise ValueError(f"{name} must be finite, but {broken} of {len(found)} rows hold NaN or infinite values")
    return found


def _rows(features: Tensor, train: Tensor) -> Tensor:
    """Features M x D in float64, where they are as wide as training features N x D."""
    check_matrix("train", train, "N x D")
    rows = _double("features", features)
    check_columns(rows, train.shape[1], "train has")
    return rows


def _shrunk(covariance: Tensor, count: int) -> Tensor:
    """A covariance of so many samples with its oracle approximating shrinkage towards a multiple of the identity."""
    width = len(covariance)
    mean = covariance.diagonal().mean()
    if not bool(mean > 0):
        raise ValueError("no class has two samples that differ, and so there is no scatter")
    squares, sphere = covariance.square().mean(), mean.square()
    below = (count + 1) * (squares - sphere / width)
    share = float(((squares + sphere) / below).clamp(max=1)) if bool(below > 0) else 1.0
    found: Tensor = (1 - share) * covariance
    found.diagonal().add_(share * mean)
    return found
