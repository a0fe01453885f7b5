"""Files that are taken over as they are: what is no model, and models before they are migrated in place."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from onnxfix.errors import ModelWriteError
from onnxfix.zoo.failure import is_disk_full
from onnxfix.zoo.journal import Journal
from onnxfix.zoo.marks import digest_of
from onnxfix.zoo.stores.local import copy_file
from onnxfix.zoo.stores.remote import RemoteStore
from onnxfix.zoo.stores.store import Store, StoreError
from onnxfix.zoo.survey import Gap, Member


def copy_others(
    members: Iterable[Member], zoo: Store, out: Store, journal: Journal, scratch: Path
) -> tuple[int, list[Gap]]:  # fmt: skip
    """Copies files that are not there yet.

    Copies on disks have the times of their sources; of others the journal knows what they were copied from.

    Args:
        members: The files.
        zoo: Where they lie.
        out: The destination.
        journal: Learns what was copied.
        scratch: A folder for files on their way.

    Returns:
        How many files were copied, and those that could not be.

    Raises:
        ModelWriteError: The disk is full.
        StoreError: The zoo or the destination does not answer.
    """
    copied, failed, noted = 0, [], journal.copies()
    for member in members:
        found = out.look(member.path)
        stamps = (member.stamp, found.stamp) if found is not None and found.size == member.size else None
        if stamps is not None and (stamps[0] == stamps[1] or noted.get(member.path) == stamps):
            continue
        try:
            _copy(zoo, out, member.path, scratch)
            copied += 1
            if (zoo.folder is None or out.folder is None) and (found := out.look(member.path)) is not None:
                journal.note_copy(member.path, member.stamp, found.stamp)
        except StoreError as error:
            zoo.require()
            out.require()
            failed.append(Gap(member.path, f"it cannot be copied: {error.message}", True))
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(out.place) from None
            failed.append(Gap(member.path, f"it cannot be copied: {error.strerror or error}", True))
    return copied, failed


def _copy(zoo: Store, out: Store, path: str, scratch: Path) -> None:
    if zoo.folder is not None:
        out.take(zoo.folder / path, path)
        return
    if isinstance(zoo, RemoteStore) and isinstance(out, RemoteStore) and out.copy(zoo, path):
        return
    file = scratch / "copy"
    zoo.fetch(path, file)
    out.take(file, path)
    file.unlink()


def back_up(source: Path, backup: Path, *, own: Collection[str]) -> None:
    """Keeps a model as it is; another one that is kept already stays, and this one gets a number.

    Args:
        source: The model.
        backup: Where it is kept.
        own: Digests of what earlier migrations have made of it: what these were made of is kept already.

    Raises:
        OSError: It cannot be kept.
    """
    digest = digest_of(source)
    if backup.exists() and digest in own:
        return
    backup.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        path = backup.with_name(f"{backup.name}.{number}") if number else backup
        if path.exists() and digest_of(path) == digest:
            return
        if not path.exists():
            _link_or_copy(source, path)
            return


def _link_or_copy(source: Path, copy: Path) -> None:
    if not source.is_symlink():
        with contextlib.suppress(OSError):
            os.link(source, copy)
            return
    copy_file(source, copy)


def disk_full(place: str) -> ModelWriteError:
    """Returns the error that ends a migration, since all that follows would fail too."""
    hint = "free some space and run the same command again: it goes on where it stopped"
    return ModelWriteError("the disk is full", where=place, hint=hint)
