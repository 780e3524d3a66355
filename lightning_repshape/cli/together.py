"""Several trainings of a study in one process, which make their steps together (:mod:`.modules.stacked`).

``python -m lightning_repshape.cli.together FOLDER`` runs the commands of the folder's ``trainings.json``, each in a
thread of its own with its own streams, environment and generators, and one at a time: at a step of training a thread
waits until all are at theirs. How a command ended is a line of ``ended.jsonl``.
"""

import json
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from lightning_repshape.cli.process import joining

_APART = 75  # the status of a training that cannot be stacked


class _State:
    """What a thread changes in the process: its own while it runs."""

    def __init__(self, output: Any, words: Sequence[str]) -> None:
        import numpy as np
        import torch

        self._generators: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
            (torch.get_rng_state, torch.set_rng_state),
            (np.random.get_state, np.random.set_state),
            (random.getstate, random.setstate),
        )
        self._streams = (output, output)
        self._words = ["lightning-repshape", *words]
        self._environment = dict(os.environ)
        self._numbers = [get() for get, _ in self._generators]

    def keep(self) -> None:
        self._streams, self._words, self._environment = (sys.stdout, sys.stderr), sys.argv, dict(os.environ)
        self._numbers = [get() for get, _ in self._generators]

    def restore(self) -> None:
        (sys.stdout, sys.stderr), sys.argv = self._streams, self._words
        if self._environment != dict(os.environ):
            os.environ.clear()
            os.environ.update(self._environment)
        for (_, set_numbers), numbers in zip(self._generators, self._numbers, strict=True):
            set_numbers(numbers)


class Turns:
    """Lets one thread run at a time, in order, and those that meet do something together once all are there."""

    def __init__(self, states: Sequence[_State], together: Callable[[Sequence[Any]], None]) -> None:
        self.ended_by = 0  #: the signal that ended the process; 0: none
        self.count = len(states)
        self._states, self._together = states, together
        self._alive = dict.fromkeys(range(len(states)))
        self._there: dict[int, Any] = {}
        self._turn = 0
        self._changed = threading.Condition()

    def begin(self, number: int) -> None:
        """Waits for a thread's first turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == number)
        self._states[number].restore()

    def meet(self, number: int, item: Any) -> None:
        """Waits until something was done with an item, together with those of the others.

        Raises what was raised there, and SIGTERMException where the process is to end.
        """
        from lightning.pytorch.utilities.exceptions import SIGTERMException

        self._there[number] = item
        self._states[number].keep()
        while number in self._there:
            self._pass_on(number)
            with self._changed:
                self._changed.wait_for(lambda: self._turn == number)
            if self.ended_by:
                self._there.pop(number, None)
            elif number in self._there:  # all are there
                self._do()
        self._states[number].restore()
        if self.ended_by:
            raise SIGTERMException

    def _do(self) -> None:
        """Does it for those that are furthest behind and alike."""
        kinds = {number: item.kind() for number, item in self._there.items()}
        least = min(kinds.values(), key=lambda kind: kind[0])
        chosen = [number for number in sorted(kinds) if kinds[number] == least]
        items = [self._there.pop(number) for number in chosen]
        try:
            self._together(items)
        except Exception as error:
            for item in items:
                item.error = item.error or error

    def leave(self, number: int) -> None:
        """Ends a thread's part."""
        del self._alive[number]
        self._there.pop(number, None)
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        """The turn goes to the next that does not wait for the others; where all do, to one that is furthest behind."""
        order = sorted(self._alive, key=lambda other: (other <= number, other))
        able = [other for other in order if other not in self._there or self.ended_by]
        if not able and order:
            able = [min(order, key=lambda other: self._there[other].kind()[0])]
        with self._changed:
            self._turn = able[0] if able else -1
            self._changed.notify_all()


