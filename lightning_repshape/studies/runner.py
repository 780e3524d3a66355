"""What is trained next: choices first, then the trainings of what was chosen; nothing twice, nothing lost."""

import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from lightning_repshape.studies.calls import alike
from lightning_repshape.studies.executors import COMMAND, Ended, Executor, LocalExecutor, Task, is_claimed
from lightning_repshape.studies.jobs import Cell, Job, Run, read_job, record_failure

_LOOK_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 2.0  # at trainings that another runner is at
Phase = Literal["waiting", "running", "elsewhere", "finished", "failed"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a cell is."""

    cell: Cell
    phases: Mapping[str, Phase]  #: of its trainings, by the jobs' names; those that are known so far
    total: int  #: how many trainings it takes in all
    value: str | None  #: what was chosen; None where nothing is yet
    figures: Sequence[Mapping[str, float]]  #: of the finished trainings; once the choice is made, of those after it
    seconds: Sequence[float]  #: how long its finished trainings took
    error: str = ""  #: what went wrong last

    def count(self, phase: Phase) -> int:
        """How many trainings are at something; those that are not known yet are waiting."""
        found = sum(own == phase for own in self.phases.values())
        return found + (self.total - len(self.phases) if phase == "waiting" else 0)


class Runner:
    """Trains cells, in order.

    ``given`` are words of ``fit`` that say where and how, not what: the place of the data, devices, threads. With
    ``retry_failed``, trainings that failed before begin anew; ``retries`` is how often one that was interrupted from
    outside is handed over again. ``watch`` gets all cells' progress about twice a second. ``command`` is what ``fit``
    is handed to, such as a container's start; by default this package. Up to ``stack`` trainings that are alike but for
    seed, penalties and method are made together by one process of a :class:`LocalExecutor`; those that cannot be are
    named and trained singly.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        executor: Executor,
        given: Sequence[str] = (),
        retry_failed: bool = False,
        retries: int = 2,
        watch: Callable[[Sequence[Progress]], None] = lambda progress: None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        stack: int = 1,
    ) -> None:
        self.cells, self.executor = list(cells), executor
        self.given = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", *given)
        self.retry_failed, self.retries, self.watch = retry_failed, retries, watch
        self.environment = dict(environment or {})
        self.command = tuple(command) if command else COMMAND
        self.stack = stack if isinstance(executor, LocalExecutor) and self.command == COMMAND else 1
        self._active: dict[str, Job] = {}
        self._together: dict[str, int] = {}  # of what is active: the number of its process
        self._groups = 0  # processes so far
        self._apart: set[str] = set()  # rows that cannot be stacked
        self._kinds: dict[str, str] = {}  # what trainings that can be stacked have in common, by the jobs' names
        self._done: dict[str, Run] = {}  # runs whose state is final for this runner
        self._busy: dict[str, float] = {}  # when to look again
        self._attempts: dict[str, int] = {}
        self._reached: dict[str, float] = {}  # when the checkpoint was written that an interrupted training had
        self._submitted: set[str] = set()
        self._choices: dict[int, str | None] = {}  # by the cell's number

    def run(self) -> list[Progress]:
        """Trains until everything is finished or failed; how far each cell is then.

        On a KeyboardInterrupt, which is handed on, what was running is interrupted such that it can go on later.
        """
        try:
            for number in range(len(self.cells)):  # what is over already, of all of them
                self._ready(number)
            while True:
                waiting = self._submit()
                progress = self.progress()
                self.watch(progress)
                if not self._active and not waiting:
                    return progress
                for name, ended in self.executor.ended(_LOOK_SECONDS if self._active else 0.0).items():
                    self._together.pop(name)
                    self._take(self._active.pop(name), ended)
                if not self._active and waiting:
                    time.sleep(_LOOK_SECONDS)
        except BaseException:
            if self._active:
                print(f"interrupting {len(self._active)} trainings ...", file=sys.stderr, flush=True)
            self.executor.stop()
            raise

    def _submit(self) -> int:
        """Hands over what is ready; returns how many trainings another runner is at."""
        elsewhere = 0
        room = self.executor.slots - len(set(self._together.values()))
        due: dict[str, Job] = {}
        for number in range(len(self.cells)):
            for job in self._ready(number):
                if job.name in self._active or job.name in due:
                    continue
                if self._busy.get(job.name, 0.0) > time.monotonic():
                    elsewhere += 1
                elif not room or (self.stack == 1 and len(due) == room):
                    break
                elif is_claimed(job.lock):
                    self._busy[job.name] = time.monotonic() + _LOOK_AGAIN_SECONDS
                    elsewhere += 1
                else:
                    due[job.name] = job
        while due and room:
            group = self._group(list(due.values()), room)
            self.executor.submit(*(self._task(job) for job in group))
            for job in group:
                self._busy.pop(job.name, None)
                self._active[job.name] = due.pop(job.name)
                self._together[job.name] = self._groups
                self._submitted.add(job.name)
            self._groups += 1
            room -= 1
        return elsewhere

    def _group(self, due: Sequence[Job], slots: int) -> list[Job]:
        """The first that is due, with as many like it as one process takes while all free slots have some."""
        if self.stack == 1 or due[0].row.id in self._apart:
            return [due[0]]
        for job in due:
            if job.name not in self._kinds:
                self._kinds[job.name] = alike(job.row, job.variant)
        kind = self._kinds[due[0].name]
        same = [job for job in due if job.row.id not in self._apart and self._kinds[job.name] == kind]
        return same[: min(self.stack, math.ceil(len(same) / slots))]

    def _task(self, job: Job) -> Task:
        again = self._retries(job)
        return Task(job, self._words(job), self.given, again, self.environment, self.command, os.getcwd())

    def _words(self, job: Job) -> tuple[str, ...]:
        own = job.variant
        words = ["--row", job.row.reference, "--seed_everything", str(own.seed)]
        words += [] if own.value is None else ["--row.value", own.value]
        words += [] if own.epochs == 1 else ["--row.budget", format(own.epochs, "g")]
        words += [] if own.train_size is None else ["--row.train_size", str(own.train_size)]
        words += ["--row.retrain", "true"] if own.retrain else []
        return tuple(words)

    def _retries(self, job: Job) -> bool:
        return self.retry_failed and job.name not in self._submitted

    def _take(self, job: Job, ended: Ended) -> None:
        if ended.end == "busy":
            self._busy[job.name] = time.monotonic() + _LOOK_AGAIN_SECONDS
            return
        if ended.end == "apart":
            if job.row.id not in self._apart:
                print(f"{job.row.id}: trained singly, since {ended.error}", file=sys.stderr, flush=True)
            self._apart.add(job.row.id)
            return
        run = read_job(job)
        if ended.end == "interrupted":
            reached = run.reached()
            moved_on = reached > self._reached.get(job.name, 0.0)
            self._reached[job.name] = reached
            # One that gets further each time, as on a cluster with short jobs, is never given up.
            self._attempts[job.name] = 1 if moved_on else self._attempts.get(job.name, 0) + 1
            if self._attempts[job.name] <= self.retries:
                return
            record_failure(job, f"interrupted too often: {ended.error}")
            run = read_job(job)
        elif run.state not in ("finished", "failed", "corrupt"):
            run = dataclasses.replace(run, state="failed", error=ended.error or f"{job.folder} is not there any more")
        self._done[job.name] = run

    def _run(self, job: Job) -> Run | None:
        """A training's run where that is over; None where there is something to do."""
        if job.name not in self._done:
            run = read_job(job)
            # Whatever is claimed is not over: its process may be about to write more.
            over = run.state in ("finished", "corrupt") or (run.state == "failed" and not self._retries(job))
            start = None if over or job.start is None else self._run(job.start)
            if start is not None and start.state != "finished" and job.start is not None:
                error = f"it starts from {job.start.name}, which has no finished training"
                run, over = dataclasses.replace(run, state="failed", error=error), True
            if not over or job.name in self._active or is_claimed(job.lock):
                return None
            self._done[job.name] = run
        return self._done[job.name]

    def _ready(self, number: int) -> list[Job]:
        cell = self.cells[number]
        choices = cell.choices()
        left = self._left(choices)
        if left:
            return left
        value = self._chosen(number)
        return [] if choices and value is None else self._left(cell.repeats(value))

    def _left(self, jobs: Sequence[Job]) -> list[Job]:
        """What there is to do for trainings that are not over: those, or first the ones that they start from."""
        left = [job for job in jobs if self._run(job) is None]
        return [job if job.start is None or self._run(job.start) is not None else job.start for job in left]

    def _chosen(self, number: int) -> str | None:
        """What was chosen, to be asked for once all that it is chosen from is over."""
        if number not in self._choices:
            cell = self.cells[number]
            self._choices[number] = cell.chosen({job.name: self._done[job.name] for job in cell.choices()})[0]
        return self._choices[number]

    def progress(self) -> list[Progress]:
        """How far each cell is, in order."""
        return [self._progress(number) for number in range(len(self.cells))]

    def _progress(self, number: int) -> Progress:
        cell = self.cells[number]
        choices = cell.choices()
        chosen = all(job.name in self._done for job in choices)
        value = self._chosen(number) if chosen else None
        repeats = cell.repeats(value) if chosen and (value is not None or not choices) else []
        jobs = [job.name for job in choices] if not repeats else list(cell.jobs(value))
        phases: dict[str, Phase] = {}
        for name in jobs:
            if name in self._done:
                phases[name] = "finished" if self._done[name].state == "finished" else "failed"
            elif name in self._active:
                phases[name] = "running"
            else:
                phases[name] = "elsewhere" if name in self._busy else "waiting"
        over = [self._done[name] for name in jobs if phases[name] == "finished"]
        shown = {job.name for job in (repeats or choices)}
        errors = [self._done[name].error for name in jobs if phases[name] == "failed"]
        return Progress(
            cell,
            phases,
            total=len(jobs) if chosen else cell.total(),
            value=value,
            figures=[
                {key: own for key, own in self._done[name].figures.items() if isinstance(own, int | float)}
                for name in jobs
                if name in shown and phases[name] == "finished"
            ],
            seconds=[run.seconds for run in over],
            error=errors[-1] if errors else "",
        )
