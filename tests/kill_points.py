"""Every state that a kill can leave a command's folder in, and what becomes of it when the command goes on.

A command runs once, in a fork of this process, which has imported everything already. An audit hook counts what it
does to files in its folder, and keeps a copy of the folder before each operation: that is what SIGKILL at this moment
leaves behind. Where a temporary file is about to be renamed, the copy holds the first half of it, as a kill within the
writing leaves it (PyTorch writes checkpoints in C++, where no hook looks). Copies that are equal count once.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

from lightning_repshape.cli import main
from lightning_repshape.cli import training as _  # noqa: F401  (so that forks find it imported)

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Times, and what TensorBoard's own threads write whenever they like.
_NOT_COMPARED = ("manifest.json", "tensorboard", "studies.json", ".locks", "logs")
_TIMED = (".pdf", ".npz", ".html", ".md")  # hold when they were written or how long steps took: compared by name alone
_TIMES = ("created", "files")  # in a report's JSON: when it was written, and checksums of files that say so


def run(words: Sequence[str], folder: Path, at: int | None = None, states: Path | None = None) -> int:
    """Runs a command in a fork; its exit status, -9 where it was killed.

    Args:
        words: The command.
        folder: Whose files count.
        at: Before which operation on them it is killed. Default: never.
        states: Where the folder's states are kept.
    """
    child = os.fork()
    if child == 0:
        status = 70
        try:
            log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            for name in ("PL_GLOBAL_SEED", "LIGHTNING_REPSHAPE_RUN_DIR"):
                os.environ.pop(name, None)
            if at is not None or states is not None:
                _watch(str(folder), at, states)
            status = main(list(words))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _watch(folder: str, at: int | None, states: Path | None) -> None:
    seen = [0]
    busy = threading.local()  # its own copies are no operations

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITES:
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            path = arguments[0]
        else:
            return
        if getattr(busy, "now", False) or not isinstance(path, str | os.PathLike | bytes):
            return
        place = os.path.abspath(os.fsdecode(path))
        if f"{place}/".startswith(f"{folder}/") and "tensorboard" not in place:
            seen[0] += 1
            if states is not None:
                busy.now = True
                _keep(Path(folder), states, seen[0], event, place)
                busy.now = False
            if seen[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _keep(folder: Path, states: Path, number: int, event: str, place: str) -> None:
    """Copies a folder as it is before an operation; processes of one command number theirs by time."""
    copy = states / f"{time.monotonic_ns():020}"
    copy.mkdir(parents=True)
    if folder.exists():
        with contextlib.suppress(shutil.Error):  # what another process removes in the meantime
            shutil.copytree(folder, copy / "folder", symlinks=True, ignore=lambda *_: ["tensorboard"])
    part = copy / "folder" / Path(place).relative_to(folder)
    half = event == "os.rename" and part.suffix == ".part"
    if half:
        os.truncate(part, part.stat().st_size // 2)
    (copy / "number").write_text(str(number))
    name = place.removeprefix(str(folder)) or "/"
    (copy / "operation").write_text(f"{event} {name}{' (half-written)' if half else ''}")


def kept(words: Sequence[str], folder: Path) -> list[Path]:
    """Runs a command to its end; the different states in which a kill would have left its folder, in order."""
    states = folder.with_name(f"{folder.name}-states")
    shutil.rmtree(states, ignore_errors=True)
    status = run(words, folder, states=states)
    if status:
        raise RuntimeError(f"{' '.join(words)} ends with {status}: {folder.with_suffix('.log').read_text()[-2000:]}")
    found: dict[str, Path] = {}
    for state in sorted(states.iterdir()):
        found.setdefault(_digest(state / "folder"), state)
    return list(found.values())


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def operation(state: Path) -> str:
    """What the command was about to do in a state."""
    return (state / "operation").read_text()


def sweep(
    words: Sequence[str],
    folder: Path,
    go_on: Callable[[Path], Sequence[str] | None],
    chosen: Callable[[list[Path]], Sequence[Path]] = lambda states: states,
    before: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[int, list[str]]:
    """Goes on from the states in which kills leave a command, and compares with the one that nobody killed.

    Args:
        words: The command.
        folder: What it writes.
        go_on: The words that go on with a killed command; None: there is nothing to go on with.
        chosen: The states to try, out of all that differ.
        before: Makes the folder as it is before the command.
        report: Receives a line a kill.

    Returns:
        How many kills were tried, and what differed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    before()
    states = kept(words, folder)
    whole = folder.with_name(f"{folder.name}-whole")
    shutil.rmtree(whole, ignore_errors=True)
    folder.rename(whole)
    tried, faults = 0, []
    for state in chosen(states):
        shutil.rmtree(folder, ignore_errors=True)
        if (state / "folder").exists():
            shutil.copytree(state / "folder", folder, symlinks=True)
        further = go_on(folder)
        if further is None:
            continue
        tried += 1
        status = run(further, folder)
        differing = differences(whole, folder) if status == 0 else [f"going on ended with {status}"]
        report(f"{operation(state)}: {', '.join(differing) or 'exact'}")
        if differing:
            faults.append(f"{operation(state)}: {', '.join(differing)}")
    return tried, faults


