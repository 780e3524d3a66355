"""Every addition of docs/contributing.md applies to a copy of the package, and its own test passes there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import readme_commands

ROOT = readme_commands.ROOT
PAGE = ROOT / "docs" / "contributing.md"
COPIED = ("lightning_repshape", "configs", "docs/data.md", "docs/networks.md", "docs/analyses.md", "pyproject.toml")


def sections() -> dict[str, str]:
    """The page's sections that hold a diff, by heading."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {heading: text for heading, text in zip(parts[::2], parts[1::2], strict=True) if "```diff" in text}


def diff_of(section: str) -> str:
    """The patch of a section."""
    return "".join(re.findall(r"^```diff\n(.*?)^```", sections()[section], re.MULTILINE | re.DOTALL))


def files_of(section: str) -> list[str]:
    """The files that it touches."""
    return re.findall(r"^\+\+\+ b/(\S+)", diff_of(section), re.MULTILINE)


def copy_to(folder: Path) -> None:
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for helper in (ROOT / "tests").glob("*.py"):
        (folder / "tests").mkdir(exist_ok=True)
        shutil.copy(helper, folder / "tests")


@pytest.mark.proof
def test_the_diffs_apply_and_their_tests_pass(tmp_path: Path) -> None:
    copy_to(tmp_path)
    # git's own search stops here: the copy is no part of any repository above it
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent), "PYTHONPATH": str(tmp_path)}
    tests = []
    for section in sections():
        applied = subprocess.run(
            ["git", "apply", "-C1", "--whitespace=error", "-"],
            input=diff_of(section), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert applied.returncode == 0, f"{section}: {applied.stderr}"
        tests += [name for name in files_of(section) if name.startswith("tests/")]
    assert len(tests) == 4
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("section", sections())
def test_five_places_at_most_and_all_are_named(section: str) -> None:
    places = re.findall(r"^\| `([^`]+)` \|", sections()[section], re.MULTILINE)
    assert sorted(places) == sorted(files_of(section))
    assert len(places) <= 5


def test_the_four_additions_are_there() -> None:
    assert list(sections()) == ["A regularizer", "A network", "A data set", "An analysis"]
