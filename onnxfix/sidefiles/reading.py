"""The text of a side file, whole and as it is, and where a place in it is."""

from __future__ import annotations

import os
from pathlib import Path

from onnxfix.errors import SideFileError

LARGEST = 1 << 22
"""Bytes. The files of models with hundreds of layers have some thousands."""


def read_text(path: Path) -> str:
    """Returns what a file holds, line ends and byte order mark as they are.

    Raises:
        SideFileError: It is missing, no regular file, too large, unreadable, or no UTF-8 text.
    """
    where = str(path)
    try:
        # A pipe would be waited for, and a device may never end.
        if path.exists() and not path.is_file():
            raise SideFileError("this is no regular file", where=where, hint="Move it away, or write a file there.")
        if path.stat().st_size > LARGEST:
            hint = "Files of this name have some thousands of bytes: look what this one is."
            raise SideFileError(f"this file is larger than {LARGEST >> 20} MiB", where=where, hint=hint)
        content = path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            hint = "Remove it, or put the file there."
            raise SideFileError("this link leads nowhere", where=where, hint=hint) from None
        raise SideFileError("there is no such file", where=where, hint="See how its path is spelled.") from None
    except (OSError, RuntimeError) as error:  # a loop of links: RuntimeError before Python 3.13
        reason = getattr(error, "strerror", None) or "a loop of links"
        raise SideFileError(f"this file cannot be read: {reason}", where=where) from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "Save it as UTF-8."
        raise SideFileError(f"this is no UTF-8 text, from byte {error.start} on", where=where, hint=hint) from None


def is_there(path: Path) -> bool:
    """Whether anything has this name, a link that leads nowhere too."""
    return os.path.lexists(path)


def place_of(text: str, index: int) -> str:
    """Returns a place in a text as people count: `line 3, column 5`."""
    line = text.count("\n", 0, index) + 1
    return f"line {line}, column {index - (text.rfind(chr(10), 0, index) + 1) + 1}"
