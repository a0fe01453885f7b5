"""A verification as JUnit XML: what test runners and build servers read.

The elements and attributes are those of the schema that Jenkins validates against (jenkinsci/xunit-plugin,
junit-10.xsd): a `testsuites` of one `testsuite` for each run and one for the evidence, of `testcase`s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from onnxfix.verify.render.verdict import (
    Row,
    Verdict,
    driven_text,
    evidence_text,
    fed_text,
    place_text,
)
from onnxfix.verify.report import VerifyReport

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FAILURE, _ERROR, _SKIPPED = "failure", "error", "skipped"


@dataclass(frozen=True)
class _Case:
    """One test case: what is told where it did not pass, and all that was found."""

    name: str
    kind: str = ""
    message: str = ""
    type: str = ""
    text: str = ""


@dataclass(frozen=True)
class _Suite:
    name: str
    cases: tuple[_Case, ...]
    properties: tuple[tuple[str, str], ...] = ()


def junit(verdict: Verdict) -> str:
    """Returns the XML: one test case for each output, state and part of the caches.

    Parts that show in no output are skipped tests, not passed ones. What failed before anything was compared is a
    test case in error.
    """
    suites = tuple(_suites(verdict))
    seconds = verdict.report.seconds if verdict.report else 0.0
    cases = [case for suite in suites for case in suite.cases]
    head = (("name", f"onnxfix verify {verdict.converted}"), *_counts(cases), ("time", _time(seconds)))
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites{_attributes(head)}>"]
    for index, suite in enumerate(suites):
        lines += _suite_lines(suite, seconds if index == 0 else 0.0)
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


def _output(row: Row, fault: tuple[str, ...]) -> _Case:
    lines = [f"{name}: {value}" for name, value in row.facts]
    lines += [f"tick {one.tick}: largest difference {one.difference.max_abs:g}" for one in row.port.ticks]
    name = f"{row.kind} {row.port.name}"
    if row.port.mismatched:
        return _Case(name, _FAILURE, place_text(row.port), "DifferenceError", "\n".join((*lines, *fault)))
    message = "" if row.port.values else "nothing was compared: the output is empty, or all of it NaN"
    return _Case(name, _SKIPPED if message else "", message, text="\n".join(lines))


def _evidence(verdict: Verdict) -> Iterator[_Case]:
    report, error = verdict.report, verdict.error
    if report is not None:
        for part in report.observable:
            yield _Case(f"evidence {part}", text="disturbed alone, it showed in an output")
        for part in report.not_observable:
            yield _Case(f"evidence {part}", _SKIPPED, "not observable: disturbed alone, it showed in no output")
    if error is None or (report is not None and not report.passed):
        return
    kind = _ERROR if verdict.word == "not verified" else _FAILURE
    yield _Case("verification", kind, verdict.sentence, type(error).__name__, "\n".join((str(error), *verdict.fault)))


def _suite_lines(suite: _Suite, seconds: float) -> Iterator[str]:
    skipped = sum(case.kind == _SKIPPED for case in suite.cases)
    head = (("name", suite.name), *_counts(suite.cases), ("skipped", str(skipped)), ("time", _time(seconds)))
    yield f"  <testsuite{_attributes(head)}>"
    if suite.properties:
        yield "    <properties>"
        yield from (
            f"      <property{_attributes((('name', key), ('value', value)))}/>" for key, value in suite.properties
        )
        yield "    </properties>"
    for case in suite.cases:
        yield from _case_lines(case, suite.name)
    yield "  </testsuite>"


def _case_lines(case: _Case, suite: str) -> Iterator[str]:
    yield f"    <testcase{_attributes((('name', case.name), ('classname', f'onnxfix.{suite}'), ('time', '0')))}>"
    if case.kind == _SKIPPED:
        yield f"      <skipped{_attributes((('message', case.message),))}/>"
    elif case.kind:
        head = (("type", case.type), ("message", case.message))
        yield f"      <{case.kind}{_attributes(head)}>{_text(case.text)}</{case.kind}>"
    if case.text and case.kind in ("", _SKIPPED):
        yield f"      <system-out>{_text(case.text)}</system-out>"
    yield "    </testcase>"


def _counts(cases: tuple[_Case, ...] | list[_Case]) -> tuple[tuple[str, str], ...]:
    failures, errors = (sum(case.kind == kind for case in cases) for kind in (_FAILURE, _ERROR))
    return (("tests", str(len(cases))), ("failures", str(failures)), ("errors", str(errors)))


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"


def _attributes(pairs: tuple[tuple[str, str], ...]) -> str:
    # Line ends inside attributes would be read as blanks.
    entities = {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
    return "".join(f" {name}={quoteattr(_allowed(value), entities)}" for name, value in pairs)


def _text(text: str) -> str:
    return escape(_allowed(text), {"\r": "&#13;"})


def _allowed(text: str) -> str:
    """Returns text in which characters that XML cannot hold, not even escaped, are written as Python writes them."""
    return _FORBIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)
