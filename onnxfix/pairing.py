"""Which input of a model is handed on by which output: from names, from dims, and from what flows where."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from onnxfix.convention.signature import Port, Signature
from onnxfix.model.flow import Flow, Update, dependencies
from onnxfix.model.model import Model

_SIDES = frozenset((
    "past", "present", "new", "next", "prev", "previous", "updated", "old", "r", "cur", "current", "ret", "retained",
    "state", "states", "cache", "caches", "mem", "mems", "memory", "lstm", "gru", "rnn",
))  # fmt: skip
"""Words that say that a port is a state, or on which side of one it stands."""
_NOUNS = frozenset(("state", "states", "cache", "caches"))
_CELLS = frozenset(("h", "hn", "hidden", "c", "cn", "cell"))
_ENDS = frozenset(("in", "out", "input", "output", "inputs", "outputs", "this", "n"))
"""Words that any input or output may have."""
_SPELLINGS = {
    "k": "key",
    "keys": "key",
    "v": "value",
    "values": "value",
    "h": "hidden",
    "hn": "hidden",
    "c": "cell",
    "cn": "cell",
}
_NAMES, _FLOW, _ENDINGS, _NUMBERS, _DIMS = 8, 6, 4, 3, 1
_LEAST = 6


@dataclass(frozen=True)
class Pair:
    """An input and the output that feeds it at the next call.

    Attributes:
        past, present: The ports.
        score: How much speaks for it.
        reasons: What does; empty where only dims and the order of the ports are left.
        axis: The axis that grows or moves; None where that is not known.
        update: How the present follows from the past, as far as the graph shows it; empty where it does not.
    """

    past: Port
    present: Port
    score: int
    reasons: tuple[str, ...]
    axis: int | None
    update: str


def state_pairs(model: Model) -> list[Pair]:
    """Returns the states of a model, in the order of its inputs."""
    return _Pairing(model).pairs()


def tokens_of(name: str) -> list[str]:
    """Returns the words and numbers of a name: `encoder.kCache_3` is encoder, k, Cache, 3."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)


class _Pairing:
    def __init__(self, model: Model) -> None:
        self.signature: Signature = model.signature()
        self.flow = Flow(model.proto.graph)
        self.depends = dependencies(model.proto.graph)
        self.updates = {port.name: self.flow.updates(port.name, port.rank or 0) for port in self.signature.inputs}
        self.origins = {port.name: self.flow.origins(port.name) for port in self.signature.outputs}
        self.words = {port.name: words_of(port.name) for port in (*self.signature.inputs, *self.signature.outputs)}

    def pairs(self) -> list[Pair]:
        found = [pair for past, present in self._candidates() if (pair := self._judge(past, present)).score >= _LEAST]
        places = {port.name: index for index, port in enumerate(self.signature.inputs)}
        ends = {port.name: index for index, port in enumerate(self.signature.outputs)}
        found.sort(key=lambda pair: (-pair.score, places[pair.past.name], ends[pair.present.name]))
        taken: set[str] = set()
        given: set[str] = set()
        chosen = []
        for pair in found:
            if pair.past.name not in taken and pair.present.name not in given:
                taken.add(pair.past.name)
                given.add(pair.present.name)
                chosen.append(pair)
        chosen += self._leftovers(taken, given)
        return sorted(chosen, key=lambda pair: places[pair.past.name])

    def _leftovers(self, taken: Collection[str], given: Collection[str]) -> list[Pair]:
        """Returns states that nothing but their names on one side, their dims and their order tell."""
        found = []
        pasts = [port for port in self.signature.inputs if port.name not in taken and _is_marked(port.name)]
        for kind in dict.fromkeys((port.dtype, port.dims) for port in pasts):
            mine = [port for port in pasts if (port.dtype, port.dims) == kind]
            theirs = [port for port in self.signature.outputs if port.name not in given and _follows(mine[0], port)]
            if len(mine) == len(theirs) and all(
                past.name in self.depends[present.name] for past, present in zip(mine, theirs, strict=True)
            ):
                found += [Pair(*ports, 0, (), None, "") for ports in zip(mine, theirs, strict=True)]
        return found

    def _candidates(self) -> Iterator[tuple[Port, Port]]:
        """Yields the pairs that names or the graph speak for: nothing else is enough."""
        by_words: dict[tuple[str, ...], list[Port]] = {}
        by_value: dict[str, list[Port]] = {}
        for port in self.signature.outputs:
            by_words.setdefault(self.words[port.name], []).append(port)
            for value in self.origins[port.name]:
                by_value.setdefault(value, []).append(port)
        for past in self.signature.inputs:
            values = (past.name, *(update.value for update in self.updates[past.name]))
            reached = (port for value in values for port in by_value.get(value, ()))
            for present in dict.fromkeys((*by_words.get(self.words[past.name], ()), *reached)):
                if _fits(past, present) and past.name in self.depends[present.name]:
                    yield past, present

    def _judge(self, past: Port, present: Port) -> Pair:
        words, numbers = self.words[past.name], _numbers(past.name)
        places = [update for update in self.updates[past.name] if update.value in self.origins[present.name]]
        is_kept = past.dims == present.dims and past.name in self.origins[present.name] and not self.updates[past.name]
        names = 0
        is_noun = all(_has_word(port.name, _NOUNS) for port in (past, present)) and numbers == _numbers(present.name)
        is_named = is_noun or any(not word.isdecimal() for word in words)
        if is_named and words == self.words[present.name]:
            names = _NAMES if _is_marked(past.name) or _is_marked(present.name) else _ENDINGS
        reasons = {
            "names": names,
            "flow": _FLOW if places or is_kept else 0,
            "numbers": _NUMBERS if numbers and numbers == _numbers(present.name) else 0,
        }
        alike = past.dims == present.dims or len(_differing(past, present)) == 1
        score = sum(reasons.values()) + (_DIMS if alike else 0)
        axis = self._axis(past, present, places)
        update = "fixed" if is_kept else _update_rule(past, present, places, axis)
        return Pair(past, present, score, tuple(key for key, points in reasons.items() if points), axis, update)

    def _axis(self, past: Port, present: Port, places: Iterable[Update]) -> int | None:
        if any(place.op_type in ("LSTM", "GRU", "RNN") for place in places):
            return None
        found = [place.axis for place in places if place.axis is not None]
        differing = _differing(past, present)
        if found:
            return found[0]
        return differing[0] if len(differing) == 1 else None


