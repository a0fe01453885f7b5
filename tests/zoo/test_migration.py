"""What a migration leaves behind, and what it does not do twice; the work is done in this process."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Generator, Iterable
from pathlib import Path

import onnx
import pytest
from zoo_models import (
    NEW,
    OLD,
    OTHER,
    PLAIN,
    SAMPLES,
    TO,
    here,
    hidden,
    journal,
    make_zoo,
    outcomes,
    tree,
    with_shared_data,
)

import onnxfix
from onnxfix.errors import ModelWriteError, UsageError
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Migration, Request
from onnxfix.zoo.outcome import Failed, Skipped
from onnxfix.zoo.pool import Ended, Event
from onnxfix.zoo.preview import check
from onnxfix.zoo.settings import Change
from onnxfix.zoo.survey import survey
from onnxfix.zoo.task import Task

_DATA = Change(to=("silero-hc",), is_verified=False)


def _run(zoo: Path, out: Path | None, change: Change = TO, **request: bool) -> Migration:
    return migrate(survey(zoo, skip=out), Request(out, change, **request), runner=here)  # type: ignore[arg-type]


def _worked_on(zoo: Path, out: Path | None, change: Change = TO, **request: bool) -> list[str]:
    """Returns the models that a run works on."""
    paths: list[str] = []

    def runner(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
        for event in here(tasks, limits, most):
            if isinstance(event, Ended):
                paths.append(event.task.path)
            yield event

    migrate(survey(zoo, skip=out), Request(out, change, **request), runner=runner)  # type: ignore[arg-type]
    return paths


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    return make_zoo(tmp_path / "zoo", {"a.onnx": OLD, "sub/b.onnx": NEW})


# What is refused.


def test_results_never_stand_among_their_sources(zoo: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    (tmp_path / "link").symlink_to(zoo)
    for out, message in (
        (None, "where do the results go"),
        (zoo, "the destination is the zoo itself"),
        (tmp_path / "link", "the destination is the zoo itself"),
        (tmp_path, "the zoo lies in the destination"),
    ):
        with pytest.raises(UsageError, match=message):
            _run(zoo, out)
    (tmp_path / "link").unlink()
    assert tree(tmp_path) == before


def test_a_destination_belongs_to_one_zoo(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(zoo, out)
    other = make_zoo(tmp_path / "other", {"a.onnx": NEW})
    with pytest.raises(UsageError, match=r"holds the migration of another zoo, `.*zoo`"):
        _run(other, out)
    assert set(tree(out)) == {"a.onnx", "sub/b.onnx"}
    _run(other, out, is_fresh=True)
    assert set(tree(out)) == {"a.onnx"}


def test_a_slip_of_the_pen_shows_before_anything_is_written(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no convention is called"):
        _run(zoo, tmp_path / "out", Change(to=("nonsense",)))
    (zoo / "onnxfix.toml").write_text("[[rule]]")
    with pytest.raises(UsageError, match=r"onnxfix\.toml: rule\[0\]\.models"):
        _run(zoo, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What is left behind.


def test_a_tree_becomes_a_tree(tmp_path: Path) -> None:
    zoo = make_zoo(
        tmp_path / "zoo",
        {"a.onnx": OLD, "sub/ü\n%{x}.ONNX": OLD, "new.onnx": NEW, "plain.onnx": PLAIN, "enc.onnx": OTHER},
    )
    (zoo / "cut.onnx").write_bytes(OLD.read_bytes()[:5000])
    (zoo / "sub" / "tokens.txt").write_text("t")
    os.utime(zoo / "sub" / "tokens.txt", ns=(10**18, 10**18 + 7))
    before, out = tree(zoo), tmp_path / "out"
    migration = _run(zoo, out)
    assert outcomes(out) == {
        "a.onnx": "converted", "sub/ü\n%{x}.ONNX": "converted", "new.onnx": "unchanged", "plain.onnx": "skipped",
        "enc.onnx": "failed", "cut.onnx": "failed",
    }  # fmt: skip
    assert (migration.exit_code, migration.copied, migration.kept) == (3, 1, 0)
    after = tree(out)
    assert set(after) == {"a.onnx", "sub/ü\n%{x}.ONNX", "new.onnx", "plain.onnx", "sub/tokens.txt"}
    assert all(after[name] == before[name] for name in ("new.onnx", "plain.onnx", "sub/tokens.txt"))
    assert (out / "sub" / "tokens.txt").stat().st_mtime_ns == 10**18 + 7
    onnxfix.convert(OLD, tmp_path / "one.onnx", to="silero-hc")
    assert after["a.onnx"] == after["sub/ü\n%{x}.ONNX"] == (tmp_path / "one.onnx").read_bytes()
    assert tree(zoo) == before
    assert hidden(out) == {"journal.sqlite", "lock"}
    failures = {path: one for path, one in migration.outcomes if isinstance(one, Failed)}
    assert (failures["cut.onnx"].kind, failures["cut.onnx"].where) == ("ModelReadError", "")
    assert failures["enc.onnx"].kind == "PlanError"


def test_the_journal_has_the_proof(zoo: Path, tmp_path: Path) -> None:
    _run(zoo, tmp_path / "out")
    from onnxfix.zoo.journal import Journal

    with Journal(tmp_path / "out" / ".onnxfix" / "journal.sqlite", is_read_only=True) as found:
        facts = dict(found.outcomes())["a.onnx"].facts  # type: ignore[union-attr]
    assert facts["proof"]["exact"] is True  # type: ignore[index,call-overload]
    assert facts["proof"]["runs"][0]["ports"][0]["max_abs"][0] == 0  # type: ignore[index,call-overload]
    assert not {"seconds", "source", "destination"} & facts.keys()


def test_where_nobody_says_what_a_model_shall_become_its_successor_does(tmp_path: Path) -> None:
    zoo = make_zoo(tmp_path / "zoo", {"a.onnx": OLD, "sub/gpt.onnx": SAMPLES / "gpt2_stacked.onnx"})
    migration = _run(zoo, tmp_path / "out", Change(is_verified=False))
    assert dict(migration.outcomes)["a.onnx"] == Skipped(
        "nothing has replaced `silero-state` upstream, and nobody says what it shall become"
    )
    assert dict(migration.outcomes)["sub/gpt.onnx"].word == "converted"
    assert (tmp_path / "out" / "a.onnx").read_bytes() == OLD.read_bytes()
    # A slip of the pen is no reason to skip.
    migration = _run(zoo, tmp_path / "out", Change(sizes={"whim": 3}))
    assert {one.kind for _, one in migration.outcomes if isinstance(one, Failed)} == {"UsageError"}
    assert tree(tmp_path / "out") == {}


def test_rules_say_what_is_left_out_and_what_others_become(tmp_path: Path) -> None:
    zoo = make_zoo(tmp_path / "zoo", {"a.onnx": OLD, "keep/b.onnx": OLD, "back/c.onnx": NEW})
    (zoo / "t.txt").write_text("t")
    (zoo / "onnxfix.toml").write_text(
        '[migrate]\nonly-models = true\n[[rule]]\nmodels = "*"\nto = "silero-hc"\n'
        '[[rule]]\nmodels = "keep/*"\nexclude = true\n[[rule]]\nmodels = ["back/*", "none/*"]\nto = "silero-state"\n'
    )
    migration = _run(zoo, tmp_path / "out", Change())
    assert {path: one.word for path, one in migration.outcomes} == {
        "a.onnx": "converted", "back/c.onnx": "converted", "keep/b.onnx": "skipped",
    }  # fmt: skip
    assert migration.notes == (f"{zoo}/onnxfix.toml: rule[2].models: `none/*` names no model",)
    after = tree(tmp_path / "out")
    assert after.keys() == {"a.onnx", "keep/b.onnx", "back/c.onnx"}
    assert after["keep/b.onnx"] == OLD.read_bytes()


def test_models_may_share_a_data_file(tmp_path: Path) -> None:
    zoo, out = tmp_path / "zoo", tmp_path / "out"
    with_shared_data(zoo / "s", "a.onnx", "b.onnx", location="data/w.bin")
    (zoo / "s" / "data" / "readme").write_text("r")
    with_shared_data(zoo / "t", "a.onnx", location="w.bin")  # equal names elsewhere
    _run(zoo, out)
    assert set(tree(out)) == {
        "s/a.onnx", "s/b.onnx", "s/data/w.bin", "s/data/readme", "t/a.onnx", "t/w.bin",
    }  # fmt: skip
    for name in ("s/a.onnx", "s/b.onnx", "t/a.onnx"):
        onnx.load(out / name)
    # One of them goes: the other still needs the data. Both go: it goes as well.
    (zoo / "s" / "a.onnx").write_bytes(b"\x08")
    _run(zoo, out)
    assert {"s/b.onnx", "s/data/w.bin"} <= set(tree(out))
    assert "s/a.onnx" not in tree(out)
    (zoo / "s" / "b.onnx").write_bytes(b"\x08")
    _run(zoo, out, only_models=True)
    assert set(tree(out)) == {"s/data/readme", "t/a.onnx", "t/w.bin"}


def test_data_outside_the_zoo_and_missing_data_are_failures(tmp_path: Path) -> None:
    zoo, out = tmp_path / "zoo", tmp_path / "out"
    with_shared_data(zoo, "away.onnx", location="w.bin")
    (zoo / "w.bin").rename(tmp_path / "w.bin")
    with_shared_data(zoo, "missing.onnx", location="gone.bin")
    (zoo / "gone.bin").unlink()
    (zoo / "w.bin").symlink_to(tmp_path / "w.bin")
    migration = _run(zoo, out)
    assert {path: one.kind for path, one in migration.outcomes if isinstance(one, Failed)} == {
        "away.onnx": "DataFileError", "missing.onnx": "DataFileError",
    }  # fmt: skip
    assert not [name for name in tree(out) if name.endswith(".onnx")]
    shutil.copyfile(tmp_path / "w.bin", zoo / "gone.bin")  # mended: what failed is tried again
    _run(zoo, out)
    assert outcomes(out)["missing.onnx"] == "converted"


# What is done again, and what is not.


def test_once_more_nothing_is_done(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(zoo, out)
    before, rows = tree(out), journal(out)
    os.utime(zoo / "a.onnx")  # touched, and the same
    os.utime(out / "sub" / "b.onnx")
    assert _worked_on(zoo, out) == []
    assert (tree(out), journal(out)) == (before, rows)
    migration = _run(zoo, out)
    assert (migration.kept, len(migration.outcomes), migration.copied) == (2, 2, 0)


def test_what_is_not_so_any_more_is_done_again(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with_shared_data(zoo, "c.onnx")
    _run(zoo, out, _DATA)
    before = tree(out)
    (out / "a.onnx").write_bytes(b"edited")
    (out / "sub" / "b.onnx").unlink()
    assert _worked_on(zoo, out, _DATA) == ["a.onnx", "sub/b.onnx"]
    notes = {path: row["notes"] for path, row in journal(out).items()}
    assert (notes["a.onnx"], notes["sub/b.onnx"]) == (
        '["its result `a.onnx` was edited"]', '["its result `sub/b.onnx` was deleted"]',
    )  # fmt: skip
    (out / "weights.bin").write_bytes(b"edited")
    assert _worked_on(zoo, out, _DATA) == ["c.onnx"]
    assert tree(out) == before
    shutil.copyfile(NEW, zoo / "a.onnx")
    os.utime(zoo / "weights.bin")  # of data, the times count: it may be large
    assert _worked_on(zoo, out, _DATA) == ["a.onnx", "c.onnx"]
    assert tree(out)["a.onnx"] == NEW.read_bytes()
    assert _worked_on(zoo, out, Change(to=("silero-hc",))) == ["a.onnx", "c.onnx", "sub/b.onnx"]
    monkeypatch.setattr("onnxfix.zoo.migrate.__version__", "99")
    assert len(_worked_on(zoo, out, Change(to=("silero-hc",)))) == 3


def test_what_failed_is_tried_again_and_what_fails_now_is_not_left_there(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(zoo, out)
    (zoo / "a.onnx").write_bytes(b"\x08\x08")
    assert _worked_on(zoo, out) == ["a.onnx"]
    assert set(tree(out)) == {"sub/b.onnx"}
    assert _worked_on(zoo, out) == ["a.onnx"]
    shutil.copyfile(OLD, zoo / "a.onnx")
    _run(zoo, out)
    assert set(tree(out)) == {"a.onnx", "sub/b.onnx"}


def test_models_come_and_go(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(zoo, out)
    (zoo / "a.onnx").rename(zoo / "z.onnx")
    migration = _run(zoo, out)
    assert [path for path, _ in migration.outcomes] == ["sub/b.onnx", "z.onnx"]
    assert migration.notes == ("1 model of earlier runs is not in the zoo any more; what was made of them stays",)
    assert set(tree(out)) == {"a.onnx", "sub/b.onnx", "z.onnx"}


# Disks and folders.


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, expected = tmp_path / "out", tmp_path / "expected"
    make_zoo(zoo, {"z.onnx": OLD})
    _run(zoo, expected)
    monkeypatch.setenv("ONNXFIX_TEST_FAULT", "full:b.onnx")
    with pytest.raises(ModelWriteError, match="the disk is full") as caught:
        _run(zoo, out)
    assert "goes on where it stopped" in caught.value.hint
    assert set(tree(out)) == {"a.onnx"}
    assert hidden(out) == {"journal.sqlite", "lock"}
    monkeypatch.delenv("ONNXFIX_TEST_FAULT")
    assert _worked_on(zoo, out) == ["sub/b.onnx", "z.onnx"]
    assert (tree(out), journal(out)) == (tree(expected), journal(expected))


def test_a_destination_that_is_removed_meanwhile_does_not_come_back(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def runner(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
        for event in here(tasks, limits, most):
            if isinstance(event, Ended):
                shutil.rmtree(out)
            yield event

    with pytest.raises(ModelWriteError, match="the destination was removed"):
        migrate(survey(zoo), Request(out, TO), runner=runner)
    assert not out.exists()
    _run(zoo, out)
    assert set(tree(out)) == {"a.onnx", "sub/b.onnx"}


def test_what_stands_in_the_way_is_a_failure_of_that_model(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sub").write_text("in the way")
    (zoo / "sub" / "t.txt").write_text("t")
    migration = _run(zoo, out)
    assert {path: one.word for path, one in migration.outcomes} == {"a.onnx": "converted", "sub/b.onnx": "failed"}
    assert [(gap.path, gap.is_error) for gap in migration.gaps] == [("sub/t.txt", True)]
    (out / "sub").unlink()
    _run(zoo, out)
    assert set(tree(out)) == {"a.onnx", "sub/b.onnx", "sub/t.txt"}


def test_a_source_that_changes_meanwhile_is_a_failure(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("onnxfix.convert")
    whole = module.convert

    def meanwhile(source: Path, *args: object, **options: object) -> object:
        report = whole(source, *args, **options)  # type: ignore[arg-type]
        source.write_bytes(source.read_bytes() + b"x")
        return report

    monkeypatch.setattr(module, "convert", meanwhile)
    migration = _run(zoo, tmp_path / "out")
    assert {one.kind for _, one in migration.outcomes if isinstance(one, Failed)} == {"SourceChanged"}
    assert tree(tmp_path / "out") == {}


def test_another_disk_below_the_destination_is_copied_to(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if ".onnxfix" in path.parts and "stage" in path.parts and "stage" not in Path(target).parts:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    _run(zoo, tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {"a.onnx", "sub/b.onnx"}
    assert hidden(tmp_path / "out") == {"journal.sqlite", "lock"}


# Checking.


def test_checking_says_what_would_change_and_writes_nothing(zoo: Path, tmp_path: Path) -> None:
    make_zoo(zoo, {"plain.onnx": PLAIN})
    (zoo / "cut.onnx").write_bytes(b"\x08")
    before, out = tree(tmp_path), tmp_path / "out"
    request = Request(out, TO)
    words = {path: one.word for path, one in check(survey(zoo), request, runner=here).outcomes}
    assert words == {
        "a.onnx": "would-change", "sub/b.onnx": "unchanged", "plain.onnx": "skipped", "cut.onnx": "failed",
    }  # fmt: skip
    assert tree(tmp_path) == before
    (zoo / "cut.onnx").unlink()
    assert check(survey(zoo), request, runner=here).exit_code == 1
    _run(zoo, out)
    rows = journal(out)
    after = check(survey(zoo), request, runner=here)
    assert (after.exit_code, after.kept, after.outcomes) == (0, 3, ())
    shutil.copyfile(OLD, zoo / "new.onnx")
    assert check(survey(zoo), request, runner=here).exit_code == 1
    assert journal(out) == rows


def test_models_that_others_have_put_there_are_not_replaced(zoo: Path, tmp_path: Path) -> None:
    out = make_zoo(tmp_path / "out", {"sub/b.onnx": NEW})
    (out / "mine.txt").write_text("mine")
    before = tree(out)
    with pytest.raises(UsageError, match=r"files stand where results go that no migration has made: `sub/b\.onnx`"):
        _run(zoo, out)
    assert tree(out) == before
    assert not (out / ".onnxfix").exists()
    assert _run(zoo, out, is_fresh=True).counts["converted"]
    assert tree(out).keys() == {*tree(zoo), "mine.txt"}


def test_of_a_migration_that_goes_on_it_is_the_same(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(zoo, out)
    shutil.copyfile(OLD, zoo / "z.onnx")
    shutil.copyfile(PLAIN, out / "z.onnx")
    with pytest.raises(UsageError, match=r"`z\.onnx`"):
        _run(zoo, out)
    assert (out / "z.onnx").read_bytes() == PLAIN.read_bytes()
    (out / "z.onnx").unlink()
    assert _run(zoo, out).exit_code == 0


def test_data_that_others_have_put_there_is_not_replaced(tmp_path: Path) -> None:
    zoo, out = tmp_path / "zoo", tmp_path / "out"
    with_shared_data(zoo, "a.onnx")
    out.mkdir()
    (out / "weights.bin").write_text("mine")
    failed = dict(_run(zoo, out, _DATA).outcomes)["a.onnx"]
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.where) == ("ModelWriteError", "weights.bin")
    assert tree(out) == {"weights.bin": b"mine"}
    (out / "weights.bin").write_bytes((zoo / "weights.bin").read_bytes())  # the same is no reason
    assert _run(zoo, out, _DATA).counts == {"converted": 1}


def test_other_files_that_were_edited_there_stay_and_are_told(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (zoo / "config.json").write_text("1")
    (zoo / "other.json").write_text("1")
    out.mkdir()
    (out / "other.json").write_text("mine")
    first = _run(zoo, out)
    assert [(gap.path, gap.is_error) for gap in first.gaps] == [("other.json", False)]
    (zoo / "config.json").write_text("22")  # changed where it comes from: copied again
    assert (_run(zoo, out).copied, (out / "config.json").read_text()) == (1, "22")
    (out / "config.json").write_text("tuned")
    again = _run(zoo, out)
    assert [gap.path for gap in again.gaps] == ["config.json", "other.json"]
    assert ((out / "config.json").read_text(), (out / "other.json").read_text()) == ("tuned", "mine")


def test_models_that_are_gone_and_left_nothing_are_forgotten(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (zoo / "cut.onnx").write_bytes(b"\x08\x08")
    shutil.copyfile(OLD, zoo / "z.onnx")
    assert _run(zoo, out).exit_code == 3
    (zoo / "cut.onnx").unlink()
    (zoo / "z.onnx").unlink()
    again = _run(zoo, out)
    told = "1 model of earlier runs is not in the zoo any more; what was made of them stays"
    assert (again.exit_code, again.notes) == (0, (told,))
    assert "cut.onnx" not in journal(out)
    assert "z.onnx" in journal(out)
