"""The help is short and quick, and the whole of it is there; the shell and editors know what there is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_repshape import configs_library
from lightning_repshape.analyses import ANALYSES
from lightning_repshape.cli import help as helps
from lightning_repshape.cli import main
from lightning_repshape.cli.options import FORMATS, LIGHT
from lightning_repshape.cli.plain import fitted
from lightning_repshape.export.formats import FILES


def test_short_help_names_what_there_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert {kind.kind for kind in ANALYSES} == set(helps.ANALYSES)
    assert tuple(FILES) == FORMATS
    assert {kind.kind for kind in ANALYSES if kind.on_request} == {
        name for name, about in helps.ANALYSES.items() if about.startswith("*")
    }
    for columns in ("80", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        for words in ([], *([command] for command in (*helps.COMMANDS, *LIGHT, "study", "configs")), ["study", "run"]):
            assert main([*words, "--help"]) == 0
            lines = capsys.readouterr().out.splitlines()
            assert len(lines) < 80 and max(map(len, lines)) <= int(columns), words
    assert main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("quickstart", "SupervisedModule", "DigitsDataModule", "--trainer.max_epochs", "--help all"):
        assert name in text


def test_a_help_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    short = "usage: lightning-repshape it\n\nTwo lines of prose, of which\none is short.\n"
    assert fitted(short) == short, "nothing is joined where all fits"
    text = """\
Prose that stands in lines of seventy or fewer letters, as its author had it,
is filled.

heading:
  --option X  a text that stands beside an option and is far too long for it,
              and goes on below
  --other     short

  lightning-repshape compare runs/plain runs/foca --layer features   beside an example
  lightning-repshape study run aaai19/table-7 --budget 0.2 --jobs 2 -- --data.root data
"""
    assert (
        fitted(text)
        == """\
Prose that stands in lines of seventy or fewer letters, as its author
had it, is filled.

heading:
  --option X  a text that stands beside an option and is far too long
              for it, and goes on below
  --other     short

  lightning-repshape compare runs/plain runs/foca --layer features
      beside an example
  lightning-repshape study run aaai19/table-7 --budget 0.2 --jobs 2 --
      --data.root data
"""
    )


def test_the_rest_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help", "trainer"]) == 0
    text = capsys.readouterr().out
    assert "--trainer.max_epochs" in text and "--data" not in text and "usage" not in text
    assert main(["fit", "--help", "model", "RegularizedModule"]) == 0
    assert "--model.regularizers" in capsys.readouterr().out
    assert main(["analyze", "--help", "lda"]) == 0
    text = capsys.readouterr().out
    assert "--lda.label" in text and "--geodesic" not in text
    assert main(["fit", "--help", "al"]) == 2
    assert main(["analyze", "--help", "ldda"]) == 2
    assert "did you mean 'lda'" in capsys.readouterr().err


FIRST = [[command, "--help"] for command in (*helps.COMMANDS, *LIGHT, "configs")]
FIRST += [["study", "--help"], ["study", "run", "--help"], ["configs", "list"], ["study", "list", "aaai19"]]


def test_first_answers_import_nothing_heavy() -> None:
    code = f"""
import sys
from lightning_repshape.cli import main
for words in {FIRST}:
    assert main(words) == 0, words
    assert not {{"torch", "lightning", "matplotlib"}} & set(sys.modules), words
"""
    plain = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # which is looked at, if set
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("usage:") == len(FIRST) - 2, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's file descriptors")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("an", ["analyze"]),
        ("fit --config qu", ["quickstart"]),
        ("fit --config quickstart --config method/cw-v", ["method/cw-vr", "method/cw-vr-output"]),
        ("fit --trainer.max", ["--trainer.max_epochs"]),
        ("fit --ckpt_path ", ["best", "last", "none"]),
        ("study run aaai19/table-7", ["aaai19/table-7"]),
        ("study run icml19/recipe --see", ["--seeds"]),
        ("study report icml19/recipe --che", ["--check"]),
        ("configs s", ["schema", "show"]),
        ("analyze --analyses ld", ["lda"]),
        ("compare --same", ["--same_samples"]),
        ("compare --methods cw-v", ["cw-vr", "cw-vr-output"]),
        ("compare --data MN", ["MNISTDataModule"]),
        ("compare quickst", ["quickstart/digits"]),
        ("compare someth", ["something/"]),
        ("export --format on", ["onnx"]),
    ],
)
def test_tab_completion(line: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("argcomplete")
    monkeypatch.chdir(tmp_path)
    Path("something").mkdir()
    read, write = os.pipe()
    whole = f"lightning-repshape {line}"
    asked = {"COMP_LINE": whole, "COMP_POINT": str(len(whole)), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n"}
    code = f"import os; os.dup2({write}, 8); os.dup2(2, 9); import runpy; "
    code += "runpy.run_module('lightning_repshape.cli', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env={**os.environ, **asked}, pass_fds=(write,), capture_output=True, text=True,
    )  # fmt: skip
    os.close(write)
    with open(read, encoding="utf-8") as answer:
        assert sorted(answer.read().split()) == expected, done.stderr
    assert " torch\n" not in done.stderr


def test_configs_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    names = configs_library.names()
    grouped = [name for group in configs_library.groups().values() for name in group]
    assert sorted(grouped) == sorted(names), "each in one group"
    assert main(["configs", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60 and any(line.startswith("  recommended/cw-vr  ") for line in lines)
    assert main(["configs", "show", "quickstart", "method/cw-vr"]) == 2
    assert main(["configs", "lst"]) == 2
    assert "invalid choice" in capsys.readouterr().err


def test_what_configs_come_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "show", "--resolved", "quickstart", "method/cw-vr"]) == 0
    text = capsys.readouterr().out
    found = yaml.safe_load(text)
    assert found["model"]["class_path"].endswith("RegularizedModule")
    assert found["model"]["init_args"]["backbone"]["init_args"]["widths"] == [100, 100, 100]
    assert found["trainer"]["accelerator"] == "auto" and found["data"]["init_args"]["batch_size"] == 100
    Path("all.yaml").write_text(text, encoding="utf-8")
    assert main(["configs", "show", "--resolved", "all.yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == found


def test_the_schema_takes_every_shipped_config_and_finds_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from jsonargparse import get_loader

    assert main(["configs", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    for name in configs_library.names():
        content = get_loader("yaml")(configs_library.find(name).read_text(encoding="utf-8"))
        assert not list(validator.iter_errors(content)), name
    for wrong in (
        "trainer: {max_epoch: 3}",
        "trainer: {max_epochs: many}",
        "data: {class_path: DigitsDataModule, init_args: {batch_siz: 3}}",
        "model: {class_path: SupervisedModule, init_args: {backbone: {class_path: MLP, init_args: {width: 1}}}}",
        "modle: SupervisedModule",
    ):
        assert list(validator.iter_errors(yaml.safe_load(wrong))), wrong
    own = (
        "model: {class_path: mine.Net, init_args: {anything: 1}}\ntrainer: {callbacks+: [{class_path: EarlyStopping}]}"
    )
    assert not list(validator.iter_errors(yaml.safe_load(own)))
