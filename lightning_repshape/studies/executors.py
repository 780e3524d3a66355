"""Where trainings run: processes of this machine, a Ray cluster, or SLURM's queue.

All of them call :func:`train`, which starts one ``lightning-repshape fit`` and waits for it; on this machine, under
Linux, by forking a process that has imported everything (:mod:`.forkserver`). A training is claimed by
a lock on a file that its process inherits: the system takes the lock away when the process ends, in whatever way, so
claims are atomic and never stale, and a training that outlives the worker that started it keeps its claim. On a
cluster, the folder of results must lie on a file system that all nodes share and that has locks (NFS 4, Lustre).
"""

import concurrent.futures
import dataclasses
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

from lightning_repshape.errors import ConfigError
from lightning_repshape.runs.files import write_json
from lightning_repshape.runs.locks import locked
from lightning_repshape.studies.forkserver import ForkedProcess, Forkserver, can_fork
from lightning_repshape.studies.jobs import Job, read_job, read_run, record_failure

COMMAND = (sys.executable, "-P", "-m", "lightning_repshape.cli")  #: what ``fit`` and its words are handed to
_TOGETHER = "lightning_repshape.cli.together"  # what a folder of several trainings is handed to
_GRACE_SECONDS = 60.0  # a training that is interrupted writes what it has

End = Literal["finished", "failed", "interrupted", "busy", "apart"]


@dataclasses.dataclass(frozen=True)
class Task:
    """A training as an executor needs to know it."""

    job: Job
    words: tuple[str, ...]  #: of ``fit``, for a training that begins
    given: tuple[str, ...]  #: further words, that say where and how; for a training that goes on, too
    retry_failed: bool  #: whether a training that failed before begins anew
    environment: Mapping[str, str]  #: variables that the process gets besides its own
    command: tuple[str, ...]  #: what ``fit`` and its words are handed to, such as :data:`COMMAND`
    folder: str  #: the working directory, which paths among the words are relative to


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a training ended."""

    #: ``busy`` where another process was at it; ``interrupted`` where it can go on; ``apart``: it cannot be stacked
    end: End
    error: str = ""


@contextmanager
def claimed(lock: Path) -> Iterator[int | None]:
    """Claims a training by a file, which stays; yields its descriptor, or None where somebody else has the claim."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield file if locked(file, False, "study run") else None
    finally:
        os.close(file)  # the claim goes with the last descriptor, that of the process that trains


def is_claimed(lock: Path) -> bool:
    """Whether a process is at the training whose file this is."""
    if not lock.is_file():
        return False
    with claimed(lock) as file:
        return file is None


def train(task: Task, stopped: Callable[[], bool] = lambda: False, server: Forkserver | None = None) -> Ended:
    """Trains, in a process of its own, what is not trained yet; goes on where a training was interrupted.

    It is interrupted as soon as ``stopped`` says so. A failure is noted in the run folder, too. ``server`` starts the
    process, of :data:`COMMAND` alone; None: a new Python does.
    """
    with claimed(task.job.lock) as claim:
        if claim is None:
            return Ended("busy")
        words = _words(task)
        if isinstance(words, Ended):
            return words
        with _log(task.job, words) as output:
            status = _run(task, words, output, [claim], stopped, server)
        return _ended(task, status)


def train_together(
    tasks: Sequence[Task], stopped: Callable[[], bool] = lambda: False, server: Forkserver | None = None
) -> dict[str, Ended]:
    """The same for several trainings that one process makes together, by the jobs' names.

    What cannot be stacked with others is ``apart``, and is left as it was.
    """
    found: dict[str, Ended] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="together-")))
        claims, begun, trainings = [], [], []
        for task in tasks:
            claim = stack.enter_context(claimed(task.job.lock))
            if claim is None:
                found[task.job.name] = Ended("busy")
                continue
            words = _words(task)
            if isinstance(words, Ended):
                found[task.job.name] = words
                continue
            with _log(task.job, words):
                trainings.append({"words": words, "log": str(task.job.log)})
            claims.append(claim)
            begun.append(task)
        if not begun:
            return found
        write_json(folder / "trainings.json", {"trainings": trainings})
        output = stack.enter_context((folder / "output.txt").open("w", encoding="utf-8"))
        status = _run(begun[0], [str(folder)], output, claims, stopped, server, _TOGETHER)
        report = folder / "ended.jsonl"
        lines = report.read_text(encoding="utf-8").splitlines() if report.is_file() else []
        ends = {end["number"]: end for end in map(json.loads, lines)}
        for number, task in enumerate(begun):
            # One that says nothing went with the process.
            end = ends.get(number, {"status": min(status, 0) or -signal.SIGKILL, "apart": ""})
            apart = end["apart"]
            found[task.job.name] = Ended("apart", apart) if apart else _ended(task, end["status"])
    return found