@contextlib.contextmanager
def trainings_in_forks() -> Iterator[None]:
    """A study's trainings are forks of its process, too, whose operations count as well."""

    def fit(words: list[str], *others: Any) -> int:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = main(["fit", *words])
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with mock.patch("lightning_repshape.studies.executors._fit", fit):
        yield


def go_on_with_run(folder: Path) -> list[str] | None:
    """How a killed training goes on, if there is a checkpoint to go on from."""
    if not (folder / "checkpoints" / "last.ckpt").is_file():
        return None
    return ["fit", "--run_dir", str(folder), "--ckpt_path", "last"]


def differences(whole: Path, parts: Path) -> list[str]:
    """The files of two folders that differ, and how."""
    names = [_names(folder) for folder in (whole, parts)]
    found = [f"lacks {name}" for name in sorted(names[0] - names[1])]
    found += [f"has {name}" for name in sorted(names[1] - names[0])]
    for name in sorted(names[0] & names[1]):
        one, other = whole / name, parts / name
        if one.suffix in _TIMED:
            continue
        if one.suffix == ".ckpt":
            contents = [_read_again(torch.load(path, weights_only=True)) for path in (one, other)]
            found += [f"{name}: {place}" for place in _unequal(*contents)]
        elif one.read_bytes() != other.read_bytes() and (how := _how(one, other)) is not None:
            found.append(f"{name} differs{how}")
    return found


def _read_again(content: dict[str, Any]) -> dict[str, Any]:
    """What is read of a checkpoint: weights, and what training goes on from where that is kept apart."""
    return {key: content[key] for key in ("state_dict", "go_on_from")} if "go_on_from" in content else content


def _names(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not any(part in _NOT_COMPARED for part in Path(name).parts)}


def _how(one: Path, other: Path) -> str | None:
    """How two files differ; None: by times alone."""
    if one.suffix == ".json":
        before, after = (json.loads(path.read_text()) for path in (one, other))
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        if one.name == "report.json":
            keys = sorted({*keys} - {*_TIMES})
            return f" in {keys[:5]}" if keys else None
        return f" in {keys[:5]}" if keys else " in order"
    if one.suffix == ".csv":
        return f" ({len(one.read_text().splitlines())} lines, {len(other.read_text().splitlines())})"
    return ""


def _unequal(one: Any, other: Any, place: str = "") -> list[str]:
    """The places at which two checkpoints differ."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [place]
    if type(one) is not type(other):
        return [f"{place} ({type(one).__name__}, {type(other).__name__})"]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{place} keys {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [found for key in one for found in _unequal(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{place} length"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for number, (a, b) in pairs for found in _unequal(a, b, f"{place}/{number}")]
    return [] if one == other or (one != one and other != other) else [f"{place} ({one}, {other})"]
