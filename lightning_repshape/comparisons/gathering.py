"""Contenders from runs and from files of saved features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_repshape.analyses.analysis import Analysis
from lightning_repshape.analyses.arrays import read_arrays, splits_of
from lightning_repshape.analyses.inputs import FeatureInputs, TrainerInputs
from lightning_repshape.comparisons.contender import Contender, TestSamples, contend, samples_of
from lightning_repshape.errors import DataError
from lightning_repshape.features.drawn import first
from lightning_repshape.features.layers import EachLayer, different
from lightning_repshape.features.passes import Features
from lightning_repshape.features.reader import Unpack
from lightning_repshape.features.store import analysis_loader, of_rows, on_device
from lightning_repshape.functional.similarity import sketched
from lightning_repshape.layers import evaluating
from lightning_repshape.runs.files import read_json
from lightning_repshape.runs.folders import MANIFEST

_LAYER_SAMPLES = 500  # test samples on which all layers are compared
_LAYER_WIDTH = 4096  # values a sample that are kept


class Gathering(Callback):
    """Makes a contender of the model that a trainer tests.

    Args:
        name: Its name.
        layer: The layer that is analysed.
        analyses: What to run.
        about: What it is, in a line.
        run: Its run folder. Default: none.

    Attributes:
        contender: None before the test.
    """

    def __init__(
        self, name: str, layer: str, analyses: Sequence[Analysis], about: str = "", run: Path | None = None
    ) -> None:
        self.name, self.layer, self.analyses, self.about, self.run = name, layer, analyses, about, run
        self.contender: Contender | None = None

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Computes with the trainer's own loaders, precision and device."""
        other = next((analysis.other for analysis in self.analyses if analysis.other is not None), None)
        unpack: Unpack = self.analyses[0].unpack if self.analyses else (0, 1)
        inputs = TrainerInputs(trainer, pl_module, self.layer, unpack, other=other)
        data = getattr(trainer, "datamodule", None)
        count = len(inputs.features("test").labels)
        namer, hasher = getattr(data, "sample_name", None), getattr(data, "checksums", None)
        names = [f"{type(data).__name__}: {namer('test', at)}" for at in range(count)] if callable(namer) else None
        content = str(hasher().get("test.images", "")) if callable(hasher) else ""
        figures = {
            name.removeprefix("test/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("test/")
        }
        parameters = float(sum(part.numel() for part in pl_module.parameters()))
        self.contender = contend(
            self.name,
            inputs,
            self.analyses,
            names,
            content,
            layers=_layers(trainer, pl_module, unpack),
            figures=figures,
            about=self.about,
            cost={**_cost(self.run), "parameters": parameters},
            run=self.run,
        )


def _layers(trainer: Trainer, module: LightningModule, unpack: Unpack) -> dict[str, Tensor]:
    """Some test samples' activations at every layer, each n x D, of equal ones once; of wide ones random directions."""
    loader = analysis_loader(trainer, "test")
    dataset: Any = getattr(loader, "dataset", None)
    count = len(dataset) if hasattr(dataset, "__len__") else _LAYER_SAMPLES
    batches = of_rows(loader, torch.arange(min(_LAYER_SAMPLES, count)), 100)
    found: dict[str, list[Tensor]] = {}
    reader = EachLayer(module)
    names: list[str] | None = None
    with evaluating(module), torch.no_grad(), trainer.precision_plugin.forward_context():
        for x, labels in first((on_device(trainer, batch, module) for batch in batches), unpack, _LAYER_SAMPLES):
            own: dict[str, Tensor] = {}

            def keep(name: str, value: Tensor, own: dict[str, Tensor] = own) -> None:
                own[name] = sketched(value.float(), _LAYER_WIDTH).cpu().clone()  # the last call counts

            reader(x, len(labels), keep)
            if names is None:
                names = different(own)
                reader.keep(names)
            names = [name for name in names if name in own]
            for name in names:
                found.setdefault(name, []).append(own[name])
    return {name: torch.cat(found[name]) for name in names or ()}


def _cost(run: Path | None) -> dict[str, float]:
    """What a run's manifest says of its training, as far as it is known: seconds, steps, memory."""
    if run is None:
        return {}
    sessions = [own for own in read_json(run / MANIFEST).get("sessions") or [] if own.get("stage") == "fit"]
    rates = [float(own["steps_per_second"]) for own in sessions if own.get("steps_per_second")]
    found = {
        "train_seconds": sum(float(own.get("wall_seconds") or 0) for own in sessions),
        "steps": float(max((own.get("steps") or 0 for own in sessions), default=0)),
        "step_seconds": 1 / rates[-1] if rates else 0.0,
        "memory_mb": max((float(own.get("peak_memory_mb") or 0) for own in sessions), default=0.0),
    }
    return {name: value for name, value in found.items() if value}


def of_file(
    name: str, path: Path, layer: str, analyses: Sequence[Analysis], other: Mapping[str, Features] | None = None
) -> Contender:
    """A contender from a file of features, see :func:`lightning_repshape.analyses.arrays.read_arrays`.

    Its array ``test_ids`` says which samples ``test_features`` are of. ``other`` is a second set by split, by default
    that of the file itself. Raises DataError if there are no test features.
    """
    arrays, splits, ids = _read(path)
    class_names = [str(one) for one in arrays.get("class_names", ())]
    other = splits_of(arrays, path, other=True) if other is None else other
    inputs = FeatureInputs(splits, None, class_names, 0, arrays.get("weight"), arrays.get("bias"), layer, other=other)
    return contend(name, inputs, analyses, ids, about=str(path))


def samples_of_file(path: Path) -> TestSamples:
    """The test samples of a file of features. Raises DataError if there are none."""
    _, splits, ids = _read(path)
    return samples_of(splits["test"].labels, ids)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Features], list[Any] | None]:
    """A file's arrays, its splits, and what its test samples are called, where it says so."""
    arrays = read_arrays(path)
    splits = splits_of(arrays, path)
    if "test" not in splits:
        raise DataError(f"{path} has no arrays test_features and test_labels, on which models are compared")
    count, ids = len(splits["test"].labels), arrays.get("test_ids")
    if ids is not None and len(ids) != count:
        raise DataError(f"{path}: test_ids has {len(ids)} entries and test_labels {count}")
    return arrays, splits, None if ids is None else ids.tolist()
