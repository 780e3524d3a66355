"""An interrupted and resumed run equals an uninterrupted one, to the bit."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_runs import QUIET, checkpoint, metrics, rows, same
from small_runs import unrendered

from lightning_repshape.cli import main

SUPERVISED = """
model:
  class_path: SupervisedModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [24, 24], dropout: 0.3, batch_norm: true}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 2.0e-3}}
    lr_scheduler: {class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 4}}
"""
FOCA = """
model:
  class_path: FOCAModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [24, 24], batch_norm: true}}
    weak:
      hidden: [16]
      updates: 8
    secondary:
      hidden: [16]
      updates: 20
    draw:
      num_classifiers: 2
    phi:
      accumulate: 3
      updates: 2
    val_classifiers: 2
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0e-2, momentum: 0.9}}
    lr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 2}}
"""
PLATEAU = SUPERVISED.replace(
    "{class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 4}}",
    "{class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {monitor: val/loss, patience: 0, threshold: 9}}",
)
REGULARIZED = """
model:
  class_path: RegularizedModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [24, 24]}}
    regularizers:
      - {class_path: ClasswiseCovariance, init_args: {weight: 1.0, warmup_epochs: 3.5}}
      - {class_path: L2Weight, init_args: {weight: 1.0e-3, scope: all}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 2.0e-3}}
"""
# Behind DATA, whose trainer they complete: the same inside a module that knows nothing of it.
PENALTIES = """
  callbacks:
    - class_path: LayerPenalty
      init_args:
        layer: backbone.fc1
        regularizer: {class_path: Variance, init_args: {weight: 1.0, warmup_epochs: 3.5}}
"""
DATA = """
data: {class_path: DigitsDataModule, init_args: {batch_size: 100, augment: shift}}
then_test: true
trainer:
  max_epochs: 4
  log_every_n_steps: 5
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run of SUPERVISED that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "config.yaml").write_text(SUPERVISED + DATA)
    run = str(folder / "run")
    assert main(["fit", "--config", str(folder / "config.yaml"), *QUIET, "--run_dir", run]) == 0
    return run


@pytest.mark.parametrize(
    "method", [SUPERVISED, PLATEAU, FOCA, REGULARIZED], ids=["supervised", "plateau", "foca", "regularized"]
)
def test_interrupted_within_an_epoch_and_resumed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.yaml").write_text(method + DATA + (PENALTIES if method == REGULARIZED else ""))
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "whole"]) == 0

    from lightning_repshape.callbacks import Reseeding

    seed = Reseeding.on_train_batch_start

    def interrupt(self: Reseeding, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2 and batch_idx == 5:
            raise RuntimeError("the power failed")
        seed(self, trainer, module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Reseeding, "on_train_batch_start", interrupt)
        assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "parts"]) == 1
    assert checkpoint("parts")["epoch"] == 1
    assert main(["fit", "--run_dir", "parts", "--ckpt_path", "last", *QUIET]) == 0
    assert not Path("parts-2").exists()

    for name in ("last", "best"):
        whole, parts = checkpoint("whole", name), checkpoint("parts", name)
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            assert same(whole[key], parts[key]), (name, key)
    assert rows("whole") == rows("parts")


def test_killed_process_goes_on() -> None:
    Path("config.yaml").write_text(SUPERVISED + DATA)
    words = [sys.executable, "-m", "lightning_repshape.cli", "fit", "--config", "config.yaml", *QUIET]
    long = ["--trainer.max_epochs", "2000", "--run_dir", "killed", "--then_test", "false"]
    process = subprocess.Popen([*words, *long], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = Path("killed/checkpoints/last.ckpt")
    for _ in range(3000):  # on a busy machine, its imports alone take a minute
        if last.is_file():
            break
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = checkpoint("killed")["epoch"]
    epochs = str(reached + 3)
    resumed = ["--run_dir", "killed", "--ckpt_path", "last", "--trainer.max_epochs", epochs]
    assert main(["fit", "--config", "config.yaml", *QUIET, *resumed]) == 0
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "whole", "--trainer.max_epochs", epochs]) == 0
    assert same(checkpoint("whole")["state_dict"], checkpoint("killed")["state_dict"])
    assert [row for row in rows("whole") if "train/error" in row] == [
        row for row in rows("killed") if "train/error" in row
    ]
    assert not list(Path("killed").rglob("*.part"))


def test_a_moved_run_keeps_its_best_checkpoint() -> None:
    Path("config.yaml").write_text(SUPERVISED + DATA)
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "here"]) == 0
    best = checkpoint("here", "best")
    score = float(best["callbacks"]["BestCheckpoint"]["best_model_score"])
    Path("here").rename("there")
    # Training that can only get worse: what was best has to stay.
    words = [
        "--run_dir",
        "there",
        "--ckpt_path",
        "last",
        "--trainer.max_epochs",
        "5",
        "--trainer.limit_val_batches",
        "1",
    ]
    assert main(["fit", *words, *QUIET]) == 0
    state = checkpoint("there")["callbacks"]["BestCheckpoint"]
    assert float(state["best_model_score"]) <= score
    assert Path(state["best_model_path"]) == Path("there/checkpoints/best.ckpt").resolve()
    assert not Path("here").exists()


