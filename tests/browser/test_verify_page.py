"""The page of a verification as a browser shows it: nothing sticks out, both schemes hold, every plot is drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from verdicts import DIFFERENT, NASTY, port, report

from onnxfix.verify.compare import Tolerance
from onnxfix.verify.render.page import page as page_of
from onnxfix.verify.render.verdict import Verdict
from onnxfix.verify.report import Run

if TYPE_CHECKING:
    from playwright.sync_api import Page

_LOOK = """() => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  const plots = [...document.querySelectorAll("svg")].map(one => one.getBoundingClientRect());
  return {
    inner: innerWidth, needed: document.documentElement.scrollWidth,
    back: getComputedStyle(document.body).backgroundColor, bars: document.querySelectorAll("svg rect").length,
    rows: document.querySelectorAll("tbody tr").length,
    row: getComputedStyle(document.querySelector("tbody tr")).display,
    plots: plots.filter(one => one.width > 60 && one.height > 20).length,
  };
}"""
# scheme and width; lightness of the background, layout of a table's row
SCREENS = [("light", 1200, 255, "table-row"), ("dark", 390, 20, "block")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Returns a page of a verdict with long names and long streams."""
    gaps = [0.0] * 20 + [10.0 ** -(index % 9) for index in range(44)]
    states = tuple(port(f"past_key_values.{layer}.value" * 4, *gaps, tolerance=Tolerance(0.01)) for layer in range(6))
    verdict = Verdict("old.onnx", NASTY, report(Run((port(NASTY, float("inf"), 0, 1e-300), *states))), DIFFERENT.error)
    path = tmp_path / "page.html"
    path.write_text(page_of(verdict), encoding="utf-8")
    return path


@pytest.mark.parametrize(("scheme", "width", "back", "row"), SCREENS)
def test_the_page_in_a_browser(
    scheme: str, width: int, back: int, row: str, file: Path, show: Callable[..., Page],
    complaints: Callable[[Page], list[str]],
) -> None:  # fmt: skip
    page = show(file, scheme=scheme, width=width)
    facts = page.evaluate(_LOOK)

    assert abs(int(re.findall(r"\d+", facts["back"])[0]) - back) < 12
    assert facts["inner"] == facts["needed"] == width
    assert (facts["rows"], facts["plots"], facts["row"]) == (7, 7 + 7, row)
    assert facts["bars"] > 6 * 2 * 44
    assert complaints(page) == []


def test_the_page_lets_no_script_run(file: Path, browser: object, show: Callable[..., Page]) -> None:
    """The policy in the page's head holds, whatever a name might smuggle in."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("</body>", "<script>document.title = 'ran'</script></body>"), encoding="utf-8")
    page = browser.new_page()  # type: ignore[attr-defined]
    page.goto(file.as_uri())
    assert page.title() != "ran"
    page.close()
