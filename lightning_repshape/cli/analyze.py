"""``analyze``: the analyses on a checkpoint, on any other LightningModule, or on saved features; nothing is trained.

A model is analysed by way of ``Trainer.test``: the analyses are its callbacks, so that they give what they would have
given at the end of the run's own test.
"""

import hashlib
import inspect
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from lightning_repshape._version import __version__
from lightning_repshape.analyses.analysis import FeatureInputs, Outcome, say
from lightning_repshape.analyses.arrays import read_arrays, splits_of
from lightning_repshape.analyses.page import cell_text, write_page
from lightning_repshape.callbacks import (
    TSNE,
    ActivationPatterns,
    Analysis,
    ClassVectorSimilarity,
    Corruptions,
    FisherGeodesic,
    LDAEigenvalues,
    NeuralCollapse,
    PartialDatasetRetraining,
    PrincipalComponents,
    RepresentationCharacteristics,
    WeightSeparability,
    WeightSpace,
    run_analyses,
)
from lightning_repshape.cli.training import OneLineParser, RepshapeCLI, _quieten, _resolve_configs
from lightning_repshape.errors import ConfigError, DataError, did_you_mean
from lightning_repshape.runs.files import read_json, write_json
from lightning_repshape.runs.folders import MANIFEST, claim_folder, folder_name, make_folder

ANALYSES: tuple[type[Analysis], ...] = (
    LDAEigenvalues,
    PrincipalComponents,
    NeuralCollapse,
    WeightSeparability,
    ClassVectorSimilarity,
    WeightSpace,
    ActivationPatterns,
    TSNE,
    RepresentationCharacteristics,
    FisherGeodesic,
    PartialDatasetRetraining,
    Corruptions,
)
# These take minutes, or images, which saved features lack, or the very features that enter the last layer: they run
# when they are named, or in the run's config.
ON_REQUEST: tuple[type[Analysis], ...] = (Corruptions, TSNE, WeightSpace, ActivationPatterns)
PAGE = "index.html"
_LAYER = "features"  # what is analysed unless another layer is named
_SHARED = {"layer", "unpack", "when", "every_n_epochs", "loaders", "name"}

_HELP = """\
usage: lightning-repshape analyze --run_dir RUN [OPTIONS]
       lightning-repshape analyze --config CONFIG --ckpt_path FILE [OPTIONS]
       lightning-repshape analyze --model CLASS --data CLASS --ckpt_path FILE --layer NAME [OPTIONS]
       lightning-repshape analyze --features FILE [OPTIONS]

Shows how a trained classifier's representation is shaped; nothing is trained but small heads on frozen features.
Writes JSON, PNG and PDF of each analysis and one page with everything, index.html, into RUN/analysis; with --layer
NAME, where it is not features, into RUN/analysis/NAME.

what is analysed:
  --run_dir RUN         a run: its best checkpoint, its own config (with --features: the folder for the results)
  --config, --ckpt_path a config and a checkpoint: a file, best, last, or none for untrained weights
  --model, --data       any LightningModule and LightningDataModule by import path; nothing of the data is linked to a
                        model that is not of this package
  --features FILE       saved features without any model: .npz or .safetensors with the arrays features (N x D) and
                        labels (N); optionally logits (N x K), test_features, test_labels, test_logits, weight (K x D),
                        bias (K), class_names
  further options of the command 'test' (--trainer..., --data..., --threads): see lightning-repshape test --help

which analyses, and where:
  --analyses LIST       some of them, such as lda,collapse (default: all but corruptions, tsne, weight_space and
                        activation_patterns, which run when they are named, or are in the run's config)
  --layer NAME          the activation, or the submodule of another project's model (default: features)
  --unpack [X,Y]        positions or keys of inputs and labels in a batch (default: [0,1]), such as [image,label]

only with --features:
  --class_names LIST    names of the classes, such as [cat,dog]
  --num_classes K       number of classes (default: from logits or labels)
  --seed_everything N   seed of random choices (default: 0)
  --device DEVICE       where to compute (default: cpu)

options of the analyses:
"""


