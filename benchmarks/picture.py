"""The picture: how long a step takes beside the native export, as an SVG for light pages and for dark ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

Results = Mapping[str, Any]
# The page may be white or nearly black, and the picture cannot ask which: every colour stands out from both.
TEXT = "#6e7781"
COLOURS = {"source": "#8b949e", "adapters": "#d9822b", "converted": "#2f81f7"}
TITLES = {"source": "source", "adapters": "adapters only", "converted": "converted by onnxfix"}
FAMILIES = {
    "conformer": "Conformer: packed to one cache per layer, key and value",
    "gpt2": "GPT-2: stacked to one cache per layer, key and value",
}
PANEL, MARGIN, LABEL, VALUE = 420, 20, 76, 52  # widths
BAR, GAP, GROUP, TOP, FOOT = 14, 4, 16, 74, 50  # heights
THREADS = 1


@dataclass(frozen=True)
class Scale:
    """Turns a ratio into a place."""

    left: float
    width: float
    most: float

    def at(self, ratio: float) -> float:
        """Gives the place of a ratio."""
        return self.left + self.width * ratio / self.most


def draw(results: Results) -> str:
    """Draws all families that were measured, side by side."""
    sections = results["sections"]
    panels = [
        (title, [cell for cell in sections[f"latency/{family}"]["cells"] if cell["threads"] == THREADS])
        for family, title in FAMILIES.items()
        if f"latency/{family}" in sections
    ]
    groups = max((len(cells) for _, cells in panels), default=0)
    height = TOP + groups * (len(COLOURS) * (BAR + GAP) + GROUP) + FOOT
    width = MARGIN + len(panels) * (PANEL + MARGIN)
    body = [legend()]
    for index, (title, cells) in enumerate(panels):
        body += panel(title, cells, MARGIN + index * (PANEL + MARGIN))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12" role="img">'
    )
    said = "Time of a step relative to the native export, by cache length"
    return "\n".join([head, f"<title>{said}</title>", *body, "</svg>", ""])


def legend() -> str:
    """Draws what the colours mean."""
    parts, x = [], float(MARGIN)
    for name, title in TITLES.items():
        parts.append(f'<rect x="{x:.0f}" y="14" width="12" height="12" rx="2" fill="{COLOURS[name]}"/>')
        parts.append(text(x + 18, 24, title))
        x += 40 + 7 * len(title)
    parts.append(text(x, 24, f"step time, native export = 1; {THREADS} thread"))
    return "\n".join(parts)


def panel(title: str, cells: Sequence[Results], left: float) -> Iterator[str]:
    """Draws one family."""
    yield text(left, 54, title, weight="600")
    ratios = [cell["variants"][name]["to_native"]["high"] for cell in cells for name in COLOURS]
    scale = Scale(left + LABEL, PANEL - LABEL - VALUE, max([*ratios, 1.0]))
    y = float(TOP)
    for cell in cells:
        middle = y + (len(COLOURS) * (BAR + GAP) - GAP) / 2
        yield text(left + LABEL - 8, middle + 4, f"cache {cell['length']}", anchor="end")
        for name, colour in COLOURS.items():
            yield from bar(scale, y, cell["variants"][name]["to_native"], colour)
            y += BAR + GAP
        y += GROUP
    one = scale.at(1)
    ends = f'x1="{one:.1f}" y1="{TOP - 8}" x2="{one:.1f}" y2="{y - 8:.0f}"'
    yield f'<line {ends} stroke="{TEXT}" stroke-dasharray="3 3"/>'
    yield text(one, y + 8, "native export", anchor="middle")


def bar(scale: Scale, y: float, ratio: Results, colour: str) -> Iterator[str]:
    """Draws a bar as long as the median, a line over the middle half of all rounds, and the number."""
    end, low, high = (scale.at(ratio[key]) for key in ("median", "low", "high"))
    middle = y + BAR / 2
    place = f'x="{scale.left:.1f}" y="{y:.0f}" width="{end - scale.left:.1f}" height="{BAR}"'
    yield f'<rect {place} rx="2" fill="{colour}"/>'
    ends = f'x1="{low:.1f}" y1="{middle:.0f}" x2="{high:.1f}" y2="{middle:.0f}"'
    yield f'<line {ends} stroke="{TEXT}" stroke-width="1.5"/>'
    yield text(max(end, high) + 6, y + BAR - 3, f"{ratio['median']:.2f}")


def text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "400") -> str:
    """Writes words."""
    style = f'fill="{TEXT}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.0f}" {style}>{escape(words)}</text>'
