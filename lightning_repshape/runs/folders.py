"""Run folders: what lies in them under which name, and how a run gets one of its own."""

import itertools
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lightning_repshape.errors import CheckpointError, ConfigError

CONFIG = "config.yaml"
MANIFEST = "manifest.json"
METRICS = "metrics.json"
CURVES = "metrics.csv"
PREDICTIONS = "predictions.csv"
TENSORBOARD = "tensorboard"
CLAIM = ".claimed"
_CHECKPOINTS = "checkpoints"


def checkpoint_folder(run_dir: str | Path) -> Path:
    """The folder of a run's checkpoints.

    Args:
        run_dir: The run folder.

    Returns:
        ``<run>/checkpoints``.
    """
    return Path(run_dir) / _CHECKPOINTS


def checkpoint_file(which: str, run_dir: str | Path) -> Path:
    """Where a run's checkpoint lies, or would lie.

    Args:
        which: ``"best"`` or ``"last"``.
        run_dir: The run folder.

    Returns:
        ``<run>/checkpoints/WHICH.ckpt``.
    """
    return checkpoint_folder(run_dir) / f"{which}.ckpt"


def analysis_folder(run_dir: str | Path) -> Path:
    """The folder of a run's figures and analyses.

    Args:
        run_dir: The run folder.

    Returns:
        ``<run>/analysis``.
    """
    return Path(run_dir) / "analysis"


def is_run_folder(path: str | Path) -> bool:
    """Whether a folder holds a run.

    Args:
        path: Any path.

    Returns:
        True where a run's manifest lies in it. (A config alone may be anybody's.)
    """
    return (Path(path) / MANIFEST).is_file()


def run_of_checkpoint(path: str | Path) -> Path | None:
    """The run that a checkpoint belongs to.

    Args:
        path: The checkpoint.

    Returns:
        The run folder, or None where the checkpoint lies in none.
    """
    folder = Path(path).resolve().parent
    return folder.parent if folder.name == _CHECKPOINTS and is_run_folder(folder.parent) else None


def claim_folder(run_dir: str | Path) -> Path:
    """Creates a folder that no run has used: the one asked for, else the same name with the next number.

    The claim is atomic: of several runs that start at once, each gets a folder of its own.

    Args:
        run_dir: The folder asked for, such as ``runs/quickstart``.

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
    for number in itertools.count(2):
        yield wanted.with_name(f"{wanted.name}-{number}")


def _not_writable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"run folder {folder} cannot be written ({error.strerror or error}); choose another with --run_dir"
    )


def make_folder(path: str | Path) -> Path:
    """Creates a folder that can be written to.

    Args:
        path: The folder.

    Returns:
        The same path.

    Raises:
        ConfigError: If it cannot be created or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error) from error
    return folder


def find_checkpoint(which: str, run_dir: str | Path) -> Path:
    """Finds a run's best or last checkpoint.

    Args:
        which: ``"best"`` or ``"last"``.
        run_dir: The run folder.

    Returns:
        The checkpoint's path.

    Raises:
        CheckpointError: If the folder has no such checkpoint.
    """
    path = checkpoint_file(which, run_dir)
    if not path.is_file():
        state = "holds no such file" if Path(run_dir).is_dir() else "does not exist"
        raise CheckpointError(
            f"there is no {which} checkpoint: {path} was looked for, but {run_dir} {state}. Name the run with "
            "--run_dir, or a checkpoint file with --ckpt_path"
        )
    return path


def folder_name(text: str) -> str:
    """Makes a text fit for a folder's name.

    Args:
        text: Any text.

    Returns:
        The text with everything but letters, digits and ``._+-`` replaced by ``-``.
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-") or "run"
