"""Tab completion by argcomplete, of commands, options, configs, classes and studies; it imports nothing heavy."""

import argparse
import re
from collections.abc import Callable, Iterable
from typing import Any

import lightning_repshape
from lightning_repshape import configs_library
from lightning_repshape.cli import help as helps
from lightning_repshape.cli.options import BASES, CHECKPOINTS, FORMATS, LIGHT

_ACTIONS = {"study": ("list", "show", "run", "report"), "configs": ("list", "show", "copy", "schema")}
_COMMAND = re.compile(r"^  (\w+) {2,}", re.MULTILINE)
_OPTION = re.compile(r"--([a-z_.]+)(?![a-z_.]*NAME)")


def answer(overview: str) -> None:
    """Answers the shell and ends the process, where argcomplete is installed; the overview names the commands."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(_parser(overview), always_complete_options="long")


def _parser(overview: str) -> argparse.ArgumentParser:
    """A parser for completion alone: it knows the options that the short help names."""
    parser = argparse.ArgumentParser(prog="lightning-repshape", add_help=False)
    for option in ("--help", "--version"):
        parser.add_argument(option, action="store_true")
    commands = parser.add_subparsers()
    for command in _COMMAND.findall(overview.partition("commands:")[2].partition("options of")[0]):
        own = commands.add_parser(command, add_help=False)
        if command in _ACTIONS:
            actions = own.add_subparsers()
            for action in _ACTIONS[command]:
                _add_names(actions.add_parser(action), command, action)
        elif command in helps.COMMANDS or command in LIGHT:
            text = LIGHT[command]().format_usage() if command in LIGHT else helps.short(command)
            if command == "compare":
                _complete(own.add_argument("models", nargs="*"), _studies, files=True)
            for option in dict.fromkeys(("help", *_OPTION.findall(text), "debug", "quiet")):
                values = _OF_COMMAND.get(command, {}).get(option) or _VALUES.get(option)
                _complete(own.add_argument(f"--{option}", nargs="?" if values is None else None), values)
    return parser


def _add_names(parser: argparse.ArgumentParser, command: str, action: str) -> None:
    _complete(parser.add_argument("names", nargs="*"), _studies if command == "study" else configs_library.names)
    options = ["resolved"]
    if command == "study":
        from lightning_repshape.cli.study import study_parsers

        options = _OPTION.findall(study_parsers()[1][action].format_usage())
    for option in options:
        parser.add_argument(f"--{option}", nargs="?")


def _complete(action: Any, values: Callable[[], Iterable[str]] | None, files: bool = False) -> None:
    """Lets values complete an option, or files, too; without values, files do."""
    if values is not None:

        def found(prefix: str, **given: Any) -> list[str]:
            more: Iterable[str] = _files(prefix) if files else ()
            return [value for value in (*values(), *more) if value.startswith(prefix)]

        action.completer = found


def _files(prefix: str) -> list[str]:
    from argcomplete import completers

    of_files: Any = completers.FilesCompleter
    return list(of_files()(prefix))


def _studies() -> list[str]:
    from lightning_repshape.studies.reading import shipped

    return [study.id for study in shipped()]


def _rows() -> list[str]:
    from lightning_repshape.studies.reading import shipped

    return [row.id for study in shipped() for row in study.rows]


def _methods() -> list[str]:
    parts = [name.partition("/") for name in configs_library.names()]
    return list(dict.fromkeys(name for room, _, name in parts if room in ("recommended", "method")))


def _bases() -> list[str]:
    return [name.removeprefix("base/") for name in configs_library.names() if name.startswith("base/")]


def _names(room: str, end: str = "") -> Callable[[], list[str]]:
    return lambda: [name for name in lightning_repshape.names_of_rooms()[room] if name.endswith(end)]


_VALUES: dict[str, Callable[[], Iterable[str]]] = {
    "config": configs_library.names,
    "model": _names("modules", "Module"),
    "data": _names("data", "DataModule"),
    "model.backbone": _names("networks"),
    "trainer.callbacks": _names("callbacks"),
    "trainer.accelerator": lambda: ("cpu", "gpu", "auto"),
    "trainer.precision": lambda: ("auto", "32-true", "bf16-mixed", "16-mixed"),
    "trainer.logger": lambda: ("WandbLogger", "MLFlowLogger", "false"),
    "ckpt_path": lambda: CHECKPOINTS,
    "then_test": lambda: ("true", "false"),
    "row": _rows,
    "analyses": lambda: helps.ANALYSES,
}
_OF_COMMAND: dict[str, dict[str, Callable[[], Iterable[str]]]] = {
    "compare": {"data": lambda: BASES, "methods": _methods, "base": _bases},
    "export": {"format": lambda: FORMATS},
}
