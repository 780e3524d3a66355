"""What may import what, and that the public names are where they are said to be."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_repshape

PACKAGE = Path(lightning_repshape.__file__).parent
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
)
# Who stands below whom; a room imports from its own level only itself, and nothing from above.
LEVEL = {
    "functional": 0,
    "regularizers": 1,
    "losses": 1,
    "metrics": 1,
    "layers": 1,
    "heads": 2,
    "networks": 3,
    "data": 3,
    "modules": 4,
    "callbacks": 5,
    "studies": 6,
}


def imports(path: Path) -> set[str]:
    """The rooms that a file imports when it is loaded (imports inside functions are left out)."""
    rooms = set()
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("lightning_repshape.")}
    return rooms


def test_parts_work_without_lightning() -> None:
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric"):
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
import importlib
from lightning_repshape.functional import cw_vr
from lightning_repshape import MLP, ClasswiseVariance, LinearHead
heavy = [name for name in ("torchmetrics", "torchvision", "sklearn", "scipy", "matplotlib") if name in sys.modules]
assert not heavy, heavy
for room in {WITHOUT_LIGHTNING!r}:
    importlib.import_module(f"lightning_repshape.{{room}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("room", LEVEL)
def test_imports_run_one_way(room: str) -> None:
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").is_file() else sorted((PACKAGE / room).rglob("*.py"))
    for file in files:
        above = {other for other in imports(file) if LEVEL.get(other, -1) > LEVEL[room]}
        beside = {other for other in imports(file) if other != room and LEVEL.get(other, -1) == LEVEL[room]}
        # The base of metrics, regularizers and heads may share layers; nothing else is shared sideways.
        assert not above, f"{file.name} imports {above}"
        assert beside <= {"layers"}, f"{file.name} imports {beside}"


def test_data_and_plots_know_no_method() -> None:
    methods = {"modules", "callbacks", "networks", "heads", "functional", "regularizers", "metrics"}
    for file in [PACKAGE / "plots.py", *sorted((PACKAGE / "data").glob("*.py"))]:
        assert not imports(file) & methods, file.name


def test_public_names_are_those_of_the_rooms() -> None:
    for room, names in lightning_repshape._ROOMS.items():
        module = importlib.import_module(f"lightning_repshape.{room}")
        assert sorted(names) == sorted(module.__all__), room
        for name in names:
            assert getattr(lightning_repshape, name) is getattr(module, name)
    assert "SupervisedModule" in dir(lightning_repshape)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = lightning_repshape.Nonsense


def test_a_star_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
