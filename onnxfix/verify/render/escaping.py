"""Text that came from elsewhere, as HTML and XML can hold it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from xml.sax.saxutils import escape as escape_xml
from xml.sax.saxutils import quoteattr

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def shown(text: str, *, keeps_lines: bool = False) -> str:
    r"""Returns text as people can be shown it: what cannot be seen is written as Python writes it.

    >>> print(shown("a\u202eb\x00"), shown("é\n", keeps_lines=True) == "é\n")
    a\u202eb\x00 True
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or (keeps_lines and one == "\n") else ascii(one)[1:-1] for one in text)


def html_text(text: str, *, keeps_lines: bool = False) -> str:
    """Returns text in which nothing is taken for HTML."""
    return escape(shown(text, keeps_lines=keeps_lines))


def xml_text(text: str) -> str:
    """Returns text in which nothing is taken for XML."""
    return escape_xml(_allowed(text), {"\r": "&#13;"})


def xml_attributes(pairs: Iterable[tuple[str, str]]) -> str:
    """Returns attributes, each with a blank in front."""
    # Line ends inside attributes would be read as blanks.
    entities = {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
    return "".join(f" {name}={quoteattr(_allowed(value), entities)}" for name, value in pairs)


def _allowed(text: str) -> str:
    """Returns text in which characters that XML cannot hold, not even escaped, are written as Python writes them."""
    return _FORBIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)