def run(words: list[str]) -> int:
    """Runs the command.

    Args:
        words: The words after ``analyze``.

    Returns:
        0. Errors are raised; an analysis that the data do not allow is none, unless it is the only one.
    """
    if {"-h", "--help"} & set(words):
        print(_HELP + _help_of_analyses(), end="")
        return 0
    _quieten()
    if any(word == "--features" or word.startswith("--features=") for word in words):
        return _analyze_features(words)
    words, configs = _resolve_configs("analyze", words)
    commands = LightningCLI.subcommands()

    class CommandCLI(AnalyzeCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {"test": commands["test"]}

    CommandCLI.foreign = _is_foreign(words, configs)
    CommandCLI.words = words
    CommandCLI(configs, ["test", *words])
    return 0


class AnalyzeCLI(RepshapeCLI):
    """A test with all analyses as callbacks, and a page at its end."""

    foreign = False
    words: Sequence[str] = ()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the choice of analyses and their options.

        Args:
            parser: The command's parser.
        """
        super().add_arguments_to_parser(_Unlinked(parser) if self.foreign else parser)  # type: ignore[arg-type]
        parser.add_argument("--layer", type=str | None, default=None, help="The layer whose output is analysed.")
        parser.add_argument("--unpack", type=list[int | str] | None, default=None, help="Where inputs and labels lie.")
        _add_analyses(parser)

    def _settle_run(self) -> None:
        try:
            super()._settle_run()
        except ConfigError as error:
            if str(error).startswith("test "):
                raise ConfigError("analyze " + str(error).removeprefix("test ")) from error
            raise

    def _default_name(self) -> str:
        return folder_name(super()._default_name().removesuffix("test") + "analyze")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the analyses among its callbacks.

        An analysis that the run's config has, keeps the options that it has there, unless the command line gives some.

        Args:
            **kwargs: Trainer arguments that take precedence.

        Returns:
            The trainer.
        """
        config = self._get(self.config_init, "trainer", default={})
        given = config.get("callbacks") or []
        given = list(given) if isinstance(given, list | tuple) else [given]
        # what a config looks at before training has no place after it
        configured = [callback for callback in given if isinstance(callback, Analysis) and callback.when != "fit_start"]
        self.analyses: list[Analysis] = []
        for kind in _chosen(self.options.get("analyses"), configured):
            theirs = [callback for callback in configured if type(callback) is kind]
            if theirs and not any(word.startswith(f"--{kind.kind}.") for word in self.words):
                self.analyses += theirs
            else:
                self.analyses.append(self._get(self.config_init, kind.kind))
        if self.options.get("analyses") is None:  # those that a user wrote
            self.analyses += [callback for callback in configured if type(callback) not in ANALYSES]
        for analysis in self.analyses:
            analysis.when = "test"
            if self.options.get("layer"):
                analysis.layer = self.options["layer"]
                analysis.folder = _folder_of(analysis.layer)
            if self.options.get("unpack"):
                analysis.unpack = _unpack(self.options["unpack"])
        config["callbacks"] = [callback for callback in given if not isinstance(callback, Analysis)] + self.analyses
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Lets models be analysed that have no test step of their own."""
        super().after_instantiate_classes()
        if not is_overridden("test_step", self.model, LightningModule):
            self.model.test_step = lambda batch, batch_idx: None

    def after_test(self) -> None:
        """Writes the page."""
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = self.run_dir / "analysis" / _folder_of(self.options.get("layer"))
        model, data = type(self.model).__name__, type(self.datamodule).__name__ if self.datamodule else "no data module"
        layers = ", ".join(dict.fromkeys(analysis.layer for analysis in self.analyses))
        checkpoint = self.checkpoint or "none: untrained weights"
        about = [
            f"{model} on {data}, layer {layers}, checkpoint {checkpoint}",
            f"run folder {self.run_dir}, lightning-repshape {__version__}",
        ]
        outcomes = [analysis.outcome for analysis in self.analyses if analysis.outcome is not None]
        page = write_page(
            folder / PAGE, f"Analysis of {self.run_dir.name}", about, outcomes, read_json(self.run_dir / MANIFEST)
        )
        _finish(outcomes, page)


class _Unlinked:
    """A parser that links nothing of the data to a model that knows nothing of this package's data modules."""

    def __init__(self, parser: LightningArgumentParser) -> None:
        self._parser = parser

    def __getattr__(self, name: str) -> Any:
        return (lambda *args, **kwargs: None) if name == "link_arguments" else getattr(self._parser, name)


def _analyze_features(words: list[str]) -> int:
    parser = OneLineParser(prog="lightning-repshape analyze")
    parser.add_argument("--features", type=str, required=True)
    parser.add_argument("--run_dir", type=str | None, default=None)
    parser.add_argument("--layer", type=str, default="features")
    parser.add_argument("--class_names", type=list[str] | None, default=None)
    parser.add_argument("--num_classes", type=int | None, default=None)
    parser.add_argument("--seed_everything", type=int, default=0)
    parser.add_argument("--device", type=str, default="cpu")
    _add_analyses(parser)
    options: Namespace = parser.parse_args(words)
    chosen = _chosen(options.analyses)
    made = parser.instantiate_classes(options)
    path = Path(options.features)
    arrays = read_arrays(path)
    if options.class_names is None and "class_names" in arrays:
        options.class_names = [str(name) for name in arrays["class_names"]]
    try:
        device = torch.device(options.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown names, and devices that are not there
        raise ConfigError(f"--device {options.device}: {str(error).splitlines()[0]}") from error
    inputs = FeatureInputs(
        splits_of(arrays, path),
        options.num_classes,
        options.class_names or (),
        options.seed_everything,
        arrays.get("weight"),
        arrays.get("bias"),
        options.layer,
        device,
    )
    given = (
        Path(options.run_dir) if options.run_dir else claim_folder(Path("runs") / folder_name(f"{path.stem}+analyze"))
    )
    folder = make_folder(given / "analysis" / _folder_of(options.layer))
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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("analyses", total=len(analyses))
        outcomes: list[Outcome] = []
        for analysis in analyses:
            progress.update(task, description=analysis.title)
            outcomes += run_analyses([analysis], inputs, folder)
            progress.advance(task)
    for outcome in outcomes:
        if outcome.failure:
            say(f"{outcome.name}: {outcome.failure}")
    sizes = ", ".join(f"{name}: {len(part.labels)} x {part.features.shape[1]}" for name, part in inputs.given.items())
    page = write_page(
        folder / PAGE, f"Analysis of {path.name}", [f"{sizes}; lightning-repshape {__version__}"], outcomes, manifest
    )
    _finish(outcomes, page)
    return 0


def _add_analyses(parser: LightningArgumentParser) -> None:
    parser.add_argument(
        "--analyses", type=str | list[str] | None, default=None, help="Some of the analyses (default: all)."
    )
    for kind in ANALYSES:
        parser.add_class_arguments(kind, kind.kind, skip=_SHARED)


def _chosen(names: str | list[str] | None, configured: Sequence[Analysis] = ()) -> list[type[Analysis]]:
    """The analyses asked for, in their own order."""
    known = {kind.kind: kind for kind in ANALYSES}
    if names is None:
        there = [type(analysis) for analysis in configured]
        return [kind for kind in ANALYSES if kind not in ON_REQUEST or kind in there]
    words = names.strip("[]").split(",") if isinstance(names, str) else names
    wanted = [word.strip().strip("'\"") for word in words]
    for word in wanted:
        if word not in known:
            raise ConfigError(f"there is no analysis {word!r}{did_you_mean(word, known)}")
    return [kind for name, kind in known.items() if name in wanted]


def _folder_of(layer: str | None) -> str:
    """The folder in ``analysis`` for a layer that was asked for, so that it overwrites nothing of the usual one."""
    return "" if layer in (None, _LAYER) else folder_name(layer)


def _unpack(value: Sequence[int | str]) -> tuple[int | str, int | str]:
    if len(value) != 2:
        raise ConfigError(f"--unpack {list(value)} must be two positions or keys, such as [0,1] or [image,label]")
    return value[0], value[1]


def _is_foreign(words: Sequence[str], configs: Sequence[Path]) -> bool:
    """Whether the model is of another project: what the command line names, else what the last config names."""
    path = ""
    for config in configs:
        content = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
        model = content.get("model") if isinstance(content, dict) else None
        named = model.get("class_path") if isinstance(model, dict) else model
        path = named if isinstance(named, str) else path
    for position, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in ("--model", "--model.class_path"):
            path = value if equals else "".join(words[position + 1 : position + 2])
    return "." in path and not path.startswith("lightning_repshape.")


def _finish(outcomes: Sequence[Outcome], page: Path) -> None:
    """Says where the page is; an error if there is nothing on it."""
    failures = [outcome for outcome in outcomes if outcome.failure]
    if failures and len(failures) == len(outcomes):
        raise DataError(f"none of the analyses was possible; {failures[0].name}: {failures[0].failure}")
    console = Console()
    console.print(f"page: {page}", soft_wrap=True, highlight=False)
    if failures:
        console.print(
            f"not possible: {', '.join(outcome.name for outcome in failures)}", soft_wrap=True, highlight=False
        )


def _help_of_analyses() -> str:
    lines = []
    for kind in ANALYSES:
        lines.append(f"  {kind.kind}: {kind.title}")
        for name, parameter in inspect.signature(kind).parameters.items():
            if name not in _SHARED:
                default = parameter.default
                text = cell_text(default) if isinstance(default, float) else str(default)
                lines.append(f"    --{kind.kind}.{name:<14} (default: {text})")
    return "\n".join(lines) + "\n"
