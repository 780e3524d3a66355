"""Figures of a run: learning curves, features on their principal components, confusion matrix."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_repshape import plots
from lightning_repshape.features.last_layer import known_num_classes, layer_of_features
from lightning_repshape.features.passes import Features
from lightning_repshape.features.store import feature_store
from lightning_repshape.functional.projection import pca
from lightning_repshape.performance import skip_idle_hooks
from lightning_repshape.runs.curves import MetricsCSVLogger
from lightning_repshape.runs.folders import analysis_folder
from lightning_repshape.runs.record import run_folder
from lightning_repshape.runs.summary import say_where
from lightning_repshape.seeding import generator


class FeaturePlots(Callback):
    """Draws learning curves at the end of training, features and confusions at the end of testing.

    The files go to ``<run>/analysis``: ``curves.png``, ``features.png``, ``confusion.png``, each with a PDF beside it.

    Args:
        layer: The activation (or, of a foreign module, the submodule) whose output is drawn.
        unpack: Positions or keys of inputs and labels in a batch.
        split: Which samples are drawn after testing.
        max_points: How many samples are drawn at most; a random choice of them, the same in every run.
    """

    def __init__(
        self,
        layer: str = "features",
        unpack: tuple[int | str, int | str] = (0, 1),
        split: Literal["train", "val", "test"] = "test",
        max_points: int = 5000,
    ) -> None:
        self.layer = layer
        self.unpack = unpack
        self.split = split
        self.max_points = max_points

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Joins the shared feature pass."""
        feature_store(trainer)
        skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the learning curves."""
        folder = analysis_folder(run_folder(trainer))
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsCSVLogger):
                continue
            curves = {}
            for stage, name in (("train", "training"), ("val", "validation")):
                key = f"{stage}/error"
                rows = [(float(row["epoch"]) + 1, 100 * float(row[key])) for row in logger.rows if key in row]
                if rows:
                    curves[name] = (np.array(rows)[:, 0], np.array(rows)[:, 1])
            if curves:
                figure = plots.curves_figure(curves, "error (%)", title=type(pl_module).__name__)
                say_where(trainer, "learning curves", plots.save_figure(figure, folder / "curves.png"))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws features and confusions."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        layer = layer_of_features(pl_module, self.layer, known_num_classes(trainer, pl_module))
        features = feature_store(trainer).get(trainer, pl_module, self.split, layer, self.unpack)
        folder = analysis_folder(run_folder(trainer))
        if trainer.is_global_zero:
            names = getattr(getattr(trainer, "datamodule", None), "class_names", ())
            drawn = draw_features(features, folder, names, self.split, layer, self.max_points)
            say_where(trainer, f"figures of {layer}", drawn[0].parent if drawn else folder)


def draw_features(
    features: Features, folder: Path, class_names: tuple[str, ...], split: str, layer: str, max_points: int = 5000
) -> list[Path]:
    """Draws features on two principal components and, where there are logits, the confusion matrix.

    Returns the figures' paths. Split and layer are named in the headings; at most ``max_points`` samples are drawn, and
    indices stand for classes without names.
    """
    classes = int(features.labels.max()) + 1
    if features.logits is not None:
        classes = max(classes, features.logits.shape[1])
    names = [class_names[k] if k < len(class_names) else str(k) for k in range(classes)]
    count = len(features.labels)
    chosen = torch.arange(count)
    if count > max_points:
        chosen = torch.randperm(count, generator=generator("plot", 0))[:max_points].sort().values
    predicted = features.logits.argmax(dim=1) if features.logits is not None else None
    wrong = (predicted != features.labels).numpy() if predicted is not None else None
    written = []
    try:
        projection = pca(features.features, 2)
    except ValueError as error:  # constant or one-dimensional features: the other figures are still drawn
        rank_zero_warn(f"features.png is not drawn: {error}")
    else:
        figure = plots.features_figure(
            projection.apply(features.features[chosen]).numpy(),
            features.labels[chosen].numpy(),
            names,
            projection.explained_variance_ratio.tolist(),
            wrong[chosen.numpy()] if wrong is not None else None,
            title=f"{layer} of {len(chosen)} {split} samples",
        )
        written.append(plots.save_figure(figure, folder / "features.png"))
    if predicted is not None and classes <= 200:
        counts = torch.zeros(classes, classes, dtype=torch.int64)
        counts.index_put_((features.labels, predicted), torch.ones_like(predicted), accumulate=True)
        heading = f"{split} samples, error {100 * float((predicted != features.labels).double().mean()):.2f} %"
        written.append(
            plots.save_figure(plots.confusion_figure(counts.numpy(), names, heading), folder / "confusion.png")
        )
    return written
