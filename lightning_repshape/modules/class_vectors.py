"""Classification by class vectors that are fixed at random, or trained (submission to ICLR 2021)."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor

from lightning_repshape.errors import ConfigError
from lightning_repshape.functional.class_statistics import class_indices
from lightning_repshape.functional.class_vectors import largest_class_cosine
from lightning_repshape.functional.fixed_vectors import Layout, nearest_turned
from lightning_repshape.heads import ClassVectorHead
from lightning_repshape.layers import check_positive
from lightning_repshape.metrics.class_vectors import ClassCosines, ClassMeans
from lightning_repshape.metrics.classification import ClassificationSums
from lightning_repshape.modules.base import BackboneCallable, ModelOutput
from lightning_repshape.modules.options import Options
from lightning_repshape.modules.supervised import LossOptions, SupervisedModule


class ClassVectorModule(SupervisedModule):
    """A backbone under a :class:`~lightning_repshape.heads.ClassVectorHead`, which trains as SupervisedModule does.

    The defaults are the setting for which "Redesigning the classification layer by randomizing the class representation
    vectors" argues: cosine, S = 1, vectors fixed at random.

    Validation and test also log ``cosine_own`` and ``cosine_predicted``, the mean cosine of a sample's features with
    the vector of its class and of the class it was taken for (the paper's table 4), and ``largest_class_cosine``
    between two class vectors.

    Args:
        num_classes: Number of classes K. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, (C, H, W). Linked to ``data.input_shape`` on the command line.
        backbone: Called with ``input_shape``; gives the feature extractor.
        similarity: ``cosine`` or ``dot``.
        fixed: Whether the class vectors stay as they were drawn.
        scale: S, above 0; with ``learn_scale`` what it starts from.
        learn_scale: Whether S is trained.
        embedding: Width of a trained linear layer before the class vectors. Default: none.
        seed: Of the draw of fixed vectors.
        vectors: How fixed vectors lie: ``random``, ``etf``, ``hadamard``, ``separated`` or ``hypercube``, see
            :class:`~lightning_repshape.heads.ClassVectorHead`.
        align_epochs: After each of the first so many epochs, fixed vectors are turned as a whole to lie nearest to the
            class means that the epoch had; with ``vectors="etf"`` they are then the nearest simplex ETF (Markou et al.
            2024, here by epochs and in closed form). 0: they stay where they were drawn.
        **kwargs: The options of :class:`SupervisedModule`, but for ``head``.

    Raises:
        ConfigError: If an option is out of its range.

    Example:
        >>> from lightning_repshape.networks import MLP
        >>> module = ClassVectorModule(num_classes=10, input_shape=(1, 28, 28), backbone=MLP)
        >>> any(name.startswith("head") for name, _ in module.named_parameters())
        False
    """

    head: ClassVectorHead

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        backbone: BackboneCallable,
        similarity: Literal["dot", "cosine"] = "cosine",
        fixed: bool = True,
        scale: float = 1.0,
        learn_scale: bool = False,
        embedding: int | None = None,
        seed: int = 0,
        vectors: Layout = "random",
        align_epochs: int = 0,
        **kwargs: Options[LossOptions],
    ) -> None:
        if align_epochs:
            check_positive("ClassVectorModule: align_epochs", align_epochs)
            if not fixed:
                raise ConfigError("ClassVectorModule: align_epochs turns fixed class vectors, and these are trained")
        super().__init__(
            num_classes=num_classes,
            input_shape=input_shape,
            backbone=backbone,
            head=partial(
                ClassVectorHead,
                similarity=similarity,
                fixed=fixed,
                scale=scale,
                learn_scale=learn_scale,
                embedding=embedding,
                seed=seed,
                vectors=vectors,
            ),
            **kwargs,
        )
        embedded = "embed" in self.head.activation_names
        if fixed and not embedded and getattr(self.backbone, "neck", None) is not None:
            raise ConfigError(
                "ClassVectorModule: a neck ends in ReLU, and features without a negative number reach few of the class "
                "vectors, which are fixed: leave the backbone's neck out, or give an embedding"
            )
        self._vector_inputs = "head.embed" if embedded else "features"
        self.align_epochs = align_epochs
        self.class_means: ClassMeans | None = None
        if align_epochs and num_classes > 1:
            self.head.output.turns = True
            self.class_means = ClassMeans(num_classes, self.head.output.in_features)
            self.class_means.persistent(True)  # of an epoch that a resumed run begins with or is within
        self.val_cosines = ClassCosines()
        self.test_cosines = ClassCosines()

    def training_activations(self) -> tuple[str, ...]:
        """What the class vectors receive, as long as they are turned to it."""
        return (self._vector_inputs,) if self._gathers else ()

    @property
    def _gathers(self) -> bool:
        return self.class_means is not None and self.training and self.current_epoch < self.align_epochs

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Turns the class vectors, before the first batch of an epoch, to the class means of the one before."""
        if batch_idx or self.class_means is None or not bool(self.class_means.counts.any()):
            return
        with warnings.catch_warnings():  # a resumed run has the sums, and torchmetrics' count of updates is anew
            warnings.filterwarnings("ignore", message="The ``compute`` method")
            means = self.class_means.compute()
        self.class_means.reset()
        if int((~means.isnan().any(dim=1)).sum()) > 1:
            self.head.output.weight.copy_(nearest_turned(self.head.output.weight, means))

    def loss(self, output: ModelOutput, target: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The classification loss; what the class vectors receive is added to the class means."""
        if self._gathers and self.class_means is not None:
            self.class_means.update(output.activations[self._vector_inputs], target)
        return super().loss(output, target)

    def evaluation_step(self, batch: Sequence[Tensor], sums: ClassificationSums) -> None:
        """Forward pass of one evaluation batch, added to the sums, to the cosines and to the statistics."""
        x, target = self.unpack(batch)
        output = self.evaluated(x, tuple(dict.fromkeys((self.statistics_layer, self._vector_inputs))))
        sums.update(self.classification_loss(output.logits, target), output.logits, target)
        self.update_statistics(output.activations[self.statistics_layer], target)
        cosines = self.val_cosines if sums is self.val_sums else self.test_cosines
        received = output.activations[self._vector_inputs]
        cosines.update(received, self.head.output.weight, class_indices(target), output.logits.argmax(dim=1))

    def end_evaluation(self, stage: str, sums: ClassificationSums, further: Mapping[str, Tensor] | None = None) -> None:
        """Logs a stage's figures, the cosines among them, and empties its sums."""
        cosines = self.val_cosines if sums is self.val_sums else self.test_cosines
        figures = {**cosines.compute(), **(further or {})}
        cosines.reset()
        if self.num_classes > 1:
            figures["largest_class_cosine"] = largest_class_cosine(self.head.output.weight)
        if self.head.output.log_scale is not None:
            figures["scale"] = self.head.scale.detach()
        super().end_evaluation(stage, sums, figures)
