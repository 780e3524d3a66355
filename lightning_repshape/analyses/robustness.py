"""Robustness: the error on corrupted copies of the test set, and on further test sets, at the end of a test."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis, When
from lightning_repshape.analyses.error_counts import (
    CLEAN,
    OWN,
    ErrorCount,
    Version,
    all_versions,
    check_names,
    checked_choice,
    count_errors,
    counts_of,
    logits_of,
    open_sets,
    write_counts,
)
from lightning_repshape.analyses.inputs import AnalysisInputs, TrainerInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.data.corruptions import SEVERITIES, corruption_constants
from lightning_repshape.data.further import GeneralizationSet, TestImages
from lightning_repshape.data.module import ImageDataModule
from lightning_repshape.errors import ConfigError, DataError, RepshapeError
from lightning_repshape.features.store import agree
from lightning_repshape.layers import evaluating
from lightning_repshape.runs.folders import analysis_folder
from lightning_repshape.runs.record import run_folder
from lightning_repshape.runs.summary import ResultTable

_HEADING = "error (%)"


class Corruptions(Analysis):
    """The error on corrupted copies of the test set and on further test sets, at the end of a test.

    Every set (the data module's test set, and ``sets``) is tested as it is and under every corruption at every
    severity. The images are corrupted batch by batch from the uint8 store, so that nothing is written to disk; the
    noise depends on ``seed`` and the image's position, so that all models meet the same images. Under several processes
    each takes its share of every set, and the counts are added: the result is that of one process, to the image.

    It is one callback, and not a loader for each version of the test set: a test's own figures stay those of the clean
    set alone, and nothing in a module has to know of it.

    Written to ``analysis/corruptions.json``, ``.csv`` (a row a version, with counts), ``.png`` and ``.pdf``, and
    printed as a table. Logged as ``test/corruptions/...``: ``SET/CORRUPTION/SEVERITY/error`` and ``SET/clean/error``
    (``SET`` is ``test`` for the own test set), and ``mean_error``, the mean over the own set's corruptions and
    severities. Fractions.

    Args:
        corruptions: Some of gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur,
            zoom_blur, snow, fog, brightness, contrast, elastic_transform, pixelate, jpeg_compression, speckle_noise,
            gaussian_blur and saturate; all: all of these; an empty list: none, only ``sets`` as they are. Default:
            impulse_noise, jpeg_compression and defocus_blur.
        severities: Some of 1 to 5.
        sets: Further test sets with the model's classes, such as :class:`lightning_repshape.data.CIFAR101` or
            :class:`lightning_repshape.data.ImageFolderSet`; sets that bring their own corrupted copies, such as
            :class:`lightning_repshape.data.CIFARC`, are tested on these.
        seed: Seed of the noise; not the run's, so that runs can be compared.
        constants: The published set whose constants apply: cifar-c, tiny-imagenet-c or imagenet-c. Default: by the
            images' size, see :func:`lightning_repshape.data.corruption_constants`.

    Raises:
        ConfigError: There is no such corruption, severity or set of constants, or two sets share a name. A set that is
            missing or has other classes is a DataError when the run starts, not at its end.
    """

    kind = "corruptions"
    title = "Corrupted and further test sets"
    on_request = True
    reads_layer = False

    def __init__(
        self,
        corruptions: list[str] | None = None,
        severities: list[int] | None = None,
        sets: list[GeneralizationSet] | None = None,
        seed: int = 0,
        constants: Literal["cifar-c", "tiny-imagenet-c", "imagenet-c"] | None = None,
        when: When = "test",
        every_n_epochs: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(when=when, every_n_epochs=every_n_epochs, name=name)
        self.corruptions, self.severities = checked_choice(
            corruptions, SEVERITIES if severities is None else severities
        )
        self.sets = tuple(sets or ())
        check_names(self.sets)
        if not self.corruptions and not self.sets:
            raise ConfigError("there is nothing to test: corruptions is empty and there are no further sets")
        if constants is not None:
            corruption_constants(constants)
        self.constants = constants
        self.seed = seed
        self.counts: list[ErrorCount] = []
        self._opened: dict[str, TestImages] | None = None

    # -- hooks -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks at the further sets before anything runs, so that a wrong one does not cost a training."""
        super().setup(trainer, pl_module, stage)
        if not self.sets or self._opened is not None or stage not in ("fit", "test"):
            return
        data, failure = _image_data(trainer), None
        if data is None:
            raise DataError(
                f"further test sets need one of this package's image data modules, whose classes they are held against;"
                f" this run has {type(getattr(trainer, 'datamodule', None)).__name__}"
            )
        if trainer.local_rank == 0:
            try:
                for each in self.sets:
                    each.prepare()
            except RepshapeError as error:
                failure = error
        agree(trainer, failure)
        try:
            self._opened = open_sets(self.sets, data)
        except RepshapeError as error:
            failure = error
        agree(trainer, failure)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Frees the further sets."""
        self._opened = None

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table."""
        if self.when == "test":
            self._print(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table, with ``when="fit"``."""
        super().on_fit_end(trainer, pl_module)
        if self.when == "fit":
            self._print(trainer)

    def _run_at(self, trainer: Trainer, pl_module: LightningModule, stage: str, epoch: int | None = None) -> None:
        super()._run_at(trainer, pl_module, stage, epoch)
        folder = analysis_folder(run_folder(trainer))
        if trainer.is_global_zero and self.outcome is not None and self.outcome.result is not None:
            place = folder if epoch is None else folder / f"epoch-{epoch:03d}"
            write_counts(self.counts, place / f"{self.name}.csv")

    def _print(self, trainer: Trainer) -> None:
        shown = any(isinstance(other, ResultTable) for other in trainer.callbacks)  # type: ignore[attr-defined]
        if trainer.is_global_zero and not shown:  # else it stands below that table
            for part in self.printed():
                Console().print(part)

    def printed(self) -> Iterator[Any]:
        """What a test prints besides figures: the heading and the table of each set."""
        result = self.outcome.result if self.outcome is not None else None
        for heading, rows in result.tables.items() if result is not None else ():
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
            for column in rows[0]:
                table.add_column(column, justify="left" if column == "corruption" else "right")
            for row in rows:
                table.add_row(*(_cell(value) for value in row.values()))
            yield heading
            yield Padding(table, (0, 0, 0, 2))

    # -- the analysis ------------------------------------------------------------------------------------------------

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Tests every version of every set, in a trainer; DataError if that has no images, or no logits."""
        if not isinstance(inputs, TrainerInputs):
            raise DataError(
                "corrupted test sets need a model and images: run this in a trainer, or call corruption_errors"
            )
        data = _image_data(inputs.trainer)
        if data is None:
            raise DataError("corrupted test sets need one of this package's image data modules")
        trained = getattr(inputs.pl_module, "head_trained", None)
        if isinstance(trained, Tensor) and not bool(trained):
            raise DataError("the module's head is not trained yet")
        self.counts = self._count(inputs, data)
        return self._result(data)

    def _count(self, inputs: TrainerInputs, data: ImageDataModule) -> list[ErrorCount]:
        trainer, module = inputs.trainer, inputs.pl_module
        errors: list[int] = []
        versions: list[Version] = []
        failure: Exception | None = None

        def predict(images: Tensor) -> Tensor:
            x = data.normalize_images(images.to(module.device))
            return logits_of(module(trainer.precision_plugin.convert_input(x)))

        try:
            opened = self._opened if self._opened is not None else open_sets(self.sets, data)
            versions = all_versions(data, opened, self.corruptions, self.severities, self.seed, self.constants)
            share = (trainer.global_rank, trainer.world_size)
            with evaluating(module), torch.no_grad(), trainer.precision_plugin.forward_context():
                errors = count_errors(versions, predict, data.eval_batch_size, share)
        except Exception as error:
            failure = error
        agree(trainer, failure)
        totals = torch.tensor(errors, device=module.device)
        return counts_of(versions, cast(Tensor, trainer.strategy.reduce(totals, reduce_op="sum")).tolist())

    def _result(self, data: ImageDataModule) -> AnalysisResult:
        height, width = data.input_shape[1:]
        constants = corruption_constants(self.constants if self.constants is not None else (height, width))
        scalars = {count.key: count.error for count in self.counts}
        own = [count.error for count in self.counts if count.set == OWN and count.corruption != CLEAN]
        if own:
            scalars["mean_error"] = sum(own) / len(own)
        grouped: dict[str, dict[str, dict[int, ErrorCount]]] = {}
        for count in self.counts:
            grouped.setdefault(count.set, {}).setdefault(count.corruption, {})[count.severity] = count
        content: dict[str, Any] = {
            "seed": self.seed,
            "severities": list(self.severities),
            "constants": constants.name,
            "sets": {
                name: {
                    "images": next(iter(next(iter(kinds.values())).values())).images,
                    "clean_error": kinds[CLEAN][0].error if CLEAN in kinds else None,
                    "errors": {
                        kind: {str(severity): count.error for severity, count in found.items()}
                        for kind, found in kinds.items()
                        if kind != CLEAN
                    },
                }
                for name, kinds in grouped.items()
            },
        }
        tables = {
            f"{self._heading(name, data)} · {content['sets'][name]['images']:,} images · {_HEADING} by severity": [
                _row(kind, found, self.severities) for kind, found in kinds.items()
            ]
            for name, kinds in grouped.items()
        }
        notes = []
        if self.corruptions:
            notes.append(
                f"corruptions have the constants of {constants.name} ({constants.size} x {constants.size} pixels); the "
                f"images are {height} x {width}"
            )
        panels = {
            self._heading(name, data): {
                kind: ([*found], [count.error for count in found.values()])
                for kind, found in kinds.items()
                if kind != CLEAN
            }
            for name, kinds in grouped.items()
        }
        clean = {
            self._heading(name, data): {CLEAN: kinds[CLEAN][0].error}
            for name, kinds in grouped.items()
            if CLEAN in kinds
        }

        def draw() -> Any:
            return plots.severities_figure(panels, clean)

        return AnalysisResult(scalars, content, tables, {"": draw}, tuple(notes))

    def _heading(self, name: str, data: ImageDataModule) -> str:
        return f"test set of {type(data).__name__.removesuffix('DataModule')}" if name == OWN else name


def _image_data(trainer: Trainer) -> ImageDataModule | None:
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, ImageDataModule) else None


def _row(kind: str, found: Mapping[int, ErrorCount], severities: Sequence[int]) -> dict[str, Any]:
    if kind == CLEAN:
        return {"corruption": CLEAN, **dict.fromkeys(map(str, severities)), "mean": 100 * found[0].error}
    errors = [100 * found[severity].error for severity in severities]
    by_severity = dict(zip(map(str, severities), errors, strict=True))
    return {"corruption": kind.replace("_", " "), **by_severity, "mean": sum(errors) / len(errors)}


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
