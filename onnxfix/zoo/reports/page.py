"""A migration as one page of HTML, that needs no network: it sorts, filters and searches ten thousand models.

Rows lie in the page as JSON, a block of them at a time, and behind each block what its rows open into, deflated: a
browser reads that when somebody opens one. So the page is written model by model, and its table is there at once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

from onnxfix.verify.render.escaping import html_text, shown
from onnxfix.verify.render.style import BASE
from onnxfix.zoo.reports.details import details_of
from onnxfix.zoo.reports.facts import ProofFact
from onnxfix.zoo.reports.format import ORDER, Summary, Told

if TYPE_CHECKING:
    from onnxfix.report import Json

BLOCK = 50
"""Rows that are read together."""
_ENDLESS = -1
"""Stands for an infinite difference, which JSON does not know."""


class PageFormat:
    """The page; see `page.html`, `page.css`, `page.js` and `details.js` beside this module."""

    def __init__(self) -> None:
        self._rows: list[Json] = []
        self._details: list[Json] = []
        self._conventions: dict[str, int] = {"": 0}
        template, self._script = _asset("page.html"), _asset("details.js") + _asset("page.js")
        self._head, self._foot = template.split("<!--rows-->\n")

    def start(self, summary: Summary) -> str:
        """Returns how the page begins."""
        style = BASE + _asset("page.css")
        allowed = f"style-src '{_digest(style)}'; script-src '{_digest(self._script)}'"
        parts = {
            "policy": f"default-src 'none'; img-src data:; {allowed}",
            "style": style,
            "zoo": html_text(summary.zoo),
            "out": "in place" if summary.is_in_place else html_text(summary.out),
            "total": f"{summary.total:,}",
            "bar": "".join(_bar(summary)),
            "outcomes": "".join(_buttons(summary)),
            "version": html_text(summary.version),
        }
        text = self._head
        for name, part in parts.items():
            text = text.replace(f"<!--{name}-->", part)
        return text

    def row(self, told: Told) -> str:
        """Returns what is written of the next model: nothing, or a block of rows."""
        nodes, proof = told.facts.nodes, told.facts.proof
        self._rows.append([
            shown(told.path), ORDER.index(told.word), *map(self._convention, told.speech), nodes.get("source"),
            nodes.get("after_cancelling"), None if proof is None else _difference(proof), round(told.seconds, 4),
            shown(told.reason),
        ])  # fmt: skip
        self._details.append(details_of(told))
        return self._block() if len(self._rows) == BLOCK else ""

    def end(self) -> str:
        """Returns how the page ends."""
        about: dict[str, Json] = {
            "block": BLOCK, "words": list(ORDER), "conventions": [shown(one) for one in self._conventions],
        }  # fmt: skip
        foot = self._foot.replace("<!--about-->", _json(about)).replace("<!--script-->", self._script)
        return f"{self._block() if self._rows else ''}{foot}"

    def _convention(self, name: str) -> int:
        """Returns a number for a convention, whose name may be long and common."""
        return self._conventions.setdefault(name, len(self._conventions))

    def _block(self) -> str:
        packed = base64.b64encode(zlib.compress(_json(self._details).encode("utf-8", "backslashreplace"), 6)).decode()
        rows = f'<script type="application/json" class="rows">{_json(self._rows)}</script>\n'
        self._rows, self._details = [], []
        return f'{rows}<script type="text/plain" class="details">{packed}</script>\n'


def _difference(proof: ProofFact) -> float:
    if proof.is_exact:
        return 0
    return float(f"{proof.max_abs:.3g}") if math.isfinite(proof.max_abs) else _ENDLESS


def _bar(summary: Summary) -> Iterator[str]:
    """Yields a bar, one part for each outcome, each large enough to be seen."""
    told = ", ".join(f"{count:,} {word}" for word, count in summary.counts.items())
    least, room = 6.0, 1000.0 - 6.0 * len(summary.counts)
    yield f'<svg class="totals" viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label="{told}">'
    x = 0.0
    for word, count in summary.counts.items():
        width = least + room * count / max(1, summary.total)
        yield f'<rect class="{word}" x="{x:.1f}" y="0" width="{width:.1f}" height="20"/>'
        x += width
    yield "</svg>"


def _buttons(summary: Summary) -> Iterator[str]:
    for word, count in summary.counts.items():
        label = "not done" if word == ORDER[-1] else word.replace("-", " ")
        yield (
            f'<button type="button" class="chip {word}" data-word="{word}" aria-pressed="false">'
            f'<span class="dot" aria-hidden="true"></span>{label} <b>{count:,}</b></button>\n'
        )


def _json(value: Json) -> str:
    """Returns JSON that ends no element of the page and begins no comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
