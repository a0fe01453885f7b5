"""What is in a zoo, and what is not looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxfix.errors import UsageError
from onnxfix.zoo.survey import Gap, Kind, Survey, read_list, survey, survey_files


def _fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def _models(found: Survey) -> list[str]:
    return [member.path for member in found.models]


def test_there_is_no_such_place(tmp_path: Path) -> None:
    for place in (tmp_path / "none", f"{tmp_path}/*.onnx", "nonsense://bucket/models"):
        with pytest.raises(UsageError) as caught:
            survey(place)
        assert caught.value.where == str(place)
        assert caught.value.hint
    with pytest.raises(UsageError, match="no file is named"):
        survey_files([])


def test_models_are_told_by_their_suffix_and_paths_are_sorted(tmp_path: Path) -> None:
    names = ("b/x.onnx", "a.ONNX", "b.onnx.txt", "a b/ü\n%.Onnx", "onnx", "deep/er/still/m.onnx", "folder.onnx/t.json")
    found = survey(_fill(tmp_path, *names))
    assert [member.path for member in found.members] == sorted(names)
    assert _models(found) == sorted(name for name in names if name.lower().endswith(".onnx"))
    assert found.gaps == ()
    assert {member.size for member in found.members} == {1}


def test_what_is_ours_is_none_of_the_zoo(tmp_path: Path) -> None:
    _fill(
        tmp_path, "m.onnx", "onnxfix.toml", "sub/onnxfix.toml", ".onnxfix/stage/x.onnx", "sub/.onnxfix/journal.sqlite",
        ".m.onnxfix-0123456789ab.onnx", "..m.onnxfix-0123456789ab.onnxfix-0123456789ab.onnx", "out/m.onnx",
        ".git/config",
    )  # fmt: skip
    found = survey(tmp_path, skip=tmp_path / "out")
    assert [member.path for member in found.members] == [".git/config", "m.onnx", "sub/onnxfix.toml"]


def test_links_to_folders_are_told_and_not_followed(tmp_path: Path) -> None:
    zoo, other = _fill(tmp_path / "zoo", "v1/m.onnx", "v2/m.onnx"), _fill(tmp_path / "other", "m.onnx")
    (zoo / "latest").symlink_to("v2")
    (zoo / "v1" / "up").symlink_to("..")
    (zoo / "v1" / "self").symlink_to(".")
    (zoo / "away").symlink_to(other)
    found = survey(zoo)
    assert _models(found) == ["v1/m.onnx", "v2/m.onnx"]
    reasons = {gap.path: gap.reason for gap in found.gaps}
    assert list(reasons) == ["away", "latest", "v1/self", "v1/up"]
    assert "outside the zoo" in reasons["away"]
    assert "migrated where it lies" in reasons["latest"]
    assert "circle" in reasons["v1/self"]
    assert "circle" in reasons["v1/up"]
    assert not any(gap.is_error for gap in found.gaps)


def test_links_to_files_are_files_and_what_is_called_a_model_is_opened_later(tmp_path: Path) -> None:
    _fill(tmp_path, "blob")
    (tmp_path / "m.onnx").symlink_to("blob")
    (tmp_path / "gone.onnx").symlink_to("nowhere")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.onnx")
    os.mkfifo(tmp_path / "pipe")
    found = survey(tmp_path)
    assert _models(found) == ["gone.onnx", "loop.onnx", "m.onnx", "pipe.onnx"]
    assert [(gap.path, gap.is_error) for gap in found.gaps] == [("gone.txt", False), ("pipe", False)]


def test_a_folder_that_cannot_be_read_may_hold_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path, "a/m.onnx", "b/m.onnx")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = survey(tmp_path)
    assert _models(found) == ["b/m.onnx"]
    assert found.gaps == (Gap("a", "the folder cannot be read: Permission denied", True),)


def test_a_name_that_is_no_text_is_a_gap(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.onnx")).write_bytes(b"x")
    (gap,) = survey(tmp_path).gaps
    assert (gap.path, gap.is_error) == ("\\udcff.onnx", True)


def test_a_file_and_a_glob_name_their_models_alone(tmp_path: Path) -> None:
    _fill(tmp_path, "a/m.onnx", "a/b/n.onnx", "a/t.json", "[x].onnx", "out/m.onnx")
    assert _models(survey(tmp_path / "a" / "m.onnx")) == ["m.onnx"]
    assert survey(tmp_path / "a" / "m.onnx").members[0].kind is Kind.MODEL
    found = survey(f"{tmp_path}/a/**/*.onnx")
    assert (found.zoo.folder, _models(found)) == (tmp_path / "a", ["b/n.onnx", "m.onnx"])
    assert _models(survey(tmp_path / "[x].onnx")) == ["[x].onnx"]  # a name that looks like a glob
    found = survey(f"{tmp_path}/*/m.onnx", skip=tmp_path / "out")
    assert (found.zoo.folder, _models(found)) == (tmp_path, ["a/m.onnx"])


def test_a_list_has_its_root_where_all_its_files_lie(tmp_path: Path) -> None:
    _fill(tmp_path, "a/m.onnx", "b/m.onnx", "b/t.json")
    paths = [tmp_path / "a" / "m.onnx", tmp_path / "b" / "m.onnx", tmp_path / "b" / "t.json", tmp_path / "b" / "no"]
    found = survey_files([*paths, paths[0]])
    assert (found.zoo.folder, _models(found)) == (tmp_path, ["a/m.onnx", "b/m.onnx"])
    assert [(gap.path, gap.is_error) for gap in found.gaps] == [("b/no", True)]


def test_what_is_ours_is_none_of_a_list_or_a_glob(tmp_path: Path) -> None:
    """`find` and `**` name the destination and the backups too, which would be migrated like any model."""
    ours = ("sub/.onnxfix/backup/a.onnx", "out/sub/a.onnx", ".onnxfix/backup/sub/a.onnx")
    zoo = _fill(tmp_path, "sub/a.onnx", "sub/b.onnx", "sub/.a.onnxfix-0123456789ab.onnx", *ours)
    paths = sorted(zoo.rglob("*.onnx"))
    found = survey_files(paths, skip=zoo / "out")
    assert (found.zoo.place, _models(found)) == (str(zoo / "sub"), ["a.onnx", "b.onnx"])
    assert _models(survey(f"{zoo}/**/*.onnx", skip=zoo / "out")) == ["sub/a.onnx", "sub/b.onnx"]
    named_alone = survey_files([path for path in paths if ".onnxfix" in path.parts])
    assert _models(named_alone) == [".onnxfix/backup/sub/a.onnx", "sub/.onnxfix/backup/a.onnx"]


def test_links_that_are_listed_lie_where_they_are(tmp_path: Path) -> None:
    zoo = _fill(tmp_path, "out/a.onnx", "b.onnx")
    (zoo / "link.onnx").symlink_to("out/a.onnx")
    assert _models(survey_files([zoo / "link.onnx", zoo / "b.onnx"], skip=zoo / "out")) == ["b.onnx", "link.onnx"]


def test_a_glob_that_names_folders_alone_says_so(tmp_path: Path) -> None:
    _fill(tmp_path, "a/m.onnx", "b/m.onnx")
    with pytest.raises(UsageError, match="folders") as caught:
        survey(f"{tmp_path}/*")
    assert f"`{tmp_path}/*/**/*.onnx`" in caught.value.hint


def test_a_list_is_one_a_line_or_ended_by_nuls() -> None:
    assert read_list("a b\n\nc\n") == [Path("a b"), Path("c")]
    assert read_list("a\nb\0c\0") == [Path("a\nb"), Path("c")]
    assert read_list("a\x85b\u2028c\x0c.onnx\r\nd") == [Path("a\x85b\u2028c\x0c.onnx"), Path("d")]
