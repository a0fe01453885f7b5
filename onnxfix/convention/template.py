"""Name templates: how the labels of some axes are spelled in the names of tensors.

A hole is an axis in braces. `{layer}` stands for a number; `{kv}` and `{hc}` for the labels that these axes have
(`key`, `value`; `hidden`, `cell`); `{kv:k,v}` spells the labels its own way; `{kv=key}` fixes one label and spells it;
`{kv=key:}` and `{kv=key:k}` fix it and spell it differently (here: not at all, and `k`).

>>> template = parse_template("past.{layer}.{kv:k,v}")
>>> template.match("past.11.v")
{'layer': 11, 'kv': 1}
>>> template.format({"layer": 0, "kv": 0})
'past.0.k'
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from onnxfix.convention.layout import AXIS
from onnxfix.errors import LayoutError

LABELS: Mapping[str, tuple[str, ...]] = {"kv": ("key", "value"), "hc": ("hidden", "cell")}
"""The axes whose labels have names, in the order of their index."""

_HOLE = re.compile(r"\{([^{}]*)\}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_LABEL = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Hole:
    """One hole of a template.

    Attributes:
        axis: The axis whose label is spelled here.
        label: The index of the label that the hole is fixed to; None for any.
        spellings: How each label is written, by index; empty where labels are numbers. One where `label` is fixed.
    """

    axis: str
    label: int | None = None
    spellings: tuple[str, ...] = ()

    def spell(self, label: int) -> str:
        """Returns how a label is written."""
        if self.label is not None:
            return self.spellings[0]
        return self.spellings[label] if self.spellings else str(label)

    def read(self, name: str, start: int) -> Iterator[tuple[int, int]]:
        """Yields all labels that may stand in a name from `start` on, each with where it ends."""
        if self.label is not None:
            if name.startswith(self.spellings[0], start):
                yield self.label, start + len(self.spellings[0])
        elif self.spellings:
            for label, text in enumerate(self.spellings):
                if name.startswith(text, start):
                    yield label, start + len(text)
        elif digits := _NUMBER.match(name, start):
            for stop in range(start + 1, digits.end() + 1):
                yield int(name[start:stop]), stop


@dataclass(frozen=True)
class Template:
    """A name with holes.

    Attributes:
        text: The template as it was written.
        parts: Literal text and holes in order.
    """

    text: str
    parts: tuple[str | Hole, ...]

    def __str__(self) -> str:
        return self.text

    @property
    def holes(self) -> tuple[Hole, ...]:
        """The holes, in order."""
        return tuple(part for part in self.parts if isinstance(part, Hole))

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that are spread over names, fixed ones included, in order."""
        return tuple(dict.fromkeys(hole.axis for hole in self.holes))

    @property
    def fixed(self) -> dict[str, int]:
        """The axes that are fixed to one label."""
        return {hole.axis: hole.label for hole in self.holes if hole.label is not None}

    @cached_property
    def _ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What names begin and end with, to tell most of those that do not match at once."""
        first, last = (
            (part,) if isinstance(part, str) else part.spellings or ("",) for part in (self.parts[0], self.parts[-1])
        )
        return first, last

    def match(self, name: str) -> dict[str, int] | None:
        """Returns the label of each axis in `name`; None if the name is not of this form.

        Raises:
            LayoutError: The name can be read in several ways: `{layer}{head}` does not say what `111` is.
        """
        heads, tails = self._ends
        if not name.startswith(heads) or not name.endswith(tails):
            return None
        # Where the name may be read up to, with at most two ways to get there: so no name takes long.
        ends: dict[int, list[dict[str, int]]] = {0: [{}]}
        for part in self.parts:
            reached: dict[int, list[dict[str, int]]] = {}
            for start, readings in ends.items():
                for labels in readings:
                    for stop, more in _read(part, name, start, labels):
                        known = reached.setdefault(stop, [])
                        if len(known) < 2:
                            known.append(more)
            if not reached:
                return None
            ends = reached
        found = ends.get(len(name), [])
        if len(found) > 1:
            raise LayoutError(
                f"the name `{name}` can be read in several ways",
                text=self.text,
                span=(0, len(self.text)),
                hint="put text between the holes",
            )
        return found[0] if found else None

    def format(self, labels: Mapping[str, int]) -> str:
        """Returns the name for the given labels."""
        return "".join(part if isinstance(part, str) else part.spell(labels[part.axis]) for part in self.parts)


def _read(part: str | Hole, name: str, start: int, labels: dict[str, int]) -> Iterator[tuple[int, dict[str, int]]]:
    """Yields all ways to read one part of a template, each with where it ends and all labels until there."""
    if isinstance(part, str):
        if name.startswith(part, start):
            yield start + len(part), labels
        return
    for label, stop in part.read(name, start):
        if labels.get(part.axis, label) == label:
            yield stop, {**labels, part.axis: label}


def label_text(axis: str, label: int) -> str:
    """Returns the name of a label, for people: `key` for the first of `kv`, the number for others."""
    names = LABELS.get(axis, ())
    return names[label] if label < len(names) else str(label)


def parse_template(text: str, *, whole: str | None = None, offset: int = 0) -> Template:
    """Parses a name template.

    Args:
        text: The template.
        whole: The text that `text` was cut out of, for the caret in errors.
        offset: Where `text` begins in `whole`.

    Raises:
        LayoutError: A blank, a byte that is no text, a brace without its partner, no axis name in a hole, an unknown
            label, two labels spelled alike, an axis that is fixed to two labels.
    """
    whole = text if whole is None else whole
    if not text:
        raise LayoutError("a name is expected here", text=whole, span=(offset, offset + 1))
    check_braces(text, whole=whole, offset=offset)
    parts: list[str | Hole] = []
    fixed: dict[str, int | None] = {}
    end = 0
    for found in _HOLE.finditer(text):
        hole = _parse_hole(found[1], whole, offset + found.start(1))
        if fixed.setdefault(hole.axis, hole.label) != hole.label:
            span = (offset + found.start(), offset + found.end())
            raise LayoutError(f"two holes say different things of `{hole.axis}`", text=whole, span=span)
        parts += [text[end : found.start()], hole]
        end = found.end()
    parts.append(text[end:])
    if blank := re.search(r"\s", _HOLE.sub(_blot, text)):
        span = (offset + blank.start(), offset + blank.end())
        hint = "a sentence is NAME: LAYOUT or PAST -> PRESENT: LAYOUT"
        raise LayoutError("a name has no blanks", text=whole, span=span, hint=hint)
    if odd := re.search("[\0\ud800-\udfff]", text):
        span = (offset + odd.start(), offset + odd.end())
        raise LayoutError("a name is Unicode text", text=whole, span=span, hint="this is no UTF-8")
    return Template(text, tuple(part for part in parts if part != ""))


def check_braces(text: str, *, whole: str, offset: int) -> None:
    """Checks that every brace has its partner, and that holes do not nest.

    Raises:
        LayoutError: One has none.
    """
    for index, letter in enumerate(_HOLE.sub(_blot, text)):
        if letter in "{}":
            raise LayoutError("this brace has no partner", text=whole, span=(offset + index, offset + index + 1))


def _blot(found: re.Match[str]) -> str:
    return "_" * len(found[0])


def _parse_hole(text: str, whole: str, offset: int) -> Hole:
    span = (offset, offset + max(1, len(text)))
    head, colon, tail = text.partition(":")
    axis, equals, label = (part.strip() for part in head.partition("="))
    if not AXIS.fullmatch(axis):
        hint = "for example {layer}, {kv:k,v} or {kv=key}"
        raise LayoutError("a hole begins with the name of an axis", text=whole, span=span, hint=hint)
    spellings = tuple(part.strip() for part in tail.split(",")) if colon else ()
    if any(re.search(r"\s", spelling) for spelling in spellings):
        raise LayoutError("a name has no blanks", text=whole, span=span)
    names = LABELS.get(axis, ())
    if not equals:
        if colon and (len(spellings) < 2 or len(set(spellings)) < len(spellings)):
            raise LayoutError("a hole lists at least two spellings, all different", text=whole, span=span)
        if colon and names and len(spellings) != len(names):
            message = f"`{axis}` has {len(names)} labels ({', '.join(names)}), here are {len(spellings)} spellings"
            raise LayoutError(message, text=whole, span=span)
        return Hole(axis, None, spellings or names)
    if not names and not _LABEL.fullmatch(label):
        raise LayoutError(f"the labels of `{axis}` are numbers", text=whole, span=span)
    if names and label not in names:
        known = " and ".join(f"`{name}`" for name in names)
        raise LayoutError(f"`{axis}` has the labels {known}", text=whole, span=span)
    if len(spellings) > 1:
        raise LayoutError("a fixed label has one spelling", text=whole, span=span)
    return Hole(axis, names.index(label) if names else int(label), spellings or (label,))
