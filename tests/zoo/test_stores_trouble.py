"""What is refused of remote places, who may migrate there, and what a place does that breaks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import fsspec
import pytest
from distant import Shaky, everything, register, shown, told, unseen, upload
from made_up import made_up_runner
from zoo_models import tree

from onnxfix.cli.main import main
from onnxfix.errors import ModelWriteError, OnnxfixError, UsageError
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Migration, Request
from onnxfix.zoo.pool import Event
from onnxfix.zoo.proving import prove
from onnxfix.zoo.stores import lease
from onnxfix.zoo.stores.places import open_store
from onnxfix.zoo.stores.remote import RemoteStore
from onnxfix.zoo.stores.store import StoreError
from onnxfix.zoo.survey import read_list, survey, survey_files
from onnxfix.zoo.task import Task

ZOO, OUT = "shaky://zoo", "shaky://out"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a zoo of made-up models in a folder; the same lies in memory."""
    register()
    Shaky.store.clear()
    Shaky.left = -1
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    for name in ("f.onnx", "k.onnx", "m.onnx", "s1.onnx", "s2.onnx", "t.txt"):
        (zoo / name).write_bytes(name.encode())
    (zoo / "w.bin").write_bytes(b"weights")
    upload(zoo, ZOO)
    return zoo


def _migrate(zoo: str | Path, out: str | Path, home: Path, **request: bool) -> Migration:
    return migrate(survey(zoo, skip=out), Request(out, home=home, **request), runner=made_up_runner)  # type: ignore[arg-type]


# What is refused.


