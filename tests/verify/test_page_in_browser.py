"""The page as a browser shows it: nothing sticks out on a phone, both colour schemes hold, every plot is drawn.

Where no Chromium is installed, there is nothing here to run.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from verdicts import DIFFERENT, NASTY, port, report

from onnxfix.verify.compare import Tolerance
from onnxfix.verify.render.page import page
from onnxfix.verify.render.verdict import Verdict
from onnxfix.verify.report import Run

BROWSERS = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))][:1]
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
_LOOK = """<script>
const plots = [...document.querySelectorAll("svg")].map(one => one.getBoundingClientRect());
document.documentElement.dataset.seen = JSON.stringify({
  inner: innerWidth, needed: document.documentElement.scrollWidth,
  back: getComputedStyle(document.body).backgroundColor, text: getComputedStyle(document.body).color,
  rows: document.querySelectorAll("tbody tr").length, bars: document.querySelectorAll("svg rect").length,
  plots: plots.filter(one => one.width > 60 && one.height > 20).length,
  tall: getComputedStyle(document.querySelector("tbody tr")).display,
});
</script>"""
# scheme and width, of which Chromium grants no less than 500; lightness of the background, layout of a table's row
SCREENS = [("light", 1200, 255, "table-row"), ("dark", 500, 20, "block")]


def many_outputs() -> Verdict:
    """Returns a verdict with long names and long streams."""
    gaps = [0.0] * 20 + [10.0 ** -(index % 9) for index in range(44)]
    states = tuple(port(f"past_key_values.{layer}.value" * 4, *gaps, tolerance=Tolerance(0.01)) for layer in range(6))
    return Verdict("old.onnx", NASTY, report(Run((port(NASTY, float("inf"), 0, 1e-300), *states))), DIFFERENT.error)


def seen(browser: str, folder: Path, scheme: str, width: int) -> dict[str, object]:
    """Returns what a script finds in the page; the page itself has none, and would not let one run."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page(many_outputs()))
    path = folder / "page.html"
    path.write_text(text.replace("</body>", f"{_LOOK}</body>").replace("<details>", "<details open>"), encoding="utf-8")
    ran = subprocess.run(
        [
            browser, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900",
            f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'data-seen="([^"]*)"', ran.stdout)
    assert found, ran.stderr[-2000:]
    facts: dict[str, object] = json.loads(html.unescape(found[1]))
    return facts


@pytest.mark.parametrize(("scheme", "width", "back", "row"), SCREENS)
def test_the_page_in_a_browser(scheme: str, width: int, back: int, row: str, tmp_path: Path) -> None:
    for browser in BROWSERS:
        facts = seen(browser, tmp_path, scheme, width)

        lightness = [int(one) for one in re.findall(r"\d+", str(facts["back"]))]
        assert abs(lightness[0] - back) < 12
        assert facts["inner"] == facts["needed"] == width
        assert facts["rows"] == 7
        assert facts["plots"] == 7 + 7
        assert facts["tall"] == row
        assert isinstance(facts["bars"], int)
        assert facts["bars"] > 6 * 2 * 44


def test_the_page_lets_no_script_run(tmp_path: Path) -> None:
    """The policy in the page's head holds, whatever a name might smuggle in."""
    text = page(many_outputs()).replace("</body>", "<script>document.title = 'ran'</script></body>")
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    for browser in BROWSERS:
        ran = subprocess.run(
            [browser, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert "<title>ran</title>" not in ran.stdout
        assert 'class="badge"' in ran.stdout
