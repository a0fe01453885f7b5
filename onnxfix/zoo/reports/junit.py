"""A migration as JUnit XML: a test case for each model."""

from __future__ import annotations

from pathlib import PurePosixPath

from onnxfix.verify.render.escaping import shown
from onnxfix.verify.render.xunit import FAILURE, SKIPPED, Case, Counts, case_lines, head, suite_head
from onnxfix.zoo.outcome import Failed, Refused, Skipped
from onnxfix.zoo.reports.format import WAITING, Summary, Told


class JunitFormat:
    """One suite. Models that failed or were refused are failures; what was skipped, or is not done, is skipped."""

    def start(self, summary: Summary) -> str:
        """Returns how the file begins."""
        numbers = summary.counts
        bad = numbers.get(Failed.word, 0) + numbers.get(Refused.word, 0)
        counts = Counts(summary.total, bad, 0, numbers.get(Skipped.word, 0) + numbers.get(WAITING, 0))
        name = f"onnxfix migrate {summary.zoo}"
        about = (("zoo", summary.zoo), ("destination", summary.out), ("onnxfix", summary.version))
        return _lines(*head(name, counts, summary.seconds), *suite_head("models", counts, summary.seconds, about))

    def row(self, told: Told) -> str:
        """Returns what is written of the next model."""
        folder = str(PurePosixPath(told.path).parent).strip("./").replace(".", "_").replace("/", ".")
        return _lines(*case_lines(_case(told), f"onnxfix.{folder}" if folder else "onnxfix"))

    def end(self) -> str:
        """Returns how the file ends."""
        return _lines("  </testsuite>", "</testsuites>")


def _case(told: Told) -> Case:
    outcome, path, reason, seconds = told.entry.outcome, shown(told.path), told.reason, told.seconds
    if isinstance(outcome, Failed | Refused):
        log = outcome.log if isinstance(outcome, Failed) else ""
        text = "\n".join(line for line in (reason, outcome.hint, log) if line)
        return Case(path, FAILURE, reason, outcome.kind, text, seconds)
    if isinstance(outcome, Skipped) or outcome is None:
        return Case(path, SKIPPED, reason if outcome else f"not done: {reason}", seconds=seconds)
    proof, speech = told.facts.proof, " -> ".join(filter(None, told.speech))
    proven = [] if proof is None else [f"{proof.values:,} values compared over {proof.ticks:,} ticks"]
    return Case(path, text="\n".join((f"{told.word}  {speech}", *proven)), seconds=seconds)


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)
