"""JSON as text: values are replaced, put in and taken out where they stand, and all else stays byte for byte.

The `json` module says what is JSON. This one only finds where things stand in a text that it has accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxfix.errors import SideFileError
from onnxfix.sidefiles.reading import place_of

_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Node:
    """A value, from `start` to `stop` in the text; an object has `members` by key."""

    start: int
    stop: int
    value: object
    members: Mapping[str, Member] | None = None


@dataclass(frozen=True)
class Member:
    """An entry of an object: its key begins at `start`."""

    start: int
    node: Node


class JsonText:
    """A JSON file with one object, which is edited in place.

    Attributes:
        text: The text as it is now.
    """

    def __init__(self, text: str, path: Path) -> None:
        """Takes the text of a file.

        Raises:
            SideFileError: It is no JSON, no object, or has a key twice.
        """
        self.text = text
        self._path = path
        self._found: tuple[str, Node] | None = None
        if text.startswith("\ufeff"):
            message = "this file begins with a byte order mark, which its runtime does not read"
            raise SideFileError(message, where=str(path), hint="Save it as UTF-8 without one.")
        try:
            found = json.loads(text, object_pairs_hook=self._pairs, parse_constant=self._constant)
            self._find(())
        except json.JSONDecodeError as error:
            place = place_of(text, error.pos)
            raise SideFileError(f"this is no JSON: {error.msg}, {place}", where=str(path)) from None
        except RecursionError:
            raise SideFileError("this is no JSON that a runtime reads: too deep", where=str(path)) from None
        except ValueError:  # a number of thousands of digits
            raise SideFileError("this is no JSON that a runtime reads: a number is too long", where=str(path)) from None
        if not isinstance(found, dict):
            raise SideFileError("this is no JSON object", where=str(path))

    def get(self, *keys: str) -> object:
        """Returns the value at a path of keys; None where there is none."""
        node = self._find(keys)
        return None if node is None else node.value

    def text_at(self, *keys: str) -> str | None:
        """Returns the string at a path of keys; None where there is none.

        Raises:
            SideFileError: Something else stands there.
        """
        node = self._find(keys)
        if node is None:
            return None
        if not isinstance(node.value, str):
            raise self.fail("a string is expected here", *keys)
        return node.value

    def table_at(self, *keys: str) -> Mapping[str, object] | None:
        """Returns the object at a path of keys; None where there is none.

        Raises:
            SideFileError: Something else stands there.
        """
        node = self._find(keys)
        if node is None:
            return None
        if not isinstance(node.value, dict):
            raise self.fail("an object is expected here", *keys)
        return node.value

    def fail(self, message: str, *keys: str, hint: str = "") -> SideFileError:
        """Returns an error about the value at a path of keys."""
        return SideFileError(message, where=": ".join(filter(None, (str(self._path), ".".join(keys)))), hint=hint)

    def set(self, value: str | bool, *keys: str) -> None:
        """Puts a value at a path of keys; objects on the way that are missing are made."""
        node = self._find(keys)
        written = json.dumps(value, ensure_ascii=False)
        if node is not None:
            self.text = self.text[: node.start] + written + self.text[node.stop :]
            return
        *parents, key = keys
        if self._find(parents) is None:
            *above, last = parents
            self._add(above, last, "{}")
        self._add(parents, key, written)

    def remove(self, *keys: str) -> None:
        """Takes an entry out of its object."""
        *parents, key = keys
        owner = self._find(parents)
        assert owner is not None
        assert owner.members is not None
        names = list(owner.members)
        place = names.index(key)
        member = owner.members[key]
        if len(names) == 1:
            start, stop = owner.start + 1, owner.stop - 1
        elif place + 1 < len(names):
            start, stop = member.start, owner.members[names[place + 1]].start
        else:
            start, stop = owner.members[names[place - 1]].node.stop, member.node.stop
        self.text = self.text[:start] + self.text[stop:]

    def _add(self, parents: Sequence[str], key: str, written: str) -> None:
        """Puts an entry at the end of an object, written as the one before it."""
        owner = self._find(parents)
        assert owner is not None
        assert owner.members is not None
        entry = json.dumps(key, ensure_ascii=False)
        if owner.members:
            names = list(owner.members)
            last = owner.members[names[-1]]
            before = owner.members[names[-2]].node.stop if len(names) > 1 else owner.start
            lead = self.text[self.text.index("," if len(names) > 1 else "{", before) + 1 : last.start] or " "
            _, after = _DECODER.raw_decode(self.text, last.start)
            colon = self.text[after : last.node.start]
            place, new = last.node.stop, f",{lead}{entry}{colon}{written}"
            self.text = self.text[:place] + new + self.text[place:]
            return
        line = self.text.rfind("\n", 0, owner.start) + 1
        own = _BLANKS.match(self.text, line)
        assert own is not None
        step = re.search(r"\n([ \t]+)", self.text)
        end = "\r\n" if "\r\n" in self.text else "\n"
        inner, outer = (f"{end}{own[0]}{step[1]}", f"{end}{own[0]}") if step else ("", "")
        self.text = f"{self.text[: owner.start]}{{{inner}{entry}: {written}{outer}}}{self.text[owner.stop :]}"

    def _find(self, keys: Sequence[str]) -> Node | None:
        if self._found is None or self._found[0] != self.text:
            self._found = self.text, _node(self.text, _skip(self.text, 0))
        node = self._found[1]
        for key in keys:
            member = (node.members or {}).get(key)
            if member is None:
                return None
            node = member.node
        return node

    def _pairs(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                raise SideFileError(f"the key `{key}` stands twice in one object", where=str(self._path))
            found[key] = value
        return found

    def _constant(self, text: str) -> object:
        raise SideFileError(f"this is no JSON: `{text}`", where=str(self._path))


def _skip(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    return place if found is None else found.end()


def _node(text: str, start: int) -> Node:
    """Returns the value that begins at a place, with the places of what is in it where it is an object."""
    value, stop = _DECODER.raw_decode(text, start)
    if not isinstance(value, dict):
        return Node(start, stop, value)
    members = {}
    place = _skip(text, start + 1)
    while text[place] != "}":
        key, after = _DECODER.raw_decode(text, place)
        node = _node(text, _skip(text, _skip(text, after) + 1))
        members[key] = Member(place, node)
        place = _skip(text, node.stop)
        place = _skip(text, place + 1) if text[place] == "," else place
    return Node(start, stop, value, members)
