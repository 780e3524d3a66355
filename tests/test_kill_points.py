"""A handful of kills; ``benchmarks/kill_sweep.py`` tries all of them."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_points import differences, go_on_with_run, kept, operation, run, sweep
from small_runs import BASE, RUNS, unrendered

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of this process")
AVERAGED = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.StochasticWeightAveraging
      init_args: {swa_lrs: 0.01, swa_epoch_start: 1}
"""


@pytest.fixture(autouse=True)
def _unrendered() -> Iterator[None]:
    with unrendered():
        yield


def renamings(states: list[Path], name: str) -> list[int]:
    """The states with a half-written file of a name."""
    found = [(number, operation(state)) for number, state in enumerate(states)]
    return [number for number, text in found if f"/.{name}." in text and text.endswith("(half-written)")]


def words(tmp_path: Path, own: str) -> list[str]:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "own.yaml").write_text(own)
    configs = ["--config", str(tmp_path / "base.yaml"), "--config", str(tmp_path / "own.yaml")]
    return ["fit", *configs, "--run_dir", str(tmp_path / "run")]


def test_a_run_that_is_killed_at_a_file_operation_goes_on_exactly(tmp_path: Path) -> None:
    def chosen(states: list[Path]) -> list[Path]:
        # In the writing of the last epoch's checkpoint, and in that of the test's curves.
        return [states[renamings(states, name)[-1]] for name in ("last.ckpt", "metrics.csv")]

    fit = words(tmp_path, RUNS["autoencoder"])
    assert sweep(fit, tmp_path / "run", go_on_with_run, chosen) == (2, [])


def test_an_average_is_not_lost_between_the_last_epoch_and_the_end(tmp_path: Path) -> None:
    def chosen(states: list[Path]) -> list[Path]:
        return [states[renamings(states, "last.ckpt")[-1]]]

    fit = [*words(tmp_path, AVERAGED), "--then_test", "false"]
    assert sweep(fit, tmp_path / "run", go_on_with_run, chosen) == (1, [])


def test_a_kill_leaves_what_was_kept(tmp_path: Path) -> None:
    fit = [*words(tmp_path, "trainer: {}"), "--trainer.max_epochs", "1", "--then_test", "false"]
    folder = tmp_path / "run"
    states = kept(fit, folder)
    number = renamings(states, "last.ckpt")[-1]
    at = int((states[number] / "number").read_text()) + 1  # renamed by then
    later = next(state for state in states if int((state / "number").read_text()) >= at)
    shutil.rmtree(folder)
    assert run(fit, folder, int((later / "number").read_text())) == -signal.SIGKILL
    assert differences(later / "folder", folder) == []


def test_a_file_s_leftovers_go_when_it_is_written_again(tmp_path: Path) -> None:
    from lightning_repshape.runs.files import write_json

    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    for name in ("report.json", "other.json"):
        (tmp_path / f".{name}.{child}.part").touch()
    write_json(tmp_path / "report.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".other.json.{child}.part", "report.json"]


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
