"""Classification losses on features and class vectors, and the feed-backward reconstruction term.

A loss takes the features that enter the last linear layer, that layer's own weight and bias, and labels; so it serves
any model with such a layer, and what is measured on the weight, such as e(W), is of the weight that was trained. The
formulas of the margin losses are written here rather than taken from pytorch-metric-learning: its losses hold a weight
matrix of their own, its large-margin softmax has no annealing, it has no center loss, and its current releases ask for
a newer Python than this package.
"""

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import ConfigError
from lightning_repshape.functional.numerics import at_least_float32, unit_rows
from lightning_repshape.functional.reconstruction import feed_backward_loss
from lightning_repshape.layers import check_number, check_positive


class ClassificationLoss(nn.Module):
    """Softmax cross entropy on logits that a subclass may change; the base of all losses here.

    Called with features, weight, bias and labels in a plain loop, or by
    :class:`lightning_repshape.modules.FeedBackwardModule`, which builds it as ``loss(num_features, num_classes)``.
    Shapes throughout: ``features`` N x D, what enters the last linear layer; ``weight`` K x D and ``bias`` K or None,
    that layer's own; ``target`` N class indices or N x K memberships (of mixup, CutMix), whose cross entropy is
    PyTorch's own; logits N x K. Margins count in proportion to the membership. An option out of its
    range is a :class:`ConfigError`.

    Args:
        num_features: Width D of what enters the last linear layer.
        num_classes: Number of classes K.

    Attributes:
        takes_bias: Whether the last layer may have a bias.
        own_logits: Whether :meth:`logits`, by which classes are predicted, differ from the linear layer's output.
    """

    takes_bias: ClassVar[bool] = True
    own_logits: ClassVar[bool] = False

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        check_positive(f"{type(self).__name__}: num_features", num_features)
        check_positive(f"{type(self).__name__}: num_classes", num_classes)
        self.num_features = num_features
        self.num_classes = num_classes

    def logits(self, features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The logits that predict."""
        return F.linear(features, weight, bias)

    def training_logits(
        self, features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """The logits whose cross entropy is trained: those that predict (``logits``, if known), with the margin."""
        return self.logits(features, weight, bias) if logits is None else logits

    def further(self, features: Tensor, target: Tensor) -> Tensor | None:
        """What is added to the cross entropy, a scalar with its weight. None: nothing."""
        return None

    def forward(self, features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        """The loss, averaged over the batch: a scalar. ConfigError as in :meth:`check`, or if features do not fit."""
        self.check(weight, bias)
        if features.dim() != 2 or features.shape[1] != self.num_features:
            raise ConfigError(
                f"{type(self).__name__} was made for N x {self.num_features} features, not {tuple(features.shape)}"
            )
        logits = self.training_logits(features, weight, bias, target)
        loss = F.cross_entropy(logits, target.to(logits.dtype) if target.is_floating_point() else target)
        further = self.further(features, target)
        return loss if further is None else loss + further

    def check(self, weight: Tensor, bias: Tensor | None) -> None:
        """Refuses a last layer that the loss cannot work with.

        Raises:
            ConfigError: If shapes do not fit, or there is a bias that the loss cannot have.
        """
        name = type(self).__name__
        if tuple(weight.shape) != (self.num_classes, self.num_features):
            raise ConfigError(
                f"{name} was made for {self.num_classes} class vectors of {self.num_features} features, but the last "
                f"layer's weight is {tuple(weight.shape)}"
            )
        if bias is not None and not self.takes_bias:
            raise ConfigError(f"{name} has no bias: build the head with bias=False (LinearHead's option bias: false)")


class SoftmaxLoss(ClassificationLoss):
    """Softmax cross entropy of the linear layer's logits.

    Example:
        >>> loss = SoftmaxLoss(num_features=2, num_classes=2)
        >>> loss(torch.zeros(3, 2), torch.eye(2), None, torch.tensor([0, 1, 0]))
        tensor(0.6931)
    """


class L2Softmax(ClassificationLoss):
    """Softmax cross entropy on features of length ``scale`` (DeepFace, Taigman et al. 2014, has length 1).

    The logits are ``scale * <x / |x|, w_k> + b_k``, with weights of any length; predictions use the same. With a fixed
    ``scale`` above 1 it is L2-constrained softmax (Ranjan et al. 2017).

    Args:
        num_features: D.
        num_classes: K.
        scale: Length of the features, above 0.
    """

    own_logits: ClassVar[bool] = True

    def __init__(self, num_features: int, num_classes: int, scale: float = 1.0) -> None:
        super().__init__(num_features, num_classes)
        self.scale = check_number("L2Softmax: scale", scale, positive=True)

    def logits(self, features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Of features of the given length."""
        with torch.autocast(features.device.type, enabled=False):
            units = unit_rows(at_least_float32(features)) * self.scale
            return F.linear(units, at_least_float32(weight), None if bias is None else at_least_float32(bias))

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"scale={self.scale:g}"


class CosFace(ClassificationLoss):
    """Large margin cosine loss (Wang et al. 2018): logits s cos(theta_k), and s (cos(theta_y) - m) for the label.

    Features and class vectors count with unit length; the last layer has no bias. Predictions use s cos(theta_k).

    Args:
        num_features: D.
        num_classes: K.
        scale: s, above 0; 64 as for faces, few classes do with less.
        margin: m, from 0 to 2.
    """

    takes_bias: ClassVar[bool] = False
    own_logits: ClassVar[bool] = True

    def __init__(self, num_features: int, num_classes: int, scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__(num_features, num_classes)
        self.scale = check_number(f"{type(self).__name__}: scale", scale, positive=True)
        self.margin = self._checked_margin(margin)

    def _checked_margin(self, margin: float) -> float:
        if not 0 <= margin <= 2:
            raise ConfigError(f"{type(self).__name__}: margin={margin!r} must be from 0 to 2, what cosines differ by")
        return float(margin)

    def logits(self, features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The scaled cosines."""
        with torch.autocast(features.device.type, enabled=False):
            return self.scale * (unit_rows(at_least_float32(features)) @ unit_rows(at_least_float32(weight)).T)

    def training_logits(
        self, features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """With the margin on the label's cosine."""
        logits = self.logits(features, weight) if logits is None else logits
        if target.is_floating_point():
            return logits.lerp(self._with_margin(logits / self.scale) * self.scale, target.to(logits.dtype))
        place = target.unsqueeze(1)
        own = logits.gather(1, place)
        return logits.scatter(1, place, self._with_margin(own / self.scale) * self.scale)

    def _with_margin(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"scale={self.scale:g}, margin={self.margin:g}"


class ArcFace(CosFace):
    """Additive angular margin loss (Deng et al. 2018): logits s cos(theta_k), and s cos(theta_y + m) for the label.

    Beyond theta_y = pi - m, where the cosine would rise again, it goes on as cos(theta_y) - m sin(m), as in the
    implementations that are in use. Features and class vectors count with unit length; the last layer has no bias.

    Args:
        num_features: D.
        num_classes: K.
        scale: s, above 0; 64 as for faces, few classes do with less.
        margin: m, in radians, from 0 to pi / 2.
    """

    def __init__(self, num_features: int, num_classes: int, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__(num_features, num_classes, scale, margin)

    def _checked_margin(self, margin: float) -> float:
        if not 0 <= margin <= math.pi / 2:
            raise ConfigError(f"ArcFace: margin={margin!r} is an angle in radians, from 0 to pi / 2")
        return float(margin)

    def _with_margin(self, cosine: Tensor) -> Tensor:
        # the sine's derivative is infinite where the vectors are parallel
        sine = (1 - cosine.square()).clamp(min=1e-12 if cosine.dtype == torch.float64 else 1e-7).sqrt()
        turned = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine >= -math.cos(self.margin), turned, beyond)


class LargeMarginSoftmax(ClassificationLoss):
    """Large-margin softmax, L-Softmax (Liu et al. 2016): the label's logit is ``|w_y| |x| psi(theta_y)``.

    psi(theta) = (-1)^k cos(m theta) - 2k for theta in [k pi / m, (k + 1) pi / m] (Eq. 6). Training anneals: the logit
    is ``(lambda |w_y| |x| cos(theta_y) + |w_y| |x| psi(theta_y)) / (1 + lambda)``; lambda falls from ``annealing`` as
    annealing * (1 + gamma t)^(-power) with the number t of training batches, never below ``least``. The paper has the
    rule and no numbers; the defaults are those of the Caffe layer in use. t is kept in checkpoints. Predictions use the
    plain logits; the last layer has no bias.

    Args:
        num_features: D.
        num_classes: K.
        margin: m, a whole number; 1 is plain softmax.
        annealing: lambda at the start; 0: none.
        gamma: See above.
        power: See above.
        least: The smallest lambda.
    """

    takes_bias: ClassVar[bool] = False

    batches: Tensor

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        margin: int = 4,
        annealing: float = 1000.0,
        gamma: float = 2.5e-5,
        power: float = 35.0,
        least: float = 0.0,
    ) -> None:
        super().__init__(num_features, num_classes)
        check_positive("LargeMarginSoftmax: margin", margin)
        self.margin = margin
        self.annealing = check_number("LargeMarginSoftmax: annealing", annealing)
        self.gamma = check_number("LargeMarginSoftmax: gamma", gamma)
        self.power = check_number("LargeMarginSoftmax: power", power)
        self.least = check_number("LargeMarginSoftmax: least", least)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def share(self) -> Tensor:
        """The annealing's lambda at this point of the training, a scalar."""
        fallen = self.annealing * (1 + self.gamma * self.batches.double()) ** -self.power
        return fallen.clamp(min=self.least)

    def psi(self, cosine: Tensor) -> Tensor:
        """The function psi of cos(theta), from -1 to 1; its values fall with theta from 1 to 1 - 2 margin."""
        # cos(m theta) by Chebyshev's recursion, which has no infinite derivative as acos has
        before, multiple = torch.ones_like(cosine), cosine
        for _ in range(self.margin - 1):
            before, multiple = multiple, 2 * cosine * multiple - before
        edges = cosine.new_tensor([math.cos(math.pi * k / self.margin) for k in range(1, self.margin)])
        k = (cosine.detach().unsqueeze(-1) < edges).sum(dim=-1).to(cosine.dtype)
        return (1 - 2 * (k % 2)) * multiple - 2 * k

    def training_logits(
        self, features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """The annealed margin; counts a batch in training mode."""
        with torch.autocast(features.device.type, enabled=False):
            features, weight = at_least_float32(features), at_least_float32(weight)
            logits = F.linear(features, weight)
            lengths, vectors = torch.linalg.vector_norm(features, dim=1), torch.linalg.vector_norm(weight, dim=1)
            soft, place = target.is_floating_point(), target.unsqueeze(1)
            if soft:
                own, lengths = logits, lengths.unsqueeze(1) * vectors
            else:
                own, lengths = logits.gather(1, place).squeeze(1), lengths * vectors[target]
            cosine = (own / lengths.clamp(min=torch.finfo(own.dtype).tiny)).clamp(-1, 1)
            share = self.share().to(own.dtype)
            mixed = (share * own + lengths * self.psi(cosine)) / (1 + share)
            if self.training and torch.is_grad_enabled():
                self.batches.add_(1)
            if soft:
                return logits.lerp(mixed, target.to(mixed.dtype))
            return logits.scatter(1, place, mixed.unsqueeze(1))

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"margin={self.margin}, annealing={self.annealing:g}, least={self.least:g}"


class CenterLoss(ClassificationLoss):
    """Softmax cross entropy plus center loss (Wen et al. 2016): weight / 2 times the mean of ``|x - c_y|^2``.

    The paper sums over the batch; the mean makes ``weight`` independent of the batch size. The K centers follow the
    features, without an optimizer, after every training batch: c_j <- c_j - rate * sum of (c_j - x) over the samples of
    class j / (1 + their number) (Eq. 4). Under several processes the sums are those of the joined batch. The centers
    start at 0 and are kept in checkpoints.

    Args:
        num_features: D.
        num_classes: K.
        weight: lambda, at least 0; 0.003 is the paper's for faces.
        rate: alpha, from 0 to 1.
    """

    centers: Tensor

    def __init__(self, num_features: int, num_classes: int, weight: float = 0.003, rate: float = 0.5) -> None:
        super().__init__(num_features, num_classes)
        if not 0 <= rate <= 1:
            raise ConfigError(f"CenterLoss: rate={rate!r} must be from 0 (centers stay) to 1")
        self.weight = check_number("CenterLoss: weight", weight)
        self.rate = float(rate)
        self.register_buffer("centers", torch.zeros(num_classes, num_features))

    def further(self, features: Tensor, target: Tensor) -> Tensor:
        """The weighted center loss; in training mode the centers move afterwards."""
        with torch.autocast(features.device.type, enabled=False):
            features = at_least_float32(features)
            if target.is_floating_point():
                # sum_k t_k |x - c_k|^2 about the mean of the centers
                shares, centers = target.to(features.dtype), self.centers.to(features.dtype)
                mean = shares @ centers
                spread = shares @ centers.square().sum(dim=1) - mean.square().sum(dim=1)
                loss = ((features - mean).square().sum(dim=1) + spread).mean() * (self.weight / 2)
                counts = shares.sum(dim=0).unsqueeze(1)
                sums = torch.cat([shares.T @ features.detach() - counts * centers, counts], dim=1)
            else:
                apart = features - self.centers[target]
                loss = apart.square().sum(dim=1).mean() * (self.weight / 2)
                # one extra column counts the samples
                sums = apart.new_zeros(self.num_classes, self.num_features + 1)
                sums.index_add_(0, target, F.pad(apart.detach(), (0, 1), value=1.0))
            if self.training and torch.is_grad_enabled():
                self._move(sums)
            return loss

    def _move(self, sums: Tensor) -> None:
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        self.centers.add_((sums[:, :-1] / (1 + sums[:, -1:])).to(self.centers.dtype), alpha=self.rate)

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"weight={self.weight:g}, rate={self.rate:g}"


class FeedBackwardReconstruction(nn.Module):
    """The feed-backward reconstruction loss as a term of a total loss (Eq. 9 and 10): weight * KL(P || Q).

    P is the softmax of a feature vector, Q that of its label's class vector; see
    :func:`lightning_repshape.functional.feed_backward_loss`. An option out of its range is a :class:`ConfigError`.

    Args:
        weight: lambda, at least 0; 0.001 is the paper's.
        temperature: Features and class vectors are divided by it before the softmax; 1 is the paper's.
        stop_gradient: ``features`` lets the term move the class vectors alone, ``weight`` the features alone.

    Example:
        >>> term = FeedBackwardReconstruction(weight=0.5)
        >>> features, class_vectors = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.eye(2)
        >>> term(features, class_vectors, torch.tensor([0, 1]))
        tensor(0.0183)
    """

    def __init__(
        self,
        weight: float = 0.001,
        temperature: float = 1.0,
        stop_gradient: Literal["none", "features", "weight"] = "none",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if stop_gradient not in ("none", "features", "weight"):
            raise ConfigError(f"{name}: stop_gradient must be 'none', 'features' or 'weight', got {stop_gradient!r}")
        self.weight = check_number(f"{name}: weight", weight)
        self.temperature = check_number(f"{name}: temperature", temperature, positive=True)
        self.stop_gradient: Literal["none", "features", "weight"] = stop_gradient

    def value(self, features: Tensor, class_vectors: Tensor, labels: Tensor) -> Tensor:
        """The term without its weight, a scalar.

        Args:
            features: N x D, the input of the last linear layer.
            class_vectors: K x D, that layer's weight.
            labels: N integers, or N x K memberships.

        Raises:
            ConfigError: If a tensor has the wrong type or shape.
        """
        try:
            return feed_backward_loss(
                features, class_vectors, labels, temperature=self.temperature, stop_gradient=self.stop_gradient
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{type(self).__name__}: {error}") from error

    def forward(self, features: Tensor, class_vectors: Tensor, labels: Tensor) -> Tensor:
        """The term to be added to a loss: weight times :meth:`value`."""
        return self.value(features, class_vectors, labels) * self.weight

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"weight={self.weight:g}, temperature={self.temperature:g}, stop_gradient={self.stop_gradient!r}"


LossCallable = Callable[[int, int], ClassificationLoss]


__all__ = [
    "ArcFace",
    "CenterLoss",
    "ClassificationLoss",
    "CosFace",
    "FeedBackwardReconstruction",
    "L2Softmax",
    "LargeMarginSoftmax",
    "SoftmaxLoss",
]
