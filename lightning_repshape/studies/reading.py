"""Studies as they stand in YAML, those that are shipped and those of users, and how one is found by its name.

A file of studies looks like this; ``configs/rows`` has those of the four papers.

.. code-block:: yaml

    format: 1
    paper: Choi and Rhee, AAAI 2019           # any text; the file's name is the first part of every id
    studies:
      table-7:
        title: Test error on MNIST
        data: MNIST
        configs: [base/mnist-mlp]             # of every row; then come the column's, then the method's
        overrides: {trainer.callbacks: null}  # options of fit, in the same order
        seeds: [0, 1, 2, 3, 4]                # default: [0]
        figures:                              # what a finished run's metrics.json is asked for
          error: {metric: test/error, scale: 100, unit: "%", better: lower, digits: 2}
        select:                               # optional: what is chosen by validation, with the first seed
          option: model.init_args.regularizers.init_args.weight
          values: [0.01, 1]
          metric: val/error
          better: lower
        retrain: {configs: [scenario/merged-validation]}  # optional: added in the trainings after the choice
        baseline: baseline                    # the method that the others are compared with
        columns:                              # optional; default: one column named "default"
          default: {}
          data-1k: {configs: [scenario/data-1k]}
        methods:
          baseline: {select: false}
          cw_vr: {configs: [method/cw-vr], columns: {data-1k: {seeds: [0]}}}  # columns: in these, after all else
        published:                            # optional: the paper's figures
          source: table 7
          cells: [default, data-1k]           # columns, figures, or column/figure
          values:                             # a number, [mean, deviation], {range: [a, b]}, a text, or null
            baseline: [[2.85, 0.11], [11.41, 0.19]]

A method with ``init_from: plain`` starts each training from the best checkpoint of that method's training of the same
column and seed, which comes first.

A study whose rows are trained as those of another one before it in the file says so (``trainings: table-7``) and shares
its run folders. A file may hold one study alone: the same keys without ``studies``. Paths of configs are relative to
the file.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lightning_repshape import configs_library
from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.runs.folders import given_path
from lightning_repshape.studies.rows import Figure, Published, Row, Selection, Study, as_word

FORMAT = 1
RESERVED = ("logs", "report")  # folders of results that hold no runs
ROWS = "rows"  # the folder of the shipped studies within the configs

_STUDY_KEYS = {
    "title", "data", "configs", "overrides", "seeds", "figures", "select", "retrain", "baseline", "columns", "methods",
    "published", "notes", "trainings",
}  # fmt: skip
_CELL_KEYS = {"configs", "overrides", "select", "retrain", "seeds"}  # of a method's ``columns``
_ROW_KEYS = {*_CELL_KEYS, "title", "data", "notes"}


@cache
def shipped() -> tuple[Study, ...]:
    """All studies of ``configs/rows`` by file name, then as in the files; ConfigError if a file is damaged."""
    files = sorted((configs_library.folder() / ROWS).glob("*.yaml"))
    return tuple(study for file in files for study in read_studies(file))


def find_studies(name: str) -> tuple[Study, ...]:
    """The studies, at least one, of a file of studies, of a study's id, or of the first part of ids.

    Raises:
        ConfigError: If there is none; the message names the nearest.
    """
    path = given_path(name, "study")
    if path.is_file():
        return read_studies(path)
    if name.endswith((".yaml", ".yml")):
        raise ConfigError(f"there is no file of studies {name}")
    found = tuple(study for study in shipped() if study.id == name or study.id.startswith(f"{name}/"))
    if not found:
        raise ConfigError(f"there is no study {name!r}{did_you_mean(name, [study.id for study in shipped()])}")
    return found


def find_row(name: str) -> Row:
    """The row of an id.

    For a study of one's own that is ``FILE.yaml:STUDY/COLUMN/METHOD``, or ``FILE.yaml:COLUMN/METHOD`` where the file
    holds one study.

    Raises:
        ConfigError: If there is none; the message names the nearest ids.
    """
    file, colon, rest = name.rpartition(":")
    if colon and file.endswith((".yaml", ".yml")):
        studies = find_studies(file)
        ids = {row.id.removeprefix(f"{Path(file).stem}/"): row for study in studies for row in study.rows}
        short = {row.id.removeprefix(f"{study.id}/"): row for study in studies for row in study.rows}
        candidates = {**(short if len(studies) == 1 else {}), **ids}
        if rest in candidates:
            return candidates[rest]
        raise ConfigError(f"{file} has no row {rest!r}{did_you_mean(rest, candidates)}")
    rows = {row.id: row for study in shipped() for row in study.rows}
    if name in rows:
        return rows[name]
    raise ConfigError(f"there is no row {name!r}{did_you_mean(name, rows)}")


def filtered(rows: Iterable[Row], patterns: Sequence[str]) -> list[Row]:
    """Rows, in order, that fit at least one of several patterns; all where there is no pattern.

    A pattern names a table, column, method or data set, or what stands between dashes in them, such as ``resnet18`` in
    ``cifar10-resnet18``; several joined by ``+`` must all fit.
    """

    def fits(row: Row, word: str) -> bool:
        if "/" in word:
            return f"/{word}/" in f"/{row.id.lower()}/"
        return word == row.data.lower() or any(f"-{word}-" in f"-{name}-" for name in row.id.lower().split("/"))

    def all_fit(row: Row, pattern: str) -> bool:
        return all(fits(row, word.strip()) for word in pattern.lower().split("+"))

    return [row for row in rows if not patterns or any(all_fit(row, pattern) for pattern in patterns)]


def read_yaml(file: Path) -> Any:
    """A file's content, not to be changed: it is shared, for YAML is slow; ConfigError if it cannot be read."""
    try:
        return _loaded(file, file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})") from error


