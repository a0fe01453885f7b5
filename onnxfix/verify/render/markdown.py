"""A verification in Markdown, as the summary of a GitHub job shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from onnxfix.verify.render.sparkline import Scale, sparkline
from onnxfix.verify.render.verdict import (
    Row,
    Verdict,
    allowed_text,
    driven_text,
    evidence_text,
    fed_text,
    grouped,
    needed_text,
)
from onnxfix.verify.report import VerifyReport

_SIGNS = {"equal": "✅", "within": "✅", "differs": "❌", "empty": "⚠️"}
_MOST = 200
"""Rows; GitHub shows a megabyte at most."""


def markdown(verdict: Verdict) -> str:
    """Returns the summary: the verdict, a row for each output, what to do, and the evidence."""
    sign = "✅" if verdict.passed else "❌"
    lines = [
        f"### {sign} {_code(verdict.converted)} {verdict.word}",
        "",
        f"Held against {_code(verdict.original)}: {_plain(_sentence(verdict.sentence))}",
    ]
    if verdict.rows:
        lines += ["", *_table(verdict.rows)]
    if verdict.advice:
        lines += ["", *(f"- {_plain(line)}" for text in verdict.advice for line in text.splitlines())]
    if verdict.fault:
        lines += ["", *_block(verdict.fault)]
    if verdict.report is not None:
        lines += ["", *_about(verdict.report)]
    return "\n".join([*lines, ""])


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| | Output | Values | Largest difference | Tick by tick | Would have passed |"
    yield "|---|---|--:|--:|---|---|"
    scale = Scale.over(one for row in rows for one in row.maxima)
    groups = grouped(rows)
    for group in groups[:_MOST]:
        yield _row(group, scale)
    if len(groups) > _MOST:
        yield f"| | and {len(groups) - _MOST:,} more | | | | |"


def _row(group: Sequence[Row], scale: Scale) -> str:
    first, last = group[0], group[-1]
    name = _code(first.port.name)
    if len(group) > 1:
        name += f" … {_code(last.port.name)} ({len(group)})"
    if first.label:
        name += f" {_plain(first.label)}"
    cells = (
        _SIGNS[first.word],
        name,
        f"{sum(row.port.values for row in group):,}",
        _plain(first.difference),
        _code(sparkline(first.maxima, scale)) if first.maxima else "",
        "" if first.word == "equal" else _plain(needed_text(first.port)),
    )
    return "| " + " | ".join(cells) + " |"


def _about(report: VerifyReport) -> Iterator[str]:
    yield f"Evidence: {_plain(_sentence(evidence_text(report)))}"
    if report.not_observable:
        yield ""
        yield from _folded("Not observable: in no output", report.not_observable)
    yield ""
    yield from _folded("How they were driven", _driven(report))


def _driven(report: VerifyReport) -> Iterator[str]:
    yield driven_text(report)
    if report.fed:
        yield f"fed {fed_text(report)}"
    tolerances = {port.name: port.tolerance for port in report.ports if port.tolerance is not None}
    for name, tolerance in tolerances.items():
        yield f"allowed in {name}: {allowed_text(tolerance)}"
    yield from report.notes


def _folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    shown = list(lines)
    yield f"<details><summary>{title} ({len(shown)})</summary>"
    yield ""
    yield from (f"- {_plain(line)}" for line in shown[:_MOST])
    if len(shown) > _MOST:
        yield f"- and {len(shown) - _MOST:,} more"
    yield ""
    yield "</details>"


def _block(lines: Iterable[str]) -> Iterator[str]:
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    yield f"{fence}text"
    yield text
    yield fence


def _code(text: str) -> str:
    """Returns a code span, which may hold backticks and stand in a table."""
    flat = _flat(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", flat)), default=0))
    blank = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{blank}{flat}{blank}{fence}"


def _plain(text: str) -> str:
    """Returns text in which nothing is taken for Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>()#|~!&@$])", r"\\\1", _flat(text))


def _flat(text: str) -> str:
    """Returns text on one line, without control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", " ", text)
