"""The local disk as the work on one model needs it: what lies elsewhere is brought there, and results are taken away.

A model and its data files are copied to a folder that lasts as long as the work; results are laid down beside and then
copied into the stage of their destination. What lies on this disk already is used where it is.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onnxfix.errors import OnnxfixError
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

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
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
        path, stage = self._task.path, str(self.stage) if self._task.stage else ""
        hidden = {f"{stage}/{self.path.name}": path, stage: path, str(self.path): path, self._task.source: path}
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
            if target.resolve().is_relative_to(file.parent.resolve()) and store.look(location) is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                store.fetch(location, target)
        return file

    def _folder(self) -> Path:
        self._folders.append(Path(tempfile.mkdtemp(prefix="onnxfix-")))
        return self._folders[-1]


def _named(file: Path) -> Sequence[str]:
    """Returns the data files that a model names; what is wrong with it is told when it is opened as one."""
    from onnxfix.model.named import named_files

    with contextlib.suppress(OnnxfixError):
        return named_files(file)
    return ()
