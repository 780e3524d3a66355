"""What may import what, whose private names are used, and that public names are where they are said to be.

Everything but the imports themselves is read from the syntax tree, so imports inside functions count, too.
"""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import lightning_repshape

PACKAGE = Path(lightning_repshape.__file__).parent
NAME = PACKAGE.name
FILES = sorted(PACKAGE.rglob("*.py"))
WITHOUT_LIGHTNING = (
    "functional",
    "regularizers",
    "losses",
    "metrics",
    "heads",
    "layers",
    "networks",
    "features",
    "plots",
    "seeding",
    "errors",
    "terminal",
)
# Who stands below whom: a room imports from itself and from lower floors, nothing else.
FLOOR = {
    "_version": 0,
    "errors": 0,
    "moved": 0,
    "page": 0,
    "performance": 0,
    "seeding": 0,
    "terminal": 0,
    "functional": 1,
    "runs": 1,
    "configs_library": 2,
    "data": 2,
    "layers": 2,
    "plots": 2,
    "heads": 3,
    "losses": 3,
    "metrics": 3,
    "regularizers": 3,
    "studies": 3,
    "networks": 4,
    "features": 5,
    "analyses": 6,
    "modules": 6,
    "callbacks": 7,
    "comparisons": 7,
    "export": 7,
    "cli": 8,
}
# Private names of other libraries that have no public counterpart, each in one place.
FOREIGN_PRIVATE = {
    ("features/store.py", "_version"): "a tensor's counter of in-place changes tells whether weights have changed",
    ("layers.py", "_modules"): "children() leaves out a module that stands in two places of a chain",
    ("metrics/base.py", "_apply"): "nn.Module has no public hook for what a conversion does to its tensors",
    ("metrics/base.py", "_defaults"): "nothing public names what reset() restores",
}


def path_of(module: str) -> Path | None:
    """The file of a module of this package."""
    stem = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def short(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: Path) -> Iterator[tuple[Path, str]]:
    """Files of this package that a file imports anywhere, and the name it takes from each ("": the module itself)."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == NAME:
            for alias in node.names:
                whole = path_of(f"{node.module}.{alias.name}")
                found = whole or path_of(str(node.module))
                assert found is not None, f"{short(file)}: {node.module}"
                yield found, "" if whole else alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == NAME:
                    found = path_of(alias.name)
                    assert found is not None, f"{short(file)}: {alias.name}"
                    yield found, ""


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(file) for file in FILES} - {"__init__"}
    assert rooms == set(FLOOR)
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def test_nothing_imports_upwards_or_sideways() -> None:
    wrong = []
    for file in FILES:
        room = room_of(file)
        for other, _ in imported(file) if room in FLOOR else ():
            theirs = room_of(other)
            if theirs not in (room, "__init__") and FLOOR[theirs] >= FLOOR[room]:
                wrong.append(f"{short(file)} (floor {FLOOR[room]}) imports {short(other)} (floor {FLOOR[theirs]})")
    assert not wrong, "\n".join(wrong)


def test_no_import_circle() -> None:
    graph = {file: {other for other, _ in imported(file)} - {file} for file in FILES}
    done: set[Path] = set()

    def visit(file: Path, way: tuple[Path, ...]) -> None:
        circle = [*way[way.index(file) :], file] if file in way else []
        assert not circle, " -> ".join(map(short, circle))
        if file not in done:
            for other in graph[file]:
                visit(other, (*way, file))
            done.add(file)

    for file in FILES:
        visit(file, ())


def test_no_private_name_of_another_room() -> None:
    wrong = []
    for file in FILES:
        for other, name in imported(file):
            private = name.startswith("_") or (other.stem.startswith("_") and not other.stem.startswith("__"))
            if private and other.parent != file.parent and other.stem != "_version":
                wrong.append(f"{short(file)} takes {name or other.stem} from {short(other)}")
    assert not wrong, "\n".join(wrong)


def test_private_names_of_other_libraries_are_few() -> None:
    ours = {"_fields", "_replace", "_asdict"}  # of named tuples: public, in spite of the name
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                ours.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.attr if isinstance(node, ast.Attribute) else node.id)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                ours.add(node.target.id)
    ours -= {name for _, name in FOREIGN_PRIVATE}
    found = {}
    for file in FILES:
        for node in ast.walk(tree(file)):
            names = [node.attr] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(NAME):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                names = [name for name in names if name != "__future__"]
            for name in names:
                if name.startswith("_") and not name.endswith("__") and name not in ours:
                    found.setdefault((short(file), name), node.lineno)
    surplus = {key: line for key, line in found.items() if key not in FOREIGN_PRIVATE}
    assert not surplus, surplus
    assert set(FOREIGN_PRIVATE) <= set(found), set(FOREIGN_PRIVATE) - set(found)


def test_long_files_say_why() -> None:
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        if text.count("\n") > 500:
            docstring = (ast.get_docstring(tree(file)) or "").split("\n\n")[0]
            assert "one file" in docstring or "one class" in docstring, (
                f"{short(file)} has {text.count(chr(10))} lines and does not say why"
            )


def test_parts_work_without_lightning() -> None:
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric"):
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
import importlib
from lightning_repshape import functional
assert "torch" not in sys.modules  # functions are loaded when they are used
assert functional.vr.__name__ == "vr"
from lightning_repshape.functional import cw_vr
from lightning_repshape import MLP, ClasswiseVariance, LinearHead
heavy = [name for name in ("torchmetrics", "torchvision", "sklearn", "scipy", "matplotlib") if name in sys.modules]
assert not heavy, heavy
for room in {WITHOUT_LIGHTNING!r}:
    importlib.import_module(f"lightning_repshape.{{room}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_data_and_plots_know_no_method() -> None:
    methods = {"modules", "callbacks", "networks", "heads", "functional", "regularizers", "metrics"}
    for file in FILES:
        if room_of(file) in ("plots", "data"):
            assert not {room_of(other) for other, _ in imported(file)} & methods, short(file)


def test_public_names_are_those_of_the_rooms() -> None:
    for room, names in lightning_repshape._ROOMS.items():
        module = importlib.import_module(f"lightning_repshape.{room}")
        assert sorted(names) == sorted(module.__all__), room
        for name in names:
            assert getattr(lightning_repshape, name) is getattr(module, name)
    assert "SupervisedModule" in dir(lightning_repshape)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = lightning_repshape.Nonsense


def test_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