def _words(task: Task) -> list[str] | Ended:
    """The command of a training that is claimed, whose folder is made ready; how it ended where nothing is to do."""
    job = task.job
    run = read_job(job)
    if run.state == "finished":
        return Ended("finished")
    if run.state == "corrupt" or (run.state == "failed" and not task.retry_failed):
        return Ended("failed", run.error)
    # The study's own configs, not the folder's: those may be anybody's.
    words = ["fit", *task.words, *task.given, "--run_dir", str(job.folder)]
    if run.state == "interrupted" and run.reached():
        return [*words, "--ckpt_path", "last"]
    if job.folder.exists():
        shutil.rmtree(job.folder)
    return [*words, *job.starting_words()]


def _ended(task: Task, status: int) -> Ended:
    """How a training ended whose command had a status, negative for a signal; a failure is noted in its folder."""
    job = task.job
    run = read_job(job)
    if status == 0 and run.state == "finished":
        return Ended("finished")
    message = _last_line(job.log)
    if status in (0, 1, 2):
        record_failure(job, message if status else "the training ended without test figures")
        return Ended("failed", read_run(job.folder).error or message)
    return Ended("interrupted", f"ended by signal {-status}" if status < 0 else message)


@contextmanager
def _log(job: Job, words: Sequence[str]) -> Iterator[TextIO]:
    """A training's log, which begins with its command."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as output:
        output.write(f"$ lightning-repshape {' '.join(words)}\n")
        output.flush()
        yield output


def _run(
    task: Task,
    words: Sequence[str],
    output: TextIO,
    claims: Sequence[int],
    stopped: Callable[[], bool],
    server: Forkserver | None,
    module: str | None = None,
) -> int:
    """Runs a task's command, or the module, in a process that inherits the claims; its status."""
    folder = task.folder if Path(task.folder).is_dir() else None
    process: subprocess.Popen[bytes] | ForkedProcess | None = None
    if server is not None:
        own = {"module": module} if module else {}
        process = server.start(words, task.environment, folder, output.fileno(), *claims, **own)
    if process is None:
        command = (sys.executable, "-P", "-m", module) if module else task.command
        process = subprocess.Popen(
            [*command, *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **task.environment},
            cwd=folder,
            pass_fds=claims,
            start_new_session=True,  # Ctrl-C reaches the study, which hands it on
        )
    try:
        while process.poll() is None:
            if stopped():
                _interrupt(process)
            time.sleep(0.05)
    except BaseException:
        _interrupt(process)
        raise
    return int(process.returncode or 0)


def _interrupt(process: "subprocess.Popen[bytes] | ForkedProcess") -> None:
    """Ends a training by SIGTERM, then by force: background processes and Ray's workers do not receive SIGINT."""
    for number, patience in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            return
        if isinstance(process, ForkedProcess):
            process.end(number)
        else:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        until = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error:", "error on rank"))]
    found = (errors or lines or ["it printed nothing"])[-1]
    return found.partition(": ")[2] if found.startswith("error") else found


class Executor(Protocol):
    """What :class:`~lightning_repshape.studies.runner.Runner` asks of a place where trainings run."""

    slots: int

    def submit(self, task: Task, /) -> None:
        """Hands a training over."""

    def ended(self, timeout: float) -> dict[str, Ended]:
        """Trainings that have ended since the last call, by job name; waits for one, so many seconds at most."""

    def stop(self) -> None:
        """Interrupts what is running, so that it can go on later."""


class LocalExecutor:
    """Processes of this machine, ``slots`` at once; a ConfigError if that is none.

    Trainings take turns on ``gpus``, named as in ``CUDA_VISIBLE_DEVICES``, one each. None: each sees what this process
    sees.
    """

    def __init__(self, slots: int = 1, gpus: Sequence[str] = ()) -> None:
        if slots < 1:
            raise ConfigError(f"--jobs is {slots}; at least one training must run at once")
        self.slots, self.gpus = slots, tuple(gpus)
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(slots)
        self._free = list(range(slots))
        self._active: dict[concurrent.futures.Future[dict[str, Ended]], tuple[list[str], int]] = {}
        self._server: Forkserver | None = None

    def submit(self, *tasks: Task) -> None:
        """Starts a training, or several that one process makes together."""
        slot = self._free.pop(0)
        if self.gpus:
            device = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]}
            tasks = tuple(dataclasses.replace(task, environment={**task.environment, **device}) for task in tasks)
        forked = tasks[0].command == COMMAND and can_fork()
        if forked and self._server is None:
            self._server = Forkserver(tasks[0].environment)
        future = self._pool.submit(self._train, tasks, self._server if forked else None)
        self._active[future] = ([task.job.name for task in tasks], slot)

    def _train(self, tasks: Sequence[Task], server: Forkserver | None) -> dict[str, Ended]:
        if len(tasks) > 1:
            return train_together(tasks, self._stop.is_set, server)
        return {tasks[0].job.name: train(tasks[0], self._stop.is_set, server)}

    def ended(self, timeout: float) -> dict[str, Ended]:
        """What has ended since the last call."""
        done, _ = concurrent.futures.wait(self._active, timeout=timeout, return_when=concurrent.futures.FIRST_COMPLETED)
        found: dict[str, Ended] = {}
        for future in done:
            names, slot = self._active.pop(future)
            self._free.append(slot)
            try:
                found |= future.result()
            except OSError as error:  # of their own files; the others go on
                found |= {name: Ended("failed", str(error)) for name in names}
        return found

    def stop(self) -> None:
        """Interrupts what is running."""
        self._stop.set()
        self._pool.shutdown(wait=True)
        if self._server is not None:
            self._server.close()
            self._server = None


