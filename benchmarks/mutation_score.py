"""Mutants of ``functional/``: which of them the tests notice.

    pip install cosmic-ray
    python benchmarks/mutation_score.py --sample 40 --seed 0            40 mutants a file; goes on where it was stopped
    python benchmarks/mutation_score.py --sample 40 --seed 0 --again    survivors once more, after a test was added

cosmic-ray's operators make the mutants. One process imports and collects the tests; every mutant is a forked child of
it, which grafts the mutated code onto the imported module and runs the tests that enter the mutated function, the
quickest first and as many as fit into ``--budget`` seconds, until one fails. A test that starts processes, where no
mutant is, or that fails with unmutated code grafted in the same way, is left out.

No mutants are made of annotations, f-strings (messages), ``raise`` statements, ``__all__`` and the table of names in
``functional/__init__.py``; of ``==`` to ``is`` (the same for small numbers); nor what does not compile. A mutant that
takes more than three times its tests' processor time and five seconds has timed out, which counts as noticed.
"""

import argparse
import ast
import difflib
import functools
import gc
import hashlib
import importlib
import itertools
import json
import math
import os
import random
import resource
import signal
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
from _pytest.runner import runtestprotocol
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lightning_repshape" / "functional"
TESTS = ["tests/functional", "tests/metrics", "tests/networks/test_losses.py", "tests/modules/test_class_vectors.py"]
KEPT = {"__dict__", "__weakref__", "_abc_impl", "_backward_cls", "_autograd_function_id"}  # of a class that is grafted


class Mutant(NamedTuple):
    """One change of one file."""

    file: str
    operator: str
    occurrence: int
    line: int


@functools.cache
def source_of(file: str) -> str:
    """A file's text."""
    return (ROOT / file).read_text(encoding="utf-8")


@functools.cache
def tree_of(file: str) -> tuple[ast.Module, str]:
    """A file's syntax tree, and the same in words."""
    tree = ast.parse(source_of(file))
    return tree, ast.dump(tree)


def left_out(file: str) -> Iterator[Any]:
    """Parts of a file that are not mutated."""
    for node in ast.walk(tree_of(file)[0]):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns:
            yield node.returns
        elif isinstance(node, ast.Raise | ast.JoinedStr):
            yield node
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("__all__", "_HOME"):
            yield node


def mutants(file: str) -> Iterator[Mutant]:
    """All mutants of a file, but for those that the rules leave out."""
    skipped = [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in left_out(file)]
    nodes = list(ast_nodes(get_ast(source_of(file))))
    for name in operator_names():
        operator = get_operator(name)
        if not operator.arguments() and not name.endswith(("_Eq_Is", "_NotEq_IsNot")):
            positions = (begin for node in nodes for begin, _ in operator().mutation_positions(node))
            for occurrence, begin in enumerate(positions):
                if not any(first <= begin < last for first, last in skipped):
                    yield Mutant(file, name, occurrence, begin[0])


def mutated(mutant: Mutant) -> str | None:
    """The mutant's source, or None where it does not compile or says the same."""
    text = mutate_code(source_of(mutant.file), get_operator(mutant.operator)(), mutant.occurrence)
    try:
        return text if text and ast.dump(ast.parse(text)) != tree_of(mutant.file)[1] else None
    except SyntaxError:
        return None


def sample(count: int, seed: int, only: list[str]) -> Iterator[tuple[Mutant, str]]:
    """``count`` mutants of each file, drawn by seed and file name: first one of every file, then the second of each."""
    files = [path.relative_to(ROOT).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]
    left = {file: list(mutants(file)) for file in files if not only or any(part in file for part in only)}
    for file, every in left.items():
        random.Random(f"{seed} {file}").shuffle(every)
    seen = {None}
    for every in [every for _ in range(count) for every in left.values()]:
        text = None
        while text in seen and every:
            mutant = every.pop()
            text = mutated(mutant)
        if text not in seen:
            seen.add(text)
            yield mutant, text


