"""Joint training of a backbone and a head: the baseline of every comparison."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError
from lightning_repshape.heads import LinearHead
from lightning_repshape.modules.base import BackboneCallable, ClassifierModule, HeadCallable
from lightning_repshape.modules.options import Options, Shared


class LossOptions(Shared, total=False):
    """The loss of a :class:`SupervisedModule`, and what all modules share."""

    classification_loss: Literal["cross_entropy", "squared"]
    label_smoothing: float


class SupervisedModule(ClassifierModule):
    """Trains a backbone and a head jointly, end to end.

    Labels are N class indices or N x K memberships, as of mixup and CutMix, whose cross entropy is PyTorch's own;
    errors are counted against the largest membership.

    Args:
        num_classes: Number of classes K. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, (C, H, W). Linked to ``data.input_shape`` on the command line.
        backbone: Called with ``input_shape``; gives the feature extractor.
        head: Called with the number of features and ``num_classes``; gives the head.
        classification_loss: Softmax cross entropy, or the squared loss against one-hot targets, summed over outputs and
            averaged over samples.
        label_smoothing: Share of the target spread evenly over the classes; cross entropy only.
        **kwargs: The shared options, see :class:`ClassifierModule`.

    Raises:
        ConfigError: If ``statistics_layer`` names no activation, or ``label_smoothing`` is not in [0, 1).

    Example:
        >>> from lightning_repshape.networks import MLP
        >>> module = SupervisedModule(num_classes=10, input_shape=(1, 28, 28), backbone=MLP)
        >>> module(torch.zeros(2, 1, 28, 28)).logits.shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        backbone: BackboneCallable,
        head: HeadCallable = LinearHead,
        classification_loss: Literal["cross_entropy", "squared"] = "cross_entropy",
        label_smoothing: float = 0.0,
        **kwargs: Options[Shared],
    ) -> None:
        super().__init__(num_classes=num_classes, input_shape=input_shape, backbone=backbone, head=head, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing is {label_smoothing}, but must be in [0, 1)")
        if label_smoothing and classification_loss == "squared":
            raise ConfigError("label_smoothing works with classification_loss 'cross_entropy' alone; set it to 0")
        self.loss_name = classification_loss
        self.label_smoothing = label_smoothing

    def classification_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The chosen loss, averaged over samples."""
        if self.loss_name == "squared":
            logits = logits if logits.dtype == torch.float64 else logits.float()
            wanted = (target if target.is_floating_point() else F.one_hot(target, self.num_classes)).to(logits.dtype)
            return (logits - wanted).square().sum(dim=1).mean()
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
