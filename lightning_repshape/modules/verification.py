"""Verification: a classifier of identities whose features tell whether two images show one person."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_repshape.data.faces.module import FaceVerificationDataModule, PairBatch
from lightning_repshape.data.faces.pairs import PairSet
from lightning_repshape.errors import DivergenceError
from lightning_repshape.functional.verification import VerificationResult, fold_verification
from lightning_repshape.heads import LinearHead
from lightning_repshape.layers import evaluating
from lightning_repshape.losses import LossCallable
from lightning_repshape.metrics.verification import PairFeatures
from lightning_repshape.modules.base import BackboneCallable, ClassifierModule, HeadCallable, trainer_of
from lightning_repshape.modules.feed_backward import FeedBackwardModule, SmoothingOptions
from lightning_repshape.modules.options import Options
from lightning_repshape.moved import elsewhere
from lightning_repshape.regularizers import Regularizer

__getattr__ = elsewhere(__name__, "callbacks.roc")  # names of earlier versions


class VerifiesPairs(ClassifierModule):
    """What makes any classifier module verify pairs in validation and test: to be inherited from besides it.

    ``class MarginVerification(VerifiesPairs, MyModule): pass`` trains as ``MyModule`` does. The head is left out: a
    pair is scored by the cosine of its two features (of a video: the mean of its frames' unit-length features). Figures
    of a stage are those of its first set of pairs, and with several sets those of each with the set's name in front:
    ``verification_error``, ``verification_accuracy``, ``verification_std`` (over folds), ``auc``, ``tar_at_far_0.01``,
    ``tar_at_far_0.001`` (left out, with a word, where different pairs are too few). The callback ``ROCCurves``, which
    the command line adds, draws them after a test. Batches without pairs are classified as usual.

    Attributes:
        flip_average: Whether a feature is the mean of those of the image and of its mirror image. Default: False.
        fars: False accept rates at which true accept rates are told. Default: 1e-2 and 1e-3.
        verification: What the last evaluation found, by the set's name.
    """

    fractions: ClassVar[tuple[str, ...]] = (
        *ClassifierModule.fractions,
        "verification_error",
        "verification_accuracy",
    )
    verifies_pairs = True
    flip_average: bool = False
    fars: tuple[float, ...] = (1e-2, 1e-3)

    verification: dict[str, VerificationResult]
    _collected: list[PairFeatures]

    @property
    def monitor(self) -> str:
        """What chooses the best checkpoint: the error on validation pairs, else that of classification."""
        return "val/verification_error" if self._pair_sets("val") else "val/error"

    def _pair_sets(self, stage: Literal["val", "test"]) -> list[PairSet]:
        data = getattr(trainer_of(self), "datamodule", None)
        return data.pair_sets(stage) if isinstance(data, FaceVerificationDataModule) else []

    def embed(self, x: Tensor) -> Tensor:
        """The features N x D by which faces are compared, of normalised images N x C x H x W."""
        return embed(self.backbone, x, self.flip_average)

    def _begin(self, stage: Literal["val", "test"]) -> None:
        self.verification = {}
        self._collected = [
            PairFeatures(len(pairs.table.items), self.num_features).to(self.device) for pairs in self._pair_sets(stage)
        ]

    def on_validation_epoch_start(self) -> None:
        """Empties what was collected of the validation pairs."""
        super().on_validation_epoch_start()
        self._begin("val")

    def on_test_epoch_start(self) -> None:
        """Empties what was collected of the test pairs."""
        super().on_test_epoch_start()
        self._begin("test")

    def validation_step(self, batch: Sequence[Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds images of pairs (a ``PairBatch``), or a batch to classify, to the validation figures."""
        if isinstance(batch, PairBatch):
            self._collected[batch.set_number].update(self.embed(batch.x), batch.items)
        else:
            super().validation_step(batch, batch_idx, dataloader_idx)

    def test_step(self, batch: Sequence[Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds images of pairs (a ``PairBatch``), or a batch to classify, to the test figures."""
        if isinstance(batch, PairBatch):
            self._collected[batch.set_number].update(self.embed(batch.x), batch.items)
        else:
            super().test_step(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the validation pairs, or of classification."""
        if self._pair_sets("val"):
            self._end("val")
        else:
            super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        """Logs the figures of the test pairs, or of classification."""
        if self._pair_sets("test"):
            self._end("test")
        else:
            super().on_test_epoch_end()

    def _end(self, stage: Literal["val", "test"]) -> None:
        figures: dict[str, Tensor] = {}
        sets = self._pair_sets(stage)
        for number, (pairs, collected) in enumerate(zip(sets, self._collected, strict=True)):
            result = score_pairs(pairs, collected, self.fars, self.current_epoch)
            if result is None:
                continue
            self.verification[pairs.name] = result
            found = _figures(result)
            if number == 0:
                figures.update(found)
            if len(sets) > 1:
                figures.update({f"{pairs.name}/{name}": value for name, value in found.items()})
            fitting = self.trainer.state.fn == "fit"
            if not fitting or stage == "test":
                missing = [far for far in self.fars if math.isnan(result.tar[far])]
                if missing:
                    needed = " and ".join(f"{far:g} (that takes {math.ceil(1 / far - 1e-9):,})" for far in missing)
                    rank_zero_warn(
                        f"{pairs.name}: {result.different:,} pairs of different people are too few for a true accept "
                        f"rate at a false accept rate of {needed}; it is left out"
                    )
        self._collected = []
        if figures:
            self.log_figures(stage, {**figures, **self.further_figures()})

    def further_figures(self) -> dict[str, Tensor]:
        """Figures besides those of verification, equal on all ranks. Default: none."""
        return {}


class FeedBackwardOptions(SmoothingOptions, total=False):
    """What a :class:`FeedBackwardModule` takes besides networks and lambda."""

    classification_loss: Literal["cross_entropy", "squared"] | LossCallable
    temperature: float
    stop_gradient: Literal["none", "features", "weight"]
    last_layer: Literal["trained", "orthonormal", "dependent"]
    last_layer_rank: int
    regularizers: Sequence[Regularizer]


class VerificationModule(VerifiesPairs, FeedBackwardModule):
    """Trains a classifier of identities, and verifies pairs of other people by the cosine of its features.

    Together with :class:`lightning_repshape.data.FaceVerificationDataModule`; see :class:`VerifiesPairs` for what is
    logged and written, and for how other modules verify pairs. Any loss of :mod:`lightning_repshape.losses` trains it,
    with or without the feed-backward reconstruction (table 2 of its paper); e(W) of the head is logged beside the
    verification figures.

    Args:
        num_classes: Number of identities K. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, (C, H, W). Linked to ``data.input_shape`` on the command line.
        backbone: Called with ``input_shape``; gives the feature extractor.
        head: Called with the number of features and ``num_classes``; gives the head, which only training uses and whose
            last layer is linear.
        flip_average: Whether a pair's feature is the mean of those of the image and of its mirror image.
        reconstruction_weight: lambda of the feed-backward reconstruction. Default: 0, without; the paper has 0.001.
        **kwargs: The options of :class:`FeedBackwardModule`.

    Raises:
        ConfigError: If an option is out of its range, or the loss cannot work with the head.
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        backbone: BackboneCallable,
        head: HeadCallable = LinearHead,
        flip_average: bool = False,
        reconstruction_weight: float = 0.0,
        **kwargs: Options[FeedBackwardOptions],
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            input_shape=input_shape,
            backbone=backbone,
            head=head,
            reconstruction_weight=reconstruction_weight,
            **kwargs,
        )
        self.flip_average = flip_average

    def further_figures(self) -> dict[str, Tensor]:
        """The head's e(W), as defined and with class vectors of unit length."""
        return self.separability_figures()


def verify_pairs(
    model: nn.Module,
    data: FaceVerificationDataModule,
    stage: Literal["val", "test"] = "test",
    flip_average: bool = False,
    device: torch.device | str = "cpu",
    fars: Sequence[float] = (1e-2, 1e-3),
) -> dict[str, VerificationResult]:
    """Verifies pairs with a trained model, without a Trainer.

    Args:
        model: A classifier module of this package (its backbone is used), or any module from images to N x D features;
            it is put into evaluation mode and back.
        data: The pairs.
        stage: ``"val"`` or ``"test"``.
        flip_average: Whether a feature is the mean of those of the image and of its mirror image.
        device: Where to compute; the model has to be there.
        fars: False accept rates at which true accept rates are wanted.

    Returns:
        The figures by the set's name.

    Raises:
        DataError: A list or an image is missing.
        DivergenceError: Features are not finite.
    """
    backbone = model.backbone if isinstance(model, ClassifierModule) else model
    loaders = data.pair_loaders(stage)
    results = {}
    with evaluating(backbone):
        for pairs, loader in zip(data.pair_sets(stage), loaders, strict=True):
            collected: PairFeatures | None = None
            for batch in loader:
                x, items = batch.to(device)
                with torch.no_grad():
                    features = embed(backbone, x, flip_average)
                if collected is None:
                    collected = PairFeatures(len(pairs.table.items), features.shape[1]).to(device)
                collected.update(features, items)
            result = None if collected is None else score_pairs(pairs, collected, fars)
            if result is not None:
                results[pairs.name] = result
    return results


def embed(backbone: nn.Module, x: Tensor, flip_average: bool = False) -> Tensor:
    """Features N x D of images N x C x H x W; ``flip_average``: means of those of images and mirror images."""
    features: Tensor = backbone(x)
    return (features + backbone(x.flip(3))) / 2 if flip_average else features


def score_pairs(
    pairs: PairSet, collected: PairFeatures, fars: Sequence[float] = (1e-2, 1e-3), epoch: int = 0
) -> VerificationResult | None:
    """Verification of the pairs whose images have all been seen. To be called by all processes.

    None, with a warning, where these are too few; DivergenceError, naming the epoch, if features are not finite.
    """
    table = pairs.table
    scores, complete = collected.scores(table.first, table.second)
    scores, complete = scores.cpu(), complete.cpu()
    if not scores.isfinite().all():
        raise DivergenceError(
            f"features of the {pairs.name} pairs are not finite in epoch {epoch}; the checkpoints written before are "
            "kept. A smaller learning rate is the usual remedy"
        )
    same, folds = table.same[complete], table.folds[complete]
    if len(complete) < len(table.same):
        usable = bool(same.any()) and not bool(same.all()) and int(folds.min()) < int(folds.max())
        verdict = "the figures are of these alone" if usable else "too few for any figure"
        rank_zero_warn(f"{pairs.name}: {len(complete):,} of {len(table.same):,} pairs have been seen; {verdict}")
        if not usable:
            return None
    return fold_verification(scores, same, folds, fars)


def _figures(result: VerificationResult) -> dict[str, Tensor]:
    figures = {
        "verification_error": 1 - result.accuracy,
        "verification_accuracy": result.accuracy,
        "verification_std": result.std,
        "auc": result.auc,
        **{f"tar_at_far_{far:g}": rate for far, rate in result.tar.items() if not math.isnan(rate)},
    }
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}