@lru_cache(maxsize=256)
def _loaded(file: Path, content: bytes) -> Any:
    return configs_library.parsed(file, content)


def read_studies(file: Path) -> tuple[Study, ...]:
    """Reads a file of studies, one or several in order; a ConfigError says where it is wrong, and what."""
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file} holds no mapping; a file of studies has 'format: {FORMAT}' and 'methods' or 'studies'"
        )
    if content.get("format") is True or content.get("format") != FORMAT:
        raise ConfigError(f"{file} has format {content.get('format')!r}; this version reads 'format: {FORMAT}'")
    paper = str(content.get("paper", ""))
    if "studies" not in content:
        own = {key: value for key, value in content.items() if key not in ("format", "paper")}
        return (_Reader(file, file.stem, paper).study(own),)
    unknown = set(content) - {"format", "paper", "studies"}
    if unknown:
        names = ", ".join(repr(name) for name in sorted(map(str, unknown)))
        raise ConfigError(f"{file}: {names} stands beside 'studies', where only 'format' and 'paper' do")
    studies = content["studies"]
    if not isinstance(studies, dict) or not studies:
        raise ConfigError(f"{file}: 'studies' must map names to studies")
    found: dict[str, Study] = {}
    for name, own in studies.items():
        found[str(name)] = _Reader(file, f"{file.stem}/{name}", paper, found).study(own)
    return tuple(found.values())


