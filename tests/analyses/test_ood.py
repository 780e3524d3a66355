"""Telling a second set from the model's own: as a plain call, in a trainer, from files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from analysis_data import QUIET, clusters, digits, module
from lightning.pytorch import Trainer

from lightning_repshape.analyses import ANALYSES, FeatureInputs, OutOfDistribution
from lightning_repshape.cli import main
from lightning_repshape.data import DigitsDataModule
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.passes import Features, save_features
from lightning_repshape.functional import class_orthogonality, detection, energy_score, neco_score, neighbour_score

SCORES = ("softmax", "logit", "energy", "mahalanobis", "mahalanobis_classwise", "neighbours", "vim", "neco")


def others(count: int = 40) -> Features:
    """Samples of no class, with the logits of the classes' layer."""
    features = torch.randn(count, 6, generator=torch.Generator().manual_seed(5)).abs() * 2
    return Features(features, torch.full((count,), -1), features @ weight().T)


def weight() -> torch.Tensor:
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(99)).relu() * 2 + 0.5


def inputs(train: Features | None = None, other: Features | None = None, **more: torch.Tensor) -> FeatureInputs:
    given = {"train": clusters(0) if train is None else train, "test": clusters(1, 60)}
    return FeatureInputs(given, other={"test": others() if other is None else other}, **more)


def test_all_scores_are_the_functions_own() -> None:
    found = OutOfDistribution(neighbours=5).compute(inputs(weight=weight()))
    assert {f"auroc_{name}" for name in SCORES} | {f"fpr95_{name}" for name in SCORES} | {"nc5"} == set(found.scalars)
    train, test, far = clusters(0), clusters(1, 60), others()
    wanted = {
        "energy": (energy_score(test.logits), energy_score(far.logits)),
        "neighbours": tuple(neighbour_score(part.features, train.features, 5) for part in (test, far)),
        "neco": tuple(neco_score(part.features, train.features, 2) for part in (test, far)),
    }
    for name, pair in wanted.items():
        assert (found.scalars[f"auroc_{name}"], found.scalars[f"fpr95_{name}"]) == pytest.approx(detection(*pair)), name
        assert found.arrays[f"own_{name}"] == pytest.approx(pair[0].numpy(), rel=1e-5)
    assert found.scalars["nc5"] == class_orthogonality(train.features, train.labels, 3, far.features)
    assert found.scalars["auroc_mahalanobis"] > 0.9 and len(found.tables["scores"]) == 8
    figure = found.figures[""]()
    assert [axes.get_title(loc="left")[:6] for axes in figure.axes][-1] == "ROC cu" and len(figure.axes) == 9
    few = OutOfDistribution(max_samples=50).compute(inputs())
    assert any("50 of 120" in note for note in few.notes)


def test_what_is_not_known_is_left_out() -> None:
    bare = clusters(0)._replace(labels=torch.full((120,), -1))
    found = OutOfDistribution().compute(inputs(bare, others()._replace(logits=None)))
    assert set(found.scalars) == {"auroc_neighbours", "fpr95_neighbours", "auroc_neco", "fpr95_neco"}
    text = " ".join(found.notes)
    for words in ("there are no logits", "Mahalanobis is left out", "ViM is left out: there is no last", "NC5 is left"):
        assert words in text
    alone = FeatureInputs({"train": clusters(0)}, other={"train": others()})
    notes = " ".join(OutOfDistribution().compute(alone).notes)
    assert "there is no test set" in notes and "the second set has no test samples" in notes


def test_what_cannot_be_told() -> None:
    assert "give a second set" in OutOfDistribution().run(FeatureInputs({"train": clusters(0)})).failure
    far = others()
    narrow = far._replace(features=far.features[:, :4])
    assert "has 4 features a sample and the model's own 6" in OutOfDistribution().run(inputs(other=narrow)).failure
    for option in ("neighbours", "max_samples", "neco_dimension"):
        with pytest.raises(ConfigError, match=option):
            OutOfDistribution(**{option: 0})


def test_in_a_trainer() -> None:
    data, other = digits(), DigitsDataModule(classes=[0, 1])
    analysis = OutOfDistribution(other=other, neighbours=5)
    Trainer(callbacks=[analysis], **QUIET).test(module(data), datamodule=data, verbose=False)
    assert analysis.outcome is not None and analysis.outcome.result is not None, analysis.outcome
    assert analysis.outcome.result.content["other_samples"] == len(other.labels("test"))
    assert {f"auroc_{name}" for name in SCORES} <= set(analysis.outcome.result.scalars)


def test_two_files_of_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_features("own.npz", clusters(0), clusters(1, 60))
    np.savez("far.npz", features=others().features.numpy(), logits=others().logits.numpy())
    words = ["analyze", "--features", "own.npz", "--run_dir", "found"]
    assert main([*words, "--other", "far.npz", "--analyses", "ood"]) == 0
    record = json.loads(Path("found/analysis/ood.json").read_text())
    assert record["scalars"]["auroc_energy"] > 0 and record["other_samples"] == 40
    np.savez("test.npz", test_features=others().features.numpy())
    assert main([*words, "--transfer=test.npz", "--analyses", "ood"]) == 0
    assert json.loads(Path("found/analysis/ood.json").read_text())["other_split"] == "test"
    np.savez("none.npz", labels=others().labels.numpy())
    capsys.readouterr()
    assert main([*words, "--other", "none.npz"]) == 1
    assert "no array 'features'" in capsys.readouterr().err
    assert main([*words, "--analyses", "ood"]) == 1
    assert "give a second set" in capsys.readouterr().err
    from lightning_repshape.cli.analyze import chosen_analyses

    assert chosen_analyses("all") == list(ANALYSES)
    assert OutOfDistribution in chosen_analyses(None, other=True) and OutOfDistribution not in chosen_analyses(None)
