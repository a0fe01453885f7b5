"""Verifications that ended in every way, made by hand."""

from __future__ import annotations

import numpy as np

from onnxfix.errors import DriveError, VacuousCheck
from onnxfix.verify.compare import Tolerance, compare
from onnxfix.verify.render.verdict import Verdict
from onnxfix.verify.report import DifferenceError, PortReport, Run, TickReport, VerifyReport

NASTY = "a<b>&\"'|`*_\x00\x1b\ud800]]></testcase>"


def port(name: str, *gaps: float, is_state: bool = False, tolerance: Tolerance | None = None) -> PortReport:
    """Returns an output of three values, 1, 2 and 4, the last of which is off by a gap at each tick."""
    ticks = []
    for number, gap in enumerate(gaps):
        expected = np.array([1, 2, 4], np.float64)
        found = compare(expected, np.array([1, 2, 4 + gap], np.float64), "float64", tolerance)
        ticks.append(TickReport(number, (3,), found))
    return PortReport(name, is_state, "float64", tolerance, tuple(ticks))


def report(*runs: Run, notes: tuple[str, ...] = ()) -> VerifyReport:
    """Returns a report with one part of the caches that showed, and one that did not."""
    return VerifyReport(
        runs,
        {"x": "noise"},
        observable=("cache, layer 0",),
        not_observable=("cache, layer 1",),
        notes=notes,
        seconds=1.25,
    )


STATES = tuple(port(f"key_{layer}", 0, 0, is_state=True) for layer in range(4))
PASSED = Verdict("old.onnx", "new.onnx", report(Run((port("y", 0, 0), *STATES))))
CLOSE = Verdict("old.onnx", "new.onnx", report(Run((port("y", 0, 1e-6, 1e-3, tolerance=Tolerance(0.01)), *STATES))))
WRONG = report(Run((port("y", 0, 0.5), *STATES)), Run((port("y", 0.25), *STATES), "cuda"))
DIFFERENT = Verdict(
    "old.onnx", "new.onnx", WRONG, DifferenceError("they differ", WRONG, where="y, tick 1"), ("node Add",)
)
VACUOUS = Verdict("old.onnx", "new.onnx", None, VacuousCheck("no tick was driven", hint="--ticks 1 at least"))
FAILED = Verdict("old.onnx", "new.onnx", None, DriveError("nobody knows what to feed", where="x"))
_NASTY_REPORT = report(Run((port(NASTY, float("inf")), port("empty"))), notes=(NASTY,))
_NASTY_ERROR = DifferenceError(NASTY, _NASTY_REPORT, where=NASTY, hint=NASTY)
NASTY_VERDICT = Verdict(f"{NASTY}\n.onnx", NASTY, _NASTY_REPORT, _NASTY_ERROR, (NASTY, "```", "<script>"))
VERDICTS = {
    "passed": PASSED, "close": CLOSE, "different": DIFFERENT,
    "vacuous": VACUOUS, "failed": FAILED, "nasty": NASTY_VERDICT,
}  # fmt: skip
