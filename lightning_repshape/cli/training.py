"""``fit``, ``validate``, ``test`` and ``predict``: a LightningCLI that knows run folders."""

import contextlib
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar, RichModelSummary, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

import lightning_repshape.callbacks
import lightning_repshape.data
import lightning_repshape.heads
import lightning_repshape.modules
import lightning_repshape.networks
import lightning_repshape.regularizers  # noqa: F401  (imported so that short class names resolve)
from lightning_repshape import configs_library
from lightning_repshape._version import __version__
from lightning_repshape.callbacks.reconstruction import ReconstructionErrors
from lightning_repshape.callbacks.reseeding import Reseeding
from lightning_repshape.callbacks.threads import Threads
from lightning_repshape.cli.parsing import explain
from lightning_repshape.errors import CheckpointError, ConfigError
from lightning_repshape.modules import AutoencoderModule
from lightning_repshape.runs.checkpoints import (
    AtomicCheckpointIO,
    BestCheckpoint,
    LastCheckpoint,
    check_weights,
    load_weights,
    read_checkpoint,
)
from lightning_repshape.runs.curves import MetricsCSVLogger
from lightning_repshape.runs.folders import (
    CONFIG,
    checkpoint_folder,
    claim_folder,
    find_checkpoint,
    folder_name,
    is_run_folder,
    make_folder,
    run_of_checkpoint,
)
from lightning_repshape.runs.predictions import PredictionWriter
from lightning_repshape.runs.record import RunRecord, SaveRunConfig
from lightning_repshape.runs.summary import ResultTable
from lightning_repshape.studies.reading import take_row

_RUN_DIR_OF_RANK_ZERO = "LIGHTNING_REPSHAPE_RUN_DIR"


def run(command: str, words: list[str]) -> int:
    """Runs one of Lightning's commands.

    Args:
        command: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        words: The words after it.

    Returns:
        0. Errors are raised.
    """
    _quieten()
    row: dict[str, Any] = {}
    if command == "fit":
        words, row = take_row(words)
    words, configs = _resolve_configs(command, words)
    made: list[Path] = []
    try:
        _cli_of(command)(configs, [command, *words], made, row)
    except BaseException:
        for folder in made:
            # The run ended before it began; a logger may have been there already.
            if not is_run_folder(folder) and not checkpoint_folder(folder).exists():
                shutil.rmtree(folder, ignore_errors=True)
        raise
    return 0


def check_fit(calls: Mapping[str, Sequence[str]]) -> None:
    """Parses calls of ``fit`` and runs none of them.

    Args:
        calls: The words after ``fit`` of each, by a name for messages.

    Raises:
        ConfigError: If an option does not exist, or a value does not fit; the message begins with the name.
    """
    _quieten()

    class Parsed(Exception):
        pass

    class CheckCLI(_cli_of("fit")):  # type: ignore[misc]
        def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
            for name, words in calls.items():  # building the parser takes longer than a call
                try:
                    LightningCLI.parse_arguments(self, parser, ["fit", *_resolve_configs("fit", list(words))[0]])
                except ConfigError as error:
                    raise ConfigError(f"{name}: {error}") from error
            raise Parsed

    with warnings.catch_warnings(), contextlib.suppress(Parsed):
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
        CheckCLI([], ["fit"])


