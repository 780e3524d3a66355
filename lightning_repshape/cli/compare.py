"""``compare``: several runs, checkpoints or files of features side by side; methods are trained first if asked for."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_repshape import configs_library
from lightning_repshape._version import __version__
from lightning_repshape.analyses import ANALYSES
from lightning_repshape.callbacks.reseeding import Reseeding
from lightning_repshape.callbacks.threads import Threads
from lightning_repshape.cli import study
from lightning_repshape.cli.analyze import AnalyzeCLI, made_analyses, other_features
from lightning_repshape.cli.options import BASES, CHECKPOINTS, compare_parser
from lightning_repshape.cli.own import own_analyses
from lightning_repshape.cli.plain import listed
from lightning_repshape.cli.renaming import with_second_set
from lightning_repshape.comparisons.comparison import Comparison, check_same, check_samples, compare
from lightning_repshape.comparisons.contender import Contender
from lightning_repshape.comparisons.gathering import Gathering, of_file, samples_of_file
from lightning_repshape.comparisons.writing import best_of, headline_rows, write_comparison
from lightning_repshape.errors import ConfigError, DataError, did_you_mean
from lightning_repshape.features.store import FeatureStore
from lightning_repshape.runs.files import written_atomically
from lightning_repshape.runs.folders import (
    CONFIG,
    claim_folder,
    folder_name,
    given_path,
    is_run_folder,
    make_folder,
    run_of_checkpoint,
)
from lightning_repshape.studies.jobs import Budget, Cell, open_results, read_job
from lightning_repshape.studies.reading import FORMAT, filtered, find_studies
from lightning_repshape.terminal.printing import figure_text
from lightning_repshape.terminal.progress import shown_in_terminal, task

_FEATURES = (".npz", ".safetensors")


class Spec(NamedTuple):
    """What is compared: a name, where it lies, its layer, and of a run the checkpoint."""

    name: str
    path: Path
    layer: str
    checkpoint: str


def run(words: list[str]) -> int:
    """Runs the command; 0, or what the trainings end with. Users' errors are RepshapeErrors."""
    words = with_second_set(words)
    cut = words.index("--") if "--" in words else len(words)
    own, of_other = _without_other(words[:cut])
    options = compare_parser().parse_args(own)
    given = words[cut + 1 :]
    _refuse_idle(own, options)
    if options.methods:
        options.models.append(str(_study_of(options)))
    names = [name for name in options.models if _is_study(name)]
    if names:
        if len(options.models) > 1:
            raise ConfigError(f"{names[0]} is a study, which is compared alone: its rows are the models")
        for_analyses = _of_analyses(given, options.analyses)
        specs, status = _trained(names[0], options, [word for word in given if word not in for_analyses])
        if status:
            return status
        given = for_analyses
    else:
        specs = _named([_spec(text, options.layer, options.ckpt_path) for text in options.models])
    if len(specs) < 2:
        raise ConfigError("compare needs two models or more: run folders, checkpoints, files of features, or a study")
    _refuse_unread(specs, options, given, of_other)
    twice = next((spec for spec in specs if sum(spec.name == other.name for other in specs) > 1), None)
    if twice is not None:
        raise ConfigError(f"two models are called {twice.name!r}; give one a name, as in NAME={_word(twice, options)}")
    files = [(spec.name, samples_of_file(spec.path)) for spec in specs if _is_features(spec.path)]
    check_samples(files, options.same_samples)  # before anything is analysed
    contenders: list[Contender] = []
    with shown_in_terminal(), task("models", len(specs)) as advance:
        for spec in specs:
            contenders.append(_contender(spec, options, given, of_other))
            if len(contenders) > 1:  # before the others are passed in vain
                check_same(contenders, options.same_samples)
            advance(1)
    found = compare(contenders, options.same_samples)
    title = Path(names[0]).stem if names else "+".join(spec.name for spec in specs)
    place = Path("comparisons") / folder_name(title)[:80]
    folder = make_folder(given_path(options.to, "--to")) if options.to else claim_folder(place)
    command = shlex.join(["lightning-repshape", *sys.argv[1:]])
    page = write_comparison(found, folder, [f"lightning-repshape {__version__}: {command}"])
    names = [outcome.name for outcome in contenders[0].outcomes]
    _print(found, page, names if options.analyses and "all" not in listed(options.analyses) else ())
    return 0


