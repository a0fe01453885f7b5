"""What a migration needs of the place where files lie; paths start at its root, with `/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from onnxfix.errors import ModelError

STATE = ".onnxfix"
"""The folder in a destination that holds the journal and what is not finished; never part of a zoo."""


class StoreError(ModelError):
    """A place where files lie does not answer, or refuses what is asked for."""


@dataclass(frozen=True)
class Look:
    """What is seen of a file without reading it.

    Attributes:
        size: Bytes.
        stamp: Changes when the file does: its time in nanoseconds or, elsewhere than on a disk, the digest or version
            that the store tells.
    """

    size: int
    stamp: str


class Store(Protocol):
    """A tree of files.

    Two roads lead in, and both let a file appear whole or not at all: `take` for one from elsewhere, and `move` for one
    that lies in the store's stage already.
    """

    @property
    def place(self) -> str:
        """The root, as people write it."""

    @property
    def folder(self) -> Path | None:
        """The root on this machine's disk; None where it is elsewhere."""

    @property
    def identity(self) -> str:
        """What it is called, by whatever name people call it: what a journal says of its zoo."""

    @property
    def is_here(self) -> bool:
        """Whether it lives in this process, and no other one sees it."""

    def require(self) -> None:
        """Checks that it answers.

        Raises:
            StoreError: It does not.
        """

    def at(self, path: str) -> str:
        """Returns where a file lies, in words that mean the same in another process."""

    def remember(self) -> object:
        """Looks at all files at once, where that costs less than to ask for each; what is changed here is known too."""

    def look(self, path: str) -> Look | None:
        """Returns what is seen of a file; None where there is none.

        Raises:
            StoreError: It does not answer.
        """

    def digest(self, path: str) -> str:
        """Returns the SHA-256 of a file's bytes.

        Raises:
            OSError, StoreError: It cannot be read.
        """

    def fetch(self, path: str, file: Path) -> None:
        """Copies a file of the store to this machine's disk.

        Raises:
            OSError, StoreError: It cannot be read, or not be written there.
        """

    def take(self, file: Path, path: str) -> None:
        """Copies a file of this machine into the store.

        Raises:
            OSError, StoreError: It cannot be written.
        """

    def move(self, staged: str, path: str) -> None:
        """Moves a file within the store, over what may stand there.

        Args:
            staged: Where it is, as `at` tells it.
            path: Where it goes.

        Raises:
            OSError, StoreError: That cannot be done.
        """

    def remove(self, path: str) -> None:
        """Removes a file, if it is there.

        Raises:
            StoreError: The store does not answer.
        """
