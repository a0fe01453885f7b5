"""What is left to do: what the journal says, held against the zoo and the destination as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from onnxfix.zoo.journal import DOOMED, Journal, Mark, Row, State
from onnxfix.zoo.outcome import Failed
from onnxfix.zoo.settings import Settings
from onnxfix.zoo.stores.store import Look, Store
from onnxfix.zoo.survey import Member


@dataclass(frozen=True)
class Todo:
    """A model that has to be worked on.

    Attributes:
        member: The model.
        settings: What is asked for.
        row: What the journal says of it; None where it is new.
        reason: Why it is done again, where that is news; empty where it was never done.
    """

    member: Member
    settings: Settings
    row: Row | None = None
    reason: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the journal says of it from now on; what was said of a run that came to nothing still holds."""
        if self.reason:
            return (self.reason,)
        return () if self.row is None else self.row.notes


@dataclass(frozen=True)
class Ground:
    """Where a migration takes place.

    Attributes:
        zoo: The zoo.
        out: The destination; the zoo itself in place.
        version: The onnxfix that migrates.
    """

    zoo: Store
    out: Store
    version: str

    @property
    def is_in_place(self) -> bool:
        """Whether results take the places of their sources."""
        return self.zoo == self.out


def outstanding(
    ground: Ground, wanted: Iterable[tuple[Member, Settings]], rows: Mapping[str, Row], journal: Journal | None
) -> list[Todo]:
    """Returns what is not done, or not so any more.

    Args:
        ground: Where the migration takes place.
        wanted: All models with what is asked for.
        rows: What the journal says, by path.
        journal: Learns of what turns out to be done, and of new stamps; None to write nothing.
    """
    left = []
    for member, settings in wanted:
        row = rows.get(member.path)
        if row is None:
            left.append(Todo(member, settings))
            continue
        row = _taken_up(ground, row, journal)
        reason = _why_again(ground, member, settings, row)
        if reason is not None:
            left.append(Todo(member, settings, row, reason))
        elif journal is not None:
            _remark(ground, row, journal)
    return left


def _taken_up(ground: Ground, row: Row, journal: Journal | None) -> Row:
    """Returns a row as done if its run was killed just before it said so: all that it announced is in place."""
    results = tuple(mark for mark in row.results if mark.sha256 != DOOMED)
    is_delivered = row.state is State.DELIVERING and results and not any(state_of(ground.out, one) for one in results)
    if not is_delivered or (len(results) < len(row.results) and not ground.is_in_place):
        return row
    if journal is not None:
        for mark in row.results:
            if mark.sha256 == DOOMED:  # in place, these are traces, which belong to one model
                ground.out.remove(mark.path)
        journal.finish(row.path, results)
    return replace(row, state=State.DONE, results=results)


def _why_again(ground: Ground, member: Member, settings: Settings, row: Row) -> str | None:
    """Returns why a model is done again; None if it is not, empty where there is nothing to tell people."""
    if row.state is not State.DONE or row.outcome == Failed.word or row.source is None:
        return ""
    if row.settings != settings.key() or row.version != ground.version:
        return "it was migrated with other settings" if row.settings != settings.key() else "onnxfix was updated"
    for mark in row.results:
        if state := state_of(ground.out, mark):
            return f"its result `{mark.path}` was {state}"
    if ground.is_in_place and row.path in {mark.path for mark in row.results}:
        return None
    if _differs(ground.zoo, row.source):
        return "its source was changed"
    if any(ground.zoo.look(mark.path) != Look(mark.size, mark.stamp) for mark in row.data):
        return "its data was changed"
    return None


def state_of(store: Store, mark: Mark) -> str:
    """Returns what has become of a file, `deleted` or `edited`; empty where it is as it was."""
    if store.look(mark.path) is None:
        return "deleted"
    return "edited" if _differs(store, mark) else ""


def _differs(store: Store, mark: Mark) -> bool:
    """Whether a file is not what it was; where size and stamp are as they were, its bytes are not read."""
    found = store.look(mark.path)
    if found == Look(mark.size, mark.stamp):
        return False
    try:
        return found is None or found.size != mark.size or store.digest(mark.path) != mark.sha256
    except OSError:
        return True


def _remark(ground: Ground, row: Row, journal: Journal) -> None:
    """Notes the stamps of files that were touched, so that their bytes are not read every time."""
    results = tuple(_renewed(ground.out, mark) for mark in row.results)
    is_replaced = ground.is_in_place and row.path in {mark.path for mark in row.results}
    source = row.source if row.source is None or is_replaced else _renewed(ground.zoo, row.source)
    if (results, source) != (row.results, row.source):
        journal.remark(row.path, source=source, results=results)


def _renewed(store: Store, mark: Mark) -> Mark:
    found = store.look(mark.path)
    return mark if found is None else replace(mark, stamp=found.stamp)
