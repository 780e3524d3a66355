"""The check that every number of a report has its run."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_repshape.errors import ConfigError
from lightning_repshape.runs import METRICS, read_json
from lightning_repshape.runs.files import from_csv
from lightning_repshape.studies.jobs import STUDY, Run, read_run
from lightning_repshape.studies.records import FORMAT, KEY, MANIFEST, TABLE, as_text, checksum, derived, seeds_of
from lightning_repshape.studies.rows import Figure
from lightning_repshape.studies.values import cost, figure_of, statistics


def check_report(folder: Path, results: Path) -> list[str]:
    """Verifies that every number of a report comes from a run folder that is there; returns the problems, a line each.

    Each run must be finished, be of the row and seed that the report says, and have the same ``metrics.json`` and the
    same value as when the report was written; whatever ``report.csv`` computes from the values is computed anew; and
    the report's files must be as they were written. Raises a ConfigError if the folder holds no report of this version.
    """
    manifest = read_json(folder / MANIFEST)
    lists = [manifest.get(key) for key in ("numbers", "costs")]
    files = manifest.get("files")
    if (
        manifest.get("format") != FORMAT
        or not all(isinstance(own, list) for own in lists)
        or not isinstance(files, dict)
    ):
        there = f"{MANIFEST} has format {manifest.get('format')!r}" if manifest else f"{MANIFEST} is missing"
        raise ConfigError(f"{folder} holds no report that this version can check ({there}, not {FORMAT})")
    return _Check(folder, results).problems_of(manifest["numbers"], manifest["costs"], files)


class _Check:
    """Collects problems, each once."""

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder, self.results = folder, results
        self.problems: dict[str, None] = {}
        self._runs: dict[str, Run] = {}
        self._unsure: set[tuple[str, ...]] = set()

    def problems_of(self, numbers: Sequence[Any], costs: Sequence[Any], files: Mapping[str, Any]) -> list[str]:
        values: dict[tuple[str, ...], dict[str, dict[int, float]]] = {}
        runs: dict[tuple[str, ...], dict[str, list[Run]]] = {}
        ratios = set()
        for number in numbers:
            try:
                key = tuple(str(number[name]) for name in KEY)
                self._number(number)
                values.setdefault(key, {}).setdefault(number["part"], {})[int(number["seed"])] = float(number["value"])
                if number["ratio"]:
                    ratios.add(key)
            except (KeyError, TypeError, ValueError):
                self._add(f"{MANIFEST}: {json.dumps(number)[:200]} is no number of a run")
        for entry in costs:
            try:
                key = tuple(str(entry[name]) for name in KEY[:3])
                run = self._run(entry)
                if run is None:
                    self._unsure.add(key)  # that its run is not there is problem enough
                else:
                    runs.setdefault(key, {}).setdefault(entry["part"], []).append(run)
            except (KeyError, TypeError):
                self._add(f"{MANIFEST}: {json.dumps(entry)[:200]} is no training")
        self._table(values, ratios, runs)
        for name, written in files.items():
            file = self.folder / name
            if not file.is_file():
                self._add(f"{name} is missing from {self.folder}")
            elif checksum(file) != written:
                self._add(f"{name} was changed after the report was written")
        return list(self.problems)

    def _add(self, problem: str) -> None:
        self.problems[problem] = None

    def _run(self, entry: Mapping[str, Any]) -> Run | None:
        """The run that an entry names; None, and a problem, where it is not as it was."""
        name = str(entry["run"])
        if name not in self._runs:
            self._runs[name] = read_run(self.results / name)
        run = self._runs[name]
        if run.state != "finished":
            self._add(f"run {name} is {run.state}{f' ({run.error})' if run.error else ''}")
            return None
        told = run.manifest.get(STUDY)
        if not isinstance(told, dict) or told.get("row") != entry["row"]:
            self._add(f"run {name} is none of {entry['row']}")
            return None
        file = run.folder / METRICS
        if (checksum(file) if file.is_file() else None) != entry["checksum"]:
            self._add(f"run {name}: {METRICS} was changed after the report was written")
        return run

    def _number(self, number: Mapping[str, Any]) -> None:
        run = self._run(number)
        if run is None:
            return
        where = f"{number['study']}/{number['column']}/{number['method']}, {number['figure']}, seed {number['seed']}"
        if run.manifest[STUDY].get("seed") != number["seed"]:
            self._add(f"{where}: run {number['run']} has seed {run.manifest[STUDY].get('seed')}")
        figure = Figure(str(number["figure"]), str(number["metric"]), float(number["scale"]))
        value = figure_of(run, figure)
        if value is None or not _same(value, float(number["value"])):
            self._add(f"{where}: the report has {number['value']!r}, but run {number['run']} has {value!r}")

    def _table(
        self,
        values: Mapping[tuple[str, ...], Mapping[str, Mapping[int, float]]],
        ratios: set[tuple[str, ...]],
        runs: Mapping[tuple[str, ...], Mapping[str, Sequence[Run]]],
    ) -> None:
        try:
            with (self.folder / TABLE).open(encoding="utf-8", newline="") as file:
                records = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            self._add(f"{TABLE} cannot be read: {error}")
            return
        seen = set()
        for record in records:
            key = tuple(from_csv(str(record.get(name))) for name in KEY)
            seen.add(key)
            parts, of_cost = values.get(key, {}), runs.get(key[:3], {})
            own = parts.get("own", {})
            found = statistics(own, parts.get("over", {}) if key in ratios else None, parts.get("baseline"))
            expected = derived(
                found, _read(record.get("published")), cost(of_cost.get("own", []), of_cost.get("baseline", []))
            )
            for name, value in expected.items():
                given = record.get(name) or ""
                if name.endswith("_ratio") and key[:3] in self._unsure:
                    continue
                if not _agrees(given, value):
                    shown = as_text(value) or "nothing"
                    self._add(f"{TABLE}: {'/'.join(key)}: {name} is {given or 'empty'}, but the runs give {shown}")
            seeds = seeds_of(found, own)
            if (record.get("seeds") or "") != seeds:
                self._add(f"{TABLE}: {'/'.join(key)}: seeds are {record.get('seeds')!r}, but the runs are {seeds!r}")
        for key in values:
            if key not in seen:
                self._add(f"{TABLE}: {'/'.join(key)} is missing")


def _read(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _agrees(text: str, expected: float | None) -> bool:
    if expected is None:
        return text == ""
    value = _read(text)
    return value is not None and _same(value, float(expected))


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
