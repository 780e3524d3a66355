"""The command ``lightning-repshape``; it imports nothing heavy, so that help, version and configs appear at once.

The first word decides who parses the rest: :mod:`lightning_repshape.cli.training` (``fit``, ``validate``, ``test``,
``predict``), or the module of the command's own name.
"""

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from lightning_repshape._version import __version__
from lightning_repshape.cli import help
from lightning_repshape.cli.options import LIGHT
from lightning_repshape.cli.output import lasting_output
from lightning_repshape.cli.plain import fitted
from lightning_repshape.cli.process import Hangup, check_environment, check_figures, hangup_as_termination, quieten
from lightning_repshape.errors import ConfigError, RepshapeError, did_you_mean
from lightning_repshape.terminal.printing import error as print_error
from lightning_repshape.terminal.printing import errors, only_errors

_OVERVIEW = """\
usage: lightning-repshape COMMAND [OPTIONS]

Shape and study the representations of a classifier.

commands:
  fit         train a model, then test its best checkpoint if asked to (--then_test)
  validate    run the validation set through a checkpoint
  test        run the test set through a checkpoint
  predict     write a CSV of image, predicted class and probability; of your own --images, too
  analyze     show how a trained model's representation is shaped: figures, tables, one page
  compare     put runs side by side, or train methods and compare them: one page, one table
  export      take a trained model along: safetensors with a card, ONNX, torch.export
  study       train and report the papers' tables, and your own
  configs     list, show or copy the shipped configs; the schema of all configs for editors

options of every command:
  --help      what the command takes; COMMAND --help
  --version   the version
  --debug     show tracebacks instead of one-line messages
  --quiet     print errors alone

examples:
  lightning-repshape fit --config quickstart
  lightning-repshape fit --config base/mnist-mlp --data.root data --trainer.max_epochs 5
  lightning-repshape fit --run_dir runs/quickstart --ckpt_path last      go on with an interrupted run
  lightning-repshape test --run_dir runs/quickstart                      its best checkpoint
  lightning-repshape analyze --run_dir runs/quickstart
  lightning-repshape compare runs/plain runs/foca
  lightning-repshape predict --run_dir runs/quickstart --images photos   any sizes, no labels; a picture besides
  lightning-repshape export --run_dir runs/quickstart --format safetensors,onnx
  lightning-repshape fit --row aaai19/table-7/default/cw_vr              one row of a paper's table
  lightning-repshape study run aaai19/table-7 --budget 0.2               the table
  lightning-repshape fit --help                                          the options that people change
"""

_GOES_ON = {
    "fit": "; fit goes on with --run_dir RUN --ckpt_path last",
    "study": "; the same command goes on",
    "compare": "; the same command goes on",
}
TRAINER_COMMANDS = ("fit", "validate", "test", "predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs words (default: the process's); returns the status: 0, 2 (wrong usage), 130 (interrupted), else 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:
        from lightning_repshape.cli import completion

        completion.answer(_OVERVIEW)
    debug, quiet = "--debug" in words, "--quiet" in words
    words = [word for word in words if word not in ("--debug", "--quiet")]
    if debug:
        logging.basicConfig()
    logging.getLogger("lightning_repshape").setLevel(logging.DEBUG if debug else logging.NOTSET)
    with lasting_output() as output, hangup_as_termination() as hangups, only_errors(quiet):
        status = _run(words, debug, hangups)
        sys.stdout.flush()
        if output.failure is None or status or words[:1] != ["configs"]:
            return status  # what else a command does lies in files, whoever reads what it prints
        if isinstance(output.failure, BrokenPipeError):  # whoever read the output has seen enough, as head does
            return 141
        return _fail(f"standard output cannot be written ({output.failure.strerror})", 1)


def _run(words: list[str], debug: bool, hangups: Sequence[int]) -> int:
    try:
        check_environment(words)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # behind all else: classes of the user's own, named in configs
        return dispatch(words)
    except SystemExit as stop:
        # Lightning turns both Ctrl-C and SIGTERM into a SystemExit.
        if isinstance(stop, Hangup) or (hangups and type(stop).__name__ == "SIGTERMException"):
            return _interrupted(words, 128 + hangups[0])
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _interrupted(words, 130)
        if type(stop).__name__ == "SIGTERMException":
            return _interrupted(words, 143)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return _interrupted(words, 130)
    except Exception as error:
        # The parser and Lightning wrap what constructors and hooks raise; the cause says more.
        causes = list(_chain(error))
        ours = next((cause for cause in causes if isinstance(cause, RepshapeError)), None)
        if debug:
            traceback.print_exception(error, file=errors())
        if ours is not None:
            return _fail(str(ours), 2 if isinstance(ours, ConfigError) else 1)
        lines = [line.strip() for line in str(causes[-1]).splitlines() if line.strip()]
        hint = "" if debug else " (add --debug for the traceback)"
        return _fail(f"{type(causes[-1]).__name__}: {lines[0] if lines else 'without a message'}{hint}", 1)


def _interrupted(words: Sequence[str], status: int) -> int:
    command = next(iter(words), "")
    print_error(f"interrupted{_GOES_ON.get(command, '')}")
    return status


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, the cause last."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def dispatch(words: list[str]) -> int:
    """Calls the command that the first word names; returns its status. ConfigError if there is no such command."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(fitted(_OVERVIEW), end="")
        return 0
    if words[0] in ("-V", "--version"):
        print(f"lightning-repshape {__version__}")
        return 0
    command, rest = words[0], words[1:]
    helped = bool({"-h", "--help"} & set(rest[: rest.index("--")] if "--" in rest else rest))
    if helped and command in (*help.COMMANDS, *LIGHT):
        return help.run(command, rest)
    if command != "configs" and not helped:
        check_figures()
    # Each is imported when it is called, so that the answers above need no Lightning.
    if command == "predict" and names_images(rest):
        quieten()
        from lightning_repshape.cli import predict

        return predict.run(rest)
    if command in TRAINER_COMMANDS:
        quieten()
        from lightning_repshape.cli import training

        return training.run(command, rest)
    if command == "analyze":
        quieten()
        from lightning_repshape.cli import analyze

        return analyze.run(rest)
    if command == "compare":
        quieten()
        from lightning_repshape.cli import compare

        return compare.run(rest)
    if command == "export":
        quieten()
        from lightning_repshape.cli import export

        return export.run(rest)
    if command == "study":
        from lightning_repshape.cli import study

        return study.run(rest)
    if command == "configs":
        from lightning_repshape.cli import configs

        return configs.run(rest)
    known = (*TRAINER_COMMANDS, "analyze", "compare", "export", "study", "configs")
    raise ConfigError(f"there is no command {command!r}{did_you_mean(command, known)}")


def names_images(words: Sequence[str]) -> bool:
    """Whether ``predict`` is asked for images of the user's own, which needs no trainer and no data module."""
    given = any(word.partition("=")[0] == "--images" for word in words)
    return given and not {"-h", "--help", "--print_config"} & set(words)


def _fail(message: str, status: int) -> int:
    rank = os.environ.get("LOCAL_RANK", "0")
    prefix = "error" if rank == "0" else f"error on rank {rank}"
    sys.stdout.flush()
    print_error(f"{prefix}: {' '.join(message.split())}")
    return status
