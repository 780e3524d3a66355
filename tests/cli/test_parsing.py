"""A mistake ends in one sentence that says what, where and what to do."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cli_runs import QUIET, SMALL, fit
from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser

from lightning_repshape.cli import main
from lightning_repshape.cli.parsing import FormerNames, OneLineParser

PENALISED = ["fit", "--config", "quickstart", "--config", "method/cw-vr"]


BAD = {
    "unknown command": (["fitt"], 2, "did you mean 'fit'"),
    "unknown config": (["fit", "--config", "quikstart"], 2, "did you mean 'quickstart'"),
    "unknown model": (["fit", "--config", "quickstart", "--model", "SupervisdModule"], 2, "SupervisedModule"),
    "unknown backbone": (
        ["fit", "--config", "quickstart", "--model.backbone", "ResNet31"],
        2,
        "did you mean 'ResNet32'",
    ),
    "unknown data": (["fit", "--config", "quickstart", "--data", "CIFAR11DataModule"], 2, "CIFAR10DataModule"),
    "unknown option of a backbone": (
        ["fit", "--config", "quickstart", "--model.backbone.widht", "3"],
        2,
        "did you mean 'widths'",
    ),
    "unknown option of the data": (["fit", "--config", "quickstart", "--data.batchsize", "3"], 2, "batch_size"),
    "unknown option of the trainer": (
        ["fit", "--config", "quickstart", "--trainer.max_epoch_s", "3"],
        2,
        "trainer.max_epochs",
    ),
    "abbreviated option": (
        ["fit", "--config", "quickstart", "--trainer.max_epoch", "3"],
        2,
        "did you mean 'trainer.max_epochs'",
    ),
    "option of a class within a class": (
        [*PENALISED, "--model.regularizers.weigth", "1"],
        2,
        "model: ClasswiseVariance has no option 'weigth'; did you mean 'weight'?",
    ),
    "option of another model": (
        ["fit", "--config", "quickstart", "--model.regularizers+=ClasswiseVariance"],
        2,
        "SupervisedModule has no option 'regularizers', which is one of AutoencoderModule, ",
    ),
    "missing part of a model": (
        ["fit", "--model", "SupervisedModule", "--data", "DigitsDataModule"],
        2,
        "model: SupervisedModule needs backbone; give it in a config or as --model.backbone ...",
    ),
    "a name where there is a list": (
        ["fit", "--config", "quickstart", "--config", "method/cw-vr", "--model.regularizers", "Varianc"],
        2,
        "regularizers",
    ),
    "analysis of no run": (["analyze", "--run_dir", "nowhere"], 2, "nowhere is no run's folder: it has no config.yaml"),
    "unknown callback": (["fit", "--config", "quickstart", "--trainer.callbacks+=FeaturePlot"], 2, "FeaturePlots"),
    "wrong type": (
        ["fit", "--config", "quickstart", "--trainer.max_epochs", "many"],
        2,
        "trainer.max_epochs is 'many'",
    ),
    "batch size 0": (["fit", "--config", "quickstart", "--data.batch_size", "0"], 2, "batch_size"),
    "train size": (["fit", "--config", "quickstart", "--data.train_size", "5000"], 1, "5,000"),
    "val size": (["fit", "--config", "quickstart", "--data.val_size", "5000"], 1, "5,000"),
    "unknown class": (["fit", "--config", "quickstart", "--data.classes", "['zero']"], 2, "zero"),
    "data missing": (["fit", "--config", "base/mnist-mlp", "--data.root", "nowhere"], 1, "download"),
    "no run": (["test", "--config", "quickstart"], 2, "--run_dir"),
    "nothing to resume": (
        ["fit", "--config", "quickstart", "--run_dir", "nowhere", "--ckpt_path", "last"],
        1,
        "no last checkpoint",
    ),
    "layer": (["fit", "--config", "quickstart", "--model.statistics_layer", "fc9"], 2, "fc1"),
    "missing model": (
        ["fit", "--data", "DigitsDataModule"],
        2,
        "missing: model; give it in a config or as --model ...",
    ),
    "negative weight": ([*PENALISED, "--model.regularizers.weight", "-1"], 2, "at least 0, got -1"),
    "penalised layer": ([*PENALISED, "--model.regularizers.layer", "fc9"], 2, "fc1"),
    "penalty's option": ([*PENALISED, "--model.regularizers.wieght", "1"], 2, "wieght"),
}

OPTIMIZER, SCHEDULER = "--model.optimizer", "--model.lr_scheduler"
OF_TORCH = "torch.optim.lr_scheduler"
CALLBACKS = "--trainer.callbacks"
VALUES = {
    f"--data.batch_size {2**70}": "below 2**63",
    f"--data.eval_batch_size {2**70}": "below 2**63",
    f"{OPTIMIZER}.lr -1": "optimizer: Invalid learning rate: -1.0",
    f"{OPTIMIZER}.lr .nan": "optimizer: Invalid learning rate: nan",
    f"{OPTIMIZER}.lr .inf": "optimizer: Invalid learning rate: inf",
    f"{OPTIMIZER}.betas [2,3]": "optimizer: Invalid beta",
    f"{OPTIMIZER} torch.optim.SGD {OPTIMIZER}.lr 1 {OPTIMIZER}.momentum -1": "optimizer: Invalid momentum",
    f"{SCHEDULER} {OF_TORCH}.StepLR {SCHEDULER}.step_size 0": "lr_scheduler: StepLR cannot step",
    f"{SCHEDULER} {OF_TORCH}.CosineAnnealingLR {SCHEDULER}.T_max 0": "CosineAnnealingLR cannot step",
    f"{SCHEDULER} {OF_TORCH}.OneCycleLR {SCHEDULER}.max_lr 1": "lr_scheduler: You must define",
    "--trainer.max_epochs -2": "at least -1",
    "--trainer.max_steps -5": "at least -1",
    "--trainer.min_epochs -3": "at least 0",
    "--trainer.devices 0": "at least 1",
    "--trainer.devices x": "trainer: `devices`",
    "--trainer.num_nodes 0": "at least 1",
    "--trainer.accelerator nope": "trainer: You selected an invalid accelerator",
    "--trainer.strategy nope": "trainer: You selected an invalid strategy",
    "--trainer.limit_train_batches -3": "at least 0",
    "--trainer.limit_val_batches 1.5": "a part up to 1.0",
    "--trainer.overfit_batches -1": "at least 0",
    "--trainer.accumulate_grad_batches 0": "at least 1",
    "--trainer.check_val_every_n_epoch 0": "at least 1",
    "--trainer.val_check_interval 0": "above 0",
    "--trainer.val_check_interval 2.5": "whole number of batches",
    "--trainer.val_check_interval 100000": "trainer: `val_check_interval` (100000) must be less than or equal",
    "--trainer.val_check_interval 00:00:00:00": "above 0",
    "--trainer.limit_train_batches 0.0001": "trainer: You requested to check 0.0001",
    "--trainer.devices 100000": "trainer.devices is 100000, but this machine can use no more than",
    "--data.num_workers 1000000": "num_workers=1000000, but this machine can use no more than",
    "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor x --trainer.callbacks.mode nope": "`mode` can be",
    f"{CALLBACKS}+=ThroughputMonitor": "callbacks: ThroughputMonitor needs batch_size_fn; give it in the config\n",
    f"{CALLBACKS}+=FeaturePlots {CALLBACKS}.max_pints 3": "option 'max_pints'; did you mean 'max_points'?\n",
    f"{CALLBACKS}+=EarlyStopping {CALLBACKS}.monitor x {CALLBACKS}.patience -1": "patience is -1, but it must be at l",
    f"{CALLBACKS}+=LearningRateFinder {CALLBACKS}.min_lr -1": "LearningRateFinder: min_lr is -1, but it must be at l",
    f"{CALLBACKS}+=BatchSizeFinder {CALLBACKS}.init_val 0": "BatchSizeFinder: init_val is 0, but it must be at least 1",
    f"{CALLBACKS}+=lightning.pytorch.callbacks.EMAWeightAveraging {CALLBACKS}.decay 3": "error: Invalid decay value 3",
    "--trainer.gradient_clip_val -1": "at least 0",
    "--trainer.gradient_clip_val 1 --trainer.gradient_clip_algorithm nope": "gradient_clip_algorithm",
    "--trainer.max_time xx": "not a valid duration",
    "--trainer.max_time 00:00:00:00": "trainer.max_time is 0:00:00, but it must be above 0",
    '--trainer.max_time {"hours":-3}': "trainer.max_time is -1 day, 21:00:00, but it must be above 0",
    '--trainer.max_time {"days":9999999999}': "trainer.max_time: ",
    "--trainer.profiler nope": "profiler",
    "--trainer.fast_dev_run -1": "at least 0",
    "--seed_everything -1": "from 0 to 4,294,967,295",
    f"--seed_everything {2**40}": "from 0 to 4,294,967,295",
    "--threads 0": "from 1 to 1024",
    "--threads 1000000000": "from 1 to 1024",
    "--run_dir /": "no name to add a number to",
    "--run_dir ..": "no name to add a number to",
    "--run_dir=": "--run_dir is empty",
    "--run_dir ~nobody-of-this-name/run": "is no path",
    f"--run_dir {'a' * 400}": "File name too long",
    "--run_dir nul\0byte": "null byte",
    "--run_dir byte\udcff": "no utf-8",
    "--run_dir file.yaml/run": "cannot be written",
    "--init_from=": "--init_from is empty",
    f"--config {'a' * 5000}": "File name too long",
    "--config cycle.yaml": "cycle.yaml has more than 100,000 values",
    "--config bomb.yaml": "bomb.yaml has more than 100,000 values",
    "--config utf-16.yaml": "utf-16.yaml is no text in UTF-8 (byte 1 is 0xff)",
    "--config latin-1.yaml": "latin-1.yaml is no text in UTF-8 (byte 5 is 0xf6)",
    "--config binary.yaml": "binary.yaml is no text in UTF-8",
    "--config twice.yaml": "twice.yaml cannot be read as YAML: the key 'trainer' stands twice",
    "--config number.yaml": "trainer is 3, but options such as trainer.max_epochs are expected",
    "--config tag.yaml": "could not determine a constructor",
}
BAD.update({case: (["fit", "--config", "quickstart", *case.split(" ")], 2, text) for case, text in VALUES.items()})


@pytest.fixture
def _bad_files() -> None:
    """Configs that are none."""
    Path("file.yaml").write_text("trainer: {max_epochs: 1}\n", encoding="utf-8")
    Path("twice.yaml").write_text("trainer: {max_epochs: 1}\ndata: {}\ntrainer: {}\n", encoding="utf-8")
    Path("number.yaml").write_text("trainer: 3\n", encoding="utf-8")
    Path("cycle.yaml").write_text("trainer: &a\n  max_epochs: 1\n  loop: *a\n", encoding="utf-8")
    bomb = ["a: &a [1]"] + [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in pairwise("abcdefg")]
    Path("bomb.yaml").write_text("\n".join(bomb), encoding="utf-8")
    Path("utf-16.yaml").write_text("trainer: {max_epochs: 1}\n", encoding="utf-16")
    Path("latin-1.yaml").write_text("# größe\n", encoding="latin-1")
    Path("binary.yaml").write_bytes(bytes(range(256)))
    Path("tag.yaml").write_text("trainer: !!python/object/apply:os.system ['touch made']\n", encoding="utf-8")


@pytest.mark.usefixtures("_bad_files")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_message(case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words, status, expected = BAD[case]
    before = sorted(tmp_path.iterdir())
    quiet = (
        []
        if words[0] in ("fitt", "analyze") or "number.yaml" in words  # which they would replace
        else ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    )
    assert main([*words, *quiet]) == status
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert lines and lines[-1].startswith("error: "), captured.err
    assert expected in f"{lines[-1]}\n", lines[-1]
    assert "Traceback" not in captured.err + captured.out
    assert len(lines[-1]) < 700
    assert sorted(tmp_path.iterdir()) == before, "nothing half-made is left"


def test_null_is_none_within_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model.backbone.neck", "null", "--trainer.max_epochs", "1", "--then_test", "false") == 0
    assert "neck: null" in Path("runs/quickstart/config.yaml").read_text()
    times = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.train_time_interval", "1:00:00"]
    assert fit("--run_dir", "timed", *times, "--trainer.max_epochs", "1", "--then_test", "false") == 0
    assert main(["test", "--run_dir", "timed", *QUIET]) == 0, capsys.readouterr().err


def test_quiet_prints_errors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--quiet", "--trainer.max_epochs", "1") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert main(["test", "--run_dir", "runs/quickstart", "--data.batchsize", "3", "--quiet"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert Path("runs/quickstart/metrics.json").is_file()


def test_figures_are_drawn_without_a_config() -> None:
    words = ["fit", "--model", "SupervisedModule", "--model.backbone", "MLP", "--data", "DigitsDataModule", *SMALL]
    assert main([*words, "--then_test", "true", "--run_dir", "drawn"]) == 0
    assert {path.stem for path in Path("drawn/analysis").glob("*.png")} == {"curves", "features", "confusion"}
    assert main([*words, "--trainer.callbacks", "[]", "--run_dir", "plain"]) == 0
    assert not list(Path("plain").rglob("*.png"))


def test_the_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine" / "run").mkdir(parents=True)
    assert fit("--run_dir", "mine/run", "--model.optimizer.lr", "-1") == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "run"]
    assert fit("--run_dir", "mine/run/a/b", "--model.optimizer.lr", "-1") == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "run"]


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (
            "{class_path: ClaswiseVariance}",
            "model: there is no class 'ClaswiseVariance' for regularizers; did you mean",
        ),
        (
            "{class_path: Variance, init_args: {wieght: 1}}",
            "model: Variance has no option 'wieght'; did you mean 'weight'",
        ),
        ("{class_path: Variance}", "model: Variance needs weight; give it in the config"),
        ("{class_path: Variance, init_args: {weight: much}}", "model: weight is 'much', but float is expected"),
        ("{class_path: torch.nn.ReLU}", "model: torch.nn.ReLU at regularizers is no Regularizer; there are"),
        ("{class_path: L2Weight, init_args: {weight: 1, layer: fc9}}", "no activation 'fc9'; did you mean"),
    ],
)
def test_a_mistake_deep_in_a_config_is_one_sentence(
    penalty: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("penalty.yaml").write_text(
        f"model: {{class_path: RegularizedModule, init_args: {{regularizers: [{penalty}]}}}}", encoding="utf-8"
    )
    assert main(["fit", "--config", "quickstart", "--config", "penalty.yaml"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and expected in line, line
    assert len(line) < 300


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--model.regularizers", "Variance"], "regularizers=[Variance], or regularizers+=Variance for each"),
        (["--data.classes", "3,4"], "classes=[3,4], or classes+=3 for each"),
        (["--model.backbone.widths", "{a: 3}"], "widths=[...], or widths+=... for each"),
    ],
)
def test_how_a_list_is_written_is_told(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", "RegularizedModule"] if "regularizers" in words[0] else []
    assert main(["fit", "--config", "quickstart", *model, *words]) == 2
    assert f"a list is expected; write {hint}" in capsys.readouterr().err


def test_broken_yaml_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.yaml").write_text("model: [")
    assert main(["fit", "--config", "broken.yaml"]) == 2
    assert "pars" in capsys.readouterr().err
    Path("typo.yaml").write_text("trianer: {max_epochs: 1}\n")
    assert main(["fit", "--config", "typo.yaml"]) == 2
    assert "did you mean 'trainer'" in capsys.readouterr().err


def test_label_smoothing_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model.label_smoothing", "2") == 2
    assert "label_smoothing is 2.0" in capsys.readouterr().err


def test_a_parser_as_jsonargparse_5_has_it_knows_the_former_names() -> None:
    class Five:
        def instantiate(self, cfg: str, *, instantiators: tuple[tuple[Any, type, bool], ...]) -> Any:
            return cfg, instantiators

    class Parser(Five, FormerNames):
        pass

    parser, other = Parser(), Parser()
    parser.add_instantiator(print, int)
    parser.add_instantiator(repr, str, subclasses=False)
    assert parser.instantiate_classes("x") == ("x", ((print, int, True), (repr, str, False)))
    assert other.instantiate_classes("y") == ("y", ())  # each parser has its own


def test_nothing_that_lightning_asks_of_the_parser_is_deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(LightningArgumentParser, "dump", lambda self, cfg, **options: kept.update(options) or "")
    OneLineParser().dump(Namespace(), skip_none=False, format="yaml")
    assert kept == {"skip_unset": False, "format": "yaml"}


@pytest.mark.parametrize(
    "words",
    [
        ["--callback=Timer", "--callback.duration=00:00:05:00"],
        ["--callback=ModelCheckpoint", "--callback.train_time_interval=0:05:00"],
        ["--callback=StochasticWeightAveraging", "--callback.swa_lrs=0.1"],
        ["--callback=ModelPruning", "--callback.pruning_fn=l1_unstructured"],
    ],
)
@pytest.mark.filterwarnings("error")
def test_options_of_classes_that_yaml_lacks_are_saved_as_what_is_read_again(words: list[str]) -> None:
    parser = OneLineParser()
    parser.add_subclass_arguments(Callback, "callback")
    config = parser.parse_args(words)
    text = parser.dump(config, skip_none=False)
    again = parser.parse_string(text)
    assert parser.dump(again, skip_none=False) == text and "Unable" not in text
    assert again.callback.init_args.get("interval", "step") == "step"
    assert again.callback.init_args.get("train_time_interval") == config.callback.init_args.get("train_time_interval")
