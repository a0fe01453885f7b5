"""What a row of the page opens into: all that is known of one model, as the page's script shows it.

All texts are shown as they are, by `textContent`, after `escaping.shown`; drawings are made here, of numbers alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from onnxfix.report import bytes_text
from onnxfix.verify.render.escaping import shown
from onnxfix.verify.render.plot import Point, small_plot
from onnxfix.verify.render.sparkline import Scale
from onnxfix.verify.render.verdict import number_text
from onnxfix.zoo.journal import Entry, Mark
from onnxfix.zoo.outcome import Failed, Refused
from onnxfix.zoo.reports.facts import OutputFact, PortFact, ProofFact
from onnxfix.zoo.reports.format import Told, seconds_text

if TYPE_CHECKING:
    from onnxfix.report import Json

_MOST = 20
"""Outputs of one model that are drawn."""
_STATIONS = {
    "source": "", "simplified": "simplified", "with_adapters": "with adapters", "after_cancelling": "after cancelling",
}  # fmt: skip
_SETTINGS = {
    "is_simplified": "simplified", "is_verified": "verified", "is_excluded": "excluded", "is_recorded": "recorded",
    "from_": "from",
}  # fmt: skip


def details_of(told: Told) -> dict[str, Json]:
    """Returns what there is to show of a model; what there is not is left out."""
    row, facts, outcome = told.entry.row, told.facts, told.entry.outcome
    log = outcome.log if isinstance(outcome, Failed) else ""
    found: dict[str, Json] = {
        "error": _error(told),
        "log": _shown(log),
        "notes": _texts((*row.notes, *facts.notes)),
        "plan": _texts(facts.plan),
        "inputs": _ports(*facts.inputs),
        "outputs": _ports(*facts.outputs),
        "nodes": _steps(facts.nodes),
        "copied": _steps(facts.copied),
        "cancelled": _shown(", ".join(f"{count} {operator}" for operator, count in facts.cancelled.items())),
        "kept": _texts(facts.kept),
        "proof": {} if facts.proof is None else _proof(facts.proof),
        "source": _files(() if row.source is None else (row.source, *row.data)),
        "results": _files(row.results),
        "asked": _pairs(json.loads(row.settings or "{}")),
        "times": _times(told.entry),
    }
    return {key: value for key, value in found.items() if value}


def _error(told: Told) -> dict[str, Json]:
    """Returns what went wrong, or why nothing was done."""
    outcome, reason = told.entry.outcome, told.reason
    if isinstance(outcome, Failed | Refused):
        return {"kind": _shown(outcome.kind), "text": _shown(reason), "hint": _shown(outcome.hint)}
    return {"kind": "", "text": _shown(reason), "hint": ""} if reason else {}


def _ports(before: Sequence[PortFact], after: Sequence[PortFact]) -> list[Json]:
    """Returns both lists of ports: how each differs from the other list, its name, and what it is."""
    old, new = ({port.name: port.kind for port in ports} for ports in (before, after))
    if old == new and [*old] == [*new]:
        return [_marked(before, new, "-")] if before else []
    return [_marked(before, new, "-"), _marked(after, old, "+")]


def _marked(ports: Iterable[PortFact], others: Mapping[str, str], alone: str) -> Json:
    def mark(port: PortFact) -> str:
        return alone if port.name not in others else "" if others[port.name] == port.kind else "~"

    return [[mark(port), _shown(port.name), _shown(port.kind)] for port in ports]


def _steps(told: Mapping[str, int] | Mapping[str, str]) -> list[Json]:
    """Returns what was counted, in the order of the stations: the journal has them by name."""
    names = [*(name for name in _STATIONS if name in told), *(name for name in told if name not in _STATIONS)]
    return [[_STATIONS.get(name, _shown(name)), _shown(str(told[name]))] for name in names]


def _proof(proof: ProofFact) -> dict[str, Json]:
    """Returns what was compared, a drawing of the whole, and one of each output that differs."""
    wrong = sorted((one for one in proof.outputs if one.mismatched), key=_first_wrong)
    scale = Scale.over(difference for one in proof.outputs for difference in one.maxima)
    compared = f"{proof.values:,} values compared over {proof.ticks:,} ticks"
    parts = proof.observable + len(proof.hidden)
    evidence = f"{proof.observable:,} of {parts:,} parts of the caches, disturbed alone, showed in an output"
    found: dict[str, Json] = {
        "text": f"{compared}, {_largest(proof)}",
        "plot": small_plot(_worst(proof.outputs), scale),
        "wrong": [
            [_shown(one.name), _shown(_wrong_text(one)), small_plot(_points(one), scale)] for one in wrong[:_MOST]
        ],
        "more": max(0, len(wrong) - _MOST),
        "how": _shown(", ".join(proof.how)),
        "fed": _shown(", ".join(proof.fed)),
        "evidence": evidence if parts else "",
        "hidden": _texts(proof.hidden),
        "notes": _texts(proof.notes),
    }  # fmt: skip
    return {key: value for key, value in found.items() if value}


def _largest(proof: ProofFact) -> str:
    return "all equal to the bit" if proof.is_exact else f"largest difference {number_text(proof.max_abs)}"


def _wrong_text(output: OutputFact) -> str:
    kind, largest = "state" if output.is_state else "output", number_text(max(output.maxima, default=0.0))
    share = f"{output.mismatched:,} of {output.values:,} values differ, the largest difference is {largest}"
    return ", ".join(filter(None, (kind, output.run, share)))


def _first_wrong(output: OutputFact) -> int:
    return next((tick for tick, difference in enumerate(output.maxima) if difference), len(output.maxima))


def _points(output: OutputFact) -> list[Point]:
    is_wrong = output.mismatched > 0
    return [Point(tick, one, is_wrong and one > 0) for tick, one in enumerate(output.maxima)]


def _worst(outputs: Sequence[OutputFact]) -> list[Point]:
    """Returns, tick by tick, the largest difference of all outputs."""
    longest = max(outputs, key=lambda one: len(one.maxima), default=None)
    if longest is None or not any(one.mismatched for one in outputs):
        return [] if longest is None else _points(longest)
    found: dict[int, Point] = {}
    for point in (point for output in outputs for point in _points(output)):
        known = found.get(point.tick, point)
        worst = max(known.difference, point.difference)
        found[point.tick] = Point(point.tick, worst, known.is_wrong or point.is_wrong)
    return [found[tick] for tick in sorted(found)]


def _files(marks: Iterable[Mark]) -> list[Json]:
    return [[shown(mark.path), bytes_text(mark.size), mark.sha256] for mark in marks]


def _pairs(settings: Mapping[str, object]) -> list[Json]:
    """Returns what was asked for, in words."""
    pairs: list[Json] = []
    for key, value in settings.items():
        if key == "files":
            continue
        if isinstance(value, list):
            text = ", ".join(
                f"{one[0]}={one[1]}" if isinstance(one, list) and len(one) == 2 else str(one) for one in value
            )
        else:
            text = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        pairs.append([_SETTINGS.get(key, _shown(key)), _shown(text)])
    return pairs


def _times(entry: Entry) -> list[Json]:
    pairs = [("started", entry.started), *((stage, seconds_text(seconds)) for stage, seconds in entry.seconds.items())]
    return [[_shown(key), _shown(value)] for key, value in (*pairs, ("onnxfix", entry.row.version)) if value]


def _texts(texts: Iterable[str]) -> list[Json]:
    return [_shown(text) for text in texts]


def _shown(text: str) -> str:
    return shown(text, keeps_lines=True)
