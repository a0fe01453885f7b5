"""How a verification ended, in the words that the terminal, Markdown, JUnit and the page share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onnxfix.errors import OnnxfixError, VacuousCheck
from onnxfix.verify.compare import Tolerance
from onnxfix.verify.options import FULL, TEACHER
from onnxfix.verify.report import DifferenceError, PortReport, Run, VerifyReport

_FEW = 3
"""Equal neighbours that are still told one by one."""


@dataclass(frozen=True)
class Verdict:
    """What there is to tell of a verification, whichever way it ended.

    Attributes:
        original: What is trusted: a model or a trace.
        converted: The model that was checked.
        report: What was compared; None where it did not come to that.
        error: Why it failed; None if it passed.
        fault: Where inside the graph it went wrong, in lines, if somebody looked.
    """

    original: str
    converted: str
    report: VerifyReport | None = None
    error: OnnxfixError | None = None
    fault: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything was equal, or within its tolerance, and that is a proof."""
        return self.error is None

    @property
    def word(self) -> str:
        """The verdict in one word."""
        if self.error is None:
            return "verified"
        if isinstance(self.error, DifferenceError):
            return "different"
        return "not proven" if isinstance(self.error, VacuousCheck) else "not verified"

    @property
    def sentence(self) -> str:
        """The verdict in half a sentence."""
        if self.error is not None:
            return _message(self.error)
        if self.report is None:
            return "nothing was compared"
        compared = f"{count_text(self.report.values, 'value')} compared over {count_text(self.report.ticks, 'tick')}"
        if self.report.is_exact:
            return f"{compared}, all equal to the bit"
        return f"{compared}, all within the tolerances, largest difference {number_text(self.report.max_abs)}"

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row for each output and run."""
        return () if self.report is None else tuple(_rows(self.report))

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do where source and result differ."""
        if self.report is None or not isinstance(self.error, DifferenceError):
            return (self.error.hint,) if self.error is not None and self.error.hint else ()
        return tuple(_advice(self.report, self.error, has_fault=bool(self.fault)))


@dataclass(frozen=True)
class Row:
    """One output in one run.

    Attributes:
        port: All its comparisons.
        run: Where it belongs.
        label: What tells this run from the others; empty where there is only one.
    """

    port: PortReport
    run: Run
    label: str

    @property
    def name(self) -> str:
        """The output and its run."""
        return f"{self.port.name} ({self.label})" if self.label else self.port.name

    @property
    def kind(self) -> str:
        """What the output is."""
        return "state" if self.port.is_state else "output"

    @property
    def belonging(self) -> tuple[str, str, str]:
        """What rows that may be told as one have in common."""
        return (self.label, self.kind, self.port.dtype)

    @property
    def maxima(self) -> tuple[float, ...]:
        """The largest absolute difference of each tick."""
        return tuple(one.difference.max_abs for one in self.port.ticks)

    @property
    def word(self) -> str:
        """The verdict on this output."""
        if self.port.mismatched:
            return "differs"
        if not self.port.values:
            return "empty"
        return "equal" if self.port.is_exact else "within"

    @property
    def difference(self) -> str:
        """The largest difference, or what else is different."""
        worst = self.port.worst
        if worst is not None and worst.what != "value":
            return f"{worst.what} {worst.actual} instead of {worst.expected}"
        return number_text(self.port.max_abs)

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """All that was found, by name."""
        port = self.port
        found = [
            ("verdict", self.word),
            ("element type", port.dtype),
            ("shape at the last tick", str(list(port.shape))),
            ("ticks", str(len(port.ticks))),
            ("values compared", f"{port.values:,}"),
            ("values that differ", f"{port.mismatched:,}"),
            ("allowed", allowed_text(port.tolerance)),
            ("largest absolute difference", number_text(port.max_abs)),
            ("largest relative difference", number_text(port.max_rel)),
            ("mean absolute difference", number_text(port.mean_abs)),
            ("least cosine", "not defined" if port.cosine is None else f"{port.cosine:.9f}"),
            ("would have passed", needed_text(port)),
        ]
        if port.nans:
            found.append(("NaN on both sides", f"{port.nans:,}"))
        if place := place_text(port):
            found.append(("first difference", place))
        return tuple(found)


