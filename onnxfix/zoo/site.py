"""The local disk as the work on one model needs it: what lies elsewhere is brought there, and results are taken away.

A model and its data files are copied to a folder that lasts as long as the work; results are laid down beside and then
copied into the stage of their destination. What lies on this disk already is used where it is; but a model that was
kept in place lies apart from its data files, and is laid beside them under a hidden name for as long as the work lasts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onnxfix.errors import OnnxfixError
from onnxfix.model.atomic import hidden_name
from onnxfix.zoo.stores.places import is_url, open_file, open_store
from onnxfix.zoo.stores.store import STATE, Look
from onnxfix.zoo.task import Staged, Task

_STAGE = f"/{STATE}/stage/"


class Site:
    """Where one task is worked on; as a context manager it clears up.

    Attributes:
        path: The model.
        stage: Where results are laid down.
        against: What the model is held against; empty where there is nothing.
        seen: What was seen of the model before it was read; None where there was none.
    """

    def __init__(self, task: Task) -> None:
        """Brings nothing yet."""
        self.path, self.stage, self.against = Path(task.source), Path(task.stage), task.against
        self.seen: Look | None = None
        self._task = task
        self._store, self._name = open_file(task.source)
        self._folders: list[Path] = []
        self._beside: Path | None = None

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        if self._beside is not None:
            with contextlib.suppress(OSError):
                self._beside.unlink()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def arrive(self) -> None:
        """Brings what lies elsewhere.

        Raises:
            StoreError: It cannot be had.
        """
        self.seen = self._store.look(self._name)
        self.path = self._brought(self._task.source)
        if self.against:
            self.against = str(self._brought(self.against))
            if self._task.is_in_place and not self.against.endswith(".npz"):
                self.against = str(self._with_its_data(Path(self.against)))
        if is_url(self._task.stage):
            self.stage = self._folder() / "results"

    def look(self, location: str) -> Look | None:
        """Returns what is seen of a data file, that is named relative to the model's folder."""
        return self._store.look(location)

    def has_changed(self) -> bool:
        """Whether the model is not what it was any more."""
        return self._store.look(self._name) != self.seen

    def leave(self, results: Sequence[Staged]) -> tuple[Staged, ...]:
        """Takes results away, to where they are staged.

        Raises:
            StoreError: The destination does not answer, or cannot be written.
        """
        if not is_url(self._task.stage):
            return tuple(results)
        place, _, name = self._task.stage.rpartition(_STAGE)
        out, taken = open_store(place), []
        for number, staged in enumerate(results):
            path = f"{_STAGE[1:]}{name}/{number}"
            out.take(Path(staged.file), path)
            taken.append(replace(staged, file=out.at(path)))
        return tuple(taken)

    def names(self) -> Mapping[str, str]:
        """Returns what hidden files and folders are called for people, the longest names first."""
        path, against = self._task.path, self._task.against
        hidden = {against: against, str(self.path): path, self._task.source: path}
        if self._task.stage:
            hidden |= {f"{self.stage}/{self.path.name}": path, str(self.stage): path}
        if self.against != against:
            hidden[self.against] = against
        for folder in self._folders:
            hidden.setdefault(str(folder), self._task.source.rpartition("/")[0])
        return {name: hidden[name] for name in sorted(hidden, key=len, reverse=True) if name.strip("/")}

    def _brought(self, place: str) -> Path:
        if not is_url(place):
            return Path(place)
        store, name = open_file(place)
        file = self._folder() / name
        store.fetch(name, file)
        for location in _named(file):
            target = file.parent / location
            if _is_inside(file.parent, location) and store.look(location) is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                store.fetch(location, target)
        return file

    def _with_its_data(self, backup: Path) -> Path:
        """Returns a model as it was before it was migrated in place, where its data files are."""
        if not (locations := _named(backup)):
            return backup
        self._beside = hidden_name(self.path)
        with contextlib.suppress(OSError):
            os.link(backup, self._beside)
            return self._beside
        with contextlib.suppress(OSError):
            shutil.copyfile(backup, self._beside)
            return self._beside
        folder = self._folder()  # the zoo cannot be written; runtimes take no links to data files
        for location in locations:
            if _is_inside(self.path.parent, location) and (self.path.parent / location).is_file():
                (folder / location).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.path.parent / location, folder / location)
        return Path(shutil.copyfile(backup, folder / self.path.name))

    def _folder(self) -> Path:
        self._folders.append(Path(tempfile.mkdtemp(prefix="onnxfix-")))
        return self._folders[-1]


def _is_inside(folder: Path, location: str) -> bool:
    return (folder / location).resolve().is_relative_to(folder.resolve())


def _named(file: Path) -> Sequence[str]:
    """Returns the data files that a model names; what is wrong with it is told when it is opened as one."""
    from onnxfix.model.named import named_files

    with contextlib.suppress(OnnxfixError):
        return named_files(file)
    return ()
