"""Runs a tool in this process and writes down its memory and CPU time: `python probe.py FACTS TOOL ARGUMENT...`.

TOOL is a command that lies beside this Python (`onnxfix`, `onnxsim`, `onnxslim`) or a Python file. It runs as it does
alone: to look it up among all that is installed would add a tenth of a second.
"""

from __future__ import annotations

import atexit
import json
import sys
import time
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
    path = Path(tool) if tool.endswith(".py") else Path(sys.executable).with_name(tool)
    exec(compile(path.read_bytes(), path, "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
