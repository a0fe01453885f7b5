"""What is in a zoo: every file, and whether it is called a model; nothing is opened.

Links to files are read like files. Links to folders are not followed: what lies in the zoo is met at its own place, and
what lies elsewhere is none of it. So no circle of links can hold up the walk, and no model is met twice.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from onnxfix.errors import UsageError
from onnxfix.zoo.stores.local import LocalStore
from onnxfix.zoo.stores.places import is_url, place_of
from onnxfix.zoo.stores.store import STATE, Store

MANIFEST = "onnxfix.toml"
"""The file at a zoo's root that holds its rules; it says how to migrate, and does not migrate along."""
REMNANT = re.compile(r"\..*\.onnxfix-[0-9a-f]{12}(\..*)?", re.DOTALL)
"""What a conversion that was killed leaves behind: `onnxfix.model.atomic`."""


class Kind(StrEnum):
    """What a file is by its name."""

    MODEL = "model"
    OTHER = "other"


@dataclass(frozen=True)
class Member:
    """A file of a zoo.

    Attributes:
        path: Its place below the root, with `/`.
        kind: A model, or something else; data files of models are told from others when the models are opened.
        size: Bytes; 0 where it cannot be looked at.
        stamp: Changes when the file does: `onnxfix.zoo.stores.store.Look`; empty where it cannot be looked at.
    """

    path: str
    kind: Kind
    size: int
    stamp: str


@dataclass(frozen=True)
class Gap:
    """A place that was not looked at.

    Attributes:
        path: Its place below the root.
        reason: Why.
        is_error: Whether models may have been missed.
    """

    path: str
    reason: str
    is_error: bool


@dataclass(frozen=True)
class Survey:
    """All that is in a zoo.

    Attributes:
        zoo: Where they lie, below the root that all paths start from.
        members: The files, by path.
        gaps: What was not looked at, by path.
    """

    zoo: Store
    members: tuple[Member, ...]
    gaps: tuple[Gap, ...]

    @property
    def models(self) -> tuple[Member, ...]:
        """The files that are called models."""
        return tuple(member for member in self.members if member.kind is Kind.MODEL)


def survey(place: str | Path, *, skip: str | Path | None = None) -> Survey:
    """Finds what is in a zoo.

    Args:
        place: A folder, a file, a glob (`models/**/*.onnx`), or a URL of one.
        skip: A folder that is none of it: the destination, where that lies in the zoo.

    Raises:
        UsageError: There is no such place.
        StoreError: It does not answer.
    """
    path = place_of(str(place))
    if isinstance(path, str):
        from onnxfix.zoo.remote_survey import survey_remote

        return survey_remote(path, str(skip or ""))
    text, skip = str(path), skip if isinstance(skip, Path) else None
    if path.is_dir():
        return _Walk(path, skip).survey()
    if path.exists() or path.is_symlink():
        return survey_files([path])
    if glob.has_magic(text):
        return survey_files(_globbed(text), _fixed_part(path), skip=skip)
    raise UsageError("there is no such folder, file or glob", where=text, hint="name the folder that holds the models")


def _globbed(pattern: str) -> list[Path]:
    names = glob.glob(pattern, recursive=True, include_hidden=True)  # noqa: PTH207 (the pattern may be absolute)
    found = [Path(name) for name in names]
    if files := [path for path in found if not path.is_dir()]:
        return files
    if found:
        hint = f"`{pattern.rstrip('/')}/**/*.onnx` names the models in them"
        raise UsageError("it names folders, and no files", where=pattern, hint=hint)
    hint = "`*` stops at `/` and `**/` does not; a bracket that belongs to a name is written `[[]`"
    raise UsageError("no file has such a name", where=pattern, hint=hint)


