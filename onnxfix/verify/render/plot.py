"""Differences tick by tick, as drawings that stand in a page: SVG without script, coloured by the page's style."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxfix.verify.render.sparkline import Scale
from onnxfix.verify.render.verdict import number_text
from onnxfix.verify.report import PortReport

_LEAST, _MOST = 8, 128
"""Columns that there is room for at least; and at most: longer runs are gathered, several ticks a column."""


@dataclass(frozen=True)
class Point:
    """One tick.

    Attributes:
        tick: The tick, from 0.
        difference: The largest absolute difference.
        is_wrong: Whether something differs by more than is allowed.
    """

    tick: int
    difference: float
    is_wrong: bool


def points(port: PortReport) -> list[Point]:
    """Returns what there is to draw of an output."""
    return [Point(one.tick, one.difference.max_abs, one.difference.mismatched > 0) for one in port.ticks]


@dataclass(frozen=True)
class _Column:
    """Neighbouring ticks.

    Attributes:
        first, last: The first and the last of them.
        difference: The largest absolute difference in them.
        is_wrong: Whether one of them has a mismatch.
    """

    first: int
    last: int
    difference: float
    is_wrong: bool

    @property
    def title(self) -> str:
        """What is shown where a pointer rests on the column."""
        ticks = f"tick {self.first}" if self.first == self.last else f"ticks {self.first} to {self.last}"
        return f"{ticks}: {'equal' if self.difference == 0 else number_text(self.difference)}"


def small_plot(ticks: Sequence[Point], scale: Scale) -> str:
    """Returns a drawing for a row of a table: a bar for each tick, a dot where nothing differs."""
    columns = _columns(ticks)
    step = 120 / max(_LEAST, len(columns))
    body = "".join(_bar(column, index * step, step, 30.0, scale) for index, column in enumerate(columns))
    largest = max((one.difference for one in ticks), default=0.0)
    label = f"difference at each of {len(ticks)} ticks, largest {number_text(largest)}"
    return f'<svg class="small" viewBox="0 0 120 32" role="img" aria-label="{label}">{body}</svg>'


def large_plot(ticks: Sequence[Point], scale: Scale) -> str:
    """Returns a drawing with axes: ticks to the right, decades of the largest absolute difference upwards."""
    columns = _columns(ticks)
    left, width, height = 56.0, 584.0, 128.0
    step = width / max(_LEAST, len(columns))
    is_drawn = any(0 < column.difference < math.inf for column in columns)
    lines = "".join(_decades(scale, left, width, height)) if is_drawn else ""
    bars = "".join(_bar(column, left + index * step, step, height, scale) for index, column in enumerate(columns))
    ends = [(left, "start", column.first) for column in columns[:1]]
    ends += [(left + step * len(columns), "end", column.last) for column in columns[1:][-1:]]
    words = "".join(
        f'<text x="{x:g}" y="{height + 16:g}" text-anchor="{anchor}">tick {tick}</text>' for x, anchor, tick in ends
    )
    label = f"largest absolute difference of {len(ticks)} ticks"
    return f'<svg class="large" viewBox="0 0 648 150" role="img" aria-label="{label}">{lines}{bars}{words}</svg>'


def _decades(scale: Scale, left: float, width: float, height: float) -> Iterator[str]:
    """Yields a line for each end of the scale and for powers of ten between them, as many as have room."""
    low, high = math.ceil(math.log10(scale.low)), math.floor(math.log10(scale.high))
    step = max(1, -(-(high - low) // 4))
    last = -math.inf
    for mark in sorted({scale.low, scale.high, *(10.0**power for power in range(low, high, step))}, reverse=True):
        y = _height(mark, height, scale)
        if y - last < 12:
            continue
        last = y
        yield f'<line x1="{left:g}" x2="{left + width:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{left - 6:g}" y="{y + 4:.1f}" text-anchor="end">{number_text(mark)}</text>'


def _bar(column: _Column, x: float, step: float, height: float, scale: Scale) -> str:
    style = "bad" if column.is_wrong else "good"
    inner = max(0.8, step * 0.75)
    if column.difference == 0 and not column.is_wrong:
        radius = min(1.6, step / 3)
        return f'<circle class="zero" cx="{x + step / 2:.1f}" cy="{height - 2:g}" r="{radius:.1f}"/>'
    top = 2.0 if not math.isfinite(column.difference) else _height(column.difference, height, scale)
    extra = " endless" if not math.isfinite(column.difference) else ""
    return (
        f'<rect class="{style}{extra}" x="{x + (step - inner) / 2:.1f}" y="{top:.1f}" width="{inner:.1f}" '
        f'height="{height - top:.1f}"><title>{column.title}</title></rect>'
    )


def _height(difference: float, height: float, scale: Scale) -> float:
    """Returns how far from the top a difference lies; the smallest is still seen."""
    part = scale.place(difference) if difference > 0 else 0.0
    return height - (0.12 + 0.82 * part) * height


def _columns(ticks: Sequence[Point]) -> list[_Column]:
    step = max(1, -(-len(ticks) // _MOST))
    parts = [ticks[start : start + step] for start in range(0, len(ticks), step)]
    return [
        _Column(
            part[0].tick,
            part[-1].tick,
            max(one.difference for one in part),
            any(one.is_wrong for one in part),
        )
        for part in parts
    ]
