"""A verification as JUnit XML: a `testsuite` for each run, and one for the evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxfix.verify.render.verdict import (
    Row,
    Verdict,
    driven_text,
    evidence_text,
    fed_text,
    place_text,
)
from onnxfix.verify.render.xunit import ERROR, FAILURE, SKIPPED, Case, Counts, case_lines, head, suite_head
from onnxfix.verify.report import VerifyReport


@dataclass(frozen=True)
class _Suite:
    name: str
    cases: tuple[Case, ...]
    properties: tuple[tuple[str, str], ...] = ()


def junit(verdict: Verdict) -> str:
    """Returns the XML: one test case for each output, state and part of the caches.

    Parts that show in no output are skipped tests, not passed ones. What failed before anything was compared is a
    test case in error.
    """
    suites = tuple(_suites(verdict))
    seconds = verdict.report.seconds if verdict.report else 0.0
    counts = Counts.of(case for suite in suites for case in suite.cases)
    lines = head(f"onnxfix verify {verdict.converted}", counts, seconds)
    for index, suite in enumerate(suites):
        lines += suite_head(suite.name, Counts.of(suite.cases), seconds if index == 0 else 0.0, suite.properties)
        lines += (line for case in suite.cases for line in case_lines(case, f"onnxfix.{suite.name}"))
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>", ""])


def _suites(verdict: Verdict) -> Iterator[_Suite]:
    report = verdict.report
    about = (("original", verdict.original), ("converted", verdict.converted), *_about(report))
    if report is not None:
        for run in report.runs:
            label = report.label(run)
            name = f"outputs ({label})" if label else "outputs"
            yield _Suite(name, tuple(_output(Row(port, run, label), verdict.fault) for port in run.ports), about)
    evidence = _Suite("evidence", tuple(_evidence(verdict)), () if report and report.runs else about)
    if evidence.cases:
        yield evidence


def _about(report: VerifyReport | None) -> tuple[tuple[str, str], ...]:
    if report is None:
        return ()
    return (
        ("driven", driven_text(report)),
        ("fed", fed_text(report)),
        ("evidence", evidence_text(report)),
        *(("note", note) for note in report.notes),
    )


def _output(row: Row, fault: tuple[str, ...]) -> Case:
    lines = [f"{name}: {value}" for name, value in row.facts]
    lines += [f"tick {one.tick}: largest difference {one.difference.max_abs:g}" for one in row.port.ticks]
    name = f"{row.kind} {row.port.name}"
    if row.port.mismatched:
        return Case(name, FAILURE, place_text(row.port), "DifferenceError", "\n".join((*lines, *fault)))
    message = "" if row.port.values else "nothing was compared: the output is empty, or all of it NaN"
    return Case(name, SKIPPED if message else "", message, text="\n".join(lines))


def _evidence(verdict: Verdict) -> Iterator[Case]:
    report, error = verdict.report, verdict.error
    if report is not None:
        for part in report.observable:
            yield Case(f"evidence {part}", text="disturbed alone, it showed in an output")
        for part in report.not_observable:
            yield Case(f"evidence {part}", SKIPPED, "not observable: disturbed alone, it showed in no output")
    if error is None or (report is not None and not report.passed):
        return
    kind = ERROR if verdict.word == "not verified" else FAILURE
    yield Case("verification", kind, verdict.sentence, type(error).__name__, "\n".join((str(error), *verdict.fault)))
