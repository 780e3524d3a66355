"""``analyze``: the analyses on a checkpoint, on any other LightningModule, or on saved features; nothing is trained."""

import dataclasses
import hashlib
import platform
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console
from torch import Tensor

from lightning_repshape._version import __version__
from lightning_repshape.analyses import ANALYSES, Analysis, FeatureInputs, Outcome, hover, run_analyses
from lightning_repshape.analyses.analysis import say
from lightning_repshape.analyses.arrays import read_arrays, splits_of
from lightning_repshape.analyses.headline import scalars_of
from lightning_repshape.analyses.page import write_page
from lightning_repshape.cli.own import names_given, own_analyses
from lightning_repshape.cli.parsing import OneLineParser, given_device
from lightning_repshape.cli.plain import listed
from lightning_repshape.cli.renaming import with_second_set
from lightning_repshape.cli.resolving import said
from lightning_repshape.cli.training import CommandTrainer, RepshapeCLI, as_list, headline
from lightning_repshape.errors import ConfigError, DataError, did_you_mean
from lightning_repshape.features.passes import Features
from lightning_repshape.runs.files import read_json, write_json
from lightning_repshape.runs.folders import (
    MANIFEST,
    analysis_folder,
    claim_folder,
    folder_name,
    given_path,
    make_folder,
)
from lightning_repshape.terminal.printing import figure_table
from lightning_repshape.terminal.progress import shown_in_terminal, task

PAGE = "index.html"
_LAYER = "features"  # what is analysed unless another layer is named
_ALL = "all"  # every analysis, those on request, too
_SHARED = {option.name for option in dataclasses.fields(Analysis)}

_USAGE = """\
lightning-repshape analyze --run_dir RUN [OPTIONS]
       lightning-repshape analyze --config CONFIG --ckpt_path FILE [OPTIONS]
       lightning-repshape analyze --model CLASS --data CLASS --ckpt_path FILE
                                  --layer NAME [OPTIONS]
       lightning-repshape analyze --features FILE [OPTIONS]"""
_ABOUT = """\
Shows how a trained classifier's representation is shaped; nothing is trained but small heads on frozen features.
Writes JSON, PNG and PDF of each analysis and one page with everything, index.html, into RUN/analysis; with --layer
NAME, where it is not features, into RUN/analysis/NAME. Further options (--trainer..., --data..., --threads) are those
of the command test: lightning-repshape test --help."""


def run(words: list[str]) -> int:
    """Runs the command; 0. An analysis that the data do not allow is no error, unless it is the only one."""
    words = with_second_set(words)
    if any(word == "--features" or word.startswith("--features=") for word in words):
        _analyze_features(words)
    else:
        AnalyzeCLI("analyze", words)
    return 0


