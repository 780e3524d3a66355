"""Studies: what is trained, in which order, never twice; interruptions, failures and rivals; local, Ray and SLURM."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from lightning_repshape.cli import main
from lightning_repshape.cli import study as study_cli
from lightning_repshape.errors import ConfigError
from lightning_repshape.runs.files import read_json
from lightning_repshape.studies import executors
from lightning_repshape.studies.executors import (
    Executor,
    LocalExecutor,
    RayExecutor,
    SlurmExecutor,
    Task,
    claimed,
    is_claimed,
)
from lightning_repshape.studies.jobs import Budget, Cell, open_results, read_run
from lightning_repshape.studies.live import LiveTable
from lightning_repshape.studies.reading import find_studies
from lightning_repshape.studies.runner import Progress, Runner

STANDIN = (sys.executable, str(Path(__file__).parents[1] / "standin_fit.py"))
STUDY = {
    "format": 1,
    "data": "digits",
    "configs": ["base/digits-mlp"],
    "figures": {"error": {"metric": "test/error", "scale": 100, "unit": "%"}},
    "seeds": [0, 1, 2],
    "select": {"option": "model.init_args.regularizers.init_args.weight", "values": [0.1, 1, 10]},
    "baseline": "baseline",
    "methods": {"baseline": {"select": False}, "cw_vr": {"configs": ["method/cw-vr"]}},
}


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "trace.txt"
    path.touch()
    monkeypatch.setenv("STANDIN_TRACE", str(path))
    return path


def cells(tmp_path: Path, budget: Budget | None = None, **changes: Any) -> list[Cell]:
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}))
    results = open_results(tmp_path / "results", create=True)
    return [Cell(row, results, budget or Budget()) for row in find_studies(str(file))[0].rows]


def runner(own: Sequence[Cell], executor: Executor | None = None, **options: Any) -> Runner:
    return Runner(own, executor or LocalExecutor(2), command=STANDIN, **options)


def epochs(trace: Path) -> Counter[tuple[str, str]]:
    return Counter((line.split()[0], line.split()[1]) for line in trace.read_text().splitlines())


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def test_choice_then_trainings_and_nothing_twice(tmp_path: Path, trace: Path) -> None:
    own = cells(tmp_path)
    baseline, penalised = runner(own).run()
    assert (baseline.count("finished"), baseline.total) == (3, 3)
    # 0.1, 1 and 10 with the first seed, then the best of them (1) with the others: the first seed serves both.
    assert (penalised.value, penalised.count("finished"), penalised.total) == ("1", 5, 5)
    assert sorted(figures["test/error"] for figures in penalised.figures) == [0.0, 0.01, 0.02]
    leaves = {path.name for path in (tmp_path / "results" / "my" / "default" / "cw_vr").iterdir()}
    assert leaves == {"value-0.1_seed-0", "value-10_seed-0", *(f"value-1_seed-{seed}" for seed in range(3))}
    before = trace.read_text()
    assert set(epochs(trace).values()) == {1}, "no epoch was trained twice"
    assert [own.count("finished") for own in runner(own).run()] == [3, 5]
    assert trace.read_text() == before, "what is finished is not trained again"


def test_budgets_have_runs_of_their_own(tmp_path: Path, trace: Path) -> None:
    own = cells(tmp_path, Budget(epochs=0.5, select_epochs=0.25, seeds=1))
    penalised = runner(own).run()[1]
    folder = tmp_path / "results" / "my" / "default" / "cw_vr"
    assert {path.name for path in folder.iterdir()} == {
        *(f"value-{value}_budget-0.25_seed-0" for value in ("0.1", "1", "10")),
        "value-1_budget-0.5_seed-0",
    }
    assert penalised.total == 4
    assert read_json(folder / "value-1_budget-0.5_seed-0" / "manifest.json")["study"]["epochs"] == 0.5


def test_a_failed_seed_is_kept_and_anew_only_when_asked(
    tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_FAILS", "2")
    progress = runner(cells(tmp_path)).run()
    assert [own.count("failed") for own in progress] == [1, 1]
    assert progress[0].error == "this seed fails"
    run = read_run(tmp_path / "results/my/default/baseline/seed-2")
    assert (run.state, run.error, run.manifest["study"]["seed"]) == ("failed", "this seed fails", 2)
    monkeypatch.delenv("STANDIN_FAILS")
    assert [own.count("failed") for own in runner(cells(tmp_path)).run()] == [1, 1]
    assert [own.count("finished") for own in runner(cells(tmp_path), retry_failed=True).run()] == [3, 5]


def test_no_choice_without_validation_figures(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_FAILS", "0")  # the seed that choices are made with
    penalised = runner(cells(tmp_path)).run()[1]
    assert (penalised.value, penalised.count("failed"), penalised.total) == (None, 3, 3)


def test_an_interrupted_training_goes_on_from_its_checkpoint(
    tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_SECONDS", "0.25")
    killed: list[int] = []

    def kill_once(progress: Sequence[Progress]) -> None:
        lines = trace.read_text().splitlines()
        if lines and not killed and "1" <= lines[-1].split()[1] <= "3":
            killed.append(int(lines[-1].split()[2]))
            os.kill(killed[0], signal.SIGKILL)

    progress = runner(cells(tmp_path, Budget(seeds=1)), LocalExecutor(1), watch=kill_once).run()
    assert killed and [own.count("finished") for own in progress] == [1, 3]
    again = Counter(name for name, _ in epochs(trace).elements())
    assert all(count <= 6 for count in again.values()), "at most the epoch that was under way is trained again"


def test_a_training_that_is_always_killed_is_given_up(tmp_path: Path, trace: Path) -> None:
    command = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    own = Runner(cells(tmp_path, Budget(seeds=1))[:1], LocalExecutor(1), command=command, retries=1)
    (progress,) = own.run()
    assert progress.count("failed") == 1 and "interrupted too often" in progress.error
    assert read_run(own.cells[0].repeats(None)[0].folder).state == "failed", "others and the report see it, too"
    log = (tmp_path / "results/logs/my/default/baseline/seed-0.txt").read_text()
    assert log.count("$ lightning-repshape fit") == 2  # once, and one retry


def test_two_runners_share_the_work(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_SECONDS", "0.05")
    results: list[list[Progress]] = []
    own = cells(tmp_path)
    threads = [threading.Thread(target=lambda: results.append(runner(own).run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [[cell.count("finished") for cell in progress] for progress in results] == [[3, 5], [3, 5]]
    assert set(epochs(trace).values()) == {1}, "no epoch was trained by both"


def test_ctrl_c_leaves_a_state_that_goes_on(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_SECONDS", "0.3")

    def interrupt(progress: Sequence[Progress]) -> None:
        if trace.read_text():
            raise KeyboardInterrupt

    own = cells(tmp_path, Budget(seeds=1))
    with pytest.raises(KeyboardInterrupt):
        runner(own, watch=interrupt).run()
    states = [read_run(job.folder).state for cell in own for job in cell.choices() or cell.repeats(None)]
    assert states.count("interrupted") == 2 and not any(is_claimed(job.lock) for job in own[0].repeats(None))
    monkeypatch.setenv("STANDIN_SECONDS", "0.01")
    assert [one.count("finished") for one in runner(own).run()] == [1, 3]


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


def test_results_of_another_version_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "studies.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ConfigError, match="format 99, but this version"):
        open_results(tmp_path, create=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="holds something else"):
        open_results(tmp_path / "other", create=True)
    with pytest.raises(ConfigError, match="holds no results"):
        open_results(tmp_path / "nowhere")


def test_a_corrupt_run_folder_is_named_and_not_touched(tmp_path: Path, trace: Path) -> None:
    own = cells(tmp_path, Budget(seeds=1))[:1]
    folder = own[0].repeats(None)[0].folder
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{ half")
    (progress,) = runner(own).run()
    assert progress.count("failed") == 1 and str(folder) in progress.error
    assert (folder / "manifest.json").read_text() == "{ half"


def test_a_run_of_yesterdays_row_is_not_taken_for_todays(tmp_path: Path, trace: Path) -> None:
    real = cells(tmp_path, Budget(seeds=1))[:1]
    runner(real).run()
    file = real[0].repeats(None)[0].folder / "manifest.json"
    manifest = read_json(file)
    file.write_text(json.dumps({**manifest, "study": real[0].repeats(None)[0].about()}))
    assert runner(real).run()[0].count("finished") == 1
    (progress,) = runner(cells(tmp_path, Budget(seeds=1), overrides={"trainer.max_epochs": 7})[:1]).run()
    assert progress.count("failed") == 1 and "had other configs or overrides" in progress.error


def test_different_values_have_different_folders(tmp_path: Path) -> None:
    select = {**STUDY["select"], "values": [1, -1, [1], "a b", "a-b"]}
    choices = cells(tmp_path, select=select)[1].choices()
    assert len({job.leaf.lower() for job in choices}) == 5 and choices[0].leaf == "value-1_seed-0"
    with pytest.raises(ConfigError, match="names one twice"):
        cells(tmp_path, select={**select, "values": [1, 1.0]})


def test_many_may_begin_a_folder_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib; from lightning_repshape.studies import jobs; "
    code += "jobs.open_results(pathlib.Path(sys.argv[1]), create=True)"
    for number in range(3):
        words = [sys.executable, "-c", code, str(tmp_path / str(number))]
        begun = [subprocess.Popen(words, stderr=subprocess.PIPE) for _ in range(4)]
        assert [process.wait() for process in begun] == [0] * 4


def test_gpus_are_those_that_the_user_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert study_cli._gpus() == ["2", "3"]
    seen: list[str] = []
    monkeypatch.setattr(executors, "train", lambda task, stopped: seen.append(task.environment["CUDA_VISIBLE_DEVICES"]))
    executor = LocalExecutor(2, ["2", "3"])
    for job in cells(tmp_path)[0].repeats(None)[:2]:
        executor.submit(Task(job, (), (), False, {}, STANDIN, "."))
    wait_for(lambda: len(seen) == 2)
    assert sorted(seen) == ["2", "3"]


def test_the_live_table(tmp_path: Path, trace: Path) -> None:
    own = cells(tmp_path)
    shown: list[str] = []
    studies = find_studies(str(tmp_path / "my.yaml"))
    live = LiveTable(studies, 2, Console(width=120))

    def look(progress: Sequence[Progress]) -> None:
        console = Console(width=120, record=True, file=open(os.devnull, "w"))
        console.print(live.table(progress))
        shown.append(console.export_text())

    runner(own, watch=look).run()
    assert "my/default/cw_vr" in shown[0] and "0 of 8 trainings done" in shown[0]
    assert "8 of 8 trainings done" in shown[-1] and "0.00 %" in shown[-1] and "5/5" in shown[-1]
    # In a low terminal the rows that run are kept.
    assert len(live.table(runner(own).progress(), room=1).rows) == 1


def test_studies_may_share_their_trainings(tmp_path: Path, trace: Path) -> None:
    table = {key: value for key, value in STUDY.items() if key != "format"}
    file = tmp_path / "my.yaml"

    def written(**changes: Any) -> list[Cell]:
        second = {**table, "figures": {"loss": "test/loss"}, "trainings": "first", **changes}
        file.write_text(yaml.safe_dump({"format": 1, "studies": {"first": table, "second": second}}))
        results = open_results(tmp_path / "results", create=True)
        return [Cell(row, results) for study in find_studies(str(file)) for row in study.rows]

    own = written()
    assert [one.count("finished") for one in runner(own).run()] == [3, 5, 3, 5]
    assert set(epochs(trace).values()) == {1} and not (tmp_path / "results" / "my" / "second").exists()
    with pytest.raises(ConfigError, match=r"default/baseline is not trained in first, or not in the same way"):
        written(seeds=[1])
    with pytest.raises(ConfigError, match=r"no study 'frist' stands before; did you mean 'first'"):
        written(trainings="frist")


@pytest.fixture(scope="module")
def ray_of_two() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    yield
    ray.shutdown()


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


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "aaai19/table-77"], "did you mean 'aaai19/table-7'"),
        (["run", "none.yaml"], "there is no file of studies none.yaml"),
        (["run", "aaai19/table-7", "--filter", "cw_rv"], "did you mean 'cw_vr'"),
        (["run", "aaai19/table-7", "--budget", "2"], "fraction of the epochs in (0, 1]"),
        (["run", "aaai19/table-7", "--jobs", "0"], "--jobs is 0"),
        (["run", "aaai19/table-7", "--", "--trainer.max_epochs", "1"], "stands in the study's file"),
        (["run", "aaai19/table-7", "--", "-c", "other.yaml"], "-c changes what is trained"),
        (["run", "aaai19/table-7", "--gpus", "1"], "--gpus has no meaning with --executor local"),
        (["run", "aaai19/table-7", "--budget", "x"], "invalid float value"),
        (["list", "aaai19", "--", "--threads", "1"], "nothing stands behind '--'"),
        (["report", "aaai19/table-7", "--out", "nowhere"], "holds no results of studies"),
    ],
)
def test_wrong_calls_end_in_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_row_that_overrides_what_does_not_exist_ends_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(yaml.safe_dump({**STUDY, "overrides": {"trainer.epochs": 3}}))
    assert main(["study", "run", "my.yaml"]) == 2
    error = capsys.readouterr().err
    assert "my/default/baseline" in error and "'trainer.epochs'" in error
    assert not list(Path("studies").rglob("manifest.json"))


def test_list_show_and_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", "list", "--filter", "MNIST"]) == 0
    assert "aaai19/table-7" in capsys.readouterr().out
    assert main(["study", "list", "aaai19/table-7", "--rows", "--filter", "default+cw_vr"]) == 0
    assert capsys.readouterr().out.split() == ["aaai19/table-7/default/cw_vr"]
    assert main(["study", "show", "aaai19/table-7", "--commands"]) == 0
    shown = capsys.readouterr().out
    assert "2.42 ± 0.06" in shown and "fit --row aaai19/table-7/width-8/cw_vr" in shown
    assert (
        main(
            ["study", "run", "aaai19/table-7", "--dry_run", "--filter", "default+cw_vr", "--filter", "default+baseline"]
        )
        == 0
    )
    assert "15 trainings left" in capsys.readouterr().out
    assert not Path("studies").exists()


@pytest.mark.timeout(240)
def test_a_study_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The guide's own example: data and network of the user's own, found beside the study's file.
    example = Path(__file__).parents[2] / "docs" / "examples" / "own_study"
    shutil.copytree(example, tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    words = ["own/wine.yaml", "--filter", "clean+baseline", "--filter", "clean+cw_vr"]
    content = yaml.safe_load(Path("own/wine.yaml").read_text())
    content["select"]["values"] = [1]
    Path("own/wine.yaml").write_text(yaml.safe_dump(content))
    assert main(["study", "run", *words, "--budget", "0.5", "--jobs", "2", "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "finished wine/clean/cw_vr/value-1_budget-0.5_seed-0" in printed and "report.html" in printed
    assert "wine: error (%)" in printed and "less than the whole budget" in printed
    manifest = read_json(Path("studies/wine/clean/cw_vr/value-1_budget-0.5_seed-0/manifest.json"))
    assert manifest["study"]["row"] == "wine/clean/cw_vr" and manifest["sessions"][0]["epochs"] == 10
    assert "--row own/wine.yaml:clean/cw_vr" in manifest["sessions"][0]["command"]
    assert main(["study", "report", "own/wine.yaml", "--check"]) == 0
    assert "every number has its run" in capsys.readouterr().out
