"""The command line as a person uses it, in process, on the embedded digits."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lightning_repshape.cli import main
from lightning_repshape.configs_library import names

SMALL = [
    "--trainer.max_epochs",
    "2",
    "--trainer.enable_progress_bar",
    "false",
    "--trainer.enable_model_summary",
    "false",
]


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fit(*words: str) -> int:
    return main(["fit", "--config", "quickstart", *SMALL, *words])


def metrics(run: str) -> dict[str, float]:
    return json.loads((Path(run) / "metrics.json").read_text())


def test_help_and_version_need_no_lightning() -> None:
    code = (
        "import sys; from lightning_repshape.cli import main;"
        "main(['--help']); main(['--version']); main(['configs', 'list']);"
        "sys.exit(int('lightning' in sys.modules or 'torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lightning-repshape fit --config quickstart" in done.stdout
    assert "quickstart" in done.stdout


def test_help_of_a_command_names_our_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--run_dir", "--then_test", "--init_from", "--threads", "--ckpt_path", "--print_config"):
        assert option in text


def test_configs_are_shown_and_copied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["configs", "show", "quickstart"]) == 0
    shown = capsys.readouterr().out
    assert "DigitsDataModule" in shown
    assert main(["configs", "copy", "quickstart", "mine.yaml"]) == 0
    assert (tmp_path / "mine.yaml").read_text() == shown
    assert main(["configs", "copy", "quickstart", "mine.yaml"]) == 2  # never overwritten
    assert main(["configs", "show", "quikstart"]) == 2
    assert "did you mean 'quickstart'" in capsys.readouterr().err


def test_fit_tests_the_best_checkpoint_and_leaves_a_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    out = capsys.readouterr().out
    assert "run folder: runs/quickstart" in out
    assert "class-wise variance of features" in out
    run = Path("runs/quickstart")
    for name in (
        "config.yaml",
        "manifest.json",
        "metrics.json",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    ):
        assert (run / name).is_file(), name
    assert any((run / "tensorboard").iterdir())
    for figure in ("features", "confusion", "curves"):
        assert (run / "analysis" / f"{figure}.png").stat().st_size > 5000
        assert (run / "analysis" / f"{figure}.pdf").is_file()
    found = metrics("runs/quickstart")
    assert found["test/error"] + found["test/accuracy"] == pytest.approx(1)
    assert found["epoch"] == 2
    manifest = json.loads((run / "manifest.json").read_text())
    assert [session["stage"] for session in manifest["sessions"]] == ["fit", "test"]
    assert all(session["status"] == "finished" for session in manifest["sessions"])
    assert manifest["sessions"][0]["steps"] == 24
    assert manifest["sessions"][0]["steps_per_second"] > 0
    assert manifest["sessions"][0]["peak_memory_mb"] > 50
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert manifest["data"]["train.images"].startswith("blake2b:")
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows if row["train/loss"]] == ["0.0", "1.0"]
    for checkpoint in ("best", "last"):
        content = torch.load(run / "checkpoints" / f"{checkpoint}.ckpt", weights_only=True)
        assert content["hyper_parameters"]["_class_path"].endswith("SupervisedModule")


def test_a_run_never_overwrites_another() -> None:
    assert fit() == 0
    before = (Path("runs/quickstart") / "metrics.csv").read_bytes()
    assert fit("--seed_everything", "1") == 0
    assert (Path("runs/quickstart") / "metrics.csv").read_bytes() == before
    assert Path("runs/quickstart-2/metrics.json").is_file()
    assert fit("--run_dir", "elsewhere/mine") == 0
    assert fit("--run_dir", "elsewhere/mine") == 0
    assert Path("elsewhere/mine-2/metrics.json").is_file()


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    for run, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert fit("--run_dir", run, "--seed_everything", seed, "--then_test", "false") == 0
    states = [torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in "abc"]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["head.output.weight"], states[2]["head.output.weight"])


def test_later_commands_read_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    tested = metrics("runs/quickstart")["test/error"]
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert main(["test", "--run_dir", "runs/quickstart", *quiet]) == 0
    assert metrics("runs/quickstart")["test/error"] == tested
    assert main(["validate", "--config", "runs/quickstart/config.yaml", *quiet]) == 0
    assert main(["test", "--ckpt_path", "runs/quickstart/checkpoints/best.ckpt", *quiet]) == 0
    assert main(["test", "--config", "quickstart", "--run_dir", "runs/quickstart", "--ckpt_path", "last", *quiet]) == 0
    assert not Path("runs/quickstart-2").exists()
    # Untrained weights have to be asked for.
    assert main(["test", "--config", "quickstart", "--ckpt_path", "none", "--run_dir", "untrained", *quiet]) == 0
    assert metrics("untrained")["test/error"] > 0.5
    capsys.readouterr()
    assert main(["predict", "--run_dir", "runs/quickstart", *quiet]) == 0
    assert "predictions: runs/quickstart/predictions.csv" in capsys.readouterr().out
    with Path("runs/quickstart/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300
    assert list(rows[0]) == ["image", "predicted_class", "probability", "true_class"]
    wrong = sum(row["predicted_class"] != row["true_class"] for row in rows)
    assert metrics("runs/quickstart")["test/error"] == pytest.approx(wrong / 300, abs=1e-6)
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)
    assert len({row["image"] for row in rows}) == 300


def test_init_from_loads_weights_alone() -> None:
    assert fit("--then_test", "false") == 0
    last = "runs/quickstart/checkpoints/last.ckpt"
    assert fit("--init_from", last, "--trainer.max_epochs", "0", "--run_dir", "b", "--then_test", "false") == 0
    assert fit("--init_from", last, "--trainer.max_epochs", "1", "--run_dir", "c") == 0
    assert metrics("c")["epoch"] == 1  # training began anew
    assert metrics("c")["train/error"] < metrics("runs/quickstart")["train/error"]
    assert fit("--init_from", last, "--ckpt_path", last) == 2


def test_a_checkpoint_says_what_it_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--then_test", "false") == 0
    words = ["--ckpt_path", "runs/quickstart/checkpoints/last.ckpt", "--model.optimizer.lr", "0.5"]
    assert fit("--trainer.max_epochs", "3", *words) == 0
    assert "optimizer.init_args.lr" in capsys.readouterr().err.replace("\n", " ")


def test_several_configs_compose_and_print(capsys: pytest.CaptureFixture[str]) -> None:
    Path("more.yaml").write_text(
        "trainer: {max_epochs: 7}\nmodel: {init_args: {backbone: {init_args: {widths: [12]}}}}\n"
    )
    assert main(["fit", "--config", "quickstart", "--config", "more.yaml", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "max_epochs: 7" in printed
    assert "- 12" in printed


def test_short_class_names_without_any_config() -> None:
    words = ["--model", "SupervisedModule", "--model.backbone", "MLP", "--model.backbone.widths", "[8]"]
    words += ["--data", "DigitsDataModule", "--data.batch_size", "400"]
    assert main(["fit", *words, *SMALL]) == 0
    assert Path("runs/SupervisedModule+DigitsDataModule/checkpoints/best.ckpt").is_file()


def test_fast_dev_run_leaves_nothing() -> None:
    assert fit("--trainer.fast_dev_run", "true") == 0
    assert not Path("runs").exists()


def test_without_validation_the_last_epoch_is_the_best() -> None:
    assert fit("--data.val_size", "0") == 0
    run = Path("runs/quickstart/checkpoints")
    best, last = (torch.load(run / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert best["epoch"] == last["epoch"] == 1


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
    "missing model": (["fit", "--data", "DigitsDataModule"], 2, "model"),
    "negative weight": ([*PENALISED, "--model.regularizers.weight", "-1"], 2, "at least 0, got -1"),
    "penalised layer": ([*PENALISED, "--model.regularizers.layer", "fc9"], 2, "fc1"),
    "penalty's option": ([*PENALISED, "--model.regularizers.wieght", "1"], 2, "wieght"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_message(case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words, status, expected = BAD[case]
    quiet = (
        []
        if words[0] == "fitt"
        else ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    )
    assert main([*words, *quiet]) == status
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert lines and lines[-1].startswith("error: "), captured.err
    assert expected in lines[-1], lines[-1]
    assert "Traceback" not in captured.err + captured.out
    assert len(lines[-1]) < 700
    assert not list(tmp_path.glob("runs/*")), "nothing half-made is left"


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (
            "{class_path: ClaswiseVariance}",
            "model: there is no class 'ClaswiseVariance' for regularizers; did you mean",
        ),
        ("{class_path: Variance, init_args: {wieght: 1}}", "model: there is no option 'wieght'; did you mean 'weight'"),
        ("{class_path: Variance}", "model: missing: weight; give it in the config"),
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
    assert len(line) < 250


def test_what_the_first_step_finds_wrong_stands_in_the_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", "quickstart", "--config", "method/cr", "--model.backbone.init_args.widths", "[8, 1]"]
    assert main([*words, "--run_dir", "run"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        line
        == "error: Covariance on layer 'features': cr: a covariance needs at least two units, the activations have one"
    )
    session = json.loads(Path("run/manifest.json").read_text())["sessions"][-1]
    assert session["status"] == "failed" and "at least two units" in session["error"]


def test_broken_yaml_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.yaml").write_text("model: [")
    assert main(["fit", "--config", "broken.yaml"]) == 2
    assert "pars" in capsys.readouterr().err
    Path("typo.yaml").write_text("trianer: {max_epochs: 1}\n")
    assert main(["fit", "--config", "typo.yaml"]) == 2
    assert "did you mean 'trainer'" in capsys.readouterr().err


def test_checkpoints_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--then_test", "false") == 0
    best = "runs/quickstart/checkpoints/best.ckpt"
    capsys.readouterr()
    Path("text.ckpt").write_text("no checkpoint")
    assert main(["test", "--config", "quickstart", "--ckpt_path", "text.ckpt"]) == 1
    assert "cannot be read as a checkpoint" in capsys.readouterr().err
    torch.save({"weights": torch.zeros(1)}, "other.ckpt")
    assert main(["test", "--config", "quickstart", "--ckpt_path", "other.ckpt"]) == 1
    assert "no Lightning checkpoint" in capsys.readouterr().err
    assert main(["test", "--config", "quickstart", "--ckpt_path", "absent.ckpt"]) == 1
    assert "does not exist" in capsys.readouterr().err
    # Fewer classes, so another model.
    assert main(["test", "--config", "quickstart", "--data.classes", "4", "--ckpt_path", best]) == 1
    assert "another model" in capsys.readouterr().err
    assert fit("--init_from", best, "--model.backbone.widths", "[9]") == 1
    assert "another model" in capsys.readouterr().err
    Path("truncated.ckpt").write_bytes(Path(best).read_bytes()[:2000])
    assert main(["test", "--config", "quickstart", "--ckpt_path", "truncated.ckpt"]) == 1
    assert "cannot be read as a checkpoint" in capsys.readouterr().err


def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--run_dir", "good") == 0
    before = Path("good/checkpoints/last.ckpt").read_bytes()
    Path("bad.yaml").write_text(
        "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0e+30}}}}\n"
    )
    assert main(["fit", "--config", "quickstart", "--config", "bad.yaml", *SMALL, "--run_dir", "bad"]) == 1
    message = capsys.readouterr().err
    assert "epoch 0" in message
    assert "step" in message
    assert not list(Path("bad").glob("checkpoints/*.ckpt"))
    assert json.loads(Path("bad/manifest.json").read_text())["sessions"][-1]["status"] == "failed"
    assert Path("good/checkpoints/last.ckpt").read_bytes() == before


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "fit", "--config", "quickstart", "--data.batch_size", "0"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_run_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert fit("--run_dir", "file/run") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_keeps_the_previous_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = torch.save
    calls = []

    def full(content: object, path: object, *args: object, **kwargs: object) -> None:
        calls.append(path)
        if len(calls) > 2:
            Path(str(path)).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        saved(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    assert fit() == 1
    assert "No space left on device" in capsys.readouterr().err
    content = torch.load("runs/quickstart/checkpoints/last.ckpt", weights_only=True)
    assert content["epoch"] == 0
    assert sorted(path.name for path in Path("runs/quickstart/checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_every_shipped_config_has_a_description() -> None:
    from lightning_repshape.configs_library import description

    assert all(len(description(name)) > 20 for name in names())


def test_weights_broken_by_an_epochs_last_update_reach_no_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(
        "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0e+30}}}}"
    )
    for run, words in (("validated", []), ("unvalidated", ["--data.val_size", "0"])):
        batch = ["--data.batch_size", "1500", "--run_dir", run, *words]
        assert main(["fit", "--config", "quickstart", "--config", "bad.yaml", *SMALL, *batch]) == 1
        assert "epoch 0" in capsys.readouterr().err
        assert not list(Path(run).glob("checkpoints/*.ckpt"))


def test_a_real_full_disk_is_named(tmp_path: Path) -> None:
    from lightning_repshape.callbacks import checkpoints
    from lightning_repshape.errors import CheckpointError

    @contextmanager
    def full(path: object) -> Iterator[Path]:
        yield Path("/dev/full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "written_atomically", full)
        with pytest.raises(CheckpointError, match="could not be written"):
            checkpoints.save_checkpoint({"state_dict": {"w": torch.zeros(100_000)}}, tmp_path / "last.ckpt")


def test_runs_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    from lightning_repshape.runs.folders import claim_folder

    (tmp_path / "made").mkdir()
    names = [claim_folder(tmp_path / name).name for name in ("run", "run", "run", "made", "made")]
    assert names == ["run", "run-2", "run-3", "made", "made-2"]


def test_a_config_in_a_project_folder_is_no_run() -> None:
    assert main(["configs", "copy", "quickstart", "config.yaml"]) == 0
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert main(["validate", "--config", "config.yaml", "--ckpt_path", "none", *quiet]) == 0
    assert not Path("manifest.json").exists()


def test_later_commands_leave_the_runs_record_and_figures_alone() -> None:
    assert fit() == 0
    manifest = json.loads(Path("runs/quickstart/manifest.json").read_text())
    before, rows = metrics("runs/quickstart"), Path("runs/quickstart/metrics.csv").read_bytes()
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert main(["test", "--run_dir", "runs/quickstart", "--ckpt_path", "none", "--seed_everything", "7", *quiet]) == 0
    after = json.loads(Path("runs/quickstart/manifest.json").read_text())
    for key in ("seed", "data", "versions", "created", "machine"):
        assert after[key] == manifest[key]
    assert after["sessions"][-1]["seed"] == 7
    assert after["sessions"][-1]["checkpoint"] is None
    assert after["sessions"][-1]["figures"]["test/error"] > 0.5
    assert metrics("runs/quickstart") == before
    assert Path("runs/quickstart/metrics.csv").read_bytes() == rows


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_precisions(precision: str) -> None:
    assert fit("--trainer.precision", precision) == 0
    assert metrics("runs/quickstart")["test/error"] < 0.9


def test_a_checkpoint_from_python_is_tested_with_a_config() -> None:
    from lightning.pytorch import Trainer

    from lightning_repshape import MLP, DigitsDataModule, SupervisedModule

    data = DigitsDataModule()
    module = SupervisedModule(10, data.input_shape, backbone=lambda shape: MLP(shape, widths=(100, 100, 100)))
    trainer = Trainer(max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(module, data)
    trainer.save_checkpoint("mine.ckpt")
    words = ["--ckpt_path", "mine.ckpt", "--run_dir", "mine", "--trainer.enable_progress_bar", "false"]
    assert main(["test", "--config", "quickstart", *words]) == 0
    assert metrics("mine")["test/error"] == pytest.approx(trainer.test(module, data, verbose=False)[0]["test/error"])


def test_the_users_own_checkpoint_callback_and_no_logger() -> None:
    own = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {filename: mine, save_top_k: -1}}"
    best = "{class_path: BestCheckpoint, init_args: {monitor: val/loss}}"
    Path("own.yaml").write_text(f"trainer: {{logger: false, callbacks: [{own}, {best}]}}")
    assert fit("--config", "own.yaml") == 0
    found = torch.load("runs/quickstart+own/checkpoints/best.ckpt", weights_only=True)
    assert found["callbacks"]["BestCheckpoint"]["monitor"] == "val/loss"
    assert not Path("runs/quickstart+own/metrics.csv").exists()
    assert fit("--trainer.enable_checkpointing", "false", "--run_dir", "none") == 0
    assert "test/error" in metrics("none")


def test_a_module_that_logs_nothing_to_monitor_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("monitor.yaml").write_text(
        "trainer: {callbacks: [{class_path: BestCheckpoint, init_args: {monitor: val/eror}}]}"
    )
    assert fit("--config", "monitor.yaml") == 2
    assert "did you mean 'val/error'" in capsys.readouterr().err


def test_label_smoothing_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model.label_smoothing", "2") == 2
    assert "label_smoothing is 2.0" in capsys.readouterr().err