class AnalyzingTrainer(CommandTrainer):
    """A trainer that analyses by way of its test, with the analyses as callbacks, as at the end of a run's own test."""

    def analyze(
        self,
        model: LightningModule | None = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Runs the analyses among the callbacks at the end of a test.

        Args:
            model: The model; it needs no test step of its own.
            datamodule: The data.
            ckpt_path: The checkpoint: a file, best or last; none for untrained weights.
            weights_only: Whether to read nothing but tensors and plain data from it.
        """
        with _a_test_step(model):
            self.test(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=weights_only)


@contextmanager
def _a_test_step(model: LightningModule | None) -> Iterator[None]:
    """Gives a model that has no test step one that does nothing, since Lightning tests no model without."""
    if model is None or is_overridden("test_step", model, LightningModule):
        yield
        return
    vars(model)["test_step"] = lambda batch, batch_idx: None
    try:
        yield
    finally:
        del vars(model)["test_step"]


class AnalyzeCLI(RepshapeCLI):
    """The command with all analyses as callbacks, and a page at its end."""

    trainer_type = AnalyzingTrainer

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command, and the arguments of the trainer's method that are no options."""
        return {self.command: {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the choice of analyses and their options."""
        super().add_arguments_to_parser(parser)
        _add_analyses(parser, unpack=True, own=own_analyses(names_given(self.words, self.configs)))

    def link_data_to_model(self, parser: LightningArgumentParser) -> None:
        """Links nothing to a model that knows nothing of this package's data modules."""
        if not _is_foreign(self.words, self.configs):
            super().link_data_to_model(parser)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the analyses; those of the run's config keep its options, unless the words give some."""
        if self.options.get("interactive"):
            hover.check_bokeh()
        made = self.config_init[self.command]
        given = as_list(made.trainer.get("callbacks"))
        # what a config looks at before training has no place after it
        configured = [callback for callback in given if isinstance(callback, Analysis) and callback.when != "fit_start"]
        self.analyses: list[Analysis] = []
        for kind in chosen_analyses(self.options.get("analyses"), configured, made.get("other") is not None):
            theirs = [callback for callback in configured if type(callback) is kind]
            if theirs and not any(word.startswith(f"--{kind.kind}.") for word in self.words):
                self.analyses += theirs
            else:
                self.analyses.append(made[kind.kind])
        if self.options.get("analyses") is None:  # those that a user wrote
            self.analyses += [callback for callback in configured if type(callback) not in ANALYSES]
        for analysis in self.analyses:
            analysis.when = "test"
            if self.options.get("layer"):
                analysis.layer = self.options["layer"]
                analysis.folder = _folder_of(analysis.layer)
            if self.options.get("unpack"):
                analysis.unpack = _unpack(self.options["unpack"])
            if made.get("other") is not None:
                analysis.other = made["other"]
        self.asked = asked_for(self.options.get("analyses"), self.analyses)
        made.trainer["callbacks"] = [callback for callback in given if not isinstance(callback, Analysis)]
        made.trainer["callbacks"] += self.analyses
        return super().instantiate_trainer(**kwargs)

    def after_analyze(self) -> None:
        """Writes the page."""
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = analysis_folder(self.run_dir) / _folder_of(self.options.get("layer"))
        model, data = type(self.model).__name__, type(self.datamodule).__name__ if self.datamodule else "no data module"
        layers = ", ".join(dict.fromkeys(analysis.layer for analysis in self.analyses))
        about = [
            f"{model} on {data}, layer {layers}, checkpoint {self.checkpoint or 'none: untrained weights'}",
            f"run folder {self.run_dir}, lightning-repshape {__version__}",
        ]
        other = self.config_init[self.command].get("other")
        about += [f"second set {type(other).__name__.removesuffix('DataModule')}"] if other is not None else []
        outcomes = [analysis.outcome for analysis in self.analyses if analysis.outcome is not None]
        title, manifest = f"Analysis of {self.run_dir.name}", read_json(self.run_dir / MANIFEST)
        maps = None
        if self.options.get("interactive"):
            unpack = self.analyses[0].unpack
            thumbnails = hover.thumbnails_of(self.trainer, unpack)
            maps = hover.write_maps(folder / hover.FILE, title, outcomes, thumbnails)
        page = write_page(folder / PAGE, title, about, outcomes, manifest, maps)
        _finish(outcomes, page)


def help_parser(own: Sequence[type[Analysis]] = ()) -> OneLineParser:
    """A parser for its help, with those of the user's own analyses; it lacks the options of the command ``test``."""
    return _parser(of_models=True, own=own)


def _parser(of_models: bool = False, own: Sequence[type[Analysis]] = ()) -> OneLineParser:
    """The parser of ``--features``; with the options of models beside them, the one whose help is shown."""
    parser = OneLineParser(prog="lightning-repshape analyze", usage=_USAGE, description=_ABOUT)
    what = parser.add_argument_group("what is analysed")
    what.add_argument(
        "--run_dir",
        type=str | None,
        default=None,
        metavar="RUN",
        help="A run: its best checkpoint, its own config. (With --features: the folder for the results.)",
    )
    if of_models:
        what.add_argument("--config", metavar="CONFIG", help="A config, to be given with a checkpoint.")
        what.add_argument("--ckpt_path", metavar="FILE", help="A file, best, last, or none for untrained weights.")
        what.add_argument(
            "--model",
            metavar="CLASS",
            help="Any LightningModule by import path; nothing of the data is linked to one of another project.",
        )
        what.add_argument("--data", metavar="CLASS", help="Any LightningDataModule by import path.")
    what.add_argument(
        "--features",
        type=str | None,
        default=None,
        metavar="FILE",
        help="Saved features without any model: .npz or .safetensors with the arrays features (N x D) and labels (N); "
        "optionally logits (N x K), test_features, test_labels, test_logits, weight (K x D), bias (K), class_names; "
        "the same of a second set behind other_, such as other_test_features.",
    )
    only = parser.add_argument_group("only with --features")
    if not of_models:
        only.add_argument(
            "--other", type=str | None, default=None, metavar="FILE", help="Features of a second set (or --transfer)."
        )
    only.add_argument("--class_names", type=str | list[str] | None, default=None, help="Such as cat,dog.")
    only.add_argument("--num_classes", type=int | None, default=None, help="Default: from logits or labels.")
    only.add_argument("--seed_everything", type=int, default=0, metavar="SEED", help="Of random choices.")
    only.add_argument("--device", type=str, default="cpu", help="Where to compute.")
    _add_analyses(parser, unpack=of_models, own=own)
    return parser


def _add_analyses(parser: LightningArgumentParser, unpack: bool, own: Sequence[type[Analysis]]) -> None:
    """Adds the choice of analyses and their own options."""
    which = parser.add_argument_group("which analyses, and where")
    which.add_argument(
        "--analyses",
        type=str | list[str] | None,
        default=None,
        metavar="LIST",
        help="Some of them, such as lda,collapse; one of your own by its import path, my_file.MyAnalysis. "
        f"Default: {_ALL} but "
        f"{', '.join(kind.kind for kind in ANALYSES if kind.on_request)}, which run when they are named, or are in "
        "the run's config.",
    )
    which.add_argument(
        "--layer",
        type=str | None,
        default=None,
        help="The activation, or the submodule of another project's model; NAME[KEY]: one of several values that it "
        f"returns. Default: {_LAYER}.",
    )
    if unpack:
        which.add_argument(
            "--unpack",
            type=str | list[int | str] | None,
            default=None,
            metavar="X,Y",
            help="Positions or keys of inputs and labels in a batch, such as image,label; '**,label': all but the "
            "label, as keyword arguments. Default: 0,1.",
        )
        which.add_argument(
            "--other",
            type=LightningDataModule | None,
            default=None,
            metavar="CLASS",
            help="A second data set, its options as --other.NAME (--transfer is the same): probes are transferred to "
            "it, and it is held against the model's own as out of distribution. Its images are read as those of --data "
            "are.",
        )
    which.add_argument(
        "--interactive",
        type=bool,
        default=False,
        metavar="true",
        help=f"Whether to write {hover.FILE} too: the maps of pca and tsne, to hover over samples. Needs bokeh.",
    )
    for kind in ANALYSES:
        parser.add_class_arguments(kind, kind.kind, skip=_SHARED)
    for kind in own:
        try:
            parser.add_class_arguments(kind, kind.kind, skip=_SHARED)
        except (ArgumentError, ValueError) as error:  # an option without a type, or a kind that is another option
            message = " ".join(str(error).split())
            raise ConfigError(
                f"--analyses: {kind.__module__}.{kind.__name__} cannot be given options: {message}"
            ) from error


def _analyze_features(words: list[str]) -> int:
    parser = _parser(own=own_analyses(names_given(words)))
    options: Namespace = parser.parse_args([word for word in words if not word.startswith("--other.")])
    if options.interactive:
        hover.check_bokeh()
    path = given_path(options.features, "--features")
    arrays = read_arrays(path)
    others = other_features(options.other, arrays, path)
    chosen = chosen_analyses(options.analyses, other=bool(others))
    made = parser.instantiate_classes(options)
    if isinstance(options.class_names, str):
        options.class_names = listed(options.class_names)
    if options.class_names is None and "class_names" in arrays:
        options.class_names = [str(name) for name in arrays["class_names"]]
    device = given_device(options.device)
    inputs = FeatureInputs(
        splits_of(arrays, path),
        options.num_classes,
        options.class_names or (),
        options.seed_everything,
        arrays.get("weight"),
        arrays.get("bias"),
        options.layer or _LAYER,
        device,
        others,
    )
    given = (
        given_path(options.run_dir, "--run_dir")
        if options.run_dir is not None
        else claim_folder(Path("runs") / folder_name(f"{path.stem}+analyze"))
    )
    folder = make_folder(analysis_folder(given) / _folder_of(options.layer))
    command = " ".join(["lightning-repshape", *sys.argv[1:]])
    manifest = {
        "features": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "command": command,
        "seed": options.seed_everything,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "torchmetrics", "numpy")},
            "lightning-repshape": __version__,
        },
        "shapes": {name: list(value.shape) for name, value in arrays.items() if isinstance(value, Tensor)},
    }
    write_json(folder / MANIFEST, manifest)
    analyses = [made[kind.kind] for kind in chosen]
    outcomes: list[Outcome] = []
    with shown_in_terminal(), task("analyses", len(analyses)) as advance:
        for analysis in analyses:
            outcomes += run_analyses([analysis], inputs, folder)
            advance(1)
    for outcome in outcomes:
        if outcome.failure:
            say(f"{outcome.name}: {outcome.failure}")
    sizes = ", ".join(f"{name}: {len(part.labels)} x {part.features.shape[1]}" for name, part in inputs.given.items())
    title, about = f"Analysis of {path.name}", [f"{sizes}; lightning-repshape {__version__}"]
    maps = hover.write_maps(folder / hover.FILE, title, outcomes, None) if options.interactive else None
    page = write_page(folder / PAGE, title, about, outcomes, manifest, maps)
    asked = asked_for(options.analyses, analyses)
    _finish(outcomes, page, headline(scalars_of(outcomes), inputs.num_classes(), asked))
    return 0


