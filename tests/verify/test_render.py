"""What a verification found, as JUnit, Markdown and HTML: true, complete, and whole whatever the names are."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verdicts import CLOSE, DIFFERENT, FAILED, NASTY_VERDICT, PASSED, VACUOUS, VERDICTS, port, report

from onnxfix.verify.render.junit import junit
from onnxfix.verify.render.markdown import markdown
from onnxfix.verify.render.page import page
from onnxfix.verify.render.sparkline import Scale, sparkline
from onnxfix.verify.render.verdict import Verdict, above, grouped
from onnxfix.verify.report import PortReport, Run

every_verdict = pytest.mark.parametrize("verdict", VERDICTS.values(), ids=VERDICTS)

# ---------------------------------------------------------------- JUnit

TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")
# element: children, required attributes, other attributes; what Jenkins' schema (xunit-plugin, junit-10.xsd) says of
# those that are used here
RULES = {
    "testsuites": ({"testsuite"}, set(), {"name", "time", "tests", "failures", "errors"}),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
    ),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, set()),
    "testcase": (
        {"skipped", "error", "failure", "system-out", "system-err"}, {"name"}, {"time", "classname", "group"},
    ),
    "failure": (set(), set(), {"type", "message"}),
    "error": (set(), set(), {"type", "message"}),
    "skipped": (set(), set(), {"type", "message"}),
    "system-out": (set(), set(), set()),
}  # fmt: skip


def require_valid(element: ElementTree.Element) -> None:
    children, required, others = RULES[element.tag]
    assert required <= set(element.attrib) <= required | others, element.tag
    if element.tag in ("testsuites", "testsuite"):
        assert TIME.fullmatch(element.attrib["time"])
    for child in element:
        assert child.tag in children, f"{child.tag} in {element.tag}"
        require_valid(child)


@every_verdict
def test_junit_keeps_to_the_schema_and_counts_right(verdict):
    root = ElementTree.fromstring(junit(verdict).encode())

    assert root.tag == "testsuites"
    require_valid(root)
    for suite in (root, *root):
        cases = list(suite.iter("testcase"))
        assert int(suite.attrib["tests"]) == len(cases) > 0
        assert int(suite.attrib["failures"]) == sum(case.find("failure") is not None for case in cases)
        assert int(suite.attrib["errors"]) == sum(case.find("error") is not None for case in cases)
    is_green = root.attrib["failures"] == root.attrib["errors"] == "0"
    assert is_green == verdict.passed


def states_of(verdict: Verdict) -> list[tuple[str, str, str]]:
    root = ElementTree.fromstring(junit(verdict).encode())
    return [
        (
            suite.attrib["name"],
            case.attrib["name"],
            next((one.tag for one in case if one.tag != "system-out"), "passed"),
        )
        for suite in root
        for case in suite.iter("testcase")
    ]


def test_there_is_a_test_case_for_each_output_state_and_part_of_the_caches():
    assert states_of(PASSED) == [
        ("outputs", "output y", "passed"),
        *(("outputs", f"state key_{layer}", "passed") for layer in range(4)),
        ("evidence", "evidence cache, layer 0", "passed"),
        ("evidence", "evidence cache, layer 1", "skipped"),
    ]
    failed = [(suite, name) for suite, name, state in states_of(DIFFERENT) if state == "failure"]
    assert failed == [("outputs (cpu)", "output y"), ("outputs (cuda)", "output y")]
    assert states_of(VACUOUS) == [("evidence", "verification", "failure")]
    assert states_of(FAILED) == [("evidence", "verification", "error")]
    assert ("outputs", "output empty", "skipped") in states_of(NASTY_VERDICT)


def test_every_format_has_the_notes():
    noted = Verdict("old.onnx", "new.onnx", report(Run((port("y", 0),)), notes=("not driven on cuda", "another one")))
    found = [one.attrib["value"] for one in ElementTree.fromstring(junit(noted)).iter("property")]
    assert found[-2:] == ["not driven on cuda", "another one"]
    for text in (markdown(noted), page(noted)):
        assert "not driven on cuda" in text


def test_a_failed_test_case_says_where_and_by_how_much():
    (failure, *_) = ElementTree.fromstring(junit(DIFFERENT).encode()).iter("failure")

    assert failure.attrib == {"type": "DifferenceError", "message": "tick 1 at [2]: expected 4.0, got 4.5"}
    assert failure.text is not None
    for line in (
        "values that differ: 1",
        "would have passed: --atol 0.5 or --rtol 0.125",
        "tick 1: largest difference 0.5",
    ):
        assert line in failure.text.splitlines()
    assert failure.text.endswith("node Add")


@given(st.text(st.characters(codec=None), max_size=12))
def test_no_name_breaks_a_file(name):
    nasty = Verdict(name, name, report(Run((port(name, 0.5),))))

    root = ElementTree.fromstring(junit(nasty).encode())
    shown = root[0].findall("testcase")[0].attrib["name"]
    if name.isprintable() or not name:
        assert shown == f"output {name}"
    document = Reader.read(page(nasty))
    assert document.tags.count("h1") == 1
    assert document.tags.count("tr") == 2
    assert len([line for line in markdown(nasty).splitlines() if line.startswith("| ")]) == 2


# ---------------------------------------------------------------- HTML


class Reader(HTMLParser):
    """Reads a page: its tags in order, its text, and whether all that was opened was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""

    @staticmethod
    def read(text: str) -> Reader:
        reader = Reader()
        reader.feed(text)
        reader.close()
        assert reader.open == []
        return reader

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@every_verdict
def test_the_page_is_whole_and_needs_nothing(verdict):
    text = page(verdict)
    document = Reader.read(text)

    assert not {"script", "link", "img", "iframe", "object", "a"} & set(document.tags)
    assert not re.search(r"https?:|url\(|@import|\bon\w+=|src=|href=", text)
    assert document.tags.count("svg") == len(verdict.rows) + sum(
        row.word in ("differs", "within") for row in verdict.rows
    )
    assert text.encode("utf-8").decode() == text


