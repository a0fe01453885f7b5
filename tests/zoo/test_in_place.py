"""A zoo that is migrated in place, and a migration that is proven again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from filelock import FileLock
from zoo_models import NEW, OLD, PLAIN, TO, here, hidden, journal, make_zoo, tree, with_shared_data

from onnxfix.cli.main import main
from onnxfix.errors import UsageError
from onnxfix.model.atomic import hidden_name
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Migration, Request
from onnxfix.zoo.outcome import Failed, Refused, Verified
from onnxfix.zoo.proving import prove
from onnxfix.zoo.settings import Change, Settings
from onnxfix.zoo.survey import survey
from onnxfix.zoo.task import Aim, Task
from onnxfix.zoo.work import work_on

_BACK = Change(to=("silero-state",))


def _in_place(zoo: Path, change: Change = TO, **request: bool) -> Migration:
    return migrate(survey(zoo), Request(None, change, is_in_place=True, **request), runner=here)  # type: ignore[arg-type]


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    zoo = make_zoo(tmp_path / "zoo", {"a.onnx": OLD, "sub/b.onnx": NEW, "plain.onnx": PLAIN})
    with_shared_data(zoo / "shared", "c.onnx", "d.onnx")
    (zoo / "cut.onnx").write_bytes(b"\x08\x08")
    (zoo / "t.txt").write_text("t")
    return zoo


def test_results_take_the_places_of_their_sources_and_these_are_kept(zoo: Path, tmp_path: Path) -> None:
    before = tree(zoo)
    nodes = {name: (zoo / name).stat().st_ino for name in ("sub/b.onnx", "plain.onnx", "shared/weights.bin")}
    (tmp_path / "out").mkdir()
    migration = _in_place(zoo)
    assert {path: one.word for path, one in migration.outcomes} == {
        "a.onnx": "converted", "sub/b.onnx": "unchanged", "plain.onnx": "skipped", "shared/c.onnx": "converted",
        "shared/d.onnx": "converted", "cut.onnx": "failed",
    }  # fmt: skip
    changed = {"a.onnx", "shared/c.onnx", "shared/d.onnx"}
    after = tree(zoo)
    assert {name for name in before if before[name] != after[name]} == changed
    assert after.keys() == before.keys()
    assert nodes == {name: (zoo / name).stat().st_ino for name in nodes}
    assert tree(zoo / ".onnxfix" / "backup") == {}  # nothing else is hidden
    for name in changed:
        assert (zoo / ".onnxfix" / "backup" / name).read_bytes() == before[name]
        onnx.load(zoo / name)
    folders = {"backup", "backup/shared"}
    assert hidden(zoo) == {"journal.sqlite", "lock", *(f"backup/{name}" for name in changed)} | folders
    assert migration.copied == 0


def test_once_more_nothing_is_done_and_another_convention_starts_from_what_is_there(zoo: Path) -> None:
    before = tree(zoo)
    _in_place(zoo)
    after, rows = tree(zoo), journal(zoo)
    migration = _in_place(zoo)
    assert (migration.kept, tree(zoo), journal(zoo)) == (5, after, rows)
    _in_place(zoo, _BACK)
    assert (zoo / ".onnxfix" / "backup" / "a.onnx").read_bytes() == before["a.onnx"]  # the first one stays
    assert not (zoo / ".onnxfix" / "backup" / "a.onnx.1").exists()
    shutil.copyfile(NEW, zoo / "a.onnx")  # a new model in its place is kept too
    _in_place(zoo, _BACK)
    assert (zoo / ".onnxfix" / "backup" / "a.onnx.1").read_bytes() == NEW.read_bytes()


def test_a_failure_leaves_the_model_as_it_is(zoo: Path) -> None:
    _in_place(zoo)
    (zoo / "a.onnx").write_bytes(b"\x08")
    migration = _in_place(zoo)
    assert isinstance(dict(migration.outcomes)["a.onnx"], Failed)
    assert (zoo / "a.onnx").read_bytes() == b"\x08"


def test_a_link_becomes_a_file_and_what_it_led_to_stays(tmp_path: Path) -> None:
    zoo, blob = make_zoo(tmp_path / "zoo", {}), tmp_path / "blob"
    shutil.copyfile(OLD, blob)
    (zoo / "a.onnx").symlink_to(blob)
    _in_place(zoo)
    assert blob.read_bytes() == OLD.read_bytes()
    assert not (zoo / "a.onnx").is_symlink()
    assert (zoo / ".onnxfix" / "backup" / "a.onnx").read_bytes() == OLD.read_bytes()


def test_without_a_backup_nothing_is_kept(zoo: Path) -> None:
    _in_place(zoo, has_backup=False)
    assert hidden(zoo) == {"journal.sqlite", "lock"}
    with pytest.raises(UsageError, match="nothing was migrated here"):
        prove(zoo / "sub", Limits(), runner=here)


# Proven again.


def test_a_migration_is_proven_again_against_its_originals(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    migrate(survey(zoo), Request(out, TO), runner=here)
    before, rows = tree(tmp_path), journal(out)
    found = prove(out, Limits(), runner=here)
    assert {path: one.word for path, one in found.outcomes} == {
        "a.onnx": "verified", "shared/c.onnx": "verified", "shared/d.onnx": "verified",
    }  # fmt: skip
    assert found.exit_code == 0
    assert (tree(tmp_path), journal(out)) == (before, rows)
    (out / "a.onnx").write_bytes((out / "a.onnx").read_bytes() + b"x")
    (zoo / "shared" / "c.onnx").unlink()
    shutil.copyfile(PLAIN, zoo / "shared" / "d.onnx")
    found = prove(out, Limits(), runner=here)
    kinds = {path: one.kind for path, one in found.outcomes if isinstance(one, Failed | Refused)}
    assert kinds == {
        "a.onnx": "ResultChanged", "shared/c.onnx": "VacuousCheck", "shared/d.onnx": "VacuousCheck",
    }  # fmt: skip
    assert found.exit_code == 4


def test_where_the_originals_are_gone_recorded_runs_stand_in(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    migrate(survey(zoo), Request(out, Change(to=("silero-hc",), is_recorded=True)), runner=here)
    assert (out / ".onnxfix" / "traces" / "shared" / "c.onnx.npz").is_file()
    (zoo / "a.onnx").unlink()
    found = dict(prove(out, Limits(), runner=here).outcomes)
    against = {path: one.against for path, one in found.items() if isinstance(one, Verified)}
    assert against == {"a.onnx": "trace", "shared/c.onnx": "original", "shared/d.onnx": "original"}


def test_in_place_the_backups_are_the_originals(zoo: Path) -> None:
    _in_place(zoo)
    found = dict(prove(zoo, Limits(), runner=here).outcomes)
    assert isinstance(found["a.onnx"], Verified)
    assert found["a.onnx"].against == "original"


def test_in_place_an_original_is_driven_with_the_data_files_that_it_shares(zoo: Path) -> None:
    with_shared_data(zoo / "far", "e.onnx", location="weights/w.bin")
    _in_place(zoo)
    before, kept = _all(zoo), zoo / ".onnxfix" / "backup" / "far" / "e.onnx"
    assert {path: one.word for path, one in prove(zoo, Limits(), runner=here).outcomes} == dict.fromkeys(
        ("a.onnx", "far/e.onnx", "shared/c.onnx", "shared/d.onnx"), "verified"
    )
    assert _all(zoo) == before
    assert kept.stat().st_nlink == 1
    (zoo / "far" / "weights" / "w.bin").unlink()
    failed = dict(prove(zoo, Limits(), runner=here).outcomes)["far/e.onnx"]
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.where) == ("DataFileError", str(kept))
    assert ".onnxfix-" not in failed.message + failed.hint


def test_a_link_that_a_process_has_left_beside_a_result_is_swept(zoo: Path) -> None:
    _in_place(zoo)
    before = _all(zoo)
    left = hidden_name(zoo / "shared" / "c.onnx")
    os.link(zoo / ".onnxfix" / "backup" / "shared" / "c.onnx", left)
    prove(zoo, Limits(), runner=here)
    assert _all(zoo) == before


def _all(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_where_nothing_can_be_written_it_is_proven_all_the_same(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_shared_data(zoo / "far", "e.onnx", location="weights/w.bin")
    _in_place(zoo)
    before = _all(zoo)
    _make_read_only(zoo, monkeypatch)
    assert set(_words(prove(zoo, Limits(), runner=here)).values()) == {"verified"}
    assert _all(zoo) == before
    with FileLock(zoo / ".onnxfix" / "lock"), pytest.raises(UsageError, match="another migration is at work"):
        prove(zoo, Limits(), runner=here)
    (zoo / ".onnxfix" / "lock").unlink()
    assert set(_words(prove(zoo, Limits(), runner=here)).values()) == {"verified"}
    assert not (zoo / ".onnxfix" / "lock").exists()


def _make_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a folder seem to lie on a file system that is read-only, for root too."""
    link, copy, access = os.link, shutil.copyfile, os.access

    def refused(real: Callable[..., object]) -> Callable[..., object]:
        def call(source: Path, target: Path) -> object:
            if target.is_relative_to(folder):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(target))
            return real(source, target)

        return call

    monkeypatch.setattr(os, "link", refused(link))
    monkeypatch.setattr(shutil, "copyfile", refused(copy))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))


