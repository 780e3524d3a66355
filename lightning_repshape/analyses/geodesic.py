"""The approximate geodesic distance between heads trained on all and on few samples."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from lightning_repshape import plots
from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.analyses.retraining import HeadAnalysis
from lightning_repshape.analyses.samples import present_classes
from lightning_repshape.errors import ConfigError, DivergenceError
from lightning_repshape.functional.geodesic import FisherLengths, fisher_geodesic
from lightning_repshape.functional.partial_retraining import balanced_subset
from lightning_repshape.functional.stacked_heads import feature_scale, init_heads, train_heads
from lightning_repshape.seeding import generator


@dataclass(eq=False)
class FisherGeodesic(HeadAnalysis):
    """Approximate geodesic distance between heads trained on all and on few samples (FOCA, section 4.2, Eq. 14-16).

    Both heads start from the same initial numbers; the line between them is cut into segments whose Fisher lengths are
    measured on a random part of the training set, layer by layer and over all layers.

    Logged: ``layer_1``, ``layer_2``, ... (Eq. 15's total of each layer), ``full`` (all layers at once, with cross
    terms), ``length_full`` (the plain sum of its segments' lengths), ``error_all`` and ``error_few`` (test errors of
    both ends).

    Args:
        few: Samples of the smaller set, class-balanced. Default: 10, or one a class where there are more than ten
            classes.
        segments: P, how many pieces the line is cut into.
        part: The share of the training set that the Fisher matrix is a mean over.
        fisher: ``"empirical"``: over the samples' own labels (the paper's); ``"model"``: over the labels that the head
            itself holds possible.
    """

    kind = "geodesic"
    title = "Approximate geodesic distance"

    few: int | None = None
    segments: int = 15
    part: float = 0.05
    fisher: Literal["empirical", "model"] = "empirical"

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if not 0 < self.part <= 1:
            raise ConfigError(f"part is {self.part}; it must be above 0 and at most 1")
        if self.segments < 1:
            raise ConfigError(f"segments is {self.segments}; at least 1 is needed")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """Trains both heads and measures the line between them; DivergenceError if a head is not finite."""
        given, given_test = inputs.labelled("train"), inputs.optional_labelled("test")
        train, test, kept, note = present_classes(given, given_test)
        notes = [note] if note else []
        classes, count, device = len(kept), len(train.labels), inputs.device
        few = self.few if self.few is not None else max(10, classes)
        chosen = balanced_subset(train.labels, few, classes, generator("geodesic-few", inputs.seed))
        features, labels = train.features.to(device), train.labels.to(device)
        scale = torch.ones(()) if self.feature_norm is None else feature_scale(features, self.feature_norm)
        features = features * scale.to(device)
        initial = init_heads(
            1, (features.shape[1], *self.hidden, classes), init_std=self.init_std, seed=inputs.seed, device=device
        )
        ends = []
        for which, own in (("all", None), (f"{few}", chosen.to(device))):
            solution = train_heads(
                initial,
                features if own is None else features[own],
                labels if own is None else labels[own],
                self.head_recipe(),
                seed=inputs.seed,
            )
            if not bool(solution.losses.isfinite().all()):
                raise DivergenceError(
                    f"the head on {which} samples diverged; lower rate, or leave feature_norm at a number"
                )
            heads = solution.heads
            ends.append([(weight[0], bias[0]) for weight, bias in zip(heads.weights, heads.biases, strict=True)])
        some = max(1, round(self.part * count))
        drawn = torch.randperm(count, generator=generator("geodesic-part", inputs.seed))[:some].sort().values.to(device)
        found = fisher_geodesic(
            features[drawn],
            labels[drawn],
            ends[0],
            ends[1],
            segments=self.segments,
            fisher=self.fisher,
            test_features=None if test is None else test.features.to(device) * scale.to(device),
            test_labels=None if test is None else test.labels.to(device),
        )
        everything: dict[str, FisherLengths] = {**found.layers, "full": found.full}
        scalars = {f"layer_{name}": lengths.total for name, lengths in found.layers.items()}
        scalars |= {"full": found.full.total, "length_full": found.full.length}
        if found.errors is not None:
            scalars |= {"error_all": float(found.errors[0]), "error_few": float(found.errors[-1])}
        else:
            notes.append("there is no test set with labels, hence no error along the line")
        rows = [
            {
                "layer": "all layers at once" if name == "full" else name,
                "distance (Eq. 15)": lengths.total,
                "sum of segment lengths": lengths.length,
            }
            for name, lengths in everything.items()
        ]
        content = {
            "segments": {name: lengths.segments for name, lengths in everything.items()},
            "totals": {name: lengths.total for name, lengths in everything.items()},
            "lengths": {name: lengths.length for name, lengths in everything.items()},
            "errors": found.errors,
            "num_segments": self.segments,
            "samples_all": count,
            "samples_few": few,
            "samples_fisher": some,
            "recipe": {"fisher": self.fisher, **self.recipe(), "seed": inputs.seed},
        }
        lines = {name: lengths.segments.numpy() for name, lengths in everything.items()}
        errors = None if found.errors is None else found.errors.numpy()

        def draw() -> Any:
            return plots.geodesic_figure(lines, errors, count, few)

        return AnalysisResult(scalars, content, {"length of the line by layer": rows}, {"": draw}, tuple(notes))
