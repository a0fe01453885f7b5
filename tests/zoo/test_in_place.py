"""A zoo that is migrated in place, and a migration that is proven again."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from zoo_models import NEW, OLD, PLAIN, TO, here, hidden, journal, make_zoo, tree, with_shared_data

from onnxfix.errors import UsageError
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Migration, Request
from onnxfix.zoo.outcome import Failed, Refused, Verified
from onnxfix.zoo.proving import prove
from onnxfix.zoo.settings import Change
from onnxfix.zoo.survey import survey

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


def test_in_place_without_a_backup_a_recorded_run_proves(tmp_path: Path) -> None:
    zoo = make_zoo(tmp_path / "zoo", {"a.onnx": OLD})
    _in_place(zoo, Change(to=("silero-hc",), is_recorded=True), has_backup=False)
    assert hidden(zoo) == {"journal.sqlite", "lock", "traces", "traces/a.onnx.npz"}
    found = dict(prove(zoo, Limits(), runner=here).outcomes)
    assert isinstance(found["a.onnx"], Verified)
    assert found["a.onnx"].against == "trace"
