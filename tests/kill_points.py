"""Kills a command of the command line at its file operations, lets it go on, and compares what it leaves behind.

Commands run in forks of this process, which has imported everything already: a kill costs no imports. An audit hook
counts what they do to files in their folder; before the n-th operation the process gets SIGKILL, as from the system.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

from lightning_repshape.cli import main
from lightning_repshape.cli import training as _  # noqa: F401  (so that forks find it imported)

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Times, and what TensorBoard's own threads write whenever they like.
_NOT_COMPARED = ("manifest.json", "tensorboard", "studies.json")
_TIMED = (".pdf", ".npz", ".html")  # hold the time at which they were written: only their names are compared


def run(words: Sequence[str], folder: Path, at: int | None = None, notes: Path | None = None) -> int:
    """Runs a command in a fork; its exit status, -9 where it was killed.

    Args:
        words: The command.
        folder: Whose files count.
        at: Before which operation on them it is killed. Default: never.
        notes: Where the operations are listed.
    """
    child = os.fork()
    if child == 0:
        status = 70
        try:
            log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            _watch(str(folder), at, notes)
            status = main(list(words))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _watch(folder: str, at: int | None, notes: Path | None) -> None:
    seen = [0]
    listed = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if notes is not None else None

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITES:
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | os.PathLike | bytes):
            return
        place = os.path.abspath(os.fsdecode(path))
        if not place.startswith(folder) or "tensorboard" in place or place.endswith(".log"):
            return
        seen[0] += 1
        if listed is not None:
            os.write(listed, f"{event} {place.removeprefix(folder)}\n".encode())
        if seen[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def points(words: Sequence[str], folder: Path) -> list[str]:
    """Runs a command to its end and tells the operations at which it can be killed."""
    notes = folder.with_suffix(".ops")
    status = run(words, folder, notes=notes)
    if status:
        raise RuntimeError(f"{' '.join(words)} ends with {status}: {folder.with_suffix('.log').read_text()[-2000:]}")
    return notes.read_text().splitlines()


def sweep(
    words: Sequence[str],
    folder: Path,
    go_on: Callable[[Path], Sequence[str] | None],
    chosen: Callable[[list[str]], Sequence[int]] = lambda found: range(1, len(found) + 1),
    before: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[int, list[str]]:
    """Kills a command at each of some operations, goes on, and compares with the one that nobody killed.

    Args:
        words: The command.
        folder: What it writes.
        go_on: The words that go on with a killed command; None: begin anew in an empty folder.
        chosen: The operations, counted from 1, out of all.
        before: Makes the folder as it is before the command.
        report: Receives a line a kill.

    Returns:
        How many kills were tried, and what differed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    before()
    found = points(words, folder)
    whole = folder.with_name(f"{folder.name}-whole")
    shutil.rmtree(whole, ignore_errors=True)
    folder.rename(whole)
    numbers, faults = list(chosen(found)), []
    for number in numbers:
        shutil.rmtree(folder, ignore_errors=True)
        before()
        status = run(words, folder, number)
        if status not in (-signal.SIGKILL, 0):
            faults.append(f"{number} {found[number - 1]}: ended with {status} instead of being killed")
            continue
        further = go_on(folder)
        if further is None:
            shutil.rmtree(folder, ignore_errors=True)
            before()
        status = run(words if further is None else further, folder)
        differing = differences(whole, folder) if status == 0 else [f"going on ended with {status}"]
        report(f"{number}/{len(found)} {found[number - 1]}: {', '.join(differing) or 'exact'}")
        if differing:
            faults.append(f"{number} {found[number - 1]}: {', '.join(differing)}")
    return len(numbers), faults


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
            contents = [torch.load(path, weights_only=True) for path in (one, other)]
            found += [f"{name}: {place}" for place in _unequal(*contents)]
        elif one.read_bytes() != other.read_bytes():
            found.append(f"{name} differs{_how(one, other)}")
    return found


def _names(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not any(part in _NOT_COMPARED for part in Path(name).parts)}


def _how(one: Path, other: Path) -> str:
    if one.suffix == ".json":
        before, after = (json.loads(path.read_text()) for path in (one, other))
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
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
