"""Local processes, Ray and SLURM: claims, devices, and workers that die."""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from study_runs import STANDIN, STUDY, cells, epochs, runner, wait_for

from lightning_repshape.cli import study as study_cli
from lightning_repshape.runs.files import read_json
from lightning_repshape.studies import executors
from lightning_repshape.studies.executors import LocalExecutor, RayExecutor, SlurmExecutor, Task, claimed, is_claimed
from lightning_repshape.studies.jobs import Budget, Cell, open_results
from lightning_repshape.studies.reading import find_studies
from lightning_repshape.studies.runner import Progress, Runner


def test_a_claim_outlives_whoever_started_the_training(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "one.lock"
    with claimed(lock) as file:
        assert file is not None
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(file,))
    with claimed(lock) as second:
        assert second is None, "the process that trains has it still"
    process.kill()
    process.wait()
    assert not is_claimed(lock)


def test_gpus_are_those_that_the_user_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert study_cli._gpus() == ["2", "3"]
    seen: list[str] = []
    monkeypatch.setattr(executors, "train", lambda task, *rest: seen.append(task.environment["CUDA_VISIBLE_DEVICES"]))
    executor = LocalExecutor(2, ["2", "3"])
    for job in cells(tmp_path)[0].repeats(None)[:2]:
        executor.submit(Task(job, (), (), False, {}, STANDIN, "."))
    wait_for(lambda: len(seen) == 2)
    assert sorted(seen) == ["2", "3"]


@pytest.fixture(scope="module")
def ray_of_two() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", functools.partial(ray.init, num_cpus=2))
        executor = RayExecutor()
    assert signal.getsignal(signal.SIGTERM) is before, "Ray's own handler would outlive its cluster"
    yield
    executor.stop()
    assert not ray.is_initialized() and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.timeout(240)
def test_ray_loses_nothing_when_a_worker_is_killed(
    ray_of_two: None, tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    slow = {"STANDIN_TRACE": str(trace), "STANDIN_SECONDS": "0.3"}

    def kill_a_worker(progress: Sequence[Progress]) -> None:
        lines = trace.read_text().splitlines()
        if not killed and any(line.split()[1] == "1" for line in lines):
            training = int(lines[-1].split()[2])
            worker = int(Path(f"/proc/{training}/stat").read_text().rpartition(")")[2].split()[1])
            killed.append(worker)
            os.kill(worker, signal.SIGKILL)

    executor = RayExecutor()
    assert executor.slots == 2
    progress = runner(cells(tmp_path), executor, watch=kill_a_worker, environment=slow).run()
    assert killed, "no worker was killed"
    assert [own.count("finished") for own in progress] == [3, 5], "no run is lost"
    # Where the training outlived its worker, it is waited for; where it was killed, it goes on from its checkpoint.
    again = [count for count in epochs(trace).values() if count > 1]
    assert len(again) <= 1 and sum(again) <= 2, "only the epoch that was under way may be trained again"


@pytest.mark.proof
@pytest.mark.timeout(240)
def test_ray_and_local_processes_give_the_same_numbers(ray_of_two: None, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    overrides = {"trainer.callbacks": None, "trainer.max_epochs": 2}
    file.write_text(
        yaml.safe_dump({**STUDY, "overrides": overrides, "seeds": [0], "methods": {"baseline": {"select": False}}})
    )
    figures = []
    for name, executor in (("local", LocalExecutor(1)), ("ray", RayExecutor())):
        results = open_results(tmp_path / name, create=True)
        row = find_studies(str(file))[0].rows[0]
        (progress,) = Runner([Cell(row, results)], executor, environment={"OMP_NUM_THREADS": "1"}).run()
        assert progress.count("finished") == 1, progress.error
        figures.append(read_json(results / row.id / "seed-0" / "metrics.json"))
    assert figures[0] == figures[1] and figures[0]["test/error"] < 0.9


@pytest.mark.timeout(120)
def test_slurm_jobs_through_submitit(tmp_path: Path, trace: Path) -> None:
    pytest.importorskip("submitit", reason="the extra 'slurm' is not installed")
    executor = SlurmExecutor(tmp_path / "slurm", slots=2, cluster="local")
    progress = runner(cells(tmp_path, Budget(seeds=1)), executor, environment={"STANDIN_TRACE": str(trace)}).run()
    assert [own.count("finished") for own in progress] == [1, 3]
    assert set(epochs(trace).values()) == {1}
