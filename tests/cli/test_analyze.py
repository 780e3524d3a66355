"""``lightning-repshape analyze`` as a person uses it."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runs import QUIET
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_repshape.callbacks import Analysis, AnalysisInputs, AnalysisResult
from lightning_repshape.cli import main
from lightning_repshape.features.passes import Features, save_features

QUICK = ["--geodesic.updates", "5", "--geodesic.hidden", "[8]", "--geodesic.segments", "3"]
QUICK += ["--partial_retraining.updates", "5", "--partial_retraining.hidden", "[8]"]
QUICK += ["--partial_retraining.sizes", "[10,40]", "--partial_retraining.repeats", "[2,2]"]
NAMES = ("lda", "pca", "collapse", "weight_separability", "class_vectors", "characteristics", "geodesic")
NAMES = (*NAMES, "partial_retraining", "dimension", "probes", "calibration")


@pytest.fixture(autouse=True)
def _quick_figures(quick_figures: None) -> None:
    """Figures are not what these tests are about."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose config has one analysis of its own."""
    folder = tmp_path_factory.mktemp("analyze") / "run"
    config = folder.parent / "with-lda.yaml"
    config.write_text(
        "trainer:\n  callbacks:\n    - class_path: LDAEigenvalues\n      init_args: {label: 3}\nthen_test: true\n"
    )
    words = ["fit", "--config", "quickstart", "--config", str(config), "--trainer.max_epochs", "2", *QUIET]
    assert main([*words, "--run_dir", str(folder)]) == 0
    return folder


def scalars(folder: Path, name: str) -> dict[str, float]:
    return json.loads((folder / "analysis" / f"{name}.json").read_text())["scalars"]


