"""The README says what is so: its commands print what stands there, and it leaves nothing out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onnxfix.cli.convert import convert
from onnxfix.cli.verify import verify
from onnxfix.convention.catalogue import catalogue, grouped
from onnxfix.convention.load import library
from onnxfix.errors import ExitCode
from onnxfix.verify.compare import TOLERANCES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VERIFY = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
CONVENTIONS = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
_NUMBER = re.compile(r"\d[\d.,]*")
_SMALL = re.compile(r"\de-\d\d\b")
"""A difference that comes of rounding: how large it is, and where, depends on the machine."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder that looks like a clone."""
    path = tmp_path_factory.mktemp("clone")
    (path / "sample_models").symlink_to(ROOT / "sample_models")
    return path


def _said(text: str) -> list[str]:
    """Returns lines without what depends on machine and versions: seconds, nodes, sizes of files, rounding."""
    return [_steady(line.rstrip()) for line in text.strip().splitlines() if not line.startswith("time ")]


def _steady(line: str) -> str:
    if _SMALL.search(line):
        words = re.sub(r"-?\d[\d.,]*(e-\d+)?|[▁▂▃▄▅▆▇█·]+|, ", " N ", line)
        return re.sub(r"( N|\s)+", " ", words)
    return _NUMBER.sub("N", line) if line.startswith(("nodes ", "wrote ")) else line


def test_the_commands_print_what_the_readme_says(folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    blocks = re.findall(r"```console\n\$ ([^\n]*)\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 5
    for command, output in blocks:
        ran = subprocess.run(
            ["bash", "-c", f"{command} 2>&1"], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert _said(ran.stdout) == _said(output), command


def test_the_python_example_runs(folder: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    ran = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_nothing_is_left_out() -> None:
    for one in catalogue():
        assert f"\n### {one.name}\n" in CONVENTIONS, (
            f"{one.name} is documented nowhere: run python docs/make_conventions.py"
        )
    rows = dict(re.findall(r"^\| \[([^]]+)\]\(docs/conventions\.md#[a-z-]+\) (\|.*)$", README, re.MULTILINE))
    groups = {title: {one.name for one in members} for title, members in grouped(catalogue())}
    assert rows.keys() == groups.keys()
    for title, row in rows.items():
        examples = set(re.findall(r"`([a-z0-9-]+)`", row))
        assert examples
        assert examples <= groups[title] & library().keys()
    replaced = re.findall(r"`([a-z0-9-]+)` to `([a-z0-9-]+)`", README.partition("upstream:")[2].partition("\n\n")[0])
    assert replaced
    for old, new in replaced:
        assert library()[old].successor == new
    for command, text in ((convert, README), (verify, VERIFY)):
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or f"`{option}" in text
    for code in ExitCode:
        assert f"\n| {int(code)} |" in README


def test_the_tolerances_are_those_of_the_table() -> None:
    for dtype, tolerance in TOLERANCES.items():
        assert f"| `{dtype}` | {tolerance.absolute:g} | {tolerance.relative:g} |" in VERIFY


def test_links_lead_somewhere() -> None:
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for link, place in re.findall(r"\]\(([^)#]+)(?:#([^)]+))?", path.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (path.parent / link).exists(), link
            assert not place or _has_heading(path.parent / link, place), f"{link}#{place}"


def _has_heading(path: Path, place: str) -> bool:
    """Whether a page has a heading that a link leads to."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return place in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
