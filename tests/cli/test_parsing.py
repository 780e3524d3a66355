"""A mistake ends in one sentence that says what, where and what to do."""

from pathlib import Path

import pytest
from cli_runs import fit

from lightning_repshape.cli import main

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