class _Training:
    """A command, and its thread."""

    def __init__(self, number: int, turns: Turns, words: Sequence[str], ended: Path) -> None:
        self.number, self.turns, self.words, self.ended = number, turns, list(words), ended
        self.reason = ""  # why it cannot be stacked
        self.cell: Any = None

    def run(self) -> None:
        """The thread."""
        from lightning_repshape.cli.main import main

        self.turns.begin(self.number)
        status = 1
        try:
            joining.set(self.join)
            status = 143 if self.turns.ended_by else main(self.words)
        finally:
            try:
                sys.stdout.flush()
                with self.ended.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"number": self.number, "status": status, "apart": self.reason}) + "\n")
            finally:
                self.turns.leave(self.number)

    def join(self, trainer: Any, module: Any, data: Any) -> None:
        """Makes a training take its steps with the others; ends it where it cannot."""
        from lightning_repshape.modules.stacked import Cell, refusal
        from lightning_repshape.runs.record import RunRecord

        self.reason = _refusal(trainer, data) or refusal(trainer, module)
        if self.reason:
            raise SystemExit(_APART)
        self.cell = Cell(trainer, module)
        for callback in trainer.callbacks:
            if isinstance(callback, RunRecord):
                callback.stacked = self.turns.count
        module.training_step = self.first

    def first(self, dataloader_iter: Iterator[Any]) -> Any:
        """The first step: by the argument's name Lightning knows that it wants the iterator of batches."""
        self.cell.module.training_step = self.step  # with it, all logging is refused
        return self.step(dataloader_iter)

    def step(self, batches: Iterator[Any]) -> Any:
        """Several steps."""
        self.cell.batches = batches
        self.turns.meet(self.number, self.cell)
        return self.cell.finish()


def _refusal(trainer: Any, data: Any) -> str:
    """Why a training's callbacks or data keep it from being stacked; empty where they do not."""
    from lightning_repshape.callbacks.reseeding import Reseeding
    from lightning_repshape.data.loading import RawBatchDataModule
    from lightning_repshape.performance import STEP_HOOKS, overrides
    from lightning_repshape.runs.checkpoints import BestCheckpoint, LastCheckpoint

    for callback in trainer.callbacks:
        known = isinstance(callback, BestCheckpoint | LastCheckpoint | Reseeding)
        if not known and any(overrides(callback, hook) for hook in STEP_HOOKS):
            return f"{type(callback).__name__} is at work at every step"
    if not isinstance(data, RawBatchDataModule):
        return f"the order of {type(data).__name__}'s batches may depend on what else is drawn"
    return "worker processes fetch its batches" if getattr(data, "num_workers", 0) else ""


def steps_of() -> Callable[[Sequence[Any]], None]:
    """What makes the steps of trainings that have met."""
    from lightning_repshape.modules.stacked import train

    return train


def main(folder: Path) -> int:
    """Runs the trainings of a folder; 0, or 143 where SIGTERM ended them."""
    warnings.filterwarnings("ignore", message=".*dataloader_iter.*")
    asked = json.loads((folder / "trainings.json").read_text(encoding="utf-8"))
    trainings: list[Mapping[str, Any]] = asked["trainings"]
    before = sys.stdout, sys.stderr, sys.argv
    with ExitStack() as files:
        outputs = [files.enter_context(open(own["log"], "a", encoding="utf-8", buffering=1)) for own in trainings]
        states = [_State(output, own["words"]) for output, own in zip(outputs, trainings, strict=True)]
        turns = Turns(states, steps_of())

        def end(number: int, frame: FrameType | None) -> None:
            turns.ended_by = number

        handler = signal.signal(signal.SIGTERM, end)
        threads = [
            threading.Thread(target=_Training(number, turns, own["words"], folder / "ended.jsonl").run)
            for number, own in enumerate(trainings)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        signal.signal(signal.SIGTERM, handler)
        sys.stdout, sys.stderr, sys.argv = before
    return 143 if turns.ended_by else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