def words_of(name: str) -> tuple[str, ...]:
    """Returns what of a name is the same on both sides of a state."""
    name = re.sub(r"(?i)key_values?(?=[._/]?\d)|past_key_values?|RetainedState", "_", name)
    tokens = [token.lower() for token in tokens_of(name)]
    return tuple(_SPELLINGS.get(token, token) for token in tokens if token not in _SIDES | _ENDS)


def _is_marked(name: str) -> bool:
    return _has_word(name, _SIDES | _CELLS)


def _has_word(name: str, words: frozenset[str]) -> bool:
    return any(token.lower() in words for token in tokens_of(name))


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _differing(past: Port, present: Port) -> list[int]:
    """Returns the axes in which the dims differ; a name that an exporter made up for a dim says nothing."""
    pairs = zip(past.dims or (), present.dims or (), strict=False)
    made_up = f"{present.name}_dim_"
    return [
        index
        for index, (one, other) in enumerate(pairs)
        if one != other and not (isinstance(other, str) and made_up in other)
    ]


def _fits(past: Port, present: Port) -> bool:
    """Whether one may follow from the other: same type and rank, and sizes that differ in one axis at most."""
    if past.dtype != present.dtype or past.rank is None or past.rank != present.rank:
        return False
    sizes = [
        index
        for index in _differing(past, present)
        if isinstance((past.dims or ())[index], int) and isinstance((present.dims or ())[index], int)
    ]
    return len(sizes) <= 1


def _follows(past: Port, present: Port) -> bool:
    return _fits(past, present) and not _differing(past, present)


def _update_rule(past: Port, present: Port, places: Iterable[Update], axis: int | None) -> str:
    kinds = {place.op_type for place in places}
    if kinds & {"TensorScatter", "ScatterND", "ScatterElements"}:
        return "in-place"
    if "Concat" not in kinds or axis is None or past.dims is None or present.dims is None:
        return ""
    before, after = past.dims[axis], present.dims[axis]
    if isinstance(before, int) and before == after:
        return "window"
    # A length with a least or a greatest value is no plain sum.
    return "append" if axis in _differing(past, present) and not re.search("Min|Max|min|max", str(after)) else ""