class _Reader:
    """Reads one study and knows where it is, for messages."""

    def __init__(self, file: Path, study: str, paper: str, before: Mapping[str, Study] | None = None) -> None:
        self.file, self.id, self.paper, self.before = file, study, paper, before or {}

    def study(self, content: Any) -> Study:
        self._keys(content, _STUDY_KEYS, "")
        for name in self.id.split("/"):
            self._name(name, "file" if name == self.file.stem else "study")
        figures = {
            str(name): self._figure(str(name), own)
            for name, own in self._map(content, "figures", required=True).items()
        }
        columns = {str(key): own or {} for key, own in (self._map(content, "columns") or {"default": {}}).items()}
        methods = {str(key): own or {} for key, own in self._map(content, "methods", required=True).items()}
        for kind, parts in (("column", columns), ("method", methods)):
            for name, part in parts.items():
                self._keys(
                    part, _ROW_KEYS | ({"columns", "init_from"} if kind == "method" else set()), f"{kind} {name}: "
                )
                self._name(name, kind)
        for name, part in methods.items():
            for column, own in self._map(part, "columns").items():
                if column not in columns:
                    hint = did_you_mean(str(column), columns)
                    raise self._error(f"method {name}: there is no column {column!r}{hint}")
                self._keys(own, _CELL_KEYS, f"method {name}, column {column}: ")
        baseline = content.get("baseline")
        named = [("baseline ", baseline), *((f"figure {own.name}: over ", own.over) for own in figures.values())]
        for what, method in named:
            if method is not None:
                self._method(method, methods, what)
        source, published = self._published(content.get("published"), figures, columns, methods)
        rows = tuple(
            self._row(content, column, columns[column], method, methods[method], published.get((column, method), {}))
            for column in columns
            for method in methods
        )
        rows = self._started(methods, rows)
        rows = self._shared(content.get("trainings"), rows)
        names = [str(own.get("data")) for own in columns.values() if own.get("data")]
        return Study(
            id=self.id,
            title=str(content.get("title", self.id)),
            paper=self.paper,
            source=source,
            data=str(content.get("data") or ", ".join(dict.fromkeys(names))),
            figures=figures,
            columns={name: str(own.get("title", name)) for name, own in columns.items()},
            methods={name: str(own.get("title", name)) for name, own in methods.items()},
            baseline=baseline,
            rows=rows,
            notes=tuple(str(note) for note in _as_list(content.get("notes"))),
            file=self.file,
        )

    def _row(
        self,
        content: Mapping[str, Any],
        column: str,
        of_column: Mapping[str, Any],
        method: str,
        of_method: Mapping[str, Any],
        published: Mapping[str, Published],
    ) -> Row:
        parts = [content, of_column, of_method, self._map(of_method, "columns").get(column, {})]
        where = f"{column}/{method}: "
        # the more particular says; false says none
        said = {key: part[key] for part in parts for key in ("select", "retrain", "seeds") if key in part}
        select, retrain = said.get("select"), said.get("retrain")
        if retrain:
            self._keys(retrain, {"configs", "overrides"}, f"{where}retrain: ")
        return Row(
            study=self.id,
            column=column,
            method=method,
            configs=tuple(path for part in parts for path in self._configs(part, where)),
            overrides={str(key): value for part in parts for key, value in self._overrides(part, where).items()},
            seeds=self._seeds(said.get("seeds", [0]), where),
            select=self._selection(select, where) if select else None,
            retrain=(
                (tuple(self._configs(retrain, f"{where}retrain: ")), self._overrides(retrain, f"{where}retrain: "))
                if retrain
                else None
            ),
            published=published,
            data=str(of_column.get("data") or content.get("data") or ""),
            trained_as=f"{self.id}/{column}/{method}",
            reference=self._reference(f"{column}/{method}"),
        )

    def _seeds(self, seeds: Any, where: str) -> tuple[int, ...]:
        if isinstance(seeds, bool) or not isinstance(seeds, int | list) or seeds == []:
            raise self._error(f"{where}seeds is {seeds!r}; it must be a list of integers, or how many from 0")
        if seeds == 0:
            raise self._error(f"{where}seeds is 0; at least one training is needed")
        seeds = list(range(seeds)) if isinstance(seeds, int) else seeds
        if not seeds or any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in seeds):
            raise self._error(f"{where}seeds is {seeds!r}; seeds are integers of at least 0")
        if len(set(seeds)) != len(seeds):
            raise self._error(f"{where}seeds is {seeds!r}, which names a seed twice")
        return tuple(seeds)

    def _started(self, methods: Mapping[str, Any], rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """Rows with those that they start from."""
        starts = {name: own["init_from"] for name, own in methods.items() if own.get("init_from") is not None}
        for name, other in starts.items():
            self._method(other, methods, f"method {name}: init_from ")
            if other == name or other in starts:
                other = "itself" if other == name else f"{other}, which starts from another one"
                raise self._error(f"method {name}: init_from must name a method that starts afresh, not {other}")
        found = []
        for row in rows:
            start = next(
                (own for own in rows if own.column == row.column and own.method == starts.get(row.method)), None
            )
            if start is not None:
                if any(own.select or own.retrain for own in (row, start)):
                    raise self._error(
                        f"{row.column}/{row.method}: init_from {start.method} goes without select and retrain, of both"
                    )
                if not set(row.seeds) <= set(start.seeds):
                    raise self._error(
                        f"{row.column}/{row.method}: init_from {start.method}, which lacks some of its seeds"
                    )
            found.append(dataclasses.replace(row, start=start))
        return tuple(found)

    def _shared(self, other: Any, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """Rows whose trainings are those of another study's rows."""
        if other is None:
            return rows
        if not isinstance(other, str) or other not in self.before:
            raise self._error(f"trainings: no study {other!r} stands before{did_you_mean(str(other), self.before)}")

        def trained(row: Row) -> tuple[Any, ...]:
            return row.configs, row.overrides, row.seeds, row.select, row.retrain, row.start and trained(row.start)

        shared = []
        for row in rows:
            theirs = self.before[other].row(row.column, row.method)
            if theirs is None or trained(theirs) != trained(row):
                raise self._error(
                    f"trainings: {row.column}/{row.method} is not trained in {other}, or not in the same way"
                )
            shared.append(dataclasses.replace(row, trained_as=theirs.trained_as, start=theirs.start))
        return tuple(shared)

    def _reference(self, row: str) -> str:
        if self.file.resolve().parent == (configs_library.folder() / ROWS).resolve():
            return f"{self.id}/{row}"
        return f"{self.file}:{self.id.partition('/')[2]}/{row}" if "/" in self.id else f"{self.file}:{row}"

    def _configs(self, part: Any, where: str) -> list[Path]:
        if not isinstance(part, dict):
            raise self._error(f"{where}{part!r} is no mapping")
        found = []
        for name in _as_list(part.get("configs")):
            beside = self.file.parent / str(name)
            try:
                found.append(beside if beside.is_file() else configs_library.find(str(name)))
            except ConfigError as error:
                raise self._error(f"{where}{error}") from error
        return found

    def _overrides(self, part: Any, where: str) -> dict[str, Any]:
        overrides = part.get("overrides")
        if overrides is None:
            return {}
        if not isinstance(overrides, dict):
            raise self._error(f"{where}overrides must map options of fit to values")
        for option in overrides:
            self._option(option, f"{where}overrides: ")
        return overrides

    def _option(self, option: Any, where: str) -> None:
        if not isinstance(option, str) or not re.fullmatch(r"[A-Za-z][\w.]*\+?", option):
            raise self._error(f"{where}{option!r} is no option of fit, such as trainer.max_epochs")
        if option in ("seed_everything", "run_dir", "then_test", "ckpt_path", "config"):
            raise self._error(f"{where}{option} is the study's own affair; seeds stand under 'seeds'")

    def _selection(self, own: Any, where: str) -> Selection:
        self._keys(own, {"option", "values", "metric", "better"}, f"{where}select: ")
        values = own.get("values")
        if not own.get("option") or not isinstance(values, list) or not values:
            raise self._error(f"{where}select needs 'option', an option of fit, and 'values', a list")
        better = own.get("better", "lower")
        if better not in ("lower", "higher"):
            raise self._error(f"{where}select: better is {better!r}; it must be 'lower' or 'higher'")
        self._option(own["option"], f"{where}select: ")
        texts = tuple(as_word(value) for value in values)
        if len({repr(float(value)) if is_number(value) else repr(value) for value in values}) != len(values):
            raise self._error(f"{where}select: values names one twice: {values}")
        return Selection(str(own["option"]), texts, str(own.get("metric", "val/error")), better)

    def _figure(self, name: str, own: Any) -> Figure:
        where = f"figure {name}: "
        if isinstance(own, str):
            own = {"metric": own}
        self._keys(own, {"metric", "scale", "unit", "better", "digits", "over"}, where)
        if not isinstance(own.get("metric"), str):
            raise self._error(f"{where}'metric' must be a key of metrics.json, such as test/error")
        better = own.get("better", "lower")
        if better not in ("lower", "higher", None):
            raise self._error(f"{where}better is {better!r}; it must be 'lower', 'higher' or null")
        scale, digits = own.get("scale", 1.0), own.get("digits", 2)
        if not is_number(scale) or scale == 0 or not math.isfinite(scale):
            raise self._error(f"{where}scale is {scale!r}; it must be a number that is not 0")
        if isinstance(digits, bool) or not isinstance(digits, int) or digits < 0:
            raise self._error(f"{where}digits is {digits!r}; it must be an integer of at least 0")
        return Figure(name, own["metric"], float(scale), str(own.get("unit", "")), better, digits, own.get("over"))

    def _published(
        self, own: Any, figures: Mapping[str, Figure], columns: Mapping[str, Any], methods: Mapping[str, Any]
    ) -> tuple[str, dict[tuple[str, str], dict[str, Published]]]:
        if own is None:
            return "", {}
        self._keys(own, {"source", "cells", "values"}, "published: ")
        cells = []
        for cell in _as_list(own.get("cells")):
            column, slash, figure = str(cell).rpartition("/")
            if not slash:
                column, figure = (figure, "") if figure in columns else ("", figure)
            column = column or (next(iter(columns)) if len(columns) == 1 else "")
            figure = figure or (next(iter(figures)) if len(figures) == 1 else "")
            if column not in columns or figure not in figures:
                known = [f"{one}/{other}" for one in columns for other in figures]
                raise self._error(f"published: cell {cell!r} is no column and figure{did_you_mean(str(cell), known)}")
            cells.append((column, figure))
        found: dict[tuple[str, str], dict[str, Published]] = {}
        for method, values in (self._map(own, "values") or {}).items():
            self._method(method, methods, "published: ")
            values = values if isinstance(values, list) else [values]
            if len(values) != len(cells):
                raise self._error(f"published: {method} has {len(values)} values for {len(cells)} cells")
            for (column, figure), value in zip(cells, values, strict=True):
                if value is not None:
                    found.setdefault((column, method), {})[figure] = self._value(value, f"published: {method}: ")
        return str(own.get("source", "")), found

    def _value(self, value: Any, where: str) -> Published:
        if is_number(value):
            return Published(mean=float(value)) if math.isfinite(value) else Published(text="did not converge")
        if isinstance(value, str):
            return Published(text=value)
        if isinstance(value, list) and len(value) == 2 and all(is_number(item) for item in value):
            return Published(mean=float(value[0]), spread=float(value[1]))
        bounds = _as_list(value["range"]) if isinstance(value, dict) and set(value) == {"range"} else []
        if len(bounds) == 2 and all(is_number(item) for item in bounds):
            return Published(range=(float(bounds[0]), float(bounds[1])))
        raise self._error(f"{where}{value!r} is no number, [mean, deviation], {{range: [a, b]}} or text")

    def _map(self, content: Any, key: str, required: bool = False) -> dict[Any, Any]:
        value = content.get(key)
        if value is None and not required:
            return {}
        if not isinstance(value, dict) or (required and not value):
            raise self._error(f"{key!r} must be a mapping with at least one entry")
        return value

    def _name(self, name: str, kind: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or (kind == "file" and name in RESERVED):
            raise self._error(
                f"{kind} {name!r} names folders: letters, digits, '_', '.' and '-' alone"
                f"{', and none of ' + ', '.join(RESERVED) if kind == 'file' else ''}"
            )

    def _method(self, name: Any, methods: Mapping[str, Any], where: str) -> None:
        if not isinstance(name, str) or name not in methods:
            raise self._error(f"{where}{name!r} is none of the methods{did_you_mean(str(name), methods)}")

    def _keys(self, content: Any, known: set[str], where: str) -> None:
        if not isinstance(content, dict):
            raise self._error(f"{where}{content!r} is no mapping")
        for key in content:
            if key not in known:
                raise self._error(f"{where}there is no key {key!r}{did_you_mean(str(key), sorted(known))}")

    def _error(self, message: str) -> ConfigError:
        place = self.id if "/" in self.id else ""
        return ConfigError(f"{self.file}{f', {place}' if place else ''}: {message}")


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def is_number(value: Any) -> bool:
    """Whether a value out of YAML is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
