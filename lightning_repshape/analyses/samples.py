"""What several analyses do with samples: which rows and splits are shown, classes with samples, discriminants."""

import math

import torch
from torch import Tensor

from lightning_repshape.analyses.inputs import AnalysisInputs
from lightning_repshape.errors import DataError, did_you_mean
from lightning_repshape.features.last_layer import weight_matrix
from lightning_repshape.features.passes import Features
from lightning_repshape.functional.discriminant import ClassVsRestLDA, class_vs_rest_lda, lda_from_scatter
from lightning_repshape.functional.scatter import ScatterState
from lightning_repshape.seeding import generator


def some_rows(count: int, most: int, purpose: str, seed: int) -> Tensor:
    """Ascending numbers of rows: all, or ``most`` of them, the same choice for the same purpose and seed."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator("rows", purpose, seed))[:most].sort().values


def class_vs_rest(
    train: Features, classes: int, normalize: bool, device: torch.device
) -> tuple[ScatterState | None, ClassVsRestLDA]:
    """Discriminant analysis of every class against the rest, and the scatter that it was solved on.

    The scatter is None where there are no more samples than features, and the samples themselves were taken. With
    ``normalize`` every feature vector is scaled to unit length first.
    """
    if len(train.labels) <= train.features.shape[1]:  # no D x D matrix where the samples are fewer
        return None, class_vs_rest_lda(train.features.to(device), train.labels.to(device), classes, normalize)
    state = ScatterState(train.features.shape[1], classes, normalize=normalize, device=device)
    state.update(train.features, train.labels)
    return state, lda_from_scatter(state)


def present_classes(train: Features, test: Features | None) -> tuple[Features, Features | None, list[int], str]:
    """Renumbers classes to those that have training samples, for analyses that train heads.

    Returns both sets with labels 0 .. P - 1, the P classes' numbers, and a note on what was left out (empty if nothing
    was). Raises DataError if no test sample is of a class with training samples.
    """
    kept = torch.unique(train.labels)
    if len(kept) == int(kept[-1]) + 1 and (test is None or int(test.labels.max()) < len(kept)):
        return train, test, kept.tolist(), ""
    position = torch.full((int(kept[-1]) + 1,), -1, dtype=torch.int64)
    position[kept] = torch.arange(len(kept))
    train = train._replace(labels=position[train.labels])
    note = f"heads are trained on the {len(kept)} classes that have training samples"
    if test is not None:
        known = torch.isin(test.labels, kept)
        if not bool(known.any()):
            raise DataError("no test sample is of a class that has training samples")
        if not bool(known.all()):
            note += f"; {int((~known).sum())} test samples of other classes are left out"
        logits = test.logits[known] if test.logits is not None else None
        test = Features(test.features[known], position[test.labels[known]], logits)
    return train, test, kept.tolist(), note


def percent(value: float) -> float | None:
    """A fraction as percent for tables; None for NaN."""
    return None if math.isnan(value) else 100 * value


def weight_of(inputs: AnalysisInputs, head: str | None) -> tuple[Tensor, str]:
    """The class vectors K x D, float64, of a head (None: the last linear layer), and the name of their layer.

    Raises DataError if there is no model, or no layer with a matrix of class vectors.
    """
    if head is not None and inputs.module is not None:
        modules = {name: module for name, module in inputs.module.named_modules() if name}
        weight = weight_matrix(modules.get(head))
        if weight is None:
            fitting = [name for name, module in modules.items() if weight_matrix(module) is not None]
            raise DataError(f"there is no submodule {head!r} with a matrix of weights{did_you_mean(head, fitting)}")
        return weight.detach().double().cpu(), head
    vectors = inputs.class_vectors()
    if vectors is None:
        reason = (
            "there is no model and no weight" if inputs.module is None else "the model has no layer with a K x D weight"
        )
        raise DataError(f"{reason}: name the layer with head=, or give features with an array 'weight'")
    return vectors.weight.double(), vectors.name


def class_vectors(inputs: AnalysisInputs, features: Tensor) -> Tensor:
    """The class vectors K x D, float64, of features N x D; DataError if there are none, or of another width."""
    vectors = inputs.class_vectors()
    if vectors is None:
        reason = "there is no model and no weight" if inputs.module is None else "the model has no last linear layer"
        raise DataError(f"{reason} with a row for each of the {inputs.num_classes()} classes")
    weight = vectors.weight.double()
    if weight.shape[1] != features.shape[1]:
        raise DataError(
            f"the class vectors of {vectors.name} have {weight.shape[1]} entries and layer {inputs.layer!r} has "
            f"{features.shape[1]} features: name the layer that enters {vectors.name}, as layer=head.fc2"
        )
    if not bool(weight.isfinite().all()):
        raise DataError(f"the weight of {vectors.name} holds NaN or infinite values")
    return weight