LIMITS = {
    "steps": ["--trainer.max_epochs", "-1", "--trainer.max_steps"],
    "steps-accumulated": [
        "--trainer.accumulate_grad_batches",
        "5",
        "--trainer.max_epochs",
        "-1",
        "--trainer.max_steps",
    ],
    "steps-foca": ["--trainer.max_epochs", "-1", "--trainer.max_steps"],
    "steps-validated-often": [
        *("--trainer.val_check_interval", "7", "--trainer.check_val_every_n_epoch", "null"),
        *("--trainer.max_epochs", "-1", "--trainer.max_steps"),
    ],
    "epochs-validated-often": ["--trainer.val_check_interval", "0.25", "--trainer.max_epochs"],
    "epochs-validated-seldom": ["--trainer.check_val_every_n_epoch", "2", "--trainer.max_epochs"],
}


def equal(one: str, other: str) -> None:
    """Asks for the same weights, curves and figures in two run folders."""
    for name in ("last", "best"):
        whole, parts = checkpoint(one, name), checkpoint(other, name)
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            assert same(whole[key], parts[key]), (name, key)
    assert Path(one, "metrics.csv").read_bytes() == Path(other, "metrics.csv").read_bytes()
    assert Path(one, "metrics.json").read_bytes() == Path(other, "metrics.json").read_bytes()


@pytest.mark.proof
@pytest.mark.parametrize("kind", LIMITS)
def test_a_limit_that_is_raised(kind: str) -> None:
    Path("config.yaml").write_text((FOCA if "foca" in kind else SUPERVISED) + DATA)
    limits = (1, 2, 4) if "epochs" in kind else (2, 9, 14) if "accumulated" in kind else (5, 28, 60)
    limits = limits if kind in ("steps", "epochs-validated-seldom") else limits[1:]  # one raise says as much
    fit = ["fit", "--config", "config.yaml", *QUIET, *LIMITS[kind]]
    assert main([*fit, str(limits[-1]), "--run_dir", "whole"]) == 0
    assert main([*fit, str(limits[0]), "--run_dir", "parts"]) == 0
    first = checkpoint("parts")
    for limit in limits[1:]:
        assert main([*fit, str(limit), "--run_dir", "parts", "--ckpt_path", "last"]) == 0
    equal("whole", "parts")
    assert first["global_step"] < checkpoint("parts")["global_step"]


