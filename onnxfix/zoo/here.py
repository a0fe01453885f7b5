"""Work in this process: for stores that no other process sees."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable

from onnxfix.zoo.limits import Limits
from onnxfix.zoo.pool import Ended, Event, Runner, Started, run_in_processes
from onnxfix.zoo.stores.store import Store
from onnxfix.zoo.task import Task
from onnxfix.zoo.work import work_on


def run_here(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
    """Works on one task after another in this process, without limits: a `Runner`."""
    for task in tasks:
        yield Started(task)
        folder = tempfile.tempdir
        try:
            work = work_on(task)
        finally:
            tempfile.tempdir = folder
        yield Ended(task, work)


def runner_for(*stores: Store | None) -> Runner:
    """Returns who can work on what lies in some stores."""
    is_here = any(store is not None and store.is_here for store in stores)
    return run_here if is_here else run_in_processes