def _refuse_idle(words: Sequence[str], options: argparse.Namespace) -> None:
    """Raises ConfigError for an option of trainings where nothing is trained, or the base is named already."""
    said = {word.partition("=")[0] for word in words}
    trained = bool(options.methods) or any(_is_study(name) for name in options.models)
    for name in ("out", "budget", "jobs", "filter", "data", "base"):
        if f"--{name}" not in said or options.methods or (trained and name not in ("data", "base")):
            continue
        instead = {"out": "where the page goes is --to", "data": "data.NAME=VALUE behind '--' changes the runs' own"}
        raise ConfigError(
            f"compare: --{name} is of trainings with --methods{'' if name in ('data', 'base') else ' or of a study'}, "
            f"and there are none here; {instead.get(name, 'leave it out')}"
        )
    if {"--data", "--base"} <= said:
        raise ConfigError("compare: --data chooses a base, and --base names another: give one of the two")


def _refuse_unread(
    specs: Sequence[Spec], options: argparse.Namespace, given: Sequence[str], of_other: Sequence[str]
) -> None:
    """Raises ConfigError for an option that none of the models takes."""
    files = [_is_features(spec.path) for spec in specs]
    second = _is_second_file(options)
    if options.other and second not in files:
        kinds = ("a file of features", "files of features") if all(files) else ("a data module", "runs")
        raise ConfigError(f"compare: --other {options.other}: the second set of {kinds[1]} is {kinds[0]}")
    if of_other and (second or not options.other):
        raise ConfigError(
            f"compare: {of_other[0].partition('=')[0]} is an option of a data module, which --other names"
        )
    if all(files):
        read = _of_analyses(given, options.analyses)
        unread = [word for word in given if word not in read]
        if unread:
            raise ConfigError(f"compare: {unread[0]}: files of features take options of analyses alone behind '--'")


# -- what is compared --------------------------------------------------------------------------------------------------


def _spec(text: str, layer: str, checkpoint: str) -> Spec:
    """Takes ``[NAME=]PATH[:CHECKPOINT][@LAYER]`` apart; what is a path as a whole is one."""
    name = ""
    if not given_path(text, "model").exists():
        name, equals, rest = text.partition("=")
        name, text = (name, rest) if equals else ("", text)
    if not given_path(text, "model").exists() and "@" in text:
        text, _, layer = text.rpartition("@")
    if not given_path(text, "model").exists() and text.rpartition(":")[2] in CHECKPOINTS:
        text, _, checkpoint = text.rpartition(":")
    path = given_path(text, "model")
    if not path.exists():
        raise ConfigError(f"there is no run, checkpoint, file of features or study {text!r}")
    if path.is_dir() and not is_run_folder(path):
        raise ConfigError(f"{path} holds no run; name a run's folder, such as runs/quickstart")
    return Spec(name, path, layer, checkpoint)


def _named(specs: Sequence[Spec]) -> list[Spec]:
    """Gives every model the shortest end of its path that none of the others has."""

    def parts(spec: Spec) -> list[str]:
        path = spec.path.absolute()
        run = run_of_checkpoint(path) if path.is_file() else None
        own = [*Path(run).absolute().parts, path.stem] if run is not None else [*path.with_suffix("").parts]
        own += [spec.checkpoint] if path.is_dir() and len({other.checkpoint for other in specs}) > 1 else []
        return [*own, spec.layer] if spec.layer != "features" else own

    taken = [parts(spec) for spec in specs]
    found = []
    for spec, own in zip(specs, taken, strict=True):
        length = next((n for n in range(1, len(own)) if sum(other[-n:] == own[-n:] for other in taken) == 1), len(own))
        found.append(spec if spec.name else spec._replace(name=str(Path(*own[-length:]))))
    return found


