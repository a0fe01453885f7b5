"""The command line. Commands import what they need when they run: `onnxfix --help` loads neither numpy nor onnx."""

from onnxfix.cli.main import main
from onnxfix.cli.program import run

__all__ = ["main", "run"]
