"""How alike the layers of one model are."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis
from lightning_repshape.analyses.inputs import AnalysisInputs, MissingSplitError, Split
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.layers import EachLayer
from lightning_repshape.functional.similarity import MinibatchCKA, unbiased_gram
from lightning_repshape.layers import evaluating

_LEAST = 4  # samples of a batch


@dataclass(eq=False)
class LayerSimilarity(Analysis):
    """Debiased linear CKA of every layer with every other, from one pass (Kornblith 2019, Nguyen et al. 2021).

    All named activations of this package's modules; of another model all submodules, without those whose values are
    those of another (a container and its last part, dropout, flattening) and those that give no tensor. Samples come in
    random batches, none of which is kept: memory is one batch's activations, and a batch x batch matrix a layer.

    Logged: ``adjacent``, the mean over neighbouring layers, and ``first_last``, of the first and the last layer.

    Args:
        split: Whose samples. Where there is no such set, those of the training set.
        max_samples: How many at most: a random choice, the same for the same seed.
        batch: How many at a time.
        layers: Which layers, by name. Default: all.
    """

    kind = "similarity"
    title = "Similarity of layers"
    on_request = True
    reads_layer = False

    split: Split = "test"
    max_samples: int = 2000
    batch: int = 250
    layers: list[str] | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if min(self.max_samples, self.batch) < _LEAST:
            raise ConfigError(f"max_samples and batch must be at least {_LEAST}")
        if self.layers is not None and len(self.layers) < 2:
            raise ConfigError("layers must name two layers or more")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """The matrix; DataError without a model, with too few samples, or fewer than two layers that change."""
        model = inputs.module
        if model is None:
            raise DataError("layers are compared with the model at hand, and there are only saved features")
        reader, state = EachLayer(model, self.layers), MinibatchCKA()
        split, notes = self.split, []
        try:
            names, widths = self._gather(reader, inputs, split, state)
        except MissingSplitError:
            split, notes = "train", [f"there is no {split} set: the training set is looked at"]
            names, widths = self._gather(reader, inputs, split, state)
        if not state.samples and not reader.left_out:
            raise DataError(f"at least {_LEAST} samples of the {split} set are needed")
        matrix = state.matrix().cpu() if names else torch.empty(0, 0)
        changing = [at for at in range(len(names)) if not bool(matrix[at, at].isnan())]
        notes += [f"left out, since it never changes: {names[at]}" for at in range(len(names)) if at not in changing]
        notes += [f"left out, since it gives no tensor with a row a sample: {name} ({what})"
                  for name, what in list(reader.left_out.items())[:5]]  # fmt: skip
        notes += [f"and {len(reader.left_out) - 5} more"] if len(reader.left_out) > 5 else []
        names, matrix = [names[at] for at in changing], matrix[changing][:, changing]
        if len(names) < 2:
            raise DataError(f"fewer than two layers can be compared; {'; '.join(notes) or 'the model has one'}")
        adjacent = matrix.diagonal(1)
        scalars = {"adjacent": float(adjacent.mean()), "first_last": float(matrix[0, -1])}
        before = [None, *adjacent.tolist()]
        rows = [
            {"layer": name, "width": widths[name], "CKA with the one above": above, f"with {names[-1]}": last}
            for name, above, last in zip(names, before, matrix[:, -1].tolist(), strict=True)
        ]
        values = matrix.numpy()
        heading = f"Debiased linear CKA, {state.samples:,} {split} samples{inputs.moment}"

        def draw() -> Any:
            return plots.similarity_figure(names, values, heading)

        content = {"split": split, "samples": state.samples, "batch": self.batch, "names": names, "cka": matrix}
        return AnalysisResult(scalars, content, {"layers": rows}, {"": draw}, tuple(notes), {"cka": values})

    def _gather(
        self, reader: EachLayer, inputs: AnalysisInputs, split: Split, state: MinibatchCKA
    ) -> tuple[list[str], dict[str, int]]:
        """Adds all batches to the state; the layers' names in order, and their widths."""
        names: list[str] = []
        widths: dict[str, int] = {}
        with evaluating(reader.model):
            for x, count in inputs.batches(split, self.max_samples, self.batch):
                if count < _LEAST:
                    continue
                grams: dict[str, Tensor] = {}

                def keep(name: str, value: Tensor, grams: dict[str, Tensor] = grams) -> None:
                    widths[name] = value.shape[1]
                    try:
                        grams[name] = unbiased_gram(value)
                    except ValueError as error:
                        raise DataError(f"layer {name!r}: {error}; look at the weights and the inputs") from error

                reader(x, count, keep)
                if not names:
                    names = _different(grams) if self.layers is None else [n for n in self.layers if n in grams]
                    reader.keep(names)
                if names:
                    state.update([grams[name] for name in names])
        return names, widths


def _different(grams: dict[str, Tensor]) -> list[str]:
    """Names of the layers whose values are not another's; of equal ones ``features``, the outermost, else the first."""
    kept: dict[str, Tensor] = {}
    for name in sorted(grams, key=lambda one: (one != "features", one.count("."))):
        if not any(torch.equal(grams[name], other) for other in kept.values()):
            kept[name] = grams[name]
    return [name for name in grams if name in kept]
