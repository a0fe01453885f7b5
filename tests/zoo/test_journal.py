"""The journal and the lock: what survives, and what is told when something is wrong with them."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxfix.errors import ModelWriteError, UsageError
from onnxfix.zoo.journal import Journal, JournalError, Mark, Row, State
from onnxfix.zoo.outcome import (
    Converted,
    Failed,
    Mishap,
    Outcome,
    Refused,
    Skipped,
    Unchanged,
    Verified,
    WouldChange,
    outcome_from_json,
    outcome_to_json,
)  # fmt: skip
from onnxfix.zoo.state import StateFolder

_OUTCOMES: list[tuple[Outcome, int]] = [
    (Converted("a", "b", {"plan": ["x"]}), 0),
    (Unchanged("a"), 0),
    (WouldChange("a", "b"), 1),
    (Verified("trace", {"exact": True}), 0),
    (Skipped("excluded"), 0),
    (Failed("ModelReadError", "no", "where", "hint", "log"), 3),
    (Failed(Mishap.CRASHED, "no"), 3),
    (Failed(Mishap.BUG, "no"), 70),
    (Refused("DifferenceError", "no", facts={"exact": False}), 4),
]
_MARK = Mark("ü\n%.onnx", "00", 3, str(10**18 + 1))


def _fill(journal: Journal, path: str, outcome: Outcome, *results: Mark) -> None:
    journal.await_([path])
    journal.begin(path, settings="{}", version="1", started="now", notes=["why"])
    journal.deliver(path, outcome, source=_MARK, data=[_MARK], results=results, seconds={"all": 1.0})


def _execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(("outcome", "code"), _OUTCOMES)
def test_outcomes_travel(outcome: Outcome, code: int) -> None:
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert outcome_from_json(outcome_to_json(outcome)) == outcome
    assert outcome.exit_code == code


@pytest.mark.parametrize("value", [{}, {"outcome": "nonsense"}, {"outcome": "skipped", "whim": 1}])
def test_what_is_no_outcome_is_none(value: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        outcome_from_json(value)


def test_a_row_goes_from_waiting_to_done_and_is_there_when_the_process_is_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    journal.set_about({"zoo": "/z"})
    journal.await_(["w", _MARK.path])
    journal.await_(["w"])  # once more: nothing is lost
    _fill(journal, _MARK.path, Converted("a", "b", {"x": 1}), _MARK)
    assert journal.counts() == {"waiting": 2}
    with Journal(path, is_read_only=True) as seen:  # while it is written
        (_, row) = seen.rows()
        assert (row.state, row.results) == (State.DELIVERING, (_MARK,))
    journal.finish(_MARK.path, [])
    other = Journal(path)  # as after a crash: the first one was never closed
    assert other.about() == {"zoo": "/z"}
    assert list(other.rows()) == [
        Row("w", State.WAITING),
        Row(_MARK.path, State.DONE, "{}", "1", _MARK, (_MARK,), "converted", (), ("why",)),
    ]
    assert list(other.outcomes()) == [(_MARK.path, Converted("a", "b", {"x": 1}))]
    assert list(other.outcomes(is_brief=True)) == [(_MARK.path, Converted("a", "b"))]
    assert other.counts() == {"waiting": 1, "converted": 1}
    other.close(), journal.close()


def test_who_only_reads_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        Journal(tmp_path / "none.sqlite", is_read_only=True)
    assert list(tmp_path.iterdir()) == []
    Journal(tmp_path / "j.sqlite").close()
    with Journal(tmp_path / "j.sqlite", is_read_only=True) as journal, pytest.raises(JournalError, match="readonly"):
        journal.await_(["a"])


def test_a_damaged_journal_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is no journal, and much longer than the head of one" * 100)
    with pytest.raises(JournalError, match=r"journal\.sqlite: the journal is damaged.*\n.*--fresh"):
        Journal(path)
    path.unlink()
    with Journal(path) as journal:
        _fill(journal, "a", Skipped("x"))
        journal.finish("a")
    for change in ("facts = '{'", "facts = '{}'", "state = 'whim'", "results = '[[1]]'"):
        _execute(path, f"UPDATE models SET {change}")
    with Journal(path) as journal, pytest.raises(JournalError, match="damaged"):
        list(journal.rows())
    _execute(path, "UPDATE models SET state = 'done', results = '[]'")
    with Journal(path) as journal, pytest.raises(JournalError, match="damaged"):
        list(journal.outcomes())


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    _execute(path, "PRAGMA user_version = 9")
    with pytest.raises(JournalError, match="of version 9, not 1"):
        Journal(path)


def test_a_destination_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelWriteError, match="the destination cannot be made"):
        StateFolder(tmp_path / "file" / "out").make()


_HOLD = """
import sys, time
from pathlib import Path
from onnxfix.zoo.state import StateFolder
state = StateFolder(Path(sys.argv[1]))
state.make()
with state.locked():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_one_migration_at_a_time_and_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.make()
    with subprocess.Popen([sys.executable, "-c", _HOLD, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        message = f"another migration is at work here: process {other.pid} on "
        with pytest.raises(UsageError, match=message), state.locked():
            pass
        other.kill()
    deadline = time.monotonic() + 10
    while True:
        try:
            with state.locked():
                break
        except UsageError:
            assert time.monotonic() < deadline
    assert not (state.path / "owner").exists()