def test_a_run_gets_all_analyses_and_a_page(
    trained: Path, real_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_run = scalars(trained, "lda")
    weights = (trained / "checkpoints/best.ckpt").read_bytes()
    assert main(["analyze", "--run_dir", str(trained), *QUIET, *QUICK]) == 0
    out = capsys.readouterr().out
    assert f"page: {trained}/analysis/index.html" in out
    assert (trained / "checkpoints/best.ckpt").read_bytes() == weights
    for name in NAMES:
        assert scalars(trained, name)
        assert (trained / "analysis" / f"{name}.png").is_file()
        assert (trained / "analysis" / f"{name}.pdf").is_file()
    assert scalars(trained, "lda") == in_the_run  # the run's own options, and the same numbers by either way
    assert json.loads((trained / "analysis/lda.json").read_text())["label"] == 3
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["test/lda/eigenvalue"] == pytest.approx(in_the_run["eigenvalue"], rel=1e-6)
    assert metrics["test/partial_retraining/joint_error"] == pytest.approx(metrics["test/error"])
    page = (trained / "analysis/index.html").read_text()
    figures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(figures) == 14 and page.count('<div class="card">') == 5  # the cosines of the class vectors once
    assert all(base64.b64decode(figure).startswith(b"\x89PNG") for figure in figures)
    assert not re.search(
        "https?:", re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
    )  # nothing is loaded from elsewhere
    assert "e(W) as they are" in page and "DigitsDataModule" in page


def test_some_analyses_of_a_config_and_a_checkpoint(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", "--config", "quickstart", "--ckpt_path", str(trained / "checkpoints/last.ckpt"), *QUIET]
    assert (
        main(
            [
                *words,
                "--run_dir",
                "mine",
                "--analyses",
                "lda,weight_separability",
                "--layer",
                "logits",
                "--lda.label",
                "2",
            ]
        )
        == 0
    )
    # another layer than usual has a folder of its own, and overwrites nothing
    assert not [*Path("mine/analysis").glob("lda.*"), *Path("mine/analysis").glob("index.html")]
    folder = Path("mine/analysis/logits")
    assert sorted(path.name for path in folder.glob("*.json")) == ["lda.json", "weight_separability.json"]
    assert "page: mine/analysis/logits/index.html" in capsys.readouterr().out
    saved = json.loads((folder / "lda.json").read_text())
    assert saved["layer"] == "logits" and saved["label"] == 2 and saved["num_features"] == 10


def test_one_that_fails_leaves_the_others(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", "--run_dir", str(trained), *QUIET, "--analyses", "[weight_separability,partial_retraining]"]
    assert main([*words, "--partial_retraining.sizes", "[5]", "--partial_retraining.repeats", "[1]"]) == 0
    captured = capsys.readouterr()
    assert (
        "analysis partial_retraining: a class-balanced subset of 10 classes needs n' >= 10 samples, got 5"
        in captured.err
    )
    assert "not possible: partial_retraining" in captured.out
    assert "Not possible with these data" in (trained / "analysis/index.html").read_text()
    assert main([*words[:5], *QUIET, "--analyses", "lda", "--layer", "featurs"]) == 2
    assert "lda: SupervisedModule has no layer 'featurs'; did you mean 'features'?" in capsys.readouterr().err


def test_mistakes_end_in_one_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def message(*words: str) -> str:
        assert main(["analyze", *words]) in (1, 2)
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return err.splitlines()[-1]

    assert "there is no analysis 'ldaa'; did you mean 'lda'" in message("--run_dir", str(trained), "--analyses", "ldaa")
    assert "analyze needs trained weights" in message("--config", "quickstart")
    assert "no option 'lda.lable'" in message("--run_dir", str(trained), "--lda.lable", "2")
    assert "lda.label" in message("--run_dir", str(trained), "--lda.label", "one")
    assert "does not exist" in message("--run_dir", str(trained), "--ckpt_path", "nothing.ckpt")
    assert "there is no file" in message("--features", "nothing.npz")
    Path("wrong.npz").write_text("no archive")
    assert "cannot be read as an .npz file" in message("--features", "wrong.npz")
    Path("features.csv").write_text("1,2")
    assert ".npz or .safetensors" in message("--features", "features.csv")
    np.savez("labels.npz", features=np.zeros((4, 2)), lables=np.zeros(4, dtype=int))
    assert "no array 'labels' of numbers; did you mean 'lables'" in message("--features", "labels.npz")
    np.savez("float.npz", features=np.zeros((4, 2)), labels=np.zeros(4))
    assert "labels must be one integer a sample, not torch.float64" in message("--features", "float.npz")
    np.savez("shape.npz", features=np.zeros((4, 2)), labels=np.zeros(5, dtype=int))
    assert "the shapes are (4, 2) and (5,)" in message("--features", "shape.npz")
    good = {"features": np.random.rand(6, 2), "labels": np.arange(6) % 2}
    np.savez("weight.npz", **good, weight=np.zeros(2))
    assert "weight must be K x D floating-point numbers, not torch.float64 of shape (2,)" in message(
        "--features", "weight.npz"
    )
    np.savez("bias.npz", **good, weight=np.zeros((2, 2)), bias=np.zeros(2, dtype=int))
    assert "bias must be K floating-point numbers, not torch.int64" in message("--features", "bias.npz")
    np.savez("pickle.npz", features=np.array([None, 1]), labels=np.zeros(2, dtype=int))
    assert "cannot be read" in message("--features", "pickle.npz")
    np.savez("one.npz", features=np.random.rand(6, 2), labels=np.zeros(6, dtype=int))
    assert "none of the analyses was possible; lda: at least 2 classes" in message(
        "--features", "one.npz", "--analyses", "lda"
    )
    assert "--device nowhere" in message("--features", "one.npz", "--device", "nowhere")


def saved(path: str) -> tuple[Features, Features]:
    stream = torch.Generator().manual_seed(0)
    parts = []
    for count in (80, 50):
        labels = torch.arange(count) % 4
        features = torch.eye(4, 7)[labels] * 2 + torch.randn(count, 7, generator=stream)
        parts.append(Features(features, labels, features[:, :4]))
    save_features(path, parts[0], parts[1])
    return parts[0], parts[1]


def test_saved_features_need_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    saved("backbone.npz")
    assert main(["analyze", "--features", "backbone.npz", *QUICK, "--class_names", "[ant,bee,cow,dog]"]) == 0
    folder = Path("runs/backbone+analyze/analysis")
    out = capsys.readouterr().out
    assert f"page: {folder}/index.html" in out
    assert "LDA eigenvalue" in out and len(out.splitlines()) < 14
    assert json.loads((folder / "manifest.json").read_text())["shapes"]["test_features"] == [50, 7]
    assert json.loads((folder / "lda.json").read_text())["class"] == "bee"
    failure = json.loads((folder / "weight_separability.json").read_text())["failure"]
    assert "there is no model and no weight" in failure
    first = (folder / "geodesic.json").read_text()
    assert main(["analyze", "--features", "backbone.npz", *QUICK, "--analyses", "geodesic", "--run_dir", "again"]) == 0
    assert Path("again/analysis/geodesic.json").read_text() == first


def test_safetensors_if_they_are_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("some.safetensors").write_bytes(b"nonsense")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "safetensors", None)
        patched.setitem(sys.modules, "safetensors.torch", None)
        assert main(["analyze", "--features", "some.safetensors"]) == 2
        assert "pip install safetensors" in capsys.readouterr().err
    torch_format = pytest.importorskip("safetensors.torch")
    assert main(["analyze", "--features", "some.safetensors"]) == 1
    train, _ = saved("same.npz")
    torch_format.save_file({"features": train.features, "labels": train.labels}, "some.safetensors")
    assert main(["analyze", "--features", "some.safetensors", "--analyses", "lda", "--run_dir", "one"]) == 0
    assert main(["analyze", "--features", "same.npz", "--analyses", "lda", "--run_dir", "two"]) == 0
    assert scalars(Path("one"), "lda")["eigenvalue"] == scalars(Path("two"), "lda")["eigenvalue"]


class Pictures(Dataset[dict[str, Tensor]]):
    """Twelve numbers and a label, in a dictionary."""

    def __init__(self, count: int) -> None:
        self.labels = torch.arange(count) % 3
        self.values = torch.randn(count, 12, generator=torch.Generator().manual_seed(count)) + self.labels[:, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.values[index], "label": self.labels[index]}


class TheirData(LightningDataModule):
    """A data module that knows nothing of ours."""

    def setup(self, stage: str) -> None:
        self.sets = {stage: Pictures(48 if stage == "fit" else 30), **getattr(self, "sets", {})}

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.sets["fit"], batch_size=16, shuffle=True)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.sets["test"], batch_size=16)


