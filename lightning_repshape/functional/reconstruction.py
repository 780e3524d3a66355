"""Feed-backward reconstruction: the loss that pulls features towards their class's weight vector, and the metric e(W).

Source: the paper on weight separability and feed-backward reconstruction (Eq. 6, 8 and 9). The bias of the last layer
takes part in neither.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_repshape.functional.checks import (
    check_columns,
    check_floating,
    check_labels,
    check_matrix,
    check_sizes,
)
from lightning_repshape.functional.numerics import at_least_float32, unit_rows


def weight_separability(weight: Tensor, normalize: bool = False) -> Tensor:
    r"""How far the class vectors are from orthonormal: e(W) = 1/K \|W^T W - I\|_F^2 (Eq. 6).

    0 says that the K class vectors are orthonormal; with more classes than features the least possible is 1 - D/K. The
    value is differentiable.

    Args:
        weight: K x D, one class vector a row, as in ``nn.Linear`` (the paper's W has them as columns).
        normalize: Scale every class vector to unit length first, so that only angles count: the mean over classes of
            the sum of squared cosines with all others. A class vector of zeros stays zero and counts 1.

    Returns:
        A scalar of the weight's dtype (float32 for half precision).

    Raises:
        TypeError: ``weight`` is not a floating-point tensor.
        ValueError: ``weight`` is not a non-empty matrix.
    """
    check_matrix("weight", weight, "K x D")
    weight = at_least_float32(weight)
    with torch.autocast(weight.device.type, enabled=False):
        if normalize:
            weight = unit_rows(weight)
        classes, width = weight.shape
        if classes <= width:
            gram = weight @ weight.T
            return (gram - torch.eye(classes, dtype=gram.dtype, device=gram.device)).square().sum() / classes
        # |W^T W - I_K|^2 and |W W^T - I_D|^2 differ by K - D exactly: the D x D product is the small one for many faces
        gram = weight.T @ weight
        apart = (gram - torch.eye(width, dtype=gram.dtype, device=gram.device)).square().sum()
        return (apart + (classes - width)) / classes


def feed_backward_loss(
    features: Tensor,
    weight: Tensor,
    y: Tensor,
    *,
    temperature: float = 1.0,
    stop_gradient: Literal["none", "features", "weight"] = "none",
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """The feed-backward reconstruction loss KL(P || Q) (Eq. 9), P = softmax(feature), Q = softmax(class vector of y).

    Both softmaxes run over the D features. The gradient to a feature is P (log P - log Q - KL), to its class vector
    Q - P. With memberships it is the sum of the classes' losses, each times its membership.

    Args:
        features: N x D, the input of the last linear layer.
        weight: K x D, the last layer's weight as in ``nn.Linear``.
        y: N labels, integers in 0 .. K - 1, or N x K memberships.
        temperature: Features and class vectors are divided by it before the softmax. Default: 1 (the paper's).
        stop_gradient: ``"features"`` lets the loss move the weights alone, ``"weight"`` the features alone.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for N values.

    Returns:
        A scalar, or N values; never below zero but for rounding.

    Raises:
        TypeError: Features or weight are not floating-point, or labels neither integers nor memberships.
        ValueError: Shapes that do not fit, a temperature that is not positive, an unknown option.
    """
    check_matrix("weight", weight, "K x D")
    check_floating("features", features)
    if features.dim() != 2:
        raise ValueError(f"features must be N x D, but they are {tuple(features.shape)}")
    soft = check_labels(y, features.shape[0], weight.shape[0])
    check_columns(features, weight.shape[1], "the class vectors have")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if stop_gradient not in ("none", "features", "weight"):
        raise ValueError(f"stop_gradient must be 'none', 'features' or 'weight', not {stop_gradient!r}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")

    features, weight = at_least_float32(features), at_least_float32(weight)
    features = features.detach() if stop_gradient == "features" else features
    weight = weight.detach() if stop_gradient == "weight" else weight
    log_p = F.log_softmax(features / temperature, dim=1)
    if soft:
        shares = y.to(log_p.dtype)
        cross = shares @ F.log_softmax(weight / temperature, dim=1)
        divergence = (log_p.exp() * (log_p * shares.sum(dim=1, keepdim=True) - cross)).sum(dim=1)
    else:
        divergence = _divergence(log_p, weight, y.long(), temperature)
    if reduction == "none":
        return divergence
    return divergence.mean() if reduction == "mean" else divergence.sum()


def _divergence(log_p: Tensor, weight: Tensor, y: Tensor, temperature: float) -> Tensor:
    # the softmax of whichever is fewer: all class vectors, or those of the batch
    if len(weight) <= len(y):
        log_q = F.log_softmax(weight / temperature, dim=1)[y]
    else:
        log_q = F.log_softmax(weight[y] / temperature, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def orthonormal_class_vectors(num_classes: int, num_features: int, generator: torch.Generator | None = None) -> Tensor:
    """Orthonormal class vectors: Q of the QR decomposition of numbers from U(-1, 1) (Eq. 2, Fig. 2).

    Args:
        num_classes: K.
        num_features: D, at least K.
        generator: Where the numbers come from. Default: PyTorch's global one.

    Returns:
        K x D, float32, a class vector a row: e(W) is 0.

    Raises:
        ValueError: Fewer features than classes, or a number below 1.
    """
    check_sizes(num_classes, num_features)
    if num_features < num_classes:
        raise ValueError(f"{num_classes} class vectors cannot be orthonormal in {num_features} features")
    numbers = 2 * torch.rand(num_features, num_classes, generator=generator, dtype=torch.float64) - 1
    columns: Tensor = torch.linalg.qr(numbers).Q
    return columns.T.contiguous().float()


def dependent_class_vectors(
    num_classes: int, num_features: int, rank: int = 2, generator: torch.Generator | None = None
) -> Tensor:
    """Linearly dependent class vectors of unit length: random mixtures of ``rank`` random directions (Fig. 2).

    The paper does not say how its dependent columns are made; unit length leaves the dependence as the only difference
    from :func:`orthonormal_class_vectors`.

    Args:
        num_classes: K.
        num_features: D.
        rank: Rank of the matrix, at least 1, below K and at most D.
        generator: Where the numbers, from U(-1, 1), come from. Default: PyTorch's global one.

    Returns:
        K x D, float32, a class vector a row.

    Raises:
        ValueError: A rank out of range, or a number below 1.
    """
    check_sizes(num_classes, num_features)
    if not 1 <= rank < num_classes or rank > num_features:
        raise ValueError(
            f"rank must be at least 1, below the {num_classes} classes and at most the {num_features} features, not "
            f"{rank}"
        )
    directions = torch.linalg.qr(2 * torch.rand(num_features, rank, generator=generator, dtype=torch.float64) - 1).Q
    mixtures = 2 * torch.rand(num_classes, rank, generator=generator, dtype=torch.float64) - 1
    vectors: Tensor = unit_rows(mixtures) @ directions.T
    return vectors.float()
