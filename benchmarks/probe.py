"""Runs a tool in this process and writes down its memory and CPU time: `python probe.py FACTS TOOL ARGUMENT...`.

TOOL is a command that a package brings (`onnxfix`, `onnxsim`, `onnxslim`) or a Python file.
"""

from __future__ import annotations

import atexit
import json
import runpy
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import memory


def main() -> None:
    """Becomes the tool, for good."""
    facts, tool, *arguments = sys.argv[1:]

    def write_facts() -> None:
        taken = {"peak": memory.peak_bytes(), "cpu": time.process_time()}
        Path(facts).write_text(json.dumps(taken), encoding="utf-8")

    atexit.register(write_facts)
    sys.argv = [tool, *arguments]
    if tool.endswith(".py"):
        runpy.run_path(tool, run_name="__main__")
    else:
        (command,) = entry_points(group="console_scripts", name=tool)
        sys.exit(command.load()())


if __name__ == "__main__":
    main()
