"""Conventions that no layout describes: found by their signs, and refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention
from onnxfix.convention.load import refused
from onnxfix.convention.sign import Sign
from onnxfix.convention.signature import Port, Signature
from onnxfix.errors import DetectError

_PREFIX = r"(.*[._/])?"


def foreign_convention(signature: Signature, conventions: Iterable[Convention] | None = None) -> Convention | None:
    """Returns the refused convention that a model speaks; None if it speaks none.

    Where several do, the one with most signs: a convention of its own before a whole kind of them.

    Args:
        signature: The model's ports.
        conventions: Those to look for; all of the library that are refused if None.
    """
    known = refused().values() if conventions is None else conventions
    found = [one for one in known if _speaks(signature, one)]
    return min(found, key=lambda one: (-len(one.signs) - len(one.caches), one.name), default=None)


def _speaks(signature: Signature, convention: Convention) -> bool:
    if not all(_is_there(sign, signature) for sign in convention.signs):
        return False
    try:
        return not convention.caches or bool(bind(convention, signature).caches)
    except DetectError:
        return False


def _is_there(sign: Sign, signature: Signature) -> bool:
    """Whether a model has a sign: an input and an output, each if it is named, and no output that must be absent."""
    if sign.absent is not None and any(_is_called(port, sign.absent) for port in signature.outputs):
        return False
    wanted = ((sign.input, signature.inputs), (sign.output, signature.outputs))
    return all(
        any(_is_called(port, name) and _looks_like(port, sign) for port in ports)
        for name, ports in wanted
        if name is not None
    )


def _is_called(port: Port, name: str) -> bool:
    return _pattern(f"{_PREFIX}(?:{name})").fullmatch(port.name) is not None


def _looks_like(port: Port, sign: Sign) -> bool:
    """Whether a port is of the element type, rank and size of a sign; what the file does not declare, it is not."""
    if sign.dtype is not None and not _pattern(sign.dtype).fullmatch(port.dtype):
        return False
    if sign.rank is not None and port.rank != sign.rank:
        return False
    sizes = [dim for dim in port.dims or () if isinstance(dim, int) and dim != 1]
    return sign.least is None or (len(sizes) == 1 and sizes[0] >= sign.least)


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)
