"""Which trainings share a process, and what becomes of them when it dies or they cannot."""

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from standin_fit import main as standin
from study_runs import STUDY, cells

from lightning_repshape.cli.main import main
from lightning_repshape.studies import executors
from lightning_repshape.studies.calls import alike
from lightning_repshape.studies.executors import LocalExecutor, Task
from lightning_repshape.studies.jobs import Budget
from lightning_repshape.studies.runner import Runner

METHODS = {**STUDY["methods"], "l2w": {"configs": ["method/l2w"]}}
End = Callable[[int, int, str], str | None]  # of process, training and words: None where the process dies, or why not


class Processes:
    """The trainings of each process, which are made at once and here, and how they end."""

    def __init__(self) -> None:
        self.found: list[list[str]] = []
        self.end: End = lambda *_: ""

    def run(self, task: Task, words: Sequence[str], output: Any, claims: Sequence[int], *more: Any) -> int:
        if not more[2:]:
            self.found.append([task.job.leaf])
            return standin(list(words[1:]))
        folder = Path(words[0])
        trainings = [own["words"] for own in json.loads((folder / "trainings.json").read_text())["trainings"]]
        assert len(claims) == len(trainings)
        self.found.append([Path(own[-1]).name for own in trainings])
        with (folder / "ended.jsonl").open("w") as file:
            for number, own in enumerate(trainings):
                end = self.end(len(self.found), number, " ".join(own))
                if end is None:
                    return -signal.SIGKILL
                status = 75 if end else standin(own[1:])
                file.write(json.dumps({"number": number, "status": status, "apart": end}) + "\n")
        return 0


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    own = Processes()
    monkeypatch.setattr(executors, "_run", own.run)
    monkeypatch.setattr(executors, "can_fork", lambda: False)
    return own


def run(tmp_path: Path, stack: int, slots: int = 1) -> list[Any]:
    own = cells(tmp_path, Budget(seeds=1), methods=METHODS)
    executor = LocalExecutor(slots)
    progress = Runner(own, executor, stack=stack).run()
    executor.stop()
    return progress


def test_at_most_so_many_share_a_process(tmp_path: Path, trace: Path, processes: Processes) -> None:
    progress = run(tmp_path, 5)
    assert [own.count("finished") for own in progress] == [1, 3, 3]
    assert [len(own) for own in processes.found] == [5, 2]


def test_all_slots_have_some(tmp_path: Path, trace: Path, processes: Processes) -> None:
    assert [own.count("finished") for own in run(tmp_path, 8, slots=2)] == [1, 3, 3]
    assert sorted(len(own) for own in processes.found) == [3, 4]


def test_where_a_process_dies_its_unfinished_trainings_are_repeated(
    tmp_path: Path, trace: Path, processes: Processes
) -> None:
    processes.end = lambda process, number, words: None if process == 1 and number == 2 else ""
    assert [own.count("finished") for own in run(tmp_path, 8)] == [1, 3, 3]
    assert [len(own) for own in processes.found] == [7, 5]
    lines = trace.read_text().splitlines()
    assert len(lines) == 7 * 5, "what was finished is not trained again"


def test_what_cannot_be_stacked_is_named_and_trained_singly(
    tmp_path: Path, trace: Path, processes: Processes, capsys: pytest.CaptureFixture[str]
) -> None:
    processes.end = lambda process, number, words: "it is too big" if "cw_vr" in words else ""
    assert [own.count("finished") for own in run(tmp_path, 8)] == [1, 3, 3]
    assert [len(own) for own in processes.found] == [7, 1, 1, 1]
    assert capsys.readouterr().err.splitlines() == ["my/default/cw_vr: trained singly, since it is too big"]


def test_what_trainings_have_in_common(tmp_path: Path) -> None:
    methods = {**METHODS, "dropout": {"configs": ["method/backbone-dropout"], "select": False}}
    columns = {"default": {}, "few": {"overrides": {"data.init_args.train_size": 100}}}
    own = cells(tmp_path, Budget(seeds=2), methods=methods, columns=columns)
    kinds = {}
    for cell in own:
        jobs = cell.jobs("1" if cell.row.select else None).values()
        kinds[cell.row.column, cell.row.method] = {alike(job.row, job.variant) for job in jobs}
    assert all(len(kind) == 1 for kind in kinds.values()), "seeds and weights do not matter"
    assert kinds["default", "baseline"] == kinds["default", "cw_vr"] == kinds["default", "l2w"]
    assert len({next(iter(kind)) for kind in kinds.values()}) == 4


def test_a_stack_of_none_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["study", "run", "aaai19/table-7", "--out", str(tmp_path / "studies")]
    assert main([*words, "--stack", "0"]) == 2
    assert capsys.readouterr().err == "error: --stack is 0; it must be at least 1\n"
    assert main([*words, "--stack", "2", "--executor", "ray"]) == 2
    assert "--stack has no meaning with --executor ray" in capsys.readouterr().err
    assert not (tmp_path / "studies").exists()
