"""Files that are taken over as they are: what is no model, and models before they are migrated in place."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Collection, Iterable
from enum import Enum
from pathlib import Path

from onnxfix.errors import ModelWriteError
from onnxfix.model.atomic import sweep, sweep_folder
from onnxfix.zoo.failure import is_disk_full
from onnxfix.zoo.journal import Journal
from onnxfix.zoo.marks import digest_of
from onnxfix.zoo.stores.local import copy_file
from onnxfix.zoo.stores.remote import RemoteStore
from onnxfix.zoo.stores.store import Look, Store, StoreError
from onnxfix.zoo.survey import Gap, Member


def copy_others(
    members: Iterable[Member], zoo: Store, out: Store, journal: Journal, scratch: Path
) -> tuple[int, list[Gap]]:  # fmt: skip
    """Copies files that are not there yet; what others have put there, or edited, stays and is told.

    The journal knows what was copied from what; copies on disks have the times of their sources besides.

    Args:
        members: The files.
        zoo: Where they lie.
        out: The destination.
        journal: Learns what was copied.
        scratch: A folder for files on their way.

    Returns:
        How many files were copied, and those that were not.

    Raises:
        ModelWriteError: The disk is full.
        StoreError: The zoo or the destination does not answer.
    """
    copied, failed, noted = 0, [], journal.copies()
    swept: set[Path] = set()
    for member in members:
        try:
            found = out.look(member.path)
            standing = None if found is None else _standing(member, found, noted.get(member.path), zoo, out)
            if standing is _Standing.STRANGE:
                failed.append(Gap(member.path, "the destination has another file of this name, which stays", False))
            if standing in (None, _Standing.OLD):
                _sweep(out, member.path, swept)
                _copy(zoo, out, member.path, scratch)
                copied += 1
                found = out.look(member.path)
            if standing not in (_Standing.STRANGE, _Standing.NOTED) and found is not None:
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


class _Standing(Enum):
    """What stands at the destination where a file shall be copied."""

    NOTED = "the copy, as the journal knows it"
    SAME = "the same content"
    OLD = "a copy of what the file was"
    STRANGE = "something else"


def _standing(member: Member, found: Look, noted: tuple[str, str] | None, zoo: Store, out: Store) -> _Standing:
    if found.size == member.size and noted == (member.stamp, found.stamp):
        return _Standing.NOTED
    if noted is not None and noted[1] == found.stamp:
        return _Standing.OLD
    is_same = found.size == member.size and (
        (zoo.folder is not None and out.folder is not None and found.stamp == member.stamp)
        or zoo.digest(member.path) == out.digest(member.path)
    )
    return _Standing.SAME if is_same else _Standing.STRANGE


def _sweep(out: Store, path: str, swept: set[Path]) -> None:
    """Removes what copies that were killed have left in the folder of a file, once for each folder."""
    if out.folder is not None and (folder := (out.folder / path).parent) not in swept:
        swept.add(folder)
        sweep_folder(folder)


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
    sweep(copy)
    copy_file(source, copy)


def disk_full(place: str) -> ModelWriteError:
    """Returns the error that ends a migration, since all that follows would fail too."""
    hint = "free some space and run the same command again: it goes on where it stopped"
    return ModelWriteError("the disk is full", where=place, hint=hint)
