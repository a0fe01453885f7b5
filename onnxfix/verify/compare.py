"""Differences between arrays: exact to the bit, or within a tolerance that depends on the element type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxfix.errors import UsageError
from onnxfix.verify.dtypes import count_nans, decode

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


@dataclass(frozen=True)
class Tolerance:
    """How far two values may lie apart: `absolute + relative * |expected|`.

    Raises:
        UsageError: One of the two is negative or not finite.
    """

    absolute: float = 0.0
    relative: float = 0.0

    def __post_init__(self) -> None:
        for number in (self.absolute, self.relative):
            if not (math.isfinite(number) and number >= 0):
                raise UsageError(f"{number:g} is no tolerance", hint="a tolerance is a finite number, 0 or more")

    def __str__(self) -> str:
        return f"{self.absolute:g} + {self.relative:g} * |expected|"


TOLERANCES: Mapping[str, Tolerance] = {
    "float64": Tolerance(1e-12, 1e-10),
    "float32": Tolerance(1e-5, 1e-4),
    "float16": Tolerance(1e-3, 1e-2),
    "bfloat16": Tolerance(1e-2, 5e-2),
}
"""For runs in which optimisations may reorder sums. Integers and booleans have none: they must be equal."""


@dataclass(frozen=True)
class Mismatch:
    """The place where two arrays differ most.

    Attributes:
        index: The element; empty where it is not a value that differs.
        expected, actual: Its two values, or the two shapes, or the two element types.
        what: `value`, `shape`, `dtype`, or `dims` where a shape is not what the model declares.
    """

    index: tuple[int, ...]
    expected: str
    actual: str
    what: str = "value"


@dataclass(frozen=True)
class Difference:
    """What a comparison found.

    Attributes:
        values: How many pairs were compared; NaNs that are the same on both sides are not: they prove nothing.
        nans: How many elements are NaN on both sides, and the same.
        mismatched: How many pairs differ by more than is allowed.
        max_abs, max_rel: The largest absolute difference, and the largest relative to the expected value.
        mean_abs: The mean absolute difference.
        cosine: The cosine of the angle between the two arrays; None where one is all zeros or not finite.
        needed_abs: The smallest absolute tolerance that would have passed, with a relative one of 0; infinite if none
            would have.
        needed_rel: The smallest relative tolerance that would have passed, with an absolute one of 0.
        place: Where the largest difference is; None where nothing differs.
        worst: The worst of the mismatches; None if there is none.
    """

    values: int
    nans: int = 0
    mismatched: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    mean_abs: float = 0.0
    cosine: float | None = None
    needed_abs: float = 0.0
    needed_rel: float = 0.0
    place: tuple[int, ...] | None = None
    worst: Mismatch | None = None


def compare(expected: Array, actual: Array, dtype: str, tolerance: Tolerance | None = None) -> Difference:
    """Compares two arrays.

    Without a tolerance the bits decide: 0.0 is not -0.0. A NaN of the same bits is no difference then, but no evidence
    either. With a tolerance, NaN equals nothing and infinity only itself. Booleans have no tolerance.

    >>> compare(np.array([1.0, 2.0]), np.array([1.0, 2.5]), "float64").worst
    Mismatch(index=(1,), expected='2.0', actual='2.5', what='value')

    Args:
        expected: The source's values, as `dtypes.storage` holds them.
        actual: The result's.
        dtype: The element type of both.
        tolerance: How much may differ; None for nothing.
    """
    if expected.dtype != actual.dtype:
        return unlike(expected, Mismatch((), str(expected.dtype), str(actual.dtype), "dtype"))
    if expected.shape != actual.shape:
        return unlike(expected, Mismatch((), str(list(expected.shape)), str(list(actual.shape)), "shape"))
    nans = count_nans(expected, dtype)
    if np.array_equal(_bits(expected), _bits(actual)) and not (nans and tolerance):
        cosine = 1.0 if expected.any() and np.isfinite(decode(expected, dtype)).all() else None
        return Difference(expected.size - nans, nans, cosine=cosine)
    return _differ(expected, actual, dtype, tolerance)


def unlike(expected: Array, worst: Mismatch) -> Difference:
    """Returns the difference of arrays whose values cannot be held against each other."""
    count = expected.size
    return Difference(
        count, 0, max(1, count), math.inf, math.inf, math.inf, needed_abs=math.inf, needed_rel=math.inf, worst=worst
    )


def _differ(expected: Array, actual: Array, dtype: str, tolerance: Tolerance | None) -> Difference:
    left, right = (decode(array, dtype).astype(np.float64) for array in (expected, actual))
    size = np.where(np.isfinite(left), np.abs(left), 0.0)
    unequal = _bits(expected) != _bits(actual)
    gap = _gap(expected, actual, left, right, dtype)
    with np.errstate(all="ignore"):
        relative = np.where(gap == 0, 0.0, gap / size)
        if tolerance is None or dtype == "bool":
            wrong = unequal
        else:
            wrong = (gap > tolerance.absolute + tolerance.relative * size) | ~np.isfinite(gap)
    apart = wrong | unequal | ~np.isnan(left)
    differs = wrong | unequal
    return Difference(
        values=int(apart.sum()),
        nans=int((~apart).sum()),
        mismatched=int(wrong.sum()),
        max_abs=float(gap[apart].max(initial=0.0)),
        max_rel=float(relative[apart].max(initial=0.0)),
        mean_abs=_mean(gap[apart]),
        cosine=_cosine(left, right),
        needed_abs=_needed_abs(gap, apart, dtype),
        needed_rel=_needed_rel(gap, size, apart, dtype),
        place=_largest(gap, differs) if differs.any() else None,
        worst=_worst(expected, actual, dtype, gap, wrong),
    )


def _gap(expected: Array, actual: Array, left: Array, right: Array, dtype: str) -> Array:
    """Returns absolute differences; infinite where a side is NaN, or infinite and not the same as the other."""
    if "int" in dtype:
        high, low = np.maximum(expected, actual), np.minimum(expected, actual)
        # Modulo 2**64 this is the true distance, even between the two ends of int64.
        return np.asarray((high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64))
    with np.errstate(all="ignore"):
        gap = np.where(left == right, 0.0, np.abs(left - right))
    return np.where(np.isnan(gap), np.inf, gap)


def _mean(gap: Array) -> float:
    largest = float(gap.max(initial=0.0))
    return float((gap / largest).mean() * largest) if 0 < largest < math.inf else largest


def _needed_abs(gap: Array, apart: Array, dtype: str) -> float:
    needed = float(gap[apart].max(initial=0.0))
    return math.inf if dtype == "bool" and needed else needed


def _needed_rel(gap: Array, size: Array, apart: Array, dtype: str) -> float:
    gap, size = gap[apart & (gap > 0)], size[apart & (gap > 0)]
    if not gap.size:
        return 0.0
    if dtype == "bool" or not size.all() or not np.isfinite(gap).all():
        return math.inf
    with np.errstate(all="ignore"):
        needed = float((gap / size).max())
        # The quotient was rounded; its product with the expected value must not fall short.
        while np.isfinite(needed) and (gap > needed * size).any():
            needed = math.nextafter(needed, math.inf)
    return needed


def _cosine(left: Array, right: Array) -> float | None:
    scales = [float(np.abs(side).max(initial=0.0)) for side in (left, right)]
    if not all(math.isfinite(scale) and scale > 0 for scale in scales):
        return None
    one, other = (np.asarray(side / scale).ravel() for side, scale in zip((left, right), scales, strict=True))
    # Rounding may carry the quotient past the ends.
    return float(np.clip(one @ other / math.sqrt((one @ one) * (other @ other)), -1.0, 1.0))


def _worst(expected: Array, actual: Array, dtype: str, gap: Array, wrong: Array) -> Mismatch | None:
    if not wrong.any():
        return None
    index = _largest(gap, wrong)
    return Mismatch(index, str(decode(expected, dtype)[index]), str(decode(actual, dtype)[index]))


def _largest(gap: Array, among: Array) -> tuple[int, ...]:
    place = np.unravel_index(int(np.argmax(np.where(among, gap, -1.0))), gap.shape)
    return tuple(int(one) for one in place)


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
