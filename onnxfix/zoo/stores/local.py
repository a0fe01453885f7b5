"""A folder of this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from onnxfix.model.atomic import NewFile
from onnxfix.zoo.marks import digest_of, keep_time
from onnxfix.zoo.stores.store import Look


@dataclass(frozen=True)
class LocalStore:
    """A folder of this machine: a `Store`.

    Attributes:
        folder: The root.
    """

    folder: Path

    @property
    def place(self) -> str:
        """The root, as people write it."""
        return str(self.folder)

    @property
    def identity(self) -> str:
        """Where it really is, whatever links lead there."""
        return str(self.folder.resolve())

    @property
    def is_here(self) -> bool:
        """Whether no other process sees it."""
        return False

    def require(self) -> None:
        """Does nothing: each file tells for itself."""

    def at(self, path: str) -> str:
        """Returns where a file lies."""
        return str(self.folder / path)

    def remember(self) -> None:
        """Does nothing: to look at one file costs little."""

    def look(self, path: str) -> Look | None:
        """Returns what is seen of a file; None where there is none."""
        try:
            status = os.stat(os.path.join(self.folder, path))  # noqa: PTH116, PTH118 (it is done for thousands of files)
        except (OSError, ValueError):
            return None
        return Look(status.st_size, str(status.st_mtime_ns)) if stat.S_ISREG(status.st_mode) else None

    def digest(self, path: str) -> str:
        """Returns the SHA-256 of a file's bytes."""
        return digest_of(self.folder / path)

    def fetch(self, path: str, file: Path) -> None:
        """Copies a file of the store to another place on this machine."""
        copy_file(self.folder / path, file)

    def take(self, file: Path, path: str) -> None:
        """Copies a file of this machine into the store."""
        target = self.folder / path
        make_folder(target.parent, self.folder)
        copy_file(file, target)

    def move(self, staged: str, path: str) -> None:
        """Moves a file into place, over what may stand there."""
        file, target = Path(staged), self.folder / path
        make_folder(target.parent, self.folder)
        try:
            file.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:  # a folder of the store that lies on another disk
                raise
            copy_file(file, target)

    def remove(self, path: str) -> None:
        """Removes a file, if it is there."""
        with contextlib.suppress(OSError):
            (self.folder / path).unlink()


def make_folder(folder: Path, root: Path) -> None:
    """Makes a folder below another, which is not made: where that was removed, it does not come back.

    Raises:
        OSError: It cannot be made.
    """
    missing = []
    while folder != root and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Copies a file with its times, whole or not at all.

    Raises:
        OSError: It cannot be read, or the copy cannot be written.
    """
    with NewFile(target, source) as new:
        new.copy(source)
        keep_time(source, new.path)
        new.move(target)
