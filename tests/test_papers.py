"""Every name on the papers' pages is one, and no equation, table, figure or study is missing there."""

import ast
import importlib
import inspect
import re
from functools import cache
from pathlib import Path

import pytest
import readme_commands
from jsonargparse import ArgumentParser

import lightning_repshape
from lightning_repshape import configs_library
from lightning_repshape.callbacks import Analysis
from lightning_repshape.cli import main
from lightning_repshape.studies.reading import shipped

ROOT = readme_commands.ROOT
PAGES = sorted((ROOT / "docs" / "papers").glob("*.md"))
# What each paper has: numbered equations, figures and tables; lines of its algorithm.
CONTENTS: dict[str, dict[str, int]] = {
    "foca-icml2019": {"Eq.": 16, "Figure": 4, "Table": 1, "line": 9},
    "class-wise-regularizers-aaai2019": {"Eq.": 7, "Figure": 6, "Table": 10},
    "feed-backward-reconstruction": {"Eq.": 10, "Figure": 6, "Table": 2},
    "randomized-class-vectors": {"Eq.": 5, "Figure": 5, "Table": 9},
}
STUDIES = {
    "foca-icml2019": "icml19",
    "class-wise-regularizers-aaai2019": "aaai19",
    "feed-backward-reconstruction": "feed-backward",
    "randomized-class-vectors": "iclr21",
}


def code(page: Path) -> list[str]:
    """What stands in code font in a page's text, without its blocks of commands."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return sorted(set(re.findall(r"`([^`\n]+)`", text)))


@cache
def names_of_tests() -> set[str]:
    found = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        found |= {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}
    return found


@cache
def rows() -> set[str]:
    return {study.id for study in shipped()} | {row.id for study in shipped() for row in study.rows}


@cache
def analyses() -> set[str]:
    room = importlib.import_module("lightning_repshape.callbacks")
    names = [getattr(room, name) for name in room.__all__]
    kinds = [kind for kind in names if inspect.isclass(kind) and issubclass(kind, Analysis)]
    return {kind.kind for kind in kinds if not inspect.isabstract(kind)}


def named(path: str) -> object:
    """What a dotted path names under the package: a public name, a name of a room, or a member of a class."""
    found: object = lightning_repshape
    for place, part in enumerate(path.split(".")):
        if not hasattr(found, part):
            importlib.import_module(".".join(["lightning_repshape", *path.split(".")[: place + 1]]))
        found = getattr(found, part)
    return found


@cache
def options(name: str) -> set[str]:
    """The options of a class as its parser knows them: ``weak.updates`` is one of ``weak``."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(named(name), "of", fail_untyped=False)
    return {key.removeprefix("of.") for key in parser.get_defaults().keys(branches=True)}


def is_name(word: str) -> bool:
    option = re.fullmatch(r"([\w.]+)\(([\w.]+)(=.+)?\)", word)
    if option:
        return option[2] in options(option[1])
    if word.startswith("test_"):
        return word in names_of_tests()
    if word in configs_library.names() or word in rows() or word in analyses():
        return True
    if "/" in word:
        return (ROOT / word).is_file()
    try:
        named(word)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_is_one(page: Path) -> None:
    assert [word for word in code(page) if not is_name(word)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_names_lead_to_them(page: Path) -> None:
    for name, target in re.findall(r"\[`([^`]+)`\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        file = (page.parent / target).resolve()
        assert file.is_file(), target
        if name in rows():
            assert file.name == f"{name.split('/')[0]}.yaml"
        else:
            assert str(file.relative_to(ROOT)) in (name, f"configs/{name}.yaml"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_nothing_is_left_out(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    items = re.findall(r"^\| (Eq\.|Figure|Table|line) (\d+)(?: (?:to|and) (\d+))?(?: \|| \()", text, re.MULTILINE)
    found: dict[str, set[int]] = {}
    for kind, first, last in items:
        found.setdefault(kind, set()).update(range(int(first), int(last or first) + 1))
    for kind, count in CONTENTS[page.stem].items():
        assert found.get(kind, set()) == set(range(1, count + 1)), kind
    words = code(page)
    for study in shipped():
        if study.id.startswith(f"{STUDIES[page.stem]}/"):
            assert any(word == study.id or word.startswith(f"{study.id}/") for word in words), study.id


def test_there_is_a_page_for_every_paper() -> None:
    assert {page.stem for page in PAGES} == set(CONTENTS)
    assert {study.id.split("/")[0] for study in shipped()} - {"quickstart", "beside", "gpu"} == set(STUDIES.values())


def test_analyses_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "--help"]) == 0
    said = capsys.readouterr().out
    for page in PAGES:
        assert [kind for kind in set(code(page)) & analyses() if kind not in said] == []


def test_a_wrong_name_is_found() -> None:
    for word in (
        "functional.nonsense",
        "Variance(nonsense)",
        "test_nonsense",
        "base/nonsense",
        "aaai19/table-7/default/no",
    ):
        assert not is_name(word), word
