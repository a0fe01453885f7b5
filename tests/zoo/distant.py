"""File systems that are no folder of this machine: they break when a test says so, or outlive the process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from zoo_models import rows_of

from onnxfix.zoo.stores.store import STATE


class Shaky(MemoryFileSystem):  # type: ignore[misc]
    """`shaky://`: the memory of this process, that does not answer any more after some calls."""

    protocol = "shaky"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    left: ClassVar[int] = -1

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("shaky://", "memory://")))


def _counted(name: str) -> None:
    whole = getattr(MemoryFileSystem, name)

    def call(self: Shaky, *words: object, **options: object) -> object:
        if Shaky.left == 0:
            raise ConnectionError("the line is dead")
        Shaky.left -= 1
        return whole(self, *words, **options)

    setattr(Shaky, name, call)


for _name in ("find", "info", "get_file", "put_file", "cp_file", "rm_file", "pipe_file", "cat_file"):
    _counted(_name)


class Shelf(DirFileSystem):  # type: ignore[misc]
    """`shelf://`: the folder `SHELF` names, in which files are moved as a whole, into folders that are there."""

    protocol = "shelf"
    has_no_folders = False
    cachable = False
    async_impl = False  # as SFTP and the like: files are moved, not copied

    def __init__(self, **options: object) -> None:
        super().__init__(path=os.environ["SHELF"], fs=LocalFileSystem(auto_mkdir=self.has_no_folders), **options)


class Copier(Shelf):
    """`copier://`: the same, but files are copied and removed, as in object stores."""

    protocol = "copier"
    has_no_folders = True
    mv = AbstractFileSystem.mv


def register() -> None:
    """Lets fsspec know them."""
    for one in (Shaky, Shelf, Copier):
        fsspec.register_implementation(one.protocol, one, clobber=True)


def upload(folder: Path, url: str) -> None:
    """Copies a folder of this machine."""
    system, root = fsspec.url_to_fs(url)
    for path in folder.rglob("*"):
        if path.is_file():
            target = f"{root}/{path.relative_to(folder).as_posix()}"
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
            system.pipe_file(target, path.read_bytes())


def names(url: str) -> set[str]:
    """Returns the paths of all files."""
    system, root = fsspec.url_to_fs(url)
    system.invalidate_cache()
    return {name[len(root) + 1 :] for name in system.find(root)} - {""}


def everything(url: str) -> dict[str, bytes]:
    """Returns all files, by path."""
    system, root = fsspec.url_to_fs(url)
    return {path: bytes(system.cat_file(f"{root}/{path}")) for path in sorted(names(url))}


def shown(url: str) -> dict[str, bytes]:
    """Returns all files that people see, by path."""
    return {path: content for path, content in everything(url).items() if STATE not in path.split("/")}


def unseen(url: str) -> set[str]:
    """Returns the names of all that lies in the hidden folder, but for reports."""
    found = {path.removeprefix(f"{STATE}/") for path in everything(url) if path.startswith(f"{STATE}/")}
    return found - {"report.html", "report.json", "report.csv", "junit.xml"}


def told(url: str, folder: Path) -> dict[str, dict[str, object]]:
    """Returns what the journal at a place says of each model, but for times and stamps."""
    copy = folder / "told.sqlite"
    copy.write_bytes(everything(url)[f"{STATE}/journal.sqlite"])
    return rows_of(copy)
