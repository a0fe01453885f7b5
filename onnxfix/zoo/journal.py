"""What became of each model, kept in `OUT/.onnxfix/journal.sqlite`: one row a model, written by one process.

A row passes `waiting`, `running`, `delivering` and `done`. What is done is written before it is shown: a row that is
`delivering` knows all files that are on their way. So a run that was killed there is taken up without working twice,
and nothing is left that no row knows of.

Journals are in WAL mode with `synchronous=NORMAL`: a process may be killed at any moment, and nothing that was
committed is lost. Where the power fails, the last commits may be; their models are then migrated again, to the same
bytes.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from onnxfix.errors import OnnxfixError
from onnxfix.zoo.outcome import Outcome, outcome_from_json, outcome_to_json

SCHEMA = 1
_PAGES = 64
"""Pages of 4 kB after which what is committed is moved from the log into the journal: disks may be nearly full."""
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE models (
    path TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    settings TEXT NOT NULL DEFAULT '',
    version TEXT NOT NULL DEFAULT '',
    source TEXT NOT NULL DEFAULT '',
    data TEXT NOT NULL DEFAULT '[]',
    outcome TEXT NOT NULL DEFAULT '',
    results TEXT NOT NULL DEFAULT '[]',
    notes TEXT NOT NULL DEFAULT '[]',
    started TEXT NOT NULL DEFAULT '',
    seconds TEXT NOT NULL DEFAULT '{}',
    facts TEXT NOT NULL DEFAULT '{}'
);
"""


_COPIES = """
CREATE TABLE IF NOT EXISTS copies (path TEXT PRIMARY KEY, source TEXT NOT NULL, copy TEXT NOT NULL) WITHOUT ROWID;
"""
DOOMED = ""
"""The digest of a file that a row has to do with only until it is removed."""


class JournalError(OnnxfixError):
    """The journal cannot be read or written."""


class State(StrEnum):
    """How far a model is."""

    WAITING = "waiting"
    RUNNING = "running"
    DELIVERING = "delivering"
    DONE = "done"


@dataclass(frozen=True)
class Mark:
    """What a file was when it was looked at.

    Attributes:
        path: Below the root of the zoo, or of the destination.
        sha256: The digest of its bytes.
        size: Bytes.
        stamp: Changes when the file does: `onnxfix.zoo.stores.store.Look`.
    """

    path: str
    sha256: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Row:
    """What the journal says of a model, without the facts.

    Attributes:
        path: The model, below the root of the zoo.
        state: How far it is.
        settings: What was asked for: `Settings.key`.
        version: The onnxfix that did it.
        source: The model file; None where it could not be read.
        data: The data files that the source names.
        outcome: What became of it, in a word; empty where that is not known yet.
        results: The files that were written, or are on their way.
        notes: What the user should know.
    """

    path: str
    state: State
    settings: str = ""
    version: str = ""
    source: Mark | None = None
    data: tuple[Mark, ...] = ()
    outcome: str = ""
    results: tuple[Mark, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """All that the journal says of a model.

    Attributes:
        row: All but what follows.
        outcome: What became of it; None where it is not done.
        started: When the work on it began, as ISO 8601 says it; empty where it did not.
        seconds: How long each stage took.
    """

    row: Row
    outcome: Outcome | None = None
    started: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)


_COLUMNS = "path, state, settings, version, source, data, outcome, results, notes"


