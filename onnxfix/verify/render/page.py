"""A verification as one page of HTML: no script, no network, light and dark, readable on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onnxfix.verify.render.escaping import html_text as _text
from onnxfix.verify.render.plot import large_plot, points, small_plot
from onnxfix.verify.render.sparkline import Scale
from onnxfix.verify.render.style import STYLE
from onnxfix.verify.render.verdict import Row, Verdict, driven_text, evidence_text, fed_text, needed_text
from onnxfix.verify.report import VerifyReport

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""
_MARKS = {"verified": "good", "different": "bad", "not proven": "warn", "not verified": "bad"}
_ROW_MARKS = {"equal": "good", "within": "good", "differs": "bad", "empty": "warn"}
_COLUMNS = ("Output", "Tick by tick", "Values", "Largest difference", "Would have passed", "Verdict")

_MOST = 50
"""Outputs that are told at length; all have a row."""


def page(verdict: Verdict) -> str:
    """Returns the page: the verdict, a row and a plot for each output, what differs at length, and the evidence."""
    title = f"{verdict.converted}: {verdict.word}"
    return "\n".join([
        _HEAD,
        f"<title>{_text(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body><main>",
        *_verdict(verdict),
        *_table(verdict.rows),
        *_details(verdict.rows),
        *_about(verdict.report),
        "</main></body>",
        "</html>",
        "",
    ])  # fmt: skip


def _verdict(verdict: Verdict) -> Iterator[str]:
    yield f'<header class="{_MARKS[verdict.word]}">'
    yield f'<p class="badge">{_text(verdict.word)}</p>'
    yield f"<h1>{_text(verdict.converted)}</h1>"
    yield f"<p>held against <b>{_text(verdict.original)}</b></p>"
    yield f'<p class="sentence">{_text(verdict.sentence)}</p>'
    if verdict.advice:
        yield f"<ul>{_items(verdict.advice)}</ul>"
    if verdict.fault:
        yield f"<pre>{_text(chr(10).join(verdict.fault), keeps_lines=True)}</pre>"
    yield "</header>"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    scale = _scale(rows)
    yield "<table><thead><tr>"
    yield "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield _row(row, scale)
    yield "</tbody></table>"
    yield (
        '<p class="legend">One column for each tick, its height the largest absolute difference on a scale of decades, '
        "the same for all outputs; a dot where nothing differs.</p>"
    )


def _row(row: Row, scale: Scale) -> str:
    name = f"<code>{_text(row.port.name)}</code> <small>{_text(', '.join(filter(None, (row.kind, row.label))))}</small>"
    choices = [] if row.word == "equal" else needed_text(row.port).split(" or ")
    needed = " or ".join(f'<span class="whole">{_text(choice)}</span>' for choice in choices)
    plot = small_plot(points(row.port), scale)
    cells = (name, plot, f"{row.port.values:,}", _text(row.difference), needed, _text(row.word))
    inside = "".join(
        f'<td data-name="{column}"{"" if cell else " class=none"}>{cell}</td>'
        for column, cell in zip(_COLUMNS, cells, strict=True)
    )
    return f'<tr class="{_ROW_MARKS[row.word]}">{inside}</tr>'


def _details(rows: Sequence[Row]) -> Iterator[str]:
    """Yields one section for each output that is not equal to the bit, the first that differs too much in front."""
    unequal = sorted((row for row in rows if row.word in ("differs", "within")), key=_urgency)
    if unequal:
        yield "<h2>What differs</h2>"
    scale = _scale(rows)
    for index, row in enumerate(unequal[:_MOST]):
        is_open = " open" if index == 0 else ""
        yield f"<details{is_open}><summary><code>{_text(row.name)}</code></summary>"
        yield large_plot(points(row.port), scale)
        yield f"<dl>{_pairs(row.facts)}</dl>"
        yield "</details>"
    if len(unequal) > _MOST:
        yield f"<p>and {len(unequal) - _MOST:,} more</p>"


def _urgency(row: Row) -> tuple[bool, int]:
    return (row.word != "differs", row.port.tick or 0)


def _about(report: VerifyReport | None) -> Iterator[str]:
    if report is None:
        return
    yield "<h2>Evidence</h2>"
    yield f"<p>{_text(evidence_text(report))}</p>"
    if report.not_observable:
        yield f"<p>Not observable, in no output:</p><ul>{_items(report.not_observable)}</ul>"
    if report.observable:
        yield f"<details><summary>Observable</summary><ul>{_items(report.observable)}</ul></details>"
    yield "<h2>How they were driven</h2>"
    facts = (("driven", driven_text(report)), ("fed", fed_text(report)), ("time", f"{report.seconds:.1f} s"))
    yield f"<dl>{_pairs((name, value) for name, value in facts if value)}</dl>"
    if report.notes:
        yield f"<ul>{_items(report.notes)}</ul>"


def _scale(rows: Iterable[Row]) -> Scale:
    return Scale.over(one for row in rows for one in row.maxima)


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{_text(line, keeps_lines=True)}</li>" for line in lines)


def _pairs(facts: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts)
