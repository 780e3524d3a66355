"""What an analysis found, and how it is written: JSON, figures and arrays."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lightning_repshape import plots
from lightning_repshape.analyses.tables import result_lines
from lightning_repshape.errors import ConfigError
from lightning_repshape.page import failure, heading, picture
from lightning_repshape.runs.files import plain_number, read_json, write_json, written_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AnalysisResult:
    """What an analysis found.

    Attributes:
        scalars: The figures that are logged, by name; fractions, not percent.
        content: More for the JSON file: settings, lists and dictionaries of numbers and strings.
        tables: Tables for the report, each a list of rows, by heading.
        figures: Functions that draw, by the end of the file's name (empty for the main figure).
        notes: Sentences on what was special: an infinite eigenvalue, a class without samples, a missing split.
        arrays: What the figures show, as NumPy arrays, for ``NAME.npz``. Default: nothing, and no such file.
    """

    scalars: dict[str, float]
    content: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    figures: "dict[str, Callable[[], Figure]]" = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    arrays: "dict[str, plots.Array]" = field(default_factory=dict)

    def __repr__(self) -> str:
        """The figures, and what else there is, in one line."""
        figures = ", ".join(f"{name}={value:.4g}" for name, value in self.scalars.items())
        counts = {name: len(getattr(self, name)) for name in ("tables", "figures", "arrays", "notes")}
        more = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return f"AnalysisResult({figures}; {more})" if more else f"AnalysisResult({figures})"

    def _repr_html_(self) -> str:
        """Figures and tables, for notebooks."""
        drawn = []
        for name, draw in self.figures.items():
            file = io.BytesIO()
            draw().savefig(file, format="png", dpi=100)
            drawn.append(picture(file.getvalue(), name or "figure"))
        return "\n".join([*drawn, *result_lines(self.notes, self.tables, self.scalars)])


@dataclass(frozen=True)
class Outcome:
    """One analysis of a series: its result or why there is none.

    Attributes:
        name: The analysis's name.
        title: Its heading.
        result: None if it failed.
        failure: The message; empty if it did not fail.
        figures: The PNG files that were written.
    """

    name: str
    title: str
    result: AnalysisResult | None
    failure: str = ""
    figures: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        """One line: the figures, or why there are none."""
        return f"Outcome({self.name}: {self.result if self.result is not None else self.failure})"

    def _repr_html_(self) -> str:
        """What was found, for notebooks."""
        lines = failure(self.failure) if self.result is None else self.result._repr_html_()
        return f"{heading(self.title)}\n{lines}"


def save_outcome(outcome: Outcome, folder: Path, layer: str) -> Outcome:
    """Writes an outcome's JSON file and figures, and takes away those of an earlier outcome, which would mislead.

    Returns the outcome with the paths of its figures; the file names the analysed layer.
    """
    result = outcome.result
    files = [f"{outcome.name}.npz"] if result is not None and result.arrays else []
    for suffix in () if result is None else result.figures:
        stem = f"{outcome.name}-{suffix}" if suffix else outcome.name
        files += [f"{stem}.png", f"{stem}.pdf"]
    _remove_earlier(folder, outcome.name, files)
    head = {"analysis": outcome.name, "title": outcome.title, "layer": layer, "files": files}
    if result is None:
        write_json(folder / f"{outcome.name}.json", {**head, "failure": outcome.failure})
        return outcome
    scalars = {key: plain_number(value) for key, value in result.scalars.items()}
    body = {"scalars": scalars, "notes": list(result.notes), "tables": result.tables, **result.content}
    write_json(folder / f"{outcome.name}.json", plain({**head, **body}))
    if result.arrays:
        with written_atomically(folder / f"{outcome.name}.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **result.arrays)
    written = []
    for suffix, draw in result.figures.items():
        stem = f"{outcome.name}-{suffix}" if suffix else outcome.name
        written.append(plots.save_figure(draw(), folder / f"{stem}.png"))
    return Outcome(outcome.name, outcome.title, result, "", tuple(written))


def _remove_earlier(folder: Path, name: str, kept: Sequence[str]) -> None:
    """Deletes what the JSON file of an earlier call lists and this one does not write; never what others wrote."""
    try:
        earlier = read_json(folder / f"{name}.json").get("files")
    except ConfigError:  # it is about to be replaced
        return
    for file in earlier if isinstance(earlier, list) else []:
        path = folder / str(file)
        if path.parent == folder and path.suffix in (".png", ".pdf", ".npz") and path.name not in kept:
            path.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """What JSON can hold in place of tensors and tuples; numbers have seven digits."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return plain_number(value)
    return value
