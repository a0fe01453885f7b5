"""The road of a migration: settings, what is left to do, work side by side, delivery, other files."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from onnxfix import __version__
from onnxfix.errors import UsageError
from onnxfix.model.atomic import hidden_name, sweep_folder
from onnxfix.zoo.copies import copy_others
from onnxfix.zoo.delivery import Delivery
from onnxfix.zoo.here import runner_for
from onnxfix.zoo.journal import Journal, JournalError, Row
from onnxfix.zoo.manifest import Manifest, manifest_of
from onnxfix.zoo.migration import Migration, Request, Watcher
from onnxfix.zoo.pool import Ended, Runner, Started
from onnxfix.zoo.resume import Ground, Todo, outstanding
from onnxfix.zoo.settings import Settings
from onnxfix.zoo.state import StateFolder, open_state
from onnxfix.zoo.stores.store import Store
from onnxfix.zoo.survey import Gap, Kind, Survey
from onnxfix.zoo.task import Task


def migrate(
    survey: Survey, request: Request, watcher: Watcher | None = None, runner: Runner | None = None
) -> Migration:
    """Migrates a zoo; what is done already is not done again.

    Sources are never modified, but in place. It may be killed at any time, and goes on where it was when it is called
    again.

    Args:
        survey: What is in the zoo.
        request: What is asked for.
        watcher: Is told how far the migration is.
        runner: Who does the work; None: processes of this machine, or this one where no other sees the zoo.

    Raises:
        UsageError: The request or the manifest cannot be understood, or another migration is at work.
        ModelWriteError: The destination cannot be written, is gone, or full.
        JournalError: The journal cannot be used.
        StoreError: The zoo or the destination is elsewhere, and does not answer.
    """
    out = request.destination(survey.zoo)
    if out is None:
        raise UsageError("where do the results go?", where="OUT", hint="onnxfix migrate ZOO OUT, or --in-place")
    request.change.applied(Settings()).require_conventions()
    manifest = manifest_of(survey.zoo)
    state = open_state(out, request.home)
    runner = runner or runner_for(survey.zoo, out)
    if out.folder is not None and not (state.journal.exists() or request.is_in_place or request.is_fresh):
        _require_free([member.path for member in survey.models], out)  # before anything is made there
    state.make()
    with state.locked():
        if request.is_fresh:
            _start_over(state, is_in_place=request.is_in_place)
        try:
            state.make_stage()
            with Journal(state.journal) as journal:
                return _Run(survey, request, manifest, state, journal, watcher or Watcher(), runner).run()
        finally:
            state.sweep()


def _start_over(state: StateFolder, *, is_in_place: bool) -> None:
    """Removes the journal and, as far as it can be read, the results of the runs before."""
    if not is_in_place and state.journal.exists():
        with contextlib.suppress(JournalError), Journal(state.journal) as journal:
            for mark in [mark for row in journal.rows() for mark in row.results]:
                state.out.remove(mark.path)
    state.discard_journal()


def _require_free(paths: Iterable[str], out: Store) -> None:
    """Checks that nothing stands where results go.

    Raises:
        UsageError: Somebody else has put models there; or the zoo and the destination were mixed up.
    """
    strange = [path for path in paths if out.look(path) is not None]
    if strange:
        more = f", and {len(strange) - 1} more" if len(strange) > 1 else ""
        message = f"files stand where results go that no migration has made: `{strange[0]}`{more}"
        hint = "move them away, choose another destination, or let --fresh replace them"
        raise UsageError(message, where=out.place, hint=hint)


class _Run:
    """One run of a migration, under its lock."""

    def __init__(
        self, survey: Survey, request: Request, manifest: Manifest, state: StateFolder, journal: Journal,
        watcher: Watcher, runner: Runner,
    ) -> None:  # fmt: skip
        self.survey = survey
        self.request = request
        self.manifest = manifest
        self.state = state
        self.journal = journal
        self.watcher = watcher
        self.runner = runner
        self.limits = request.limits.over(manifest.limits)
        self.notes = manifest.unmatched([member.path for member in survey.models])

    def run(self) -> Migration:
        self.require_own_journal()
        todo = self.outstanding()
        self.watcher.planned(len(self.survey.models), len(self.survey.models) - len(todo))
        delivery = Delivery(
            self.survey.zoo, self.state, self.journal, is_in_place=self.request.is_in_place,
            has_backup=self.request.has_backup, may_replace=self.request.is_fresh,
        )  # fmt: skip
        with delivery.standing():
            self.work(todo, delivery)
            copied, failed = self.copy()
        paths = {member.path for member in self.survey.models}
        outcomes = tuple((path, one) for path, one in self.journal.outcomes(is_brief=True) if path in paths)
        return Migration(
            self.survey.zoo.place, self.state.out.place, outcomes, len(paths) - len(todo), copied,
            (*self.survey.gaps, *failed), tuple(self.notes),
        )  # fmt: skip

    def require_own_journal(self) -> None:
        """Checks that the destination holds nothing, or what was made of this zoo.

        Raises:
            UsageError: It holds the migration of another zoo, whose results would be mixed with these.
        """
        own = {"zoo": self.survey.zoo.identity, "mode": "in-place" if self.request.is_in_place else "tree"}
        about = self.journal.about()
        if about and about != own:
            hint = "choose another destination, or start over with --fresh"
            message = f"it holds the migration of another zoo, `{about.get('zoo')}`"
            raise UsageError(message, where=self.state.out.place, hint=hint)
        if not about:
            self.journal.set_about(own)

    def outstanding(self) -> list[Todo]:
        """Returns what is left to do, and removes what is left of runs that were killed there."""
        models = self.survey.models
        self.state.out.remember()
        self.journal.await_(member.path for member in models)
        rows = {row.path: row for row in self.journal.rows()}
        self.forget(rows.keys() - {member.path for member in models}, rows)
        wanted = [(member, self.manifest.settings(member.path, self.request.change)) for member in models]
        ground = Ground(self.survey.zoo, self.state.out, __version__)
        todo = outstanding(ground, wanted, rows, self.journal)
        self.require_own_results(todo, rows)
        if (root := self.state.out.folder) is not None:
            for folder in sorted({(root / one.member.path).parent for one in todo}):
                sweep_folder(folder)
        self.notes += [f"{one.member.path}: {one.reason}: done again" for one in todo if one.reason]
        return todo

    def forget(self, gone: Collection[str], rows: Mapping[str, Row]) -> None:
        """Forgets models that are not in the zoo any more; what was made of them stays, and stays known."""
        self.journal.forget(path for path in gone if not rows[path].results)
        left = sum(1 for path in gone if rows[path].results)
        if left:
            models = "1 model of earlier runs is" if left == 1 else f"{left} models of earlier runs are"
            self.notes.append(f"{models} not in the zoo any more; what was made of them stays")

    def require_own_results(self, todo: Iterable[Todo], rows: Mapping[str, Row]) -> None:
        if not (self.request.is_in_place or self.request.is_fresh):
            own = {mark.path for row in rows.values() for mark in row.results}
            _require_free([one.member.path for one in todo if one.member.path not in own], self.state.out)

    def work(self, todo: Iterable[Todo], delivery: Delivery) -> None:
        """Works on what is left, and delivers what comes of it."""
        by_path = {one.member.path: one for one in todo}
        token = secrets.token_hex(4)
        tasks = (self.task(one, f"{token}-{index}") for index, one in enumerate(by_path.values()))
        with contextlib.closing(self.runner(tasks, self.limits, len(by_path))) as events:
            for event in events:
                delivery.require_destination()
                self.watcher.happened(event)
                if isinstance(event, Started):
                    self.begin(by_path[event.task.path])
                elif isinstance(event, Ended):
                    outcome = delivery.take(event.task, by_path[event.task.path], event.work)
                    self.watcher.ended(event.task.path, outcome)
                    self.state.keep()

    def begin(self, todo: Todo) -> None:
        self.journal.begin(
            todo.member.path,
            settings=todo.settings.key(),
            version=__version__,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            notes=todo.notes,
        )

    def task(self, todo: Todo, name: str) -> Task:
        """Returns what a process is asked to do."""
        source = self.survey.zoo.at(todo.member.path)
        stage = str(hidden_name(Path(source))) if self.request.is_in_place else self.state.stage_for(name)
        return Task(
            todo.member.path, source, stage, todo.settings, is_in_place=self.request.is_in_place,
            size=todo.member.size, scratch=str(self.state.stage),
        )  # fmt: skip

    def copy(self) -> tuple[int, list[Gap]]:
        """Copies what is neither a model nor the data of one."""
        if self.request.is_in_place or self.request.only_models or self.manifest.only_models:
            return 0, []
        data = {mark.path for row in self.journal.rows() for mark in row.data}
        others = [
            member for member in self.survey.members if member.kind is Kind.OTHER and member.path not in data
        ]  # fmt: skip
        return copy_others(others, self.survey.zoo, self.state.out, self.journal, self.state.stage)
