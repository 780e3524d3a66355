"""Prints the package's dependencies at the lowest versions that pyproject.toml allows, for ``pip install``."""

import re
import tomllib
from pathlib import Path


def lowest_versions() -> list[str]:
    """Requirements with their first bound as the version, such as ``torch==2.11``."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.sub(r">=([\d.]+).*", r"==\1", needed) for needed in project["dependencies"]]


if __name__ == "__main__":
    print("\n".join(lowest_versions()))
