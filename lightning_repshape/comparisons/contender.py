"""One of the models that are compared: what is kept of it once its features are gone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_repshape.analyses.analysis import Analysis, run_analyses
from lightning_repshape.analyses.headline import scalars_of
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult, Outcome
from lightning_repshape.analyses.samples import some_rows

SHOWN = 2000  # test samples in pictures and in similarities at most


@dataclass(frozen=True)
class TestSamples:
    """Which samples a model was tested on.

    Attributes:
        labels: N class indices.
        names: N names, one a sample; None where none are known.
        content: A hash of the samples themselves; empty where it is not known.
    """

    __test__ = False  # pytest would take it for a test

    labels: Tensor
    names: tuple[str, ...] | None = None
    content: str = ""

    def difference(self, other: "TestSamples") -> str:
        """Why the samples are not those of another model, in the same order; empty if they are."""
        if len(self.labels) != len(other.labels):
            return f"they are {len(self.labels):,} and {len(other.labels):,} samples"
        if not torch.equal(self.labels, other.labels):
            wrong = int((self.labels != other.labels).sum())
            return f"{wrong:,} of {len(self.labels):,} labels differ, row by row"
        if self.content and self.content == other.content:
            return ""
        if self.names is not None and other.names is not None:
            if self.names == other.names:
                return ""
            same = set(self.names) == set(other.names)
            return "the samples are in another order" if same else "the samples have other names"
        if self.content and other.content:
            return "the samples are others, by their hashes"
        return "nothing says that the rows are the same samples"


@dataclass(frozen=True)
class Contender:
    """A model as it is compared.

    Attributes:
        name: Its name.
        layer: The layer whose output was analysed.
        samples: What it was tested on.
        class_names: K names.
        wrong: Whether its own prediction is wrong, N booleans; None where it has none.
        rows: Numbers of at most 2,000 test samples, which pictures and similarities take.
        features: Test features of these, n x D.
        layers: Features of the first of these by layer, where there is a model.
        outcomes: What the analyses found.
        figures: What the test itself measured, by name, such as ``error``.
        cost: Seconds, steps, memory, parameters, as far as they are known.
        about: What it is, in a line.
        run: Its run folder, where it has one.
    """

    name: str
    layer: str
    samples: TestSamples
    class_names: tuple[str, ...]
    wrong: Tensor | None
    rows: Tensor
    features: Tensor
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    outcomes: Sequence[Outcome] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    about: str = ""
    run: Path | None = None

    def scalars(self) -> dict[str, float]:
        """All figures by name: those of the test as ``test/NAME``, those of an analysis as ``ANALYSIS/NAME``."""
        return {f"test/{name}": value for name, value in self.figures.items()} | {
            name: value for name, value in scalars_of(self.outcomes).items() if not name.startswith("test/")
        }

    def content(self, analysis: str) -> dict[str, Any]:
        """What an analysis found beside its scalars; nothing if it did not run or could not."""
        result = self._result(analysis)
        return {} if result is None else result.content

    def arrays(self, analysis: str) -> dict[str, Any]:
        """What an analysis has drawn, as arrays; nothing if it did not run or could not."""
        result = self._result(analysis)
        return {} if result is None else result.arrays

    def _result(self, analysis: str) -> AnalysisResult | None:
        return next((outcome.result for outcome in self.outcomes if outcome.name == analysis), None)


def samples_of(labels: Tensor, names: Sequence[str] | None = None, content: str = "") -> TestSamples:
    """The samples that have a label, of the labels of all, -1 where unknown, and names of all."""
    known = labels >= 0
    kept = None if names is None else tuple(str(one) for one, own in zip(names, known.tolist(), strict=True) if own)
    return TestSamples(labels[known], kept, content)


def contend(
    name: str,
    inputs: AnalysisInputs,
    analyses: Sequence[Analysis],
    names: Sequence[str] | None = None,
    content: str = "",
    **known: Any,
) -> Contender:
    """Analyses a model and keeps what comparing needs of it.

    Args:
        name: Its name.
        inputs: Its features.
        analyses: What to run.
        names: Names of the N test samples.
        content: A hash of them.
        **known: More attributes of :class:`Contender`.

    Raises:
        DataError: If there are no test features.
    """
    test = inputs.labelled("test", classes=1)
    outcomes = run_analyses(analyses, inputs)
    wrong = None if test.logits is None else test.logits.argmax(dim=1) != test.labels
    rows = some_rows(len(test.labels), SHOWN, "comparison", inputs.seed)
    figures = dict(known.pop("figures", {}))
    if wrong is not None and "error" not in figures:
        figures["error"] = float(wrong.double().mean())
    samples = samples_of(inputs.features("test").labels, names, content)
    features = test.features[rows].float()
    return Contender(
        name, inputs.layer, samples, inputs.class_names(), wrong, rows, features,
        outcomes=outcomes, figures=figures, **known,
    )  # fmt: skip
