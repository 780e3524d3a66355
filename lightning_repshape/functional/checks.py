"""Checks of arguments: kinds and shapes of tensors, labels, counts and choices, each refused in one place.

A wrong type is a TypeError, a wrong shape or value a ValueError. Nothing here reads a tensor's values (which on an
accelerator would wait for the device) but :func:`check_label_range` and :func:`check_class_indices`.
"""

import torch
from torch import Tensor

# ------------------------------------------------------------------------------------------------------------- numbers


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_at_least(name: str, value: int, least: int) -> None:
    """Raises TypeError or ValueError unless ``value`` is an integer that is not below ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_not_negative(name: str, value: float) -> None:
    """Raises ValueError if ``value`` is below zero or not a finite number."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")


def check_num_classes(num_classes: int) -> None:
    """Raises TypeError or ValueError unless K is an integer of at least 1."""
    check_at_least("num_classes", num_classes, 1)


def check_sizes(num_classes: int, num_features: int) -> None:
    """Raises ValueError unless there are at least one class and one feature."""
    if num_classes < 1 or num_features < 1:
        raise ValueError(f"at least one class and one feature are needed, not {num_classes} and {num_features}")


# ------------------------------------------------------------------------------------------------------------- matrices


def check_floating(name: str, tensor: Tensor) -> None:
    """Raises TypeError unless it is a tensor of real floating-point numbers."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating-point numbers, not {tensor.dtype}")


def check_integers(name: str, tensor: Tensor) -> None:
    """Raises TypeError unless it is a tensor of integers; booleans are none."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor of integers, not {type(tensor).__name__}")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, not {tensor.dtype}")


def check_matrix(name: str, tensor: Tensor, shape: str = "N x D") -> None:
    """Refuses anything but a matrix of floating-point numbers with at least one row and one column."""
    if isinstance(tensor, Tensor) and (tensor.dim() != 2 or tensor.numel() == 0):
        raise ValueError(f"{name} must be a non-empty {shape} matrix, but the shape is {tuple(tensor.shape)}")
    check_floating(name, tensor)


def check_features(features: Tensor) -> None:
    """Raises TypeError or ValueError unless features are a non-empty N x D matrix of floating-point numbers."""
    check_matrix("features", features)


def check_columns(features: Tensor, width: int, owner: str) -> None:
    """Raises ValueError unless features have as many columns as what they meet: ``owner``, such as "the axes have"."""
    if features.shape[1] != width:
        raise ValueError(f"features have {features.shape[1]} columns, but {owner} {width}")


def check_features_and_vectors(features: Tensor, vectors: Tensor) -> None:
    """Raises ValueError unless they are N x D and K x D."""
    if features.dim() != 2 or vectors.dim() != 2 or features.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"features N x D and class vectors K x D are needed, not {tuple(features.shape)}, {tuple(vectors.shape)}"
        )


def check_activations(activations: Tensor, owner: str = "") -> None:
    """Refuses anything but floating-point numbers of shape (samples, units, ...); messages begin with ``owner``."""
    if not isinstance(activations, Tensor):
        raise TypeError(f"{owner}activations must be a tensor, got {type(activations).__name__}")
    if not activations.is_floating_point():
        raise TypeError(f"{owner}activations must be floating point, got {activations.dtype}")
    if activations.ndim < 2:
        raise ValueError(f"{owner}activations must have shape (samples, units, ...), got {tuple(activations.shape)}")


def check_scores(scores: Tensor, same: Tensor) -> None:
    """Raises TypeError or ValueError unless they are P >= 1 floating-point scores, none NaN, and P booleans."""
    if not scores.is_floating_point():
        raise TypeError(f"scores must be floating point, got {scores.dtype}")
    if same.dtype != torch.bool:
        raise TypeError(f"same must be booleans, got {same.dtype}")
    if scores.ndim != 1 or scores.shape != same.shape or not len(scores):
        raise ValueError(
            f"need P scores and P booleans, at least one, got {tuple(scores.shape)} and {tuple(same.shape)}"
        )
    if scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} of {len(scores)} scores are NaN")


# --------------------------------------------------------------------------------------------------------------- labels


def check_labels(labels: Tensor | None, num_samples: int, num_classes: int) -> bool:
    """Whether labels are soft (N, K) memberships, not (N,) integers; refuses all else, without reading their values."""
    if labels is None:
        raise ValueError("a class-wise statistic needs labels, got None")
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor, got {type(labels).__name__}")
    check_num_classes(num_classes)
    if labels.is_floating_point():
        if labels.shape != (num_samples, num_classes):
            raise ValueError(
                f"soft labels must have shape (samples, classes) = ({num_samples}, {num_classes}), "
                f"got {tuple(labels.shape)}"
            )
        return True
    if labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers or soft memberships, got {labels.dtype}")
    if labels.shape != (num_samples,):
        raise ValueError(
            f"integer labels must have shape (samples,) = ({num_samples},), got {tuple(labels.shape)}; "
            "one-hot labels must be floating point"
        )
    return False


def check_shares(labels: Tensor) -> None:
    """Raises ValueError unless the memberships of every row sum to one, to half precision; reads their values."""
    sums = labels.sum(dim=1)
    if not bool(((sums - 1).abs() <= 0.02).all()):
        raise ValueError(
            f"memberships of a sample must sum to 1, but sums are from {float(sums.min()):g} to {float(sums.max()):g}, "
            "as those of multi-hot labels (several classes a sample)"
        )


def check_label_range(labels: Tensor, num_classes: int) -> None:
    """Checks that integer labels lie in 0..K-1 (soft ones: are finite, not negative); on an accelerator it waits."""
    if labels.numel() == 0:
        return
    low, high = (float(bound) for bound in labels.aminmax())
    if labels.is_floating_point():
        if not (low >= 0 and high < float("inf")):
            raise ValueError(f"soft labels must be finite and not negative, got values from {low:g} to {high:g}")
    elif low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(f"labels must lie in 0..{num_classes - 1} for {num_classes} classes, got {wrong:.0f}")


def check_class_indices(labels: Tensor, rows: int, num_classes: int) -> None:
    """Refuses labels that are not one integer in 0 .. K - 1 for each row; reads their values."""
    check_integers("labels", labels)
    if labels.shape != (rows,):
        raise ValueError(f"labels must be one integer for each of {rows} rows, but the shape is {tuple(labels.shape)}")
    check_num_classes(num_classes)
    check_label_range(labels, num_classes)
