"""What became of each model, for programs and for tables: JSON with all that is known, and CSV with what fits."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from onnxfix.zoo.journal import Mark
from onnxfix.zoo.outcome import Failed, Refused, outcome_to_json
from onnxfix.zoo.reports.format import Summary, Told

if TYPE_CHECKING:
    from onnxfix.report import Json

_COLUMNS = (
    "model", "outcome", "from", "to", "kind", "reason", "hint", "nodes before", "nodes after", "ticks",
    "values compared", "exact", "largest difference", "started", "seconds", "source bytes", "source sha256",
    "result bytes", "result sha256", "notes",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""With these begins what spreadsheets compute."""


class JsonFormat:
    """One object: what is told of all, and a model a line with all that the journal has."""

    def __init__(self) -> None:
        self._comma = ""

    def start(self, summary: Summary) -> str:
        """Returns how the file begins."""
        about: dict[str, Json] = {
            "onnxfix": summary.version, "zoo": summary.zoo, "out": summary.out, "in_place": summary.is_in_place,
            "counts": dict(summary.counts),
        }  # fmt: skip
        lines = [f"{_json(key)}: {_json(value)},\n" for key, value in about.items()]
        return "".join(["{\n", *lines, '"models": ['])

    def row(self, told: Told) -> str:
        """Returns what is written of the next model."""
        comma, self._comma = self._comma, ","
        return f"{comma}\n{_json(_row(told))}"

    def end(self) -> str:
        """Returns how the file ends."""
        return "\n]\n}\n"


def _row(told: Told) -> dict[str, Json]:
    row, outcome = told.entry.row, told.entry.outcome
    return {
        "path": row.path,
        "state": row.state.value,
        **({"outcome": told.word} if outcome is None else outcome_to_json(outcome)),
        "settings": json.loads(row.settings or "{}"),
        "version": row.version,
        "source": None if row.source is None else _mark(row.source),
        "data": [{"path": mark.path, "size": mark.size} for mark in row.data],
        "results": [_mark(mark) for mark in row.results],
        "notes": list(row.notes),
        "started": told.entry.started,
        "seconds": dict(told.entry.seconds),
    }


def _mark(mark: Mark) -> Json:
    return {"path": mark.path, "size": mark.size, "sha256": mark.sha256}


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


class CsvFormat:
    """A line a model, as RFC 4180 has them; no cell is taken for a formula."""

    def start(self, summary: Summary) -> str:
        """Returns how the file begins."""
        return _line(_COLUMNS)

    def row(self, told: Told) -> str:
        """Returns what is written of the next model."""
        row, outcome, facts = told.entry.row, told.entry.outcome, told.facts
        kind, hint = (outcome.kind, outcome.hint) if isinstance(outcome, Failed | Refused) else ("", "")
        nodes = (facts.nodes.get("source", ""), facts.nodes.get("after_cancelling", ""))
        proof = facts.proof
        proven = ("", "", "", "") if proof is None else (
            proof.ticks, proof.values, "yes" if proof.is_exact else "no", f"{proof.max_abs:.3g}"
        )  # fmt: skip
        result = next((mark for mark in row.results if mark.path == row.path), None)
        files = [("", "") if mark is None else (mark.size, mark.sha256) for mark in (row.source, result)]
        return _line((
            row.path, told.word, *told.speech, kind, told.reason, hint, *nodes, *proven, told.entry.started,
            told.seconds, *files[0], *files[1], "\n".join((*row.notes, *facts.notes)),
        ))  # fmt: skip

    def end(self) -> str:
        """Returns how the file ends."""
        return ""


def _line(cells: tuple[str | int | float, ...]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(
        [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in cells]
    )
    return text.getvalue()
