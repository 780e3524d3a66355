"""A process that is forked for every training: what it starts is what a new Python would, and dies alone."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from study_runs import STUDY, wait_for

from lightning_repshape.runs.files import read_json
from lightning_repshape.studies import executors
from lightning_repshape.studies.executors import LocalExecutor, claimed, is_claimed
from lightning_repshape.studies.forkserver import ForkedProcess, Forkserver, can_fork
from lightning_repshape.studies.jobs import Cell, open_results
from lightning_repshape.studies.reading import find_studies
from lightning_repshape.studies.runner import Runner

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system has no pidfd")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forkserver]:
    monkeypatch.setenv("COLUMNS", "70")
    own = Forkserver({}, preloaded=["yaml"])
    yield own
    own.close()


def started(server: Forkserver, folder: Path, *words: str, **environment: str) -> ForkedProcess:
    """Starts a command whose output goes to ``printed`` in the folder, with a claim on ``lock``."""
    with claimed(folder / "lock") as claim, (folder / "printed").open("w") as output:
        assert claim is not None
        process = server.start(words, environment, str(folder), output.fileno(), claim)
    assert process is not None
    return process


def blocked(server: Forkserver, folder: Path) -> ForkedProcess:
    """A command that waits for a pipe that nobody writes to."""
    os.mkfifo(folder / "pipe.yaml")
    process = started(server, folder, "configs", "show", "pipe.yaml")
    wait_for(lambda: process.poll() is None and process.pid is not None)
    return process


def test_prints_and_ends_as_a_new_python_does(server: Forkserver, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: {lr: 1}\n")
    for words in (["configs", "show", "mine.yaml"], ["configs", "show", "theirs.yaml"], ["fitt"]):
        command = [sys.executable, "-P", "-m", "lightning_repshape.cli", *words]
        expected = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        process = started(server, tmp_path, *words)
        wait_for(lambda process=process: process.poll() is not None)
        assert process.returncode == expected.returncode
        assert (tmp_path / "printed").read_bytes() == expected.stdout
    assert not is_claimed(tmp_path / "lock")


def test_variables_reach_one_process_alone(server: Forkserver, tmp_path: Path) -> None:
    for folder, given, status in ((tmp_path / "a", {"LOCAL_RANK": "one"}, 2), (tmp_path / "b", {}, 0)):
        folder.mkdir()
        process = started(server, folder, "configs", "list", **given)
        wait_for(lambda process=process: process.poll() is not None)
        assert process.returncode == status


def test_a_signal_ends_it_with_what_it_has_started(server: Forkserver, tmp_path: Path) -> None:
    process = blocked(server, tmp_path)
    pid = process.pid
    assert pid is not None
    wait_for(lambda: os.getpgid(pid) == pid)  # a group of its own
    process.end(signal.SIGKILL)
    wait_for(lambda: process.poll() is not None)
    assert process.returncode == -signal.SIGKILL and not is_claimed(tmp_path / "lock")


def test_a_signal_reaches_one_that_leads_no_group_yet() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        theirs.send(str(child.pid).encode())
        process = ForkedProcess(ours)
        assert process.poll() is None and os.getpgid(child.pid) != child.pid
        process.end(signal.SIGTERM)
        assert child.wait(10) == -signal.SIGTERM
    process.end(signal.SIGTERM)  # of one that is gone
    ours.close()
    theirs.close()


def test_what_has_not_begun_never_does(tmp_path: Path) -> None:
    server = Forkserver({}, preloaded=["torch"])  # which takes a while
    process = started(server, tmp_path, "configs", "list")
    process.end(signal.SIGTERM)
    assert process.poll() == -signal.SIGTERM
    (tmp_path / "after").mkdir()
    after = started(server, tmp_path / "after", "configs", "list")
    wait_for(lambda: after.poll() is not None)
    assert after.returncode == 0 and (tmp_path / "after" / "printed").read_text()
    assert not (tmp_path / "printed").read_text() and not is_claimed(tmp_path / "lock")
    server.close()


def test_a_server_that_dies_takes_its_trainings_along(server: Forkserver, tmp_path: Path) -> None:
    process = blocked(server, tmp_path)
    server._process.kill()
    wait_for(lambda: process.poll() is not None)
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not is_claimed(tmp_path / "lock"))
    with (tmp_path / "lock").open() as file:
        assert server.start(["configs", "list"], {}, None, file.fileno(), file.fileno()) is None


def test_trainings_outlive_whoever_asked_for_them(server: Forkserver, tmp_path: Path) -> None:
    process = blocked(server, tmp_path)
    server.close()
    assert process.pid is not None and is_claimed(tmp_path / "lock")
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not is_claimed(tmp_path / "lock"))


@pytest.mark.proof
@pytest.mark.timeout(240)
def test_numbers_are_those_of_a_new_python_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.yaml"
    overrides = {"trainer.callbacks": None, "trainer.max_epochs": 2}
    file.write_text(
        yaml.safe_dump({**STUDY, "overrides": overrides, "seeds": [0], "methods": {"baseline": {"select": False}}})
    )
    row = find_studies(str(file))[0].rows[0]
    found = []
    for name in ("forked", "new"):
        executor = LocalExecutor(1)
        results = open_results(tmp_path / name, create=True)
        if name == "new":
            monkeypatch.setattr(executors, "can_fork", lambda: False)
        (progress,) = Runner([Cell(row, results)], executor, environment={"OMP_NUM_THREADS": "1"}).run()
        assert (executor._server is not None) == (name == "forked")
        executor.stop()
        assert progress.count("finished") == 1, progress.error
        run = results / row.id / "seed-0"
        log = (results / "logs" / row.id / "seed-0.txt").read_text().replace(str(results), "")
        found.append((read_json(run / "metrics.json"), (run / "metrics.csv").read_text(), log))
    assert found[0] == found[1] and found[0][0]["test/error"] < 0.9
