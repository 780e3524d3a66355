"""Jobs: the trainings that a row consists of, where each lies, and what state it is in.

A folder of results has ``studies.json`` with its format, and the run folders in it are named after what they hold:
``aaai19/table-7/default/cw_vr/value-0.01_budget-0.3_seed-0``. Everything that is known of a training lies in its run
folder: a study is resumed, selected from and reported by looking at run folders alone.
"""

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from lightning_repshape.errors import ConfigError, RepshapeError
from lightning_repshape.runs.files import read_json, write_json
from lightning_repshape.runs.folders import CURVES, MANIFEST, METRICS, checkpoint_file, folder_name
from lightning_repshape.studies.calls import about, digest
from lightning_repshape.studies.reading import RESERVED
from lightning_repshape.studies.rows import Row, Selection, Variant

FORMAT = 1
INDEX = "studies.json"
STUDY = "study"  # the manifest's entry on the row
State = Literal["missing", "interrupted", "failed", "finished", "corrupt"]


def open_results(folder: Path, create: bool = False) -> Path:
    """Looks whether a folder of results is one that this version reads; ``create`` begins one where there is none.

    Returns:
        The folder, as an absolute path: workers elsewhere have another working directory.

    Raises:
        ConfigError: If it is absent, of another version, or something else.
    """
    folder = folder.resolve()
    index = folder / INDEX
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another folder with --out")
    if not index.is_file():
        if not create:
            raise ConfigError(f"{folder} holds no results of studies (no {INDEX}); name their folder with --out")
        # What begins with a dot is being written, maybe by another runner that begins here, too.
        if folder.is_dir() and any(not path.name.startswith(".") and path.name != INDEX for path in folder.iterdir()):
            raise ConfigError(f"{folder} holds something else than results; choose another folder with --out")
        try:
            write_json(index, {"format": FORMAT})
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written ({error.strerror}); choose another with --out") from error
    found = read_json(index).get("format")
    if found != FORMAT:
        raise ConfigError(
            f"{folder} holds results of format {found!r}, but this version reads and writes format {FORMAT}; "
            "choose another folder with --out"
        )
    return folder


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a variant of a row, and the folder of results that it belongs to."""

    row: Row
    variant: Variant
    results: Path

    @property
    def leaf(self) -> str:
        """The run folder's own name."""
        own = self.variant
        parts = [f"value-{_name_of(own.value)}"] if own.value is not None else []
        parts += ["retrained"] if own.retrain else []
        parts += [f"budget-{own.epochs:g}"] if own.epochs != 1 else []
        parts += [f"images-{own.train_size}"] if own.train_size is not None else []
        return "_".join([*parts, f"seed-{own.seed}"])

    @property
    def name(self) -> str:
        """Where the run folder lies among the results."""
        return f"{self.row.trained_as}/{self.leaf}"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.results / self.row.trained_as / self.leaf

    @property
    def lock(self) -> Path:
        """The file that is locked for as long as a process trains this job."""
        return self.results / ".locks" / self.row.trained_as / f"{self.leaf}.lock"

    @property
    def log(self) -> Path:
        """What the training's process printed."""
        return self.results / "logs" / self.row.trained_as / f"{self.leaf}.txt"

    @property
    def start(self) -> "Job | None":
        """The training from whose best checkpoint this one starts."""
        return None if self.row.start is None else dataclasses.replace(self, row=self.row.start)

    def starting_words(self) -> list[str]:
        """Words of ``fit`` that say what it starts from; none where it starts afresh."""
        return [] if self.start is None else ["--init_from", str(checkpoint_file("best", self.start.folder))]

    def about(self) -> dict[str, Any]:
        """What the run's manifest says of the row."""
        return about(self.row, self.variant)


