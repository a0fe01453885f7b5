"""A process that works on one model after another, and ends with the one that started it, however that ends."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from typing import Protocol, runtime_checkable

from onnxfix.zoo.task import Task, Work

if sys.platform != "win32":
    import resource

_TELL = 0.1
"""Seconds between two messages of how far a model is."""
_SLACK = 1 << 30
"""Bytes over the limit that the system refuses: most of what is taken is noticed by the process that watches."""


class Log:
    """A file that another process writes to.

    Attributes:
        descriptor: The file, in this process.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __getstate__(self) -> object:
        return None if sys.platform == "win32" else reduction.DupFd(self.descriptor)

    def __setstate__(self, state: object) -> None:
        if isinstance(state, _Duplicate):
            self.descriptor = state.detach()
        else:
            self.descriptor = os.open(os.devnull, os.O_WRONLY)


@runtime_checkable
class _Duplicate(Protocol):
    """A descriptor that has arrived in this process."""

    def detach(self) -> int: ...


@dataclass(frozen=True)
class Ready:
    """A process has imported all that it needs."""


@dataclass(frozen=True)
class Told:
    """How far the work on a model is; see `onnxfix.convert`."""

    stage: str
    done: int
    total: int


def serve(connection: Connection, parent: int, log: Log, threads: int, memory: int | None) -> None:
    """Works on the tasks that come in, until nobody sends any more.

    Args:
        connection: Where tasks come from, and what came of them goes.
        parent: The process at the other end.
        log: Where all goes that libraries write to standard output and standard error.
        threads: How many threads a library may use.
        memory: Bytes that a model may take; None: as many as there are.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with(parent)
    _redirect(log)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    _import_all()
    _limit(memory)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(Ready())
        while True:
            connection.send(_worked(connection, connection.recv()))


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


def _redirect(log: Log) -> None:
    for descriptor in (1, 2):
        os.dup2(log.descriptor, descriptor)
    faulthandler.enable(2)


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
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    """Waits for the end of the parent: for systems that tell nobody, this is the only way."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
