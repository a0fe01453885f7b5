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
from collections.abc import Mapping
from dataclasses import dataclass

from onnxfix.convention.layout import AXIS
from onnxfix.errors import LayoutError

LABELS: Mapping[str, tuple[str, ...]] = {"kv": ("key", "value"), "hc": ("hidden", "cell")}
"""The axes whose labels have names, in the order of their index."""

_HOLE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Hole:
    """One hole of a template.

    Attributes:
        axis: The axis whose label is spelled here.
        label: The index of the label that the hole is fixed to; None for any.
        spellings: How each label is written, by index; empty where labels are numbers.
    """

    axis: str
    label: int | None = None
    spellings: tuple[str, ...] = ()


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

    @property
    def literal(self) -> str:
        """The text outside of all holes."""
        return "".join(part for part in self.parts if isinstance(part, str))

    def match(self, name: str) -> dict[str, int] | None:
        """Returns the label of each axis in `name`; None if the name is not of this form."""
        found = re.fullmatch("".join(_pattern(part) for part in self.parts), name)
        if found is None:
            return None
        labels: dict[str, int] = {}
        for hole, text in zip(self.holes, found.groups(), strict=True):
            label = _read(hole, text)
            if labels.setdefault(hole.axis, label) != label:
                return None
        return labels

    def format(self, labels: Mapping[str, int]) -> str:
        """Returns the name for the given labels."""
        return "".join(part if isinstance(part, str) else _write(part, labels[part.axis]) for part in self.parts)


def _pattern(part: str | Hole) -> str:
    if isinstance(part, str):
        return re.escape(part)
    if part.label is not None:
        return f"({re.escape(_write(part, part.label))})"
    if part.spellings:
        return f"({'|'.join(re.escape(text) for text in sorted(part.spellings, key=len, reverse=True))})"
    return "(0|[1-9][0-9]*)"


def _read(hole: Hole, text: str) -> int:
    if hole.label is not None:
        return hole.label
    return hole.spellings.index(text) if hole.spellings else int(text)


def _write(hole: Hole, label: int) -> str:
    if hole.label is not None:
        return hole.spellings[0] if hole.spellings else str(hole.label)
    return hole.spellings[label] if hole.spellings else str(label)


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
        LayoutError: A brace without its partner, no axis name in a hole, an unknown label, two labels spelled alike.
    """
    whole = text if whole is None else whole
    if not text:
        raise LayoutError("a name is expected here", text=whole, span=(offset, offset + 1))
    parts: list[str | Hole] = []
    end = 0
    for found in _HOLE.finditer(text):
        parts += [text[end : found.start()], _parse_hole(found[1], whole, offset + found.start(1))]
        end = found.end()
    parts.append(text[end:])
    for index, letter in enumerate(_HOLE.sub(lambda found: " " * len(found[0]), text)):
        if letter in "{}":
            raise LayoutError("this brace has no partner", text=whole, span=(offset + index, offset + index + 1))
    return Template(text, tuple(part for part in parts if part != ""))


def _parse_hole(text: str, whole: str, offset: int) -> Hole:
    span = (offset, offset + max(1, len(text)))
    head, colon, tail = text.partition(":")
    axis, equals, label = head.partition("=")
    if not AXIS.fullmatch(axis):
        raise LayoutError(
            "a hole begins with the name of an axis", text=whole, span=span, hint="for example {layer} or {kv=key}"
        )
    spellings = tuple(tail.split(",")) if colon else ()
    if not equals:
        spellings = spellings or LABELS.get(axis, ())
        if len(set(spellings)) != len(spellings) or (colon and len(spellings) < 2):
            raise LayoutError("a hole lists at least two spellings, all different", text=whole, span=span)
        return Hole(axis, None, spellings)
    names = LABELS.get(axis)
    if names is None and not label.isdecimal():
        raise LayoutError(f"the labels of `{axis}` are numbers", text=whole, span=span)
    if names is not None and label not in names:
        raise LayoutError(
            f"`{axis}` has the labels {' and '.join(f'`{name}`' for name in names)}", text=whole, span=span
        )
    if len(spellings) > 1:
        raise LayoutError("a fixed label has one spelling", text=whole, span=span)
    index = names.index(label) if names else int(label)
    return Hole(axis, index, spellings or ((label,) if not colon else ("",)))
