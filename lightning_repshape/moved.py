"""Import paths of earlier versions: an old module finds its names where they are now.

Configs, checkpoints and scripts name classes by the module that held them when they were written.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]
# Old module: where its names are to be looked for.
MOVED: dict[str, tuple[str, ...]] = {
    "analysis_plots": ("plots",),
    "analysis_report": ("analyses.page", "analyses.tables"),
    "analyze_cli": ("cli.analyze", "analyses.arrays"),
    "callbacks.analysis": ("analyses", "analyses.analysis", "analyses.inputs", "analyses.result", "analyses.samples"),
    "callbacks.characteristics": ("analyses.characteristics",),
    "callbacks.checkpoints": ("runs.checkpoints",),
    "callbacks.class_vectors": ("analyses.class_vectors", "analyses.components"),
    "callbacks.collapse": ("analyses.collapse", "analyses.separability"),
    "callbacks.corruptions": ("analyses.robustness", "analyses.error_counts"),
    "callbacks.discriminant": ("analyses.discriminant", "analyses.components", "analyses.samples"),
    "callbacks.feature_store": ("features.store",),
    "callbacks.predictions": ("runs.predictions",),
    "callbacks.retraining": ("analyses.retraining", "analyses.geodesic"),
    "callbacks.run_record": ("runs.record",),
    "callbacks.secondary": ("modules.foca.secondary",),
    "callbacks.separability": ("analyses.separability",),
    "callbacks.summary": ("runs.summary",),
    "cli.trust": ("runs.trust",),
    "data.base": ("data.module", "data.loading", "data.choosing", "data.download", "data"),
    "data.casia": ("data.faces.casia",),
    "data.cifar": ("data.sets.cifar",),
    "data.digits": ("data.sets.digits",),
    "data.folder": ("data.sets.folder",),
    "data.mnist": ("data.sets.mnist",),
    "data.pairs": ("data.faces.pairs", "data.faces.lists", "data.faces.module"),
    "data.record_io": ("data.faces.records",),
    "data.stl10": ("data.sets.stl10",),
    "data.test_sets": ("data.further",),
    "data.tiny_imagenet": ("data.sets.tiny_imagenet",),
    "feed_backward_plots": ("plots",),
    "loggers": ("runs.curves",),
    "modules.balanced_source": ("modules.foca.source",),
    "parse_errors": ("cli.parsing",),
    "studies.registry": ("studies", "studies.rows", "studies.reading", "studies.calls"),
    "study_cli": ("cli.study",),
    "study_plots": ("plots",),
    "training_cli": ("cli.training", "cli.parsing", "cli.process"),
}


def elsewhere(module: str, *homes: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that finds names which once stood in it.

    Args:
        module: Its name, for the message.
        *homes: Modules of this package to look in, such as ``"callbacks.roc"``; imported when a name is asked for.
    """

    def find(name: str) -> Any:
        for home in homes if not name.startswith("__") else ():
            found = importlib.import_module(f"{_PACKAGE}.{home}")
            if hasattr(found, name):
                return getattr(found, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == _PACKAGE and name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = elsewhere(module.__name__, *MOVED[module.__name__.partition(".")[2]])  # type: ignore[method-assign]


def install() -> None:
    """Lets old import paths be found, behind all others."""
    sys.meta_path.append(_Finder())
