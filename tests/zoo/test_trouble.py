"""A zoo with every kind of trouble at once: each model ends as it must, and all else is left alone."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from troubles import COUNT, FAULTS, Troubles, everything, make_troubles
from zoo_models import (
    NEW,
    OLD,
    ONNXFIX,
    PLAIN,
    TO,
    command,
    here,
    hidden,
    journal,
    make_zoo,
    outcomes,
    tree,
    with_shared_data,
)

import onnxfix
from onnxfix.errors import ModelWriteError
from onnxfix.zoo.journal import Journal, JournalError
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Request
from onnxfix.zoo.stores import local
from onnxfix.zoo.survey import survey

_DROP, _OVERRIDE, _SEARCH = 24, 1, 2
"""Linux: PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH."""


def _without_privileges() -> Callable[[], None] | None:
    """Returns what takes root's right to read what nobody may, from a process that is about to become a program."""
    if os.geteuid() != 0:
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def drop() -> None:
        for capability in (_OVERRIDE, _SEARCH):
            if libc.prctl(_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "root keeps its rights: run the tests as another user")

    return drop


def _expected(zoo: Troubles, folder: Path) -> dict[str, bytes]:
    """Returns all files that must stand at the destination."""
    folder.mkdir()
    results: dict[bytes, bytes] = {}
    found = {path: (zoo.root / path).read_bytes() for path in (*zoo.others, *zoo.data)}
    for path, (word, _) in zoo.outcomes.items():
        if word in ("unchanged", "skipped"):
            found[path] = (zoo.root / path).read_bytes()
        elif word == "converted":
            source = (zoo.root / path).read_bytes()
            if source not in results:
                onnxfix.convert(zoo.root / path, folder / f"{len(results)}.onnx", to="silero-hc")
                results[source] = (folder / f"{len(results)}.onnx").read_bytes()
            found[path] = results[source]
    return found


def test_of_every_trouble_comes_what_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo, out, scratch = make_troubles(tmp_path / "zoo"), tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    assert len(zoo.outcomes) == COUNT
    before = everything(zoo.root)
    with zoo.closed():
        ran = command(
            zoo.root, out, "--to", "silero-hc", "-j", 2, "--time-limit", "15s", "--memory-limit", "600M", "--json",
            fault=";".join(f"{fault}:faults/{fault}.onnx" for fault in FAULTS), preexec_fn=_without_privileges(),
        )  # fmt: skip
    assert everything(zoo.root) == before
    assert "Traceback" not in ran.stderr
    told = json.loads(ran.stdout)
    assert {one["path"]: (one["outcome"], one.get("kind", "")) for one in told["models"]} == zoo.outcomes
    assert {gap["path"]: gap["is_error"] for gap in told["gaps"]} == zoo.gaps
    assert told["counts"] == Counter(word for word, _ in zoo.outcomes.values())
    assert ran.returncode == told["exit_code"] == 4  # one was refused, and nothing is worse
    assert outcomes(out) == {path: word for path, (word, _) in zoo.outcomes.items()}
    assert tree(out) == _expected(zoo, tmp_path / "expected")
    made = {path.relative_to(out) for path in out.rglob("*") if path.is_dir() and ".onnxfix" not in path.parts}
    assert made | {Path()} == {folder for path in tree(out) for folder in Path(path).parents}
    assert hidden(out) == {"journal.sqlite", "lock"}
    assert list(scratch.iterdir()) == []


# The destination is removed, or full.


def _done(out: Path) -> int:
    try:
        return sum(row["state"] == "done" for row in journal(out).values())
    except Exception:  # it is being made
        return 0


def _remove(folder: Path) -> None:
    """Removes a folder in which others still write."""
    deadline = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < deadline
        shutil.rmtree(folder, ignore_errors=True)


