"""The end of the program: at once, but with all that was to be done by then."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

AT_THE_END = """
import atexit, os, sys
atexit.register(os.write, 1, b"done at the end")
class Apart:
    def __del__(self, write=os.write):
        write(1, b"taken apart")
apart = Apart()
from onnxfix.cli import run
print("before")
run()
"""
"""What is told by whom: an exit handler, and an object that goes only when Python takes everything apart."""


def _ran(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("words", "exit_code"), [(["--version"], 0), (["convert"], 2), (["inspect", "none.onnx"], 3)])
def test_nothing_is_taken_apart_but_exit_handlers_run_and_all_output_is_there(words: list[str], exit_code: int) -> None:
    ran = _ran(AT_THE_END, *words)
    assert ran.returncode == exit_code
    assert ran.stdout.startswith("before\n")
    assert ran.stdout.endswith("done at the end")


def test_a_library_that_goes_on_in_the_background_is_waited_for() -> None:
    ran = _ran(
        """
        import threading, time
        threading.Thread(target=lambda: [time.sleep(1), print("written late")]).start()
        from onnxfix.cli import run
        run()
        """,
        "--version",
    )
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "written late")
