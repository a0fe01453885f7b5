"""Signs by which a convention is recognised whose caches no layout describes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sign:
    """A trait of a model's ports.

    Attributes:
        input, output: A pattern that the whole name of an input or of an output matches, behind any prefix that ends in
            `.`, `_` or `/`; None where any will do.
        absent: A pattern that no output's name matches; None where any may be there.
        dtype: A pattern that the element type of the port matches.
        rank: How many dims the port has.
        least: The least size of the port's only dim that is not 1.
    """

    input: str | None = None
    output: str | None = None
    absent: str | None = None
    dtype: str | None = None
    rank: int | None = None
    least: int | None = None
