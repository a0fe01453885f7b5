"""Nobody is told of the models that onnxfix sees, and nothing is left in the user's folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxfix.model import telemetry

SAMPLE = Path(__file__).parents[1] / "sample_models" / "vad_state.onnx"
PROGRAM = """
import sys, onnxfix
source, result = sys.argv[1:]
onnxfix.convert(source, result, to="silero-hc")
onnxfix.verify(source, result)
"""


@pytest.mark.parametrize("said", ["0", "1", ""])
def test_what_the_environment_says_holds(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(telemetry.VARIABLE, said)
    telemetry.decline()
    assert os.environ[telemetry.VARIABLE] == said


def test_where_nobody_says_anything_it_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(telemetry.VARIABLE, "")  # what it was comes back afterwards
    monkeypatch.delenv(telemetry.VARIABLE)
    telemetry.decline()
    assert os.environ[telemetry.VARIABLE] == "1"


def test_a_conversion_leaves_its_result_and_nothing_else(tmp_path: Path) -> None:
    """ONNX Runtime 1.31 leaves a number in TMPDIR, and an identifier and a database below the user's cache folder."""
    folders = {name: tmp_path / name for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    for folder in folders.values():
        folder.mkdir()
    silent = {telemetry.VARIABLE, "CI", "ORT_RUNNING_UNIT_TESTS"}  # what also keeps it from telling anything
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    environment |= {name: str(folder) for name, folder in folders.items()}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, SAMPLE, tmp_path / "result.onnx"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["result.onnx"]