def graft(old: Any, new: Any) -> bool:
    """Gives an object that others hold already its mutated code; False where that cannot be."""
    if old is new:
        return True
    if isinstance(old, types.FunctionType) and isinstance(new, types.FunctionType):
        if old.__code__.co_freevars != new.__code__.co_freevars:
            return False
        for was, now in zip(old.__closure__ or (), new.__closure__ or (), strict=True):
            if not isinstance(now.cell_contents, type) and not graft(was.cell_contents, now.cell_contents):
                was.cell_contents = now.cell_contents
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
        return True
    if isinstance(old, type) and isinstance(new, type) and old.__module__ == new.__module__:
        for name, value in vars(new).items():
            if name not in KEPT and not graft(vars(old).get(name), value):
                setattr(old, name, value)
        return True
    for inner in ("__func__", "fget", "func"):  # static and class methods, properties, cached properties
        if type(old) is type(new) and hasattr(old, inner):
            return graft(getattr(old, inner), getattr(new, inner))
    return False


def install(file: str, text: str) -> None:
    """Puts the mutated source in the place of an imported module, in all modules that took names from it."""
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    module, fresh = importlib.import_module(name), types.ModuleType(name)
    fresh.__dict__.update(__file__=str(ROOT / file), __package__=module.__package__)
    exec(compile(text, str(ROOT / file), "exec"), fresh.__dict__)
    ours = [m for m in list(sys.modules.values()) if str(getattr(m, "__file__", "")).startswith(str(ROOT))]
    for key, new in list(vars(fresh).items()):
        old = vars(module).get(key)
        if not key.startswith("__") and not graft(old, new):
            for other in ours:
                if other is module or (old is not None and vars(other).get(key) is old):
                    setattr(other, key, new)


def scope(file: str, line: int) -> range:
    """The lines of the innermost function around a line, else those of the file."""
    best = range(1, sys.maxsize)
    for node in ast.walk(tree_of(file)[0]):
        if isinstance(node, ast.FunctionDef):
            lines = range(min([node.lineno, *(d.lineno for d in node.decorator_list)]), (node.end_lineno or 0) + 1)
            best = lines if line in lines and len(lines) < len(best) else best
    return best


