"""What a worker must have and see to take part: the stores, the zoo, and a stage from where results can be moved."""

from __future__ import annotations

import collections
import contextlib
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.errors import OnnxfixError
from onnxfix.zoo.stores.places import is_url, open_file
from onnxfix.zoo.task import Task

if TYPE_CHECKING:
    from distributed import Worker


@dataclass(frozen=True)
class Sight:
    """What all machines must see alike.

    Attributes:
        source: A model; empty where there is nothing to be seen.
        size, time: Its bytes and seconds.
        stage: The folder where results are laid down; empty where there are none.
        urls: Places that are elsewhere, for which workers need packages of their own.
    """

    source: str = ""
    size: int = 0
    time: int = 0
    stage: str = ""
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unfit:
    """Why a worker cannot take part.

    Attributes:
        message, where, hint: As in `OnnxfixError`.
    """

    message: str
    where: str = ""
    hint: str = ""


def sight_of(task: Task) -> Sight:
    """Returns what a worker must see to work on a task, and its like."""
    stage = "" if is_url(task.stage) or not task.stage else task.scratch
    found = Sight(stage=stage, urls=tuple(filter(is_url, (task.source, task.stage, task.against))))
    if is_url(task.source):
        return found
    with contextlib.suppress(OSError):  # a model that is not there is its own failure
        status = os.lstat(task.source)
        found = replace(found, source=task.source, size=status.st_size, time=int(status.st_mtime))
    return found


_KNOWN: collections.deque[tuple[str, str]] = collections.deque(maxlen=1000)
"""Workers of this process that were looked at, and the runs for which that was."""
_SHARED = "all machines must have zoo and destination under the same names: a file system that they share"


def is_known(address: str, run: str) -> bool:
    """Whether a worker of this process was looked at, and found fit."""
    return (address, run) in _KNOWN


def look_around(run: str, sight: Sight, dask_worker: Worker) -> Unfit | str:
    """Looks at what a worker sees; it is known to the run then.

    Args:
        run: The name of the run.
        sight: What must be seen.
        dask_worker: The worker: Dask gives it to functions that have a parameter of this name.

    Returns:
        A folder that was made on the stage, with a file in it; empty where there is no stage. Or what is wrong.
    """
    laid = ""
    for url in sight.urls:
        try:
            store, _ = open_file(url)
        except OnnxfixError as error:
            return Unfit(f"a worker cannot use this place: {error.message}", url, error.hint)
        if store.is_here:
            return Unfit("no worker sees this place: it lies in the memory of one process", url)
    if sight.source:
        try:
            status = os.lstat(sight.source)
        except OSError as error:
            return Unfit(f"a worker does not see the zoo: {error.strerror}", sight.source, _SHARED)
        if (status.st_size, int(status.st_mtime)) != (sight.size, sight.time):
            return Unfit("a worker sees another zoo under the same name", sight.source, _SHARED)
    if sight.stage:
        folder = Path(sight.stage) / f"look-{run}-{secrets.token_hex(4)}"
        try:
            folder.mkdir()
            (folder / "file").write_bytes(b"seen")
        except FileNotFoundError as error:
            return Unfit(f"a worker does not see the destination: {error.strerror}", sight.stage, _SHARED)
        except OSError as error:
            return Unfit(f"a worker cannot write to the destination: {error.strerror}", sight.stage)
        laid = str(folder)
    _KNOWN.append((dask_worker.address, run))
    return laid
