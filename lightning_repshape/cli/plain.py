"""A parser of words without nested options, whose errors are one sentence; it needs nothing heavy."""

import argparse
import re
from typing import Any, NoReturn

from lightning_repshape.errors import ConfigError, did_you_mean


def listed(text: str) -> list[str]:
    """What stands between commas, with or without brackets, which a shell takes for a pattern, and quotes."""
    return [word.strip().strip("'\"") for word in text.strip().strip("[]").split(",")]


class PlainParser(argparse.ArgumentParser):
    """argparse's, without abbreviations of options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError."""
        if unknown := re.search(r"unrecognized arguments:.*?--([\w.]+)", message):
            known = re.findall(r"--([\w.]+)", self.format_help())
            raise ConfigError(
                f"{self.prog.removeprefix('lightning-repshape ')}: there is no option {unknown[1]!r}"
                f"{did_you_mean(unknown[1], known)}"
            )
        raise ConfigError(f"{self.prog.removeprefix('lightning-repshape ')}: {message}")
