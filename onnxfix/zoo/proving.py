"""A migration that is proven again: against the originals or, where these are gone, against recorded runs of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from onnxfix.model.atomic import sweep_folder
from onnxfix.zoo.here import runner_for
from onnxfix.zoo.journal import Journal, Mark, Row, State
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.migration import Migration, Watcher
from onnxfix.zoo.outcome import Converted, Failed, Outcome, Refused, brief
from onnxfix.zoo.pool import Ended, Runner
from onnxfix.zoo.resume import state_of
from onnxfix.zoo.settings import settings_from_key
from onnxfix.zoo.state import BACKUP, TRACES, open_state
from onnxfix.zoo.stores.places import open_store
from onnxfix.zoo.stores.store import Store
from onnxfix.zoo.task import Aim, Task


def prove(
    out: Path | str, limits: Limits, watcher: Watcher | None = None, runner: Runner | None = None,
    home: Path | None = None,
) -> Migration:  # fmt: skip
    """Proves every result of a migration again; nothing stays written.

    Args:
        out: The destination, a folder or a URL; in place, the zoo.
        limits: How much may be taken.
        watcher: Is told how far it is.
        runner: Who does the work; None: processes of this machine, or this one where no other sees the destination.
        home: As in `Request`.

    Raises:
        UsageError: Nothing was migrated there, or another migration is at work.
        JournalError: The journal cannot be read.
        StoreError: The zoo or the destination is elsewhere, and does not answer.
    """
    watcher, state = watcher or Watcher(), open_state(open_store(out), home)
    outcomes: list[tuple[str, Outcome]] = []
    with state.reading_what_was_done() as path, state.watched():
        with Journal(path, is_read_only=True) as journal:
            about, zoo = journal.about(), open_store(journal.about().get("zoo", ""))
            rows = [row for row in journal.rows() if row.state is State.DONE and row.outcome == Converted.word]
        state.out.remember()
        watcher.planned(len(rows), 0)
        tasks = [_task(row, zoo, state.out, is_in_place=about.get("mode") == "in-place") for row in rows]
        changed = {row.path: found for row in rows if (found := _changed(row, state.out)) is not None}
        runner = runner or runner_for(zoo, state.out)
        try:
            for model, outcome in _proven(tasks, changed, limits, watcher, runner):
                outcomes.append((model, brief(outcome)))
                watcher.ended(model, outcome)
        finally:
            for folder in {Path(task.source).parent for task in tasks if task.is_in_place}:
                sweep_folder(folder)  # originals that processes had laid there which came to grief
    notes = () if rows else ("no model was converted here: there is nothing to prove",)
    return Migration(zoo.place, state.out.place, tuple(sorted(outcomes, key=lambda one: one[0])), notes=notes)


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


def _changed(row: Row, out: Store) -> Failed | None:
    """Returns what is to say of a result that is not what was written."""
    for mark in row.results:
        state = state_of(out, mark)
        if not state and not _is_same(out, mark.path, mark):  # under its size and time, that a proof does not trust
            state = "edited"
        if state:
            hint = "the command that migrated it makes it again"
            return Failed("ResultChanged", f"`{mark.path}` was {state} since it was migrated", hint=hint)
    return None


def _unproven() -> Refused:
    hint = "migrate with --record: it keeps a run of each original"
    return Refused("VacuousCheck", "the original is gone, and no run of it was recorded: nothing is proven", hint=hint)


def _task(row: Row, zoo: Store, out: Store, *, is_in_place: bool) -> Task:
    settings = settings_from_key(row.settings)
    size = next((mark.size for mark in row.results if mark.path == row.path), 0)
    return Task(
        row.path, out.at(row.path), "", settings, Aim.VERIFY, is_in_place, against=_against(row, zoo, out), size=size
    )


def _against(row: Row, zoo: Store, out: Store) -> str:
    """Returns the original, as it was, or a recorded run of it; empty where there is neither."""
    for store, path in ((zoo, row.path), *((out, path) for path in _kept(row, out))):
        if row.source is not None and _is_same(store, path, row.source):
            return store.at(path)
    trace = f"{TRACES}/{row.path}.npz"
    return "" if out.look(trace) is None else out.at(trace)


def _kept(row: Row, out: Store) -> list[str]:
    """Returns what was kept of a model in place."""
    if out.folder is None:
        return []
    backup = out.folder / BACKUP / row.path
    kept = sorted(backup.parent.glob(f"{_escaped(backup.name)}*")) if backup.parent.is_dir() else []
    return [path.relative_to(out.folder).as_posix() for path in kept]


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _is_same(store: Store, path: str, mark: Mark) -> bool:
    found = store.look(path)
    if store.folder is None and found is not None and found.stamp == mark.stamp:  # it need not be fetched for that
        return True
    with contextlib.suppress(OSError):
        return found is not None and found.size == mark.size and store.digest(path) == mark.sha256
    return False
