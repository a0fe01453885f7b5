"""Files that are taken over as they are: what is no model, and models before they are migrated in place."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from onnxfix.errors import ModelWriteError
from onnxfix.zoo.failure import is_disk_full
from onnxfix.zoo.marks import digest_of
from onnxfix.zoo.stores.local import copy_file
from onnxfix.zoo.stores.store import Look, Store
from onnxfix.zoo.survey import Gap, Member


def copy_others(members: Iterable[Member], zoo: Store, out: Store) -> tuple[int, list[Gap]]:
    """Copies files that are not there yet, with the same size and stamp.

    Args:
        members: The files.
        zoo: Where they lie.
        out: The destination.

    Returns:
        How many files were copied, and those that could not be.

    Raises:
        ModelWriteError: The disk is full.
    """
    copied, failed = 0, []
    for member in members:
        if out.look(member.path) == Look(member.size, member.stamp):
            continue
        try:
            copy(zoo, out, member.path)
            copied += 1
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(out.place) from None
            failed.append(Gap(member.path, f"it cannot be copied: {error.strerror or error}", True))
    return copied, failed


def copy(source: Store, target: Store, path: str) -> None:
    """Copies a file from one store to another, under the same path.

    Raises:
        OSError, StoreError: It cannot be read, or not be written.
    """
    assert source.folder is not None
    target.take(source.folder / path, path)


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
