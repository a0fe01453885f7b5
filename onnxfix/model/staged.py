"""A model that is written, and not yet visible."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from onnxfix.errors import ModelWriteError
from onnxfix.model import atomic


class Staged:
    """A model that stands complete beside its destination, under a temporary name.

    As a context manager it discards itself unless it was committed. Runtimes can load it from `path`: its data files
    are in place.

    Attributes:
        path: The temporary file.
        destination: Where `commit` moves it.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = atomic.sibling(destination)
        self._created: list[Path] = []
        self._is_committing = False

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, pieces: Iterable[bytes]) -> None:
        """Writes the model itself."""
        atomic.write_new(self.path, pieces)
        self._created.append(self.path)

    def add_data_file(self, source: Path, location: str) -> None:
        """Copies a data file to `location` in the destination's folder, where no file stands."""
        target = self.destination.parent / location
        self._make_folders(target.parent)
        temporary = atomic.sibling(target)
        atomic.copy_new(source, temporary)
        with atomic.removed_on_error(temporary):
            temporary.rename(target)
        self._created.append(target)
        atomic.sync_folder(target.parent)

    def _make_folders(self, folder: Path) -> None:
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir()
            self._created.append(new)

    def commit(self) -> None:
        """Moves the model into place; the destination holds the old file or the new one, at any moment.

        A destination that is a symbolic link is replaced, and the file that it points at stays as it is.

        Raises:
            ModelWriteError: The file cannot be moved there. Everything that was written is removed.
        """
        self._is_committing = True
        try:
            atomic.replace(self.path, self.destination)
        except OSError as error:
            self.discard()
            raise ModelWriteError(
                f"the model cannot be moved into place: {error.strerror or error}", where=str(self.destination)
            ) from error
        self._created.clear()

    def discard(self) -> None:
        """Removes everything that was written. After `commit` it does nothing."""
        if self._is_committing and not self.path.exists():
            # Interrupted just after the model was moved into place: now its data belongs to it.
            self._created.clear()
        while self._created:
            created = self._created.pop()
            with contextlib.suppress(OSError):
                created.rmdir() if created.is_dir() else created.unlink()
