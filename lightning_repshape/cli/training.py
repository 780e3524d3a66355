"""``fit``, ``validate``, ``test`` and ``predict``: one class, a LightningCLI that knows run folders."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_type_hints

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO
from rich.console import Console

import lightning_repshape.callbacks
import lightning_repshape.data
import lightning_repshape.heads
import lightning_repshape.modules
import lightning_repshape.networks
import lightning_repshape.regularizers  # imported, as those above, so that short class names resolve
from lightning_repshape._version import __version__
from lightning_repshape.analyses.headline import headlines
from lightning_repshape.callbacks.reconstruction import ReconstructionErrors
from lightning_repshape.callbacks.reseeding import Reseeding
from lightning_repshape.callbacks.roc import ROCCurves
from lightning_repshape.callbacks.threads import Threads
from lightning_repshape.cli.limits import check_limits, refusal
from lightning_repshape.cli.options import add_image_options
from lightning_repshape.cli.parsing import OneLineParser
from lightning_repshape.cli.process import (
    announce_run_dir,
    announced_run_dir,
    is_restarted,
    job,
    joining,
    quieten,
    rank,
)
from lightning_repshape.cli.renaming import current_options
from lightning_repshape.cli.resolving import of_a_run, resolve_configs
from lightning_repshape.errors import CheckpointError, ConfigError, RepshapeError
from lightning_repshape.modules import AutoencoderModule, FOCAModule, SupervisedModule, VerifiesPairs
from lightning_repshape.performance import choose_precision
from lightning_repshape.runs.checkpoints import (
    AtomicCheckpointIO,
    BestCheckpoint,
    LastCheckpoint,
    check_weights,
    load_weights,
    read_checkpoint,
)
from lightning_repshape.runs.curves import FigureLogger, MetricsCSVLogger
from lightning_repshape.runs.files import read_json
from lightning_repshape.runs.folders import (
    CONFIG,
    MANIFEST,
    TENSORBOARD,
    checkpoint_file,
    checkpoint_folder,
    claim_folder,
    discard_folder,
    find_checkpoint,
    folder_name,
    given_path,
    is_run_folder,
    make_folder,
    nearest_existing,
    numbered,
    run_of_checkpoint,
    where_started,
)
from lightning_repshape.runs.predictions import PredictionWriter
from lightning_repshape.runs.record import RunRecord, SaveRunConfig
from lightning_repshape.runs.summary import EpochBar, ModelTable, ResultTable, places_of
from lightning_repshape.runs.trust import named_by, names_in, strangers
from lightning_repshape.studies.calls import take_row
from lightning_repshape.terminal.printing import is_terminal
from lightning_repshape.terminal.progress import Bars, shown_on, terminal_bars, trainer_bars

_MOST_FIGURES = 9  # of analyses, in the table of a test
_INSTANTIATORS = ("lightning.pytorch.cli.instantiate_module", "pytorch_lightning.cli.instantiate_module")


def run(command: str, words: list[str]) -> int:
    """Runs ``fit``, ``validate``, ``test`` or ``predict`` with the words after it; returns 0."""
    row: dict[str, Any] = {}
    if command == "fit":
        words, row = take_row(words)
    RepshapeCLI(command, words, row)
    return 0


def parser_of(command: str) -> OneLineParser:
    """A command's parser, of words that begin with it, to parse many calls: building it takes longer than a call."""

    class Built(Exception):
        pass

    class Builder(RepshapeCLI):
        def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
            raise Built(parser)

    try:
        Builder(command, [])
    except Built as built:
        parser: OneLineParser = built.args[0]
    return parser


def check_fit(calls: Mapping[str, Sequence[str]]) -> None:
    """Parses calls of ``fit``, words by a name, and runs none; a ConfigError's message begins with the name."""
    quieten()
    parser = parser_of("fit")
    for name, words in calls.items():
        try:
            parser.parse_args(["fit", *resolve_configs("fit", list(words))[0]])
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error


class CommandTrainer(Trainer):
    """A Trainer whose precision the command line can choose, before it makes the trainer.

    Args:
        precision: As a Trainer's, or ``auto``: bf16-mixed for networks with convolutions where the processor or GPU has
            fast bfloat16 products, else 32-true.
    """

    def __init__(self, *args: Any, precision: Any = None, **kwargs: Any) -> None:
        """Takes what a Trainer takes."""
        super().__init__(*args, precision=precision, **kwargs)


