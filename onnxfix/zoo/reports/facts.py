"""What the journal has of a conversion, as types; whatever an older onnxfix wrote otherwise is taken as not told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnxfix.report import copied_text
from onnxfix.zoo.outcome import Outcome, Refused, Verified


@dataclass(frozen=True)
class PortFact:
    """A port: its name, and its type and dims in words."""

    name: str
    kind: str


@dataclass(frozen=True)
class OutputFact:
    """An output that was compared.

    Attributes:
        name: The port.
        is_state: Whether it is a cache.
        run: How the caches were at first, and what it ran on.
        values, mismatched: How many pairs were compared, and how many of them differed.
        maxima: The largest absolute difference of each tick.
    """

    name: str
    is_state: bool
    run: str
    values: int
    mismatched: int
    maxima: tuple[float, ...]


@dataclass(frozen=True)
class ProofFact:
    """What was compared; see `onnxfix.verify.report.VerifyReport`."""

    ticks: int
    values: int
    is_exact: bool
    max_abs: float
    how: tuple[str, ...]
    fed: tuple[str, ...]
    observable: int
    hidden: tuple[str, ...]
    notes: tuple[str, ...]
    outputs: tuple[OutputFact, ...]


@dataclass(frozen=True)
class Facts:
    """What a conversion did; see `onnxfix.report.ConversionReport`.

    Attributes:
        inputs, outputs: The ports before and after.
        plan: What was to be done, in words.
        nodes: How many nodes the graph had, by station.
        copied: How many bytes of the caches are copied per step, by station, in words.
        cancelled: How often something was cancelled, by operator.
        kept: Why adapters stayed.
        notes: What the user should know.
        proof: What was compared; None where nothing was.
    """

    inputs: tuple[tuple[PortFact, ...], tuple[PortFact, ...]]
    outputs: tuple[tuple[PortFact, ...], tuple[PortFact, ...]]
    plan: tuple[str, ...]
    nodes: Mapping[str, int]
    copied: Mapping[str, str]
    cancelled: Mapping[str, int]
    kept: tuple[str, ...]
    notes: tuple[str, ...]
    proof: ProofFact | None


def facts_told(outcome: Outcome | None) -> Facts:
    """Returns what the journal has of a conversion, as far as it has it."""
    told = _mapping(getattr(outcome, "facts", None))
    proof = told if isinstance(outcome, Refused | Verified) else _mapping(told.get("proof"))
    before, after = _mapping(told.get("before")), _mapping(told.get("after"))
    return Facts(
        (_ports(before.get("inputs")), _ports(after.get("inputs"))),
        (_ports(before.get("outputs")), _ports(after.get("outputs"))),
        _texts(told.get("plan")),
        _counts(told.get("nodes")),
        {name: copied_text(_terms(terms)) for name, terms in _mapping(told.get("copied_per_step")).items()},
        _counts(told.get("cancelled")),
        _texts(told.get("refused")),
        _texts(told.get("notes")) if "plan" in told else (),
        _proof(proof) if proof.get("runs") else None,
    )


def _proof(told: Mapping[str, object]) -> ProofFact:
    runs = [_mapping(run) for run in _items(told.get("runs"))]
    starts = dict.fromkeys(str(run.get("start")) for run in runs)
    providers = dict.fromkeys(str(run.get("provider")) for run in runs)
    how = (
        str(told.get("mode", "")), f"first caches {' and '.join(starts)}", f"seed {_count(told.get('seed'))}",
        f"on {', '.join(providers)}", "optimised" if told.get("optimized") else "optimisations off",
    )  # fmt: skip
    return ProofFact(
        _count(told.get("ticks")),
        _count(told.get("values")),
        bool(told.get("exact")),
        _difference(told.get("max_abs")),
        tuple(word for word in how if word),
        tuple(name if name == kind else f"{name}: {kind}" for name, kind in _mapping(told.get("fed")).items()),
        len(_items(told.get("observable"))),
        _texts(told.get("not_observable")),
        _texts(told.get("notes")),
        tuple(one for run in runs for one in _outputs(run, len(starts) > 1, len(providers) > 1)),
    )


def _outputs(run: Mapping[str, object], has_starts: bool, has_providers: bool) -> Iterator[OutputFact]:
    words = [f"{run.get('start')} start"] if has_starts else []
    label = ", ".join([*words, str(run.get("provider"))] if has_providers else words)
    for port in map(_mapping, _items(run.get("ports"))):
        yield OutputFact(
            str(port.get("name", "")), bool(port.get("is_state")), label, _count(port.get("values")),
            _count(port.get("mismatched")), _maxima(_items(port.get("max_abs"))),
        )  # fmt: skip


def _maxima(told: list[object]) -> tuple[float, ...]:
    is_equal = told.count(0) == len(told)  # so are most outputs of most models
    return (0.0,) * len(told) if is_equal else tuple(map(_difference, told))


def _ports(told: object) -> tuple[PortFact, ...]:
    ports = []
    for port in map(_mapping, _items(told)):
        dims = port.get("dims")
        shape = f" [{', '.join('?' if dim is None else str(dim) for dim in dims)}]" if isinstance(dims, list) else ""
        ports.append(PortFact(str(port.get("name", "")), f"{port.get('dtype') or '?'}{shape}"))
    return tuple(ports)


def _terms(told: object) -> dict[tuple[str, ...], int]:
    terms = [_mapping(term) for term in _items(told)]
    return {_texts(term.get("times")): _count(term.get("bytes")) for term in terms}


def _mapping(told: object) -> Mapping[str, object]:
    return told if isinstance(told, dict) else {}


def _items(told: object) -> list[object]:
    return told if isinstance(told, list) else []


def _texts(told: object) -> tuple[str, ...]:
    return tuple(map(str, _items(told)))


def _counts(told: object) -> Mapping[str, int]:
    return {name: _count(count) for name, count in _mapping(told).items()}


def _count(told: object) -> int:
    return told if isinstance(told, int) else 0


def _difference(told: object) -> float:
    """Returns a difference; JSON knows no infinite one, and has `null`."""
    return float(told) if isinstance(told, int | float) else math.inf
