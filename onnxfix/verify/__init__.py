"""How a result is believed: source and result driven in lock step."""

from onnxfix.verify.compare import TOLERANCES, Difference, Mismatch, Tolerance, compare
from onnxfix.verify.lockstep import verify
from onnxfix.verify.report import DifferenceError, PortReport, VerifyOptions, VerifyReport

__all__ = [
    "TOLERANCES",
    "Difference",
    "DifferenceError",
    "Mismatch",
    "PortReport",
    "Tolerance",
    "VerifyOptions",
    "VerifyReport",
    "compare",
    "verify",
]
