"""Side files and the model that they belong to: shown together, or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from onnxfix.errors import ModelWriteError, SideFileError
from onnxfix.model import atomic
from onnxfix.model.staged import Staged
from onnxfix.sidefiles.change import SideFile
from onnxfix.sidefiles.reading import is_there


class StagedSideFiles:
    """Side files that are written under temporary names beside their destinations.

    A file that stands at a destination is kept: as `NAME.orig` or, where that is taken, `NAME.orig.2` and so on. Files
    that have the content already are left alone.

    No file system moves two files at once. `commit` moves the side files first, then the model, and where the model
    cannot be moved it puts the side files back. What remains is the moment between two moves: whoever looks just then,
    or finds what a power cut or a kill at that very moment left, sees the new side file beside the old model; the old
    side file then lies beside it as `NAME.orig`.
    """

    def __init__(self, files: Iterable[SideFile]) -> None:
        """Writes the files.

        Raises:
            SideFileError: A file cannot be written. Everything that was written is removed.
        """
        self.files = tuple(files)
        self._staged: dict[Path, atomic.NewFile] = {}
        self._kept: dict[Path, Path | None] = {}
        with contextlib.ExitStack() as stack:
            stack.callback(self.discard)
            for file in self.files:
                self._stage(file)
            stack.pop_all()

    def __enter__(self) -> StagedSideFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _stage(self, file: SideFile) -> None:
        path, content = file.destination, file.after.encode()
        try:
            if path.is_dir():
                raise SideFileError("this is a folder", where=str(path), hint="Move it away.")
            if path.is_file() and path.read_bytes() == content:
                return
            atomic.sweep(path)
            staged = self._staged[path] = atomic.NewFile(path, file.source)
            staged.write([content])
            staged.finish()
        except OSError as error:
            raise SideFileError(f"this file cannot be written: {error.strerror}", where=str(path)) from None

    def commit(self, model: Staged | None) -> tuple[SideFile, ...]:
        """Moves the side files and the model into place.

        Args:
            model: The model; None where it stands at its destination already.

        Returns:
            The files, with where those that stood there are kept.

        Raises:
            ModelWriteError: The model cannot be moved; the side files are as they were.
            SideFileError: A side file cannot be moved; all is as it was.
        """
        try:
            for path, staged in self._staged.items():
                self._move(path, staged)
            if model is not None:
                model.commit()
        except BaseException as error:
            # Interrupted just after the model was moved into place, all is done.
            if model is None or isinstance(error, SideFileError | ModelWriteError) or model.path.exists():
                self._undo()
            raise
        return tuple(replace(file, kept=self._kept.get(file.destination)) for file in self.files)

    def _move(self, path: Path, staged: atomic.NewFile) -> None:
        try:
            self._kept[path] = _keep(path) if is_there(path) else None
            staged.move(path)
        except OSError as error:
            raise SideFileError(f"this file cannot be written: {error.strerror}", where=str(path)) from None

    def _undo(self) -> None:
        """Puts back what stood at the destinations."""
        for path, kept in self._kept.items():
            is_moved = not self._staged[path].path.exists()
            with contextlib.suppress(OSError):
                if kept is not None and is_moved:
                    kept.replace(path)
                elif kept is not None:  # both names are of one file: to move it onto itself would leave both
                    kept.unlink()
                elif is_moved:
                    path.unlink()
        self._kept.clear()

    def discard(self) -> None:
        """Removes what was written and not moved."""
        for staged in self._staged.values():
            staged.discard()


def _keep(path: Path) -> Path:
    """Gives a file a second name that nothing has, and returns it."""
    for number in itertools.count(1):
        name = path.with_name(f"{path.name}.orig" + (f".{number}" if number > 1 else ""))
        with contextlib.suppress(FileExistsError):
            _give_name(path, name)
            return name
    raise AssertionError


def _give_name(path: Path, name: Path) -> None:
    """Gives a file a second name.

    Raises:
        FileExistsError: Something has it.
    """
    try:
        os.link(path, name, follow_symlinks=False)
        return
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without such links
        pass
    with name.open("xb"):
        pass
    try:
        with atomic.NewFile(name, path) as copy:
            copy.copy(path)
            copy.move(name)
    except BaseException:
        name.unlink()
        raise
