"""Progress of long work: told by whoever works, shown where somebody asks for it, and free where nobody does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from lightning_repshape.terminal.printing import is_terminal


class Bars(Protocol):
    """What shows tasks; a ``rich.progress.Progress`` does."""

    def add_task(self, description: str, *, total: float | None) -> Any:
        """Begins to show a task; returns its key."""

    def advance(self, task_id: Any, advance: float = 1) -> None:
        """Shows that more of it is done."""

    def remove_task(self, task_id: Any) -> None:
        """Shows it no longer."""


_SHOWN_ON: ContextVar[Callable[[], Bars | None] | None] = ContextVar("shown_on", default=None)


@contextmanager
def shown_on(bars: Callable[[], Bars | None] | None) -> Iterator[None]:
    """Shows all tasks that begin within, in this thread.

    Args:
        bars: Where, asked whenever a task begins; None, and a call that gives None: nowhere.
    """
    token = _SHOWN_ON.set(bars)
    try:
        yield
    finally:
        _SHOWN_ON.reset(token)


@contextmanager
def task(text: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """A piece of work.

    Args:
        text: What is done, such as ``"retraining heads"``.
        total: How much there is to do. Default: unknown.

    Yields:
        What to call with how much more is done.
    """
    find = _SHOWN_ON.get()
    bars = find() if find is not None else None
    if bars is None:
        yield _nothing
        return
    key = bars.add_task(text, total=total)
    try:
        yield lambda count: bars.advance(key, count)
    finally:
        bars.remove_task(key)


def _nothing(count: float) -> None:
    """Nobody looks."""


class TrainerBars:
    """Tasks beside the batches in the bar of Lightning's ``RichProgressBar``, which is drawn when it is told to.

    Args:
        bar: Its ``progress``.
    """

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self._draw: Callable[[], None] = getattr(bar, "soft_refresh", bar.refresh)

    def add_task(self, description: str, *, total: float | None) -> Any:
        """Begins to show a task."""
        key = self.bar.add_task(description, total=float("inf") if total is None else total)
        self._draw()
        return key

    def advance(self, task_id: Any, advance: float = 1) -> None:
        """Shows that more of it is done."""
        self.bar.update(task_id, advance=advance)
        self._draw()

    def remove_task(self, task_id: Any) -> None:
        """Shows it no longer."""
        self.bar.remove_task(task_id)
        self._draw()


def trainer_bars(callback: Any) -> Bars | None:
    """Where a trainer's own progress bar can show tasks.

    Args:
        callback: The trainer's ``progress_bar_callback``.

    Returns:
        None where that is no rich bar, or none that is on the screen.
    """
    bar = getattr(callback, "progress", None)
    return TrainerBars(bar) if getattr(getattr(bar, "live", None), "is_started", False) else None


@contextmanager
def shown_in_terminal() -> Iterator[None]:
    """Shows all tasks that begin within on standard error, where a person looks on in a terminal."""
    bars = terminal_bars() if is_terminal() else None
    with shown_on(None if bars is None else lambda: bars):
        yield


def terminal_bars() -> Bars:
    """Bars on standard error, with the time left, that are there while there is work."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Time(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            """The time left; of work without a known end, the time that it has taken."""
            if task.total is not None:
                return super().render(task)
            minutes, seconds = divmod(int(task.elapsed or 0), 60)
            return Text(f"since {minutes:02d}:{seconds:02d}", style="progress.elapsed")

    class TerminalBars(Progress):
        def add_task(self, description: str, *args: Any, **kwargs: Any) -> TaskID:
            self.start()
            return super().add_task(description, *args, **kwargs)

        def remove_task(self, task_id: TaskID) -> None:
            super().remove_task(task_id)
            if not self.tasks:
                self.stop()

    text = TextColumn("{task.description}", markup=False)
    time = Time(compact=True)
    console = Console(stderr=True)
    columns = text, BarColumn(), TaskProgressColumn(), time
    return TerminalBars(*columns, console=console, transient=True, disable=not console.is_terminal)