def _word(spec: Spec, options: argparse.Namespace) -> str:
    """A model as it is given, without its name."""
    checkpoint = f":{spec.checkpoint}" if spec.checkpoint != options.ckpt_path else ""
    return f"{spec.path}{checkpoint}{f'@{spec.layer}' if spec.layer != options.layer else ''}"


def _is_study(name: str) -> bool:
    if given_path(name, "model").is_dir() or "=" in name:
        return False
    if name.endswith((".yaml", ".yml")):
        return True
    if given_path(name, "model").exists() or "@" in name:
        return False
    try:
        find_studies(name)
    except ConfigError:
        return False
    return True


def _study_of(options: argparse.Namespace) -> Path:
    """A study of the methods that were named, as a file among the results."""
    if options.models:
        raise ConfigError("--methods trains what is compared, so no models are named beside it")
    base = options.base
    if base is None:
        data = options.data or "DigitsDataModule"
        if data not in BASES:
            raise ConfigError(f"--data {data}: no base is known for it{did_you_mean(data, BASES)}; name one by --base")
        base = BASES[data]
    base = base.removeprefix("base/")
    configs_library.find(f"base/{base}")
    methods: dict[str, Any] = {}
    for word in listed(options.methods):
        name = {"baseline": "plain"}.get(word, word.replace("_", "-"))
        config = name if "/" in name else _fragment(name)
        configs_library.find(config)
        methods[folder_name(name).replace("-", "_")] = {"title": name, "configs": [config]}
    content = {
        "format": FORMAT,
        "title": f"{', '.join(own['title'] for own in methods.values())} on {base}",
        "configs": [f"base/{base}"],
        "overrides": {"trainer.callbacks": None},
        "figures": {
            "error": {"metric": "test/error", "scale": 100, "unit": "%", "better": "lower", "digits": 2},
        },
        "methods": methods,
    }
    out = make_folder(open_results(given_path(options.out, "--out"), create=True))
    file = make_folder(out / ".compared") / f"{folder_name(base)}-{folder_name('-'.join(methods))}.yaml"
    with written_atomically(file) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def _fragment(name: str) -> str:
    """The fragment of a method: the recommended one where there is one, else the papers' setting."""
    recommended = f"recommended/{name}"
    return recommended if recommended in configs_library.names() else f"method/{name}"


def _trained(name: str, options: argparse.Namespace, given: Sequence[str]) -> tuple[list[Spec], int]:
    """Trains what a study lacks; the runs of its rows, one a method, and the trainings' status."""
    words = ["run", name, "--out", options.out, "--budget", options.budget, "--seeds", "1"]
    for pattern in options.filter:
        words += ["--filter", pattern]
    studies = find_studies(name)
    rows = filtered([row for one in studies for row in one.rows], options.filter)
    jobs = options.jobs or str(1 if torch.cuda.is_available() else min(torch.get_num_threads(), len(rows)) or 1)
    status = study.run([*words, "--jobs", jobs, *(["--", *given] if given else [])])
    if status:
        return [], status
    budget = Budget(float(options.budget), seeds=1)
    results = open_results(given_path(options.out, "--out"))
    specs = []
    for row in rows:
        cell = Cell(row, results, budget)
        value, _ = cell.chosen({job.name: read_job(job) for job in cell.choices()})
        title = next(one for one in studies if one.id == row.study).methods[row.method]
        label = title if len({other.column for other in rows}) == 1 else f"{title}, {row.column}"
        specs.append(Spec(label, cell.repeats(value)[0].folder, options.layer, options.ckpt_path))
    return specs, 0


# -- models ------------------------------------------------------------------------------------------------------------


def _of_analyses(given: Sequence[str], names: str | None) -> list[str]:
    """The options of analyses among words, which also go to trainings, or to runs beside files of features."""
    own = tuple(f"--{kind.kind}." for kind in (*ANALYSES, *own_analyses(names)))
    found = [word for word in given if word.startswith(own)]
    if any("=" not in word for word in found):
        raise ConfigError("options of analyses are written with '=' beside trainings and files, as --lda.label=3")
    return found