def _name_of(value: str) -> str:
    """A value as a part of a folder's name; of two values, two names."""
    name = folder_name(value)
    return name if name == value else f"{name}-{hashlib.blake2b(value.encode(), digest_size=3).hexdigest()}"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder says of a training."""

    folder: Path
    state: State  #: whether a process is at work cannot be seen here
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #: its ``metrics.json``
    manifest: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #: its ``manifest.json``
    error: str = ""  #: what went wrong

    @property
    def sessions(self) -> list[Mapping[str, Any]]:
        """The manifest's sessions, oldest first."""
        return list(self.manifest.get("sessions", []))

    @property
    def seconds(self) -> float:
        """How long all its sessions took."""
        return float(sum(own.get("wall_seconds") or 0 for own in self.sessions))

    def reached(self) -> float:
        """When its last checkpoint was written, in seconds since 1970; 0 where there is none to go on from."""
        last = checkpoint_file("last", self.folder)
        return last.stat().st_mtime if last.is_file() else 0.0


def read_run(folder: Path) -> Run:
    """Reads a run folder: ``missing`` where it has no manifest, ``corrupt`` where that or figures cannot be read."""
    if not (folder / MANIFEST).is_file():
        return Run(folder, "missing")
    try:
        manifest, figures = read_json(folder / MANIFEST), read_json(folder / METRICS)
    except (RepshapeError, OSError) as error:
        return Run(folder, "corrupt", error=str(error))
    run = Run(folder, "interrupted", figures, manifest)
    if not _is_record(manifest) or any(not isinstance(value, int | float | str) for value in figures.values()):
        return Run(folder, "corrupt", error=f"{folder / MANIFEST} or {METRICS} beside it is no record of a run")
    sessions = run.sessions
    if not sessions:
        return run
    last = sessions[-1]
    if last.get("status") == "failed":
        return dataclasses.replace(run, state="failed", error=str(last.get("error", "")))
    # A run that was killed between training and test has no test figures, and goes on with the test.
    stages = {own.get("stage") for own in sessions if own.get("status") == "finished"}
    if last.get("status") == "finished" and "test" in stages:
        return dataclasses.replace(run, state="finished")
    return run


