"""The standard streams as they may be found: closed, full, or with nobody at the other end."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO, cast

from onnxfix.errors import OutputError


class Stream:
    """A standard stream that says by its own kind of error that it takes no more.

    After an error it swallows whatever comes, so that what is wrong is told once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text.

        Raises:
            OutputError: The stream does not take it. A reader who has gone is no error: he has read enough.
        """
        with self._guarded():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered.

        Raises:
            OutputError: As `write`.
        """
        with self._guarded():
            self._stream.flush()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._mute()
        except OSError as error:
            name = getattr(self._stream, "name", "the output")
            self._mute()
            raise OutputError(f"the output cannot be written: {error.strerror or error}", where=str(name)) from None

    def _mute(self) -> None:
        # Python writes what is still buffered when it ends, and would complain then.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self._stream = io.StringIO()


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Lets the block write to standard output and standard error, whatever these are.

    Raises:
        OutputError: A stream does not take what was written to it.
    """
    _open_descriptors()
    known = sys.stdout, sys.stderr
    guarded = [Stream(io.StringIO() if stream is None else stream) for stream in known]
    for stream in known:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stdout, sys.stderr = (cast("TextIO", stream) for stream in guarded)
    try:
        yield
        for stream in guarded:
            stream.flush()
    finally:
        sys.stdout, sys.stderr = known


def _open_descriptors() -> None:
    """Opens those of the first three descriptors that are closed.

    The next file to be opened would get such a number, and libraries write their warnings to number 2.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the smallest number that is free