def survey_files(paths: Iterable[Path], root: Path | None = None, *, skip: str | Path | None = None) -> Survey:
    """Takes files one by one; other files beside them are none of the zoo.

    What migrations keep for themselves is none of it either: `find` lists it too, and a backup must stay one.

    Args:
        paths: The files.
        root: The folder that they lie in; None: the deepest one that holds all.
        skip: A folder that is none of it: the destination, where that lies in the zoo.

    Raises:
        UsageError: No file is named, or a URL is.
    """
    paths = [*paths]
    if urls := [path for path in paths if is_url(str(path).replace(":/", "://", 1)) and not path.exists()]:
        hint = "name the URL of a folder, or a glob, in the place of the list"
        raise UsageError("a list names files of this machine", where=str(urls[0]), hint=hint)
    files = sorted({Path(os.path.abspath(path)) for path in paths})  # noqa: PTH100 (links stay links)
    if not files:
        raise UsageError("no file is named", hint="one path a line, or each ended by a NUL")
    files = [file for file in files if not _is_ours(file)] or files
    files = [file for file in files if not isinstance(skip, Path) or not _is_below(file, skip)] or files
    base = Path(os.path.abspath(root or os.path.commonpath([file.parent for file in files])))  # noqa: PTH100
    found = [_look(file, file.relative_to(base).as_posix()) for file in files]
    members = tuple(one for one in found if isinstance(one, Member))
    return Survey(LocalStore(base), members, tuple(one for one in found if isinstance(one, Gap)))


def read_list(text: str) -> list[Path]:
    """Returns the paths of a list: one a line, or each ended by a NUL (`find -print0`): names may hold newlines."""
    names = text.split("\0") if "\0" in text else re.split("\r?\n", text)
    return [Path(name) for name in names if name.strip()]


def is_model_name(name: str) -> bool:
    """Whether a file of this name is taken for a model."""
    return name.lower().endswith(".onnx") and not REMNANT.fullmatch(name)


class _Walk:
    """One walk through a folder."""

    def __init__(self, root: Path, skip: Path | None) -> None:
        self.root = root
        self.skip = None if skip is None else _identity(skip)
        self.members: list[Member] = []
        self.gaps: list[Gap] = []

    def survey(self) -> Survey:
        folders = [""]
        while folders:
            folders += self.folder(folders.pop())
        order = sorted(self.members, key=lambda member: member.path), sorted(self.gaps, key=lambda gap: gap.path)
        return Survey(LocalStore(self.root), tuple(order[0]), tuple(order[1]))

    def folder(self, name: str) -> list[str]:
        """Takes the files of a folder, and returns the folders in it."""
        folders = []
        try:
            with os.scandir(self.root / name) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.gaps.append(Gap(name or ".", f"the folder cannot be read: {error.strerror}", True))
            return []
        for entry in found:
            path = f"{name}/{entry.name}" if name else entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name != STATE and (self.skip is None or _identity(Path(entry.path)) != self.skip):
                    folders.append(path)
            elif not self.is_ours(entry.name, path):
                self.entry(entry, path)
        return folders

    def is_ours(self, name: str, path: str) -> bool:
        return path == MANIFEST or bool(REMNANT.fullmatch(name))

    def entry(self, entry: os.DirEntry[str], path: str) -> None:
        if entry.is_symlink() and _leads_to_folder(entry):
            self.gaps.append(Gap(_printable(path), self.reason(Path(entry.path)), False))
            return
        found = _look(Path(entry.path), path)
        if isinstance(found, Gap):
            self.gaps.append(found)
        else:
            self.members.append(found)

    def reason(self, link: Path) -> str:
        """Returns why a link to a folder is not followed."""
        real, root = link.resolve(), self.root.resolve()
        if link.parent.resolve().is_relative_to(real):
            return "a link to a folder that it lies in: it leads in a circle"
        if real.is_relative_to(root):
            return "a link to a folder of the zoo, which is migrated where it lies"
        return "a link to a folder outside the zoo"


def _look(file: Path, path: str) -> Member | Gap:
    """Returns what is known of a file without opening it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return Gap(_printable(path), "its name is no UTF-8 text: rename it", is_model_name(file.name))
    kind = Kind.MODEL if is_model_name(file.name) else Kind.OTHER
    try:
        status = file.stat()
    except (OSError, ValueError) as error:
        if kind is Kind.MODEL:  # what is wrong is told when it is opened
            return Member(path, kind, 0, "")
        reason = getattr(error, "strerror", None) or str(error)
        return Gap(path, f"it cannot be looked at: {reason}", not file.is_symlink())
    if kind is Kind.OTHER and not stat.S_ISREG(status.st_mode):
        return Gap(path, "it is no regular file", False)
    return Member(path, kind, status.st_size, str(status.st_mtime_ns))


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_ours(file: Path) -> bool:
    return STATE in file.parts or bool(REMNANT.fullmatch(file.name))


def _is_below(path: Path, folder: Path) -> bool:
    return path.parent.resolve().is_relative_to(folder.resolve())


def _fixed_part(pattern: Path) -> Path:
    """Returns the folder in front of the first part of a glob that is a pattern."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()