def _is_record(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest's sessions are what a run writes."""
    sessions = manifest.get("sessions", [])
    return isinstance(sessions, list) and all(
        isinstance(own, dict)
        and isinstance(own.get("stage", ""), str)
        and isinstance(own.get("status", ""), str)
        and isinstance(own.get("wall_seconds") or 0.0, int | float)
        for own in sessions
    )


def read_job(job: Job) -> Run:
    """Reads a training's run folder: ``corrupt`` where the row, or a config, was another one at the time."""
    run = read_run(job.folder)
    problem = outdated(run, job.row, job.variant) if run.state not in ("missing", "corrupt") else ""
    return dataclasses.replace(run, state="corrupt", error=f"{run.folder}: {problem}") if problem else run


def outdated(run: Run, row: Row, variant: Variant) -> str:
    """What is wrong with a run that was trained from another row than today's of the same name; empty: nothing."""
    own = run.manifest.get(STUDY)
    theirs = own.get("digest") if isinstance(own, dict) else None
    if theirs is None or theirs == digest(row, variant):
        return ""
    return (
        f"it was trained when {row.id} had other configs or overrides; move it away, or choose other results by --out"
    )


def record_failure(job: Job, error: str) -> None:
    """Notes in the run folder that a training failed before it could say so itself."""
    try:
        manifest = read_json(job.folder / MANIFEST)
    except ConfigError:
        manifest = {}
    sessions = manifest.get("sessions") or [{"stage": "fit"}]
    sessions[-1] = {**sessions[-1], "status": "failed", "error": error[:500]}
    write_json(job.folder / MANIFEST, {"format": 1, STUDY: job.about(), **manifest, "sessions": sessions})


def validation_figure(run: Run, selection: Selection) -> float | None:
    """The validation figure that a run is chosen by: the best of its epochs, which is that of the tested checkpoint.

    Returns:
        The figure; None where the run has none, or none that is finite.

    Raises:
        ValueError: If the run's curves are damaged.
    """
    best = min if selection.better == "lower" else max
    values: list[float] = []
    curve = run.folder / CURVES
    if curve.is_file():
        names, *lines = [line.split(",") for line in curve.read_text(encoding="utf-8").splitlines()] or [[]]
        if selection.metric in names:
            at = names.index(selection.metric)
            values = [float(line[at]) for line in lines if len(line) == len(names) and line[at]]
    if not values and isinstance(run.figures.get(selection.metric), int | float):
        values = [float(run.figures[selection.metric])]
    return best((value for value in values if math.isfinite(value)), default=None)


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much of a study is trained; ConfigError if a fraction is not in (0, 1] or nothing would be trained."""

    epochs: float = 1.0  #: fraction of the epochs
    select_epochs: float | None = None  #: the same for the trainings that a choice is made from; None: as the others
    train_size: int | None = None  #: at most so many training images
    seeds: int | None = None  #: at most so many of the study's seeds

    def __post_init__(self) -> None:  # noqa: D105
        for epochs in (self.epochs, self.select_epochs):
            Variant(epochs=1.0 if epochs is None else epochs, train_size=self.train_size)
        if self.seeds is not None and self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; at least one training is needed")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A row and the trainings that it consists of, as far as the budget goes."""

    row: Row
    results: Path
    budget: Budget = Budget()

    def choices(self) -> list[Job]:
        """The trainings that the value is chosen from; none where nothing is chosen."""
        if self.row.select is None:
            return []
        epochs = self.budget.epochs if self.budget.select_epochs is None else self.budget.select_epochs
        return [
            Job(self.row, Variant(self.row.seeds[0], value, epochs, self.budget.train_size), self.results)
            for value in self.row.select.values
        ]

    def repeats(self, value: str | None) -> list[Job]:
        """The trainings that the figures are of, one a seed, with the value that was chosen."""
        seeds = self.row.seeds[: self.budget.seeds]
        retrain = self.row.retrain is not None
        return [
            Job(self.row, Variant(seed, value, self.budget.epochs, self.budget.train_size, retrain), self.results)
            for seed in seeds
        ]

    def jobs(self, value: str | None) -> dict[str, Job]:
        """All its trainings by name, those of the choice first; one of those may serve after it, too."""
        return {job.name: job for job in [*self.choices(), *self.repeats(value)]}

    def total(self) -> int:
        """How many trainings it takes; as many whatever is chosen."""
        return len(self.jobs(self.row.select.values[0] if self.row.select is not None else None))

    def chosen(self, runs: Mapping[str, Run]) -> tuple[str | None, dict[str, float]]:
        """The value with the best validation figure, None where no run has one, and the figures by value.

        ``runs`` are those of :meth:`choices`, by the jobs' names.
        """
        if self.row.select is None:
            return None, {}
        known = {}
        for job in self.choices():
            run = runs.get(job.name)
            try:
                figure = validation_figure(run, self.row.select) if run and run.state == "finished" else None
            except ValueError:  # a damaged curve: the report names it
                figure = None
            if figure is not None and job.variant.value is not None:
                known[job.variant.value] = figure
        if not known:
            return None, {}
        sign = 1 if self.row.select.better == "lower" else -1
        return min(known, key=lambda value: sign * known[value]), known


def cells_of(rows: Iterable[Row], results: Path, budget: Budget = Budget()) -> list[Cell]:
    """The cells of rows, in order, after those that they start from; of rows that share trainings, the first one's."""
    found: dict[str, Row] = {}
    for row in rows:
        for own in (row.start or row, row):
            found.setdefault(own.trained_as, own)
    return [Cell(row, results, budget) for row in found.values()]


def runs_under(results: Path) -> Iterator[Run]:
    """All runs of a folder of results, in the order of their folders' names."""
    found: list[Path] = []
    for place, folders, files in os.walk(results):
        if MANIFEST in files:
            found.append(Path(place))
            folders.clear()
        hidden = RESERVED if Path(place) == results else ()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in hidden)
    for folder in sorted(found):
        yield read_run(folder)
