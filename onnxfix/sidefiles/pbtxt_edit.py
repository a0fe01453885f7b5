"""Edits of protobuf text: values replaced where they stand, and messages of a repeated field taken out or put in.

What is not named stays byte for byte, comments and line ends too. What is put in is written as its neighbours are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnxfix.errors import SideFileError
from onnxfix.sidefiles.pbtxt import Field, Message

_REST = re.compile(r"[ \t]*(#[^\r\n]*)?(?P<end>\r?\n|$)")
"""The rest of a line, where it holds a comment at most."""


@dataclass(frozen=True)
class Edit:
    """Another text for a span."""

    start: int
    stop: int
    text: str


def applied(text: str, edits: Iterable[Edit], start: int = 0, stop: int | None = None) -> str:
    """Returns a part of a text after edits in it, which do not overlap."""
    end = len(text) if stop is None else stop
    pieces, place = [], start
    for edit in sorted(edits, key=lambda one: (one.start, one.stop)):
        pieces += [text[place : edit.start], edit.text]
        place = edit.stop
    return "".join([*pieces, text[place:end]])


def scalar_edit(message: Message, name: str, literal: str) -> list[Edit]:
    """Returns the edit that gives a field, if it is there, another value."""
    value = message.single(name)
    return [] if value is None else [Edit(value.start, value.stop, literal)]


def numbers_edits(text: str, message: Message, name: str, numbers: Sequence[int]) -> list[Edit]:
    """Returns the edits that give a repeated field other numbers; none where it has these.

    Raises:
        SideFileError: It is not there.
    """
    fields = message.named(name)
    if not fields:
        raise SideFileError(f"`{name}` is missing", where=message.where)
    if message.numbers(name) == tuple(numbers):
        return []
    first = fields[0]
    inside = text[first.opening + 1 : first.opening + 2] if first.opening is not None else " "
    blank = " " if inside.isspace() else ""
    colon = text[first.start : first.opening if first.opening is not None else first.values[0].start]
    written = f"[{blank}{', '.join(str(number) for number in numbers)}{blank}]"
    edits = [Edit(first.start, first.stop, f"{colon}{written}")]
    return edits + [Edit(_with_blanks(text, field.start), field.separator, "") for field in fields[1:]]


def new_line(text: str, message: Message, names: Sequence[str], line: str) -> Edit:
    """Returns the edit that puts a line behind that of the first of some fields, or at the end of the text."""
    end = "\r\n" if "\r\n" in text else "\n"
    for field in (field for name in names for field in message.named(name)):
        rest = _REST.match(text, field.separator)
        if rest is not None:
            place = rest.start("end")
            return Edit(place, place, f"{end}{line}")
    return Edit(len(text), len(text), f"{'' if text.endswith(chr(10)) or not text else end}{line}{end}")


def removal(text: str, field: Field) -> Edit:
    """Returns the edit that takes a field out, with the blanks before it."""
    return Edit(_with_blanks(text, field.start), field.separator, "")


def lead_of(text: str, place: int) -> str:
    """Returns what stands between neighbours of what begins at a place: a line end and blanks, or a blank."""
    start = _with_blanks(text, place)
    lead = text[start:place]
    return lead if "\n" in lead else " "


def list_edits(text: str, owner: Message, name: str, new: Mapping[int, Sequence[str]]) -> list[Edit]:
    """Returns the edits that put messages in the place of some messages of a repeated field.

    Args:
        text: The text.
        owner: The message that has the field.
        name: The field.
        new: What stands in the place of a message, by the place of its brace; nothing takes it out.
    """
    edits: list[Edit] = []
    for field in owner.named(name):
        if not any(value.start in new for value in field.values):
            continue
        edits.append(_without_list(text, field, new) if field.opening is None else _with_list(text, field, new))
    return edits


def _without_list(text: str, field: Field, new: Mapping[int, Sequence[str]]) -> Edit:
    """Returns the edit for `name { ... }`, which becomes several of the kind."""
    (value,) = field.values
    messages = new[value.start]
    if not messages:
        return removal(text, field)
    word = text[field.start : value.start]
    return Edit(field.start, field.stop, lead_of(text, field.start).join(f"{word}{message}" for message in messages))


def _with_list(text: str, field: Field, new: Mapping[int, Sequence[str]]) -> Edit:
    """Returns the edit for `name [ { ... }, { ... } ]`."""
    assert field.opening is not None
    pieces: list[str] = []
    place = field.opening + 1
    for value in field.values:
        messages = new.get(value.start, (text[value.start : value.stop],))
        # What stands before a message that goes (a comma, and comments on it) goes too, but not behind the bracket.
        if messages:
            gap = text[place : value.start] if pieces else text[field.opening + 1 : field.values[0].start]
            pieces += [gap, f",{lead_of(text, value.start)}".join(messages)]
        place = value.stop
    inside = "".join(pieces) or text[field.opening + 1 : field.values[0].start].rstrip(" \t\r\n")
    return Edit(field.opening + 1, place, inside)


def _with_blanks(text: str, place: int) -> int:
    """Returns where the blanks before a place begin: with the line end before it, if there is nothing but blanks."""
    found = re.search(r"(\r?\n)?[ \t]*$", text[max(0, place - 200) : place])
    return place - (len(found[0]) if found else 0)
