"""``lightning-repshape compare`` as a person uses it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runs import SMALL

from lightning_repshape.cli import main
from lightning_repshape.features.passes import Features, save_features

HEADS = ["--partial_retraining.updates=5", "--partial_retraining.hidden=[8]"]
HEADS += ["--partial_retraining.sizes=[10,40]", "--partial_retraining.repeats=[2,2]"]
FEW = ["--analyses", "lda,collapse,partial_retraining"]


@pytest.fixture(autouse=True)
def _quick_figures(quick_figures: None) -> None:
    """Figures are not what these tests are about."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    for method in ("plain", "cw-vr"):
        words = ["fit", "--config", "base/digits-mlp", "--config", f"method/{method}", *SMALL]
        assert main([*words, "--trainer.callbacks", "null", "--run_dir", str(folder / method)]) == 0
    return folder


def features(path: Path, ids: bool = True, shift: int = 0) -> str:
    torch.manual_seed(shift)
    labels = torch.arange(60) % 3
    train, test = (Features(torch.randn(60, 4) + labels[:, None], labels, None) for _ in range(2))
    save_features(path, train, test, [f"image {at + shift}" for at in range(60)] if ids else None)
    return str(path)


def error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.replace("\n", " ")


def test_runs_side_by_side(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    words = ["compare", str(runs / "plain"), f"shaped={runs / 'cw-vr'}", *FEW, "--to", "page", "--", *HEADS]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "test error, shaped − plain: " in out and "page: page/index.html" in out
    assert max(map(len, out.splitlines())) <= 80
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before, "runs are read, not written"
    record = json.loads(Path("page/comparison.json").read_text())
    tested = json.loads((runs / "plain/metrics.json").read_text())
    assert record["figures"]["test/error"][0] == pytest.approx(tested["test/error"])
    names = record["layers"]["names"]
    assert names[0].startswith("plain: ") and names[-1].startswith("shaped: ")
    assert {"plain: features", "plain: logits"} < set(names) and not {"plain: fc2", "plain: head.output"} & set(names)
    assert record["models"][0]["cost"]["steps"] > 0


def test_a_checkpoint_and_another_layer(runs: Path) -> None:
    last = runs / "plain/checkpoints/last.ckpt"
    second = ["--transfer", "DigitsDataModule", "--transfer.classes", "[0,1,2]"]
    words = [*second, str(last), f"{runs / 'plain'}@logits", "--analyses", "lda,ood", "--to", "page"]
    assert main(["compare", *words]) == 0
    record = json.loads(Path("page/comparison.json").read_text())
    assert len(record["figures"]["ood/auroc_energy"]) == 2
    assert [(own["name"], own["layer"]) for own in record["models"]] == [("last", "features"), ("logits", "logits")]


def test_files_of_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = features(tmp_path / "one.npz"), features(tmp_path / "two.npz")
    assert main(["compare", one, two, "--analyses", "lda"]) == 0
    assert Path("comparisons/one+two/index.html").is_file()
    first = json.loads(Path("comparisons/one+two/comparison.json").read_text())["figures"]["lda/eigenvalue"]
    assert main(["compare", one, two, "--analyses", "lda", "--to", "other", "--", "--lda.label=2"]) == 0
    assert json.loads(Path("other/comparison.json").read_text())["figures"]["lda/eigenvalue"] != first
    assert main(["compare", one, two, "--analyses", "lda", "--", "--lda.label", "2"]) == 2
    assert "test error" not in capsys.readouterr().out, "there are no predictions"
    assert main(["compare", one, one]) == 2
    assert f"two models are called '{one.removesuffix('.npz')}'; give one a name, as in NAME={one}" in error(capsys)
    far = features(tmp_path / "far.npz", shift=7)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lightning_repshape.cli.compare.of_file", None)  # nothing is analysed
        assert main(["compare", one, two, far]) == 1
    assert "one and far were not tested on the same samples: the samples have other names" in error(capsys)
    assert main(["compare", "--other", far, one, two, "--analyses", "ood,lda", "--to", "far"]) == 0
    assert "ood/auroc_neighbours" in json.loads(Path("far/comparison.json").read_text())["figures"]


def test_files_with_samples_without_a_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = dict(np.load(features(tmp_path / "one.npz")))
    arrays["test_labels"][::4] = -1
    for name in ("one.npz", "two.npz"):
        np.savez(tmp_path / name, **arrays)
    assert main(["compare", str(tmp_path / "one.npz"), str(tmp_path / "two.npz"), "--analyses", "dimension"]) == 0
    assert "dimension/" in capsys.readouterr().out, "what was asked for is printed"
    record = json.loads(next(Path("comparisons").glob("*/comparison.json")).read_text())
    assert record["test_samples"] == 45


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--out", "here"], "--out is of trainings with --methods or of a study, and there are none here; .* --to"),
        (["--budget=0.5"], "--budget is of trainings"),
        (["--jobs", "3"], "--jobs is of trainings"),
        (["--filter", "a"], "--filter is of trainings"),
        (["--data", "MNISTDataModule"], "--data is of trainings with --methods, and"),
        (["--other", "DigitsDataModule"], "--other DigitsDataModule: .* files of features is a file of features"),
        (["--other", "one.npz", "--other.root", "data"], "--other.root is an option of a data module"),
        (["--", "--trainer.accelerator", "cpu"], "--trainer.accelerator: files of features take options of analyses"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = features(tmp_path / "one.npz"), features(tmp_path / "two.npz")
    assert main(["compare", one, two, *words]) == 2
    assert re.search(text, capsys.readouterr().err.replace("\n", " "))
    assert not Path("comparisons").exists()


@pytest.mark.proof
def test_mistakes_end_in_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = str(runs / "plain")
    one, other = features(tmp_path / "one.npz"), features(tmp_path / "other.npz", shift=1)
    bare, bare2 = features(tmp_path / "bare.npz", ids=False), features(tmp_path / "bare2.npz", ids=False)
    torch.save({"state_dict": {}}, tmp_path / "stray.ckpt")
    for words, status, text in (
        ([plain], 2, "two models or more"),
        ([plain, "nowhere"], 2, "no run, checkpoint, file of features or study 'nowhere'"),
        ([plain, str(tmp_path)], 2, "holds no run"),
        ([one, other], 1, "one and other were not tested on the same samples: the samples have other names"),
        ([bare, bare2], 1, "test_ids"),
        ([plain, one], 1, "300 and 60 samples"),
        ([plain, str(tmp_path / "stray.ckpt")], 2, "lies in no run folder"),
        ([plain, plain], 2, "two models are called"),
        ([plain, f"{plain}@fc9"], 2, "has no layer 'fc9'"),
        ([plain, "--methods", "plain"], 2, "no models are named beside it"),
        (["--methods", "plain,nonsense"], 2, "nonsense"),
        (["--methods", "plain", "--data", "MNISTDataModul"], 2, "did you mean 'MNISTDataModule'"),
        (["--methods", "plain"], 2, "two models or more"),
        (["--wrong", plain], 2, "there is no option 'wrong'"),
        (["quickstart", plain], 2, "compared alone"),
        (["quickstart", "--data", "MNISTDataModule"], 2, "--data is of trainings with --methods"),
        (["--methods", "plain", "--data", "MNISTDataModule", "--base", "mnist-mlp"], 2, "give one of the two"),
        ([plain, plain, "--other", "far.npz"], 2, "the second set of runs is a data module"),
    ):
        assert main(["compare", *words, "--analyses", "lda"]) == status, words
        error = capsys.readouterr().err
        assert text in error.replace("\n", " ") and error.startswith("error: "), (words, error)
        assert not Path("comparisons").exists() or not list(Path("comparisons").iterdir()), words
    assert main(["compare", bare, bare2, "--same_samples", "--analyses", "lda"]) == 0


@pytest.mark.proof
@pytest.mark.timeout(240)
def test_methods_are_trained_and_compared() -> None:
    words = ["compare", "--methods", "baseline,cw_vr", "--budget", "0.04", *FEW, "--to", "page", "--", *HEADS]
    assert main(words) == 0
    record = json.loads(Path("page/comparison.json").read_text())
    assert [own["name"] for own in record["models"]] == ["plain", "cw-vr"]
    assert len(list(Path("studies").rglob("seed-0"))) + len(list(Path("studies").rglob("*_seed-0"))) == 2
