"""One conversion as the command line asks for it: preview or run, told to people or to programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.cli.console import people, print_json, results
from onnxfix.cli.progress import StageProgress
from onnxfix.convert import convert
from onnxfix.errors import ExitCode, OutputError
from onnxfix.report import ConversionReport, Outcome, report_of
from onnxfix.request import open_model, plan_conversion
from onnxfix.sidefiles.beside import asked_side_files

if TYPE_CHECKING:
    from onnxfix.convention.plan import Edits, Plan
    from onnxfix.verify.options import VerifyOptions


@dataclass(frozen=True)
class Job:
    """What `onnxfix convert` was asked to do; see `onnxfix.convert` for most of it."""

    old: Path
    to: tuple[str, ...] | None
    from_: tuple[str, ...] | None
    sizes: Mapping[str, int]
    edits: Edits
    simplify: bool
    cancel: bool
    stamp: bool
    write_config: bool
    options: VerifyOptions
    is_verified: bool
    is_quiet: bool
    as_json: bool

    def run(self, new: Path) -> int:
        """Converts, and reports what was done."""
        if not self.is_verified and (self.options.feeds or self.options.inputs):
            self._plan()
        with StageProgress(self.is_quiet) as progress:
            report = convert(
                self.old, new, to=self.to, from_=self.from_, sizes=self.sizes, edits=self.edits,
                simplify=self.simplify, cancel=self.cancel, stamp=self.stamp, write_config=self.write_config,
                verify=self.options if self.is_verified else False, progress=progress,
            )  # fmt: skip
        # The result stands at its destination: that its report cannot be printed does not undo it, and is no failure.
        with _told_at_most():
            if not self.is_quiet:
                from onnxfix.cli.summary import show_report

                show_report(people(), report)
        with _told_at_most():
            if self.as_json:
                print_json(report.to_json())
        return ExitCode.OK

    def preview(self, new: Path, *, as_plan: bool, as_diff: bool) -> int:
        """Says what would be done, as a plan, a diff or both, and writes nothing."""
        from onnxfix.cli.summary import show_diff, show_plan

        plan = self._plan()
        sides, told = asked_side_files(plan, self.old, new, is_asked=self.write_config)
        report = report_of(plan, str(self.old), "", sides, told)
        lines = self._diff() if as_diff and not plan.is_identity else []
        lines += [line for file in sides for line in file.diff()] if as_diff else []
        if self.as_json:
            print_json({**report.to_json(), "diff": list(lines)} if as_diff else report.to_json())
            return _verdict(report)
        if as_plan:
            show_plan(results(), report)
        if as_diff:
            show_diff(results(), lines)
        return _verdict(report)

    def _plan(self) -> Plan:
        """Returns the plan, and refuses what the user wants fed where it does not fit, also if nothing will be fed."""
        from onnxfix.verify.finding import read_wishes

        plan = plan_conversion(open_model(self.old), to=self.to, from_=self.from_, sizes=self.sizes, edits=self.edits)
        read_wishes(plan, self.options)
        return plan

    def _diff(self) -> list[str]:
        """Returns what the conversion touches: where the graph is simplified, the simplified source is compared."""
        from onnxfix.difference import difference
        from onnxfix.surgery.simplify import simplify

        with StageProgress(self.is_quiet) as progress:
            report = convert(
                self.old, to=self.to, from_=self.from_, sizes=self.sizes, edits=self.edits, simplify=self.simplify,
                cancel=self.cancel, verify=False, stamp=False, progress=progress,
            )  # fmt: skip
            assert report.model is not None
            before = open_model(self.old)
            is_simplified = self.simplify and simplify(before).is_taken
        return difference(before, report.model, f"{self.old}{' (simplified)' if is_simplified else ''}", "converted")


@contextlib.contextmanager
def _told_at_most() -> Iterator[None]:
    """Lets the block print what is done already; what cannot be printed is a warning at most."""
    try:
        yield
    except KeyboardInterrupt:
        return
    except OutputError as error:
        with contextlib.suppress(OutputError):
            people().print(f"warning: {error.where}: {error.message}; the result is complete", soft_wrap=True)


def _verdict(report: ConversionReport) -> ExitCode:
    is_same = report.outcome is Outcome.UNCHANGED and not any(file.is_changed for file in report.side_files)
    return ExitCode.OK if is_same else ExitCode.WOULD_CHANGE
