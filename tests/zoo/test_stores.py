"""Zoos and destinations that are no folders of this machine: the same road, the same tree, the same journal."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path

import fsspec
import onnx
import pytest
from distant import everything, register, shown, told, unseen, upload
from zoo_models import NEW, OLD, PLAIN, TO, here, journal, make_zoo, tree, with_shared_data

from onnxfix.zoo.here import run_here
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Migration, Request
from onnxfix.zoo.outcome import Failed
from onnxfix.zoo.pool import Ended, Event
from onnxfix.zoo.preview import check
from onnxfix.zoo.proving import prove
from onnxfix.zoo.settings import Change
from onnxfix.zoo.survey import survey
from onnxfix.zoo.task import Task

ZOO, OUT = "memory://bucket/zoo", "memory://bucket/out"
_QUICK = Change(to=("silero-hc",), is_verified=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a zoo in a folder; the same lies in memory."""
    fsspec.filesystem("memory").store.clear()
    register()
    zoo = make_zoo(tmp_path / "zoo", {"a.onnx": OLD, "sub/new.onnx": NEW, "p [1] ü%*?.onnx": PLAIN})
    with_shared_data(zoo / "s", "x.onnx", "y.onnx", location="data/w.bin")
    (zoo / "cut.onnx").write_bytes(b"\x08\x08")
    (zoo / "sub" / "tokens.txt").write_text("t")
    (zoo / "onnxfix.toml").write_text('[[rule]]\nmodels = "a.onnx"\nticks = 9')
    upload(zoo, ZOO)
    return zoo


def _migrate(zoo: str | Path, out: str | Path, home: Path, change: Change = _QUICK, **request: bool) -> Migration:
    return migrate(survey(zoo, skip=out), Request(out, change, home=home, **request))  # type: ignore[arg-type]


