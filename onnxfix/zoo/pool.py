"""Processes that work on models side by side: one that crashes, hangs or takes too much costs its own model only.

Each process has a pipe of its own. Pools in which all share one (`concurrent.futures`, pebble) stop as a whole when a
process is killed at a bad moment, and do not say which process works on what, which a limit on memory has to know.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TypeAlias

from onnxfix.zoo.colleague import Colleague
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.memory import available_memory, cores
from onnxfix.zoo.task import Task, Work
from onnxfix.zoo.worker import Told

_WATCH = 0.1
"""Seconds between two looks at clock and memory."""
_BASE, _FACTOR = 400 * 10**6, 4
"""Bytes that a process takes before any model, and how many times a model file."""


@dataclass(frozen=True)
class Started:
    """A process works on a model now."""

    task: Task


@dataclass(frozen=True)
class Moved:
    """A process tells how far it is with a model."""

    task: Task
    told: Told


@dataclass(frozen=True)
class Ended:
    """A process is done with a model, or came to grief."""

    task: Task
    work: Work


Event: TypeAlias = Started | Moved | Ended


Runner: TypeAlias = Callable[[Iterable[Task], Limits, int], Generator[Event, None, None]]
"""Works on tasks, within limits for each, and yields what happens; the number is that of the tasks. Closed, it ends."""


def run_in_processes(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
    """Works on tasks in processes of this machine: a `Runner`."""
    with Pool(limits, most=most) as pool:
        yield from pool.run(tasks)


class Pool:
    """Processes on this machine; as a context manager it ends them all.

    Attributes:
        jobs: How many there are at most.
    """

    def __init__(self, limits: Limits, *, most: int) -> None:
        """Starts nothing yet.

        Args:
            limits: What may be taken.
            most: How many tasks there will be.
        """
        self.budget = available_memory()
        fitting = max(1, self.budget // _BASE)
        self.jobs = max(1, min(limits.jobs or min(cores(), fitting), most))
        self.limits = limits
        self._workers: list[Colleague] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes; the next run starts new ones."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def run(self, tasks: Iterable[Task], look: Callable[[], None] | None = None) -> Iterator[Event]:
        """Yields what happens while all tasks are worked on; a process whose event is looked at goes on meanwhile.

        Args:
            tasks: What is to be done.
            look: Is called again and again; what it raises ends the run.
        """
        waiting = iter(tasks)
        upcoming = next(waiting, None)
        while upcoming is not None or self._busy():
            while upcoming is not None and (worker := self._free_for(upcoming)) is not None:
                if not worker.give(upcoming):  # it has ended while it was idle
                    self._end(worker)
                    continue
                yield Started(upcoming)
                upcoming = next(waiting, None)
            if look is not None:
                look()
            yield from self._happened()

    def _busy(self) -> list[Colleague]:
        return [worker for worker in self._workers if worker.task is not None]

    def _free_for(self, task: Task) -> Colleague | None:
        """Returns a process for a task; None where all are busy, or memory does not reach for one more."""
        busy = self._busy()
        if busy and sum(map(need, [task, *(worker.task for worker in busy if worker.task)])) > self.budget:
            return None
        free = next((worker for worker in self._workers if worker.task is None), None)
        if free is None and len(self._workers) < self.jobs:
            free = Colleague(self.limits, max(1, cores() // self.jobs))
            self._workers.append(free)
        return free

    def _happened(self) -> Iterator[Event]:
        """Yields what has happened since, and ends the processes that are over a limit."""
        ready = wait([worker.connection for worker in self._workers], timeout=_WATCH)
        for worker in list(self._workers):
            task, message = worker.task, worker.receive() if worker.connection in ready else None
            if task is not None and isinstance(message, Told):
                yield Moved(task, message)
            work = message if isinstance(message, Work) else worker.mishap()
            if worker.is_over:
                self._end(worker)
            if task is not None and work is not None:
                yield Ended(task, work)

    def _end(self, worker: Colleague) -> None:
        self._workers.remove(worker)
        worker.kill()


def need(task: Task) -> int:
    """Returns a guess at the bytes of memory that a model takes."""
    return _BASE + _FACTOR * task.size
