"""From the stage to the place where people see it: files are moved by one process, and written down before."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from onnxfix.errors import ModelWriteError, OnnxfixError
from onnxfix.zoo.copies import back_up, disk_full
from onnxfix.zoo.failure import is_disk_full
from onnxfix.zoo.journal import DOOMED, Journal, Mark
from onnxfix.zoo.outcome import Failed, Outcome
from onnxfix.zoo.resume import Todo
from onnxfix.zoo.state import StateFolder
from onnxfix.zoo.stores.places import is_url
from onnxfix.zoo.stores.store import STATE, Store
from onnxfix.zoo.task import Task, Work


class Delivery:
    """The only one that changes what people see at a destination."""

    def __init__(
        self, zoo: Store, state: StateFolder, journal: Journal, *, is_in_place: bool = False, has_backup: bool = False,
        may_replace: bool = False,
    ) -> None:  # fmt: skip
        """Looks at what the destination holds.

        Args:
            zoo: The zoo.
            state: The destination's hidden folder.
            journal: Its journal.
            is_in_place: Whether results take the places of their sources.
            has_backup: Whether these are kept.
            may_replace: Whether results take the places of files that no migration has made.
        """
        self.zoo = zoo
        self.state = state
        self.journal = journal
        self.is_in_place = is_in_place
        self.has_backup = is_in_place and has_backup
        self.may_replace = may_replace or is_in_place
        self._owners = Counter(mark.path for row in journal.rows() for mark in row.results)
        self._copies = journal.copies()
        self._identity = _identity(state.journal)

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """Lets the block write there; where the destination was removed meanwhile, that is what is told.

        Raises:
            ModelWriteError: It was.
        """
        try:
            yield
        except OnnxfixError:
            self.require_destination()
            raise
        self.require_destination()

    def require_destination(self) -> None:
        """Checks that the destination is still there.

        Raises:
            ModelWriteError: Somebody has removed it: nothing is put in its place.
        """
        if self._identity is None or _identity(self.state.journal) != self._identity:
            hint = "run the same command again: it starts from the beginning"
            message = "the destination was removed while it was migrated to"
            raise ModelWriteError(message, where=self.state.out.place, hint=hint)
        self.state.require()

    def take(self, task: Task, todo: Todo, work: Work) -> Outcome:
        """Moves what a model has become into place, and says what became of it.

        Raises:
            ModelWriteError: The disk is full, or the destination is gone; the model is not done.
            StoreError: The zoo or the destination does not answer; the model is not done.
            JournalError: The journal cannot be written.
        """
        self.require_destination()
        if work.is_disk_full:
            raise disk_full(self.state.out.place)
        if work.is_cut_off:  # if they answer now, it was the model alone
            self.state.out.require()
            self.zoo.require()
        strange = [] if self.may_replace else [one.mark.path for one in work.results if self._is_strange(one.mark)]
        if strange:
            hint = "move it away, or choose another destination"
            message = "a file stands at its place that no migration has made"
            work = replace(work, outcome=Failed("ModelWriteError", message, strange[0], hint), results=())
        old = {mark.path: mark for mark in (todo.row.results if todo.row else ())}
        new = {staged.mark.path: staged.mark for staged in work.results}
        doomed = {path: replace(mark, sha256=DOOMED) for path, mark in old.items() if path not in new}
        announced = {**doomed, **new}
        self._announce(task, work, work.outcome, announced.values())
        outcome, final = work.outcome, new
        try:
            final = self._move_all(task, todo, work)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(self.state.out.place) from None
            self.require_destination()
            place = str(error.filename2 or error.filename or "")
            outcome, final = Failed("ModelWriteError", f"it cannot be put in place: {error.strerror}", place), {}
            self._announce(task, work, outcome, announced.values())
        self._drop(old.keys(), announced.keys(), final.keys())
        self.journal.finish(task.path, final.values())
        self.clear(task)
        return outcome

    def _is_strange(self, mark: Mark) -> bool:
        """Whether something else stands at a result's place, and neither a result nor a copy has ever stood there."""
        if self._owners[mark.path] > 0 or mark.path.startswith(f"{STATE}/"):
            return False
        found = self.state.out.look(mark.path)
        if found is None or self._copies.get(mark.path, ("", ""))[1] == found.stamp:
            return False
        return found.size != mark.size or self.state.out.digest(mark.path) != mark.sha256

    def clear(self, task: Task) -> None:
        """Removes what a task has laid down and nobody wants."""
        if not task.stage or is_url(task.stage):
            return
        stage = Path(task.stage)
        for path in (stage, Path(f"{stage}.trace.npz")):
            with contextlib.suppress(OSError):
                path.unlink()
        shutil.rmtree(stage, ignore_errors=True)

    def _announce(self, task: Task, work: Work, outcome: Outcome, results: Iterable[Mark]) -> None:
        self.journal.deliver(
            task.path, outcome, source=work.source, data=work.data, results=results, seconds=work.seconds
        )

    def _move_all(self, task: Task, todo: Todo, work: Work) -> dict[str, Mark]:
        """Moves results into place, data files first, and returns what is there now, by path."""
        moved = {}
        for staged in work.results:
            if self.has_backup and staged.mark.path == task.path:
                own = {mark.sha256 for mark in (todo.row.results if todo.row else ())}
                back_up(Path(task.source), self.state.backup / task.path, own=own)
            self.state.out.move(staged.file, staged.mark.path)
            found = self.state.out.look(staged.mark.path)
            moved[staged.mark.path] = staged.mark if found is None else replace(staged.mark, stamp=found.stamp)
        return moved

    def _drop(self, old: Iterable[str], announced: Iterable[str], final: Iterable[str]) -> None:
        """Removes what belongs to the model no more, unless another model needs it; in place, no model goes."""
        self._owners.subtract(old)
        self._owners.update(final)
        for path in announced:
            if self._owners[path] <= 0 and not (self.is_in_place and not path.startswith(f"{STATE}/")):
                self.state.out.remove(path)


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None
