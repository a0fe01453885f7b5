"""How much a migration may take: processes, seconds and bytes for each model, as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxfix.errors import UsageError

HOUR = 3600.0
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": HOUR, "d": 24 * HOUR}
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

_LEAST, _MOST = 32 * 10**6, 2**60
"""Bytes that an idle process takes at least, and that no machine has."""


@dataclass(frozen=True)
class Limits:
    """What a migration may take; None where nobody said.

    Attributes:
        jobs: Processes that convert models at a time; None: one a core, as far as memory reaches.
        seconds: How long one model may take; None: an hour.
        memory: Bytes of memory that one model may take; None: as much as there is.
    """

    jobs: int | None = None
    seconds: float | None = None
    memory: int | None = None

    def over(self, other: Limits) -> Limits:
        """Returns these limits, and the other's where these say nothing."""
        return Limits(
            other.jobs if self.jobs is None else self.jobs,
            other.seconds if self.seconds is None else self.seconds,
            other.memory if self.memory is None else self.memory,
        )


def read_seconds(text: str, where: str) -> float:
    """Returns a time span: `90`, `90s`, `10m`, `1.5h`.

    Raises:
        UsageError: The text is no time span.
    """
    number = _number(text, "smhd")
    if number is None:
        raise UsageError(f"`{text}` is no time span", where=where, hint="a number and s, m, h or d: 90s, 10m, 1.5h")
    return number[0] * _SECONDS[number[1]]


def read_bytes(text: str, where: str) -> int:
    """Returns an amount of memory: `500M`, `8G`, `8GB`.

    Raises:
        UsageError: The text is no amount, or none that a process could be held to.
    """
    number = _number(text.lower().removesuffix("ib").removesuffix("b"), "kmgt")
    if number is None:
        hint = "a number and k, M, G or T: 500M, 8G"
        raise UsageError(f"`{text}` is no amount of memory", where=where, hint=hint)
    count = int(number[0] * _BYTES[number[1]])
    if not _LEAST <= count <= _MOST:
        hint = "any model takes some hundred megabytes: 500M, 8G"
        raise UsageError(f"`{text}` is {'less' if count < _LEAST else 'more'} than makes sense", where=where, hint=hint)
    return count


def _number(text: str, units: str) -> tuple[float, str] | None:
    found = re.fullmatch(rf"([0-9]{{1,12}}(?:\.[0-9]{{1,6}})?) ?([{units}]?)", text.strip().lower(), re.ASCII)
    if found is None or float(found[1]) <= 0:
        return None
    return float(found[1]), found[2]


def duration_text(seconds: float) -> str:
    """Returns a time span for people: `45 s`, `10 min`, `2 h 5 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"
