"""The command ``configs``: lists, shows and copies the shipped configs."""

import argparse
import shutil
import textwrap

from lightning_repshape import configs_library
from lightning_repshape.errors import ConfigError, RepshapeError, did_you_mean
from lightning_repshape.runs.folders import given_path


def run(words: list[str]) -> int:
    """Runs the command with the words after ``configs``; returns 0."""
    parser = argparse.ArgumentParser(
        prog="lightning-repshape configs",
        description="The shipped configs. A name works wherever a command takes --config; several --config compose.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list | show | copy")
    listing = actions.add_parser("list", help="name all of them, with a line each")
    listing.add_argument("filter", nargs="?", default="", help="only names that contain this text")
    show = actions.add_parser("show", help="print one")
    show.add_argument("name")
    copy = actions.add_parser("copy", help="copy one to a file of yours")
    copy.add_argument("name")
    copy.add_argument(
        "destination",
        type=lambda text: given_path(text, "destination"),
        help="a file that does not exist yet, or a folder",
    )
    options = parser.parse_args(words)
    if options.action == "list":
        names = [name for name in configs_library.names() if options.filter in name]
        if not names:
            raise ConfigError(
                f"no shipped config's name contains {options.filter!r}"
                f"{did_you_mean(options.filter, configs_library.names())}"
            )
        width = max(map(len, names))
        columns = shutil.get_terminal_size((120, 24)).columns
        for name in names:
            text = textwrap.shorten(configs_library.description(name), max(30, columns - width - 3), placeholder=" ...")
            print(f"{name:<{width}}  {text}".rstrip())
        return 0
    source = configs_library.find(options.name)
    if options.action == "show":
        print(source.read_text(encoding="utf-8"), end="")
        return 0
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
    return 0
