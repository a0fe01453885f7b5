"""From names to templates: which parts of the names of tensors count layers, or tell keys from values.

>>> family = families(["k_0", "v_0", "k_1", "v_1"], ["cat", "cat_1", "cat_2", "cat_3"])[0]
>>> family.labels[3], family.past.text(), family.present
({'kv': 1, 'layer': 1}, '{kv:k,v}_{layer}', None)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxfix.convention.template import LABELS

_PIECE = re.compile(r"(\d+|[A-Za-z]+)")
_NUMBER = re.compile(r"0|[1-9]\d{0,8}")
_WORDS: Mapping[str, tuple[str, int]] = {
    **dict.fromkeys(("k", "key", "keys"), ("kv", 0)),
    **dict.fromkeys(("v", "value", "values"), ("kv", 1)),
    **dict.fromkeys(("h", "hn", "hidden"), ("hc", 0)),
    **dict.fromkeys(("c", "cn", "cell"), ("hc", 1)),
}
"""Words that tell a label: the axis and the label's index."""

Labels = Mapping[str, int]


@dataclass(frozen=True)
class Pattern:
    """What several names have in common.

    Attributes:
        pieces: The pieces of the first name.
        holes: The axis that each other piece counts, by its place.
        spellings: How the labels of an axis are written there, by place; empty for numbers.
    """

    pieces: tuple[str, ...]
    holes: Mapping[int, str]
    spellings: Mapping[int, tuple[str, ...]]

    def text(self, fixed: Labels | None = None) -> str:
        """Returns the template; axes in `fixed` are fixed to one label."""
        return "".join(self._piece(place, piece, fixed or {}) for place, piece in enumerate(self.pieces))

    def _piece(self, place: int, piece: str, fixed: Labels) -> str:
        axis = self.holes.get(place)
        if axis is None:
            return piece
        spellings = self.spellings.get(place, ())
        if axis in fixed:
            return f"{{{axis}={LABELS[axis][fixed[axis]]}:{spellings[fixed[axis]]}}}"
        return f"{{{axis}}}" if spellings in ((), LABELS.get(axis)) else f"{{{axis}:{','.join(spellings)}}}"


@dataclass(frozen=True)
class Family:
    """States whose names differ in labels alone.

    Attributes:
        members: Their places among all states.
        labels: The labels of each member.
        past, present: The common pattern of their names; None where there is none that says the same labels.
    """

    members: tuple[int, ...]
    labels: tuple[Labels, ...]
    past: Pattern | None
    present: Pattern | None


def families(pasts: Sequence[str], presents: Sequence[str], kinds: Sequence[object] = ()) -> list[Family]:
    """Returns the families of states, in the order of their first members.

    Args:
        pasts: The names of the inputs.
        presents: The names of the outputs, in the same order.
        kinds: What members of one family have in common besides, such as the rank.
    """
    groups: dict[object, list[int]] = {}
    for index, name in enumerate(pasts):
        groups.setdefault((_shape(name), kinds[index] if kinds else None), []).append(index)
    found = [family for members in groups.values() for family in _families(members, pasts, presents)]
    return sorted(found, key=lambda family: family.members[0])


def _families(members: Sequence[int], pasts: Sequence[str], presents: Sequence[str]) -> list[Family]:
    names = [pasts[index] for index in members]
    columns = _columns(names)
    if len(members) == 1 or columns is None:
        return [_alone(index, pasts, presents) for index in members]
    axes = _axes(columns, _PIECE.split(names[0]))
    if any(columns[place] != columns[other] for place in axes for other in axes if axes[place] == axes[other] != ""):
        return [_alone(index, pasts, presents) for index in members]
    if other := next((place for place, axis in axes.items() if not axis), None):
        return _split(members, columns[other], pasts, presents)
    labels = [{axis: columns[place][row] for place, axis in axes.items()} for row in range(len(members))]
    if _is_whole(labels):
        past = _pattern(names, axes)
        present = _present_pattern([presents[index] for index in members], labels)
        return [Family(tuple(members), tuple(labels), past, present if past else None)]
    return _split(members, columns[next(iter(axes))], pasts, presents)


