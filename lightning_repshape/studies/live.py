"""The table that shows a study while it runs, and the lines where there is no terminal."""

from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lightning_repshape.studies.rows import Figure, Study
from lightning_repshape.studies.runner import Progress

_LOWEST_ROWS = 6  # of a table in a low terminal


class LiveTable:
    """Shows rows, states, the best value so far, and the time left with ``slots`` trainings at once."""

    def __init__(self, studies: Sequence[Study], slots: int, console: Console | None = None) -> None:
        self.console = console or Console()
        self.slots = slots
        self._figures: Mapping[str, Figure] = {study.id: next(iter(study.figures.values())) for study in studies}
        self._live = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")
        self._printed: set[str] = set()

    def __enter__(self) -> "LiveTable":
        """Begins to show."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last table standing."""
        if self.console.is_terminal:
            self._live.stop()

    def show(self, progress: Sequence[Progress]) -> None:
        """Shows all cells' progress: as a table in a terminal, else a line for each training that has ended."""
        if self.console.is_terminal:
            room = max(_LOWEST_ROWS, self.console.height - 6)
            self._live.update(self.table(progress, room), refresh=True)
            return
        for own in progress:
            for name, phase in own.phases.items():
                if phase in ("finished", "failed") and name not in self._printed:
                    self._printed.add(name)
                    note = f": {own.error}" if phase == "failed" and own.error else ""
                    self.console.print(f"{phase} {name}{note}", soft_wrap=True, highlight=False, markup=False)
        self.console.file.flush()  # a log that is watched

    def table(self, progress: Sequence[Progress], room: int | None = None) -> Table:
        """All cells' progress, or as much as ``room`` rows hold: rows that are over are left out first."""
        table = Table(caption=self._summary(progress), caption_justify="left", box=None, pad_edge=False)
        for name in ("row", "done", "running", "failed", "value", "best so far", "time left"):
            left = name in ("row", "value")
            # In a narrow terminal the row's id gives way; the end of it says most.
            table.add_column(
                name, justify="left" if left else "right", no_wrap=True, min_width=0 if name == "row" else 5
            )
        kept = self._that_fit(progress, room)
        for own in kept:
            failed = own.count("failed")
            running = own.count("running") + own.count("elsewhere")
            table.add_row(
                self._shortened(own.cell.row.id),
                f"{own.count('finished')}/{own.total}",
                str(running or ""),
                f"[red]{failed}[/red]" if failed else "",
                own.value or "",
                self.best(own),
                _duration(self._left([own])),
                style="dim" if own.count("finished") + failed == own.total else "",
            )
        if len(kept) < len(progress):
            table.add_row(f"... and {len(progress) - len(kept)} rows that are over or wait", style="dim")
        return table

    def _shortened(self, row: str) -> str:
        room = max(12, self.console.width - 56)
        return row if len(row) <= room else f"…{row[1 - room :]}"

    def _that_fit(self, progress: Sequence[Progress], room: int | None) -> list[Progress]:
        if room is None or len(progress) <= room:
            return list(progress)
        order = sorted(
            range(len(progress)),
            key=lambda at: (
                progress[at].count("running") == 0,
                progress[at].count("finished") + progress[at].count("failed") == progress[at].total,
                at,
            ),
        )
        return [progress[at] for at in sorted(order[: room - 1])]

    def best(self, own: Progress) -> str:
        """The best value of a cell's main figure so far, with its unit; empty where there is none."""
        figure = self._figures[own.cell.row.study]
        values = [figure.scale * one[figure.metric] for one in own.figures if figure.metric in one]
        if not values:
            return ""
        best = max(values) if figure.better == "higher" else min(values)
        return f"{best:.{figure.digits}f}{' ' + figure.unit if figure.unit else ''}"

    def _left(self, progress: Sequence[Progress]) -> float | None:
        """Seconds left, from how long finished trainings of the same column took, else of any."""
        columns: dict[tuple[str, str], list[float]] = {}
        for own in progress:
            columns.setdefault((own.cell.row.study, own.cell.row.column), []).extend(own.seconds)
        known = [seconds for group in columns.values() for seconds in group]
        if not known:
            return None
        total = 0.0
        for own in progress:
            group = columns[own.cell.row.study, own.cell.row.column] or known
            left = own.total - own.count("finished") - own.count("failed")
            total += left * sum(group) / len(group)
        return total / self.slots

    def _summary(self, progress: Sequence[Progress]) -> str:
        total = sum(own.total for own in progress)
        done = sum(own.count("finished") for own in progress)
        failed = sum(own.count("failed") for own in progress)
        left = _duration(self._left(progress))
        parts = [f"{done} of {total} trainings done", failed and f"{failed} failed", left and f"{left} left"]
        return ", ".join(str(part) for part in parts if part)


def _duration(seconds: float | None) -> str:
    if not seconds:
        return ""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
