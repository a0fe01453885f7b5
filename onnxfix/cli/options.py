"""Options that several commands take, and how `KEY=VALUE` is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from onnxfix.convention.signature import LARGEST, require_size
from onnxfix.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., object])


def from_option(command: Command) -> Command:
    """Adds `--from`."""
    return click.option(
        "--from", "from_", multiple=True, metavar="CONVENTION",
        help="What the model speaks, said as for --to; without it, it is detected.",
    )(command)  # fmt: skip


def size_option(command: Command) -> Command:
    """Adds `--size`."""
    return click.option(
        "--size", "sizes", multiple=True, metavar="AXIS=N",
        help="A size that the model does not tell: of an axis (head), of one cache's axis (attention.head), "
        "or of a symbolic dim (T_CACHE).",
    )(command)  # fmt: skip


def json_option(command: Command) -> Command:
    """Adds `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")(command)


def read_pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Returns `KEY=VALUE` texts as a dictionary.

    Raises:
        UsageError: A text is not of that form or no Unicode, or a key is given twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        require_unicode(option, text)
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not value:
            raise UsageError("KEY=VALUE is expected here", where=f"{option} {text}")
        if key in pairs:
            raise UsageError(f"`{key}` is given twice", where=f"{option} {text}")
        pairs[key] = value
    return pairs


def require_unicode(option: str, text: str) -> None:
    """Refuses bytes that are no UTF-8, which Python hands over as surrogates: no model can hold them.

    Raises:
        UsageError: There are such bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("this is no UTF-8 text", where=f"{option} {text}") from None


def read_sizes(option: str, texts: Iterable[str]) -> dict[str, int]:
    """Returns `KEY=N` texts as a dictionary.

    Raises:
        UsageError: A text is not of that form, a key is given twice, or a size is none.
    """
    sizes = {}
    for key, value in read_pairs(option, texts).items():
        where = f"{option} {key}={value}"
        if not (value.isascii() and value.isdecimal()):
            raise UsageError(f"`{value}` is no size", where=where, hint="a size is a whole number")
        sizes[key] = require_size(_integer(value), where)
    return sizes


def read_dims(option: str, texts: Iterable[str]) -> dict[str, int | str]:
    """Returns `KEY=N` or `KEY=NAME` texts as a dictionary.

    Raises:
        UsageError: A text is not of that form, or a key is given twice.
    """
    return {
        key: _integer(value) if value.lstrip("-").isdecimal() else value
        for key, value in read_pairs(option, texts).items()
    }  # fmt: skip


def _integer(text: str) -> int:
    """Returns the number; one that Python takes too long to read is out of every range all the same."""
    return int(text) if len(text) < 1000 else LARGEST + 1