def test_what_is_no_place_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Install absent_package to read absent://"
    fsspec.register_implementation("absent", "absent_package.FileSystem", errtxt=text, clobber=True)
    for place, message, hint in (
        ("nonsense://bucket/x", "nobody knows `nonsense://`", "fsspec"),
        ("absent://bucket/x", "Install absent_package to read absent://", "pip install"),
        ("shaky://", "this is no URL of a folder", "BUCKET"),
        ("zip://a.zip::shaky://zoo", "this is no URL of a folder", "BUCKET"),
        ("shaky://nothing/there", "there is no such folder, file or glob", "bucket"),
        ("shaky://zoo/*.none", "no file has such a name", "quote"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            survey(place)
        assert (caught.value.where, hint in caught.value.hint) == (place, True), place
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UsageError, match="a package is missing for `shaky://`") as caught:
        survey(ZOO)
    assert "pip install 'onnxfix[remote]'" in caught.value.hint
    with pytest.raises(UsageError, match="a list names files of this machine"):
        survey_files(read_list(f"{folder}/f.onnx\n{ZOO}/m.onnx"))


def test_results_never_stand_among_their_sources(folder: Path, tmp_path: Path) -> None:
    before = everything("shaky://")
    for zoo, out, message in (
        (ZOO, f"{ZOO}/", "the destination is the zoo itself"),
        ("shaky://zoo/a", "shaky://zoo", "the zoo lies in the destination"),
    ):
        upload(folder, "shaky://zoo/a")
        with pytest.raises(UsageError, match=message):
            _migrate(zoo, out, tmp_path / "home")
    with pytest.raises(UsageError, match="only a folder of this machine is migrated in place"):
        migrate(survey(ZOO), Request(None, is_in_place=True), runner=made_up_runner)
    assert {path for path in everything("shaky://") if not path.startswith("zoo/a/")} == set(before)


def test_a_place_has_one_identity_by_whatever_name_it_goes(tmp_path: Path) -> None:
    register()
    fsspec.register_implementation("trembling", Shaky, clobber=True)
    for one, other, is_same in (
        ("shaky://b/x", "shaky://b/x/", True),
        ("shaky://b/x", "trembling://b/x", True),
        ("shaky://a/x", "shaky://b/x", False),  # a host, for some
    ):
        assert (RemoteStore(one).identity == RemoteStore(other).identity) is is_same
    (tmp_path / "link").symlink_to(tmp_path)
    assert open_store(tmp_path / "link").identity == open_store(f"file://{tmp_path}").identity == str(tmp_path)


def test_a_destination_in_the_zoo_is_none_of_it(folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        _migrate(ZOO, f"{ZOO}/out", tmp_path / "home")
    assert set(shown(f"{ZOO}/out")) == {"k.onnx", "m.onnx", "s1.onnx", "s2.onnx", "t.txt", "w.bin"}


def test_a_remote_manifest_names_no_files(folder: Path, tmp_path: Path) -> None:
    for text, message in (
        ('[[rule]]\nmodels = "*"\nto = "own.toml"', r"zoo/onnxfix\.toml: rule\[0\]\.to: files of conventions"),
        ("[[rule]]", r"shaky://zoo/onnxfix\.toml: rule\[0\]\.models"),
    ):
        fsspec.filesystem("shaky").pipe_file("/zoo/onnxfix.toml", text.encode())
        with pytest.raises(UsageError, match=message):
            _migrate(ZOO, OUT, tmp_path / "home")
    assert everything(OUT) == {}


def test_secrets_are_refused_and_never_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    for words in (
        ["migrate", "sftp://user:pa55word@host/zoo", out],
        ["migrate", str(folder), "https://host/zoo?X-Amz-Signature=pa55word"],
        ["migrate", "--verify-only", "s3://key:pa55word@bucket/x"],
        ["report", "abfs://container/x?sig=pa55word"],
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert "a URL must hold no password, key or query" in err
        assert "pa55word" not in err
        assert "***" in err
    monkeypatch.setenv("STORE_SECRET_KEY", "pa55word-of-a-store")

    def refuse(*_: object, **__: object) -> object:
        raise PermissionError("the key pa55word-of-a-store has no such right")

    monkeypatch.setattr(Shaky, "pipe_file", refuse)
    assert main(["migrate", str(folder), OUT, "--state", str(tmp_path / "home")]) == 3
    err = capsys.readouterr().err
    assert "access is refused: the key *** has no such right" in err
    assert "look at the credentials" in err


# Who may migrate there.


def _hold(owner: str, age: float) -> None:
    fields = {"owner": owner, "pid": 7, "host": "other", "renewed": time.time() - age}
    fsspec.filesystem("shaky").pipe_file("/out/.onnxfix/lease.json", json.dumps(fields).encode())


def test_two_machines_do_not_migrate_to_one_place(folder: Path, tmp_path: Path) -> None:
    _hold("other 1", 200)
    with pytest.raises(UsageError, match="another migration is at work here: process 7 on other") as caught:
        _migrate(ZOO, OUT, tmp_path / "home")
    assert (caught.value.where, "5 minutes" in caught.value.hint) == (OUT, True)
    assert unseen(OUT) == {"lease.json"}
    _hold("other 1", 400)  # its machine is gone
    _migrate(ZOO, OUT, tmp_path / "home")
    assert unseen(OUT) == {"journal.sqlite"}
    _hold("other 1", 0)
    with pytest.raises(UsageError, match="another migration is at work"):
        prove(OUT, Limits(), home=tmp_path / "other")
    fsspec.filesystem("shaky").pipe_file("/out/.onnxfix/lease.json", b"no lease")
    _migrate(ZOO, OUT, tmp_path / "home")


def _interfering(change: Callable[[], object]) -> Callable[..., Generator[Event, None, None]]:
    """Returns a runner that lets something happen after the first event."""

    def runner(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
        for index, event in enumerate(made_up_runner(tasks, limits, most)):
            yield event
            if index == 0:
                change()
                time.sleep(0.2)

    return runner


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: _hold("other 1", 0), "process 7 on other has taken it over"),
        (lambda: fsspec.filesystem("shaky").rm("/out", recursive=True), "it was removed while it was migrated to"),
        (lambda: setattr(Shaky, "left", 0), "it could not be renewed"),
    ],
)
def test_a_place_that_is_lost_meanwhile_is_left_alone(
    change: Callable[[], object], message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL", 0.02)
    monkeypatch.setattr(lease, "LIFE", 0.15)
    with pytest.raises(ModelWriteError, match=f"the destination was lost: {message}"):
        migrate(survey(ZOO), Request(OUT, home=tmp_path / "home"), runner=_interfering(change))
    Shaky.left = -1
    assert shown(OUT) == {}


# A place that breaks.


def test_a_place_that_breaks_at_any_call_costs_nothing(folder: Path, tmp_path: Path) -> None:
    _migrate(ZOO, "shaky://expected", tmp_path / "home")
    expected = shown("shaky://expected"), told("shaky://expected", tmp_path)
    assert set(expected[0]) == {"k.onnx", "m.onnx", "s1.onnx", "s2.onnx", "t.txt", "w.bin"}
    broken = 0
    for calls in range(1000):
        home = tmp_path / str(calls)
        Shaky.left = calls
        try:
            _migrate(ZOO, OUT, home)
        except OnnxfixError as error:
            assert isinstance(error, StoreError), calls
            assert error.message == "the store does not answer: ConnectionError: the line is dead"
            assert error.exit_code == 3
            assert "run the same command again" in error.hint
            broken += 1
        is_whole, Shaky.left = Shaky.left > 0, -1
        if not is_whole:
            _migrate(ZOO, OUT, home)
        assert (shown(OUT), told(OUT, tmp_path), unseen(OUT)) == (*expected, {"journal.sqlite"}), calls
        fsspec.filesystem("shaky").rm("/out", recursive=True)
        if is_whole:
            break
    assert 50 < broken >= calls - 5  # but for the last calls, which clear up


def test_one_model_that_cannot_be_had_costs_only_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Shaky.get_file

    def get_file(self: Shaky, path: str, *words: object, **options: object) -> object:
        if path.endswith(("m.onnx", "t.txt")):
            raise PermissionError("Forbidden")
        return whole(self, path, *words, **options)

    monkeypatch.setattr(Shaky, "get_file", get_file)
    migration = _migrate(ZOO, tmp_path / "out", tmp_path / "home")
    assert dict(migration.outcomes)["m.onnx"].kind == "StoreError"  # type: ignore[union-attr]
    assert [(gap.path, gap.reason) for gap in migration.gaps] == [
        ("t.txt", "it cannot be copied: access is refused: Forbidden")
    ]
    assert migration.exit_code == 3
    assert set(tree(tmp_path / "out")) == {"k.onnx", "s1.onnx", "s2.onnx", "w.bin"}
    monkeypatch.setattr(Shaky, "get_file", whole)
    assert _migrate(ZOO, tmp_path / "out", tmp_path / "home").kept == 3


def test_the_journal_is_kept_safe_meanwhile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfix.zoo.remote_state._EVERY", 0.0)
    monkeypatch.setattr("onnxfix.zoo.remote_state._SHARE", 0.0)
    seen: list[int] = []

    def runner(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
        for event in made_up_runner(tasks, limits, most):
            if ".onnxfix/journal.sqlite" in everything(OUT):
                seen.append(sum(row["state"] == "done" for row in told(OUT, tmp_path).values()))
            yield event

    migrate(survey(ZOO), Request(OUT, home=tmp_path / "home"), runner=runner)
    assert seen[-1] >= 3
    assert sorted(seen) == seen
