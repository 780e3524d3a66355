"""An analysis of the user's own, in a file of the working directory: in ``analyze``, ``compare`` and a study."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from cli_runs import SMALL

from lightning_repshape.cli import main
from lightning_repshape.features.passes import Features, save_features

OWN = "my_analysis.FeatureLengths"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "my_analysis.py"


@pytest.fixture(autouse=True)
def _own_file(in_tmp: Path, quick_figures: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's file in the working directory, imported anew by every test."""
    shutil.copy(EXAMPLE, "my_analysis.py")
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("own") / "run"
    words = ["fit", "--config", "base/digits-mlp", *SMALL, "--trainer.callbacks", "null", "--run_dir", str(run)]
    assert main(words) == 0
    return run


def features(path: str) -> str:
    torch.manual_seed(0)
    labels = torch.arange(30) % 3
    part = Features(torch.randn(30, 4) + labels[:, None], labels, None)
    save_features(path, part, part, [f"image {at}" for at in range(30)])
    return path


def lengths(folder: Path | str) -> dict[str, float]:
    found: dict[str, float] = json.loads((Path(folder) / "analysis" / "lengths.json").read_text())["scalars"]
    return found


def test_in_analyze(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(trained, "run"))
    assert main(["analyze", "--run_dir", str(run), "--analyses", f"{OWN},lda", "--lengths.quantile", "0.5"]) == 0
    found = lengths(run)
    assert "lengths/mean" in capsys.readouterr().out, "its figures are printed"
    assert found["mean"] > 0 and (run / "analysis" / "lda.json").is_file()
    assert "Lengths of features" in (run / "analysis" / "index.html").read_text()
    # from arrays, and with its options in a config beside the run's
    assert main(["analyze", "--features", features("some.npz"), f"--analyses={OWN}", "--run_dir", "saved"]) == 0
    assert lengths("saved")["quantile"] > lengths("saved")["mean"]
    Path("lengths.yaml").write_text(yaml.safe_dump({"analyses": OWN, "lengths": {"quantile": 1.0}}))
    words = ["--config", str(run / "config.yaml"), "--config", "lengths.yaml", "--ckpt_path", "best"]
    assert main(["analyze", "--run_dir", str(run), *words]) == 0
    assert lengths(run)["quantile"] > found["quantile"] and lengths(run)["mean"] == found["mean"]
    capsys.readouterr()
    assert main(["analyze", "--help", OWN]) == 0
    assert "--lengths.quantile" in capsys.readouterr().out


def test_in_compare(trained: Path) -> None:
    shutil.copytree(trained, "a")
    shutil.copytree(trained, "b")
    words = ["--analyses", OWN, "--to", "page"]
    assert main(["compare", "a", "b", *words, "--", "--lengths.quantile", "0.5"]) == 0
    figures = json.loads(Path("page/comparison.json").read_text())["figures"]
    assert figures["lengths/quantile"][0] == figures["lengths/quantile"][1] > 0
    assert not list(Path("a").rglob("lengths*"))
    files = [features("one.npz"), features("two.npz")]
    assert main(["compare", *files, *words[:2], "--to", "files", "--", "--lengths.quantile=0.0"]) == 0
    least, _ = json.loads(Path("files/comparison.json").read_text())["figures"]["lengths/quantile"]
    assert least < figures["lengths/mean"][0]


@pytest.mark.proof
def test_in_a_study_and_its_runs_are_trusted_by_name_alone(capsys: pytest.CaptureFixture[str]) -> None:
    callbacks = [{"class_path": OWN, "init_args": {"quantile": 0.5}}]
    small = {"data.init_args.train_size": 100, "trainer.limit_test_batches": 1, "trainer.max_epochs": 1}
    study = {
        "format": 1,
        "data": "digits",
        "configs": ["base/digits-mlp"],
        "overrides": {"trainer.callbacks": callbacks, **small},
        "figures": {"length": {"metric": "test/lengths/quantile"}},
        "seeds": 1,
        "methods": {"plain": {}},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(study))
    assert main(["study", "run", "mine.yaml"]) == 0
    (run,) = (path.parent for path in Path("studies").rglob("metrics.json"))
    figure = json.loads((run / "metrics.json").read_text())["test/lengths/quantile"]
    assert f"{figure:.2f}" in Path("studies/report/mine/report.md").read_text()
    capsys.readouterr()
    sys.modules.pop("my_analysis")  # this process has read the study
    # somebody's run that names it: asked for, unless the user has named it
    few = ["--trainer.limit_test_batches", "1"]
    assert main(["analyze", "--run_dir", str(run), *few, "--analyses", "lda"]) == 2
    assert f"names {OWN}: no classes of this package" in capsys.readouterr().err
    assert main(["analyze", "--run_dir", str(run), *few, "--analyses", f"lda,{OWN}"]) == 0
    assert lengths(run)["quantile"] == pytest.approx(figure, rel=1e-5)  # the config's option


BROKEN = """
from dataclasses import dataclass
from lightning_repshape import Analysis, AnalysisResult

class NoAnalysis:
    pass

class NoCompute(Analysis):
    pass

@dataclass(eq=False)
class Taken(Analysis):
    kind = "lda"
    def compute(self, inputs):
        return AnalysisResult({})

class Spaced(Taken):
    kind = "two words"

class Untyped(Taken):
    kind = "untyped"
    def __init__(self, option):
        super().__init__()

class Fails(Taken):
    kind = "fails"
    def compute(self, inputs):
        return AnalysisResult({"none": 1 / 0})
"""


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("my_analysi.FeatureLengths", 2, "there is no file my_analysi.py in "),
        ("no/path.py", 2, "there is no file no/path.py"),
        ("my_analysis.FeatureLength", 2, "my_analysis.py has no class 'FeatureLength'; did you mean 'FeatureLengths'?"),
        ("my_analysis.py", 2, "has no class 'py'; there are: 'FeatureLengths'"),
        ("my_syntax.Any", 2, "my_syntax cannot be imported: SyntaxError: "),
        ("my_import.Any", 2, "my_import cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("my_broken.NoAnalysis", 2, "NoAnalysis is no Analysis; derive it from lightning_repshape.Analysis"),
        ("my_broken.NoCompute", 2, "NoCompute has no method compute(self, inputs)"),
        ("my_broken.Taken", 2, "another analysis is called 'lda'; give it a kind of its own"),
        ("my_broken.Spaced", 2, "kind = 'two words' must be one word"),
        ("my_broken.Untyped", 2, "my_broken.Untyped cannot be given options: "),
        ("my_broken.Fails", 1, "none of the analyses was possible; fails: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    name: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_broken.py").write_text(BROKEN)
    Path("my_syntax.py").write_text("def")
    Path("my_import.py").write_text("import nowhere")
    assert main(["analyze", "--features", features("some.npz"), "--analyses", name, "--run_dir", "out"]) == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error and "Traceback" not in error
    assert status == 1 or not Path("out").exists()
    words = ["compare", features("a.npz"), features("b.npz"), "--analyses", name, "--to", "page"]
    compared = main(words)
    if status == 2:
        assert compared == 2 and message in capsys.readouterr().err.splitlines()[-1] and not Path("page").exists()
    else:  # the models are compared without it, and the page says why
        assert compared == 0 and "division by zero" in Path("page/index.html").read_text()