def other_features(name: str | None, arrays: dict[str, Any], path: Path) -> dict[str, Features]:
    """Features of a second set: those of a file of their own, else those in the first one; nothing where neither is."""
    if name is None:
        return splits_of(arrays, path, other=True)
    if not name.endswith((".npz", ".safetensors")):
        raise ConfigError(
            f"--other {name} needs a model, which reads it: with --features, give a second file of features, or have a "
            "second set's features in the first one, as the arrays other_features, other_test_features and so on"
        )
    file = given_path(name, "--other")
    return splits_of(read_arrays(file), file, some=True)


def chosen_analyses(
    names: str | list[str] | None, configured: Sequence[Analysis] = (), other: bool = False
) -> list[type[Analysis]]:
    """The analyses asked for, in their own order; ``other``: whether there is a second set."""
    if names is None:
        there = [type(analysis) for analysis in configured]
        return [kind for kind in ANALYSES if not kind.on_request or kind in there or (other and kind.reads_other)]
    known: dict[str, type[Analysis]] = {kind.kind: kind for kind in ANALYSES}
    wanted = listed(names) if isinstance(names, str) else names
    if _ALL in wanted:
        wanted = [*known, *(word for word in wanted if "." in word)]
    for word in wanted:
        if word not in known and "." not in word:
            raise ConfigError(f"there is no analysis {word!r}{did_you_mean(word, [*known, _ALL])}")
    return [*(kind for name, kind in known.items() if name in wanted), *own_analyses(wanted)]


