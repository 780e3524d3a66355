"""The process that a command runs in: its rank, what it shares with the other ranks, and what it keeps quiet about."""

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

from lightning_repshape.errors import ConfigError

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID", "JSM_NAMESPACE_RANK", "NODE_RANK", "GROUP_RANK")
HANGUPS = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # Windows has none
_RUN_DIR_OF_RANK_ZERO = "LIGHTNING_REPSHAPE_RUN_DIR"

joining: ContextVar[Callable[[Any, Any, Any], None] | None] = ContextVar("joining", default=None)
"""What a training that shares its process with others calls with trainer, module and data before it begins."""


def rank() -> int:
    """This process's rank, as far as the environment tells before a trainer exists."""
    from lightning.pytorch.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0)


def announce_run_dir(path: Path) -> None:
    """Tells the ranks that are started from here which run folder rank 0 has claimed."""
    os.environ[_RUN_DIR_OF_RANK_ZERO] = str(path.resolve())


def announced_run_dir() -> Path | None:
    """The run folder that rank 0 has claimed, where this rank was started from it."""
    announced = os.environ.get(_RUN_DIR_OF_RANK_ZERO)
    return Path(announced) if announced else None


def check_environment(words: Sequence[str]) -> None:
    """Looks whether a command can run here at all.

    Args:
        words: The command's words.

    Raises:
        ConfigError: If it cannot.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise ConfigError("the working directory does not exist any more; change to one that does") from error
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"{word!a} holds bytes that are no {sys.getfilesystemencoding()}; rename the file or folder, or set "
                "PYTHONUTF8=1 where they are UTF-8"
            ) from error
    for name in _RANKS:  # Lightning reads them when it is imported
        value = os.environ.get(name, "0")
        if not value.isdecimal():
            raise ConfigError(f"the environment variable {name} is {value!r}, which is no rank; unset it")


def check_figures() -> None:
    """Looks whether matplotlib takes the environment's MPLBACKEND, before a training ends at its first figure.

    Raises:
        ConfigError: If it does not.
    """
    if not os.environ.get("MPLBACKEND"):
        return
    try:
        import matplotlib  # noqa: F401
    except ValueError as error:
        raise ConfigError(
            f"the environment variable MPLBACKEND is {os.environ['MPLBACKEND']!r}, which matplotlib does not know; "
            "unset it: figures are written to files"
        ) from error


class Hangup(SystemExit):
    """The terminal was closed while no trainer was at work."""


@contextmanager
def hangup_as_termination() -> Iterator[list[int]]:
    """Lets a closed terminal end a command as SIGTERM does; where it is ignored, as under nohup, nothing ends.

    Yields:
        The signals that have arrived.
    """
    arrived: list[int] = []
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a loader's worker, which ends with the process that it was forked from
            return
        arrived.append(number)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            raise Hangup(128 + number)
        os.kill(owner, signal.SIGTERM)  # for which a trainer ends after the batch, on all ranks

    default = [number for number in HANGUPS if signal.getsignal(number) is signal.SIG_DFL]
    replaced = default if threading.current_thread() is threading.main_thread() else []
    for number in replaced:
        signal.signal(number, end)
    try:
        yield arrived
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def job() -> str | None:
    """The job of this process, where whoever started it calls the same command again: SLURM, torchrun."""
    known = os.environ
    if "SLURM_JOB_ID" in known and known.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        task = [known.get("SLURM_ARRAY_JOB_ID"), known.get("SLURM_ARRAY_TASK_ID")]
        return f"slurm-{'_'.join(filter(None, task)) if all(task) else known['SLURM_JOB_ID']}"
    if "TORCHELASTIC_RUN_ID" in known:
        name = known["TORCHELASTIC_RUN_ID"]
        return f"torchrun-{name if name != 'none' else os.getppid()}"
    return None


def is_restarted() -> bool:
    """Whether the job says that it was started before."""
    return any(os.environ.get(name, "0") != "0" for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))


def quieten() -> None:
    """Silences messages that say nothing about the run at hand; to be called before Lightning is imported."""
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
        "lightning.pytorch.accelerators.cuda",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r".*isinstance\(treespec, LeafSpec\).*",
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*ReduceLROnPlateau conditioned on metric .* Skipping learning rate update.*",
        ".*loading a checkpoint outside the 'fit' stage.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    # LightningCLI calls names that jsonargparse renamed; nothing a user could do about it.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.pytorch\.cli")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
