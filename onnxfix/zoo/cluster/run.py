"""A runner whose processes are those of a Dask cluster's workers.

Dask carries tasks to workers, gives those of a lost worker to others, and brings back what came of them. A few tasks
for each thread are under way at a time, so that thousands of models cost the coordinator no memory.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import secrets
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from onnxfix.zoo.cluster.crew import ClusterError, Crew, connected, scheduler_gone
from onnxfix.zoo.cluster.sight import Sight, sight_of
from onnxfix.zoo.cluster.station import LEFT, STARTED, TOPIC, Order, StrangerError, work
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.outcome import Failed, Mishap
from onnxfix.zoo.pool import Ended, Event, Moved, Runner, Started
from onnxfix.zoo.stores.places import is_url
from onnxfix.zoo.task import Task, Work
from onnxfix.zoo.worker import Told

if TYPE_CHECKING:
    from distributed import Client, Future

_AHEAD = 2
"""Tasks under way for each thread: one in work, and one that is there when it ends."""
_WATCH = 0.2
"""Seconds that are waited for news at a time."""
_TRIES = 3
"""How often a task is given to workers that cannot take it."""
_PATIENCE = 5.0
"""Seconds within which workers let go of what nobody wants any more."""


def run_in_cluster(address: str) -> Runner:
    """Returns a runner whose work is done by the workers of a Dask cluster; `LocalCluster().scheduler_address` is one.

    Each thread of a worker keeps a process, with the limits of a local run. Zoo and destination must lie under the same
    names on all machines.

    Args:
        address: The scheduler's address: `tcp://HOST:8786`.

    Raises:
        UsageError: Dask is not installed, or this is no address.
        ClusterError: The scheduler does not answer, has no workers, or one of them cannot work; the runner raises it
            too, also where a worker does not see the files, or the scheduler goes away.
    """
    with connected(address) as client:
        Crew(client, address, secrets.token_hex(4), Sight())

    def run(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
        if not most:
            return
        with connected(address) as client:
            yield from _Run(client, address, limits).events(tasks)

    return run


_News: TypeAlias = str | Told | Ended | BaseException
"""What is told of a task: that it is in work or left, how far it is, or how it ended."""


@dataclass
class _Flight:
    """A task under way, or lost and to be handed over again.

    Attributes:
        task: The task.
        future: What comes of it; None where it is not handed over.
        workers: Who alone may take it: Dask workers end that are sent what they have no modules for.
        tries: How often it was given to a worker that could not take it.
        is_started: Whether its start was told.
    """

    task: Task
    future: Future[Ended] | None = None
    workers: tuple[str, ...] = ()
    tries: int = 0
    is_started: bool = False


class _Run:
    """One run on a cluster."""

    def __init__(self, client: Client, address: str, limits: Limits) -> None:
        self.client = client
        self.address = address
        self.limits = limits
        self.name = secrets.token_hex(4)
        self.count = 0
        self.flights: dict[str, _Flight] = {}
        self.lost: collections.deque[_Flight] = collections.deque()
        self.busy: set[str] = set()
        self.news: queue.SimpleQueue[tuple[str, _News]] = queue.SimpleQueue()

    def events(self, tasks: Iterable[Task]) -> Iterator[Event]:
        """Yields what happens while all tasks are worked on."""
        waiting = map(_abroad, tasks)
        upcoming = next(waiting, None)
        if upcoming is None:
            return
        self.client.subscribe_topic(TOPIC, self.hear)
        self.crew = Crew(self.client, self.address, self.name, sight_of(upcoming))
        try:
            while upcoming is not None or self.flights or self.lost:
                while (upcoming is not None or self.lost) and len(self.flights) < self.most():
                    if self.lost:
                        self.submit(self.lost.popleft())
                    elif upcoming is not None:
                        self.submit(_Flight(upcoming))
                        upcoming = next(waiting, None)
                yield from self.happened()
                if self.crew.look_at_times():
                    self.rescue()
        finally:
            self.let_go()

    def most(self) -> int:
        """Returns how many tasks may be under way; none without workers."""
        fitting = _AHEAD * self.crew.threads
        return min(fitting, self.limits.jobs or fitting)

    def submit(self, flight: _Flight) -> None:
        """Hands a task over to Dask, for workers that are fit; there is one."""
        self.count += 1
        key = f"onnxfix-{self.name}-{self.count}"
        workers = [*self.crew.fit]
        order = Order(self.name, flight.task, self.limits)
        future = self.client.submit(work, order, key=key, pure=False, workers=workers, allow_other_workers=False)
        self.flights[key] = replace(flight, future=future, workers=tuple(workers))
        future.add_done_callback(self.fetch)

    def fetch(self, future: Future[Ended]) -> None:
        """Brings back what came of a task; in a thread of Dask's."""
        try:
            told: _News = future.result()
        except BaseException as error:  # whatever it is, it is told where the run waits
            told = error
        self.news.put((str(future.key), told))

    def hear(self, event: tuple[float, dict[str, object]]) -> None:
        """Takes what a worker tells; in a thread of Dask's."""
        said = event[1]
        if said.get("run") != self.name:
            return
        key, stage, done, total = (said[name] for name in ("key", "stage", "done", "total"))
        assert isinstance(key, str) and isinstance(stage, str) and isinstance(done, int) and isinstance(total, int)
        self.news.put((key, stage if stage in (STARTED, LEFT) else Told(stage, done, total)))

    def happened(self) -> Iterator[Event]:
        """Yields what is told next, if that is soon."""
        with contextlib.suppress(queue.Empty):
            key, told = self.news.get(timeout=_WATCH)
            self.note(key, told)
            if key in self.flights:
                yield from self.understood(key, told)

    def note(self, key: str, told: object) -> None:
        """Notes who is at work."""
        if told == STARTED:
            self.busy.add(key)
        elif told == LEFT:
            self.busy.discard(key)

    def understood(self, key: str, told: _News) -> Iterator[Event]:
        """Yields what is told of a task under way."""
        flight = self.flights[key]
        if isinstance(told, BaseException):
            ended = self.failed(key, told)
            if ended is None:
                return
            told = ended
        if not flight.is_started:
            flight.is_started = True
            yield Started(flight.task)
        if isinstance(told, Told):
            yield Moved(flight.task, told)
        elif isinstance(told, Ended):
            del self.flights[key]
            yield told

    def failed(self, key: str, error: BaseException) -> Ended | None:
        """Returns what a task comes to that Dask could not bring to its end; None where it is tried again."""
        from distributed import CancelledError, KilledWorker

        flight = self.flights[key]
        if isinstance(error, CancelledError):
            raise scheduler_gone(self.address)
        if isinstance(error, KilledWorker):
            message = f"the workers that it was given to were lost, {error.allowed_failures + 1} in a row"
            hint = "systems end processes where memory runs out; what the workers printed may tell more"
            return Ended(flight.task, Work(Failed(Mishap.CRASHED, message, hint=hint)))
        if flight.tries >= _TRIES:
            hint = "restart it, with the same packages as here"
            message = f"a worker cannot take models: {type(error).__name__}: {error}"
            raise ClusterError(message, where=self.address, hint=hint)
        self.crew.look(anew=str(error) if isinstance(error, StrangerError) else "")
        self.again(key)
        return None

    def rescue(self) -> None:
        """Takes tasks back that only workers may take who are gone, for others."""
        for key, flight in list(self.flights.items()):
            if self.crew.fit and not self.crew.fit.keys() & {*flight.workers}:
                self.again(key)

    def again(self, key: str) -> None:
        """Takes a task back, so that it is handed over once more."""
        flight = self.flights.pop(key)
        if flight.future is not None:
            flight.future.cancel()
        self.lost.append(replace(flight, future=None, tries=flight.tries + 1))

    def let_go(self) -> None:
        """Ends what is under way, and waits until the workers have noticed, as far as they are there."""
        if not self.flights or self.client.status != "running":
            return
        self.client.cancel([flight.future for flight in self.flights.values() if flight.future is not None])
        latest = time.monotonic() + _PATIENCE
        while self.busy & self.flights.keys() and time.monotonic() < latest:
            with contextlib.suppress(queue.Empty):
                self.note(*self.news.get(timeout=_WATCH))


def _abroad(task: Task) -> Task:
    """Returns a task whose files are named by their whole paths, which mean the same on all machines."""

    def whole(place: str) -> str:
        return place if not place or is_url(place) else str(Path(place).absolute())

    source, stage, against, scratch = map(whole, (task.source, task.stage, task.against, task.scratch))
    return replace(task, source=source, stage=stage, against=against, scratch=scratch)
