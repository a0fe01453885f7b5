"""Differences tick by tick, as a line of text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BARS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-=+*#@"
_EQUAL, _PLAIN_EQUAL = "·", " "
_BEYOND = "!"
WIDTH = 32
"""Characters; longer runs are gathered, several ticks a character."""


@dataclass(frozen=True)
class Scale:
    """Decades from the smallest difference to the largest, one scale for all outputs of a report.

    Attributes:
        low, high: The smallest and largest difference that is neither zero nor infinite.
    """

    low: float
    high: float

    @staticmethod
    def over(differences: Iterable[float]) -> Scale:
        """Returns the scale on which all of these can be drawn."""
        drawn = [one for one in differences if 0 < one < math.inf]
        return Scale(min(drawn, default=1.0), max(drawn, default=1.0))

    def place(self, difference: float) -> float:
        """Returns where a difference lies, from 0 for the smallest to 1 for the largest; 1 for all if they are one."""
        if self.high == self.low:
            return 1.0
        # Quotients of numbers that are far apart leave the range of floats; logarithms do not.
        low, high = math.log(self.low), math.log(self.high)
        return min(1.0, max(0.0, (math.log(difference) - low) / (high - low)))


def sparkline(differences: Sequence[float], scale: Scale, *, is_plain: bool = False, width: int = WIDTH) -> str:
    """Returns one character a tick: a dot for none, bars by the decade, `!` for an infinite one.

    >>> sparkline([0, 1e-6, 1e-3, math.inf], Scale(1e-6, 1e-3))
    '·▁█!'

    Args:
        differences: The largest difference of each tick.
        scale: How they are drawn.
        is_plain: Whether to keep to ASCII.
        width: Characters at most.
    """
    bars, equal = (_PLAIN, _PLAIN_EQUAL) if is_plain else (BARS, _EQUAL)
    text = ""
    for difference in gathered(differences, width):
        if difference == 0:
            text += equal
        elif not math.isfinite(difference):
            text += _BEYOND
        else:
            text += bars[min(len(bars) - 1, int(scale.place(difference) * len(bars)))]
    return text


def gathered(differences: Sequence[float], width: int) -> list[float]:
    """Returns at most `width` numbers, each the largest of as many neighbours as that takes."""
    step = max(1, -(-len(differences) // width))
    return [max(differences[start : start + step]) for start in range(0, len(differences), step)]