CommandTrainer.__init__.__annotations__["precision"] = get_type_hints(Trainer.__init__)["precision"] | Literal["auto"]


class RepshapeCLI(LightningCLI):
    """LightningCLI with run folders, default checkpoints and this package's callbacks, for one command.

    Building the parsers of all commands takes as many times as long. ``row`` is the manifest's entry on a study's row.
    """

    trainer_type: type[Trainer] = CommandTrainer
    asked: Sequence[str] = ()  # names of analyses some of whose figures are printed in any case

    def __init__(self, command: str, words: list[str], row: Mapping[str, Any] | None = None) -> None:
        self.command = command
        self.words, self.configs = resolve_configs(command, words)
        self.row = dict(row or {})
        self.run_dir = Path("runs")
        self.checkpoint: str | None = None  # that the command reads; None for untrained weights
        self.claimed: Path | None = None
        self.kept = Path()  # the part of the claimed folder's path that was there before
        self._content: dict[str, Any] = {}
        bars = terminal_bars()  # no attribute: averaged weights copy the module, whose optimizer leads to this object
        try:
            with shown_on((lambda: self._bars(bars)) if is_terminal() and rank() == 0 else None):
                super().__init__(
                    model_class=LightningModule,
                    datamodule_class=LightningDataModule,
                    save_config_callback=SaveRunConfig,
                    trainer_class=self.trainer_type,
                    seed_everything_default=0,
                    subclass_mode_model=True,
                    subclass_mode_data=True,
                    auto_configure_optimizers=False,
                    parser_class=OneLineParser,
                )
        except BaseException as error:
            if self.claimed is not None and not self._has_begun(self.claimed):
                discard_folder(self.claimed, self.kept)
            refused = refusal(error, building=hasattr(self, "config") and not hasattr(self, "config_init"))
            if refused is not None:
                raise refused from error
            raise

    def _bars(self, own: Bars) -> Bars | None:
        """Where long work is shown: beside the trainer's progress bar while there is one, unless that is not wanted."""
        if not hasattr(self, "config") or self.options.trainer.get("enable_progress_bar") is False:
            return None
        callback = self.trainer.progress_bar_callback if hasattr(self, "trainer") else None
        return trainer_bars(callback) or own

    def _has_begun(self, folder: Path) -> bool:
        """Whether a run that failed leaves anything of use."""
        if self.command != "fit":
            return is_run_folder(folder)
        trainer = getattr(self, "trainer", None)
        return checkpoint_folder(folder).exists() or (trainer is not None and trainer.global_step > 0)

    @property
    def options(self) -> Any:
        """The parsed options of the command."""
        return self.config[self.command]

    # -- parsing -----------------------------------------------------------------------------------------------------

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command, and the arguments of the trainer's method that are no options."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """The parser, with this package's version in what it prints and saves."""
        kwargs["dump_header"] = [f"lightning-repshape {__version__}"]
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options on run folders, and what the model takes from the data."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="The run's folder (default: runs/NAME after the config; a new run never reuses a folder but takes the "
            "next number). The other commands read the run that lies there.",
        )
        parser.add_argument(
            "--then_test", type=bool, default=False, help="After fit, test the best checkpoint and print its figures."
        )
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="Start from the weights of this checkpoint, and from nothing else of it. (--ckpt_path also brings its "
            "hyper-parameters, which replace those given here.)",
        )
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="CPU threads (default: one for networks without convolutions).",
        )
        parser.add_argument(
            "--trust",
            action="store_true",
            help="Import what the run's own config names of other packages than this one, PyTorch and Lightning.",
        )
        if self.command == "predict":
            add_image_options(parser, str | None)
        self.link_data_to_model(parser)

    def link_data_to_model(self, parser: LightningArgumentParser) -> None:
        """Lets the model take the number of classes and the images' shape from the data."""
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
        parser.link_arguments("data.input_shape", "model.init_args.input_shape", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses, then settles the checkpoint and the run folder."""
        self.config = parser.parse_args([self.command, *self.words])
        options = self.options
        if "verbose" in options:
            options["verbose"] = False  # our table replaces Lightning's
        check_limits(options)
        self._draw_figures()
        options = self.options
        self._find_data()
        if options.get("init_from") is not None:
            options["init_from"] = str(given_path(options["init_from"], "--init_from"))
        named = options.run_dir
        given = given_path(named, "--run_dir") if named is not None else self._run_of_config()
        again = self._run_of_job(given)
        if again is not None:
            given = again
            if checkpoint_file("last", again).is_file():
                options["ckpt_path"], options["init_from"] = "last", None
        self.checkpoint = self._find_checkpoint(options.get("ckpt_path"), given)
        # LightningCLI would read the file again, and knows neither old names nor checkpoints that no command wrote.
        options["ckpt_path"] = None
        of_checkpoint = None
        if self.checkpoint is not None:
            self._content = read_checkpoint(self.checkpoint)
            self._take_hyper_parameters()
            self._forget_lost_weights()
            of_checkpoint = run_of_checkpoint(self.checkpoint)
        given = given or of_checkpoint
        same = given is not None and of_checkpoint is not None and given.resolve() == of_checkpoint.resolve()
        if given is not None and is_run_folder(given) and (self.command != "fit" or same or given == again):
            self.run_dir = given
        else:
            self.run_dir = self._new_run_dir(given)

    def _draw_figures(self) -> None:
        """Has figures drawn, as the shipped configs have, where no config says what happens beside training."""
        if self.command != "fit" or self.configs or self.options.trainer.get("callbacks") is not None:
            return
        package, _, name = str((self.options.get("model") or {}).get("class_path")).rpartition(".")
        kind = getattr(lightning_repshape.modules, name, object) if package.startswith("lightning_repshape") else object
        if issubclass(kind, SupervisedModule | FOCAModule) and not issubclass(kind, VerifiesPairs):
            content = {"trainer": {"callbacks": [{"class_path": "lightning_repshape.callbacks.FeaturePlots"}]}}
            self.config = self.parser.parse_object({self.command: content}, self.config)

    def _find_data(self) -> None:
        """Takes a run's relative folders of data from where it was started, if they are not here."""
        runs = [path.parent for path in self.configs if of_a_run(path)]
        options = (self.options.get("data") or {}).get("init_args") or {}
        for name, there in where_started(options, runs[-1]).items() if runs else ():
            if rank() == 0:
                Console(stderr=True).print(
                    f"note: data.{name}: {options[name]} is not here; {there} is taken, where the run was started",
                    soft_wrap=True,
                    highlight=False,
                    markup=False,
                )
            options[name] = there

    def _find_checkpoint(self, which: str | None, run_dir: Path | None) -> str | None:
        """The file that ``--ckpt_path`` means; without it, the run's best where weights are needed."""
        if which is None and self.command != "fit":
            if run_dir is None or not is_run_folder(run_dir):
                place = f"{run_dir} holds no run" if run_dir is not None else "no run was named"
                raise ConfigError(
                    f"{self.command} needs trained weights, but {place}: give --run_dir RUN (its best checkpoint is "
                    "taken), --ckpt_path FILE, or --ckpt_path none for untrained weights"
                )
            which = "best"
        if which in ("best", "last"):
            if run_dir is None:
                raise ConfigError(f"--ckpt_path {which} is looked for in a run's folder: name it with --run_dir")
            return str(find_checkpoint(which, run_dir))
        return None if which is None or str(which).lower() == "none" else str(given_path(which, "--ckpt_path"))

    def _take_hyper_parameters(self) -> None:
        """Takes over the checkpoint's hyper-parameters, and says which options they replace."""
        model = self.options.model
        known = dict(self._content.get("hyper_parameters") or {})
        theirs = known.pop("_class_path", None)
        instantiator = known.pop("_instantiator", None)
        self._hold_against_config(theirs, instantiator, known)
        if not theirs:  # no command line wrote it: what the model has of them
            for name, value in current_options(model.class_path, known).items():
                if name in model.init_args:
                    model.init_args[name] = value
            return
        before = vars(model.clone().as_flat())
        options = current_options(model.class_path, known)
        content = {"model": {"class_path": model.class_path, "dict_kwargs": options}}
        self.config = self.parser.parse_object({self.command: content}, self.config)
        linked = ("init_args.num_classes", "init_args.input_shape")  # these come from the data in any case
        after = vars(self.options.model.as_flat())
        changed = [key for key, value in after.items() if before.get(key, value) != value and key not in linked]
        if changed and rank() == 0:
            Console(stderr=True).print(
                f"note: {', '.join(key.removeprefix('init_args.') for key in changed)}: the checkpoint's value "
                "replaces the one given; use --init_from to load weights alone",
                soft_wrap=True,
                highlight=False,
            )

    def _forget_lost_weights(self) -> None:
        """A file of pretrained weights that is gone is not missed: the checkpoint holds what was made of them."""
        backbone = (self.options.model.get("init_args") or {}).get("backbone")
        given = (
            backbone.get("init_args") if backbone and str(backbone.get("class_path")).endswith("TimmBackbone") else None
        )
        if given and given.get("weights") and not Path(given["weights"]).expanduser().is_file():
            given["weights"] = None

    def _hold_against_config(self, theirs: Any, instantiator: Any, known: Mapping[str, Any]) -> None:
        """Refuses hyper-parameters of another model, and those that name code which the config does not."""
        model = self.options.model
        name, ours = str(theirs).rpartition(".")[2], model.class_path.rpartition(".")[2]
        if theirs and name != ours:
            raise CheckpointError(
                f"{self.checkpoint} is a checkpoint of {name}, but the config builds {ours}. Use the config of the run "
                "that wrote it, or --init_from for weights alone"
            )
        named = [*names_in(self.config.as_dict()), *named_by(self.words, self.configs), *_INSTANTIATORS]
        if unknown := strangers(names_in([theirs, instantiator, known], [Path()]), named):
            raise CheckpointError(
                f"{self.checkpoint} names {', '.join(unknown)}, which the config does not: nothing is imported because "
                "a checkpoint says so. Use the config of the run that wrote it, or --init_from for weights alone"
            )

    def _run_of_config(self) -> Path | None:
        """The run whose own config.yaml was given, for commands that read a run."""
        folders = [path.parent for path in self.configs if of_a_run(path)]
        reads = self.command != "fit" or self.options.get("ckpt_path") in ("best", "last")
        return folders[-1] if folders and reads else None

    def _run_of_job(self, given: Path | None) -> Path | None:
        """The run that this command began in the same job, which was stopped and calls it again."""
        of_job = job()
        trainer = self.options.trainer
        if of_job is None or self.command != "fit" or self.options.get("ckpt_path") or trainer.get("fast_dev_run"):
            return None
        for folder in numbered(given if given is not None else Path("runs") / self._default_name()):
            if not folder.exists():
                return None
            last = (read_json(folder / MANIFEST).get("sessions") or [{}])[-1]
            stopped = last.get("status") != "finished" or is_restarted()
            if stopped and last.get("job") == of_job and last.get("command") == _command_line():
                if trainer.get("enable_checkpointing") is not False:  # else SLURM's checkpoint is the only one
                    for own in folder.glob("hpc_ckpt_*.ckpt"):  # written within an epoch
                        own.unlink(missing_ok=True)
                return folder
        return None

    def _new_run_dir(self, given: Path | None) -> Path:
        if self.options.trainer.get("fast_dev_run"):
            self._scratch = tempfile.TemporaryDirectory(prefix="fast-dev-run-")
            return Path(self._scratch.name)
        wanted = given if given is not None else Path("runs") / self._default_name()
        if rank() != 0:  # RunRecord hands rank 0's folder to ranks that were started beside it
            return announced_run_dir() or wanted
        self.kept = nearest_existing(wanted)
        self.claimed = claim_folder(wanted)
        announce_run_dir(self.claimed)
        return self.claimed

    def _default_name(self) -> str:
        parts = [path.parent.name if path.name == CONFIG else path.stem for path in self.configs]
        if not parts:
            parts = [
                str(self.options[key]["class_path"]).rpartition(".")[2]
                for key in ("model", "data")
                if self.options.get(key)
            ]
        if self.command != "fit":
            parts.append(self.command)
        return folder_name("+".join(parts))

    # -- instantiation -----------------------------------------------------------------------------------------------

    def after_instantiate_classes(self) -> None:
        """Loads ``--init_from`` and looks whether the checkpoint's weights fit."""
        if self.options.get("init_from"):
            if self.checkpoint:
                raise ConfigError("--init_from and --ckpt_path exclude each other")
            load_weights(self.model, self.options["init_from"])
        if self.checkpoint:
            check_weights(self.model, self._content, self.checkpoint)
            self._content = {}  # its tensors are not needed any more
            self.config_init[self.command]["ckpt_path"] = self.checkpoint

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the run folder's callbacks and loggers, where the config has none of its own."""
        config = self.config_init[self.command].trainer
        fitting, fast = self.command == "fit", bool(config.get("fast_dev_run"))
        given = as_list(config.get("callbacks"))
        folder = self.run_dir
        if config.get("default_root_dir") is not None:
            raise ConfigError("trainer.default_root_dir is the run folder here: give --run_dir instead")
        if not fast and rank() == 0:
            make_folder(folder)
        ours: list[Callback] = [Threads(self.options.get("threads")), Reseeding()]
        if not fast:
            autoencodes = isinstance(self.model, AutoencoderModule)
            writer = ReconstructionErrors() if autoencodes else PredictionWriter(top=self.options.get("top") or 1)
            record = RunRecord(folder, _command_line(), self.row, job())
            ours += [record, writer, ROCCurves(), FigureLogger(folder)]
        if config.get("enable_progress_bar") is not False and not _has(given, ProgressBar):
            if is_terminal() or config.get("enable_progress_bar"):
                ours.append(EpochBar())
            else:
                kwargs["enable_progress_bar"] = False
        ours.append(ResultTable(headline=partial(headline, asked=self.asked)))  # behind all that writes files
        if config.get("enable_model_summary") is not False and fitting and not _has(given, ModelSummary):
            ours.append(ModelTable())
        if config.get("enable_checkpointing") is not False and not fast and fitting:
            ours += [BestCheckpoint(checkpoint_folder(folder)), LastCheckpoint(checkpoint_folder(folder))]
        for callback in given:
            if isinstance(callback, BestCheckpoint | LastCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(checkpoint_folder(folder).resolve())
        # What the config brings itself is not added a second time.
        kwargs["callbacks"] = [*given, *(item for item in ours if not _has(given, type(item)))]
        kwargs["default_root_dir"] = str(folder)
        if config.get("logger") not in (False, []):
            theirs = [logger for logger in as_list(config.get("logger")) if isinstance(logger, Logger)]
            # Only training has curves; figures of a later test belong to metrics.json alone.
            kwargs["logger"] = [*theirs, *(self._loggers(theirs) if fitting and not fast else [])] or False
        plugins = as_list(config.get("plugins"))
        if not _has(plugins, CheckpointIO) and isinstance(config.get("strategy"), str | None):
            plugins.append(AtomicCheckpointIO())
        kwargs["plugins"] = plugins
        if config.get("precision") == "auto":
            kwargs["precision"] = choose_precision(self.model, str(config.get("accelerator")))
        if config.get("num_sanity_val_steps") is None:
            kwargs["num_sanity_val_steps"] = 0
        try:
            return super().instantiate_trainer(**kwargs)
        except RepshapeError:
            raise
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise ConfigError(f"trainer: {error}") from error

    def _loggers(self, theirs: list[Logger]) -> list[Logger]:
        """The run folder's own loggers, but of kinds that the config brings."""
        tensorboard = TensorBoardLogger(self.run_dir, name=TENSORBOARD, version="", default_hp_metric=False)
        return [logger for logger in (MetricsCSVLogger(self.run_dir), tensorboard) if not _has(theirs, type(logger))]

    # -- running -----------------------------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Lets a training of a stack join the others."""
        join = joining.get()
        if join is not None:
            join(self.trainer, self.model, self.datamodule)

    def after_fit(self) -> None:
        """Tests the best checkpoint if ``--then_test`` asks for it; says where the run lies."""
        if not self.options.get("then_test"):
            if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
                print("\n".join(places_of(self.run_dir)))
            return
        ours = [item for item in self.trainer.checkpoint_callbacks if isinstance(item, BestCheckpoint)]
        best = Path(ours[0].best_model_path) if ours else Path()
        has_checkpoint = best.is_file()
        self.trainer.test(
            self.model,
            datamodule=self.datamodule,
            ckpt_path=str(best) if has_checkpoint else None,
            verbose=False,
            weights_only=True if has_checkpoint else None,
        )


def headline(figures: Mapping[str, float], classes: int, asked: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The analyses' figures that matter, and some of those that were asked for, by what they are called."""
    return [(one.label, one.text) for one in headlines(figures, classes, _MOST_FIGURES, asked)]


def _command_line() -> str:
    return " ".join(["lightning-repshape", *sys.argv[1:]])


def as_list(value: Any) -> list[Any]:
    """A trainer's option that may be one, several or none, as a list."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _has(items: list[Any], kind: type) -> bool:
    return any(isinstance(item, kind) for item in items)
