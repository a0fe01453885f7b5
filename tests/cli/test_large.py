"""A model with 1.5 GB of external data: little memory, and the data file as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from onnx import helper

from tests.model.files import external, parsed, written

ROWS, COLUMNS = 1500, 250_000
CONVERT = """
import sys
from onnxfix.cli import main

assert main(["convert", sys.argv[1], sys.argv[2], "--to", "silero-hc", "--no-verify", "--quiet"]) == 0
# Not getrusage: its peak counts the memory of the process that this one was forked from.
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
MODEL = """
g (float[B, 4] input, float[2, B, 4] state) => (float[B, 4] output, float[2, B, 4] stateN)
<int64 zero = {0}, int64 one = {1}, int64[1] axes = {0}> {
    hidden = Gather <axis = 0> (state, zero) cell = Gather <axis = 0> (state, one)
    a = Add (input, hidden) output = Tanh (a) b = Mul (output, cell)
    u = Unsqueeze (output, axes) v = Unsqueeze (b, axes) stateN = Concat <axis = 0> (u, v)
}
"""


def test_a_large_model_converts_in_little_memory(tmp_path: Path) -> None:
    proto = parsed(MODEL)
    size = ROWS * COLUMNS * 4
    proto.graph.initializer.append(external("w", [ROWS, COLUMNS], location="w.data", offset=0, length=size))
    proto.graph.node.append(helper.make_node("Gather", ["w", "zero"], ["row"]))
    proto.graph.output.append(helper.make_tensor_value_info("row", 1, [COLUMNS]))
    with (tmp_path / "w.data").open("wb") as data:
        data.write(np.arange(COLUMNS, dtype=np.float32).tobytes())
        data.truncate(size)
    before = (tmp_path / "w.data").stat()
    source = written(tmp_path / "old.onnx", proto)
    command = [sys.executable, "-c", CONVERT, str(source), str(tmp_path / "new.onnx")]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) // 1024
    assert peak < 200, "MB"
    after = (tmp_path / "w.data").stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert {path.name for path in tmp_path.iterdir()} == {"old.onnx", "new.onnx", "w.data"}
