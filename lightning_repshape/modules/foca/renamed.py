"""The names that FOCA's options had before."""

from collections.abc import Mapping
from typing import Any

RENAMED: dict[str, str] = {"updates_of_old": "inner_updates"}


def current_options(init_args: Mapping[str, Any]) -> dict[str, Any]:
    """Options under today's names.

    Args:
        init_args: FOCA's options; others are left alone.

    Returns:
        The same values.
    """
    return {RENAMED.get(name, name): value for name, value in init_args.items()}
