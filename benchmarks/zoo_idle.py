"""What a migration costs that has nothing to do: `python zoo_idle.py FOLDER COUNT` prints one line of JSON.

Whoever is asked to work on a model answers at once that it is to be left alone. What remains is what the one process
does for every model that gives out the work: it looks for the models, keeps the journal, and writes the reports. A
second run finds that all is done.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path

import memory

from onnxfix.zoo.journal import Mark
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.marks import mark_of
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Request
from onnxfix.zoo.outcome import Skipped
from onnxfix.zoo.pool import Ended, Event, Started
from onnxfix.zoo.reports.writing import report_files, write_reports
from onnxfix.zoo.survey import survey
from onnxfix.zoo.task import Task, Work

FOLDERS = 100
TIME = 10**18  # nanoseconds


def main() -> None:
    """Migrates, does it once more, and writes the reports."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    zoo, out = folder / "zoo", folder / "out"
    mark = make_models(zoo, count)

    def answer_at_once(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
        for task in tasks:
            yield Started(task)
            yield Ended(task, Work(Skipped("there is nothing to do"), replace(mark, path=task.path)))

    def run(done: int) -> None:
        found = migrate(survey(zoo), Request(out), runner=answer_at_once)
        if (len(found.outcomes), found.kept) != (count, done):
            raise RuntimeError(f"{len(found.outcomes)} of {count} models have an outcome, {found.kept} had one before")

    facts = {
        "first": timed(lambda: run(0)),
        "again": timed(lambda: run(count)),
        "reports": timed(lambda: write_reports(out, report_files(out / ".onnxfix"))),
    }
    print(json.dumps({**facts, "peak_bytes": memory.peak_bytes()}))


def make_models(zoo: Path, count: int) -> Mark:
    """Writes files that are called models and are all the same, and returns what one of them is."""
    for number in range(count):
        path = zoo / f"{number % FOLDERS:02}" / f"{number:05}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        os.utime(path, ns=(TIME, TIME))
    return mark_of(path, "")


def timed(action: Callable[[], object]) -> dict[str, float]:
    """Does something, and returns how long that took."""
    begin, cpu_begin = time.perf_counter(), time.process_time()
    action()
    return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu_begin}


if __name__ == "__main__":
    main()
