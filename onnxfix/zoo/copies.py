"""Files that are taken over as they are: what is no model, and models before they are migrated in place."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from onnxfix.errors import ModelWriteError
from onnxfix.model.atomic import NewFile, sweep
from onnxfix.zoo.failure import is_disk_full
from onnxfix.zoo.marks import digest_of, keep_time
from onnxfix.zoo.survey import Gap, Member


def copy_file(source: Path, target: Path) -> None:
    """Copies a file with its times, whole or not at all.

    Raises:
        OSError: It cannot be read, or the copy cannot be written.
    """
    sweep(target)
    with NewFile(target, source) as new:
        new.copy(source)
        keep_time(source, new.path)
        new.move(target)


def copy_others(members: Iterable[Member], root: Path, out: Path) -> tuple[int, list[Gap]]:
    """Copies files that are not there yet, with the same size and time.

    Args:
        members: The files.
        root: The zoo.
        out: The destination.

    Returns:
        How many files were copied, and those that could not be.

    Raises:
        ModelWriteError: The disk is full.
    """
    copied, failed = 0, []
    for member in members:
        target = out / member.path
        if _is_there(target, member):
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(root / member.path, target)
            copied += 1
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(out) from None
            failed.append(Gap(member.path, f"it cannot be copied: {error.strerror or error}", True))
    return copied, failed


def _is_there(path: Path, member: Member) -> bool:
    with contextlib.suppress(OSError):
        status = path.stat()
        return (status.st_size, status.st_mtime_ns) == (member.size, member.mtime_ns)
    return False


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


def disk_full(out: Path) -> ModelWriteError:
    """Returns the error that ends a migration, since all that follows would fail too."""
    hint = "free some space and run the same command again: it goes on where it stopped"
    return ModelWriteError("the disk is full", where=str(out), hint=hint)
