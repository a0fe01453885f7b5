"""What belongs to a destination that has no disk: kept in a folder of this machine, and handed over when a run ends.

The journal and what is not finished lie in a folder of this machine, one for each destination. The journal is fetched
where somebody else has migrated since, and put beside the results, at `OUT/.onnxfix/journal.sqlite`, when a run ends,
and every now and then meanwhile: so another machine goes on where this one stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from onnxfix.errors import ModelWriteError, UsageError
from onnxfix.zoo.failure import is_disk_full
from onnxfix.zoo.journal import JournalError
from onnxfix.zoo.state import StateFolder
from onnxfix.zoo.stores.lease import Lease
from onnxfix.zoo.stores.remote import STAGE, RemoteStore
from onnxfix.zoo.stores.store import STATE, StoreError

JOURNAL = f"{STATE}/journal.sqlite"
_EVERY, _SHARE = 60.0, 20.0
"""Seconds from one copy of the journal to the next, and how many times as long as it took they are at least."""


class RemoteState(StateFolder):
    """The state of one remote destination, in a folder of this machine."""

    out: RemoteStore

    def __init__(self, out: RemoteStore, home: Path | None = None) -> None:
        """Makes nothing yet.

        Args:
            out: The destination.
            home: The folder that holds those of all destinations; None: the user's.
        """
        self.out = out
        self.path = (home or _users_home()) / _folder_name(out.place)
        self._lease: Lease | None = None
        self._next = 0.0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other migrations away, on this machine and on others, and brings the journal here."""
        with super().locked():
            self._lease = Lease(self.out, self._owner())
            try:
                self._lease.take()
            except StoreError as error:  # it is the first that is written
                error.where = self.out.place
                raise
            try:
                self._receive()
                self._next = time.monotonic() + _EVERY
                try:
                    yield
                except BaseException:
                    if not self.out.is_lost:
                        with contextlib.suppress(StoreError):  # it is here, and the next run hands it over
                            self._put(self.journal)
                    raise
                self._put(self.journal)
            finally:
                self._lease.release()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Keeps other migrations of this machine away, and checks that none of another one is at work."""
        with super().locked():
            Lease(self.out, self._owner()).require_free()
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[Path | None]:
        """Lends the journal that is the newest; it is copied here where another machine has it."""
        found = self.out.look(JOURNAL)
        if self.journal.is_file() and (found is None or found.stamp == self._noted()):
            yield self.journal
            return
        if found is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="onnxfix-") as folder:
            copy = Path(folder) / self.journal.name
            self.out.fetch(JOURNAL, copy)
            yield copy

    def require(self) -> None:
        """Checks that the destination is still this migration's."""
        assert self._lease is not None
        self._lease.require()

    def keep(self) -> None:
        """Puts the journal beside the results, if that was long ago: for the case that this machine is lost."""
        if time.monotonic() < self._next:
            return
        start = time.monotonic()
        copy = self.stage / "journal.copy"
        with (
            contextlib.closing(sqlite3.connect(self.journal)) as journal,
            contextlib.closing(sqlite3.connect(copy)) as to,
        ):
            journal.backup(to)
        self._put(copy)
        self._next = time.monotonic() + max(_EVERY, _SHARE * (time.monotonic() - start))

    def publish(self, files: Iterable[Path]) -> list[str]:
        """Puts reports beside the journal, and returns where they are."""
        for file in files:
            self.out.take(file, f"{STATE}/{file.name}")
        return [self.out.at(f"{STATE}/{file.name}") for file in files]

    def stage_for(self, name: str) -> str:
        """Returns where results of a task are laid down."""
        return self.out.at(f"{STAGE}/{name}")

    def sweep(self) -> None:
        """Removes what is left unfinished, here and there."""
        super().sweep()
        if not self.out.is_lost:
            with contextlib.suppress(StoreError):  # the next run does it
                self.out.sweep()

    def discard_journal(self) -> None:
        """Removes the journal, here and there."""
        super().discard_journal()
        self._origin().unlink(missing_ok=True)
        if self.out.look(JOURNAL) is not None:
            self.out.remove(JOURNAL)

    def _receive(self) -> None:
        """Brings the journal here, if somebody else has written it since."""
        found = self.out.look(JOURNAL)
        if found is None or (self.journal.is_file() and found.stamp == self._noted()):
            return
        copy = self.path / "journal.received"
        self.out.fetch(JOURNAL, copy)
        super().discard_journal()
        copy.replace(self.journal)
        self._note(found.stamp)

    def _put(self, journal: Path) -> None:
        """Puts the journal beside the results, if there is one."""
        if not journal.is_file():
            return
        self.out.take(journal, JOURNAL)
        found = self.out.look(JOURNAL)
        self._note("" if found is None else found.stamp)

    def _origin(self) -> Path:
        return self.path / "journal.origin"

    def _noted(self) -> str:
        """Returns the stamp of the journal at the destination when it was this one."""
        with contextlib.suppress(OSError):
            return self._origin().read_text(encoding="utf-8")
        return ""

    def _note(self, stamp: str) -> None:
        try:
            self._origin().write_text(stamp, encoding="utf-8")
        except OSError as error:
            if not is_disk_full(error):
                raise JournalError(f"the journal cannot be kept: {error.strerror}", where=str(self.path)) from None

    def _owner(self) -> str:
        """Returns what this folder is called, as no other is."""
        file = self.path / "id"
        try:
            if not file.is_file() or not file.read_text(encoding="utf-8"):  # a run may have been killed between
                file.write_text(secrets.token_hex(8), encoding="utf-8")
            return file.read_text(encoding="utf-8")
        except OSError as error:
            raise ModelWriteError(f"the state cannot be written: {error.strerror}", where=str(self.path)) from None


def _users_home() -> Path:
    try:
        from platformdirs import user_state_path
    except ImportError:
        hint = "pip install 'onnxfix[remote]', or name a folder with --state"
        raise UsageError("the package `platformdirs` is missing", where="--state", hint=hint) from None
    return user_state_path("onnxfix") / "migrations"


def _folder_name(place: str) -> str:
    """Returns a name for the folder of a destination, that people recognise and no other destination has."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", place).strip("-")[-60:]
    return f"{words}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
