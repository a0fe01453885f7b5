"""The hidden folder of a destination, `OUT/.onnxfix`: the journal, a lock, and what is not finished.

```
journal.sqlite   what became of each model
lock, owner      one migration at a time: held by a process that lives, and by whom
stage/           results before they are shown; nothing else, and swept when a migration begins
backup/          in place: the models as they were
traces/          recorded runs of the sources
```
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from onnxfix.errors import ModelWriteError, UsageError
from onnxfix.zoo.stores.local import LocalStore
from onnxfix.zoo.stores.remote import RemoteStore
from onnxfix.zoo.stores.store import STATE, Store

BACKUP, TRACES = f"{STATE}/backup", f"{STATE}/traces"
"""Folders in a destination, with `/`."""


class StateFolder:
    """The hidden folder of one destination.

    Attributes:
        out: The destination.
        path: The folder, on this machine.
    """

    def __init__(self, out: Path) -> None:
        self.out: Store = LocalStore(out)
        self.path = out / STATE

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.path / "journal.sqlite"

    @contextlib.contextmanager
    def reading(self) -> Iterator[Path | None]:
        """Lends the journal; None where there is none.

        Raises:
            StoreError: The destination does not answer.
        """
        yield self.journal if self.journal.is_file() else None

    @contextlib.contextmanager
    def reading_what_was_done(self) -> Iterator[Path]:
        """Lends the journal.

        Raises:
            UsageError: There is none.
            StoreError: The destination does not answer.
        """
        with self.reading() as journal:
            if journal is None:
                hint = "name the destination of a migration"
                raise UsageError("nothing was migrated here: there is no journal", where=self.out.place, hint=hint)
            yield journal

    @property
    def backup(self) -> Path:
        """The folder of the models as they were, in place."""
        return self.path / "backup"

    @property
    def stage(self) -> Path:
        """The folder of results that nobody sees yet."""
        return self.path / "stage"

    def make(self) -> None:
        """Makes destination and folder, where they are missing.

        Raises:
            ModelWriteError: That cannot be done.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ModelWriteError(f"the destination cannot be made: {reason}", where=self.out.place) from None

    def make_stage(self) -> None:
        """Makes the stage, empty: for whoever holds the lock.

        Raises:
            ModelWriteError: That cannot be done.
        """
        self.sweep()
        try:
            self.stage.mkdir(exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ModelWriteError(f"the destination cannot be written: {reason}", where=self.out.place) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other migrations away from the destination; the lock goes with its process, however that ends.

        Raises:
            UsageError: Another migration is at work there.
            ModelWriteError: The folder cannot be written.
        """
        from filelock import FileLock, Timeout

        owner = self.path / "owner"
        try:
            lock = FileLock(self._lock, timeout=0)
            lock.acquire()
        except Timeout:
            raise self._busy() from None
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ModelWriteError(f"the destination cannot be locked: {reason}", where=self.out.place) from None
        try:
            with contextlib.suppress(OSError):  # a full disk: the owner is told for people alone
                owner.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
            yield
        finally:
            with contextlib.suppress(OSError):
                owner.unlink()
            lock.release()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Keeps migrations away while what is there is only looked at; see `locked`.

        Where nothing can be written, the lock is shared with others who only look. One that was never made is held by
        nobody, and a file system of which it cannot be told is not watched.
        """
        if os.access(self._lock if self._lock.exists() else self.path, os.W_OK):
            with self.locked():
                yield
            return
        import fcntl

        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                lock = stack.enter_context(self._lock.open("rb"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise self._busy() from None
            yield

    @property
    def _lock(self) -> Path:
        return self.path / "lock"

    def _busy(self) -> UsageError:
        hint = "wait until it ends, or end it; its work is not lost"
        message = f"another migration is at work here: {_owner_text(self.path / 'owner')}"
        return UsageError(message, where=self.out.place, hint=hint)

    def require(self) -> None:
        """Checks that the destination is still this migration's.

        Raises:
            ModelWriteError: It was lost.
        """

    def keep(self) -> None:
        """Keeps the journal safe where this machine may be lost.

        Raises:
            StoreError: The destination does not answer.
        """

    def publish(self, files: Iterable[Path]) -> list[str]:
        """Puts reports where the destination is, if that is elsewhere, and returns where they are.

        Raises:
            StoreError: The destination does not answer, or cannot be written.
        """
        return [str(file) for file in files]

    def stage_for(self, name: str) -> str:
        """Returns where results of a task are laid down."""
        return str(self.stage / name)

    def sweep(self) -> None:
        """Removes what a migration that was killed has left unfinished; for whoever holds the lock."""
        shutil.rmtree(self.stage, ignore_errors=True)

    def discard_journal(self) -> None:
        """Removes the journal."""
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.journal.with_name(self.journal.name + suffix).unlink()


def open_state(out: Store, home: Path | None = None) -> StateFolder:
    """Returns what belongs to a destination.

    Args:
        out: The destination.
        home: For destinations elsewhere: the folder of this machine that holds what belongs to them; None: the user's.

    Raises:
        UsageError: A package is missing to find the user's.
    """
    if isinstance(out, RemoteStore):
        from onnxfix.zoo.remote_state import RemoteState

        return RemoteState(out, home)
    assert out.folder is not None
    return StateFolder(out.folder)


def _owner_text(owner: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(owner.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}"
    return "an unknown process"
