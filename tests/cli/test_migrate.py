"""`onnxfix migrate`: what it refuses, what it prints and where, and how it ends."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from cli_models import SAMPLES, contents, with_data_file
from rich.console import Console

from onnxfix.cli import main
from onnxfix.cli.migrate import migrate
from onnxfix.cli.zoo_progress import ZooProgress
from onnxfix.zoo.outcome import Converted, Failed
from onnxfix.zoo.pool import Ended, Event, Moved, Pool, Started
from onnxfix.zoo.settings import Settings
from onnxfix.zoo.task import Task, Work
from onnxfix.zoo.work import work_on
from onnxfix.zoo.worker import Told

Capture = pytest.CaptureFixture[str]
OLD, NEW, PLAIN = (SAMPLES / name for name in ("vad_state.onnx", "vad_hc.onnx", "plain.onnx"))
TO = ["--to", "silero-hc"]


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(pool: Pool, tasks: Iterable[Task]) -> Iterator[Event]:
        for task in tasks:
            yield Started(task)
            yield Ended(task, work_on(task))

    monkeypatch.setattr(tempfile, "tempdir", None)  # where it is put back, since the work is done in this process
    monkeypatch.setattr(Pool, "run", run)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Returns a zoo of three models and a file."""
    zoo = tmp_path / "zoo"
    (zoo / "sub").mkdir(parents=True)
    for name, source in (("a.onnx", OLD), ("b.onnx", NEW), ("sub/p.onnx", PLAIN)):
        shutil.copyfile(source, zoo / name)
    (zoo / "tokens.txt").write_text("t")
    return zoo


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "what is to be migrated?"),
        (["{zoo}"], "where do the results go?"),
        (["{zoo}", "{out}", "x"], "`x` is one place too many"),
        (["{zoo}", "{out}", "--in-place"], "is one place too many"),
        (["{zoo}", "{zoo}"], "the destination is the zoo itself"),
        (["{zoo}/none", "{out}"], "there is no such folder, file or glob"),
        (["{zoo}/*.txt.onnx", "{out}"], "no file has such a name"),
        (["nonsense://bucket/zoo", "{out}"], "nobody knows `nonsense://`"),
        (["s3://key:secret@bucket/zoo", "{out}"], "s3://***@bucket/zoo: a URL must hold no password"),
        (["{zoo}", "{out}", "--to", "nonsense"], "no convention is called `nonsense`"),
        (["{zoo}", "{out}", "--to", "silero-hc", "--to", "optimum"], "two conventions are given"),
        (["{zoo}", "{out}", "--size", "head=x"], "`x` is no size"),
        (["{zoo}", "{out}", "--feed", "x=nose"], "`nose` is no kind of feed"),
        (["{zoo}", "{out}", "--time-limit", "soon"], "--time-limit soon: `soon` is no time span"),
        (["{zoo}", "{out}", "--memory-limit", "much"], "`much` is no amount of memory"),
        (["{zoo}", "{out}", "--jobs", "0"], "0 is not in the range"),
        (["{zoo}", "{out}", "--no-backup"], "there is nothing to back up"),
        (["--verify-only", "{zoo}"], "nothing was migrated here"),
        (["--verify-only", "{zoo}", "--to", "optimum"], "only limits, --scheduler and --state go with it"),
    ],
)
def test_what_is_no_request_is_refused(words: list[str], message: str, zoo: Path, capsys: Capture) -> None:
    before = contents(zoo.parent)
    spoken = [word.format(zoo=zoo, out=zoo.parent / "out") for word in words]
    assert main(["migrate", *spoken]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("error: ")
    assert printed.out == ""
    assert contents(zoo.parent) == before


def test_what_it_came_to(zoo: Path, capsys: Capture) -> None:
    assert main(["migrate", str(zoo), str(zoo.parent / "out"), *TO]) == 0
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert lines[:3] == ["converted  1", "unchanged  1", "skipped    1"]
    assert lines[3].startswith("time  ")
    assert lines[4:] == ["1 other file copied", f"report  {zoo.parent}/out/.onnxfix/report.html"]
    assert printed.out == ""
    assert main(["migrate", str(zoo), str(zoo.parent / "out"), *TO]) == 0
    assert capsys.readouterr().err.splitlines()[-2] == "3 models were done already"
    (zoo / "a.onnx").unlink()
    (zoo / "b.onnx").unlink()
    assert main(["migrate", str(zoo), str(zoo.parent / "out"), *TO]) == 0
    assert capsys.readouterr().err.splitlines()[-2] == "1 model was done already"


def test_failures_are_told_at_the_end_with_what_to_do(zoo: Path, capsys: Capture) -> None:
    for index in range(25):
        (zoo / f"cut\n{index:02}.onnx").write_bytes(b"\x08")
    out = str(zoo.parent / "out")
    assert main(["migrate", str(zoo), out, *TO, "--quiet"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [r"failed  cut\n00.onnx: the file is truncated", "  Copy, download or export the model again."]
    assert len(lines) == 2 * 20 + 1
    assert lines[-1] == "and 5 more models: " + ", ".join(rf"cut\n{index}.onnx" for index in range(20, 25))


def test_what_is_told_is_shown_as_it_is_and_not_obeyed_by_a_terminal(zoo: Path, capsys: Capture) -> None:
    (folder := zoo / "\x1b[2Jred").mkdir()
    (folder / "m.onnx").write_bytes(with_data_file("w.bin").SerializeToString())
    assert main(["migrate", str(zoo), str(zoo.parent / "out"), *TO, "-q"]) == 3
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert rf"Put it into `{zoo}/\x1b[2Jred`" in printed


def test_notes_are_counted_where_there_are_many(zoo: Path, capsys: Capture) -> None:
    for index in range(25):
        (zoo / f"l{index:02}").symlink_to("sub")
    (out := zoo.parent / "out").mkdir()
    assert main(["migrate", str(zoo), str(out), *TO, "--json"]) == 0
    printed = capsys.readouterr()
    notes = [line for line in printed.err.splitlines() if line.startswith("note")]
    assert len(notes) == 20 + 1
    assert notes[19:] == [
        "note  l19: a link to a folder of the zoo, which is migrated where it lies",
        "note  and 5 more notes, which --json has",
    ]
    assert len(json.loads(printed.out)["gaps"]) == 25


def test_a_zoo_without_models_says_so(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "zoo").mkdir()
    assert main(["migrate", str(tmp_path / "zoo"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "no models"


def test_a_zoo_that_is_done_has_models(zoo: Path, capsys: Capture) -> None:
    assert main(["migrate", str(zoo), str(zoo.parent / "out"), *TO, "-q"]) == 0
    assert main(["migrate", str(zoo), str(zoo.parent / "out"), *TO, "--check"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("time  ")
    assert lines[1:] == ["3 models were done already"]


def test_quiet_says_nothing_where_all_is_well(zoo: Path, capsys: Capture) -> None:
    assert main(["migrate", str(zoo), str(zoo.parent / "out"), *TO, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_json_is_for_programs(zoo: Path, capsys: Capture) -> None:
    (zoo / "cut.onnx").write_bytes(b"\x08")
    (zoo / "up").symlink_to(".")
    out = zoo.parent / "out"
    assert main(["migrate", str(zoo), str(out), *TO, "--json", "-q"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["zoo"], found["out"], found["exit_code"]) == (str(zoo), str(out), 3)
    assert found["counts"] == {"converted": 1, "unchanged": 1, "skipped": 1, "failed": 1}
    assert (found["kept"], found["copied"]) == (0, 1)
    assert [(one["path"], one["outcome"]) for one in found["models"]] == [
        ("a.onnx", "converted"), ("b.onnx", "unchanged"), ("cut.onnx", "failed"), ("sub/p.onnx", "skipped"),
    ]  # fmt: skip
    assert found["models"][2]["kind"] == "ModelReadError"
    assert [gap["path"] for gap in found["gaps"]] == ["up"]
    assert main(["migrate", str(zoo), str(zoo), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "UsageError"


def test_checking_writes_nothing(zoo: Path, capsys: Capture) -> None:
    before = contents(zoo.parent)
    out = str(zoo.parent / "out")
    assert main(["migrate", str(zoo), "--check", *TO]) == 1
    assert main(["migrate", str(zoo), out, "--check", *TO]) == 1
    assert capsys.readouterr().err.splitlines()[:3] == ["unchanged     1", "would-change  1", "skipped       1"]
    assert contents(zoo.parent) == before
    assert main(["migrate", str(zoo), out, *TO, "-q"]) == 0
    assert main(["migrate", str(zoo), out, "--check", *TO]) == 0
    assert main(["migrate", str(zoo), out, "--check", "--to", "silero-state"]) == 1


def test_in_place_and_proven_again(zoo: Path, capsys: Capture) -> None:
    assert main(["migrate", str(zoo), "--in-place", *TO, "-q"]) == 0
    assert (zoo / "a.onnx").read_bytes() != OLD.read_bytes()
    assert (zoo / ".onnxfix" / "backup" / "a.onnx").read_bytes() == OLD.read_bytes()
    assert main(["migrate", "--verify-only", str(zoo)]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "verified  1"
    shutil.copyfile(PLAIN, zoo / "a.onnx")
    assert main(["migrate", "--verify-only", str(zoo), "-q"]) == 3
    assert "`a.onnx` was edited since it was migrated" in capsys.readouterr().err


def test_files_may_come_from_a_list(zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    (zoo / "a\nb.onnx").write_bytes(OLD.read_bytes())
    listed = "\0".join(str(zoo / name) for name in ("a\nb.onnx", "sub/p.onnx"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    out = zoo.parent / "out"
    assert main(["migrate", "-", str(out), *TO, "-q"]) == 0
    assert {name for name in contents(out) if not name.startswith(".onnxfix")} == {"a\nb.onnx", "sub/p.onnx"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert main(["migrate", "-", str(out), *TO]) == 2
    monkeypatch.setattr(sys, "stdin", None)  # as it is where it was closed
    assert main(["migrate", "-", str(out), *TO]) == 2
    assert "no file is named" in capsys.readouterr().err


def test_a_convention_in_a_file_is_found_again_from_elsewhere(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert main(["conventions", "silero-hc", "--toml"]) == 0
    (tmp_path / "own.toml").write_text(capsys.readouterr().out)
    monkeypatch.chdir(tmp_path)
    assert main(["migrate", "zoo", "out", "--to", "own.toml", "-q"]) == 0
    monkeypatch.chdir(zoo)
    assert main(["migrate", "--verify-only", "../out", "-q"]) == 0
    assert main(["migrate", ".", "../out", "--to", "../own.toml", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 3


def test_what_is_seen_meanwhile() -> None:
    progress = ZooProgress(is_quiet=True)
    task = Task("a\nb.onnx", "", "", Settings())
    with progress:
        progress.planned(5, 2)
        progress.happened(Started(task))
        progress.happened(Moved(task, Told("verify", 3, 8)))
        progress.ended("x.onnx", Failed("Crashed", "no"))
        progress.ended("y.onnx", Converted("a", "b"))
        seen = _seen(progress)
        assert "2/3" in seen
        assert "1 converted" in seen
        assert "1 failed" in seen
        assert r"a\nb.onnx  driving source and result, tick 3 of 8" in seen
        progress.happened(Ended(task, Work(Converted("a", "b"))))
        assert "a\\nb.onnx" not in _seen(progress)


def _seen(progress: ZooProgress) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(progress.picture())
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_with_processes_of_its_own(zoo: Path) -> None:
    words = [
        str(Path(sys.executable).with_name("onnxfix")),
        "migrate",
        str(zoo),
        str(zoo.parent / "out"),
        *TO,
        "-j",
        "1",
    ]
    ran = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "ONNXFIX_TEST_FAULT": "bug:a.onnx"})
    assert ran.returncode == 70
    assert "failed  a.onnx: this is a bug in onnxfix: RuntimeError: a bug on purpose" in ran.stderr


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys; from onnxfix.cli import main; main(['migrate', '--help']); print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    heavy = {"psutil", "filelock", "sqlite3", "multiprocessing", "onnx", "numpy", "onnxruntime", "rich"}
    heavy |= {"distributed", "dask", "tornado"}
    assert not heavy & set(ran.stderr.split())
    assert "--in-place" in ran.stdout


def test_every_option_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text(encoding="utf-8")
    for parameter in migrate.params:
        for option in parameter.opts:
            assert not option.startswith("--") or f"`{option}" in text, option
