"""Statistics that a busy machine does not spoil: what ran within one round is compared, and the median over rounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

Round = Mapping[str, float]
"""What each variant took in one round, in seconds; one that was not run is missing."""


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and the quarter of them below and above."""

    median: float
    low: float
    high: float


def ratios_to(rounds: Sequence[Round], reference: str) -> dict[str, Ratio]:
    """Compares every variant with the reference of the same round; empty where that never ran."""
    paired: dict[str, list[float]] = {}
    for taken in rounds:
        if reference in taken:
            for variant, seconds in taken.items():
                paired.setdefault(variant, []).append(seconds / taken[reference])
    return {variant: _spread(values) for variant, values in paired.items()}


def medians(rounds: Sequence[Round]) -> dict[str, float]:
    """Gives the median of each variant by itself."""
    names = dict.fromkeys(name for taken in rounds for name in taken)
    return {name: median(taken[name] for taken in rounds if name in taken) for name in names}


def exponent(points: Iterable[tuple[float, float]]) -> float:
    """Gives the power of size by which time grows: the slope of a line through `(size, seconds)`, both as logarithms.

    >>> round(exponent([(10, 1), (100, 10), (1000, 100)]), 6)
    1.0
    """
    logs = [(math.log(size), math.log(seconds)) for size, seconds in points]
    middle = sum(x for x, _ in logs) / len(logs)
    height = sum(y for _, y in logs) / len(logs)
    return sum((x - middle) * (y - height) for x, y in logs) / sum((x - middle) ** 2 for x, _ in logs)


def _spread(values: Sequence[float]) -> Ratio:
    if len(values) == 1:
        return Ratio(values[0], values[0], values[0])
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Ratio(middle, low, high)
