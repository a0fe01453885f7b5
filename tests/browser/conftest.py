"""Everything here is of the group `browser`; only a run that names this folder collects it (pyproject.toml)."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
sys.path += [str(HERE.parent / folder) for folder in ("verify", "zoo")]  # what is made there by hand is shown here


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


_MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Returns what takes down what a test has measured; it is told at the end."""
    return request.config.stash.setdefault(_MEASURED, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_MEASURED, []):
        terminalreporter.write_line(f"measured: {line}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Returns a Chromium that has no window."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    assert path, "these tests need Chromium: tests/README.md"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET])
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Returns what opens a page; in the end, none of them may have complained."""
    contexts, complaints = [], []

    def open_(path: Path, *, fragment: str = "", scheme: str = "light", width: int = 1280, height: int = 900) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
        page.goto(path.as_uri() + fragment)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def complaints() -> Callable[[Page], list[str]]:
    """Returns what finds, with axe-core, what people who need other means cannot use."""
    path = os.environ.get("ONNXFIX_AXE", "")
    assert path, "ONNXFIX_AXE names axe.min.js: tests/README.md"
    axe = Path(path).read_text(encoding="utf-8")

    def look(page: Page) -> list[str]:
        page.evaluate(axe)
        found = page.evaluate("axe.run(document)")["violations"]
        return [f"{one['id']} ({one['impact']}): {[node['target'] for node in one['nodes']][:5]}" for one in found]

    return look
