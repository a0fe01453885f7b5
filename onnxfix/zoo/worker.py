"""A process that works on one model after another, and ends with the one that started it, however that ends.

It is a program of its own (`command`), and no child of `multiprocessing`, which reads the main module of a program once
more, and which daemons like the workers of Dask may not have. Tasks and messages go through one connection that it
inherits. Standard input says nothing: that it ends says that the one at its other end has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from onnxfix.zoo.task import Task, Work

if sys.platform != "win32":
    import resource

_TELL = 0.1
"""Seconds between two messages of how far a model is."""
_SLACK = 1 << 30
"""Bytes over the limit that the system refuses: most of what is taken is noticed by the process that watches."""


@dataclass(frozen=True)
class Terms:
    """What a process is told first.

    Attributes:
        parent: The process at the other end.
        threads: How many threads a library may use.
        memory: Bytes that a model may take; None: as many as there are.
    """

    parent: int
    threads: int
    memory: int | None = None


@dataclass(frozen=True)
class Ready:
    """A process has imported all that it needs."""


@dataclass(frozen=True)
class Told:
    """How far the work on a model is; see `onnxfix.convert`."""

    stage: str
    done: int
    total: int


def command(handle: int) -> list[str]:
    """Returns the words that start the program, which finds modules where this process does.

    Args:
        handle: Its end of the connection, which it inherits.
    """
    utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []  # else it may call files by other bytes
    program = f"import sys; sys.path[:] = {sys.path!r}; from onnxfix.zoo.worker import serve; serve({handle})"
    return [sys.executable, *utf8, "-c", program]


def serve(handle: int) -> None:
    """Works on the tasks that come in, until nobody sends any more.

    Args:
        handle: Where terms and tasks come from, and what came of them goes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    connection = _connection(handle)
    terms = connection.recv()
    _end_with(terms.parent)
    faulthandler.enable(2)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(terms.threads))
    _import_all()
    _limit(terms.memory)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(Ready())
        while True:
            connection.send(_worked(connection, connection.recv()))


def _connection(handle: int) -> Connection:
    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection

        return PipeConnection(handle)
    os.set_inheritable(handle, False)
    return Connection(handle)


def _worked(connection: Connection, task: Task) -> Work:
    from onnxfix.zoo.work import work_on

    last = 0.0

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _TELL:
            last = time.monotonic()
            connection.send(Told(stage, done, total))

    return work_on(task, tell)


def _import_all() -> None:
    """Imports what every conversion needs, so that no model's time is spent on it."""
    import onnxfix.convention.load
    import onnxfix.convert
    import onnxfix.surgery.rewrite
    import onnxfix.surgery.simplify
    import onnxfix.verify.lockstep
    import onnxfix.zoo.work

    onnxfix.convention.load.library()


def _limit(memory: int | None) -> None:
    """Lets the system refuse what is far over the limit: one allocation may be larger than all that is watched."""
    if memory is None or sys.platform != "linux":
        return
    allowed = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = memory + memory // 4 + _SLACK
    with contextlib.suppress(OSError, ValueError):
        limit = wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, allowed))


def _end_with(parent: int) -> None:
    """Ends this process when its parent ends, even if that is killed and this one is busy."""
    if sys.platform == "linux":
        set_death_signal = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before it could be said
            os._exit(1)
    lifeline = os.dup(0)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 (a device)
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_watch_parent, args=(lifeline,), daemon=True).start()


def _watch_parent(lifeline: int) -> None:
    """Waits for the end of the parent: for systems that tell nobody, this is the only way."""
    os.read(lifeline, 1)
    os._exit(1)
