"""A handful of kills; ``benchmarks/kill_sweep.py`` tries all of them."""

import os
import signal
from pathlib import Path

import pytest
from kill_points import go_on_with_run, sweep
from small_runs import BASE, RUNS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of this process")
def test_a_run_that_is_killed_at_a_file_operation_goes_on_exactly(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "own.yaml").write_text(RUNS["autoencoder"])
    folder = tmp_path / "run"
    configs = ["--config", str(tmp_path / "base.yaml"), "--config", str(tmp_path / "own.yaml")]

    def chosen(found: list[str]) -> list[int]:
        renamed = [number for number, line in enumerate(found, 1) if line.startswith("os.rename")]
        checkpoints = [number for number in renamed if "last.ckpt" in found[number - 1]]
        # Before the last epoch's checkpoint, after it, and between training and test.
        return [checkpoints[-1], checkpoints[-1] + 1, renamed[renamed.index(checkpoints[-1]) + 2]]

    tried, faults = sweep(["fit", *configs, "--run_dir", str(folder)], folder, go_on_with_run, chosen)
    assert (tried, faults) == (3, [])


def test_leftovers_of_living_processes_stay(tmp_path: Path) -> None:
    from lightning_repshape.runs.files import remove_leftovers

    (tmp_path / "analysis").mkdir()
    names = {number: tmp_path / "analysis" / f".lda.json.{number}.part" for number in (os.getpid(), os.getppid())}
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    names[child] = tmp_path / f".metrics.csv.{child}.part"
    for path in names.values():
        path.touch()
    remove_leftovers(tmp_path)
    assert [path for path in names.values() if path.exists()] == [names[os.getppid()]]
