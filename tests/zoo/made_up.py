"""Work on models that is made up: it takes no time, and needs no model."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable

from onnxfix.model.atomic import NewFile
from onnxfix.zoo.failure import failure_of
from onnxfix.zoo.journal import Mark
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.marks import digest_of, mark_of
from onnxfix.zoo.outcome import Converted, Failed, Skipped
from onnxfix.zoo.pool import Ended, Event, Started
from onnxfix.zoo.site import Site
from onnxfix.zoo.stores.places import open_file
from onnxfix.zoo.stores.store import StoreError
from onnxfix.zoo.task import Staged, Task, Work


def made_up(task: Task) -> Work:
    """Makes a result of a model: its bytes, and `+`. Models of `s` share a data file, `f` fails, `k` is skipped."""
    known, tempfile.tempdir = tempfile.tempdir, task.scratch
    try:
        with Site(task) as site:
            site.arrive()
            return _made(task, site)
    except StoreError as error:
        return Work(failure_of(error), is_cut_off=True)
    finally:
        tempfile.tempdir = known


def _made(task: Task, site: Site) -> Work:
    source, stage = site.path, site.stage
    assert site.seen is not None
    mark = Mark(task.path, digest_of(source), site.seen.size, site.seen.stamp)
    if source.name.startswith("f") or source.read_bytes() == b"bad":
        return Work(Failed("ModelReadError", "as it should"), mark)
    if not task.is_in_place:
        stage.mkdir()
    target = stage if task.is_in_place else stage / source.name
    results, data = [], []
    if source.name.startswith("s") and source.read_bytes() != b"alone" and not task.is_in_place:
        store = open_file(task.source)[0]
        store.fetch("w.bin", stage / "w.bin")
        seen = store.look("w.bin")
        assert seen is not None
        data.append(Mark("w.bin", "", seen.size, seen.stamp))
        results.append(Staged(mark_of(stage / "w.bin", "w.bin"), str(stage / "w.bin")))
    is_skipped = source.name.startswith("k")
    if not (is_skipped and task.is_in_place):
        with NewFile(target, source) as new:
            new.write([source.read_bytes(), b"" if is_skipped else b"+"])
            new.move(target)
        results.append(Staged(mark_of(target, task.path), str(target)))
    outcome = Skipped("as it should") if is_skipped else Converted("a", "b")
    return Work(outcome, mark, tuple(data), site.leave(results))


def made_up_runner(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
    """Works on two models at a time, as far as one can tell: a `Runner`."""
    waiting = list(tasks)
    for first in range(0, len(waiting), 2):
        yield from map(Started, waiting[first : first + 2])
        yield from (Ended(task, made_up(task)) for task in waiting[first : first + 2])
