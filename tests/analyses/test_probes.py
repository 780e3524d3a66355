"""Probes of features: choices on validation, intervals, transfer, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from analysis_data import clusters
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from lightning_repshape import FeatureInputs, Probes
from lightning_repshape.cli import main
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.passes import Features

SPREAD = 1.6


def parts() -> dict[str, Features]:
    return {
        "train": clusters(0, 300, spread=SPREAD),
        "val": clusters(1, 150, spread=SPREAD),
        "test": clusters(2, 200, spread=SPREAD),
    }


def test_choices_and_errors_are_scikit_learns() -> None:
    given = parts()
    train, val, test = given.values()
    done = Probes(neighbours=[1, 7, 15], penalties=[1.0, 1e-2, 1e-4]).compute(FeatureInputs(given))
    by_k = {
        k: 1 - KNeighborsClassifier(k, metric="cosine", algorithm="brute")
        .fit(train.features, train.labels).score(val.features, val.labels)
        for k in (1, 7, 15)
    }  # fmt: skip
    assert done.content["own"]["validation_error_by_k"] == pytest.approx(by_k)
    assert done.scalars["k"] == min(by_k, key=by_k.get)
    penalty = done.scalars["penalty"]
    x = train.features.double()
    mean, scale = x.mean(dim=0), x.var(dim=0, unbiased=False).mean().sqrt()
    peer = LogisticRegression(C=1 / (penalty * 300), tol=1e-9, max_iter=10_000).fit((x - mean) / scale, train.labels)
    error = 1 - peer.score((test.features.double() - mean) / scale, test.labels)
    assert done.scalars["linear_error"] == pytest.approx(error, abs=0.006)
    for name in ("knn", "linear", "joint"):
        low, middle, high = (done.scalars[f"{name}_error{end}"] for end in ("_low", "", "_high"))
        assert low < middle < high < low + 0.2
    assert done.scalars["joint_error"] == pytest.approx(
        float((test.logits.argmax(dim=1) != test.labels).double().mean())
    )
    assert done.figures[""]() is not None
    assert done.notes == ("the linear probe's penalty 1 is the largest tried: larger ones may do better",)
    assert not Probes(neighbours=[1], penalties=[penalty]).compute(FeatureInputs(given)).notes


def test_without_validation_a_tenth_is_held_out() -> None:
    given = parts()
    del given["val"]
    done = Probes().compute(FeatureInputs(given))
    assert any("chosen on 30 of the training samples" in note for note in done.notes)
    again = Probes().compute(FeatureInputs(given))
    assert done.scalars == again.scalars  # bit for bit, the choice and the intervals too


def test_transfer_to_a_second_set() -> None:
    far = {"train": clusters(5, 200, classes=5), "test": clusters(6, 100, classes=5)}
    done = Probes().compute(FeatureInputs(parts(), other=far))
    assert done.scalars["other_linear_error"] < 0.2 and "other_joint_error" not in done.scalars
    assert "other_knn_error_high" in done.scalars and done.figures[""]() is not None
    unlabelled = {"test": far["test"]._replace(labels=torch.full((100,), -1))}
    done = Probes().compute(FeatureInputs(parts(), other=unlabelled))
    assert any("transfer to the second set is left out" in note for note in done.notes)
    assert "linear_error" in done.scalars


@pytest.mark.parametrize("trouble", ["one class", "one a class", "no test", "NaN", "wide"])
def test_what_the_data_do_not_allow(trouble: str) -> None:
    given = parts()
    if trouble == "one class":
        given = {name: part._replace(labels=torch.zeros_like(part.labels), logits=None) for name, part in given.items()}
    elif trouble == "one a class":
        del given["val"]
        given["train"] = Features(given["train"].features[:3], torch.arange(3), None)
    elif trouble == "no test":
        del given["test"]
    elif trouble == "NaN":
        given["val"].features[3, 1] = torch.nan
    else:  # more features than samples
        wide = torch.randn(6, 400, generator=torch.Generator().manual_seed(0))
        given = {name: Features((part.features @ wide)[:45], part.labels[:45], None) for name, part in given.items()}
    done = Probes().run(FeatureInputs(given))
    wanted = {
        "one class": "at least 2 classes",
        "one a class": "a single training sample",
        "no test": "no features of the test set",
        "NaN": "1 of 150 samples of the val set hold NaN",
        "wide": "",
    }[trouble]
    assert wanted in done.failure and bool(done.failure) == bool(wanted)


def test_classes_without_training_samples_are_left_out() -> None:
    given = parts()
    kept = given["train"].labels != 1
    given["train"] = Features(given["train"].features[kept], given["train"].labels[kept], None)
    done = Probes().compute(FeatureInputs(given, num_classes=3))
    assert any("2 classes that have training samples" in note for note in done.notes)


@pytest.mark.parametrize(
    "options", [{"neighbours": [0]}, {"neighbours": []}, {"penalties": [0.0]}, {"level": 1.0}, {"draws": 0}]
)
def test_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Probes(**options)  # type: ignore[arg-type]


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["analyze", "--config", "quickstart", "--ckpt_path", "none", "--trainer.enable_progress_bar", "false"]
    words += ["--analyses", "probes", "--probes.neighbours", "[1,5]", "--run_dir", "found"]
    assert main([*words, "--other", "DigitsDataModule", "--other.classes", "[0,1,2]"]) == 0
    found = json.loads((tmp_path / "found" / "analysis" / "probes.json").read_text())["scalars"]
    assert found["linear_error"] < 0.2 and found["other_linear_error"] < 0.05
