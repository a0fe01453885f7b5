"""One model of a zoo: converted, proven, and laid down where nobody sees it yet. Whatever happens is an outcome.

Results lie in a folder of the task's own, under their final names; in place, the result lies beside its model under a
hidden name and shares its data files. Nothing that people see is touched here: `onnxfix.zoo.delivery` moves results.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from onnxfix.errors import DetectError, OnnxfixError, UsageError
from onnxfix.zoo import fault
from onnxfix.zoo.failure import failure_of, is_disk_full
from onnxfix.zoo.journal import Mark
from onnxfix.zoo.marks import digest_of, keep_time, mark_of
from onnxfix.zoo.outcome import (
    Converted,
    Failed,
    Mishap,
    Outcome,
    Refused,
    Skipped,
    Unchanged,
    Verified,
    WouldChange,
    facts_of,
    proof_facts,
)  # fmt: skip
from onnxfix.zoo.site import Site
from onnxfix.zoo.state import TRACES
from onnxfix.zoo.stores.local import make_folder
from onnxfix.zoo.stores.places import is_url
from onnxfix.zoo.stores.store import StoreError
from onnxfix.zoo.task import Aim, Staged, Task, Work

if TYPE_CHECKING:
    from onnxfix.convention.plan import Edits
    from onnxfix.verify.options import VerifyOptions

Tell: TypeAlias = Callable[[str, int, int], None]
"""Is told the stage of a conversion, how many of its steps are done and how many there are."""


def work_on(task: Task, tell: Tell | None = None) -> Work:
    """Does what is asked for with one model, and never raises.

    Args:
        task: What to do.
        tell: Is told how far it is.
    """
    start = time.perf_counter()
    tempfile.tempdir = scratch_of(task) or None
    is_full = is_cut_off = False
    with Site(task) as site:
        bench = _Bench(task, site, tell)
        try:
            bench.work()
            outcome: Outcome = bench.outcome
        except MemoryError:
            outcome = Failed(Mishap.OUT_OF_MEMORY, "there was not enough memory")
        except Exception as error:
            is_full, is_cut_off = is_disk_full(error), isinstance(error, StoreError)
            outcome = bench.cleaned(failure_of(error))
    if isinstance(outcome, Failed | Refused):
        bench.results = ()
    seconds = {**bench.seconds, "all": time.perf_counter() - start}
    return Work(outcome, bench.source, bench.data, bench.results, seconds, is_full, is_cut_off)


def scratch_of(task: Task) -> str:
    """Returns where temporary files lie: another machine, that takes a task up for a store, has its own place."""
    return task.scratch if not is_url(task.stage) or Path(task.scratch).is_dir() else ""


class _Bench:
    """The place where one model is worked on."""

    def __init__(self, task: Task, site: Site, tell: Tell | None) -> None:
        self.task = task
        self.site = site
        self.tell = tell
        self.source: Mark | None = None
        self.data: tuple[Mark, ...] = ()
        self.results: tuple[Staged, ...] = ()
        self.seconds: Mapping[str, float] = {}
        self.outcome: Outcome = Skipped("excluded")

    def work(self) -> None:
        self.site.arrive()
        self.source = self.source_mark()
        fault.provoke(self.task.path)
        if self.task.aim is Aim.VERIFY:
            self.outcome = self.verify()
        elif self.task.settings.is_excluded:
            locations: list[str] = []
            with contextlib.suppress(OnnxfixError):  # it is not asked to be a model that can be read
                locations = self.locations()
            self.copy(locations, locations)
        elif self.task.aim is Aim.CHECK:
            self.outcome = self.check()
        else:
            self.outcome = self.migrate()
        self.require_steady()
        if self.results and not isinstance(self.outcome, Failed):
            self.results = self.site.leave(self.results)

    @property
    def path(self) -> Path:
        """The model, on this machine's disk."""
        return self.site.path

    # What is asked for.

    def migrate(self) -> Outcome:
        from onnxfix.convert import convert
        from onnxfix.report import Outcome as Word

        settings, result, locations = self.task.settings, self.result(), self.locations()
        self.data = tuple(mark for mark in map(self.data_mark, locations) if mark is not None)
        try:
            report = convert(
                self.path, result, to=settings.to or None, from_=settings.from_ or None, sizes=dict(settings.sizes),
                edits=self.edits(), simplify=settings.is_simplified,
                verify=self.options() if settings.is_verified else False, progress=self.tell,
            )  # fmt: skip
        except (DetectError, UsageError):
            if not (reason := self.reason_to_skip()):
                raise
            self.copy(locations, locations)
            return Skipped(reason)
        self.seconds = report.seconds
        facts = facts_of(report)
        if report.outcome is Word.UNCHANGED:
            self.copy([], locations)  # the data is there: `convert` copies it
            return Unchanged(report.speaks, facts)
        if settings.is_recorded:
            self.record()
        self.results = self.staged(locations)
        return Converted(report.speaks, report.target, facts)

    def check(self) -> Outcome:
        from onnxfix.report import Outcome as Word
        from onnxfix.report import report_of
        from onnxfix.request import open_model, plan_conversion
        from onnxfix.verify.finding import read_wishes

        settings = self.task.settings
        try:
            plan = plan_conversion(
                open_model(self.path), to=settings.to or None, from_=settings.from_ or None,
                sizes=dict(settings.sizes), edits=self.edits(),
            )  # fmt: skip
        except (DetectError, UsageError):
            if not (reason := self.reason_to_skip()):
                raise
            return Skipped(reason)
        read_wishes(plan, self.options())
        report = report_of(plan, "", "")
        if report.outcome is Word.UNCHANGED:
            return Unchanged(report.speaks, facts_of(report))
        return WouldChange(report.speaks, report.target, facts_of(report))

    def verify(self) -> Outcome:
        from onnxfix.proof import verify

        settings = self.task.settings
        to, from_, sizes = settings.to or None, settings.from_ or None, dict(settings.sizes)
        options, edits = self.options(), self.edits()
        against = self.site.against
        if against.endswith(".npz"):
            proof = verify(self.path, against=against, to=to, edits=edits, options=options)
            return Verified("trace", proof_facts(proof))
        proof = verify(
            against, self.path, to=to, from_=from_, sizes=sizes, edits=edits, options=options
        )  # fmt: skip
        return Verified("original", proof_facts(proof))

    def edits(self) -> Edits:
        from onnxfix.convention.plan import Edits

        return Edits(dims=dict(self.task.settings.dims))

    def options(self) -> VerifyOptions:
        from onnxfix.verify.options import VerifyOptions

        settings = self.task.settings
        return VerifyOptions(settings.ticks, settings.seed, None, dict(settings.feeds))

    def reason_to_skip(self) -> str:
        """Returns why there is nothing to convert in a model that cannot be converted; empty where there is."""
        from onnxfix.convention.detect import detect
        from onnxfix.pairing import state_pairs
        from onnxfix.request import open_model, require_known_sizes

        if self.task.settings.from_:
            return ""
        model = open_model(self.path)
        found = detect(model.signature(), dict(self.task.settings.sizes))
        if not found.candidates and found.refused is None and not state_pairs(model):
            return "no cache: no output looks like an input of the next call"
        if self.task.settings.to or found.best is None or found.best.binding.convention.successor is not None:
            return ""
        require_known_sizes(found.best.binding)  # a slip of the pen is no reason
        return f"nothing has replaced `{found.best.binding.convention}` upstream, and nobody says what it shall become"

    # Files.

    def result(self) -> Path:
        """Returns where the result is laid down."""
        stage = self.site.stage
        if self.task.is_in_place:
            return stage
        stage.mkdir(exist_ok=True)  # not its parents: where the destination is gone, it does not come back
        return stage / self.path.name

    def locations(self) -> list[str]:
        """Returns the data files of the source, relative to its folder."""
        from onnxfix.request import open_model

        return [location for location, _ in open_model(self.path).external_files()]

    def copy(self, missing: list[str], locations: list[str]) -> None:
        """Lays down the model as it is, byte for byte.

        Args:
            missing: Data files that are to be laid down too.
            locations: All data files.
        """
        from onnxfix.model.atomic import NewFile

        if self.task.aim is not Aim.MIGRATE:
            return
        result = self.result()
        if self.task.is_in_place:
            result.unlink(missing_ok=True)
            return
        for name in (self.path.name, *missing):
            target = result.parent / name
            make_folder(target.parent, result.parent)
            with NewFile(target, self.path.parent / name) as new:
                new.copy(self.path.parent / name)
                new.move(target)
        keep_time(self.path, result)
        self.results = self.staged(locations)

    def staged(self, locations: list[str]) -> tuple[Staged, ...]:
        """Returns what lies on the stage, data files first; these keep the times of their sources."""
        model = Staged(mark_of(self.result(), self.task.path), str(self.result()))
        traces = [self.trace()] if self.trace().exists() else []
        recorded = [Staged(mark_of(trace, f"{TRACES}/{self.task.path}.npz"), str(trace)) for trace in traces]
        if self.task.is_in_place:
            return (*recorded, model)
        folder, found = self.result().parent, []
        for location in sorted(set(locations)):
            keep_time(self.path.parent / location, folder / location)
            mark = mark_of(folder / location, self.beside(location))
            found.append(Staged(mark, str(folder / location)))
        return (*found, *recorded, model)

    def trace(self) -> Path:
        return Path(f"{self.site.stage}.trace.npz")

    def record(self) -> None:
        """Keeps a run of the source."""
        from onnxfix.proof import record

        settings = self.task.settings
        record(
            self.path, self.trace(), from_=settings.from_ or None, sizes=dict(settings.sizes), options=self.options()
        )

    def beside(self, location: str) -> str:
        """Returns the path of a file that is named relative to the model's folder."""
        return (PurePosixPath(self.task.path).parent / location).as_posix()

    def source_mark(self) -> Mark | None:
        """Returns what the source is; None where it cannot be read, which is told when it is opened as a model."""
        if (seen := self.site.seen) is not None:
            with contextlib.suppress(OSError):
                return Mark(self.task.path, digest_of(self.path), seen.size, seen.stamp)
        return None

    def data_mark(self, location: str) -> Mark | None:
        """Returns what a data file is; its bytes are those of its copy, and not read here."""
        seen = self.site.look(location)
        return None if seen is None else Mark(self.beside(location), "", seen.size, seen.stamp)

    def require_steady(self) -> None:
        """Checks that the source is still what it was when the work began."""
        if self.source is not None and self.site.has_changed():
            hint = "run the same command again when nobody writes it any more"
            self.outcome = Failed(Mishap.CHANGED, "the source was changed while it was migrated", hint=hint)

    def cleaned(self, outcome: Failed | Refused) -> Failed | Refused:
        """Returns an error without the names of hidden files, which differ from run to run."""
        path, names = self.task.path, self.site.names()
        hidden = re.compile("|".join(map(re.escape, names)))

        def clean(text: str) -> str:
            return hidden.sub(lambda found: names[found[0]], text)  # in one go: what is shown may hold another name

        kind, texts = outcome.kind, (clean(outcome.message), clean(outcome.where), clean(outcome.hint))
        where = "" if texts[1] == path else texts[1]
        if isinstance(outcome, Refused):
            return Refused(kind, texts[0], where, texts[2], outcome.facts)
        return Failed(kind, texts[0], where, texts[2])