class Runs:
    """A pytest plugin: in place of the tests' one run, a run for every mutant."""

    def __init__(self, drawn: Iterator[tuple[Mutant, str]], given: argparse.Namespace) -> None:
        self.drawn, self.given, self.keys = drawn, given, []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Called by pytest when the tests are collected."""
        gc.freeze()
        self.items = {item.nodeid: item for item in session.items if "gloo" not in getattr(item, "fixturenames", ())}
        read, write = os.pipe()
        if not os.fork():
            try:
                with os.fdopen(write, "w") as pipe:
                    json.dump(dict(self._record()), pipe)
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            self.entered = json.load(pipe)
        os.wait()
        print(f"{len(self.entered)} of {len(session.items)} tests", file=sys.__stderr__, flush=True)
        done = outcomes(self.given.results)
        for mutant, text in self.drawn:
            key = hashlib.sha256(f"{mutant.file} {text}".encode()).hexdigest()[:12]
            self.keys.append(key)
            if key in done and not (self.given.again and done[key]["outcome"] == "survived"):
                continue
            began, tests = time.monotonic(), self.tests_of(mutant)
            outcome = self.outcome(mutant.file, text, tests)
            changes = difflib.unified_diff(source_of(mutant.file).split("\n"), text.split("\n"), lineterm="", n=0)
            line = {"key": key, **mutant._asdict(), "outcome": outcome, "change": list(changes)[3:]}
            line |= {"tests": len(tests), "seconds": round(time.monotonic() - began, 1)}
            with self.given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return True

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that enter the function of a mutant, the quickest first, as many as there is time for."""
        lines = scope(mutant.file, mutant.line)
        found = [t for t, (_, seen) in self.entered.items() if any(n in lines for n in seen.get(mutant.file, ()))]
        found.sort(key=lambda test: self.entered[test][0])
        times = itertools.accumulate(self.entered[test][0] for test in found)
        return [test for test, spent in zip(found, times, strict=True) if spent <= self.given.budget]

    def outcome(self, file: str, text: str, tests: list[str]) -> str:
        """Killed, survived or timed out."""
        child = os.fork()
        if not child:
            passed = False
            try:
                self._quieten()
                limit = math.ceil(3 * sum(self.entered[test][0] for test in tests)) + 5
                used = math.ceil(time.process_time())
                resource.setrlimit(resource.RLIMIT_CPU, (used + limit, used + limit))
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20 * limit)
                install(file, text)
                passed = all(itertools.starmap(self._passes, itertools.pairwise([*tests, None])))
            finally:
                os._exit(0 if passed else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM):
            return "timed out"
        return "killed" if status else "survived"

    def _passes(self, test: str, following: str | None) -> bool:
        after = self.items[following] if following else None
        return not any(report.failed for report in runtestprotocol(self.items[test], log=False, nextitem=after))

    def _quieten(self) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)

    def _record(self) -> Iterator[tuple[str, tuple[float, dict[str, list[int]]]]]:
        """Which functions every test enters, and its processor time; tests that fail or are slow are left out."""
        seen: set[tuple[str, int]] = set()

        def enters(frame: types.FrameType, event: str, argument: object) -> None:
            if frame.f_code.co_filename.startswith(str(PACKAGE)):
                seen.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

        self._quieten()
        for path in PACKAGE.rglob("*.py"):
            install(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for test, following in itertools.pairwise([*self.items, None]):
            seen.clear()
            began = time.process_time()
            sys.settrace(enters)
            threading.settrace(enters)
            passed = self._passes(test, following)
            sys.settrace(None)
            spent = time.process_time() - began
            if passed and spent <= self.given.slowest:
                files: dict[str, list[int]] = {}
                for name, first in seen:
                    files.setdefault(Path(name).relative_to(ROOT).as_posix(), []).append(first)
                yield test, (spent, files)


def outcomes(results: Path) -> dict[str, dict[str, Any]]:
    """What was found before; a later line of a mutant replaces an earlier one."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return {line["key"]: line for line in map(json.loads, lines)}


def table(found: list[dict[str, Any]]) -> str:
    """Outcomes by file."""
    kinds = ("killed", "survived", "timed out")
    rows = ["| file | mutants | killed | survived | timed out | score |", "|---|---|---|---|---|---|"]
    for file in [*sorted({line["file"] for line in found}), "all"]:
        counts = Counter(line["outcome"] for line in found if file in (line["file"], "all"))
        share = 1 - counts["survived"] / max(1, counts.total())
        name = file.removeprefix("lightning_repshape/functional/")
        rows.append(f"| {name} | {counts.total()} | " + " | ".join(str(counts[k]) for k in kinds) + f" | {share:.1%} |")
    return "\n".join(rows)


def main() -> int:
    """Runs the mutants and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=40, help="mutants a file")
    parser.add_argument("--seed", type=int, default=0, help="decides which")
    parser.add_argument("--only", nargs="*", default=[], help="parts of file names")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="files and folders of tests")
    parser.add_argument("--slowest", type=float, default=3.0, help="tests above so many seconds are left out")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of tests a mutant")
    parser.add_argument("--results", type=Path, default=Path("mutants.jsonl"), help="a line a mutant")
    parser.add_argument("--again", action="store_true", help="try survivors once more")
    given = parser.parse_args()
    given.results = given.results.resolve()
    os.chdir(ROOT)
    runs = Runs(sample(given.sample, given.seed, given.only), given)
    status = pytest.main(["-q", "-s", "-p", "no:cacheprovider", *given.tests], plugins=[runs])
    found = outcomes(given.results)
    print(table([found[key] for key in runs.keys if key in found]))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
