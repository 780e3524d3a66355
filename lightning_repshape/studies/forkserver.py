"""A process that has imported everything once and is forked for every training, so that none pays for imports. Linux.

:class:`Forkserver` is what ``study run`` has of it; the module, run as a script, is the process itself. A training
stays a process of its own, with its own session, memory and locks, and can outlive both.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

_PRELOADED = (
    "lightning_repshape.cli.training",
    "lightning_repshape.plots.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "fontTools.subset",
    "torch.utils.tensorboard",
)
_LONGEST = 2**17  # bytes of a request
_MOST_FILES = 250  # with it; the kernel takes 253


def can_fork() -> bool:
    """Whether this system has what the server needs."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # an old kernel, or a sandbox
        return False
    return True


class Forkserver:
    """The server, seen from the process that hands it trainings; threads may share it.

    It imports in the background; trainings that are started meanwhile wait. ``environment`` is what the server's has
    besides this process's own, ``preloaded`` what it imports.
    """

    def __init__(self, environment: Mapping[str, str], preloaded: Sequence[str] = _PRELOADED) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), *preloaded],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **environment},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def start(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: str | None,
        output: int,
        *claims: int,
        module: str = "lightning_repshape.cli",
    ) -> "ForkedProcess | None":
        """Starts the command with these words; None where the server is not there any more.

        Args:
            words: The command's.
            environment: Variables besides the server's.
            folder: The working directory; None: the server's.
            output: The descriptor of a file that takes what is printed.
            *claims: Descriptors that the process keeps open.
            module: What is run.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = {"words": [*words], "environment": {**environment}, "folder": folder, "module": module}
        request = json.dumps(asked).encode()
        with theirs:
            try:
                if len(request) > _LONGEST:
                    raise OSError
                socket.send_fds(self._control, [request], [output, theirs.fileno(), *claims])
            except OSError:
                ours.close()
                return None
        return ForkedProcess(ours)

    def close(self) -> None:
        """Ends the server; trainings that it started go on."""
        self._control.close()
        self._process.wait()


class ForkedProcess:
    """A training that the server has started: what :class:`subprocess.Popen` tells of a process, as far as needed."""

    def __init__(self, answers: socket.socket) -> None:
        self.pid: int | None = None  #: None until it has begun
        self.returncode: int | None = None
        self._answers = answers

    def poll(self) -> int | None:
        """The status, negative for a signal; None while it runs or waits for the server."""
        while self.returncode is None:
            try:
                answer = self._answers.recv(64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                answer = b""
            if self.pid is None and answer:
                self.pid = int(answer)
                continue
            if not answer:  # the server was killed
                self.end(signal.SIGKILL)
            self.returncode = int(answer or -signal.SIGKILL)
            self._answers.close()
        return self.returncode

    def end(self, number: int) -> None:
        """Sends a signal to the training and what it has started; one that has not begun never will."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                try:
                    os.killpg(self.pid, number)
                except ProcessLookupError:  # just forked, and in no group of its own yet
                    os.kill(self.pid, number)
        elif self.returncode is None:
            self._answers.close()
            self.returncode = -number


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Forks until the other side is gone: None; in a forked process, what it was asked for."""
    trainings = selectors.DefaultSelector()
    trainings.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in trainings.select():
            if key.fileobj is not control:  # a training has ended
                pid, answers = key.data
                trainings.unregister(key.fileobj)
                os.close(key.fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with answers, suppress(OSError):
                    answers.send(str(status).encode())
                continue
            message, files, _, _ = socket.recv_fds(control, _LONGEST, _MOST_FILES)
            if not message:
                return None
            output, back, *claims = files
            answers = socket.socket(fileno=back)
            pid = None if _hung_up(answers) else os.fork()  # it may have been interrupted while it waited
            if pid == 0:
                for other in trainings.get_map().values():
                    if other.data is not None:
                        os.close(other.fd)
                        other.data[1].close()
                for own in (trainings, control, answers):
                    own.close()
                os.setsid()
                _redirect(output)
                return dict(json.loads(message))
            for file in (output, *claims):
                os.close(file)
            if pid is None:
                answers.close()
                continue
            with suppress(OSError):
                answers.send(str(pid).encode())
            trainings.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, answers))


def _hung_up(answers: socket.socket) -> bool:
    try:
        return answers.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _redirect(output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection of every training would copy the memory that all share
    request = _serve(control)
    if request is None:
        return
    os.environ.update(request["environment"])
    if request["folder"] is not None:
        os.chdir(request["folder"])
    sys.argv = ["lightning-repshape", *request["words"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
