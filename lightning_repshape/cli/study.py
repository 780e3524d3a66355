"""The command ``study``: lists, shows, trains and reports the tables of papers and of users."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightning_repshape.cli.plain import PlainParser
from lightning_repshape.cli.process import HANGUPS
from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.runs.folders import given_path
from lightning_repshape.runs.locks import check_locks
from lightning_repshape.studies.calls import import_beside, row_words
from lightning_repshape.studies.jobs import Budget, Cell, Job, cells_of, open_results, read_job
from lightning_repshape.studies.reading import filtered, find_studies, shipped
from lightning_repshape.studies.rows import Row, Study, Variant
from lightning_repshape.terminal.printing import error as print_error

if TYPE_CHECKING:
    from lightning_repshape.studies.cells import StudyResult
    from lightning_repshape.studies.executors import Executor

# What may stand behind "--": where and how a study is trained. What is trained, its file says.
_GIVEN = (
    "data.root", "data.download", "data.num_workers", "threads", "trainer.accelerator", "trainer.devices",
    "trainer.num_nodes", "trainer.strategy", "trainer.precision",
)  # fmt: skip

_CALM: Any = {"box": None, "pad_edge": False}  # of all tables: lines would say nothing

_HELP = """\
A study is a table: columns, methods, what is chosen by validation, seeds. The papers' tables are shipped; a YAML file
of your own is named in place of an id.

  lightning-repshape study list aaai19
  lightning-repshape study show aaai19/table-7
  lightning-repshape study run aaai19/table-7 --budget 0.2 --jobs 2 -- --data.root data
  lightning-repshape study report aaai19/table-7 --to docs/results/table-7
  lightning-repshape study report aaai19/table-7 --to docs/results/table-7 --check
"""


def run(words: list[str]) -> int:
    """Runs the command; 1 where a training failed or numbers do not check, else 0. Users' errors are RepshapeErrors."""
    cut = words.index("--") if "--" in words else len(words)
    options = study_parsers()[0].parse_args(words[:cut])
    given = words[cut + 1 :]
    if given and options.action != "run":
        raise ConfigError(f"study {options.action} takes no options of fit, so nothing stands behind '--'")
    actions = {"list": _list, "show": _show, "report": _report}
    return _run(options, given) if options.action == "run" else actions[options.action](options)


def study_parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The command's parser, and those of its actions by name."""
    own_parsers: dict[str, argparse.ArgumentParser] = {}
    parser = PlainParser(
        prog="lightning-repshape study", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list | show | run | report")

    def action(name: str, text: str, named: str | None) -> argparse.ArgumentParser:
        own = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        own_parsers[name] = own
        if named:
            own.add_argument(
                "studies", nargs=named, metavar="STUDY", help="an id, the first part of ids, or a YAML file"
            )
        own.add_argument(
            "--filter", action="append", default=[], metavar="WORDS",
            help="only rows of this column, method, table or data; joined by '+', all must fit; may be repeated",
        )  # fmt: skip
        return own

    listing = action("list", "name the studies that there are", "*")
    listing.add_argument("--rows", action="store_true", help="name their rows, too")
    show = action("show", "show a study's columns, methods and published values", "+")
    show.add_argument("--commands", action="store_true", help="print the call of fit behind every row")
    running = action("run", "train what is not trained yet, then report", "+")
    _out(running)
    running.add_argument(
        "--budget", type=float, default=1.0, metavar="PART", help="fraction of the epochs (default: 1)"
    )
    running.add_argument("--select_budget", type=float, metavar="PART", help="the same where a value is chosen")
    running.add_argument("--train_size", type=int, metavar="N", help="at most so many training images (default: all)")
    running.add_argument(
        "--seeds", type=int, metavar="N", help="at most so many trainings a row (default: the study's)"
    )
    running.add_argument("--jobs", type=int, metavar="N", help="trainings at once (default: 1; ray: what fits)")
    running.add_argument(
        "--stack", type=int, metavar="N", help="up to N trainings of small networks as one program (default: 1)"
    )
    running.add_argument("--executor", choices=("local", "ray", "slurm"), default="local", help="default: local")
    running.add_argument("--address", metavar="HOST", help="of a Ray cluster (default: one is started here)")
    running.add_argument("--partition", metavar="NAME", help="of SLURM")
    running.add_argument("--hours", type=float, metavar="H", help="of a SLURM job (default: 4)")
    running.add_argument("--cpus", type=int, metavar="N", help="of a training (ray, slurm; default: 1)")
    running.add_argument("--gpus", type=float, metavar="N", help="of a training (ray, slurm; default: 0)")
    running.add_argument("--retries", type=int, default=2, metavar="N", help="of what was interrupted (default: 2)")
    running.add_argument("--retry_failed", action="store_true", help="train anew what failed before")
    running.add_argument("--dry_run", action="store_true", help="say what would be trained")
    report = action("report", "write tables, figures and one HTML page from run folders", "+")
    _out(report)
    report.add_argument(
        "--to",
        metavar="FOLDER",
        help="of the report (default: OUT/report/STUDY)",
    )
    report.add_argument("--latex", action="store_true", help="print the tables for a paper, and write nothing")
    report.add_argument("--markdown", action="store_true", help="print the tables as Markdown, and write nothing")
    report.add_argument("--check", action="store_true", help="verify that every number comes from a run that is there")
    return parser, own_parsers


def _out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=lambda text: given_path(text, "--out"),
        default=Path("studies"),
        metavar="FOLDER",
        help="of the results (default: studies)",
    )


