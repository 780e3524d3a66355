"""Features that analyses can take: what is refused, and which outputs are logits."""

import torch
from torch import Tensor

from lightning_repshape.errors import DataError
from lightning_repshape.features.passes import Features

_ROWS = 4096  # rows that are looked through at a time


def checked(found: Features, split: str, layer: str) -> Features:
    """Features that every analysis can take, or one message."""
    features, labels, logits = found
    if features.dim() != 2 or features.numel() == 0:
        raise DataError(
            f"layer {layer!r} gave features of shape {tuple(features.shape)}; N x D with both above 0 are needed"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels of the {split} set must be integers, not {labels.dtype}")
    if labels.shape != features.shape[:1]:
        raise DataError(
            f"the {split} set has {len(features)} rows of features, but labels of shape {tuple(labels.shape)}"
        )
    broken = sum(int((~part.isfinite().all(dim=1)).sum()) for part in torch.split(features, _ROWS))
    if broken:
        raise DataError(
            f"features of {broken} of {len(features)} samples of the {split} set hold NaN or infinite values (layer "
            f"{layer!r}); look at the weights and the inputs"
        )
    # What was made in inference mode cannot be changed in place later on.
    if features.is_inference():
        with torch.inference_mode(False):
            features, labels = features.clone(), labels.clone()
            logits = logits.clone() if logits is not None else None
    return Features(features, labels.long(), logits)


def with_labels(part: Features) -> Features:
    """The samples whose class is known, those with a label of 0 or more."""
    known = part.labels >= 0
    if bool(known.all()):
        return part
    return Features(part.features[known], part.labels[known], None if part.logits is None else part.logits[known])


def usable_logits(part: Features, num_classes: int | None) -> tuple[Tensor | None, str]:
    """The logits that can be those of K classes, or None and why not."""
    logits, largest = part.logits, int(part.labels.max())
    if logits is None:
        return None, ""
    if logits.dim() != 2 or logits.shape[0] != len(part.labels):
        return None, f"logits must be N x K, but their shape is {tuple(logits.shape)}"
    width = logits.shape[1]
    if width == 1 and (num_classes == 2 or (num_classes is None and largest < 2)):
        logits, width = torch.cat([-logits / 2, logits / 2], dim=1), 2
    if num_classes is not None and width != num_classes:
        return None, f"the model returns {width} values a sample, which are no logits of {num_classes} classes"
    if num_classes is None and width <= largest:
        return None, f"the model returns {width} values a sample, which are no logits where labels reach {largest}"
    broken = sum(int(chunk.softmax(dim=1).isnan().any(dim=1).sum()) for chunk in torch.split(logits.float(), _ROWS))
    if broken:
        return None, f"logits of {broken} of {len(logits)} samples hold NaN or infinite values"
    return logits, ""
