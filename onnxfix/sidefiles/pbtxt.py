"""Protobuf's text format, as text: which fields a message has, and where each of them stands.

No schema is needed, and nothing is written: whoever wants to change a file replaces a span of its text. The grammar is
that of protobuf's text format: `name: value`, `name { ... }`, `name < ... >`, and lists of both in brackets; fields may
end with `,` or `;`, strings that follow each other are one, `#` begins a comment.

>>> message = parse('input [ { name: "x" dims: [ 1, -1 ] } ]  # one port', "config.pbtxt")
>>> port = message.messages("input")[0]
>>> port.text("name"), port.numbers("dims")
('x', (1, -1))
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from onnxfix.errors import SideFileError
from onnxfix.sidefiles.reading import place_of

_TOKEN = re.compile(
    r"""(?P<blank>(?:[ \t\r\n\v\f]|\#[^\n]*)+)
    |(?P<word>-?[ \t]*[A-Za-z0-9_.][A-Za-z0-9_.+]*(?:(?<=[eE])-[0-9]+)?)
    |(?P<string>"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*')
    |(?P<mark>[{}\[\]<>:,;/])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_DEEPEST = 100
"""Messages in messages: protobuf's own limit."""


@dataclass(frozen=True)
class Value:
    """A scalar or a message, from `start` to `stop` in the text.

    Attributes:
        start, stop: Where it stands.
        scalar: The scalar as it is meant: a string without its quotes; None for a message.
        message: The message; None for a scalar.
    """

    start: int
    stop: int
    scalar: str | None = None
    message: Message | None = None


@dataclass(frozen=True)
class Field:
    """A field as it is written: with one value, or with a list of them in brackets.

    Attributes:
        name: Its name.
        start, stop: Where it stands, from its name to its last value, or to the bracket behind that.
        values: Its values.
        opening: Where the bracket of its list stands; None where there is none.
        separator: Where a `,` or `;` behind it ends; `stop` where there is none.
    """

    name: str
    start: int
    stop: int
    values: tuple[Value, ...]
    opening: int | None
    separator: int


@dataclass(frozen=True)
class Message:
    """The fields between two braces, or of the whole file, in order.

    Attributes:
        fields: The fields.
        start, stop: From the brace to behind its partner.
        where: The file and the place in it, for errors.
    """

    fields: tuple[Field, ...]
    start: int
    stop: int
    where: str

    def named(self, name: str) -> list[Field]:
        """Returns the fields of that name; a repeated field may be written as several."""
        return [field for field in self.fields if field.name == name]

    def messages(self, name: str) -> list[Message]:
        """Returns the messages in the fields of that name.

        Raises:
            SideFileError: One is no message.
        """
        found = []
        for field in self.named(name):
            for value in field.values:
                if value.message is None:
                    raise SideFileError(f"`{name}` is a message: {{ ... }}", where=self.where)
                found.append(value.message)
        return found

    def single(self, name: str) -> Value | None:
        """Returns the only value of that name; None if there is none.

        Raises:
            SideFileError: There are several.
        """
        values = [value for field in self.named(name) for value in field.values]
        if len(values) > 1:
            raise SideFileError(f"`{name}` stands twice", where=self.where, hint="Remove one of them.")
        return values[0] if values else None

    def text(self, name: str) -> str | None:
        """Returns the only scalar of that name; None if there is none.

        Raises:
            SideFileError: There are several, or it is a message.
        """
        value = self.single(name)
        if value is not None and value.scalar is None:
            raise SideFileError(f"`{name}` is no message", where=self.where)
        return None if value is None else value.scalar

    def numbers(self, name: str) -> tuple[int, ...]:
        """Returns the whole numbers of that name.

        Raises:
            SideFileError: One is no number.
        """
        found = []
        for value in (value for field in self.named(name) for value in field.values):
            if value.scalar is None or not re.fullmatch(r"-?[0-9]{1,18}", value.scalar):
                raise SideFileError(f"`{name}` are whole numbers", where=self.where)
            found.append(int(value.scalar))
        return tuple(found)


def parse(text: str, where: str) -> Message:
    """Returns the message that a text holds.

    Raises:
        SideFileError: The text is not of that format; the error tells line and column.
    """
    return _Parser(text, where).whole()


def scalars_in(message: Message | None) -> Iterator[str]:
    """Yields all scalars of a message and of those in it."""
    for field in message.fields if message is not None else ():
        for value in field.values:
            if value.scalar is not None:
                yield value.scalar
            yield from scalars_in(value.message)


def quoted(text: str) -> str:
    """Returns a string as the text format writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


class _Parser:
    """Reads one token ahead."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        # A byte order mark is skipped by protobuf's tokenizer too.
        self._tokens = self._scan(1 if text.startswith("\ufeff") else 0)
        self._behind = 0
        self._kind, self._word, self._start, self._stop = next(self._tokens)

    def whole(self) -> Message:
        return self._message(0, "", 0)

    def _scan(self, place: int) -> Iterator[tuple[str, str, int, int]]:
        while place < len(self._text):
            found = _TOKEN.match(self._text, place)
            if found is None:
                letter = self._text[place]
                message = "this string has no end" if letter in "\"'" else f"`{letter}` has no meaning here"
                raise self._error(message, place)
            place = found.end()
            if found.lastgroup is not None and found.lastgroup != "blank":
                yield found.lastgroup, found[0], found.start(), found.end()
        yield "end", "", place, place

    def _error(self, message: str, place: int) -> SideFileError:
        hint = "It is read as protobuf's text format."
        return SideFileError(message, where=f"{self._where}: {place_of(self._text, place)}", hint=hint)

    def _advance(self) -> None:
        self._behind = self._stop
        self._kind, self._word, self._start, self._stop = next(self._tokens)

    def _take(self, mark: str) -> bool:
        if self._kind != "mark" or self._word != mark:
            return False
        self._advance()
        return True

    def _message(self, start: int, closing: str, depth: int) -> Message:
        if depth > _DEEPEST:
            raise self._error("messages are nested too deeply here", start)
        fields = []
        while not (closing and self._take(closing)):
            if self._kind == "end":
                if not closing:
                    break
                raise self._error(f"`{closing}` is missing: the text ends before this message does", start)
            fields.append(self._field(depth))
        where = f"{self._where}: {place_of(self._text, start)}" if closing else self._where
        return Message(tuple(fields), start, self._behind, where)

    def _field(self, depth: int) -> Field:
        start, name = self._start, self._name()
        has_colon = self._take(":")
        opening = self._start
        if self._take("["):
            values: list[Value] = []
            while not self._take("]"):
                if values and not self._take(","):
                    raise self._error("`,` or `]` is expected here", self._start)
                values.append(self._value(depth, "" if has_colon else "`{` is expected here"))
            return self._field_of(name, start, tuple(values), opening)
        value = self._value(depth, "" if has_colon else "`:` or `{` is expected here")
        return self._field_of(name, start, (value,), None)

    def _field_of(self, name: str, start: int, values: tuple[Value, ...], opening: int | None) -> Field:
        stop = self._behind
        is_separated = self._take(",") or self._take(";")
        return Field(name, start, stop, values, opening, self._behind if is_separated else stop)

    def _name(self) -> str:
        if self._kind == "word" and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self._word):
            name = self._word
            self._advance()
            return name
        start = self._start
        if not self._take("["):
            raise self._error("the name of a field is expected here", start)
        while not self._take("]"):  # an extension, or a message of any kind
            if self._kind not in ("word", "mark") or self._word in ("[", "{", "}"):
                raise self._error("the name of a field is expected here", start)
            self._advance()
        return self._text[start : self._behind]

    def _value(self, depth: int, complaint: str) -> Value:
        """Returns a value; `complaint` says what is wrong with one that is no message, if that is."""
        start = self._start
        for opening, closing in (("{", "}"), ("<", ">")):
            if self._take(opening):
                message = self._message(start, closing, depth + 1)
                return Value(start, message.stop, None, message)
        if complaint:
            raise self._error(complaint, start)
        if self._kind == "word":
            word = re.sub(r"\s", "", self._word)
            self._advance()
            return Value(start, self._behind, word)
        pieces = []
        while self._kind == "string":
            pieces.append(_unescaped(self._word[1:-1]))
            self._advance()
        if not pieces:
            raise self._error("a value is expected here", start)
        return Value(start, self._behind, "".join(pieces))


def _unescaped(text: str) -> str:
    def letter(found: re.Match[str]) -> str:
        octal, digits, other = found.groups()
        if octal is not None:
            return chr(int(octal, 8))
        return chr(int(digits, 16)) if digits is not None else _LETTERS.get(other, other)

    return _ESCAPE.sub(letter, text)