class RayExecutor:
    """A Ray cluster, or one that is started here; the package's extra ``ray`` installs what it needs.

    ``address`` is the cluster's, ``auto`` for the one of this machine, None for a new one here; ``cpus`` and ``gpus``
    are those of a training; ``slots``, the trainings handed over at once, are as many as fit by default. A ConfigError
    says that Ray is not installed, no cluster answers, or no training would fit it.
    """

    def __init__(self, address: str | None = None, cpus: float = 1, gpus: float = 0, slots: int | None = None) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ConfigError("the executor 'ray' needs Ray: pip install '.[ray]' in this project") from error
        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            before = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(f"no Ray cluster answers at {address!r}: {error}") from error
            finally:  # Ray ends the process by a SystemExit of its own, and goes on to when it has been shut down
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        has = ray.cluster_resources()
        fits = [has.get(kind, 0) / need for kind, need in (("CPU", cpus), ("GPU", gpus)) if need > 0]
        room = int(min(fits, default=1))
        if room < 1:
            raise ConfigError(
                f"a training with {cpus:g} CPUs and {gpus:g} GPUs does not fit the cluster, which has "
                f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g}"
            )
        self.slots = room if slots is None else slots
        # Interrupted trainings are handed over again by the runner, which also counts how often.
        self._train = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(train)
        self._active: dict[Any, str] = {}

    def submit(self, task: Task) -> None:
        """Hands a training to the cluster."""
        self._active[self._train.remote(task)] = task.job.name

    def ended(self, timeout: float) -> dict[str, Ended]:
        """What has ended since the last call; a training whose worker died was interrupted."""
        if not self._active:
            return {}
        done, _ = self._ray.wait(list(self._active), timeout=timeout)
        found = {}
        for reference in done:
            name = self._active.pop(reference)
            try:
                found[name] = self._ray.get(reference)
            except OSError as error:  # Ray raises what the task raised
                found[name] = Ended("failed", str(error))
            except self._ray.exceptions.RayError as error:
                found[name] = Ended("interrupted", f"its worker died ({type(error).__name__})")
        return found

    def stop(self) -> None:
        """Interrupts what is running."""
        for reference in self._active:
            self._ray.cancel(reference)
        if self._active:
            self._ray.wait(list(self._active), num_returns=len(self._active), timeout=_GRACE_SECONDS + 15)
        if self._ours:
            self._ray.shutdown()


class SlurmExecutor:
    """SLURM's queue through submitit; the package's extra ``slurm`` installs what it needs.

    ``folder`` is where submitit writes its files, ``slots`` how many trainings are queued at once; ``cpus``, ``gpus``
    and ``hours`` are those of a training, and one that takes longer is interrupted and goes on in a new job.
    ``cluster`` may be ``local`` to try it without SLURM. A ConfigError says that submitit is not installed or finds no
    SLURM.
    """

    def __init__(
        self,
        folder: Path,
        slots: int = 16,
        cpus: int = 1,
        gpus: int = 0,
        hours: float = 4.0,
        partition: str | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        try:
            submitit: Any = importlib.import_module("submitit")
        except ImportError as error:
            raise ConfigError("the executor 'slurm' needs submitit: pip install '.[slurm]' in this project") from error
        self.slots = slots
        try:
            self._queue = submitit.AutoExecutor(folder=folder, cluster=cluster)
        except RuntimeError as error:
            raise ConfigError(f"submitit finds no SLURM here: {error}") from error
        self._queue.update_parameters(
            timeout_min=max(1, round(60 * hours)),
            cpus_per_task=cpus,
            gpus_per_node=gpus,
            name="repshape",
            **({"slurm_partition": partition} if partition and cluster == "slurm" else {}),
        )
        self._active: dict[str, Any] = {}

    def submit(self, task: Task) -> None:
        """Queues a training."""
        self._active[task.job.name] = self._queue.submit(train, task)

    def ended(self, timeout: float) -> dict[str, Ended]:
        """What has ended since the last call; a training whose job died was interrupted."""
        until = time.monotonic() + timeout
        while True:
            done = [name for name, job in self._active.items() if job.done()]
            if done or time.monotonic() >= until or not self._active:
                break
            time.sleep(min(0.2, timeout))
        found = {}
        for name in done:
            job = self._active.pop(name)
            try:
                found[name] = job.result()
            except Exception as error:  # submitit raises what the job raised, or that it is gone
                found[name] = Ended("interrupted", " ".join(str(error).split())[:300])
        return found

    def stop(self) -> None:
        """Interrupts what is running."""
        for job in self._active.values():
            job.cancel()
