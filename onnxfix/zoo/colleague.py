"""A process that works on models, as the one sees it that started it: what it is given, what it says, how it ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from typing import BinaryIO

from onnxfix.zoo.limits import HOUR, Limits, duration_text
from onnxfix.zoo.memory import memory_of, memory_text
from onnxfix.zoo.outcome import Failed, Mishap
from onnxfix.zoo.task import Task, Work
from onnxfix.zoo.worker import Ready, Terms, Told, command

_BOOT = 120.0
"""Seconds that a process may take until it is ready."""
_MOST_MODELS, _MOST_KEPT = 200, 10**9
"""Models after which a process makes room for a new one, and bytes that it may keep between two: libraries leak."""
_LOG = 4000
"""Bytes that are kept of what a process said last."""


class Colleague:
    """One process.

    Attributes:
        connection: Its pipe.
        task: What it works on; None while it is idle.
        is_over: Whether it has ended, or must.
    """

    def __init__(self, limits: Limits, threads: int) -> None:
        """Starts the process; on Linux, it ends when the thread ends that starts it.

        Args:
            limits: What one model may take.
            threads: How many threads a library may use in it.
        """
        self.task: Task | None = None
        self.is_over = False
        self._limits = limits
        self._models = 0
        self._is_ready = False
        self._since = time.monotonic()
        self._log = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115 (it lives as long as the process)
        self.connection, theirs = Pipe()
        with theirs:
            self.connection.send(Terms(os.getpid(), threads, limits.memory))
            self._process = _started(theirs.fileno(), self._log)

    def give(self, task: Task) -> bool:
        """Hands over a model; says whether there was still somebody to take it."""
        if self._process.poll() is not None:
            return False
        self._log.seek(0)  # both write where the other one does
        self._log.truncate()
        try:
            self.connection.send(task)
        except OSError:
            return False
        self.task = task
        self._since = time.monotonic()
        return True

    def receive(self) -> Told | Work | None:
        """Returns what the process says; None where that is nothing of a model, or nothing that makes sense."""
        try:
            message = self.connection.recv()
        except Exception:  # whatever a process sends that is about to die
            self.is_over = True
            self._join()
            return None
        if isinstance(message, Ready):
            self._is_ready = True
            self._since = time.monotonic()
        if isinstance(message, Work):
            self.task = None
            self._models += 1
            self.is_over = self._models >= _MOST_MODELS or self._memory() > _MOST_KEPT
        return message if isinstance(message, Told | Work) else None

    def mishap(self) -> Work | None:
        """Returns what became of the model if the process has ended, or must end; None if all is well."""
        failed = self._mishap()
        if failed is None:
            return None
        self.is_over = True
        taken = time.monotonic() - self._since
        self.kill()
        return Work(failed, seconds={"all": taken})

    def _mishap(self) -> Failed | None:
        if self.is_over or self._process.poll() is not None:
            self.is_over = True
            self._join()
            return self._crash()
        taken, allowed = time.monotonic() - self._since, self._limits.seconds or HOUR
        if not self._is_ready:
            return Failed(Mishap.HUNG, "the process did not start", log=self.log()) if taken > _BOOT else None
        if self.task is None:
            return None
        if taken > allowed:
            hint = "--time-limit gives it more, if it is only slow"
            message = f"it was not done after {duration_text(allowed)}, and was ended"
            return Failed(Mishap.HUNG, message, hint=hint, log=self.log())
        if self._limits.memory is not None and self._memory() > self._limits.memory:
            hint = "--memory-limit gives it more"
            message = f"it took more than {memory_text(self._limits.memory)} of memory, and was ended"
            return Failed(Mishap.OUT_OF_MEMORY, message, hint=hint, log=self.log())
        return None

    def _crash(self) -> Failed | None:
        if self.task is None:
            return None
        code = self._process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
            message = f"the process that worked on it was ended by {name}"
        else:
            message = f"the process that worked on it ended with code {code}"
        hint = ""
        if code == -_KILL:
            hint = "systems do that where memory runs out: fewer --jobs, or a --memory-limit, leave more to each"
        return Failed(Mishap.CRASHED, message, hint=hint, log=self.log())

    def log(self) -> str:
        """Returns what the process said last, without what differs from run to run."""
        size = os.fstat(self._log.fileno()).st_size
        start = max(0, size - _LOG)
        self._log.seek(start)
        text = self._log.read(_LOG).decode("utf-8", "replace")
        return re.sub(r"0x[0-9a-f]+", "0x...", text.strip())

    def kill(self) -> None:
        """Ends the process, whatever it does; one that is idle has nothing to lose."""
        if self._log.closed:
            return
        self._process.kill()
        self._join()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.connection.close()
        self._log.close()

    def _memory(self) -> int:
        return memory_of(self._process.pid)

    def _join(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SOON)


_SOON = 5.0
"""Seconds within which a process ends that was told to."""
_KILL = 9


def _started(handle: int, log: BinaryIO) -> subprocess.Popen[bytes]:
    """Starts a process that inherits one end of a connection, and a standard input that ends with this process."""
    words = command(handle)
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
        group = subprocess.CREATE_NEW_PROCESS_GROUP  # it does not hear Ctrl-C
        return subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=log, stderr=log, startupinfo=startup, creationflags=group
        )  # fmt: skip
    with _deaf():
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(handle,))


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Lets processes that the block starts not hear the interrupt that a terminal sends to all of them."""
    if sys.platform == "win32":
        yield
        return
    known = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, known)
