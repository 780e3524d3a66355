"""Run folders: what lies in them under which name, and how a run gets one of its own."""

import re
import tempfile
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


def claim_folder(run_dir: str | Path) -> Path:
    """Creates a folder that no run has used: the one asked for, else the same name with the next number.

    The claim is atomic: of several runs that start at once, each gets a folder of its own.

    Returns:
        ``run_dir`` where it was absent or empty, else ``run_dir-2``, ``run_dir-3``, and so on.

    Raises:
        ConfigError: If the place is a file or cannot be written.
    """
    wanted = Path(run_dir)
    number, candidate = 1, wanted
    while True:
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
        number += 1
        candidate = wanted.with_name(f"{wanted.name}-{number}")


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
