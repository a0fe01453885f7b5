"""What files are: digest, size and stamp."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from onnxfix.zoo.journal import Mark


def mark_of(file: Path, path: str) -> Mark:
    """Returns what a file is.

    Raises:
        OSError: It cannot be read.
    """
    status = file.stat()
    return Mark(path, digest_of(file), status.st_size, str(status.st_mtime_ns))


def digest_of(file: Path) -> str:
    """Returns the SHA-256 of a file's bytes.

    Raises:
        OSError: The file cannot be read.
    """
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def keep_time(source: Path, copy: Path) -> None:
    """Gives a copy the times of its source."""
    status = source.stat()
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
