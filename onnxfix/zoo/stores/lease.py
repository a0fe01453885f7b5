"""One migration at a time of a place that has no locks: a small object that says whose it is, renewed while it is.

Where a store can create an object only if there is none (S3, Google Cloud Storage), two that begin in the same breath
are told apart; elsewhere the later one notices at its first renewal. A lease of a machine that is gone is free some
minutes later.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from dataclasses import dataclass

from onnxfix.errors import ModelWriteError, UsageError
from onnxfix.zoo.stores.remote import RemoteStore
from onnxfix.zoo.stores.store import STATE, StoreError

LEASE = f"{STATE}/lease.json"
RENEWAL, LIFE = 60.0, 300.0
"""Seconds between two renewals, and after the last one until the lease is free. Clocks may differ by less."""


@dataclass(frozen=True)
class _Holder:
    """Who has a lease.

    Attributes:
        owner: A state folder of one machine, where one migration runs at a time.
        pid, host: For people.
        renewed: When it was renewed last, in seconds since 1970.
    """

    owner: str
    pid: int
    host: str
    renewed: float


class Lease:
    """The right to migrate to a place."""

    def __init__(self, store: RemoteStore, owner: str) -> None:
        """Takes nothing yet.

        Args:
            store: The place.
            owner: Who asks: whoever is called so may take over at once, since it holds a lock of its machine.
        """
        self._store = store
        self._owner = f"{platform.node()} {owner}"
        self._trouble = ""
        self._renewed = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def take(self) -> None:
        """Takes the lease, and renews it from now on.

        Raises:
            UsageError: Another migration is at work there.
            StoreError: It does not answer, or cannot be written.
        """
        if self.require_free():
            self._store.remove(LEASE)
        if not self._write(is_new=True):  # another one was faster
            self.require_free()
        self._thread.start()

    def require_free(self) -> bool:
        """Checks that nobody else has the lease, and says whether an old one is in the way.

        Raises:
            UsageError: Another migration is at work there.
            StoreError: The store does not answer.
        """
        content = self._store.read(LEASE)
        found = _holder(content)
        if found is None or found.owner == self._owner or time.time() - found.renewed > LIFE:
            return content is not None
        hint = f"wait until it ends; if it was killed, {LIFE / 60:.0f} minutes from its last sign of life are enough"
        message = f"another migration is at work here: process {found.pid} on {found.host}"
        raise UsageError(message, where=self._store.place, hint=hint)

    def require(self) -> None:
        """Checks that the lease was not lost.

        Raises:
            ModelWriteError: It was.
        """
        if not self._trouble and time.monotonic() - self._renewed > LIFE:
            self._trouble = "it could not be renewed"
        if self._trouble:
            hint = "run the same command again: it goes on where it stopped"
            raise ModelWriteError(f"the destination was lost: {self._trouble}", where=self._store.place, hint=hint)

    def renew(self) -> None:
        """Says that its owner still lives.

        Raises:
            StoreError: The store does not answer.
        """
        found = _holder(self._store.read(LEASE))
        if found is None:
            self._trouble = "it was removed while it was migrated to"
        elif found.owner != self._owner:
            self._trouble = f"process {found.pid} on {found.host} has taken it over"
        else:
            self._write()

    def release(self) -> None:
        """Gives the lease back."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._trouble and not self._store.is_lost:
            with contextlib.suppress(StoreError):
                self._store.remove(LEASE)

    def _keep(self) -> None:
        while not self._over.wait(RENEWAL) and not self._trouble:
            with contextlib.suppress(StoreError):  # once is no trouble; `require` counts
                self.renew()

    def _write(self, *, is_new: bool = False) -> bool:
        fields = {"owner": self._owner, "pid": os.getpid(), "host": platform.node(), "renewed": round(time.time(), 3)}
        is_written = self._store.write(LEASE, json.dumps(fields).encode(), is_new=is_new)
        self._renewed = time.monotonic()
        return is_written


def _holder(content: bytes | None) -> _Holder | None:
    """Returns who has the lease; None where nobody has, or what stands there is none."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        found = json.loads(content or b"")
        return _Holder(str(found["owner"]), int(found["pid"]), str(found["host"]), float(found["renewed"]))
    return None
