"""On a terminal there are colours and progress, unless someone does not want them."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_models import FROM, PACKED, PER_LAYER, TO, save, two_layers

_MAIN = "from onnxfix.cli import run; run()"
_COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


def _on_terminal(words: list[str], columns: int, **environment: str) -> str:
    """Runs a command with a terminal for standard error, and returns what arrives there."""
    ours, theirs = pty.openpty()
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    settings = {**known, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, *words], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, env=settings
    )
    os.close(theirs)
    received = b""
    while chunk := _read(ours):
        received += chunk
    os.close(ours)
    out, _ = process.communicate()
    assert (process.returncode, out) == (0, b"")
    return received.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.parametrize(("environment", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours(environment: dict[str, str], has_colours: bool, tmp_path: Path) -> None:
    save(two_layers(), tmp_path / "old.onnx")
    words = ["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/new.onnx", "--from", FROM, "--to", TO, "--no-simplify"]
    received = _on_terminal(words, 120, **environment)
    assert bool(_COLOUR.search(received)) == has_colours
    assert "driving source and result" in received
    assert "converted" in received


def test_a_narrow_terminal(tmp_path: Path) -> None:
    save(two_layers(), tmp_path / "old.onnx")
    words = ["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/new.onnx", "--from", FROM, "--to", TO, "--no-simplify"]
    received = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _on_terminal(words, 40, NO_COLOR="1"))
    rows = received[received.index("inputs") : received.index("wrote")].splitlines()
    assert max(map(len, rows)) <= 40
    assert any(row.strip().startswith("values compared") or "compared" in row for row in rows)


def test_a_terminal_that_knows_ascii_only() -> None:
    words = ["verify", str(PACKED), str(PER_LAYER), "--atol", "1"]
    received = _on_terminal(words, 100, PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert "all equal to the bit" in received
    assert received.isascii()
