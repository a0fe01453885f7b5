"""A migration that is proven again: against the originals or, where these are gone, against recorded runs of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from onnxfix.zoo.journal import Journal, Mark, Row, State
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.marks import digest_of
from onnxfix.zoo.migration import Migration, Watcher
from onnxfix.zoo.outcome import Converted, Failed, Outcome, Refused, brief
from onnxfix.zoo.pool import Ended, Runner, run_in_processes
from onnxfix.zoo.resume import state_of
from onnxfix.zoo.settings import settings_from_key
from onnxfix.zoo.state import BACKUP, TRACES, StateFolder
from onnxfix.zoo.task import Aim, Task


def prove(out: Path, limits: Limits, watcher: Watcher | None = None, runner: Runner = run_in_processes) -> Migration:
    """Proves every result of a migration again; nothing is written.

    Args:
        out: The destination; in place, the zoo.
        limits: How much may be taken.
        watcher: Is told how far it is.
        runner: Who does the work.

    Raises:
        UsageError: Nothing was migrated there, or another migration is at work.
        JournalError: The journal cannot be read.
    """
    watcher, state = watcher or Watcher(), StateFolder(out)
    state.require_journal()
    outcomes: list[tuple[str, Outcome]] = []
    with state.locked():
        with Journal(state.journal, is_read_only=True) as journal:
            root = Path(journal.about().get("zoo", ""))
            rows = [row for row in journal.rows() if row.state is State.DONE and row.outcome == Converted.word]
        watcher.planned(len(rows), 0)
        tasks = [_task(row, root, out) for row in rows]
        changed = {row.path: found for row in rows if (found := _changed(row, out)) is not None}
        for path, outcome in _proven(tasks, changed, limits, watcher, runner):
            outcomes.append((path, brief(outcome)))
            watcher.ended(path, outcome)
    return Migration(root, out, tuple(sorted(outcomes, key=lambda one: one[0])))


def _proven(
    tasks: list[Task], changed: Mapping[str, Failed], limits: Limits, watcher: Watcher, runner: Runner
) -> Iterator[tuple[str, Outcome]]:  # fmt: skip
    yield from changed.items()
    unproven = [task.path for task in tasks if not task.against and task.path not in changed]
    yield from ((path, _unproven()) for path in unproven)
    left = [task for task in tasks if task.against and task.path not in changed]
    with contextlib.closing(runner(left, limits, len(left))) as events:
        for event in events:
            watcher.happened(event)
            if isinstance(event, Ended):
                yield event.task.path, event.work.outcome


def _changed(row: Row, out: Path) -> Failed | None:
    """Returns what is to say of a result that is not what was written."""
    for mark in row.results:
        if state := state_of(out, mark):
            hint = "the command that migrated it makes it again"
            return Failed("ResultChanged", f"`{mark.path}` was {state} since it was migrated", hint=hint)
    return None


def _unproven() -> Refused:
    hint = "migrate with --record: it keeps a run of each original"
    return Refused("VacuousCheck", "the original is gone, and no run of it was recorded: nothing is proven", hint=hint)


def _task(row: Row, root: Path, out: Path) -> Task:
    settings, result = settings_from_key(row.settings), out / row.path
    size = next((mark.size for mark in row.results if mark.path == row.path), 0)
    return Task(row.path, str(result), "", settings, Aim.VERIFY, against=_against(row, root, out), size=size)


def _against(row: Row, root: Path, out: Path) -> str:
    """Returns the original, as it was, or a recorded run of it; empty where there is neither."""
    backup = out / BACKUP / row.path
    kept = sorted(backup.parent.glob(f"{_escaped(backup.name)}*")) if backup.parent.is_dir() else []
    for path in (root / row.path, *kept):
        if row.source is not None and _is_same(path, row.source):
            return str(path)
    trace = out / TRACES / f"{row.path}.npz"
    return str(trace) if trace.is_file() else ""


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _is_same(path: Path, mark: Mark) -> bool:
    with contextlib.suppress(OSError):
        return path.stat().st_size == mark.size and digest_of(path) == mark.sha256
    return False
