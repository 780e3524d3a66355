"""Run folders: what lies in them under which name, and how a run gets one of its own."""

import contextlib
import itertools
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_repshape.errors import CheckpointError, ConfigError
from lightning_repshape.runs.files import read_json

CONFIG = "config.yaml"
MANIFEST = "manifest.json"
METRICS = "metrics.json"
CURVES = "metrics.csv"
PREDICTIONS = "predictions.csv"
TENSORBOARD = "tensorboard"
CLAIM = ".claimed"
_CHECKPOINTS = "checkpoints"


def given_path(text: str | Path, what: str) -> Path:
    """A path as a person writes it, with ``~`` for a home folder.

    Args:
        text: The path.
        what: The option, for the message.

    Returns:
        The path.

    Raises:
        ConfigError: If it is empty, or cannot be the name of anything.
    """
    if not str(text):
        raise ConfigError(f"{what} is empty; name a file or folder, or leave the option out")
    try:
        path = Path(text).expanduser()
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError, RuntimeError) as error:  # too long; a null byte; an unknown user's home
        reason = getattr(error, "strerror", None) or error
        shown = str(text) if len(str(text)) < 80 else f"{str(text)[:76]} ..."
        raise ConfigError(f"{what} {shown!a} is no path ({reason})") from error
    return path


def checkpoint_folder(run_dir: str | Path) -> Path:
    """``<run>/checkpoints``."""
    return Path(run_dir) / _CHECKPOINTS


def checkpoint_file(which: str, run_dir: str | Path) -> Path:
    """``<run>/checkpoints/best.ckpt`` or ``last.ckpt``, whether or not it is there."""
    return checkpoint_folder(run_dir) / f"{which}.ckpt"


def analysis_folder(run_dir: str | Path) -> Path:
    """``<run>/analysis``, for a run's figures and analyses."""
    return Path(run_dir) / "analysis"


def is_run_folder(path: str | Path) -> bool:
    """Whether a folder holds a run, that is, a run's manifest; a config alone may be anybody's."""
    return (Path(path) / MANIFEST).is_file()


def run_of_checkpoint(path: str | Path) -> Path | None:
    """The folder of the run that a checkpoint belongs to, or None where it lies in none."""
    folder = Path(path).resolve().parent
    return folder.parent if folder.name == _CHECKPOINTS and is_run_folder(folder.parent) else None


def where_started(options: Mapping[str, Any], run_dir: str | Path) -> dict[str, str]:
    """Relative folders among a data module's options that are not here, but where the run was started: their paths."""
    started = read_json(Path(run_dir) / MANIFEST).get("directory")
    found = {}
    for name in ("root", "cache_dir", "predict_dir") if started else ():
        here = Path(options.get(name) or ".").expanduser()
        there = Path(str(started)) / here
        if not here.exists() and there.exists():
            found[name] = str(there)
    return found


def claim_folder(run_dir: str | Path) -> Path:
    """Creates a folder that no run has used: the one asked for, else the same name with the next number.

    The claim is atomic: of several runs that start at once, each gets a folder of its own.

    Returns:
        ``run_dir`` where it was absent or empty, else ``run_dir-2``, ``run_dir-3``, and so on.

    Raises:
        ConfigError: If the place is a file or cannot be written.
    """
    candidates = numbered(run_dir)
    while True:
        candidate = next(candidates)
        try:
            candidate.mkdir(parents=True, exist_ok=True)
            # The mark is what counts: whoever creates it first has the folder.
            if not any(candidate.iterdir()):
                (candidate / CLAIM).touch(exist_ok=False)
                return candidate
        except FileExistsError:
            if not candidate.is_dir():
                raise ConfigError(f"run folder {candidate} is a file; choose another with --run_dir") from None
        except OSError as error:
            raise _not_writable(candidate, error) from error


def numbered(run_dir: str | Path) -> Iterator[Path]:
    """The folders that runs of one name take: ``run_dir``, ``run_dir-2``, ``run_dir-3``, and so on without end."""
    wanted = Path(run_dir)
    yield wanted
    if wanted.name in ("", ".."):
        raise ConfigError(
            f"run folder {wanted} is not empty, and has no name to add a number to; choose another with --run_dir"
        )
    for number in itertools.count(2):
        yield wanted.with_name(f"{wanted.name}-{number}")


def nearest_existing(path: Path) -> Path:
    """A path, or the first of the folders above it that is there."""
    place = path.absolute()
    return next(folder for folder in (place, *place.parents) if folder.exists())


def discard_folder(run_dir: Path, kept: Path) -> None:
    """Removes a run folder that was claimed in vain, and the folders above it that were made for it.

    Args:
        run_dir: What :func:`claim_folder` returned.
        kept: What :func:`nearest_existing` said before.
    """
    folder = run_dir.absolute()
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        while folder not in (kept, folder.parent):
            folder.rmdir()  # fails where anything else is in it
            folder = folder.parent


def _not_writable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"run folder {folder} cannot be written ({error.strerror or error}); choose another with --run_dir"
    )


def make_folder(path: str | Path) -> Path:
    """Creates a folder, if it is not there; ConfigError if it cannot be created or written."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error) from error
    return folder


def find_checkpoint(which: str, run_dir: str | Path) -> Path:
    """The path of a run's ``"best"`` or ``"last"`` checkpoint; CheckpointError if the folder has none."""
    path = checkpoint_file(which, run_dir)
    if not path.is_file():
        state = "holds no such file" if Path(run_dir).is_dir() else "does not exist"
        raise CheckpointError(
            f"there is no {which} checkpoint: {path} was looked for, but {run_dir} {state}. Name the run with "
            "--run_dir, or a checkpoint file with --ckpt_path"
        )
    return path


def folder_name(text: str) -> str:
    """A text with everything but letters, digits and ``._+-`` replaced by ``-``, fit for a folder's name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-") or "run"