class TheirModule(LightningModule):
    """A module that knows nothing of ours: no test step, an argument of its own called num_classes."""

    def __init__(self, num_classes: int = 3, width: int = 9) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(12, width), nn.ReLU())
        self.readout = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.encoder(x))


def test_a_foreign_module_by_its_import_path(capsys: pytest.CaptureFixture[str]) -> None:
    here = TheirModule.__module__
    words = ["analyze", "--model.class_path", f"{here}.TheirModule", "--data", f"{here}.TheirData", *QUIET]
    words += ["--layer", "encoder", "--unpack", "image,label", "--analyses", "lda,collapse"]
    untrained = ["--ckpt_path", "none", "--run_dir", "untrained", "--model.width", "5"]
    assert main([*words, *untrained]) == 0, capsys.readouterr().err
    assert json.loads(Path("untrained/analysis/encoder/lda.json").read_text())["num_features"] == 5
    assert 0 <= scalars(Path("untrained"), "encoder/collapse")["test_accuracy"] <= 1
    torch.manual_seed(5)
    module = TheirModule(width=5)
    checkpoint = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "pytorch-lightning_version": "2.6.0",
    }
    torch.save(checkpoint, "their.ckpt")
    assert main([*words, "--ckpt_path", "their.ckpt", "--run_dir", "trained"]) == 0, capsys.readouterr().err
    assert scalars(Path("trained"), "encoder/lda") != scalars(Path("untrained"), "encoder/lda")
    width = json.loads(Path("trained/analysis/encoder/lda.json").read_text())["num_features"]
    assert width == 5  # the checkpoint's own