def _split(
    members: Sequence[int], column: Sequence[int], pasts: Sequence[str], presents: Sequence[str]
) -> list[Family]:
    """Returns the families of each label apart: several things in one layer, or stacks of different depth."""
    parts = [[members[row] for row, label in enumerate(column) if label == wanted] for wanted in sorted(set(column))]
    return [family for part in parts for family in _families(part, pasts, presents)]


def _alone(index: int, pasts: Sequence[str], presents: Sequence[str]) -> Family:
    past, present = (Pattern(tuple(_PIECE.split(names[index])), {}, {}) for names in (pasts, presents))
    return Family((index,), ({},), past, present)


def _shape(name: str) -> tuple[str, ...]:
    return tuple("#" if piece.isdecimal() else _word(piece)[0] or piece for piece in _PIECE.split(name))


def _word(piece: str) -> tuple[str, int]:
    return _WORDS.get(piece.lower(), ("", 0))


def _columns(names: Sequence[str]) -> dict[int, list[int]] | None:
    """Returns the labels at every place where names of one shape differ; None where these are no labels."""
    columns: dict[int, list[int]] = {}
    for place, pieces in enumerate(zip(*(_PIECE.split(name) for name in names), strict=True)):
        if len(set(pieces)) == 1:
            continue
        if pieces[0].isdecimal():
            if not all(_NUMBER.fullmatch(piece) for piece in pieces):
                return None
            columns[place] = [int(piece) for piece in pieces]
        else:
            columns[place] = [_word(piece)[1] for piece in pieces]
    return columns


def _axes(columns: Mapping[int, Sequence[int]], pieces: Sequence[str]) -> dict[int, str]:
    """Returns the axis that each column counts; numbers that are no layers get an empty name."""
    numbers = [place for place in columns if pieces[place].isdecimal()]
    told = [place for place in numbers if re.search("(?i)(layer|block)s?[^A-Za-z]?$", "".join(pieces[:place]))]
    layers = columns[(told or numbers)[-1 if not told else 0]] if numbers else []
    return {
        place: _word(pieces[place])[0] if place not in numbers else "layer" if columns[place] == layers else ""
        for place in columns
    }


def _is_whole(labels: Sequence[Labels]) -> bool:
    """Whether every combination of labels stands there once."""
    rows = {tuple(row.items()) for row in labels}
    sizes = [len({row[axis] for row in labels}) for axis in labels[0]]
    return len(rows) == len(labels) == math.prod(sizes)


def _pattern(names: Sequence[str], axes: Mapping[int, str]) -> Pattern | None:
    spellings: dict[int, tuple[str, ...]] = {}
    rows = [_PIECE.split(name) for name in names]
    for place in axes:
        if not rows[0][place].isdecimal():
            written = {_word(row[place])[1]: row[place] for row in rows}
            if len({row[place] for row in rows}) != len(written):
                return None
            spellings[place] = tuple(written[label] for label in sorted(written))
    return Pattern(tuple(rows[0]), dict(axes), spellings)


def _present_pattern(names: Sequence[str], labels: Sequence[Labels]) -> Pattern | None:
    """Returns the pattern of the outputs, if it says exactly the labels that the inputs have."""
    if len({_shape(name) for name in names}) > 1 or (columns := _columns(names)) is None:
        return None
    axes: dict[int, str] = {}
    for place, column in columns.items():
        wanted = (axis for axis in labels[0] if [row[axis] for row in labels] == column)
        axis = next(wanted, None)
        if axis is None:
            return None
        axes[place] = axis
    return _pattern(names, axes) if set(axes.values()) == set(labels[0]) else None