class Journal:
    """A journal that is open; as a context manager it closes itself."""

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        """Opens a journal; unless it is only read, it is made where there is none.

        Raises:
            JournalError: It cannot be opened, or is none.
        """
        self.path = path
        self._is_read_only = is_read_only
        with self._guarded():
            if is_read_only:
                address = f"{path.absolute().as_uri()}?mode=ro"
                self._connection = sqlite3.connect(address, uri=True, isolation_level=None)
            else:
                self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        try:
            with self._guarded():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        version = self._value("PRAGMA user_version")
        if version not in (0, SCHEMA):
            hint = "use the onnxfix that wrote it, or start over with --fresh"
            raise JournalError(f"the journal is of version {version}, not {SCHEMA}", where=str(self.path), hint=hint)
        if self._is_read_only:
            if version == 0:
                raise JournalError("nothing stands in the journal", where=str(self.path), hint="migrate again")
            return
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES}")
        if version == 0:
            self._connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        self._connection.execute(_COPIES)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the journal; what was committed stays, in one file that can be read without writing beside it."""
        with contextlib.suppress(sqlite3.Error):
            if not self._is_read_only:
                self._connection.execute("PRAGMA journal_mode = DELETE")
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    # What the whole migration is about.

    def about(self) -> Mapping[str, str]:
        """Returns what the journal says of the migration: `zoo`, `mode`."""
        with self._guarded():
            return dict(self._connection.execute("SELECT key, value FROM about ORDER BY key").fetchall())

    def set_about(self, about: Mapping[str, str]) -> None:
        """Says what the migration is."""
        with self._guarded(), self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", sorted(about.items()))

    # What becomes of a model.

    def await_(self, paths: Iterable[str]) -> None:
        """Adds models that are not in the journal yet."""
        with self._guarded(), self._transaction():
            rows = [(path, State.WAITING) for path in paths]
            self._connection.executemany("INSERT OR IGNORE INTO models (path, state) VALUES (?, ?)", rows)

    def begin(self, path: str, *, settings: str, version: str, started: str, notes: Iterable[str] = ()) -> None:
        """Says that a model is worked on; what an earlier run has written of it stays known."""
        change = "state = ?, settings = ?, version = ?, started = ?, notes = ?"
        self._update(path, change, State.RUNNING, settings, version, started, _list_text(notes))

    def deliver(
        self,
        path: str,
        outcome: Outcome,
        *,
        source: Mark | None,
        data: Iterable[Mark],
        results: Iterable[Mark],
        seconds: Mapping[str, float],
    ) -> None:
        """Says what became of a model, and which files are on their way."""
        change = "state = ?, outcome = ?, facts = ?, source = ?, data = ?, results = ?, seconds = ?"
        facts = json.dumps(outcome_to_json(outcome), ensure_ascii=False, sort_keys=True)
        times = json.dumps({stage: round(time, 4) for stage, time in seconds.items()})
        marks = ("" if source is None else _marks_text([source])), _marks_text(data), _marks_text(results)
        self._update(path, change, State.DELIVERING, outcome.word, facts, *marks, times)

    def finish(self, path: str, results: Iterable[Mark] | None = None) -> None:
        """Says that a model is done.

        Args:
            path: The model.
            results: The files that it has now; None: as they were announced.
        """
        if results is None:
            self._update(path, "state = ?", State.DONE)
        else:
            self._update(path, "state = ?, results = ?", State.DONE, _marks_text(results))

    def remark(self, path: str, *, source: Mark | None, results: Iterable[Mark]) -> None:
        """Notes that files have other stamps now, and the same bytes."""
        text = "" if source is None else _marks_text([source])
        self._update(path, "source = ?, results = ?", text, _marks_text(results))

    def forget(self, paths: Iterable[str]) -> None:
        """Drops models."""
        with self._guarded(), self._transaction():
            self._connection.executemany("DELETE FROM models WHERE path = ?", [(path,) for path in paths])

    def _update(self, path: str, change: str, *values: str) -> None:
        with self._guarded():
            self._connection.execute(f"UPDATE models SET {change} WHERE path = ?", (*values, path))

    # What becomes of other files.

    def note_copy(self, path: str, source: str, copy: str) -> None:
        """Says that a file was copied.

        Args:
            path: The file.
            source: Its stamp.
            copy: That of the copy.
        """
        with self._guarded():
            self._connection.execute("INSERT OR REPLACE INTO copies VALUES (?, ?, ?)", (path, source, copy))

    def copies(self) -> Mapping[str, tuple[str, str]]:
        """Returns the stamps of files that were copied, and of their copies, by path."""
        with self._guarded():
            found = self._connection.execute("SELECT path, source, copy FROM copies").fetchall()
        return {path: (source, copy) for path, source, copy in found}

    # What became of them all.

    def rows(self) -> Iterator[Row]:
        """Yields all models, by path, without their facts."""
        with self._guarded():
            for values in self._connection.execute(f"SELECT {_COLUMNS} FROM models ORDER BY path"):
                yield _row(values)

    def outcomes(self, *, is_brief: bool = False) -> Iterator[tuple[str, Outcome]]:
        """Yields what became of the models that are done, by path.

        Args:
            is_brief: Whether ports, plans and proofs are left out, of which there may be a lot.
        """
        facts = "json_remove(facts, '$.facts')" if is_brief else "facts"
        query = f"SELECT path, {facts} FROM models WHERE state = ? ORDER BY path"
        with self._guarded():
            for path, facts in self._connection.execute(query, (State.DONE,)):
                yield path, outcome_from_json(json.loads(facts))

    def entries(self) -> Iterator[Entry]:
        """Yields all that is known of all models, by path."""
        with self._guarded():
            query = f"SELECT started, seconds, facts, {_COLUMNS} FROM models ORDER BY path"
            for started, seconds, facts, *values in self._connection.execute(query):
                row = _row((*values,))
                outcome = outcome_from_json(json.loads(facts)) if row.state is State.DONE else None
                yield Entry(row, outcome, started, dict(json.loads(seconds)))

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Lets the block see the journal as it is now, whatever another process writes meanwhile."""
        with self._guarded():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def counts(self) -> Mapping[str, int]:
        """Returns how many models had each outcome; those that are not done count as `waiting`."""
        word = "CASE state WHEN 'done' THEN outcome ELSE 'waiting' END"
        query = f"SELECT {word}, count(*) FROM models GROUP BY {word}"
        with self._guarded():
            return dict(self._connection.execute(query).fetchall())

    def seconds(self) -> float:
        """Returns how long the work on all models took, one after another."""
        query = "SELECT total(json_extract(seconds, '$.all')) FROM models"
        with self._guarded():
            return float(self._connection.execute(query).fetchone()[0])

    def _value(self, query: str) -> object:
        return self._connection.execute(query).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Lets the block work on the journal, and says what is wrong with it.

        Raises:
            JournalError: The journal cannot be read or written, or is damaged.
        """
        try:
            yield
        except sqlite3.OperationalError as error:
            hint = "see that there is space and that the folder is writable, and run the same command again"
            raise JournalError(f"the journal cannot be used: {error}", where=str(self.path), hint=hint) from None
        except (sqlite3.DatabaseError, ValueError) as error:
            hint = "--fresh starts over: what stands at the destination is made again"
            raise JournalError(f"the journal is damaged: {error}", where=str(self.path), hint=hint) from None


def _list_text(texts: Iterable[str]) -> str:
    return json.dumps([*texts], ensure_ascii=False)


def _marks_text(marks: Iterable[Mark]) -> str:
    return json.dumps([[mark.path, mark.sha256, mark.size, mark.stamp] for mark in marks], ensure_ascii=False)


def _marks(text: str) -> tuple[Mark, ...]:
    return tuple(Mark(path, sha256, size, str(stamp)) for path, sha256, size, stamp in json.loads(text or "[]"))


def _row(values: tuple[str, ...]) -> Row:
    path, state, settings, version, source, data, outcome, results, notes = values
    return Row(
        path, State(state), settings, version, next(iter(_marks(source)), None), _marks(data), outcome,
        _marks(results), tuple(json.loads(notes)),
    )  # fmt: skip
