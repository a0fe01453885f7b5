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
        destination: Where `commit` moves it.
    """

    def __init__(self, destination: Path, like: Path | None = None) -> None:
        """Creates the temporary file, and sweeps away what runs that were killed have left of such files.

        Args:
            destination: Where the model goes.
            like: The file whose permissions it gets where none stands there.
        """
        self.destination = destination
        atomic.sweep(destination)
        self._file = atomic.NewFile(destination, like)
        self._created: list[Path] = []
        self._is_committing = False

    @property
    def path(self) -> Path:
        """The temporary file."""
        return self._file.path

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, pieces: Iterable[bytes]) -> None:
        """Writes the model itself."""
        self._file.write(pieces)
        self._file.finish()

    def add_data_file(self, source: Path, location: str) -> None:
        """Copies a data file to `location` in the destination's folder, where no file stands."""
        target = self.destination.parent / location
        self._make_folders(target.parent)
        atomic.sweep(target)
        with atomic.NewFile(target, source) as copy:
            try:
                copy.copy(source)
                copy.move(target)
            finally:
                # Also where it was interrupted just after it was moved into place.
                if not copy.path.exists():
                    self._created.append(target)

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
            self._file.move(self.destination)
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
        self._file.discard()
        while self._created:
            created = self._created.pop()
            with contextlib.suppress(OSError):
                created.rmdir() if created.is_dir() else created.unlink()
