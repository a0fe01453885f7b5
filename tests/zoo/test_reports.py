"""What became of a zoo, told from its journal: whatever a model is called, and whatever the journal holds."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from journals import NASTY, many, nasty, outcome_of, write_journal

from onnxfix.verify.render.escaping import shown
from onnxfix.zoo.outcome import Converted, Outcome, Refused
from onnxfix.zoo.reports.facts import facts_told
from onnxfix.zoo.reports.format import seconds_text
from onnxfix.zoo.reports.writing import report_files, write_reports

COUNT = 120
COUNTS = {"converted": 88, "unchanged": 6, "skipped": 6, "failed": 12, "refused": 6, "waiting": 2}


def _written(folder: Path, models: Iterable[tuple[str, Outcome | None]]) -> dict[str, str]:
    """Returns all reports, by format."""
    out = write_journal(folder, models)
    files = report_files(out / ".onnxfix")
    write_reports(out, files)
    return {kind: path.read_bytes().decode() for kind, path in files.items()}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return _written(tmp_path_factory.mktemp("zoo") / "out", many(COUNT))


@pytest.fixture(scope="module")
def nasty_reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return _written(tmp_path_factory.mktemp("nasty") / "out", nasty())


# ---------------------------------------------------------------- JSON and CSV


def test_json_has_all_that_the_journal_has(reports: dict[str, str]) -> None:
    told = json.loads(reports["json"])

    assert (told["zoo"], told["in_place"], told["counts"]) == ("/models/zoo", False, COUNTS)
    assert [one["path"] for one in told["models"]] == sorted(path for path, _ in many(COUNT))
    assert Counter(one["outcome"] for one in told["models"]) == COUNTS
    first = next(one for one in told["models"] if one["path"].endswith("encoder-00000.onnx"))
    converted = outcome_of(0)
    assert isinstance(converted, Converted)
    assert first["facts"] == converted.facts
    assert (first["speaks"], first["settings"]) == ("wenet-packed", {"to": ["wenet-kv"], "sizes": [["head", 4]]})
    assert first["results"][0]["size"] == 180_000


def test_csv_has_a_line_a_model(reports: dict[str, str]) -> None:
    rows = list(csv.DictReader(reports["csv"].splitlines(keepends=True)))

    assert len(rows) == COUNT
    by_path = {row["model"]: row for row in rows}
    wrong, right = (by_path[path] for path, _ in many(COUNT) if path[-10:-5] in ("00011", "00012"))
    assert [wrong[key] for key in ("outcome", "kind", "reason", "exact", "ticks")] == [
        "refused", "DifferenceError", "output, tick 3: they differ", "no", "10",
    ]  # fmt: skip
    assert [right[key] for key in ("outcome", "from", "to", "nodes before", "nodes after", "largest difference")] == [
        "converted", "wenet-packed", "wenet-kv", "1812", "882", "0",
    ]  # fmt: skip


def test_no_text_breaks_a_listing(nasty_reports: dict[str, str]) -> None:
    models = json.loads(nasty_reports["json"])["models"]
    rows = list(csv.reader(nasty_reports["csv"].splitlines(keepends=True)))

    assert [one["path"] for one in models] == sorted(path for path, _ in nasty())
    assert models[-3]["message"] == NASTY
    assert {len(row) for row in rows} == {20}
    assert [row[0].replace("\r\n", "\n") for row in rows[1:]] == [
        f"{quote}{one['path']}".replace("\r\n", "\n") for quote, one in zip(["'", "", "", "", ""], models, strict=True)
    ]  # a cell that begins with `=` is no formula


# ---------------------------------------------------------------- JUnit


@pytest.mark.parametrize(("kind", "bad", "skipped"), [("many", 18, 8), ("nasty", 2, 2)])
def test_junit_has_a_test_case_a_model(
    kind: str, bad: int, skipped: int, reports: dict[str, str], nasty_reports: dict[str, str]
) -> None:
    root = ElementTree.fromstring((reports if kind == "many" else nasty_reports)["junit"].encode())
    cases = list(root.iter("testcase"))

    assert {"failures": str(bad), "errors": "0", "tests": str(len(cases))}.items() <= root.attrib.items()
    (suite,) = root
    assert (suite.attrib["failures"], suite.attrib["skipped"]) == (str(bad), str(skipped))
    assert sum(case.find("failure") is not None for case in cases) == bad
    assert sum(case.find("skipped") is not None for case in cases) == skipped
    seconds = sum(float(case.attrib["time"]) for case in cases)
    assert [float(one.attrib["time"]) for one in (root, suite)] == pytest.approx([seconds] * 2, abs=1e-3 * len(cases))
    assert seconds > 1
    models = sorted(path for path, _ in (many(COUNT) if kind == "many" else nasty()))
    assert [case.attrib["name"] for case in cases] == [shown(path) for path in models]


def test_a_failed_test_case_says_why_and_what_to_do(reports: dict[str, str]) -> None:
    cases = {case.attrib["name"]: case for case in ElementTree.fromstring(reports["junit"].encode()).iter("testcase")}
    case = cases["speech/team-3/encoder-00003.onnx"]
    (failure,) = case

    assert case.attrib["classname"] == "onnxfix.speech.team-3"
    assert failure.attrib == {"type": "DetectError", "message": "att_cache: several conventions fit (3)"}
    assert failure.text == "att_cache: several conventions fit (3)\n--from decides"


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    """Reads a page: its elements, the text of scripts and styles, and the text that is seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.inside: list[tuple[dict[str, str | None], str, str]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attributes
        self._open = (tag, dict(attributes)) if tag in ("script", "style") else None

    def handle_data(self, data: str) -> None:
        if self._open is None:
            self.text += data
        else:
            self.inside.append((self._open[1], self._open[0], data))
            self._open = None

    def scripts(self, kind: str) -> list[str]:
        return [text for attributes, tag, text in self.inside if tag == "script" and attributes.get("class") == kind]

    def rows(self) -> list[list[object]]:
        return [row for block in self.scripts("rows") for row in json.loads(block)]

    def details(self) -> Iterator[dict[str, object]]:
        for block in self.scripts("details"):
            yield from json.loads(zlib.decompress(base64.b64decode(block)))


def test_the_page_has_a_row_and_details_for_each_model(reports: dict[str, str]) -> None:
    page = Page(reports["html"])
    rows, details = page.rows(), list(page.details())

    assert len(rows) == len(details) == COUNT
    by_path = {str(row[0]): (row, detail) for row, detail in zip(rows, details, strict=True)}
    row, detail = by_path["speech/team-12/encoder-00012.onnx"]
    assert row[4:7] == [1812, 882, 0]
    assert detail["plan"] == [
        "attention, past: att_cache -> key_cache_0 ... value_cache_11 (24)",
        "  split layer into 12",
    ]
    before, after = detail["inputs"]  # type: ignore[misc]
    assert [port[:2] for port in before] == [["", "chunk"], ["", "offset"], ["-", "att_cache"], ["", "att_mask"]]
    assert after[2] == ["+", "key_cache_0", "float32 [1, 4, T_CACHE, 64]"]
    assert detail["nodes"] == [
        ["", "1812"], ["simplified", "900"], ["with adapters", "950"], ["after cancelling", "882"],
    ]  # fmt: skip
    assert detail["copied"] == [
        ["", "24.6 kB x time"], ["with adapters", "73.7 kB x time"], ["after cancelling", "none"],
    ]  # fmt: skip
    proof = detail["proof"]
    assert isinstance(proof, dict)
    assert proof["text"] == "1,024,000 values compared over 10 ticks, all equal to the bit"
    assert proof["plot"].count("<circle") == 10
    _, refused = by_path["vision/team-11/encoder-00011.onnx"]
    assert refused["error"] == {"kind": "DifferenceError", "text": "output, tick 3: they differ", "hint": "--bisect"}
    assert len(refused["proof"]["wrong"]) == 20  # type: ignore[index,call-overload,arg-type]
    assert by_path["vision/team-17/encoder-00017.onnx"][1]["log"] == "line one\nline two"


def test_the_page_asks_nothing_of_the_network_and_runs_its_own_script_alone(reports: dict[str, str]) -> None:
    page = Page(reports["html"])

    assert page.tags["script"] == 3 * 2 + 2
    policy = next(text for _, text in page.attributes if text and text.startswith("default-src"))
    for tag in ("style", "script"):
        (text,) = [text for attributes, name, text in page.inside if name == tag and not attributes]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert [text for name, text in page.attributes if name in ("src", "href")] == ["data:,"]
    assert not re.search(r"https?://|@import|url\(", reports["html"])


def test_no_text_breaks_the_page(nasty_reports: dict[str, str]) -> None:
    page = Page(nasty_reports["html"])

    assert page.tags["script"] == 2 + 2
    assert [row[0] for row in page.rows()] == [shown(path) for path in sorted(path for path, _ in nasty())]
    for detail in page.details():
        text = json.dumps(detail, ensure_ascii=False)
        assert not re.search("[\x00-\x1f\u202a-\u202e\u2066-\u2069\u2028]", text)
        assert all("alert" not in drawing for drawing in re.findall(r"<svg.*?</svg>", text))


def test_the_totals_are_there_without_a_script(reports: dict[str, str]) -> None:
    page = Page(reports["html"])
    told = "88 converted, 6 unchanged, 6 skipped, 12 failed, 6 refused, 2 waiting"

    assert ("aria-label", told) in page.attributes
    assert page.tags["rect"] == 6
    assert (
        re.sub(r"\s+", " ", page.text).count("converted 88 unchanged 6 skipped 6 failed 12 refused 6 not done 2") == 1
    )
    assert "report.csv" in page.text


def test_an_empty_journal_has_reports_too(tmp_path: Path) -> None:
    empty = _written(tmp_path / "out", [])

    assert json.loads(empty["json"])["models"] == []
    assert len(empty["csv"].splitlines()) == 1
    assert ElementTree.fromstring(empty["junit"].encode()).attrib["tests"] == "0"
    assert Page(empty["html"]).rows() == []


def test_the_same_journal_gives_the_same_reports(tmp_path: Path) -> None:
    first = _written(tmp_path / "out", many(30))
    write_reports(tmp_path / "out", report_files(tmp_path))

    for kind, path in report_files(tmp_path).items():
        assert path.read_bytes().decode() == first[kind]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.004, "4.0 ms"), (0.0197, "19.7 ms"), (0.1, "0.10 s"), (2.345, "2.35 s"), (61.0, "61.00 s")]
)
def test_times_are_told_in_words(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


# ---------------------------------------------------------------- facts


@pytest.mark.parametrize("whim", [None, 1, "x", [], [1, None], {"runs": 1}, {"runs": [1, {"ports": [None]}]}])
def test_facts_that_are_none_are_not_told(whim: object) -> None:
    keys = ("before", "after", "plan", "nodes", "copied_per_step", "cancelled", "refused", "notes", "proof", "fed")
    told = facts_told(Converted("a", "b", dict.fromkeys(keys, whim)))  # type: ignore[arg-type]

    assert told.inputs == ((), ())
    assert facts_told(Refused("a", "b", facts={"runs": whim})).nodes == {}  # type: ignore[dict-item]
