"""The files in which commands report: refused before any work, or written whole, however it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.errors import ModelWriteError, UsageError

if TYPE_CHECKING:
    from onnxfix.verify.render.verdict import Verdict


@dataclass(frozen=True)
class ReportFiles:
    """Where a verification is told.

    Attributes:
        paths: The files, by option: `--junit`, `--summary`, `--html`.
    """

    paths: Mapping[str, Path]

    def prepare(self, others: Iterable[Path]) -> None:
        """Removes what an earlier run left, which would be taken for this one's, and refuses what cannot be written.

        Args:
            others: Files that are read, and must not be overwritten.

        Raises:
            UsageError: There is no such folder, it is not writable, or the file is something else already.
        """
        taken = {_resolved(path) for path in others}
        first: UsageError | None = None
        for option, path in self.paths.items():
            where = f"{option} {path}"
            try:
                _require_free(path, where, taken)
                _remove(path, where)
                taken.add(_resolved(path))
            except UsageError as error:
                first = first or error
        if first is not None:
            raise first

    def write(self, verdict: Verdict) -> None:
        """Writes all files, each whole or not at all.

        Raises:
            ModelWriteError: One cannot be written.
        """
        writers = _writers()
        for option, path in self.paths.items():
            content = writers[option](verdict).encode("utf-8", "backslashreplace")
            try:
                _write(path, content)
            except OSError as error:
                message = f"the report cannot be written: {error.strerror or error}"
                raise ModelWriteError(message, where=f"{option} {path}") from None


def require_free(paths: Iterable[tuple[str, Path]], others: Iterable[Path]) -> None:
    """Refuses files that cannot be written, or that are something else.

    Args:
        paths: Where reports go, each with what the user has called it.
        others: Files that must not be overwritten.

    Raises:
        UsageError: There is no such folder, it is not writable, or the file is something else already.
    """
    taken = {_resolved(path) for path in others}
    for where, path in paths:
        _require_free(path, where, taken)


def _require_free(path: Path, where: str, taken: set[tuple[int, int] | Path]) -> None:
    _require_writable(path, where)
    if _resolved(path) in taken:
        raise UsageError("this file is something else already", where=where, hint="choose another name")
    taken.add(_resolved(path))


def _write(path: Path, content: bytes) -> None:
    from onnxfix.model.atomic import NewFile, sweep

    sweep(path)
    new = NewFile(path)
    try:
        new.write([content])
        new.move(path)
    finally:
        new.discard()


def _writers() -> Mapping[str, Callable[[Verdict], str]]:
    from onnxfix.verify.render.junit import junit
    from onnxfix.verify.render.markdown import markdown
    from onnxfix.verify.render.page import page

    return {"--junit": junit, "--summary": markdown, "--html": page}


def _require_writable(path: Path, where: str) -> None:
    try:
        folder = path.parent
        if not folder.is_dir():
            raise UsageError(f"there is no folder `{folder}`", where=where, hint="make it, or correct the path")
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise UsageError("this is no regular file", where=where, hint="name a file")
        path.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise UsageError(f"this is no file name: {getattr(error, 'strerror', None) or error}", where=where) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder `{folder}` is not writable", where=where)


def _remove(path: Path, where: str) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        message = f"what an earlier run left cannot be removed: {error.strerror or error}"
        raise UsageError(message, where=where) from None


def _resolved(path: Path) -> tuple[int, int] | Path:
    """Returns what tells a file from all others, by whatever name it goes."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            return path.resolve()
        return path.absolute()
    return (status.st_dev, status.st_ino)
