"""Test cases as the XML that test runners and build servers read.

The elements and attributes are those of the schema that Jenkins validates against (jenkinsci/xunit-plugin,
junit-10.xsd): `testsuites` of `testsuite`s of `testcase`s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onnxfix.verify.render.escaping import xml_attributes, xml_text

FAILURE, ERROR, SKIPPED = "failure", "error", "skipped"


@dataclass(frozen=True)
class Case:
    """One test case.

    Attributes:
        name: What is tested.
        kind: `failure`, `error` or `skipped`; empty for one that passed.
        message: Why it did not pass.
        type: The name of the error.
        text: All that was found.
        seconds: How long it took.
    """

    name: str
    kind: str = ""
    message: str = ""
    type: str = ""
    text: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Counts:
    """How many test cases there are, and how many of them did not pass."""

    tests: int
    failures: int = 0
    errors: int = 0
    skipped: int = 0

    @staticmethod
    def of(cases: Iterable[Case]) -> Counts:
        """Returns the counts of some cases."""
        kinds = [case.kind for case in cases]
        return Counts(len(kinds), kinds.count(FAILURE), kinds.count(ERROR), kinds.count(SKIPPED))


def head(name: str, counts: Counts, seconds: float) -> list[str]:
    """Returns the lines with which a file begins; it ends with `</testsuites>`."""
    numbers = (("tests", counts.tests), ("failures", counts.failures), ("errors", counts.errors))
    pairs = (("name", name), *((key, str(count)) for key, count in numbers), ("time", _time(seconds)))
    return ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites{xml_attributes(pairs)}>"]


def suite_head(name: str, counts: Counts, seconds: float, properties: Iterable[tuple[str, str]] = ()) -> Iterator[str]:
    """Yields the lines with which a suite begins; it ends with `  </testsuite>`."""
    pairs = (
        ("name", name), ("tests", str(counts.tests)), ("failures", str(counts.failures)),
        ("errors", str(counts.errors)), ("skipped", str(counts.skipped)), ("time", _time(seconds)),
    )  # fmt: skip
    yield f"  <testsuite{xml_attributes(pairs)}>"
    said = [f"      <property{xml_attributes((('name', key), ('value', value)))}/>" for key, value in properties]
    if said:
        yield from ("    <properties>", *said, "    </properties>")


def case_lines(case: Case, class_name: str) -> Iterator[str]:
    """Yields the lines of one test case."""
    seconds = _time(case.seconds) if case.seconds else "0"
    yield f"    <testcase{xml_attributes((('name', case.name), ('classname', class_name), ('time', seconds)))}>"
    if case.kind == SKIPPED:
        yield f"      <skipped{xml_attributes((('message', case.message),))}/>"
    elif case.kind:
        pairs = (("type", case.type), ("message", case.message))
        yield f"      <{case.kind}{xml_attributes(pairs)}>{xml_text(case.text)}</{case.kind}>"
    if case.text and case.kind in ("", SKIPPED):
        yield f"      <system-out>{xml_text(case.text)}</system-out>"
    yield "    </testcase>"


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"
