"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

if sys.platform != "win32":
    import fcntl

CHUNK = 1 << 20
"""Bytes that are copied or compared at once."""


class NewFile:
    """A file under a hidden name beside its destination, until it is moved there.

    As long as it is open it is locked: so a later run knows what another one is still busy with, and what one that was
    killed has left behind. As a context manager it discards itself unless it was moved.

    Attributes:
        path: Its hidden name.
    """

    def __init__(self, destination: Path, like: Path | None = None) -> None:
        """Creates the file.

        Args:
            destination: Where it will be moved. What stands there lends it its permissions.
            like: The file that lends it its permissions where none stands there, less what the umask takes away.
        """
        standing = _mode(destination)
        lent = standing if standing is not None else _mode(like) if like else None
        mode = 0o666 if lent is None else lent
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._descriptor: int | None = None
        while self._descriptor is None:
            self.path = hidden_name(destination)
            descriptor = os.open(self.path, flags, mode | 0o600)
            if _lock(descriptor):
                self._descriptor = descriptor
            else:  # another run took it for a remnant, before it was locked
                os.close(descriptor)
        self._mode = os.fstat(self._descriptor).st_mode & mode if standing is None else standing

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, pieces: Iterable[bytes]) -> None:
        """Writes the file, down to the disk."""
        assert self._descriptor is not None
        for block in _blocks(pieces):
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        os.fsync(self._descriptor)

    def copy(self, source: Path) -> None:
        """Writes what another file holds, holes as holes, down to the disk."""
        assert self._descriptor is not None
        origin = os.open(source, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            size = os.fstat(origin).st_size
            for start, end in _extents(origin, size):
                _copy_range(origin, self._descriptor, start, end)
            os.ftruncate(self._descriptor, size)
            os.fsync(self._descriptor)
        finally:
            os.close(origin)

    def finish(self) -> None:
        """Lets others open the file, where a system does not let them open what is open already."""
        if sys.platform == "win32":
            self.close()

    def move(self, destination: Path) -> None:
        """Moves the file into place, over what may stand there; the folder entry is on the disk afterwards."""
        self.finish()
        if _mode(self.path) != self._mode:
            self.path.chmod(self._mode)
        self.path.replace(destination)
        self.close()
        _sync_folder(destination.parent)

    def close(self) -> None:
        """Closes the file; after this, nothing protects it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def discard(self) -> None:
        """Removes the file, unless it was moved."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def _mode(path: Path) -> int | None:
    """Returns a file's permissions; None where there is no file."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        return None


def sweep(destination: Path) -> None:
    """Removes what runs that were killed have left behind of files for this destination.

    What cannot be locked belongs to a run that is still busy, or lies where nothing can be locked; it stays.
    """
    if sys.platform == "win32":
        return
    hidden = re.compile(re.escape(_hidden_stem(destination)) + r"[0-9a-f]{12}" + re.escape(destination.suffix[:20]))
    with contextlib.suppress(OSError):
        for path in sorted(destination.parent.iterdir()):
            if hidden.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _remove_if_left(path)


REMNANT = re.compile(r"\..*\.onnxfix-[0-9a-f]{12}(\..{0,19})?", re.DOTALL)
"""Names of files that are not finished: no other program gives such names."""


def sweep_folder(folder: Path) -> None:
    """Removes what runs that were killed have left behind of files for any destination in a folder; see `sweep`."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if REMNANT.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if _lock(descriptor, needed=True):
            path.unlink()
    finally:
        os.close(descriptor)


def hidden_name(destination: Path) -> Path:
    """Returns a name beside a destination that `sweep` takes for that of an unfinished file."""
    return destination.with_name(f"{_hidden_stem(destination)}{secrets.token_hex(6)}{destination.suffix[:20]}")


def _hidden_stem(destination: Path) -> str:
    return f".{destination.stem[:40]}.onnxfix-"


def _lock(descriptor: int, *, needed: bool = False) -> bool:
    """Says whether the file is this process's own now; where nothing can be locked, whether that was not needed."""
    if sys.platform == "win32":
        return not needed
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks
        return not needed
    return os.fstat(descriptor).st_nlink > 0


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Gathers small pieces, so that not each of them costs a call of the system."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= CHUNK:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


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


def _sync_folder(folder: Path) -> None:
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