def _without_other(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words, and the options of a second data set among them: ``--other.NAME=VALUE``, or as two words."""
    kept: list[str] = []
    found: list[str] = []
    before = ""
    for word in words:
        theirs = word.startswith("--other.") or (before.startswith("--other.") and "=" not in before)
        (found if theirs else kept).append(word)
        before = word
    return kept, found


def _is_features(path: Path) -> bool:
    return path.is_file() and path.suffix in _FEATURES


def _is_second_file(options: argparse.Namespace) -> bool:
    return bool(options.other) and options.other.endswith(_FEATURES)


def _contender(
    spec: Spec, options: argparse.Namespace, given: Sequence[str], of_other: Sequence[str] = ()
) -> Contender:
    second = _is_second_file(options)
    if _is_features(spec.path):
        analyses = made_analyses(options.analyses, _of_analyses(given, options.analyses), other=second)
        other = other_features(options.other, {}, spec.path) if second else None
        return of_file(spec.name, spec.path, spec.layer, analyses, other)
    run = spec.path if spec.path.is_dir() else run_of_checkpoint(spec.path)
    if run is None or not (Path(run) / CONFIG).is_file():
        raise ConfigError(
            f"{spec.path} lies in no run folder, so nothing says what model it is of; save its features "
            "(analyze --help) and compare those"
        )
    checkpoint = spec.checkpoint if spec.path.is_dir() else str(spec.path)
    words = ["--run_dir", str(run), "--ckpt_path", checkpoint, "--layer", spec.layer, "--trainer.callbacks", "null"]
    words += ["--trainer.devices", "1", "--trainer.enable_progress_bar", "false"]
    words += ["--trust"] if options.trust else []
    words += ["--analyses", options.analyses] if options.analyses else []
    words += ["--other", options.other, *of_other] if options.other and not second else []
    _CompareCLI.spec = spec
    cli = _CompareCLI("analyze", [*words, *given])
    if cli.gathered.contender is None:
        raise DataError(f"{spec.name}: nothing was tested")
    return cli.gathered.contender


class _CompareCLI(AnalyzeCLI):
    """``analyze`` that leaves the run as it is, and gathers in place of writing a page."""

    spec: Spec

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with nothing that writes into the run."""
        trainer = super().instantiate_trainer(**kwargs)
        about = str(self.checkpoint or "untrained weights")
        self.gathered = Gathering(self.spec.name, self.spec.layer, self.analyses, about, self.run_dir)
        kept = (Threads, Reseeding, FeatureStore, ProgressBar)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [*(item for item in callbacks if isinstance(item, kept)), self.gathered]
        return trainer

    def after_analyze(self) -> None:
        """Writes nothing."""


# -- what is printed ---------------------------------------------------------------------------------------------------


def _print(found: Comparison, page: Path, asked: Sequence[str]) -> None:
    """The few figures that matter, and some of those asked for, models across where they fit, else down."""
    rows = headline_rows(found, asked)
    console = Console()
    cells = [
        [Text(figure_text(line.name, value), "bold" if at in best else "") for at, value in enumerate(values)]
        for line, values in rows
        for best in [best_of(values, line.better)]
    ]
    table = Table(title=f"{len(found.contenders[0].samples.labels):,} test samples", title_justify="left")
    room = console.width - max((len(line.label) for line, _ in rows), default=0) - 4
    across = sum(max(len(name), 8) + 3 for name in found.names) <= room
    heads, lines = ([line.label for line, _ in rows], list(found.names))
    if across:
        heads, lines = lines, heads
    else:
        cells = [list(column)[: console.width // 16] for column in zip(*cells, strict=True)]
        heads = heads[: console.width // 16]
    table.add_column("")
    for head in heads:
        table.add_column(Text(head), justify="right")
    for name, own in zip(lines, cells, strict=True):
        table.add_row(Text(name), *own)
    if rows:
        console.print(table)
    for (first, second), difference in found.differences.items():
        if first == found.names[0]:
            middle, low, high = (f"{100 * value:+.2f}" for value in difference)
            console.print(
                f"test error, {second} − {first}: {middle} points (95 % interval {low} to {high})",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
    console.print(f"page: {page}", soft_wrap=True, highlight=False, markup=False)
