"""A convention for a model that speaks no known one: its states, templates for their names, a guess at their axes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxfix.convention.convention import CacheSpec, Convention, TensorSpec, cache_from_specs, parse_tensor
from onnxfix.convention.guess import Axes
from onnxfix.convention.induction import Family, Labels, Pattern, families
from onnxfix.convention.layout import parse_layout
from onnxfix.convention.signature import Dim, Signature
from onnxfix.convention.template import LABELS, parse_template
from onnxfix.errors import DetectError, OnnxfixError
from onnxfix.pairing import Pair, state_pairs, words_of

if TYPE_CHECKING:
    from onnxfix.request import Source

_HEAD = """\
# What onnxfix makes of the ports of a model that it does not know. Which port feeds which, and their names, hold for
# renaming as they stand. For anything else look at the axes that are guesses: dims cannot tell heads from layers, nor
# whether keys come before values. Then: onnxfix convert MODEL NEW --from THIS.toml --to NAME
"""


@dataclass(frozen=True)
class Proposal:
    """A convention to be looked at.

    Attributes:
        convention: The convention; the model binds to it.
        known: The convention of the library that the model speaks; None where all is inferred.
        remarks: What to look at, by the place of the cache.
    """

    convention: Convention
    known: str | None
    remarks: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        """The convention as TOML, with the remarks as comments."""
        from onnxfix.convention.writing import to_toml

        if self.known is not None:
            return f"# The model speaks `{self.known}`; nothing here is a guess.\n{to_toml(self.convention)}"
        first, *caches = to_toml(self.convention).split("[[cache]]\n")
        blocks = [
            "".join(f"# {remark}\n" for remark in remarks) + "[[cache]]\n" + cache
            for remarks, cache in zip(self.remarks, caches, strict=True)
        ]
        return _HEAD + first + "".join(blocks)


def propose(source: Source, *, name: str = "mine") -> Proposal:
    """Proposes a convention for a model, without reading its weights.

    Args:
        source: A file, or a model in memory.
        name: What to call the convention.

    Raises:
        ModelError: The file cannot be read, or a data file is missing.
        DetectError: Nothing in the model looks like a state, or it speaks a convention that is refused.
    """
    from onnxfix.convention.binding import bind
    from onnxfix.convention.detect import detect
    from onnxfix.request import open_model
    from onnxfix.verify.roles import known_inputs, known_outputs

    model = open_model(source)
    signature = model.signature()
    detection = detect(signature)
    if detection.refused is not None:
        detection.choose()
    if detection.best is not None:
        known = detection.best.binding.convention
        return Proposal(replace(known, name=name, successor=None), known.name, ())
    pairs = [pair for pair in state_pairs(model) if _can_be_said(pair)]
    if not pairs:
        hint = "describe what is to be moved: --from 'PAST -> PRESENT: LAYOUT'"
        raise DetectError("no output of the model looks like an input of the next call", where=model.name, hint=hint)
    found = families(
        [pair.past.name for pair in pairs],
        [pair.present.name for pair in pairs],
        [(pair.past.dtype, pair.past.rank) for pair in pairs],
    )
    caches: list[CacheSpec] = []
    remarks: list[tuple[str, ...]] = []
    for family in found:
        cache, told = _Cache(family, pairs, signature).spec([one.name for one in caches])
        caches.append(cache)
        remarks.append(tuple(told))
    convention = Convention(name, "", "", tuple(caches))
    binding = bind(convention, signature)
    # What namesakes say of dims and of what may lack is theirs alone.
    inputs = tuple(replace(port.spec, dims={}, optional=False) for port in known_inputs(binding).values())
    outputs = tuple(replace(port.spec, dims={}, optional=False) for port in known_outputs(binding).values())
    convention = replace(convention, inputs=inputs, outputs=outputs)
    try:
        bind(convention, signature)
    except OnnxfixError:
        convention = replace(convention, inputs=(), outputs=())
    return Proposal(convention, None, tuple(remarks))


def _can_be_said(pair: Pair) -> bool:
    """Whether the names can stand in a sentence."""
    return not re.search(r"[\s{}]|->", pair.past.name + pair.present.name)


class _Cache:
    """One cache in the making."""

    def __init__(self, family: Family, pairs: Sequence[Pair], signature: Signature) -> None:
        self.family = family
        self.signature = signature
        self.pairs = [pairs[index] for index in family.members]
        states = {pair.past.name for pair in pairs}
        ports = [port for port in signature.inputs if port.name not in states]
        firsts = {port.dims[0] for port in ports if port.dims}
        # A number is only believed if all agree on it.
        self.batches = {dim for dim in firsts if isinstance(dim, str) or len(firsts) == 1}
        self.guesses: dict[str, None] = {}

    def spec(self, taken: Collection[str]) -> tuple[CacheSpec, list[str]]:
        """Returns the cache, and what to look at."""
        updates = {pair.update for pair in self.pairs}
        update = next(iter(updates)) or None if len(updates) == 1 else None
        past, present = self._tensors()
        cache = cache_from_specs(self._name(taken), past, present, where="proposal", update=update)
        return cache, [*self._found_by(), *self._looks()]

    def _tensors(self) -> tuple[list[TensorSpec], list[TensorSpec]]:
        family = self.family
        if family.past is None or family.present is None or self._is_too_wide(family.past, family.present):
            layouts = self._agreed([[pair] for pair in self.pairs])
            suffixes = ["".join(_fixed_hole(axis, label) for axis, label in row.items()) for row in family.labels]
            rows = list(zip(self.pairs, suffixes, layouts, strict=True))
            return (
                [parse_tensor(f"{pair.past.name}{suffix}: {layout}") for pair, suffix, layout in rows],
                [parse_tensor(f"{pair.present.name}{suffix}: {layout}") for pair, suffix, layout in rows],
            )
        # Keys may lie otherwise than values.
        axis = next((axis for axis in ("kv", "hc") if axis in family.labels[0]), None)
        parts: list[tuple[Labels, list[Pair]]] = [({}, self.pairs)]
        if axis is not None:
            rows_of = {
                label: [p for p, row in zip(self.pairs, family.labels, strict=True) if row[axis] == label]
                for label in (0, 1)
            }
            if len(set(self._agreed([rows_of[0], rows_of[1]]))) > 1:
                parts = [({axis: label}, rows_of[label]) for label in (0, 1)]
        layouts = self._agreed([pairs for _, pairs in parts])
        return (
            [parse_tensor(f"{family.past.text(part[0])}: {text}") for part, text in zip(parts, layouts, strict=True)],
            [
                parse_tensor(f"{family.present.text(part[0])}: {text}")
                for part, text in zip(parts, layouts, strict=True)
            ],
        )

    def _agreed(self, parts: Sequence[Sequence[Pair]]) -> list[str]:
        """Returns a layout for each part; one for all where they would not have the same axes."""
        self.guesses.clear()
        layouts = [self._layout(pairs) for pairs in parts]
        if len({frozenset(parse_layout(layout).axes) for layout in layouts}) > 1:
            self.guesses.clear()
            layouts = [self._layout(self.pairs)] * len(parts)
        return layouts

    def _is_too_wide(self, past: Pattern, present: Pattern) -> bool:
        """Whether the templates take names of ports that are none of the cache."""
        own = {port.name for pair in self.pairs for port in (pair.past, pair.present)}
        sides = ((past, self.signature.inputs), (present, self.signature.outputs))
        return any(
            parse_template(pattern.text()).match(port.name) is not None
            for pattern, ports in sides
            for port in ports
            if port.name not in own
        )

    def _layout(self, pairs: Sequence[Pair]) -> str:
        """Returns a layout for states that lie alike."""
        dims: list[list[Dim]] = [list(pair.past.dims or ()) for pair in pairs]
        # Exporters make up names for the dims of outputs; their numbers are as good as those of inputs.
        for pair in pairs:
            row = zip(pair.past.dims or (), pair.present.dims or (), strict=True)
            dims.append([after if isinstance(after, int) else before for before, after in row])
        columns = [tuple(dict.fromkeys(column)) for column in zip(*dims, strict=True)]
        axes = Axes(columns, set(self.family.labels[0]))
        known = {pair.axis for pair in pairs}
        axes.name(self.batches, next(iter(known)) if len(known) == 1 else None)
        self.guesses.update(dict.fromkeys(axes.guesses))
        return " ".join(axes.names)

    def _name(self, taken: Collection[str]) -> str:
        words = [word for word in words_of(self.pairs[0].past.name) if not word.isdecimal()]
        if set(self.family.labels[0]) & LABELS.keys():
            words = [word for word in words if word not in {label for names in LABELS.values() for label in names}]
        name = "_".join(words) or "cache"
        number = 2
        while name in taken:
            name = f"{name.rstrip('0123456789')}{number}"
            number += 1
        return name

    def _found_by(self) -> list[str]:
        """Returns how the pairs were found, with those that nothing but their numbers speak for."""
        kinds = {"names": "their names", "flow": "what flows where in the graph"}
        reasons = [kinds[kind] for kind in kinds if all(kind in pair.reasons for pair in self.pairs)]
        weak = [pair for pair in self.pairs if not {"names", "flow"} & set(pair.reasons)]
        lines = [f"Past and present found by {' and '.join(reasons)}."] if reasons else []
        return lines + [
            f"Check: {pair.past.name} -> {pair.present.name} is told by numbers, dims and order alone."
            for pair in weak[:8]
        ]

    def _looks(self) -> list[str]:
        sizes = ", ".join(_dims_text(pair.past.dims or ()) for pair in self.pairs[:1])
        guesses = " ".join(self.guesses)
        return [f"Guesses: {guesses} (the dims are {sizes})."] if guesses else []


def _fixed_hole(axis: str, label: int) -> str:
    return f"{{{axis}={LABELS[axis][label] if axis in LABELS else label}:}}"


def _dims_text(dims: Sequence[Dim]) -> str:
    from onnxfix.convention.layout import show_dims

    return show_dims(tuple(dims))
