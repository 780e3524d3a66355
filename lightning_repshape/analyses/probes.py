"""Probes: how well frozen features serve the simplest classifiers, on the model's own set and on a second one."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis
from lightning_repshape.analyses.checked import with_labels
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.samples import percent, present_classes
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.bootstrap import Share, bootstrap_share
from lightning_repshape.functional.partial_retraining import balanced_subset
from lightning_repshape.functional.probes import cosine_neighbours, linear_probes, vote
from lightning_repshape.seeding import generator
from lightning_repshape.terminal.progress import task

_SETS = {"": "the model's own", "other": "the second"}
_TO_CHOOSE = 1e-5  # nats that the objective may lie above its minimum while penalties are compared
_NAMES = {"knn": "k nearest neighbours", "linear": "linear probe", "joint": "the model itself"}


class _Probed(NamedTuple):
    """What is known of one set: errors on validation by option, the choices, and test errors with their intervals."""

    by_k: dict[int, float]
    by_penalty: dict[float, float]
    k: int
    penalty: float
    errors: dict[str, Share]
    notes: list[str]


@dataclass(eq=False)
class Probes(Analysis):
    """Test errors of k nearest neighbours by cosine and of a linear probe, on frozen features.

    k and the linear probe's penalty are chosen on the validation set (where there is none, on a class-balanced tenth of
    the training set, after which the whole of it is taken); the intervals are a bootstrap's over test samples. With a
    second data set (``--other``), both probes are trained, chosen and tested on its features, too: transfer. Heads on
    few samples are the analysis ``partial_retraining``.

    Logged: ``knn_error``, ``linear_error`` and, of the model's own predictions, ``joint_error``, each with ``_low`` and
    ``_high`` behind it for the ends of its interval; ``k``, ``penalty``; ``other_...``: the same of the second set.

    Args:
        neighbours: Numbers of neighbours to choose from.
        penalties: Penalties of the linear probe to choose from: in front of half the sum of its squared weights, on
            features that are centred and scaled to a mean variance of 1. A penalty p is scikit-learn's C = 1 / (p N).
        level: Of the intervals.
        draws: Bootstrap samples.
    """

    kind = "probes"
    title = "Probes"

    neighbours: list[int] | tuple[int, ...] = (1, 5, 10, 20, 50, 100)
    penalties: list[float] | tuple[float, ...] = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
    level: float = 0.95
    draws: int = 10_000

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        self.neighbours = tuple(sorted(set(self.neighbours)))
        self.penalties = tuple(sorted(set(self.penalties), reverse=True))
        if not self.neighbours or self.neighbours[0] < 1:
            raise ConfigError(f"neighbours: {list(self.neighbours)} must be whole numbers above 0")
        if not self.penalties or not 0 < self.penalties[-1] <= self.penalties[0] < float("inf"):
            raise ConfigError(f"penalties: {list(self.penalties)} must be finite numbers above 0")
        if not 0 < self.level < 1:
            raise ConfigError(f"level is {self.level}; it must lie between 0 and 1")
        if self.draws < 1:
            raise ConfigError(f"draws is {self.draws}; at least 1 is needed")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Trains, chooses and tests; DataError without test samples, or below two classes."""
        found = {"": self._probe(inputs)}
        notes = list(found[""].notes)
        if inputs.other is not None:
            try:
                found["other"] = self._probe(inputs.other, transferred=True)
                notes += [f"the second set: {note}" for note in found["other"].notes]
            except DataError as error:
                notes.append(f"transfer to the second set is left out: {error}")
        scalars: dict[str, float] = {}
        rows: list[dict[str, Any]] = []
        for where, one in found.items():
            before = f"{where}_" if where else ""
            for name, (share, low, high) in one.errors.items():
                scalars |= {
                    f"{before}{name}_error": share,
                    f"{before}{name}_error_low": low,
                    f"{before}{name}_error_high": high,
                }
                chosen = {"knn": f"k = {one.k}", "linear": f"penalty {one.penalty:g}"}.get(name, "")
                rows.append(
                    {
                        "set": _SETS[where],
                        "probe": _NAMES[name],
                        "chosen": chosen,
                        "test error (%)": percent(share),
                        "from": percent(low),
                        "to": percent(high),
                    }
                )
            scalars |= {f"{before}k": float(one.k), f"{before}penalty": one.penalty}
        content = {
            "level": self.level,
            "draws": self.draws,
            **{
                where or "own": {"validation_error_by_k": one.by_k, "validation_error_by_penalty": one.by_penalty}
                for where, one in found.items()
            },
        }
        shown = {_SETS[where]: (one.errors, one.by_k, one.by_penalty) for where, one in found.items()}
        heading = f"probes of {inputs.layer}{inputs.moment}, {100 * self.level:g} % intervals over test samples"

        def draw() -> Any:
            return plots.probes_figure(shown, _NAMES, heading)

        return AnalysisResult(scalars, content, {"test errors": rows}, {"": draw}, tuple(notes))

    def _probe(self, inputs: AnalysisInputs, transferred: bool = False) -> _Probed:
        """Both probes on one set."""
        given, given_test = inputs.labelled("train"), inputs.labelled("test", classes=1)
        train, test, kept, note = present_classes(given, given_test)
        if test is None:
            raise DataError("there is no test set to take errors on")
        notes = [note] if note else []
        val, seen = inputs.optional("val"), None
        if val is not None and int(val.labels.max()) >= 0:
            with suppress(DataError):  # none of its samples is of a class with training samples
                _, seen, _, _ = present_classes(given, with_labels(val))
        fitted = train
        if seen is None:
            fitted, seen, text = _held_out(train, len(kept), inputs.seed)
            notes.append(text)
        with task("probes", 2) as advance:
            predicted, by_k, k = self._neighbours(fitted, seen, train, test, len(kept), inputs.device)
            advance(1)
            linear, by_penalty, penalty = self._linear(fitted, seen, train, test, len(kept), inputs.device)
            advance(1)
        if len(by_penalty) > 1 and penalty in (self.penalties[0], self.penalties[-1]):
            end, way = ("largest", "larger") if penalty == self.penalties[0] else ("smallest", "smaller")
            notes.append(f"the linear probe's penalty {penalty:g} is the {end} tried: {way} ones may do better")
        answers = {"knn": predicted != test.labels, "linear": linear != test.labels}
        if given_test.logits is not None and not transferred:
            answers["joint"] = given_test.logits.argmax(dim=1) != given_test.labels
        stream = generator("probes", inputs.seed)
        errors = {name: bootstrap_share(wrong, self.level, self.draws, stream) for name, wrong in answers.items()}
        return _Probed(by_k, by_penalty, k, penalty, dict(errors), notes)

    def _neighbours(
        self, fitted: Features, seen: Features, train: Features, test: Features, classes: int, device: torch.device
    ) -> tuple[Tensor, dict[int, float], int]:
        """Predictions of the test set, errors on validation, and the number of neighbours that was chosen."""
        counts = [count for count in self.neighbours if count <= len(fitted.labels)] or [1]
        rows = fitted.features.to(device)
        near = cosine_neighbours(rows, seen.features.to(device), counts[-1]).cpu()
        wrong = vote(fitted.labels[near], classes, counts) != seen.labels
        by_k = dict(zip(counts, wrong.double().mean(dim=1).tolist(), strict=True))
        k = min(by_k, key=lambda count: (by_k[count], count))
        rows = rows if fitted is train else train.features.to(device)
        near = cosine_neighbours(rows, test.features.to(device), k).cpu()
        return vote(train.labels[near], classes, [k])[0], by_k, k

    def _linear(
        self, fitted: Features, seen: Features, train: Features, test: Features, classes: int, device: torch.device
    ) -> tuple[Tensor, dict[float, float], float]:
        """The same of the linear probe and its penalty; the choice needs no more than some digits."""
        x, y = fitted.features.to(device), fitted.labels.to(device)
        path = linear_probes(x, y, classes, list(self.penalties), tolerance=_TO_CHOOSE)
        against = seen.features.to(device)
        by_penalty, losses = {}, {}
        for probe in path:
            logits = probe.logits(against).cpu()
            by_penalty[probe.penalty] = float((logits.argmax(dim=1) != seen.labels).double().mean())
            losses[probe.penalty] = float(torch.nn.functional.cross_entropy(logits, seen.labels))
        best = min(path, key=lambda probe: (by_penalty[probe.penalty], losses[probe.penalty]))
        x, y = train.features.to(device), train.labels.to(device)
        best = linear_probes(x, y, classes, [best.penalty], initial=best)[0]
        return best.logits(test.features.to(device)).cpu().argmax(dim=1), by_penalty, best.penalty


def _held_out(train: Features, classes: int, seed: int) -> tuple[Features, Features, str]:
    """The training set without a tenth of it, class-balanced as far as the classes go, that tenth, and a note."""
    size = max(classes, len(train.labels) // 10)
    least = int(torch.bincount(train.labels, minlength=classes).min())
    if least < 2:
        raise DataError(
            "there is no validation set to choose k and the penalty on, and a class with a single training sample "
            "leaves none to hold out; give the data a validation set"
        )
    size = min(size, classes * (least // 2))
    out = torch.zeros(len(train.labels), dtype=torch.bool)
    out[balanced_subset(train.labels, size, classes, generator("probes", "held out", seed))] = True
    parts = [Features(train.features[rows], train.labels[rows], None) for rows in (~out, out)]
    return parts[0], parts[1], f"no validation set: k and the penalty are chosen on {size} of the training samples"
