"""Sizes of dims: numbers, tokens for those that are known at run time only, and products and shares of these."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

Size: TypeAlias = int | str
"""A size; or a token for one that is known at run time only. Equal tokens are equal sizes."""


class Term(str):
    """A token for what is computed from others: their product, times a number, divided by another without a rest.

    Attributes:
        factors: The tokens that are multiplied, sorted.
        number: What their product is multiplied by.
        divisor: What it is divided by; has no factor in common with `number`.
    """

    factors: tuple[str, ...]
    number: int
    divisor: int

    def __new__(cls, factors: tuple[str, ...], number: int, divisor: int) -> Term:
        """Writes a term: `3*x@0*y@1`, `x@0/4`."""
        text = "*".join([*([str(number)] if number != 1 else []), *factors])
        made = super().__new__(cls, text if divisor == 1 else f"{text}/{divisor}")
        made.factors, made.number, made.divisor = factors, number, divisor
        return made


def product(sizes: Iterable[Size]) -> Size:
    """Returns the product of sizes; a token where one is not known."""
    number, divisor = 1, 1
    tokens: list[str] = []
    for size in sizes:
        if isinstance(size, int):
            number *= size
        else:
            tokens.append(size)
    if not tokens or (len(tokens) == 1 and number == 1):
        return tokens[0] if tokens else number
    factors: list[str] = []
    for token in tokens:
        own, multiple, part = _parts(token)
        factors += own
        number *= multiple
        divisor *= part
    return _term(factors, number, divisor)


def share(one: Size, other: Size) -> Size | None:
    """Returns how many times `other` goes into `one` where it is known that there is no rest; None if it cannot be."""
    if isinstance(one, int) and isinstance(other, int):
        return one // other if other and not one % other else None
    ours, theirs = _parts(one), _parts(other)
    factors, missing = Counter(ours[0]), Counter(theirs[0])
    number, divisor = ours[1] * theirs[2], ours[2] * theirs[1]
    if missing - factors or not divisor or (not factors - missing and number % divisor):
        return None
    return _term((factors - missing).elements(), number, divisor)


def quotient(one: Size, other: Size) -> Size | None:
    """Returns how many times `other` goes into `one`; None where that is not a whole number whatever the tokens are."""
    found = share(one, other)
    return None if isinstance(found, Term) and found.divisor > 1 else found


def is_made_of(size: Size, others: Iterable[Size]) -> bool:
    """Whether all tokens that a size is computed from are among those of others."""
    return set(_parts(size)[0]) <= {factor for other in others for factor in _parts(other)[0]}


def _parts(size: Size) -> tuple[tuple[str, ...], int, int]:
    if isinstance(size, int):
        return (), size, 1
    return (size.factors, size.number, size.divisor) if isinstance(size, Term) else ((size,), 1, 1)


def _term(factors: Iterable[str], number: int, divisor: int) -> Size:
    tokens = tuple(sorted(factors))
    common = math.gcd(number, divisor)
    number, divisor = number // common, divisor // common
    if not tokens or not number:
        return number
    return tokens[0] if (len(tokens), number, divisor) == (1, 1, 1) else Term(tokens, number, divisor)
