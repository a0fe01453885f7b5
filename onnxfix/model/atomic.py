"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

CHUNK = 1 << 20
"""Bytes that are copied or compared at once."""


def sibling(path: Path) -> Path:
    """Returns a new hidden name beside `path`, with its suffix."""
    return path.with_name(f".{path.stem[:120]}.{secrets.token_hex(6)}{path.suffix[:20]}")


@contextlib.contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Removes `path` where the block fails, also where it is interrupted."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_new(path: Path, pieces: Iterable[bytes]) -> None:
    """Writes a file that did not exist, down to the disk; on failure nothing is left of it."""
    # Mode 0o666 under the umask, as any program's new file; tempfile's 0o600 would hide the result from others.
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with removed_on_error(path):
        try:
            for block in _blocks(pieces):
                rest = memoryview(block)
                while rest:
                    rest = rest[os.write(target, rest) :]
            os.fsync(target)
        finally:
            os.close(target)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Gathers small pieces, so that not each of them costs a call of the system."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= CHUNK:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


def copy_new(source: Path, path: Path) -> None:
    """Copies a file under a name that did not exist, holes as holes, down to the disk; on failure nothing is left."""
    flags = getattr(os, "O_BINARY", 0)
    origin = os.open(source, os.O_RDONLY | flags)
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o666)
        with removed_on_error(path):
            try:
                size = os.fstat(origin).st_size
                for start, end in _extents(origin, size):
                    _copy_range(origin, target, start, end)
                os.truncate(target, size)
                os.fsync(target)
            finally:
                os.close(target)
    finally:
        os.close(origin)


def _extents(origin: int, size: int) -> Iterator[tuple[int, int]]:
    """Yields the ranges that hold data; the whole file where the system cannot tell."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    start = 0
    while start < size:
        try:
            start = os.lseek(origin, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            yield start, size
            return
        end = os.lseek(origin, start, os.SEEK_HOLE)
        yield start, end
        start = end


def _copy_range(origin: int, target: int, start: int, end: int) -> None:
    in_kernel = hasattr(os, "copy_file_range")
    while start < end:
        if in_kernel:
            try:
                copied = os.copy_file_range(origin, target, min(end - start, 1 << 30), start, start)
            except OSError as error:
                if error.errno not in _NOT_IN_KERNEL:
                    raise
                copied = 0
            # Some file systems report success and copy nothing: then the bytes are carried over here.
            in_kernel = copied > 0
        if not in_kernel:
            os.lseek(origin, start, os.SEEK_SET)
            os.lseek(target, start, os.SEEK_SET)
            block = os.read(origin, min(end - start, CHUNK))
            if not block:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            copied = os.write(target, block)
        start += copied


_NOT_IN_KERNEL = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}


def has_same_content(first: Path, second: Path) -> bool:
    """Says whether two files hold the same bytes."""
    if first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while block := one.read(CHUNK):
            if block != other.read(CHUNK):
                return False
    return True


def replace(temporary: Path, destination: Path) -> None:
    """Moves a finished file into place; the folder entry is on the disk afterwards."""
    with contextlib.suppress(FileNotFoundError):
        temporary.chmod(destination.stat().st_mode & 0o777)
    temporary.replace(destination)
    sync_folder(destination.parent)


def sync_folder(folder: Path) -> None:
    """Brings a folder's entries down to the disk, where the system can."""
    if os.name != "posix":
        return
    # Some network file systems cannot, and the file is in place all the same.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
