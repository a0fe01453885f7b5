"""One verification as the command line asks for it: run, and told to people and programs, whichever way it ends."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from onnxfix.cli.console import people, print_json, show_failure
from onnxfix.cli.failure import failure_of
from onnxfix.cli.progress import StageProgress
from onnxfix.cli.report_files import ReportFiles
from onnxfix.cli.verdict import show_verdict
from onnxfix.convention.plan import Edits
from onnxfix.errors import ExitCode, OnnxfixError, OutputError
from onnxfix.proof import find_culprit, verify
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.render.verdict import Verdict
from onnxfix.verify.report import DifferenceError, VerifyReport


@dataclass(frozen=True)
class Proving:
    """What `onnxfix verify` was asked to do; see `onnxfix.verify` for most of it."""

    models: tuple[Path, ...]
    against: Path | None
    from_: tuple[str, ...] | None
    to: tuple[str, ...] | None
    edits: Edits
    options: VerifyOptions
    files: ReportFiles
    has_bisect: bool
    is_quiet: bool
    as_json: bool

    def run(self) -> int:
        """Verifies, and tells; what failed is told in the files as well, and then raised.

        Raises:
            OnnxfixError: Anything but a proof.
        """
        try:
            report = self._verify()
        except OnnxfixError as error:
            self._tell_failure(error)
            raise
        except Exception as error:
            self._write_in_vain(self._verdict(None, OnnxfixError(f"this is a bug in onnxfix: {error}")))
            raise
        verdict = self._verdict(report)
        self.files.write(verdict)
        if not self.is_quiet:
            show_verdict(people(), verdict)
        if self.as_json:
            print_json({"outcome": "verified", "proof": report.to_json()})
        return ExitCode.OK

    def _verify(self) -> VerifyReport:
        with StageProgress(self.is_quiet) as progress:
            options = replace(self.options, progress=lambda done, of: progress("verify", done, of))
            return verify(
                *self.models, against=self.against, to=self.to, from_=self.from_, sizes=self.options.sizes,
                edits=self.edits, options=options,
            )  # fmt: skip

    def _tell_failure(self, error: OnnxfixError) -> None:
        report = error.report if isinstance(error, DifferenceError) else None
        fault = self._fault(error) if self.has_bisect and isinstance(error, DifferenceError) else ()
        verdict = replace(self._verdict(report, error), fault=fault)
        self._write_in_vain(verdict)
        if not self.is_quiet and report is not None:
            # That nobody can read this is not the worst of it.
            with contextlib.suppress(OutputError):
                show_verdict(people(), verdict)
        # The error is printed last, and its hint behind it.
        told = fault if self.is_quiet and not self.as_json else ()  # who asks for the place wants to see it
        error.hint = "\n  ".join((*told, *verdict.advice))

    def _fault(self, error: DifferenceError) -> tuple[str, ...]:
        """Returns where inside the graph the models part, in lines; what hinders the search is no worse news."""
        from onnxfix.verify.culprit import describe

        ticks = [port.tick for port in error.report.ports if port.tick is not None]
        try:
            with StageProgress(self.is_quiet) as progress:
                progress("bisect", 0, 0)
                culprit = find_culprit(
                    *self.models, against=self.against, to=self.to, from_=self.from_, edits=self.edits,
                    options=self.options, tick=min(ticks, default=None),
                )  # fmt: skip
        except OnnxfixError as reason:
            return ("--bisect found nothing:", *str(reason).splitlines())
        if culprit is None:
            return ("--bisect found nothing: on the CPU and without optimisations both put out the same bits",)
        error.culprit = culprit.to_json()
        return tuple(describe(culprit))

    def _write_in_vain(self, verdict: Verdict) -> None:
        """Writes the files; what goes wrong then is told, but hides no worse news."""
        try:
            self.files.write(verdict)
        except OnnxfixError as error:
            with contextlib.suppress(OutputError):
                show_failure(failure_of(error))

    def _verdict(self, report: VerifyReport | None, error: OnnxfixError | None = None) -> Verdict:
        original = self.models[0] if len(self.models) == 2 else self.against
        return Verdict(str(original), str(self.models[-1]), report, error)