def _worked_on(zoo: str | Path, out: str | Path, home: Path) -> list[str]:
    """Returns the models that a run works on."""
    paths: list[str] = []

    def runner(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
        for event in run_here(tasks, limits, most):
            if isinstance(event, Ended):
                paths.append(event.task.path)
            yield event

    migrate(survey(zoo, skip=out), Request(out, _QUICK, home=home), runner=runner)
    return paths


def test_wherever_they_lie_a_tree_becomes_the_same_tree(folder: Path, tmp_path: Path) -> None:
    here_out, there_out = tmp_path / "here", tmp_path / "there"
    migrate(survey(folder), Request(here_out, TO), runner=here)
    before, expected = everything(ZOO), tree(here_out)
    assert len(expected) == 7
    migration = _migrate(ZOO, OUT, tmp_path / "home", TO)
    assert (migration.exit_code, migration.copied, migration.kept) == (3, 1, 0)
    assert (migration.root, migration.out) == (ZOO, OUT)
    assert (shown(OUT), told(OUT, tmp_path), unseen(OUT)) == (expected, journal(here_out), {"journal.sqlite"})
    (failed,) = [one for _, one in migration.outcomes if isinstance(one, Failed)]
    assert (failed.kind, failed.where) == ("ModelReadError", "")
    _migrate(ZOO, there_out, tmp_path / "home", TO)
    assert (tree(there_out), journal(there_out)) == (expected, journal(here_out))
    migrate(survey(folder), Request(f"{OUT}2", TO, home=tmp_path / "home"), runner=run_here)
    assert (shown(f"{OUT}2"), told(f"{OUT}2", tmp_path)) == (expected, journal(here_out))
    assert everything(ZOO) == before == {**tree(folder)}
    onnx.load(there_out / "s" / "x.onnx")


def test_a_place_is_a_folder_a_file_or_a_glob(folder: Path) -> None:
    def models(place: str, skip: str = "") -> tuple[str, list[str]]:
        found = survey(place, skip=skip)
        return found.zoo.place, [member.path for member in found.models]

    all_ = ["a.onnx", "cut.onnx", "p [1] ü%*?.onnx", "s/x.onnx", "s/y.onnx", "sub/new.onnx"]
    assert models(ZOO) == models(f"{ZOO}/") == (ZOO, all_)
    others = [f"zoo/{path}" for path in all_ if not path.startswith("s/")]
    assert models("memory://bucket", f"{ZOO}/s") == ("memory://bucket", others)
    assert models(f"{ZOO}/s/x.onnx") == (f"{ZOO}/s", ["x.onnx"])
    assert models(f"{ZOO}/p [1] ü%*?.onnx") == (ZOO, ["p [1] ü%*?.onnx"])  # a name that looks like a glob
    assert models(f"{ZOO}/*.onnx") == (ZOO, ["a.onnx", "cut.onnx", "p [1] ü%*?.onnx"])
    assert models(f"{ZOO}/**/[xn]*.onnx") == (ZOO, ["s/x.onnx", "sub/new.onnx"])
    assert models(f"file://{folder}") == (str(folder), all_)
    assert {member.path for member in survey(ZOO).members} - {*all_} == {"s/data/w.bin", "sub/tokens.txt"}


def test_names_that_lead_elsewhere_are_not_followed(folder: Path, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for name in ("../../up.onnx", "x/../b.txt", "./c.onnx"):
        system.store[f"/bucket/zoo/{name}"] = system.store["/bucket/zoo/a.onnx"]
    system.pipe_file("/bucket/w.bin", b"not of the zoo")
    gaps = {gap.path: gap.is_error for gap in survey(ZOO).gaps}
    assert gaps == {"../../up.onnx": True, "x/../b.txt": False, "./c.onnx": True}
    with_shared_data(tmp_path / "m", "m.onnx", location="../w.bin")
    system.pipe_file("/bucket/zoo/m.onnx", (tmp_path / "m" / "m.onnx").read_bytes())
    migration = _migrate(ZOO, tmp_path / "out", tmp_path / "home")
    kinds = {path: one.kind for path, one in migration.outcomes if isinstance(one, Failed)}
    assert kinds == {"cut.onnx": "ModelReadError", "m.onnx": "DataFileError"}
    assert migration.exit_code == 3
    assert not list(tmp_path.rglob("up.onnx"))


# What is done again, and what is not.


@pytest.mark.parametrize("out", [OUT, "here"])
def test_once_more_nothing_is_done_wherever_it_goes_on(folder: Path, tmp_path: Path, out: str) -> None:
    place = tmp_path / out if out == "here" else out
    _migrate(ZOO, place, tmp_path / "one")
    for home in ("one", "two", "one"):  # another machine, and back again
        assert _worked_on(ZOO, place, tmp_path / home) == ["cut.onnx"]  # what failed is tried again
        assert _migrate(ZOO, place, tmp_path / home).copied == 0


def test_what_is_not_so_any_more_is_done_again(folder: Path, tmp_path: Path) -> None:
    system, home = fsspec.filesystem("memory"), tmp_path / "home"
    _migrate(ZOO, OUT, home)
    before = shown(OUT)
    system.pipe_file("/bucket/out/a.onnx", b"edited")
    system.rm_file("/bucket/out/sub/new.onnx")
    system.pipe_file("/bucket/out/s/data/w.bin", b"edited")
    assert _worked_on(ZOO, OUT, home) == ["a.onnx", "cut.onnx", "s/x.onnx", "s/y.onnx", "sub/new.onnx"]
    assert shown(OUT) == before
    system.pipe_file("/bucket/zoo/a.onnx", OLD.read_bytes())  # written anew, and the same
    system.pipe_file("/bucket/zoo/sub/tokens.txt", b"T")
    assert _worked_on(ZOO, OUT, home) == ["cut.onnx"]
    assert shown(OUT)["sub/tokens.txt"] == b"T"
    # What fails now goes, and so does its data when nobody needs it any more.
    system.pipe_file("/bucket/zoo/s/x.onnx", b"\x08")
    _migrate(ZOO, OUT, home)
    assert {"s/y.onnx", "s/data/w.bin"} == {path for path in shown(OUT) if path.startswith("s/")}
    system.pipe_file("/bucket/zoo/s/y.onnx", b"\x08")
    _migrate(ZOO, OUT, home, only_models=True)
    assert not [path for path in shown(OUT) if path.startswith("s/")]
    _migrate(ZOO, OUT, home, is_fresh=True)
    assert unseen(OUT) == {"journal.sqlite"}


def test_where_two_machines_have_migrated_the_later_one_is_believed(folder: Path, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    _migrate(ZOO, OUT, tmp_path / "one")
    system.pipe_file("/bucket/zoo/a.onnx", b"\x08")
    _migrate(ZOO, OUT, tmp_path / "two")
    assert "a.onnx" not in shown(OUT)
    system.pipe_file("/bucket/zoo/a.onnx", OLD.read_bytes())
    assert _worked_on(ZOO, OUT, tmp_path / "one") == ["a.onnx", "cut.onnx"]
    # One that is lost before it hands its journal over loses nothing but that.
    system.rm("/bucket/out", recursive=True)
    assert set(_worked_on(ZOO, OUT, tmp_path / "one")) >= {"a.onnx", "s/x.onnx"}


def test_checking_and_proving(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    request = Request(OUT, TO, home=home)
    before = everything("memory://bucket")
    words = {path: one.word for path, one in check(survey(ZOO), request).outcomes}
    assert words["a.onnx"] == words["s/x.onnx"] == "would-change"
    assert everything("memory://bucket") == before
    assert not home.exists()
    _migrate(ZOO, OUT, home, Change(to=("silero-hc",), is_recorded=True))
    before = everything("memory://bucket")
    for other in (home, tmp_path / "other"):
        assert check(survey(ZOO), Request(OUT, Change(to=("silero-hc",), is_recorded=True), home=other)).kept == 5
        proven = prove(OUT, Limits(), home=other)
        assert {path: one.word for path, one in proven.outcomes} == dict.fromkeys(
            ("a.onnx", "s/x.onnx", "s/y.onnx"), "verified"
        )
    assert everything("memory://bucket") == before
    fsspec.filesystem("memory").rm("/bucket/zoo", recursive=True)
    against = {path: one.against for path, one in prove(OUT, Limits(), home=home).outcomes}  # type: ignore[union-attr]
    assert set(against.values()) == {"trace"}
    fsspec.filesystem("memory").pipe_file("/bucket/out/a.onnx", b"edited")
    failed = dict(prove(OUT, Limits(), home=home).outcomes)["a.onnx"]
    assert isinstance(failed, Failed)
    assert failed.kind == "ResultChanged"


def test_the_command_takes_urls(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from onnxfix.cli.main import main

    state = ["--state", str(tmp_path / "home")]
    assert main(["migrate", ZOO, OUT, "--to", "silero-hc", "--no-verify", *state]) == 3
    assert f"report  {OUT}/.onnxfix/report.html" in capsys.readouterr().err
    reports = {path for path in everything(OUT) if path.startswith(".onnxfix/")}
    assert reports == {
        f".onnxfix/{name}" for name in ("journal.sqlite", "report.html", "report.json", "report.csv", "junit.xml")
    }
    fsspec.filesystem("memory").rm_file("/bucket/out/.onnxfix/report.html")
    assert main(["report", OUT, "--state", str(tmp_path / "other")]) == 0
    assert f"wrote {OUT}/.onnxfix/report.html" in capsys.readouterr().err
    assert b"a.onnx" in everything(OUT)[".onnxfix/report.html"]
    assert main(["report", OUT, "--csv", str(tmp_path / "t.csv"), *state]) == 0
    assert "s/x.onnx" in (tmp_path / "t.csv").read_text()
    assert main(["migrate", "--verify-only", OUT, *state]) == 0
    assert main(["migrate", ZOO, str(tmp_path / "out"), "--check", "--to", "silero-hc"]) == 3
    assert told(OUT, tmp_path)["a.onnx"]["outcome"] == "converted"