def asked_for(names: str | list[str] | None, analyses: Sequence[Analysis]) -> list[str]:
    """Names of the analyses that were asked for one by one, and of a user's own."""
    wanted = [] if names is None else listed(names) if isinstance(names, str) else names
    one_by_one = bool(wanted) and _ALL not in wanted
    return [one.name or one.kind for one in analyses if one_by_one or type(one) not in ANALYSES]


def made_analyses(names: str | None, words: Sequence[str], other: bool = False) -> list[Analysis]:
    """The analyses asked for, with options as words, such as ``--lda.label=3``; ``other``: there is a second set."""
    parser = _parser(own=own_analyses(names))
    made = parser.instantiate_classes(parser.parse_args(list(words)))
    return [made[kind.kind] for kind in chosen_analyses(names, other=other)]


def _folder_of(layer: str | None) -> str:
    """The folder in ``analysis`` for a layer that was asked for, so that it overwrites nothing of the usual one."""
    return "" if layer in (None, _LAYER) else folder_name(layer)


def _unpack(value: str | Sequence[int | str]) -> tuple[int | str, int | str]:
    parts = listed(value) if isinstance(value, str) else value
    if len(parts) != 2:
        raise ConfigError(f"--unpack {value} must be two positions or keys, such as 0,1 or image,label")
    first, second = (int(part) if str(part).lstrip("-").isdecimal() else part for part in parts)
    return first, second


def _is_foreign(words: Sequence[str], configs: Sequence[Path]) -> bool:
    """Whether the model is of another project: what the command line names, else what the last config names."""
    path = ""
    for model in said("model", ("--model", "--model.class_path"), words, configs):
        named = model.get("class_path") if isinstance(model, dict) else model
        path = named if isinstance(named, str) else path
    return "." in path and not path.startswith("lightning_repshape.")


def _finish(outcomes: Sequence[Outcome], page: Path, figures: Sequence[tuple[str, str]] = ()) -> None:
    """Prints figures and says where the page is; an error if there is nothing on it."""
    failures = [outcome for outcome in outcomes if outcome.failure]
    if failures and len(failures) == len(outcomes):
        raise DataError(f"none of the analyses was possible; {failures[0].name}: {failures[0].failure}")
    console = Console()
    if figures:
        console.print(figure_table(figures))
    console.print(f"page: {page}", soft_wrap=True, highlight=False, markup=False)
    if failures:
        console.print(
            f"not possible: {', '.join(outcome.name for outcome in failures)}", soft_wrap=True, highlight=False
        )
