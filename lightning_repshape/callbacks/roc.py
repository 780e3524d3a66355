"""The ROC curves of a verification: as figures, and as numbers."""

import math
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_repshape import plots
from lightning_repshape.functional.verification import VerificationResult
from lightning_repshape.runs.files import write_json
from lightning_repshape.runs.folders import analysis_folder
from lightning_repshape.runs.summary import say_where


class ROCCurves(Callback):
    """Writes ``<run>/analysis/roc-<set>.png``, ``.pdf`` and ``.json`` of each set of pairs, at the end of a test.

    Also at the end of a validation that is no part of a training. The command line adds it to every trainer; it does
    something for modules that verify pairs (:class:`lightning_repshape.modules.VerifiesPairs`).
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the curves."""
        self._write(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the curves, unless a training validates."""
        if trainer.state.fn != "fit":
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        results: dict[str, VerificationResult] = getattr(pl_module, "verification", {})
        for name, result in results.items():
            drawn = write_roc(result, analysis_folder(trainer.default_root_dir), name)
            say_where(trainer, f"ROC curve of {name}", drawn)


def write_roc(result: VerificationResult, folder: Path, name: str) -> Path:
    """Writes a set's ROC figure as PNG and PDF, and all figures as JSON; returns the PNG's path."""
    known = {far: rate for far, rate in result.tar.items() if not math.isnan(rate)}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / f"roc-{name}.json",
        {
            "accuracy": result.accuracy,
            "std": result.std,
            "fold_accuracies": result.fold_accuracies.tolist(),
            "thresholds": [value if math.isfinite(value) else None for value in result.thresholds.tolist()],
            "auc": result.auc,
            "tar_at_far": {f"{far:g}": known.get(far) for far in result.tar},
            "same": result.same,
            "different": result.different,
            "roc": {"far": result.roc.far.tolist(), "tar": result.roc.tar.tolist()},
        },
    )
    heading = f"{name}: accuracy {100 * result.accuracy:.2f} ± {100 * result.std:.2f} %, AUC {result.auc:.4f}"
    figure = plots.roc_figure(
        {name: (result.roc.far.numpy(), result.roc.tar.numpy())}, {name: known}, result.different, heading
    )
    return plots.save_figure(figure, folder / f"roc-{name}.png")