def grouped(rows: Iterable[Row]) -> list[tuple[Row, ...]]:
    """Returns rows with neighbours of which there is nothing to tell but that they are equal gathered in one."""
    groups: list[tuple[Row, ...]] = []
    for row in rows:
        last = groups[-1] if groups else ()
        if last and row.word == last[-1].word == "equal" and row.belonging == last[-1].belonging:
            groups[-1] = (*last, row)
        else:
            groups.append((row,))
    return [part for group in groups for part in (((one,) for one in group) if len(group) <= _FEW else (group,))]


def _rows(report: VerifyReport) -> Iterator[Row]:
    for run in report.runs:
        label = report.label(run)
        for port in run.ports:
            yield Row(port, run, label)


def driven_text(report: VerifyReport) -> str:
    """Returns how the models were driven, in one line."""
    starts = list(dict.fromkeys(run.start for run in report.runs)) or [FULL]
    providers = list(dict.fromkeys(run.provider for run in report.runs))
    words = [
        count_text(report.ticks, "tick"),
        "the source's state at every tick" if report.mode == TEACHER else "each with its own state",
        f"first caches {' and '.join(starts)}",
        f"seed {report.seed}",
        f"on {', '.join(providers)}" if providers else "",
        "optimised" if report.is_optimized else "optimisations off",
    ]
    return ", ".join(word for word in words if word)


def evidence_text(report: VerifyReport) -> str:
    """Returns how much of the caches shows in the outputs, in one line."""
    shown, hidden = len(report.observable), len(report.not_observable)
    if not shown + hidden:
        return "no part of the caches was disturbed"
    noun = "part" if shown + hidden == 1 else "parts"
    return f"{shown:,} of {shown + hidden:,} {noun} of the caches, disturbed alone, showed in an output"


def fed_text(report: VerifyReport) -> str:
    """Returns what each input was fed, in one line."""
    return ", ".join(name if name == kind else f"{name}: {kind}" for name, kind in report.fed.items())


def allowed_text(tolerance: Tolerance | None) -> str:
    """Returns a tolerance for people."""
    if tolerance is None:
        return "nothing"
    return f"{number_text(tolerance.absolute)} + {number_text(tolerance.relative)} x |expected|"


def needed_text(port: PortReport) -> str:
    """Returns the tolerances that would have passed, for people."""
    if port.is_exact:
        return "any"
    wanted = (("--atol", port.needed_abs), ("--rtol", port.needed_rel))
    options = [f"{option} {above(needed)}" for option, needed in wanted if math.isfinite(needed)]
    return " or ".join(options) if options else "none"


def above(number: float) -> str:
    """Returns a short decimal number that is not less.

    >>> above(0.0012341), above(0.25), above(0.0)
    ('0.00124', '0.25', '0')
    """
    text = f"{number:.3g}"
    if float(text) < number:
        step = 10.0 ** (math.floor(math.log10(number)) - 2)
        text = f"{number + step:.3g}"
    return text


def place_text(port: PortReport) -> str:
    """Returns the worst place of the first tick that differs; empty if none does."""
    worst = port.worst
    if worst is None:
        return ""
    if worst.what != "value":
        return f"tick {port.tick}: the {worst.what} should be {worst.expected} and is {worst.actual}"
    place = f" at {list(worst.index)}" if worst.index else ""
    return f"tick {port.tick}{place}: expected {worst.expected}, got {worst.actual}"


def number_text(number: float) -> str:
    """Returns a number with three digits."""
    if not math.isfinite(number):
        return "infinite"
    return f"{number:.3g}"


def count_text(count: int, noun: str) -> str:
    """Returns a number with its noun: `1 tick`, `12,345 values`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _message(error: OnnxfixError) -> str:
    return f"{error.where}: {error.message}" if error.where else error.message


def _advice(report: VerifyReport, error: DifferenceError, *, has_fault: bool) -> Iterator[str]:
    if error.hint:
        yield error.hint
    wrong = [port for port in report.ports if port.mismatched]
    is_close = all(math.isfinite(port.needed_abs) and (port.cosine or 0.0) > 0.999 for port in wrong)
    if wrong and is_close:
        needed = max(port.needed_abs for port in wrong)
        yield f"if a difference as small as this is meant, --atol {above(needed)} lets it pass"
    if not has_fault:
        yield "--bisect finds the first tensor inside the graph that differs"
    if report.mode != TEACHER and any(port.tick for port in wrong):
        yield "--teacher gives both models the source's state, so that an error does not travel from tick to tick"