def _cli_of(command: str) -> "type[RepshapeCLI]":
    """The command line of one command: building the parsers of all four takes four times as long."""
    commands = LightningCLI.subcommands()

    class CommandCLI(RepshapeCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {command: commands[command]}

    return CommandCLI


class ModelTable(RichModelSummary):
    """The table of the model's parts at the start of training."""


class OneLineParser(LightningArgumentParser):
    """A parser whose errors are one sentence each, with the nearest valid name."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raises what the parser found wrong.

        Args:
            message: The parser's message.
            ex: The exception behind it.

        Raises:
            ConfigError: Always.
        """
        if isinstance(ex, ConfigError):
            raise ex
        options = self._option_names(self)
        raise ConfigError(explain(message, options)) from ex

    @staticmethod
    def _option_names(parser: Any) -> list[str]:
        """The options of a parser; of a parser of commands, those of its commands."""
        names = []
        for action in parser._actions:
            names += [text.lstrip("-") for text in action.option_strings if text.startswith("--")]
            if isinstance(action.choices, dict):
                for command in action.choices.values():
                    names += OneLineParser._option_names(command)
        return names


class RepshapeCLI(LightningCLI):
    """LightningCLI with run folders, default checkpoints and this package's callbacks.

    Args:
        configs: The config files of the call, in order; they name the run.
        args: The command and its words.
        made: Receives the run folder that is created. Default: a list of its own.
        row: What the manifest says of the study's row that is trained. Default: nothing.
    """

    def __init__(
        self,
        configs: list[Path],
        args: ArgsType,
        made: list[Path] | None = None,
        row: Mapping[str, Any] | None = None,
    ) -> None:
        self.configs = configs
        self.row = dict(row or {})
        self.made = [] if made is None else made
        self.run_dir = Path("runs")
        self.resumed = False
        self._weights_of: str | None = None
        self._content: dict[str, Any] = {}
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            save_config_callback=SaveRunConfig,
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_class=OneLineParser,
            args=args,
        )

    @property
    def options(self) -> Any:
        """The parsed options of the command."""
        return self.config[self.subcommand_name]

    @property
    def subcommand_name(self) -> str:
        """The command that runs."""
        return str(self.config["subcommand"])

    # -- parsing -----------------------------------------------------------------------------------------------------

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """The parser, with this package's version in what it prints and saves.

        Args:
            **kwargs: For the parser.

        Returns:
            The parser.
        """
        kwargs["dump_header"] = [f"lightning-repshape {__version__}"]
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options on run folders, and the two links from data to model.

        Args:
            parser: The command's parser.
        """
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
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
        parser.link_arguments("data.input_shape", "model.init_args.input_shape", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses, then settles the run folder and the checkpoint.

        Args:
            parser: The main parser.
            args: The words.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
            super().parse_arguments(parser, args)
        self._settle_run()
        self._configured_model = self.options.get("model").clone() if self.options.get("model") else None

    def _settle_run(self) -> None:
        options, command = self.options, self.subcommand_name
        which = options.get("ckpt_path")
        given = Path(options.run_dir) if options.run_dir else self._run_of_config()
        if which in ("best", "last"):
            if given is None:
                raise ConfigError(f"--ckpt_path {which} is looked for in a run's folder: name it with --run_dir")
            which = str(find_checkpoint(which, given))
        elif which is None and command != "fit":
            if given is None or not is_run_folder(given):
                place = f"{given} holds no run" if given is not None else "no run was named"
                raise ConfigError(
                    f"{command} needs trained weights, but {place}: give --run_dir RUN (its best checkpoint is taken), "
                    "--ckpt_path FILE, or --ckpt_path none for untrained weights"
                )
            which = str(find_checkpoint("best", given))
        elif which is not None and which.lower() == "none":
            which = None
        options["ckpt_path"] = which
        if "verbose" in options:
            options["verbose"] = False  # our table replaces Lightning's
        if which is not None:
            self._content = read_checkpoint(which)
            if not self._check_checkpoint(Path(which), options):
                # LightningCLI stumbles over hyper-parameters that name no class: it is not to see this checkpoint.
                self._take_hyper_parameters(options.get("model"))
                self._weights_of, options["ckpt_path"] = which, None
        of_checkpoint = run_of_checkpoint(which) if which is not None else None
        given = given or of_checkpoint
        same = given is not None and of_checkpoint is not None and given.resolve() == of_checkpoint.resolve()
        self.resumed = command == "fit" and same
        if given is not None and is_run_folder(given) and (command != "fit" or self.resumed):
            self.run_dir = given
        else:
            self.run_dir = self._new_run_dir(given)

    def _take_hyper_parameters(self, model: Any) -> None:
        """Takes over the hyper-parameters of a checkpoint that no command line wrote, as far as the model has them."""
        known = self._content.get("hyper_parameters") or {}
        accepted = (model.get("init_args") or {}) if model else {}
        for name, value in known.items():
            if name in accepted:
                accepted[name] = value

    @property
    def checkpoint(self) -> str | None:
        """The checkpoint that the command reads; None for untrained weights."""
        return self._weights_of or self.options.get("ckpt_path")

    def _run_of_config(self) -> Path | None:
        """The run whose own config.yaml was given, for commands that read a run."""
        folders = [path.parent for path in self.configs if path.name == CONFIG and is_run_folder(path.parent)]
        reads = self.subcommand_name != "fit" or self.options.get("ckpt_path") in ("best", "last")
        return folders[-1] if folders and reads else None

    def _new_run_dir(self, given: Path | None) -> Path:
        wanted = given if given is not None else Path("runs") / self._default_name()
        if _rank() != 0:  # RunRecord hands rank 0's folder to ranks that were started beside it
            return Path(os.environ.get(_RUN_DIR_OF_RANK_ZERO, wanted))
        if self._get_trainer_option("fast_dev_run"):
            return wanted
        path = claim_folder(wanted)
        self.made.append(path)
        os.environ[_RUN_DIR_OF_RANK_ZERO] = str(path.resolve())
        return path

    def _get_trainer_option(self, name: str) -> Any:
        return (self.options.get("trainer") or {}).get(name)

    def _default_name(self) -> str:
        parts = [path.parent.name if path.name == CONFIG else path.stem for path in self.configs]
        if not parts:
            parts = [
                str(self.options[key]["class_path"]).rpartition(".")[2]
                for key in ("model", "data")
                if self.options.get(key)
            ]
        if self.subcommand_name != "fit":
            parts.append(self.subcommand_name)
        return folder_name("+".join(parts))

    def _check_checkpoint(self, path: Path, options: Any) -> bool:
        """Refuses checkpoints of other classes; tells whether a command line wrote this one."""
        theirs = self._content.get("hyper_parameters", {}).get("_class_path")
        ours = options["model"]["class_path"] if options.get("model") else None
        if theirs and ours and theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise CheckpointError(
                f"{path} is a checkpoint of {theirs.rpartition('.')[2]}, but the config builds "
                f"{ours.rpartition('.')[2]}. Use the config of the run that wrote it, or --init_from for weights alone"
            )
        return bool(theirs)

    # -- instantiation -----------------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Says which model options the checkpoint has replaced."""
        if self._configured_model is None or self.options.get("ckpt_path") is None:
            return
        before, after = self._configured_model.as_flat(), self.options["model"].as_flat()
        linked = ("init_args.num_classes", "init_args.input_shape")  # these come from the data in any case
        changed = [
            key for key, value in vars(after).items() if vars(before).get(key, value) != value and key not in linked
        ]
        if changed and _rank() == 0:
            Console(stderr=True).print(
                f"note: {', '.join(key.removeprefix('init_args.') for key in changed)}: the checkpoint's value "
                "replaces the one given; use --init_from to load weights alone",
                soft_wrap=True,
                highlight=False,
            )

    def after_instantiate_classes(self) -> None:
        """Loads ``--init_from`` and looks whether the checkpoint's weights fit."""
        if self.options.get("init_from"):
            if self.checkpoint:
                raise ConfigError("--init_from and --ckpt_path exclude each other")
            load_weights(self.model, self.options["init_from"])
        if self.checkpoint:
            check_weights(self.model, self._content, self.checkpoint)
            self._content = {}  # its tensors are not needed any more
            self.config_init[self.subcommand_name]["ckpt_path"] = self.checkpoint

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the run folder's loggers, checkpoints and records.

        What the config says of loggers, progress bar or model summary is respected.

        Args:
            **kwargs: Trainer arguments that take precedence.

        Returns:
            The trainer.
        """
        config = self._get(self.config_init, "trainer", default={})
        fitting, fast = self.subcommand_name == "fit", bool(config.get("fast_dev_run"))
        given = _as_list(config.get("callbacks"))
        folder = self.run_dir
        if config.get("default_root_dir") is not None:
            raise ConfigError("trainer.default_root_dir is the run folder here: give --run_dir instead")
        if not fast and _rank() == 0:
            make_folder(folder)
        threads = self.options.get("threads")
        if threads is not None and threads < 1:
            raise ConfigError(f"--threads is {threads}; at least one is needed")
        ours: list[Callback] = [Threads(threads), Reseeding(), ResultTable()]
        if not fast:
            autoencodes = isinstance(self.model, AutoencoderModule)
            writer = ReconstructionErrors() if autoencodes else PredictionWriter()
            ours += [RunRecord(folder, " ".join(["lightning-repshape", *sys.argv[1:]]), self.row), writer]
        if config.get("enable_progress_bar") is not False and not _has(given, ProgressBar):
            ours.append(RichProgressBar(refresh_rate=50))
        if config.get("enable_model_summary") is not False and fitting and not _has(given, ModelSummary):
            ours.append(ModelTable(max_depth=1))
        if config.get("enable_checkpointing") is not False and not fast and fitting:
            ours += [BestCheckpoint(checkpoint_folder(folder)), LastCheckpoint(checkpoint_folder(folder))]
        for callback in given:
            if isinstance(callback, BestCheckpoint | LastCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(checkpoint_folder(folder).resolve())
        # What the config brings itself is not added a second time.
        kwargs["callbacks"] = [*given, *(item for item in ours if not _has(given, type(item)))]
        kwargs["default_root_dir"] = str(folder)
        if config.get("logger") in (None, True):
            # Only training has curves; figures of a later test belong to metrics.json alone.
            kwargs["logger"] = (
                False
                if fast or not fitting
                else [
                    MetricsCSVLogger(folder),
                    TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False),
                ]
            )
        plugins = _as_list(config.get("plugins"))
        if not _has(plugins, CheckpointIO) and isinstance(config.get("strategy"), str | None):
            plugins.append(AtomicCheckpointIO())
        kwargs["plugins"] = plugins
        if config.get("num_sanity_val_steps") is None:
            kwargs["num_sanity_val_steps"] = 0
        return super().instantiate_trainer(**kwargs)

    # -- running -----------------------------------------------------------------------------------------------------

    def after_fit(self) -> None:
        """Tests the best checkpoint if ``--then_test`` asks for it."""
        if not self.options.get("then_test"):
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


def _resolve_configs(command: str, words: list[str]) -> tuple[list[str], list[Path]]:
    """Replaces names of shipped configs by files, and adds the config of the run that ``--run_dir`` names."""
    resolved: list[str] = []
    configs: list[Path] = []
    values: dict[str, str] = {}
    takes_config = False
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if takes_config:
            configs.append(configs_library.find(word))
            resolved.append(str(configs[-1]))
            takes_config = False
        elif name in ("--config", "-c") and equals:
            configs.append(configs_library.find(value))
            resolved.append(f"{name}={configs[-1]}")
        else:
            takes_config = name in ("--config", "-c")
            if name in ("--run_dir", "--ckpt_path"):
                values[name] = value if equals else "".join(words[position + 1 : position + 2])
            resolved.append(word)
    run_dir = values.get("--run_dir")
    checkpoint = values.get("--ckpt_path", "")
    if not run_dir and checkpoint and checkpoint not in ("best", "last"):
        found = run_of_checkpoint(checkpoint)
        run_dir = str(found) if found is not None else None
    reads_run = command != "fit" or bool(checkpoint)
    if run_dir and reads_run and not configs and (Path(run_dir) / CONFIG).is_file():
        configs.append(Path(run_dir) / CONFIG)
        resolved = ["--config", str(configs[-1]), *resolved]
    return resolved, configs


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _has(items: list[Any], kind: type) -> bool:
    return any(isinstance(item, kind) for item in items)


def _rank() -> int:
    """This process's rank, as far as the environment tells before the trainer exists."""
    return int(getattr(rank_zero_only, "rank", 0) or 0)


def _quieten() -> None:
    """Silences messages that say nothing about the run at hand."""
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
        "lightning.pytorch.accelerators.cuda",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings(
        "ignore", message=".*The number of training batches .* is smaller than the logging interval.*"
    )
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    # LightningCLI calls names that jsonargparse renamed; nothing a user could do about it.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.pytorch\.cli")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
