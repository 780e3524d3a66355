"""What is trained, in which order, never twice; interruptions, failures and rivals."""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from study_runs import cells, epochs, runner

from lightning_repshape.runs.files import read_json
from lightning_repshape.studies.executors import LocalExecutor, is_claimed
from lightning_repshape.studies.jobs import Budget, cells_of, read_run
from lightning_repshape.studies.live import LiveTable
from lightning_repshape.studies.reading import find_studies
from lightning_repshape.studies.runner import Progress, Runner


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


START = {"select": False, "methods": {"later": {"init_from": "plain"}, "plain": {}}, "baseline": "plain", "seeds": 2}


def test_a_training_starts_from_another_ones(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [cell for cell in cells(tmp_path, **START) if cell.row.method == "later"]
    results = tmp_path / "results"
    monkeypatch.setenv("STANDIN_FAILS", "1")
    later = runner(own).run()[0]  # what it starts from is trained first, though it was not named
    assert (later.count("finished"), later.count("failed"), later.total) == (1, 1, 2)
    assert later.error == "it starts from my/default/plain/seed-1, which has no finished training"
    assert not (results / "my/default/later/seed-1").exists()
    starts = [words for words in (results / "logs/my/default/later/seed-0.txt").read_text().split() if "ckpt" in words]
    assert starts == [str(results / "my/default/plain/seed-0/checkpoints/best.ckpt")]
    monkeypatch.delenv("STANDIN_FAILS")
    both = cells_of([cell.row for cell in own], results)
    assert [cell.row.method for cell in both] == ["plain", "later"]
    assert [one.count("finished") for one in runner(both, retry_failed=True).run()] == [2, 2]
    # what goes on needs no start
    (results / "my/default/later/seed-0/manifest.json").write_text('{"sessions": []}')
    runner(own).run()
    log = (results / "logs/my/default/later/seed-0.txt").read_text()
    assert log.count("--init_from") == 1 and "--ckpt_path last" in log


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