def test_the_page_shows_what_differs_and_what_to_do():
    shown = Reader.read(page(DIFFERENT)).text

    for words in (
        "y, tick 1: they differ",
        "expected 4.0, got 4.5",
        "node Add",
        "--atol 0.5 or --rtol 0.125",
        "tick 1: 0.5",
    ):
        assert words in shown
    assert "Not observable" in shown
    assert "cache, layer 1" in shown
    assert "--teacher" in shown


# ---------------------------------------------------------------- Markdown


def test_the_summary_of_what_passed():
    assert markdown(PASSED).splitlines() == [
        "### ✅ `new.onnx` verified",
        "",
        "Held against `old.onnx`: 30 values compared over 2 ticks, all equal to the bit.",
        "",
        "| | Output | Values | Largest difference | Tick by tick | Would have passed |",
        "|---|---|--:|--:|---|---|",
        "| ✅ | `y` | 6 | 0 | `··` |  |",
        "| ✅ | `key_0` … `key_3` (4) | 24 | 0 | `··` |  |",
        "",
        "Evidence: 1 of 2 parts of the caches, disturbed alone, showed in an output.",
        "",
        "<details><summary>Not observable: in no output (1)</summary>",
        "",
        "- cache, layer 1",
        "",
        "</details>",
        "",
        "<details><summary>How they were driven (2)</summary>",
        "",
        "- 2 ticks, each with its own state, first caches full, seed 0, on cpu, optimisations off",
        "- fed x: noise",
        "",
        "</details>",
    ]


def test_the_summary_of_what_differs():
    lines = markdown(DIFFERENT).splitlines()

    assert lines[:3] == ["### ❌ `new.onnx` different", "", "Held against `old.onnx`: y, tick 1: they differ."]
    assert "| ❌ | `y` cpu | 6 | 0.5 | `·█` | --atol 0.5 or --rtol 0.125 |" in lines
    assert "- --bisect finds the first tensor inside the graph that differs" not in lines
    assert lines[lines.index("```text") : lines.index("```") + 1] == ["```text", "node Add", "```"]


def test_names_are_not_taken_for_markdown():
    text = markdown(NASTY_VERDICT)

    assert "\n````text\n" in text
    assert "<b>" not in re.sub(r"(`+).*?\1", "", text, flags=re.DOTALL).replace("\\<b\\>", "")
    assert not re.search("[\x00-\x09\x0b-\x1f\ud800-\udfff]", text.split("````")[0])


def test_thousands_of_outputs_fit_into_a_summary():
    many = tuple(port(f"y{index}", 0.5) for index in range(5000))

    text = markdown(replace(DIFFERENT, report=report(Run(many))))

    assert len(text) < 100_000
    assert "and 4,800 more" in text


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("differences", "line"),
    [
        ([], ""),
        ([0, 0], "··"),
        ([1e-6, 1e-5, 1e-3], "▁▃█"),
        ([0.5], "█"),
        ([0.0, math.inf, 1e-6], "·!█"),
        ([5e-324, 1e308], "▁█"),
        ([0.0] * 63 + [1.0], "·" * 31 + "█"),
    ],
)
def test_sparklines(differences, line):
    assert sparkline(differences, Scale.over(differences)) == line
    assert sparkline(differences, Scale.over(differences), is_plain=True).isascii()


@given(st.floats(0, allow_infinity=False))
def test_a_tolerance_that_is_told_is_enough(number):
    assert number <= float(above(number)) <= number * 1.0101 + 1e-320


def test_equal_neighbours_are_told_as_one():
    def names(*ports: PortReport) -> list[list[str]]:
        return [[row.port.name for row in group] for group in grouped(Verdict("", "", report(Run(ports))).rows)]

    a, b, c, d = (port(name, 0, is_state=True) for name in "abcd")
    wrong = port("w", 0.5, is_state=True)
    assert names(a, b, c, d) == [["a", "b", "c", "d"]]
    assert names(a, b, c) == [["a"], ["b"], ["c"]]
    assert names(a, b, wrong, c, d) == [["a"], ["b"], ["w"], ["c"], ["d"]]
    assert names(wrong, a, b, c, d, wrong) == [["w"], ["a", "b", "c", "d"], ["w"]]
    assert names(port("y", 0), a, b, c, d)[0] == ["y"]


def test_json_holds_what_json_can_hold():
    import json

    for verdict in VERDICTS.values():
        if verdict.report is not None:
            facts = json.loads(json.dumps(verdict.report.to_json(), allow_nan=False))
            assert facts["passed"] == verdict.report.passed
    close = CLOSE.report
    assert close is not None
    facts = json.loads(json.dumps(close.to_json()))
    y = facts["runs"][0]["ports"][0]
    assert (facts["exact"], facts["passed"], y["exact"], y["passed"]) == (False, True, False, True)
    assert y["tolerance"] == {"atol": 0.01, "rtol": 0.0}
    assert [tick["max_abs"] for tick in y["ticks"]] == pytest.approx([0, 1e-6, 1e-3])
    assert y["needed_abs"] == max(tick["needed_abs"] for tick in y["ticks"])
