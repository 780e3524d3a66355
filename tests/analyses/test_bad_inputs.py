"""Awkward sets: every analysis says what can be said, or in one sentence why nothing can."""

import math
import re
from typing import Any

import pytest
import torch
from analysis_data import FAST, clusters
from torch import Tensor, nn

from lightning_repshape.analyses import ANALYSES, FeatureInputs, ModelInputs
from lightning_repshape.features.passes import Features

QUICK: dict[str, dict[str, Any]] = {
    "partial_retraining": {"sizes": [3], "repeats": [1], **FAST},
    "geodesic": {"few": 3, "segments": 2, "part": 0.5, **FAST},
}
INFINITE = {"train_lda_eigenvalue", "eigenvalue", "eigenvalue_median", "eigenvalue_min"}  # without any spread


def outcomes(inputs: Any) -> dict[str, Any]:
    """What each analysis found, or why it could not; none ends in another library's error, or in a NaN."""
    found = {}
    for kind in ANALYSES:
        if kind.kind == "tsne":  # its own tests are slow enough
            continue
        outcome = kind(**QUICK.get(kind.kind, {})).run(inputs)
        assert not re.match(r"\w+Error: ", outcome.failure), f"{kind.kind}: {outcome.failure}"
        if outcome.result is not None:
            wrong = {name for name, value in outcome.result.scalars.items() if math.isnan(value)}
            wrong |= {name for name, value in outcome.result.scalars.items() if math.isinf(value)} - INFINITE
            assert not wrong, f"{kind.kind}: {wrong}"
        found[kind.kind] = outcome
    return found


def sets(change: Any = lambda part: part, **more: Any) -> FeatureInputs:
    train, test, other = (change(clusters(seed, count)) for seed, count in ((0, 60), (1, 30), (5, 20)))
    more.setdefault("weight", torch.randn(3, train.features.shape[1], generator=torch.Generator().manual_seed(0)))
    return FeatureInputs({"train": train, "test": test}, other={"test": other}, **more)


def test_one_class() -> None:
    def change(part: Features) -> Features:
        return Features(part.features, torch.zeros_like(part.labels), part.logits[:, :1])

    found = outcomes(sets(change, num_classes=1, weight=torch.ones(1, 6)))
    for name in ("lda", "collapse", "geodesic", "partial_retraining"):
        assert "at least 2 classes with samples are needed" in found[name].failure
    for name in ("pca", "dimension", "ood", "characteristics"):
        assert found[name].failure == ""


def test_one_sample_a_class() -> None:
    found = outcomes(sets(lambda part: Features(part.features[:3], part.labels[:3], part.logits[:3])))
    for name in ("lda", "collapse", "dimension", "ood", "pca"):
        assert found[name].failure == ""
    assert "Mahalanobis, one scatter (Lee et al. 2018) is left out" in " ".join(found["ood"].result.notes)
    assert "says nothing of the classes" in " ".join(found["lda"].result.notes)


def test_more_features_than_samples() -> None:
    mixing = torch.randn(6, 200, generator=torch.Generator().manual_seed(0))

    def change(part: Features) -> Features:
        noise = torch.randn(len(part.labels), 200, generator=torch.Generator().manual_seed(1))
        return part._replace(features=part.features @ mixing + 0.1 * noise)

    found = outcomes(sets(change))
    for name in ("lda", "collapse", "dimension", "ood", "pca", "characteristics", "class_vectors"):
        assert found[name].failure == ""
    assert {"auroc_mahalanobis", "auroc_mahalanobis_classwise"} <= set(found["ood"].result.scalars)


def test_rows_that_are_no_numbers() -> None:
    def change(part: Features) -> Features:
        features = part.features.clone()
        features[4, 1] = torch.nan
        return part._replace(features=features)

    for name, outcome in outcomes(sets(change)).items():
        if name not in ("similarity", "corruptions"):  # which need a model
            assert "features of 1 of " in outcome.failure and "hold NaN" in outcome.failure, name
    far = clusters(5, 20)
    given = FeatureInputs({"train": clusters(0), "test": clusters(1)}, other={"test": change(far)})
    assert "1 of 20 samples of the other test set hold NaN" in outcomes(given)["ood"].failure


@pytest.mark.parametrize("logits", [True, False])
def test_a_set_without_labels(logits: bool) -> None:
    def change(part: Features) -> Features:
        return Features(part.features, torch.full_like(part.labels, -1), part.logits if logits else None)

    found = outcomes(sets(change))
    for name in ("lda", "collapse", "geodesic", "partial_retraining"):
        assert found[name].failure == "the train set has no labels, and this is about its classes"
    for name in ("characteristics", "class_vectors", "activation_patterns", "weight_space"):
        assert found[name].failure == "the test set has no labels, and this is about its classes"
    for name in ("pca", "dimension", "ood", "weight_separability"):
        assert found[name].failure == "", name
    assert {"twonn", "mle", "rankme"} <= set(found["dimension"].result.scalars)
    assert "class_distance_variance" not in found["dimension"].result.scalars
    assert "the test set has no labels" in found["pca"].result.notes
    legend = found["pca"].result.figures[""]().legends[0].get_texts()
    assert [text.get_text() for text in legend] == ["unlabelled"]


def test_a_partly_labelled_set() -> None:
    def change(part: Features) -> Features:
        return part._replace(labels=torch.where(torch.arange(len(part.labels)) % 4 == 3, -1, part.labels))

    found = outcomes(sets(change))
    known = outcomes(sets(lambda part: Features(*(one[change(part).labels >= 0] for one in part))))
    for name, outcome in found.items():
        assert outcome.failure == known[name].failure, name
        if outcome.result is not None and name not in ("pca", "ood", "dimension"):
            assert outcome.result.scalars == known[name].result.scalars, name  # as if the others were not there
            assert "have no label, and are left out where one is needed" in " ".join(outcome.result.notes), name
    assert found["dimension"].result.content["samples"] == 60
    assert len(found["pca"].result.arrays["points"]) == 30
    assert found["ood"].result.content["samples"] == 30
    assert "auroc_mahalanobis" in found["ood"].result.scalars and "nc5" in found["ood"].result.scalars
    figure = "class_distance_variance"
    assert found["dimension"].result.scalars[figure] == known["dimension"].result.scalars[figure]


def test_a_test_set_without_labels() -> None:
    test = clusters(1, 30)._replace(labels=torch.full((30,), -1))
    found = outcomes(FeatureInputs({"train": clusters(0, 60), "test": test}))
    for name in ("lda", "collapse", "geodesic"):
        assert found[name].failure == "" and "no test set with labels" in " ".join(found[name].result.notes), name


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Tupled(nn.Module):
    """A layer that returns a tuple, in front of one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.head = Pair(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pair(x)[0])


def test_a_layer_that_returns_a_tuple_and_images_alone() -> None:
    x = clusters().features
    torch.manual_seed(0)
    model = Tupled()
    failed = outcomes(ModelInputs(model, {"train": [(x, torch.arange(120) % 3)]}, "pair"))
    for name in ("lda", "collapse", "pca", "dimension", "class_vectors"):
        assert "layer 'pair' of Tupled returns tuple, not a tensor" in failed[name].failure, name
    alone = outcomes(ModelInputs(model, {"train": [x], "test": [[x[:50]]]}, "head", other={"test": [x.flip(1)]}))
    for name in ("pca", "dimension", "ood"):
        assert alone[name].failure == "", name
    assert "train set has no labels" in alone["lda"].failure
    assert "fewer than two layers" in alone["similarity"].failure and "pair (tuple)" in alone["similarity"].failure