def test_a_destination_that_is_removed_under_it_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (OLD, PLAIN, OLD, NEW)
    zoo = make_zoo(tmp_path / "zoo", {f"{index % 5}/{index:02}.onnx": kinds[index % 4] for index in range(40)})
    (zoo / "tokens.txt").write_text("t")
    before, out, scratch = everything(zoo), tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    words = [*ONNXFIX, "migrate", str(zoo), str(out), "--to", "silero-hc", "--jobs", "2"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        while _done(out) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        _remove(out)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 3, said
    assert said.splitlines()[0].endswith("the destination was removed while it was migrated to")
    assert "run the same command again" in said
    assert not out.exists()
    assert list(scratch.iterdir()) == []
    ran = command(zoo, out, "--to", "silero-hc", "-j", 2)
    assert ran.returncode == 0, ran.stderr
    assert tree(out).keys() == tree(zoo).keys()
    assert hidden(out) == {"journal.sqlite", "lock"}
    assert everything(zoo) == before


@pytest.mark.parametrize("files", [1, 5])
def test_it_stays_so_if_it_is_removed_while_other_files_are_copied(
    files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo, out = make_zoo(tmp_path / "zoo", {"a.onnx": PLAIN}), tmp_path / "out"
    for number in range(files):
        (zoo / f"{number}").mkdir()
        (zoo / f"{number}" / "tokens.txt").write_text("t")
    copy = local.copy_file

    def copy_and_remove(source: Path, target: Path) -> None:
        copy(source, target)
        shutil.rmtree(out)

    monkeypatch.setattr(local, "copy_file", copy_and_remove)
    with pytest.raises(ModelWriteError, match="the destination was removed"):
        migrate(survey(zoo), Request(out, TO), runner=here)
    assert not out.exists()


def test_a_journal_that_is_gone_is_no_news_where_the_destination_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo, out = make_zoo(tmp_path / "zoo", {"a.onnx": PLAIN}), tmp_path / "out"

    def fail(journal: Journal, *_: object) -> None:
        shutil.rmtree(out)
        raise JournalError("the journal cannot be used: disk I/O error")

    monkeypatch.setattr(Journal, "finish", fail)
    with pytest.raises(ModelWriteError, match="the destination was removed"):
        migrate(survey(zoo), Request(out, TO), runner=here)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_on_a_disk_that_is_full_again_and_again_it_ends_as_if_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota on the destination: what would pass it is not written; the journal alone may, and has its own below."""
    zoo = make_zoo(tmp_path / "zoo", {"a.onnx": OLD, "b/a.onnx": OLD, "n.onnx": NEW, "p.onnx": PLAIN, "z.onnx": OLD})
    with_shared_data(zoo / "s", "a.onnx", "b.onnx")
    (zoo / "tokens.txt").write_bytes(b"t" * 30_000)
    expected, out = tmp_path / "expected", tmp_path / "out"
    migrate(survey(zoo), Request(expected, TO), runner=here)
    write, copy = os.write, os.copy_file_range
    quota = 0

    def require(size: int) -> None:
        if _size(out) + size > quota:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_within(descriptor: int, content: bytes) -> int:
        require(len(content))
        return write(descriptor, content)

    def copy_within(source: int, target: int, count: int, *offsets: int) -> int:
        require(count)
        return copy(source, target, count, *offsets)

    monkeypatch.setattr(os, "write", write_within)
    monkeypatch.setattr(os, "copy_file_range", copy_within)
    stops = set()
    for quota in range(0, 1_000_000, 20_000):  # noqa: B007 (it is read above)
        try:
            migrate(survey(zoo), Request(out, TO), runner=here)
            break
        except ModelWriteError as error:
            assert error.message == "the disk is full"
            assert hidden(out) == {"journal.sqlite", "lock"}
            stops.add(len(tree(out)))
    assert len(stops) > 5  # after each of the files, or nearly
    assert (tree(out), journal(out), hidden(out)) == (tree(expected), journal(expected), hidden(expected))


def test_a_journal_that_finds_no_space_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = make_zoo(tmp_path / "zoo", {f"{index}.onnx": OLD for index in range(6)})
    expected, out = tmp_path / "expected", tmp_path / "out"
    migrate(survey(zoo), Request(expected, TO), runner=here)
    pages = 0

    class Cramped(Journal):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self._connection.execute(f"PRAGMA max_page_count = {pages}")

    monkeypatch.setattr("onnxfix.zoo.migrate.Journal", Cramped)
    stops = set()
    for pages in range(4, 100):  # noqa: B007 (it is read above)
        try:
            migrate(survey(zoo), Request(out, TO), runner=here)
            break
        except JournalError as error:
            assert "full" in error.message
            assert "the same command" in error.hint
            stops.add(len(tree(out)))
    assert len(stops) > 2
    assert (tree(out), journal(out), hidden(out)) == (tree(expected), journal(expected), hidden(expected))
