"""Calibration: whether confidences can be believed, before and after temperature scaling; risk against coverage."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis
from lightning_repshape.analyses.collapse import calibration_error, reliability_bins
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.calibration import fit_temperature, risk_coverage

_LABELS = {
    "ece": "expected calibration error",
    "nll": "cross-entropy (nats)",
    "aurc": "area under risk against coverage",
}
_POINTS = 500  # of the drawn curve of risk


@dataclass(eq=False)
class Calibration(Analysis):
    """How far the model's confidence can be believed on test samples, before and after temperature scaling.

    The temperature (one number, Guo et al. 2017) is fitted on the validation set; without one, it is left out. AURC,
    the area under the curve of risk against coverage (Geifman et al. 2019), says how well confidence sorts right from
    wrong: the error if it does not at all.

    Logged: ``ece``, ``nll``, ``aurc``, and with ``_scaled`` behind them after scaling; ``temperature``, ``error``.

    Args:
        bins: Bins of the confidence.
    """

    kind = "calibration"
    title = "Calibration"

    bins: int = 15

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.bins < 1:
            raise ConfigError(f"bins is {self.bins}; at least 1 is needed")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """All measures; DataError without test samples or logits."""
        test = inputs.labelled("test", classes=1)
        if test.logits is None:
            raise DataError("the model gave no logits: there are no confidences")
        notes: list[str] = []
        versions: dict[str, Tensor] = {"as it is": test.logits}
        scalars = {"error": float((test.logits.argmax(dim=1) != test.labels).double().mean())}
        val = inputs.optional_labelled("val")
        if val is None or val.logits is None:
            notes.append("temperature scaling is left out: there is no validation set with logits and labels")
        else:
            temperature = fit_temperature(val.logits, val.labels)
            scalars["temperature"] = temperature
            versions[f"T = {temperature:.3g}"] = test.logits.double() / temperature
            if not 2e-3 < temperature < 500:
                notes.append("the temperature has come to an end of its range: validation predictions are all right")
        rows: list[dict[str, Any]] = []
        reliability, curves = {}, {}
        for number, (name, logits) in enumerate(versions.items()):
            confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
            risk = risk_coverage(confidence, predicted != test.labels)
            found = {
                "ece": calibration_error(logits, test.labels, self.bins),
                "nll": float(F.cross_entropy(logits.double(), test.labels)),
                "aurc": float(risk.mean()),
            }
            scalars |= {f"{key}{'_scaled' if number else ''}": value for key, value in found.items()}
            rows.append({"logits": name, **{_LABELS[key]: value for key, value in found.items()}})
            reliability[name] = reliability_bins(Features(test.features, test.labels, logits), self.bins)
            step = max(1, len(risk) // _POINTS)
            at = [*range(step - 1, len(risk), step)]
            curves[name] = ([(place + 1) / len(risk) for place in at], risk[at].tolist())
        errors = {name: row[_LABELS["ece"]] for name, row in zip(versions, rows, strict=True)}
        heading = f"{len(test.labels):,} test samples{inputs.moment}"

        def draw() -> Any:
            return plots.calibration_figure(reliability, errors, curves, heading)

        content = {"bins": self.bins, "reliability": reliability}
        return AnalysisResult(scalars, content, {"calibration": rows}, {"": draw}, tuple(notes))
