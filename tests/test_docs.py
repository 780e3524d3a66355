"""Every command and every snippet of README and docs is run or, where it would train, parsed."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import readme_commands
import torch

from lightning_repshape.analyses.headline import headlines
from lightning_repshape.cli import TRAINER_COMMANDS, main
from lightning_repshape.cli.options import LIGHT

_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = readme_commands.pages()
COMMANDS = sorted({line for page in PAGES for line in readme_commands.shell_blocks(page)})
OURS = [line for line in COMMANDS if line.startswith("lightning-repshape ")]
# What else a shell block may hold: programs that a test run need not start again.
OTHERS = (
    'eval "$(register-python-argcomplete lightning-repshape)"',
    "python benchmarks/",
    "python docs/",
    "python -m pytest",
    "pip install ",
    "tensorboard ",
    "torchrun ",
    "python3 -m venv ",
    "cd ",
    "git clone ",
)


@pytest.mark.proof
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "__main__"}
    for snippet in _PYTHON.findall(page.read_text(encoding="utf-8")):
        exec(compile(snippet, str(page), "exec"), names)


@pytest.mark.proof
@pytest.mark.parametrize("line", OURS)
def test_commands_parse(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.split("#")[0].split("|")[0].split(" > ")[0])[1:]
    if words[0] in TRAINER_COMMANDS and not {"--help", "--print_config"} & set(words):
        if "--config" not in words:  # it reads a run's own config
            words = [words[0], "--config", "quickstart", *words[1:]]
        words.append("--print_config")
    elif words[0] in LIGHT:
        own = words[1 : words.index("--") if "--" in words else None]
        other = [place for place, word in enumerate(own) if word.startswith("--other.")]  # options of its class
        LIGHT[words[0]]().parse_args([word for place, word in enumerate(own) if {place, place - 1}.isdisjoint(other)])
        return
    elif words[0] not in (*TRAINER_COMMANDS, "configs", "--help", "--version"):
        words = [words[0], "--help"]
    assert main(words) == 0, capsys.readouterr().err


def test_other_commands_are_known() -> None:
    for line in COMMANDS:
        assert line in OURS or line.startswith(OTHERS), line
        for script in re.findall(r"(?:benchmarks|docs)/\S+\.py", line):
            assert (readme_commands.ROOT / script).is_file(), script


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name == "tutorials"], ids=lambda page: page.stem
)
def test_tutorials_import_what_there_is(page: Path) -> None:
    """The build of the docs executes them."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith("---\nfile_format: mystnb\n")
    cells = "\n".join(_CELL.findall(text)).replace("%matplotlib inline\n", "")
    imports = [part for part in ast.parse(cells, str(page)).body if isinstance(part, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), str(page), "exec"), {})


def test_questions_have_the_program_s_own_words() -> None:
    sources = sorted((readme_commands.ROOT / "lightning_repshape").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    page = (readme_commands.ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    messages = re.findall(r"\*\*`([^`]+)`\*\*", page)
    assert len(messages) > 30
    for message in messages:
        for part in message.replace("\n", " ").split("…"):
            words = part.strip(" ;:.,")
            assert len(words) < 4 or words in source, message


def test_links_and_figures_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_reference_names_modules_that_exist_and_every_room() -> None:
    pages = sorted((readme_commands.ROOT / "docs" / "api").glob("*.md"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    modules = re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE)
    assert len(set(modules)) == len(modules)
    for name in modules:
        importlib.import_module(name)
    package = readme_commands.ROOT / "lightning_repshape"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {name.split(".")[1] for name in modules} <= {"__init__", "_version", "moved"}


def test_the_reading_path_lists_every_page() -> None:
    docs = readme_commands.ROOT / "docs"
    listed = re.findall(r"^([\w/-]+)$", (docs / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    written = {str(page.relative_to(docs).with_suffix("")) for page in docs.rglob("*.md")}
    kept = {name for name in written if not name.startswith(("api/", "results/", "_build/")) and name != "index"}
    assert kept <= set(listed)


def test_the_tables_of_compare_have_the_rows_that_it_prints() -> None:
    names = ["test/error", "partial_retraining/error_10", "partial_retraining/error_100"]
    names += ["collapse/test_classwise_variance", "collapse/train_lda_eigenvalue", "geodesic/full"]
    names += ["probes/linear_error", "probes/knn_error", "weight_separability/unit"]
    labels = [one.label for one in headlines(dict.fromkeys(names, 0.5), 10, most=6)]
    for name, count in (("compare", 1), ("tour", 2)):
        page = (readme_commands.ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        tables = re.findall("┩\n(.*?)\n└", page, re.DOTALL)
        assert [re.findall("^│ (.*?) +│", table, re.MULTILINE) for table in tables] == [labels] * count, name
