"""Import paths of earlier versions: an old module finds its names where they are now.

Configs, checkpoints and scripts name classes by the module that held them when they were written.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]
# Old module: where its names are to be looked for.
MOVED: dict[str, tuple[str, ...]] = {
    "analysis_plots": ("plots",),
}


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == _PACKAGE and name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        homes = MOVED[module.__name__.partition(".")[2]]

        def find(name: str) -> Any:
            for home in homes if not name.startswith("__") else ():
                found = importlib.import_module(f"{_PACKAGE}.{home}")
                if hasattr(found, name):
                    return getattr(found, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = find  # type: ignore[method-assign]


def install() -> None:
    """Lets old import paths be found, behind all others."""
    sys.meta_path.append(_Finder())
