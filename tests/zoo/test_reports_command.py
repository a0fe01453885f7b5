"""`onnxfix report OUT`, and what every migration leaves behind: what is refused, what is written, and what is told."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from journals import many, write_journal
from zoo_models import NEW, OLD, PLAIN, SAMPLES, make_zoo

from onnxfix.cli import main
from onnxfix.zoo.journal import Journal
from onnxfix.zoo.pool import Ended, Event, Pool, Started
from onnxfix.zoo.reports.page import PageFormat
from onnxfix.zoo.task import Task
from onnxfix.zoo.work import work_on

Capture = pytest.CaptureFixture[str]
NAMES = {"report.html", "report.json", "report.csv", "junit.xml"}
LEFT = {"journal.sqlite", "lock", *NAMES}


def hidden(out: Path) -> set[str]:
    return {path.name for path in (out / ".onnxfix").iterdir()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Returns the destination of a migration of twenty models."""
    return write_journal(tmp_path / "out", many(20))


def _damage(out: Path, how: str) -> None:
    path = out / ".onnxfix" / "journal.sqlite"
    if how == "gone":
        path.unlink()
    elif how == "no SQLite":
        path.write_bytes(b"no journal at all" * 1000)
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(how)
        connection.close()


# What is refused.


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("gone", 2, "{out}: nothing was migrated here: there is no journal"),
        ("no SQLite", 3, "journal.sqlite: the journal is damaged"),
        ("cut", 3, "journal.sqlite: the journal is damaged"),
        ("UPDATE models SET facts = '{' WHERE path LIKE '%9.onnx'", 3, "the journal is damaged"),
        ("UPDATE models SET facts = '{}'", 3, "the journal is damaged: this is no outcome"),
        ("PRAGMA user_version = 7", 3, "the journal is of version 7, not 1"),
        ("PRAGMA user_version = 0", 3, "nothing stands in the journal"),
    ],
)
def test_a_journal_that_cannot_be_read_is_one_clear_error(
    how: str, code: int, message: str, out: Path, capsys: Capture
) -> None:
    _damage(out, how)
    before = hidden(out)

    assert main(["report", str(out)]) == code
    printed = capsys.readouterr().err
    assert printed.count("error: ") == 1
    assert message.format(out=out) in printed
    assert hidden(out) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--html", "no/r.html"], "--html no/r.html: there is no folder `no`"),
        (["-o", "no"], "no/report.html: there is no folder `no`"),
        (["-o", "file"], "there is no folder `file`"),
        (["--csv", "."], "--csv .: this is no regular file"),
        (["--csv", "r", "--json", "./r"], "--csv r: this file is something else already"),
        (["--junit", "{out}/.onnxfix/journal.sqlite"], "this file is something else already"),
        (["--junit", "{out}/.onnxfix/lock"], "this file is something else already"),
    ],
)
def test_a_report_takes_no_place_that_is_not_its_own(
    words: list[str], message: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (out / ".onnxfix" / "lock").write_text("")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    assert main(["report", str(out), *(word.format(out=out) for word in words)]) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_full_disk_leaves_the_reports_as_they_were(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert main(["report", str(out), "-q"]) == 0
    before = (out / ".onnxfix" / "report.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["report", str(out)]) == 3
    assert "report.html: the report cannot be written: No space left on device" in capsys.readouterr().err
    assert (out / ".onnxfix" / "report.json").read_bytes() == before
    assert hidden(out) == LEFT - {"lock"}


# What is written.


def test_all_reports_are_made_again(out: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["report", str(out)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "14 converted, 1 unchanged, 1 skipped, 2 failed, 1 refused, 1 not done"
    assert [line.split(" (")[0] for line in lines[1:]] == [
        f"wrote {out}/.onnxfix/{name}" for name in ("report.html", "report.json", "report.csv", "junit.xml")
    ]
    assert hidden(out) == LEFT - {"lock"}
    (tmp_path / "public").mkdir()
    assert main(["report", str(out), "-o", str(tmp_path / "public"), "--csv", str(tmp_path / "t.csv"), "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert {path.name for path in (tmp_path / "public").iterdir()} == NAMES - {"report.csv"}
    for path in (tmp_path / "t.csv", *(tmp_path / "public").iterdir()):
        name = "report.csv" if path.name == "t.csv" else path.name
        assert path.read_bytes() == (out / ".onnxfix" / name).read_bytes()


def test_what_a_report_that_was_killed_has_left_goes(out: Path) -> None:
    (out / ".onnxfix" / ".report.onnxfix-0123456789ab.html").write_text("half")
    assert main(["report", str(out), "-q"]) == 0
    assert hidden(out) == LEFT - {"lock"}


def test_one_report_is_written_alone(out: Path, tmp_path: Path) -> None:
    assert main(["report", str(out), "--junit", str(tmp_path / "j.xml"), "-q"]) == 0
    assert ElementTree.parse(tmp_path / "j.xml").getroot().attrib["tests"] == "20"
    assert hidden(out) == {"journal.sqlite"}


def test_a_migration_may_be_at_work_meanwhile(out: Path) -> None:
    with Journal(out / ".onnxfix" / "journal.sqlite") as journal:
        journal.await_(["new.onnx"])
        assert main(["report", str(out), "-q"]) == 0
    told = json.loads((out / ".onnxfix" / "report.json").read_text())
    assert told["counts"]["waiting"] == 2
    assert {"path": "new.onnx", "state": "waiting", "outcome": "waiting"}.items() <= told["models"][0].items()


def test_all_reports_tell_of_the_same_moment(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = PageFormat.start

    def start(page: PageFormat, summary: object) -> str:
        with Journal(out / ".onnxfix" / "journal.sqlite") as journal:
            journal.await_(["late.onnx"])
        return begin(page, summary)  # type: ignore[arg-type]

    monkeypatch.setattr(PageFormat, "start", start)
    with Journal(out / ".onnxfix" / "journal.sqlite"):  # as while a migration runs
        assert main(["report", str(out), "-q"]) == 0
    assert len(json.loads((out / ".onnxfix" / "report.json").read_text())["models"]) == 20


# What a migration leaves behind.


class _Zoo:
    """A zoo that is migrated in this process, up to a model at which somebody ends it."""

    def __init__(self, folder: Path) -> None:
        self.zoo = make_zoo(folder / "zoo", {"a.onnx": OLD, "b.onnx": NEW, "c.onnx": OLD})
        self.out = folder / "out"
        self.end_at = ""
        self.end: BaseException = KeyboardInterrupt()

    def run(self, pool: Pool, tasks: Iterable[Task]) -> Iterator[Event]:
        for task in tasks:
            yield Started(task)
            if task.path == self.end_at:
                raise self.end
            yield Ended(task, work_on(task))

    def migrate(self, *words: str) -> int:
        return main(["migrate", str(self.zoo), str(self.out), "--to", "silero-hc", "-q", "--no-verify", *words])

    def outcomes(self) -> dict[str, str]:
        told = json.loads((self.out / ".onnxfix" / "report.json").read_text())
        return {one["path"]: one["outcome"] for one in told["models"]}


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Zoo:
    monkeypatch.setattr(tempfile, "tempdir", None)  # where it is put back, since the work is done in this process
    made = _Zoo(tmp_path)
    monkeypatch.setattr(Pool, "run", lambda pool, tasks: made.run(pool, tasks))
    return made


def test_a_migration_leaves_reports_and_so_does_one_that_was_interrupted(zoo: _Zoo) -> None:
    zoo.end_at = "c.onnx"
    assert zoo.migrate() == 130
    assert zoo.outcomes() == {"a.onnx": "converted", "b.onnx": "unchanged", "c.onnx": "waiting"}
    zoo.end = SystemExit(143)  # as the signal that asks a process to end
    with pytest.raises(SystemExit):
        zoo.migrate()
    zoo.end_at = ""
    assert zoo.migrate() == 0
    assert zoo.outcomes() == {"a.onnx": "converted", "b.onnx": "unchanged", "c.onnx": "converted"}
    assert hidden(zoo.out) == LEFT


def test_a_report_that_cannot_be_written_is_no_failure(
    zoo: _Zoo, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (zoo.out / ".onnxfix" / "report.csv").mkdir(parents=True)
    assert zoo.migrate() == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning  no reports: the report cannot be written: Is a directory; `onnxfix report")

    def row(page: PageFormat, told: object) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr(PageFormat, "row", row)
    assert zoo.migrate() == 0
    assert "warning  no reports: RuntimeError: a bug" in capsys.readouterr().err
    assert (zoo.out / "a.onnx").exists()


def test_who_only_looks_writes_no_reports(zoo: _Zoo) -> None:
    assert zoo.migrate("--check") == 1
    assert not zoo.out.exists()
    assert zoo.migrate() == 0
    for name in NAMES:
        (zoo.out / ".onnxfix" / name).unlink()
    assert main(["migrate", "--verify-only", str(zoo.out), "-q"]) in (0, 4)
    zoo.zoo.joinpath("onnxfix.toml").write_text("whim = 1")
    assert zoo.migrate() == 2
    assert hidden(zoo.out) == LEFT - NAMES


def test_the_page_on_zoos_shows_how_python_does_the_same(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    make_zoo(tmp_path / "models", {"gpt2.onnx": SAMPLES / "gpt2_stacked_dynamo.onnx", "plain.onnx": PLAIN})
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    ran = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stderr) == (0, "")
    counts = "Counter({'converted': 1, 'skipped': 1})"
    assert ran.stdout == f"{counts} 0 migrated/.onnxfix/report.html\n"
    assert hidden(tmp_path / "migrated") == LEFT