def _named(options: argparse.Namespace) -> tuple[list[Study], list[Row]]:
    """The studies that were named, and their rows that were asked for."""
    named = {study.file.resolve() / study.id: study for name in options.studies for study in find_studies(name)}
    studies = list(named.values())
    twice = [study.id for study in studies if sum(study.id == other.id for other in studies) > 1]
    if twice:
        raise ConfigError(
            f"two files hold a study {twice[0]}: its runs would lie in one folder; rename one of the files"
        )
    rows = filtered([row for study in studies for row in study.rows], options.filter)
    if not rows:
        known = sorted({part for study in studies for row in study.rows for part in (row.column, row.method, row.data)})
        raise ConfigError(f"no row fits {' '.join(options.filter)!r}{did_you_mean(options.filter[-1], known)}")
    present = {row.study for row in rows}
    return [study for study in studies if study.id in present], rows


def _list(options: argparse.Namespace) -> int:
    if not options.studies:
        options.studies = list(dict.fromkeys(study.id.partition("/")[0] for study in shipped()))
    studies, rows = _named(options)
    if options.rows:
        print("\n".join(row.id for row in rows))
        return 0
    table = Table(**_CALM)
    for name in ("study", "rows", "data", "title"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for study in studies:
        count = sum(row.study == study.id for row in rows)
        table.add_row(study.id, str(count), escape(study.data), escape(study.title))
    _console().print(table, highlight=False)
    return 0


def _show(options: argparse.Namespace) -> int:
    studies, rows = _named(options)
    console = _console()
    chosen = {row.id for row in rows}
    for study in studies:
        console.print(f"[bold]{study.id}[/bold]  {escape(study.title)}", highlight=False)
        source = f"{study.paper}{', ' + study.source if study.source else ''}"
        if source:
            console.print(source, style="dim", highlight=False, markup=False)
        columns = [name for name in study.columns if any(row.column == name for row in rows if row.study == study.id)]
        published = {name for row in rows if row.study == study.id for name in row.published}
        for figure in [figure for figure in study.figures.values() if figure.name in published]:
            unit = f" ({figure.unit})" if figure.unit else ""
            console.print(f"published: {figure.name}{unit}", highlight=False, markup=False)
            table = Table(**_CALM)
            table.add_column("method")
            for column in columns:
                table.add_column(column, justify="right")
            for method in study.methods:
                cells = [study.row(column, method) for column in columns]
                if any(row is not None and row.id in chosen for row in cells):
                    shown = [row.published.get(figure.name) if row is not None else None for row in cells]
                    table.add_row(method, *(escape(own.show(figure.digits)) if own else "" for own in shown))
            console.print(table, highlight=False)
        if not published:
            for what, named in (("columns", study.columns), ("methods", study.methods)):
                console.print(f"{what}: {', '.join(named)}", highlight=False, markup=False)
        for note in study.notes:
            console.print(f"- {note}", highlight=False, markup=False)
        for row in rows:
            if row.study == study.id and options.commands:
                job = Job(row, Variant(row.seeds[0]), Path("studies"))
                words = ["lightning-repshape", "fit", "--row", row.reference, *job.starting_words()]
                console.print(" ".join(words), highlight=False, markup=False, soft_wrap=True)
        trained = cells_of([row for row in rows if row.study == study.id], Path())
        others = dict.fromkeys(cell.row.trained_in for cell in trained if cell.row.trained_in != study.id)
        shared = f", those of {', '.join(others)}" if others else ""
        console.print(f"{sum(cell.total() for cell in trained)} trainings in all{shared}\n", highlight=False)
    return 0


def _run(options: argparse.Namespace, given: list[str]) -> int:
    _check_given(given)
    _check_numbers(options)
    studies, rows = _named(options)
    budget = Budget(options.budget, options.select_budget, options.train_size, options.seeds)
    fresh = options.dry_run and not options.out.exists()
    results = options.out if fresh else open_results(options.out, create=not options.dry_run)
    cells = cells_of(rows, results, budget)
    if options.dry_run:
        return _dry_run(cells, options)
    check_locks("study run")
    _check_rows(cells, given)
    executor = _executor(options, given)
    # Imported late, so that list and show need nothing of it.
    from lightning_repshape.studies.live import LiveTable
    from lightning_repshape.studies.runner import Runner

    threads = max(1, (os.cpu_count() or 1) // executor.slots) if options.executor == "local" else options.cpus or 1
    environment = {"OMP_NUM_THREADS": str(threads)} if "OMP_NUM_THREADS" not in os.environ else {}
    environment |= _imports_beside(studies)
    with LiveTable(studies, executor.slots) as live:
        runner = Runner(
            cells,
            executor,
            given,
            retry_failed=options.retry_failed,
            retries=options.retries,
            watch=live.show,
            environment=environment,
            stack=options.stack or 1,
        )
        try:
            with _listening():
                progress = runner.run()
        except (KeyboardInterrupt, _Ended) as stop:
            print_error("interrupted; the same command goes on")
            return stop.status if isinstance(stop, _Ended) else 130
    executor.stop()
    failed = [(name, own.error) for own in progress for name, phase in own.phases.items() if phase == "failed"]
    if any(own.count("finished") for own in progress):
        for study in studies:
            # Rows that were trained before belong to the table, too.
            wanted = {row.id for row in rows} | {row.id for row in study.rows if (results / row.trained_as).is_dir()}
            own = [row for row in study.rows if row.id in wanted]
            if any((results / row.trained_as).is_dir() for row in own):
                _write([study], own, results, _place(results, [study]))
    for name, error in failed:
        print_error(f"failed: {name}: {error}")
    return 1 if failed else 0


def _imports_beside(studies: Sequence[Study]) -> dict[str, str]:
    """Lets trainings import classes that stand beside a user's study."""
    own = dict.fromkeys(str(study.rows[0].beside) for study in studies if study.rows[0].beside is not None)
    given = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([*own, *([given] if given else [])])} if own else {}


class _Ended(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.status = 128 + number


@contextmanager
def _listening() -> Iterator[None]:
    """Lets signals end the study as Ctrl-C does, so that no training is left behind; afterwards they are as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, *HANGUPS)}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # as nohup has it
    for number in heard:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise _Ended(number)


def _check_given(given: Sequence[str]) -> None:
    for word in given:
        name = word.partition("=")[0].lstrip("-")
        if word.startswith("-") and name not in _GIVEN:
            raise ConfigError(
                f"{word.partition('=')[0]} changes what is trained, so it stands in the study's file (overrides), not "
                f"on the command line; behind '--' there can be: {', '.join(_GIVEN)}"
            )


def _check_numbers(options: argparse.Namespace) -> None:
    """Options that cannot work, and those that the executor has no use for."""
    for name, least in (("retries", 0), ("jobs", 1), ("stack", 1), ("cpus", 1), ("gpus", 0), ("hours", 0)):
        value = getattr(options, name)
        if value is not None and (value < least or (name == "hours" and value == 0)):
            raise ConfigError(f"--{name} is {value:g}; it must be {'above' if name == 'hours' else 'at least'} {least}")
    of_executor = {
        "local": ("stack",),
        "ray": ("address", "cpus", "gpus"),
        "slurm": ("partition", "hours", "cpus", "gpus"),
    }[options.executor]
    for name in ("address", "partition", "hours", "cpus", "gpus", "stack"):
        if getattr(options, name) is not None and name not in of_executor:
            raise ConfigError(f"--{name} has no meaning with --executor {options.executor}")
    if options.executor == "slurm" and options.gpus and options.gpus != int(options.gpus):
        raise ConfigError(f"--gpus is {options.gpus:g}; SLURM gives whole ones")


def _check_rows(cells: Sequence[Cell], given: Sequence[str]) -> None:
    """Parses one call of every row of a user's study before anything runs; those that are shipped are tested."""
    calls = {}
    for cell in cells:
        if cell.row.beside is not None:
            jobs = list(cell.jobs(cell.row.select.values[0] if cell.row.select is not None else None).values())
            for job in (jobs[0], jobs[-1]):  # of a choice, and after it
                calls[f"{cell.row.id}{' (retrain)' if job.variant.retrain else ''}"] = [
                    *row_words(cell.row, job.variant),
                    *given,
                ]
    if calls:
        from lightning_repshape.cli.training import check_fit

        for cell in cells:
            import_beside(cell.row)
        check_fit(calls)


def _executor(options: argparse.Namespace, given: Sequence[str]) -> "Executor":
    from lightning_repshape.studies.executors import LocalExecutor, RayExecutor, SlurmExecutor

    cpus, gpus = options.cpus or 1, options.gpus or 0
    if options.executor == "ray":
        return RayExecutor(options.address, cpus, gpus, options.jobs)
    if options.executor == "slurm":
        folder = options.out.resolve() / ".slurm"
        return SlurmExecutor(folder, options.jobs or 16, cpus, int(gpus), options.hours or 4.0, options.partition)
    takes_devices = any(word.partition("=")[0] == "--trainer.devices" for word in given)
    return LocalExecutor(options.jobs or 1, () if takes_devices else _gpus())


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


def _dry_run(cells: Sequence[Cell], options: argparse.Namespace) -> int:
    table = Table(**_CALM)
    for name in ("row", "trainings", "finished"):
        table.add_column(name, justify="left" if name == "row" else "right")
    total = 0
    for cell in cells:
        runs = {job.name: read_job(job) for job in cell.choices()}
        jobs = cell.jobs(cell.chosen(runs)[0])
        states = [(runs.get(name) or read_job(job)).state for name, job in jobs.items()]
        count = cell.total()
        finished = states.count("finished")
        total += count - finished - (0 if options.retry_failed else states.count("failed"))
        table.add_row(cell.row.id, str(count), str(finished or ""))
    _console().print(table, highlight=False)
    print(f"{total} trainings left")
    return 0


def _place(results: Path, studies: Sequence[Study]) -> Path:
    """Where a report goes by itself: of one study, beside those of others."""
    return results / "report" / (studies[0].id.replace("/", "-") if len(studies) == 1 else "all")


def _report(options: argparse.Namespace) -> int:
    studies, rows = _named(options)
    results = open_results(options.out)
    folder = _place(results, studies) if options.to is None else given_path(options.to, "--to")
    if options.check:
        from lightning_repshape.studies.check import check_report

        problems = check_report(folder, results)
        for problem in problems:
            print_error(f"wrong: {problem}")
        print(f"{folder}: {len(problems)} problems" if problems else f"{folder}: every number has its run")
        return 1 if problems else 0
    if options.latex or options.markdown:
        _print_tables(studies, rows, results, options.latex)
        return 0
    _write(studies, rows, results, folder)
    return 0


def _print_tables(studies: Sequence[Study], rows: Sequence[Row], results: Path, latex: bool) -> None:
    from lightning_repshape.studies.formats import as_markdown
    from lightning_repshape.studies.latex import as_latex
    from lightning_repshape.studies.report import tables_of
    from lightning_repshape.studies.results import read_results

    for found in read_results(results, studies, [row.id for row in rows]):
        title, parts = f"{found.study.id}: {found.study.title}", tables_of(found)
        about = ", ".join(text for text in (found.study.paper, found.study.source) if text)
        print(as_latex(title, parts) if latex else as_markdown(title, about, parts), end="")


def _write(studies: Sequence[Study], rows: Sequence[Row], results: Path, folder: Path) -> None:
    from lightning_repshape.studies.report import write_report
    from lightning_repshape.studies.results import read_results

    found = read_results(results, studies, [row.id for row in rows])
    write_report(folder, found)
    for result in found:
        _print(result)
    print(f"report: {folder / 'report.html'}")


def _print(result: "StudyResult") -> None:
    """Prints a study's figures, the paper's beside them where there are some."""
    for name, figure in result.study.figures.items():
        unit = f" ({figure.unit})" if figure.unit else ""
        _console().print(f"{result.study.id}: {name}{unit}", highlight=False, markup=False)
        table = Table(**_CALM)
        table.add_column("method")
        papers = any(name in cell.row.published for cell in result.cells)
        for column in result.columns:
            table.add_column(escape(column), justify="right")
            if papers:
                table.add_column("paper", justify="right", style="dim")
        for method in result.methods:
            shown = []
            for column in result.columns:
                cell = result.cell(column, method)
                own = None if cell is None else cell.figures[name]
                if cell is None or own is None or not own.show():
                    shown.append("" if cell is None else escape(cell.remark or "-"))
                else:
                    shown.append(f"{own.show()} ({own.statistics.n}){'*' if cell.marks else ''}")
                if papers:
                    shown.append("" if own is None else escape(own.show_published()))
            table.add_row(escape(result.study.methods[method]), *shown)
        _console().print(table, highlight=False)
        if any(cell.marks for cell in result.cells):
            _console().print("* less than the whole budget", style="dim")


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=160)
