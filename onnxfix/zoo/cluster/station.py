"""What runs on a Dask worker: each of its threads keeps a process, as on one machine, that works on model after model.

The Dask worker itself opens no model, so that one that crashes, hangs or takes too much costs neither it nor others.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.zoo.cluster.sight import is_known
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.memory import available_memory
from onnxfix.zoo.pool import Ended, Moved, Pool, Started, need
from onnxfix.zoo.task import Task

if TYPE_CHECKING:
    from distributed import Worker

TOPIC = "onnxfix"
"""What Dask calls the messages of how far models are."""
STARTED, LEFT = "started", "left"
"""Messages that are no stage of a conversion: work on a model begins, and is over, whatever came of it."""
_IDLE = 10.0
"""Seconds after which a process ends that has nothing to do: nobody tells a worker that a migration has ended."""
_TELL = 0.5
"""Seconds between two messages of how far a model is: all of them go through the scheduler."""
_WAIT, _LOOK = 60.0, 0.2
"""Seconds that a model waits for memory that others hold on its machine, and between two looks at it."""


@dataclass(frozen=True)
class Order:
    """What a Dask worker is asked to do.

    Attributes:
        run: The name of the run.
        task: The model.
        limits: What it may take.
    """

    run: str
    task: Task
    limits: Limits


class StrangerError(Exception):
    """A model came to a worker that was not looked at: it was started again, under the same address."""


class UnwantedError(Exception):
    """Nobody waits for the model any more."""


def work(order: Order) -> Ended:
    """Works on a model in a process of this thread's own.

    Raises:
        StrangerError: `look_around` was not called here, for this run.
        UnwantedError: The model was cancelled, or the worker closes.
    """
    from distributed import get_worker

    worker = get_worker()
    if not is_known(worker.address, order.run):
        raise StrangerError(worker.address)
    key = str(worker.get_current_task())

    def look() -> None:
        state = worker.state.tasks.get(key)
        if state is None or state.state == "cancelled" or worker.status.name in _CLOSING:
            raise UnwantedError

    return _Post(worker, order.run, key, look).work(order)


_CLOSING = ("closing", "closed", "failed")


class _Post:
    """A model in work on a Dask worker, and who listens to it."""

    def __init__(self, worker: Worker, run: str, key: str, look: Callable[[], None]) -> None:
        self.worker = worker
        self.run = run
        self.key = key
        self.look = look

    def work(self, order: Order) -> Ended:
        task, last = _attempt(order.task), 0.0
        limit = self.worker.memory_manager.memory_limit
        try:
            with _ROOM.taken(need(task), limit, self.look):
                self.say(STARTED)
                for event in _OWN.bench(order.limits).run(task, self.look):
                    if isinstance(event, Moved) and time.monotonic() - last >= _TELL:
                        last, told = time.monotonic(), event.told
                        self.say(told.stage, told.done, told.total)
                    elif isinstance(event, Ended):
                        ended = event
            return ended
        finally:
            self.say(LEFT)

    def say(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Tells the coordinator how far the model is."""
        message = {"run": self.run, "key": self.key, "stage": stage, "done": done, "total": total}
        self.worker.log_event(TOPIC, message)


def _attempt(task: Task) -> Task:
    """Returns the task with a stage of its own: a worker that was taken for lost may still be at work on it."""
    own = replace(task, scratch=task.scratch if Path(task.scratch).is_dir() else "")
    if task.is_in_place or not task.stage:
        return own
    return replace(own, stage=f"{task.stage}-{secrets.token_hex(4)}")


class Bench:
    """The process of one thread; it ends when it has nothing to do for some time."""

    def __init__(self, limits: Limits) -> None:
        self._pool = Pool(limits, most=1)
        self._lock = threading.Lock()
        self._leaving: threading.Timer | None = None

    def run(self, task: Task, look: Callable[[], None]) -> Iterator[Started | Moved | Ended]:
        """Yields what happens while a model is worked on; what `look` raises ends process and model."""
        with self._lock:
            if self._leaving is not None:
                self._leaving.cancel()
            try:
                yield from self._pool.run([task], look)
            except BaseException:
                self._pool.close()
                raise
            self._leaving = threading.Timer(_IDLE, self._leave)
            self._leaving.daemon = True
            self._leaving.start()

    def _leave(self) -> None:
        if self._lock.acquire(blocking=False):
            self._pool.close()
            self._lock.release()


class _Own(threading.local):
    """What belongs to one thread."""

    def __init__(self) -> None:
        self._benches: dict[Limits, Bench] = {}

    def bench(self, limits: Limits) -> Bench:
        """Returns the thread's process for tasks with such limits."""
        alone = replace(limits, jobs=1)
        if alone not in self._benches:
            self._benches[alone] = Bench(alone)
        return self._benches[alone]


class Room:
    """The memory of a Dask worker, that its threads share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._needs: list[int] = []
        self._budget = 0

    @contextlib.contextmanager
    def taken(self, need: int, limit: int | None, look: Callable[[], None]) -> Iterator[None]:
        """Takes memory for a model, as soon as there is some; a model that is alone is tried in the end.

        Args:
            need: Bytes that it is likely to take.
            limit: Bytes that the Dask worker may take; None: as many as there are.
            look: Is called while it waits; what it raises ends that.
        """
        latest = time.monotonic() + _WAIT
        while not self._take(need, limit, is_late=time.monotonic() > latest):
            look()
            time.sleep(_LOOK)
        try:
            yield
        finally:
            with self._lock:
                self._needs.remove(need)

    def _take(self, need: int, limit: int | None, *, is_late: bool) -> bool:
        with self._lock:
            if not self._needs:
                free = available_memory()
                self._budget = min(free, limit or free)
                if need > free and not is_late:
                    return False
            elif sum(self._needs) + need > self._budget:
                return False
            self._needs.append(need)
            return True


_OWN, _ROOM = _Own(), Room()
