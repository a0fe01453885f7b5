"""What a migration would do: plans alone, and nothing is written."""

from __future__ import annotations

import contextlib
from pathlib import Path

from onnxfix import __version__
from onnxfix.zoo.here import runner_for
from onnxfix.zoo.journal import Journal, Row
from onnxfix.zoo.manifest import manifest_of
from onnxfix.zoo.migration import Migration, Request, Watcher
from onnxfix.zoo.outcome import Outcome, brief
from onnxfix.zoo.pool import Ended, Runner
from onnxfix.zoo.resume import Ground, Todo, outstanding
from onnxfix.zoo.settings import Settings
from onnxfix.zoo.state import open_state
from onnxfix.zoo.survey import Survey
from onnxfix.zoo.task import Aim, Task


def check(survey: Survey, request: Request, watcher: Watcher | None = None, runner: Runner | None = None) -> Migration:
    """Says what a migration would do.

    Args:
        survey: What is in the zoo.
        request: What is asked for; what is done at its destination already would not be done again.
        watcher: Is told how far it is.
        runner: Who does the work.

    Raises:
        UsageError: The request or the manifest cannot be understood.
        JournalError: The journal at the destination cannot be read.
        StoreError: The zoo or the destination is elsewhere, and does not answer.
    """
    watcher = watcher or Watcher()
    out = request.destination(survey.zoo)
    request.change.applied(Settings()).require_conventions()
    manifest = manifest_of(survey.zoo)
    wanted = [(member, manifest.settings(member.path, request.change)) for member in survey.models]
    todo = [Todo(member, settings) for member, settings in wanted]
    if out is not None and not request.is_fresh:
        with open_state(out, request.home).reading() as path:
            rows = {} if path is None else _rows(path)
        if rows:
            out.remember()
            todo = outstanding(Ground(survey.zoo, out, __version__), wanted, rows, None)
    kept = len(wanted) - len(todo)
    watcher.planned(len(wanted), kept)
    tasks = [
        Task(one.member.path, survey.zoo.at(one.member.path), "", one.settings, Aim.CHECK, size=one.member.size)
        for one in todo
    ]
    outcomes: list[tuple[str, Outcome]] = []
    runner = runner or runner_for(survey.zoo)
    with contextlib.closing(runner(tasks, request.limits.over(manifest.limits), len(tasks))) as events:
        for event in events:
            watcher.happened(event)
            if isinstance(event, Ended):
                outcomes.append((event.task.path, brief(event.work.outcome)))
                watcher.ended(*outcomes[-1])
    notes = manifest.unmatched([member.path for member in survey.models])
    return Migration(survey.zoo.place, None, tuple(sorted(outcomes)), kept, gaps=survey.gaps, notes=tuple(notes))


def _rows(path: Path) -> dict[str, Row]:
    with Journal(path, is_read_only=True) as journal:
        return {row.path: row for row in journal.rows()}
