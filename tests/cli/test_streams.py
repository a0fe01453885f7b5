"""Standard output and standard error that are closed, full, or read by nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_models import FROM, TO, contents, save, two_layers

_MAIN = "from onnxfix.cli import run; run()"
_BROKEN = """
import errno, io, os, sys
from onnxfix.cli import main

class Full(io.StringIO):
    name = "<full>"
    def write(self, text):
        if super().write(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

for name in sys.argv[1].split(","):
    setattr(sys, name, Full())
sys.exit(main(sys.argv[2:]))
"""


def _run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)


def _shell(redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", _MAIN, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Returns a conversion that works, into a folder of its own."""
    save(two_layers(), tmp_path / "old.onnx")
    (tmp_path / "new").mkdir()
    return ["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/new/new.onnx", "--from", FROM, "--to", TO, "--no-simplify"]


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure(closed: str, words: list[str], tmp_path: Path) -> None:
    ran = _shell(closed, *words, "--json")
    assert ran.returncode == 0
    assert "2>" in closed or ran.stderr.startswith("converted")
    assert ">&- 2" in closed or closed == ">&-" or json.loads(ran.stdout)["outcome"] == "converted"
    assert sorted(contents(tmp_path / "new")) == ["new.onnx"]
    assert _shell(closed, "convert", f"{tmp_path}/none.onnx", f"{tmp_path}/new/other.onnx").returncode == 3
    assert _shell(closed, "--help").returncode == 0
    assert _shell(closed, "inspect", words[1]).returncode == 0


def test_what_libraries_write_to_a_closed_stream_does_not_get_into_the_model(words: list[str], tmp_path: Path) -> None:
    # A file that is opened while descriptor 2 is closed gets that number, and whatever is written to it.
    noisy = "import os; from onnxfix.verify import session; real = session.Session.__init__\n"
    noisy += "session.Session.__init__ = lambda *a, **o: (os.write(2, b'a warning'), real(*a, **o))[1]\n"
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", noisy + _MAIN, *words]
    assert subprocess.run(command, timeout=60).returncode == 0
    assert b"a warning" not in contents(tmp_path / "new")["new.onnx"]


@pytest.mark.parametrize(("full", "options"), [("stderr", []), ("stdout", ["--json"]), ("stdout,stderr", ["--json"])])
def test_a_result_whose_report_cannot_be_printed_is_a_result(
    full: str, options: list[str], words: list[str], tmp_path: Path
) -> None:
    ran = _run(_BROKEN, full, *words, *options)
    assert ran.returncode == 0
    assert sorted(contents(tmp_path / "new")) == ["new.onnx"]
    if full == "stdout":
        warning = "warning: <full>: the output cannot be written: No space left on device; the result is complete"
        assert warning in ran.stderr


@pytest.mark.parametrize("command", ["inspect", "conventions", "plan", "json", "help"])
def test_a_result_that_cannot_be_printed_is_a_failure(command: str, words: list[str]) -> None:
    asked = {
        "inspect": ["inspect", words[1]],
        "conventions": ["conventions"],
        "plan": [*words, "--check"],
        "json": [*words, "--diff", "--json"],
        "help": ["convert", "--help"],
    }[command]
    ran = _run(_BROKEN, "stdout", *asked)
    assert ran.returncode == 3
    assert ran.stderr == "error: <full>: the output cannot be written: No space left on device\n"


def test_an_error_that_cannot_be_printed_keeps_its_exit_code(words: list[str]) -> None:
    assert _run(_BROKEN, "stderr", *words, "--to", "wenet-kw").returncode == 2
    assert _run(_BROKEN, "stdout,stderr", *words, "--size", "U=3", "--json").returncode == 2
    assert _run(_BROKEN, "stdout,stderr", "convert", "none.onnx", "new.onnx").returncode == 3


@pytest.mark.parametrize(
    ("options", "code"), [(["--json"], 0), (["--check"], 1), (["--diff"], 1)], ids=lambda value: str(value)
)
def test_a_reader_who_has_gone_has_read_enough(options: list[str], code: int, words: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    ran = subprocess.run([sys.executable, "-c", _MAIN, *words, *options], stdout=theirs, stderr=theirs, timeout=60)
    os.close(theirs)
    assert ran.returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_from_outside_it_cleans_up(number: signal.Signals, words: list[str], tmp_path: Path) -> None:
    slow = "import time; from onnxfix.verify import lockstep; lockstep.verify = lambda *a, **o: time.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", slow + _MAIN, *words])
    end = time.monotonic() + 30
    while not contents(tmp_path / "new") and time.monotonic() < end:
        time.sleep(0.02)
    assert len(contents(tmp_path / "new")) == 1
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    assert contents(tmp_path / "new") == {}