@pytest.mark.proof
@pytest.mark.parametrize("step", [5, 28])
def test_a_limited_time_that_is_raised(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.callbacks import Timer

    Path("config.yaml").write_text(SUPERVISED + DATA)
    fit = ["fit", "--config", "config.yaml", *QUIET, "--trainer.accumulate_grad_batches", "3", "--trainer.max_time"]
    assert main([*fit, "00:01:00:00", "--run_dir", "whole"]) == 0

    def stop(self: Timer, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = trainer.fit_loop.total_batch_idx >= step

    with monkeypatch.context() as patch:
        patch.setattr(Timer, "on_train_batch_end", stop)
        assert main([*fit, "00:00:00:30", "--run_dir", "parts"]) == 0
    assert main([*fit, "00:01:00:00", "--run_dir", "parts", "--ckpt_path", "last"]) == 0
    equal("whole", "parts")


def test_a_limited_run_that_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_repshape.callbacks import Reseeding

    Path("config.yaml").write_text(SUPERVISED + DATA)
    fit = ["fit", "--config", "config.yaml", *QUIET, "--trainer.max_steps", "60"]
    assert main([*fit, "--run_dir", "whole"]) == 0
    seed = Reseeding.on_train_batch_start

    def interrupt(self: Reseeding, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2 and batch_idx == 5:
            raise RuntimeError("the power failed")
        seed(self, trainer, module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Reseeding, "on_train_batch_start", interrupt)
        assert main([*fit, "--run_dir", "parts"]) == 1
    assert main(["fit", "--run_dir", "parts", "--ckpt_path", "last", *QUIET]) == 0
    equal("whole", "parts")
    assert not list(Path("parts").rglob(".*.part"))


AVERAGES = {
    "ema": "{class_path: lightning.pytorch.callbacks.EMAWeightAveraging, init_args: {decay: 0.99}}",
    "swa": "{class_path: lightning.pytorch.callbacks.StochasticWeightAveraging, "
    "init_args: {swa_lrs: 0.01, swa_epoch_start: 2}}",
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_one_checkpoint_of_averaged_weights_has_one_number(kind: str) -> None:
    Path("config.yaml").write_text(SUPERVISED.replace(", batch_norm: true", "") + DATA)
    with Path("config.yaml").open("a") as file:
        file.write(f"  callbacks: [{AVERAGES[kind]}]")
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "run"]) == 0
    assert "Unable to serialize" not in Path("run/config.yaml").read_text()  # of SWA's default device
    tested = metrics("run")["test/error"]
    assert main(["test", "--run_dir", "run", *QUIET]) == 0
    assert metrics("run")["test/error"] == tested
    last = checkpoint("run")
    if kind == "ema":
        assert not same(last["state_dict"], last["current_model_state"])
    else:  # the average of the last epochs, and what goes on
        average = last["callbacks"]["StochasticWeightAveraging"]["average_model_state"]
        assert all(same(last["state_dict"][name], value) for name, value in average.items() if "backbone" in name)
        assert not same(last["state_dict"], last["go_on_from"]["state_dict"])


@pytest.mark.proof
@pytest.mark.parametrize("method", [SUPERVISED, FOCA], ids=["supervised", "foca"])
def test_a_plateau_is_looked_for_after_validations_only(method: str) -> None:
    start = method.index("    lr_scheduler:")
    plateau = "{class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {monitor: val/error, patience: 100}}"
    Path("config.yaml").write_text(f"{method[:start]}    lr_scheduler: {plateau}\n" + DATA)
    fit = ["fit", "--config", "config.yaml", *QUIET, "--trainer.check_val_every_n_epoch", "2"]
    assert main([*fit, "--run_dir", "whole"]) == 0
    assert checkpoint("whole")["lr_schedulers"][0]["last_epoch"] == 2
    assert main([*fit, "--run_dir", "parts", "--trainer.max_epochs", "3"]) == 0
    assert main([*fit, "--run_dir", "parts", "--ckpt_path", "last"]) == 0
    equal("whole", "parts")


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"TORCHELASTIC_RUN_ID": "4242", "TORCHELASTIC_RESTART_COUNT": "1"},
    ],
    ids=["slurm", "torchrun"],
)
def test_the_same_command_of_a_job_goes_on(
    environment: dict[str, str], epoch: int, whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_repshape.callbacks import Reseeding

    Path("config.yaml").write_text(SUPERVISED + DATA)
    fit = ["fit", "--config", "config.yaml", *QUIET, "--run_dir"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seed = Reseeding.on_train_batch_start

    def stop(self: Reseeding, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == epoch and batch_idx == 5:
            if "SLURM_JOB_ID" in environment:
                trainer.save_checkpoint("parts/hpc_ckpt_1.ckpt")  # as SLURM's signal does
            raise KeyboardInterrupt
        seed(self, trainer, module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Reseeding, "on_train_batch_start", stop)
        assert main([*fit, "parts"]) == 130
    assert main([*fit, "parts"]) == 0
    assert not Path("parts-2").exists()
    assert not list(Path("parts").glob("hpc*"))
    equal(whole, "parts")
    if epoch:
        return
    monkeypatch.setenv("SLURM_JOB_ID", "4243")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "4243")
    assert main([*fit, "parts", "--trainer.max_epochs", "1"]) == 0  # another job's is another run
    assert Path("parts-2").exists()


def test_what_a_complete_run_lacks_is_made_up_for() -> None:
    Path("config.yaml").write_text(SUPERVISED.replace(", batch_norm: true", "") + DATA)
    with Path("config.yaml").open("a") as file:
        file.write(
            "  callbacks: [{class_path: LDAEigenvalues, init_args: {when: fit}}, {class_path: SeparabilityCurve}]"
        )
    fit = ["fit", "--config", "config.yaml", *QUIET, "--run_dir", "run", "--then_test", "false"]
    names = ["metrics.json", "analysis/lda.json", "analysis/separability_curve.json"]
    with unrendered():
        assert main([*fit, "--trainer.max_epochs", "1"]) == 0
        before = {name: Path("run", name).read_bytes() for name in names}
        for name in names:  # as if it was killed right after its last checkpoint
            Path("run", name).unlink()
        assert main([*fit, "--trainer.max_epochs", "1", "--ckpt_path", "last"]) == 0
    assert {name: Path("run", name).read_bytes() for name in names} == before


def test_a_fast_run_names_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/config").mkdir(parents=True)
    Path("runs/config/kept").touch()
    Path("config.yaml").write_text(SUPERVISED + DATA)
    assert main(["fit", "--config", "config.yaml", *QUIET, "--trainer.fast_dev_run", "true"]) == 0
    assert "run folder" not in capsys.readouterr().out
    assert [path.name for path in Path("runs").rglob("*")] == ["config", "kept"]
