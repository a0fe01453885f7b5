"""What a verification found, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxfix.cli.console import print_table
from onnxfix.verify.render.sparkline import BARS, Scale, sparkline
from onnxfix.verify.render.verdict import Row, Verdict, driven_text, evidence_text, fed_text, grouped
from onnxfix.verify.report import VerifyReport

_MOST = 40
"""Rows that are listed."""
_FEW = 5
_QUIET = "dim"
_STYLES = {"equal": "green", "within": "yellow", "differs": "bold red", "empty": "yellow"}


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Prints the verdict, a row for each output, and how much that proves; the error itself is printed elsewhere."""
    console.print(_headline(verdict), soft_wrap=True)
    if verdict.rows:
        print_table(console, _table(verdict.rows, is_plain=not _has_bars(console)))
    if verdict.report is not None:
        print_table(console, _facts(verdict.report))
    for line in verdict.fault:
        console.print(Text(line), soft_wrap=True)


def _headline(verdict: Verdict) -> Text:
    text = Text().append(verdict.word, "bold green" if verdict.passed else "bold red")
    text.append(f"  {verdict.converted}", "bold").append(" against ", _QUIET).append(verdict.original)
    return text.append(f"\n{verdict.sentence}") if verdict.passed else text


def _has_bars(console: Console) -> bool:
    try:
        BARS.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _table(rows: Sequence[Row], *, is_plain: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="cyan")
    for name in ("output", "values", "difference", "tick by tick", ""):
        table.add_column(name, justify="right" if name == "values" else "left", overflow="fold")
    scale = Scale.over(one for row in rows for one in row.maxima)
    groups = _shown(grouped(rows))
    for group in groups[:_MOST]:
        first = group[0]
        line = sparkline(first.maxima, scale, is_plain=is_plain)
        table.add_row(
            Text(_name(group)), f"{sum(row.port.values for row in group):,}", Text(first.difference),
            Text(line, _QUIET if first.word == "equal" else ""), Text(_words(first), _STYLES[first.word]),
        )  # fmt: skip
    if len(groups) > _MOST:
        table.add_row(Text(f"and {len(groups) - _MOST:,} more", _QUIET))
    return table


def _shown(groups: Sequence[tuple[Row, ...]]) -> list[tuple[Row, ...]]:
    """Returns the rows in their order or, where not all can be listed, those that differ first."""
    if len(groups) <= _MOST:
        return list(groups)
    return sorted(groups, key=lambda group: group[0].word != "differs")


def _name(group: Sequence[Row]) -> str:
    first, last = group[0], group[-1]
    if len(group) == 1:
        return first.name
    label = f" ({first.label})" if first.label else ""
    return f"{first.port.name} ... {last.port.name} ({len(group)}){label}"


def _words(row: Row) -> str:
    port = row.port
    if row.word == "differs" and port.worst is not None and port.worst.what == "value":
        return f"differs from tick {port.tick} on, {port.mismatched:,} of {port.values:,}"
    return f"differs at tick {port.tick}" if row.word == "differs" else row.word


def _facts(report: VerifyReport) -> Table:
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="cyan", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, text in _lines(report):
        rows.add_row(name, Text(text))
    return rows


def _lines(report: VerifyReport) -> Iterator[tuple[str, str]]:
    yield "driven", driven_text(report)
    if report.fed:
        yield "fed", fed_text(report)
    yield "evidence", evidence_text(report)
    if report.not_observable:
        shown = "; ".join(report.not_observable[:_FEW])
        rest = len(report.not_observable) - _FEW
        yield "", f"not observable: {shown}" + (f"; and {rest:,} more" if rest > 0 else "")
    for note in report.notes:
        yield "note", note
    yield "time", f"{report.seconds:.1f} s"
