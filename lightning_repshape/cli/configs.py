"""The command ``configs``: lists, shows and copies the shipped configs, and tells editors what a config may hold."""

import argparse
import json
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from lightning_repshape import configs_library
from lightning_repshape.cli.plain import PlainParser
from lightning_repshape.errors import ConfigError, RepshapeError, did_you_mean
from lightning_repshape.runs.folders import given_path

_DESCRIBED = 2  # groups whose members have a line each
_INDENTED: Any = {"initial_indent": "  ", "subsequent_indent": "    ", "break_on_hyphens": False}


def run(words: list[str]) -> int:
    """Runs the command with the words after ``configs``; returns 0."""
    parser = PlainParser(
        prog="lightning-repshape configs",
        description="The shipped configs. A name works wherever a command takes --config; several --config compose.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list | show | copy | schema")
    listing = actions.add_parser("list", help="name all of them, in groups")
    listing.add_argument("filter", nargs="?", default="", help="only names that contain this text, with a line each")
    show = actions.add_parser("show", help="print one")
    show.add_argument("names", nargs="+", metavar="name", help="a shipped config or a file; with --resolved, several")
    show.add_argument(
        "--resolved",
        action="store_true",
        help="as fit reads them, one after the other, with the defaults of all options",
    )
    copy = actions.add_parser("copy", help="copy one to a file of yours")
    copy.add_argument("name")
    copy.add_argument(
        "destination",
        type=lambda text: given_path(text, "destination"),
        help="a file that does not exist yet, or a folder",
    )
    actions.add_parser("schema", help="print the JSON schema of configs, for editors")
    options = parser.parse_args(words)
    if options.action == "list":
        _list(options.filter)
    elif options.action == "schema":
        print(json.dumps(_schema(), indent=1))
    elif options.action == "copy":
        _copy(options)
    elif options.resolved:
        print(_resolved(options.names), end="")
    elif len(options.names) > 1:
        raise ConfigError("configs show prints one config; with --resolved, what several come to")
    else:
        print(configs_library.find(options.names[0]).read_text(encoding="utf-8"), end="")
    return 0


def _list(part: str) -> None:
    columns = min(120, shutil.get_terminal_size((120, 24)).columns)
    if part:
        names = [name for name in configs_library.names() if part in name]
        if not names:
            raise ConfigError(
                f"no shipped config's name contains {part!r}{did_you_mean(part, configs_library.names())}"
            )
        _describe(names, columns)
        return
    for number, (title, names) in enumerate(configs_library.groups().items()):
        print(f"{title}:")
        if number < _DESCRIBED:
            _describe(names, columns, "  ")
        else:
            for folder in dict.fromkeys(name.partition("/")[0] for name in names):
                inside = ", ".join(name.partition("/")[2] for name in names if name.startswith(f"{folder}/"))
                print(textwrap.fill(f"{folder}/  {inside}", columns, **_INDENTED))
        print()
    print("configs list TEXT has a line each; configs show NAME prints one; fit --config BASE --config METHOD composes")


def _describe(names: Sequence[str], columns: int, indent: str = "") -> None:
    width = max(map(len, names))
    room = max(30, columns - width - len(indent) - 3)
    for name in names:
        text = textwrap.shorten(configs_library.description(name), room, placeholder=" ...")
        print(f"{indent}{name:<{width}}  {text}".rstrip())


def _copy(options: argparse.Namespace) -> None:
    source = configs_library.find(options.name)
    target = given_path(options.destination, "destination")
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise ConfigError(f"{target} exists already; remove it or choose another name")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise RepshapeError(f"{target} cannot be written ({error.strerror})") from error
    print(target)


def _resolved(names: Sequence[str]) -> str:
    from lightning_repshape.cli import training
    from lightning_repshape.cli.process import quieten
    from lightning_repshape.cli.resolving import resolve_configs

    quieten()
    parser = training.parser_of("fit")
    words, _ = resolve_configs("fit", [f"--config={name}" for name in names])
    fit = parser.commands.choices["fit"]
    text: str = fit.dump(parser.parse_args(["fit", *words]).fit, skip_unset=False, skip_validation=True)
    return text


def _schema() -> dict[str, Any]:
    from lightning_repshape.cli.process import quieten

    quieten()
    from lightning_repshape.cli.schema import config_schema

    return config_schema()