def _words(migration: Migration) -> dict[str, str]:
    return {path: one.word for path, one in migration.outcomes}


@pytest.mark.parametrize("name", ["a.onnx", "shared/weights.bin"])
def test_a_byte_that_was_turned_over_under_the_same_time_is_noticed(zoo: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    migrate(survey(zoo), Request(out, TO), runner=here)
    status, content = (out / name).stat(), bytearray((out / name).read_bytes())
    content[-1] ^= 1
    (out / name).write_bytes(content)
    os.utime(out / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    failed = {path: one for path, one in prove(out, Limits(), runner=here).outcomes if isinstance(one, Failed)}
    assert set(failed) == ({"a.onnx"} if name == "a.onnx" else {"shared/c.onnx", "shared/d.onnx"})
    assert {one.kind for one in failed.values()} == {"ResultChanged"}


def test_where_nothing_was_converted_that_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo, out = make_zoo(tmp_path / "zoo", {"b.onnx": NEW, "plain.onnx": PLAIN}), tmp_path / "out"
    migrate(survey(zoo), Request(out, TO), runner=here)
    assert main(["migrate", "--verify-only", str(out)]) == 0
    told = capsys.readouterr().err
    assert "no model was converted here: there is nothing to prove" in told
    assert "no models" not in told


def test_what_is_told_of_a_failure_names_files_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed = work_on(Task("nope.onnx", "zoo/nope.onnx", "", Settings(), Aim.CHECK)).outcome
    assert isinstance(failed, Failed)
    assert failed.where == ""  # the model itself
    assert "zoozoo" not in failed.message + failed.hint
    kept = "zoo/.onnxfix/backup/d/a.onnx"
    failed = work_on(
        Task("d/a.onnx", "zoo/d/a.onnx", "", Settings(), Aim.VERIFY, is_in_place=True, against=kept)
    ).outcome
    assert isinstance(failed, Failed)
    assert failed.where == kept


def test_in_place_without_a_backup_a_recorded_run_proves(tmp_path: Path) -> None:
    zoo = make_zoo(tmp_path / "zoo", {"a.onnx": OLD})
    _in_place(zoo, Change(to=("silero-hc",), is_recorded=True), has_backup=False)
    assert hidden(zoo) == {"journal.sqlite", "lock", "traces", "traces/a.onnx.npz"}
    found = dict(prove(zoo, Limits(), runner=here).outcomes)
    assert isinstance(found["a.onnx"], Verified)
    assert found["a.onnx"].against == "trace"
