"""The few figures that matter, in words: for the top of pages and for terminals, of one model and of several."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lightning_repshape.terminal.printing import figure_text

if TYPE_CHECKING:
    from lightning_repshape.analyses.result import Outcome


class Headline(NamedTuple):
    """A figure that stands at the top."""

    name: str  #: as ``ANALYSIS/FIGURE``, or ``test/FIGURE`` of the test itself
    label: str
    value: float
    meaning: str  #: a sentence
    source: str  #: the paper's reference; empty where it has none
    better: str = "lower"  #: or "higher"; empty where neither is

    @property
    def text(self) -> str:
        """The value with its unit."""
        return figure_text(self.name, self.value)


_FOCA = "Sato et al., ICML 2019"
_CHOI = "Choi and Rhee, AAAI 2019"
_KNOWN = {
    "test/error": ("test error", "How often the model's own prediction is wrong on test images.", "", "lower"),
    "collapse/test_classwise_variance": (
        "class-wise variance",
        "Mean variance of a unit within a class, each unit scaled to a range of 10: 0 where every class is a point.",
        _CHOI,
        "lower",
    ),
    "collapse/train_lda_eigenvalue": (
        "LDA eigenvalue",
        "How far a class lies from the rest, over how wide both are: the larger, the easier to tell (median).",
        _FOCA,
        "higher",
    ),
    "probes/linear_error": (
        "linear probe",
        "Test error of logistic regression on the frozen features: how much a linear map finds in them.",
        "Alain and Bengio, ICLR 2017",
        "lower",
    ),
    "probes/knn_error": (
        "nearest neighbours",
        "Test error of k nearest neighbours by cosine: low where samples of a class lie together.",
        "",
        "lower",
    ),
    "probes/other_linear_error": (
        "linear probe, second set",
        "Test error of logistic regression on the features that the model gives of the second set: what transfers.",
        "",
        "lower",
    ),
    "geodesic/full": (
        "distance of heads",
        "Fisher length between a head trained on few images and one trained on all: 0 where few images say it all.",
        _FOCA,
        "lower",
    ),
    "weight_separability/unit": (
        "e(W) of unit vectors",
        "How nearly orthogonal the last layer's class vectors are: 0 where they all are.",
        "Yu and Oh",
        "lower",
    ),
    "ood/auroc_neighbours": (
        "second set told apart",
        "The chance that an own test image lies nearer to training images than one of the second set: 100 % at best.",
        "Sun et al., ICML 2022",
        "higher",
    ),
}
_SECOND_SET = ("probes/other_linear_error", "ood/auroc_neighbours")
_MOST_ASKED = 10  # figures where analyses were asked for
_ERRORS = ("partial_retraining/joint_error", "class_vectors/error")  # the model's own on test images
_RETRAINED = re.compile(r"partial_retraining/error_(\d+)")


def headlines(scalars: Mapping[str, float], classes: int, most: int = 5, asked: Sequence[str] = ()) -> list[Headline]:
    """The figures that matter most, in order, as far as they are known; those of a second set are always among them.

    Args:
        scalars: Figures by name: ``test/NAME`` of the test, ``ANALYSIS/NAME`` of the analyses.
        classes: K, for images a class.
        most: How many at most, without those of a second set.
        asked: Names of analyses that were asked for. Of those without a figure that matters the first ones follow, ten
            figures in all.
    """
    found = dict.fromkeys(n for n in ("test/error", *_retrained(scalars, classes), *_KNOWN) if n in scalars)
    names = [name for name in found if name not in _SECOND_SET][:most] + [name for name in found if name in _SECOND_SET]
    lines = [_headline(name, scalars[name], classes) for name in names]
    known = {name.partition("/")[0] for name in names}
    further = [[n for n in scalars if n.startswith(f"{own}/")] for own in asked if own not in known]
    each = (_MOST_ASKED - len(lines)) // max(len(further), 1)
    return lines + [
        Headline(n, n.replace("_", " "), scalars[n], "", "", "") for own in further for n in own[: max(each, 1)]
    ]


def scalars_of(outcomes: "Iterable[Outcome]") -> dict[str, float]:
    """Figures of analyses by name, with the model's own error on test images as ``test/error`` where one has it."""
    found = {
        f"{outcome.name}/{name}": value
        for outcome in outcomes
        if outcome.result is not None
        for name, value in outcome.result.scalars.items()
    }
    own = next((found[name] for name in _ERRORS if name in found), None)
    return found if own is None else {"test/error": own, **found}


def _retrained(scalars: Mapping[str, float], classes: int) -> list[str]:
    """Errors of heads trained on the fewest images, and on about ten a class."""
    sizes = sorted(int(match[1]) for name in scalars if (match := _RETRAINED.fullmatch(name)))
    if not sizes:
        return []
    ten = min(sizes, key=lambda size: abs(math.log(size / (10 * max(classes, 1)))))
    return [f"partial_retraining/error_{size}" for size in dict.fromkeys((sizes[0], ten))]


def _headline(name: str, value: float, classes: int) -> Headline:
    retrained = _RETRAINED.fullmatch(name)
    if retrained is None:
        label, meaning, source, better = _KNOWN[name]
        return Headline(name, label, value, meaning, source, better)
    size = int(retrained[1])
    each, count = (" a class", size // classes) if classes and size % classes == 0 else ("", size)
    return Headline(
        name,
        f"heads on {count:,} {'image' if count == 1 else 'images'}{each}",
        value,
        f"Test error of fresh heads that saw {size:,} images of the frozen features: low where few images say it all.",
        _FOCA,
    )