class TheirAnalysis(Analysis):
    """An analysis that a user wrote."""

    kind = "theirs"
    title = "Theirs"

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        return AnalysisResult({"samples": len(inputs.features("test").labels)})


@pytest.mark.proof
def test_a_user_s_own_analysis_of_the_run_runs_too() -> None:
    content = {"trainer": {"callbacks": [{"class_path": f"{TheirAnalysis.__module__}.TheirAnalysis"}], "max_epochs": 1}}
    Path("theirs.yaml").write_text(json.dumps(content))
    words = ["analyze", "--config", "quickstart", "--config", "theirs.yaml", "--ckpt_path", "none", *QUIET, *QUICK]
    assert main([*words, "--run_dir", "all"]) == 0
    assert scalars(Path("all"), "theirs")["samples"] > 0
    assert scalars(Path("all"), "lda")
    assert main([*words, "--run_dir", "some", "--analyses", "weight_separability"]) == 0
    assert [path.stem for path in Path("some/analysis").glob("*.json")] == ["weight_separability"]


def test_rows_that_are_not_finite_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    labels = torch.arange(30) % 3
    test = Features(torch.randn(30, 4), labels, None)
    test.features[[7, 20], 1] = torch.tensor([torch.nan, torch.inf])
    save_features("broken.npz", Features(torch.randn(30, 4), labels, None), test, list(map(str, range(30))))
    message = "broken.npz: test_features has NaN or infinite values in 2 of 30 rows, the first is row 7 "
    for words in (["analyze", "--features", "broken.npz"], ["compare", "broken.npz", "other=broken.npz"]):
        assert main(words) == 1
        found = capsys.readouterr()
        assert found.err.replace("\n", " ").count(message) == 1 and not found.out
    assert [path.name for path in Path().iterdir()] == ["broken.npz"], "nothing is left behind"


def test_saved_features_of_another_layer() -> None:
    saved("backbone.npz")
    words = ["analyze", "--features", "backbone.npz", "--analyses", "lda", "--run_dir", "run"]
    assert main([*words, "--layer", "fc3"]) == 0
    assert Path("run/analysis/fc3/index.html").is_file() and not Path("run/analysis/lda.json").exists()
    assert main([*words, "--layer", "features"]) == 0
    assert Path("run/analysis/lda.json").is_file()


def test_maps_to_hover_over(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    saved("backbone.npz")
    words = ["analyze", "--features", "backbone.npz", "--analyses", "pca", "--run_dir", "run", "--interactive", "true"]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "bokeh.plotting", None)
        assert main(words) == 2
    assert "pip install bokeh" in capsys.readouterr().err and not Path("run").exists()
    pytest.importorskip("bokeh")
    assert main(words) == 0
    assert Path("run/analysis/points.html").is_file()
    assert 'href="points.html"' in Path("run/analysis/index.html").read_text()


def test_help_names_every_analysis_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "--help", "all"]) == 0
    text = capsys.readouterr().out
    for name in (*NAMES, "--geodesic.segments", "--partial_retraining.sizes", "--features", "--unpack"):
        assert name in text


@pytest.mark.proof
@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
def test_two_ranks_give_what_one_gives(trained: Path) -> None:
    words = ["--run_dir", str(trained), "--analyses", "lda,weight_separability", "--data.eval_batch_size", "64", *QUIET]
    assert main(["analyze", *words]) == 0
    alone = scalars(trained, "lda")
    (trained / "analysis/lda.json").unlink()
    two = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]
    command = [sys.executable, "-m", "lightning_repshape.cli", "analyze", *words, *two]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scalars(trained, "lda") == pytest.approx(alone, rel=1e-6)
