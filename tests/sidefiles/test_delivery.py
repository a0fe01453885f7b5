"""Model and side file appear together or not at all, and what stood there is kept."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from files import GENAI, STACKED, TRITON

import onnxfix
from onnxfix.errors import DriveError, ExitCode, ModelWriteError, OnnxfixError, SideFileError, UsageError
from onnxfix.model.atomic import NewFile
from onnxfix.model.staged import Staged
from onnxfix.report import ConversionReport

NAME = "genai_config.json"
Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    """Returns every file in a folder and below, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Returns a folder with the stacked sample and the file that makes GenAI run it."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(STACKED.read_bytes())
    (folder / NAME).write_text(GENAI)
    return folder


def convert(old: Path, new: Path | None = None, *, to: str = "genai") -> ConversionReport:
    """Converts the sample with its file, quickly: without simplification and proof."""
    destination = (new or old) / "model.onnx"
    return onnxfix.convert(old / "model.onnx", destination, to=to, write_config=True, simplify=False, verify=False)


def test_nothing_is_written_for_a_model_in_memory(old: Path) -> None:
    model = onnxfix.open_model(old / "model.onnx")
    with pytest.raises(UsageError, match="the result stays in memory, nothing lies beside it"):
        onnxfix.convert(model, to="genai", write_config=True)
    with pytest.raises(UsageError, match="the model is in memory, nothing lies beside it"):
        onnxfix.convert(model.proto, old / "new.onnx", to="genai", write_config=True)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _nowhere(path: Path) -> None:
    path.symlink_to("nothing")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate((1 << 22) + 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "this is no JSON: Expecting value, line 1, column 1"),
        (lambda path: path.write_text(GENAI[:100]), "this is no JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe{\0}\0"), "this is no UTF-8 text, from byte 0 on"),
        (lambda path: path.write_bytes(b"\0" * 1000), "this is no JSON"),
        (Path.mkdir, "this is no regular file"),
        (_fifo, "this is no regular file"),
        (_loop, "this file cannot be read"),
        (_nowhere, "this link leads nowhere"),
        (_huge, "this file is larger than 4 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_stops_the_conversion(old: Path, make: object, message: str) -> None:
    (old / NAME).unlink()
    assert callable(make)
    make(old / NAME)
    (old.parent / "new").mkdir()
    with pytest.raises(SideFileError) as caught:
        convert(old, old.parent / "new")
    assert caught.value.message.startswith(message)
    assert caught.value.where.startswith(str(old / NAME))
    assert caught.value.exit_code == ExitCode.NOT_CONVERTED
    assert contents(old.parent / "new") == {}


def test_a_file_that_may_not_be_read_stops_the_conversion(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == NAME:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(SideFileError, match="this file cannot be read: Permission denied"):
        convert(old)


def test_the_file_goes_beside_the_result_and_the_source_stays(old: Path) -> None:
    before, new = contents(old), old.parent / "new"
    new.mkdir()
    report = convert(old, new)
    assert contents(old) == before
    assert sorted(contents(new)) == [NAME, "model.onnx"]
    (side,) = report.side_files
    assert (side.source, side.destination, side.kept) == (old / NAME, new / NAME, None)
    assert (new / NAME).read_text() == side.after
    assert report.to_json()["side_files"] == [
        {"source": str(old / NAME), "destination": str(new / NAME), "changes": list(side.changes), "kept": None}
    ]


def test_originals_are_kept_and_never_overwritten(old: Path) -> None:
    assert [file.kept for file in convert(old).side_files] == [old / f"{NAME}.orig"]
    there = (old / NAME).read_text()
    assert [file.kept for file in convert(old, to="gpt2-stacked").side_files] == [old / f"{NAME}.orig.2"]
    assert [file.kept for file in convert(old).side_files] == [old / f"{NAME}.orig.3"]
    assert (old / f"{NAME}.orig").read_text() == GENAI
    assert (old / f"{NAME}.orig.2").read_text() == there
    assert (old / NAME).read_text() == there
    assert len(contents(old)) == 5


def test_once_more_nothing_changes(old: Path) -> None:
    convert(old)
    before = contents(old)
    report = convert(old)
    assert report.outcome is onnxfix.Outcome.UNCHANGED
    assert [file.kept for file in report.side_files] == [None]
    assert contents(old) == before


def test_what_is_unchanged_is_copied_with_its_file(old: Path) -> None:
    new = old.parent / "new"
    new.mkdir()
    report = convert(old, new, to="gpt2-stacked")
    assert report.outcome is onnxfix.Outcome.UNCHANGED
    assert contents(new) == contents(old)


def test_a_file_of_another_model_at_the_destination_is_kept(old: Path) -> None:
    new = old.parent / "new"
    new.mkdir()
    (new / NAME).write_text("of another model")
    (new / NAME).chmod(0o640)
    convert(old, new)
    assert (new / f"{NAME}.orig").read_text() == "of another model"
    assert (new / NAME).stat().st_mode & 0o777 == 0o640


def test_a_link_is_replaced_and_what_it_leads_to_stays(old: Path) -> None:
    (old / NAME).rename(old / "blob")
    (old / NAME).symlink_to("blob")
    convert(old)
    assert (old / "blob").read_text() == GENAI
    assert not (old / NAME).is_symlink()
    assert (old / f"{NAME}.orig").readlink() == Path("blob")


def test_originals_are_kept_where_files_have_one_name_only(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    convert(old)
    convert(old, to="gpt2-stacked")
    assert (old / f"{NAME}.orig").read_text() == GENAI
    assert sorted(contents(old)) == [NAME, f"{NAME}.orig", f"{NAME}.orig.2", "model.onnx"]


def test_a_destination_that_is_a_folder_is_refused(old: Path) -> None:
    new = old.parent / "new"
    (new / NAME).mkdir(parents=True)
    with pytest.raises(SideFileError, match="this is a folder"):
        convert(old, new)
    assert contents(new) == {}


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("has_links", [True, False])
def test_without_the_model_there_is_no_side_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool, has_links: bool
) -> None:
    def commit(staged: Staged) -> None:
        assert "past_key_names" in (staged.destination.parent / NAME).read_text(), "the side file goes first"
        staged.discard()
        raise ModelWriteError("the model cannot be moved into place: no", where="new")

    def link(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(Staged, "commit", commit)
    if not has_links:
        monkeypatch.setattr(os, "link", link)
    new = old if in_place else old.parent / "new"
    new.mkdir(exist_ok=True)
    before = contents(new)
    with pytest.raises(ModelWriteError):
        convert(old, new)
    assert contents(new) == before


def test_without_the_side_file_there_is_no_model(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = NewFile.move

    def move(file: NewFile, destination: Path) -> None:
        if destination.name == NAME:
            raise OSError(28, "No space left on device")
        real(file, destination)

    monkeypatch.setattr(NewFile, "move", move)
    before = contents(old)
    with pytest.raises(SideFileError, match="this file cannot be written: No space left on device"):
        convert(old)
    assert contents(old) == before


@pytest.mark.parametrize("is_moved", [False, True])
def test_an_interrupt_leaves_both_or_none(old: Path, monkeypatch: pytest.MonkeyPatch, is_moved: bool) -> None:
    real = Staged.commit

    def commit(staged: Staged) -> None:
        if is_moved:
            real(staged)
        raise KeyboardInterrupt

    monkeypatch.setattr(Staged, "commit", commit)
    before = contents(old)
    with pytest.raises(KeyboardInterrupt):
        convert(old)
    after = contents(old)
    assert (after == before) is not is_moved
    assert ("past_key_names" in after[NAME].decode()) is is_moved
    assert sorted(after) == sorted(before | ({f"{NAME}.orig": b""} if is_moved else {}))


KILLED = """
import os, sys
import onnxfix
from onnxfix.model.staged import Staged

Staged.commit = lambda staged: os._exit(9)
path = sys.argv[1]
onnxfix.convert(path, path, to="genai", write_config=True, simplify=False, verify=False)
"""


def test_a_kill_between_the_two_leaves_the_original_of_the_side_file(old: Path) -> None:
    before = contents(old)
    assert subprocess.run([sys.executable, "-c", KILLED, str(old / "model.onnx")]).returncode == 9
    after = contents(old)
    assert after["model.onnx"] == before["model.onnx"]
    assert after[f"{NAME}.orig"] == before[NAME]
    assert "past_key_names" in after[NAME].decode()
    # Once more, and both are there: the file speaks of the result already.
    convert(old)
    assert sorted(contents(old)) == [NAME, f"{NAME}.orig", "model.onnx"]


def test_what_is_not_proven_is_not_shown(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(*_: object) -> None:
        raise DriveError("no")

    monkeypatch.setattr(importlib.import_module("onnxfix.verify.lockstep"), "verify", verify)
    before = contents(old)
    with pytest.raises(DriveError):
        onnxfix.convert(old / "model.onnx", old / "model.onnx", to="genai", write_config=True, simplify=False)
    assert contents(old) == before


def test_what_runs_that_were_killed_have_left_is_swept_away(old: Path) -> None:
    (old / ".genai_config.onnxfix-0123456789ab.json").write_text("half")
    convert(old)
    assert sorted(contents(old)) == [NAME, f"{NAME}.orig", "model.onnx"]


@pytest.mark.parametrize("name", [NAME, "config.pbtxt"])
def test_without_being_asked_the_file_is_told_and_stays(old: Path, name: str) -> None:
    (old / NAME).rename(old / name)
    before = (old / name).read_bytes()
    report = onnxfix.convert(old / "model.onnx", old / "model.onnx", to="genai", simplify=False, verify=False)
    assert f"`{name}` beside the model stays as it is: --write-config writes it for the result" in report.notes
    assert report.side_files == ()
    assert (old / name).read_bytes() == before
    again = onnxfix.convert(old / "model.onnx", to="genai")
    assert not any("write-config" in note for note in again.notes)


def test_nothing_beside_the_model_is_told(old: Path) -> None:
    (old / NAME).unlink()
    report = convert(old)
    assert "--write-config: neither genai_config.json nor config.pbtxt lies beside the model" in report.notes


def _input(name: str) -> str:
    return f'input {{ name: "{name}" data_type: TYPE_FP32 dims: [ 2, -1, 4, -1, 7 ] }}\n'


@pytest.mark.parametrize(
    ("version", "destination", "place"),
    [
        ("1", "repository/encoder/3/model.onnx", "repository/encoder/config.pbtxt"),
        ("1", "repository/encoder/model.onnx", "repository/encoder/config.pbtxt"),
        ("one", "repository/encoder/3/model.onnx", None),
    ],
)
def test_triton_has_its_file_above_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, destination: str, place: str | None
) -> None:
    model = tmp_path / "old" / version / "model.onnx"
    for folder in (model.parent, (tmp_path / destination).parent):
        folder.mkdir(parents=True)
    model.write_bytes(STACKED.read_bytes())
    (tmp_path / "old" / "config.pbtxt").write_text("".join(_input(f"past_{layer}") for layer in range(3)))
    monkeypatch.chdir(model.parent)  # a path may be as short as this
    report = onnxfix.convert(
        "model.onnx", tmp_path / destination, to="genai", write_config=True, simplify=False, verify=False
    )
    assert [file.destination for file in report.side_files] == ([tmp_path / place] if place else [])
    if place:
        assert (tmp_path / place).read_text().count("past_key_values.") == 6


def test_both_files_follow(old: Path) -> None:
    (old / "config.pbtxt").write_text("".join(_input(f"past_{layer}") for layer in range(3)))
    assert [file.source.name for file in convert(old).side_files] == [NAME, "config.pbtxt"]
    assert sorted(contents(old)) == [
        "config.pbtxt", "config.pbtxt.orig", NAME, f"{NAME}.orig", "model.onnx",
    ]  # fmt: skip


def test_one_bad_file_stops_both(old: Path) -> None:
    (old / "config.pbtxt").write_text(TRITON)
    before = contents(old)
    with pytest.raises(OnnxfixError, match="the model has no input `chunk_xs`"):
        convert(old)
    assert contents(old) == before
