"""How alike the layers of one model are."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.analysis import Analysis
from lightning_repshape.analyses.inputs import AnalysisInputs, MissingSplitError, Split
from lightning_repshape.analyses.result import AnalysisResult
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.layers import EachLayer, different
from lightning_repshape.functional.similarity import (
    MinibatchCKA,
    SimilarityMatrices,
    similarity_matrices,
    sketched,
    unbiased_gram,
)
from lightning_repshape.layers import evaluating
from lightning_repshape.terminal.progress import task

_LEAST = 4  # samples of a batch
_WIDEST = 4096  # values of a sample that are kept
_FURTHER = {
    "distance": ("Procrustes distance", "Procrustes distance to the one above", math.sqrt(2)),
    "neighbours": ("Nearest neighbours in common", "neighbours in common with it", 1.0),
    "regression": ("Adjusted R², row to column", "R² of a map from it", 1.0),
}


@dataclass(eq=False)
class LayerSimilarity(Analysis):
    """Debiased linear CKA of every layer with every other, from one pass (Kornblith 2019, Nguyen et al. 2021).

    All named activations of this package's modules; of another model all submodules, without those whose values are
    those of another (a container and its last part, dropout, flattening) and those that give no tensor. Samples come in
    random batches, none of which is kept: memory is one batch's activations, and a batch x batch matrix a layer.

    Procrustes distance, common nearest neighbours (ten, by cosine) and adjusted R^2 of a linear map, of all pairs too,
    are of the first ``kept`` of these samples, whose activations are kept: of more than 4,096 values a sample in 4,096
    random directions (inner products to 2 %), at most 16 kB a sample and layer, 8 MB of 500. The linear map needs more
    samples than features, and is left out elsewhere.

    Logged: ``adjacent``, the mean CKA of neighbouring layers, and ``first_last``, of the first and the last layer; with
    ``distance_``, ``neighbours_`` and ``regression_`` before them the same of the other three.

    Args:
        split: Whose samples. Where there is no such set, those of the training set.
        max_samples: How many at most: a random choice, the same for the same seed.
        batch: How many at a time.
        layers: Which layers, by name. Default: all.
        kept: How many samples' activations are kept; 0: CKA alone.
    """

    kind = "similarity"
    title = "Similarity of layers"
    on_request = True
    reads_layer = False

    split: Split = "test"
    max_samples: int = 2000
    batch: int = 250
    layers: list[str] | None = None
    kept: int = 500

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if min(self.max_samples, self.batch) < _LEAST:
            raise ConfigError(f"max_samples and batch must be at least {_LEAST}")
        if self.layers is not None and len(self.layers) < 2:
            raise ConfigError("layers must name two layers or more")
        if self.kept and self.kept < _LEAST:
            raise ConfigError(f"kept is {self.kept}; it must be 0 or at least {_LEAST}")

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """The matrix; DataError without a model, with too few samples, or fewer than two layers that change."""
        model = inputs.module
        if model is None:
            raise DataError("layers are compared with the model at hand, and there are only saved features")
        reader, state = EachLayer(model, self.layers), MinibatchCKA()
        split, notes = self.split, []
        values: dict[str, list[Tensor]] = {}
        try:
            names, widths = self._gather(reader, inputs, split, state, values)
        except MissingSplitError:
            split, notes = "train", [f"there is no {split} set: the training set is looked at"]
            names, widths = self._gather(reader, inputs, split, state, values)
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
        content = {"split": split, "samples": state.samples, "batch": self.batch, "names": names, "cka": matrix}
        shown = {"": ("Debiased linear CKA", matrix, state.samples, 1.0)}
        alike = _alike({name: values[name] for name in names}, widths, notes) if self.kept else None
        if alike is not None:
            count = content["kept"] = sum(map(len, values[names[0]]))
            for key, own in alike._asdict().items():
                text, column, largest = _FURTHER[key]
                content[key], shown[key] = own, (text, own, count, largest)
                if not bool(own.diagonal(1).isnan().any()):
                    scalars[f"{key}_adjacent"] = float(own.diagonal(1).mean())
                if not bool(own[0, -1].isnan()):
                    scalars[f"{key}_first_last"] = float(own[0, -1])
                for row, value in zip(rows, [None, *own.diagonal(1).tolist()], strict=True):
                    row[column] = None if value is None or math.isnan(value) else value

        def drawn(text: str, own: Tensor, count: int, largest: float) -> Callable[[], Any]:
            heading = f"{text}, {count:,} {split} samples{inputs.moment}"
            return lambda: plots.similarity_figure(names, own.numpy(), heading, largest=largest)

        arrays = {key or "cka": own.numpy() for key, (_, own, _, _) in shown.items()}
        figures = {
            key: drawn(*one) for key, one in shown.items() if int(one[1].isnan().sum()) < len(names) * (len(names) - 1)
        }
        return AnalysisResult(scalars, content, {"layers": rows}, figures, tuple(notes), arrays)

    def _gather(
        self,
        reader: EachLayer,
        inputs: AnalysisInputs,
        split: Split,
        state: MinibatchCKA,
        values: dict[str, list[Tensor]],
    ) -> tuple[list[str], dict[str, int]]:
        """Adds all batches to the state, and some values; the layers' names in order, and their widths."""
        names: list[str] = []
        widths: dict[str, int] = {}
        with evaluating(reader.model):
            for x, count in inputs.batches(split, self.max_samples, self.batch):
                if count < _LEAST:
                    continue
                grams: dict[str, Tensor] = {}
                own: dict[str, Tensor] = {}
                left = self.kept - max((sum(map(len, have)) for have in values.values()), default=0)

                def keep(  # of a module that is called several times, the last call counts
                    name: str,
                    value: Tensor,
                    grams: dict[str, Tensor] = grams,
                    own: dict[str, Tensor] = own,
                    left: int = left,
                ) -> None:
                    widths[name] = value.shape[1]
                    try:
                        grams[name] = unbiased_gram(value)
                    except ValueError as error:
                        raise DataError(f"layer {name!r}: {error}; look at the weights and the inputs") from error
                    if left > 0:
                        own[name] = sketched(value[:left].detach().float(), _WIDEST).cpu().clone()

                reader(x, count, keep)
                if not names:
                    names = different(grams) if self.layers is None else [n for n in self.layers if n in grams]
                    reader.keep(names)
                for name in own.keys() & set(names):
                    values.setdefault(name, []).append(own[name])
                if names:
                    state.update([grams[name] for name in names])
        return names, widths


def _alike(values: dict[str, list[Tensor]], widths: dict[str, int], notes: list[str]) -> SimilarityMatrices | None:
    """Procrustes distance, common neighbours and regression of all pairs, as far as the samples tell them."""
    wide = [name for name in values if widths[name] > _WIDEST]
    notes += [f"Procrustes distance, neighbours and regression of {', '.join(wide)} are of their values in {_WIDEST:,} "
              "random directions"] if wide else []  # fmt: skip
    try:
        with task("pairs of layers"):
            found = similarity_matrices([torch.cat(parts) for parts in values.values()])
    except ValueError as error:
        notes.append(f"Procrustes distance, neighbours and regression are left out: {error}")
        return None
    missing = [name for name, row in zip(values, found.regression, strict=True) if bool(row.isnan().any())]
    if missing:
        notes.append(f"regression from {', '.join(missing)} is left out: more samples than features are needed (kept)")
    return found
