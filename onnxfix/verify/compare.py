"""Differences between arrays: exact to the bit, or within a tolerance that depends on the element type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxfix.verify.dtypes import count_nans, decode, is_float

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


@dataclass(frozen=True)
class Tolerance:
    """How far two values may lie apart: `absolute + relative * |expected|`."""

    absolute: float = 0.0
    relative: float = 0.0


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
        index: The element; empty where shape or element type differ.
        expected, actual: Its two values, or the two shapes, or the two element types.
        what: `value`, `shape` or `dtype`.
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
        nans: How many elements are NaN on both sides.
        mismatched: How many pairs differ by more than is allowed.
        max_abs, max_rel: The largest absolute difference, and the largest relative to the expected value.
        worst: The worst of the mismatches; None if there is none.
    """

    values: int
    nans: int = 0
    mismatched: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    worst: Mismatch | None = None


def compare(expected: Array, actual: Array, dtype: str, tolerance: Tolerance | None = None) -> Difference:
    """Compares two arrays.

    Without a tolerance the bits decide: 0.0 is not -0.0, and a NaN equals only a NaN of the same bits. With one, NaN
    equals nothing, infinity only itself, and integers and booleans must be equal all the same.

    >>> compare(np.array([1.0, 2.0]), np.array([1.0, 2.5]), "float64").worst
    Mismatch(index=(1,), expected='2.0', actual='2.5', what='value')

    Args:
        expected: The source's values, as `dtypes.storage` holds them.
        actual: The result's.
        dtype: The element type of both.
        tolerance: How much may differ; None for nothing.
    """
    if expected.dtype != actual.dtype:
        return _unlike(expected, Mismatch((), str(expected.dtype), str(actual.dtype), "dtype"))
    if expected.shape != actual.shape:
        return _unlike(expected, Mismatch((), str(list(expected.shape)), str(list(actual.shape)), "shape"))
    if tolerance is None and np.array_equal(_bits(expected), _bits(actual)):
        nans = count_nans(expected, dtype)
        return Difference(expected.size - nans, nans)
    return _differ(expected, actual, dtype, tolerance)


def _unlike(expected: Array, worst: Mismatch) -> Difference:
    return Difference(expected.size, 0, max(1, expected.size), float("inf"), float("inf"), worst)


def _differ(expected: Array, actual: Array, dtype: str, tolerance: Tolerance | None) -> Difference:
    left, right = _wide(expected, dtype), _wide(actual, dtype)
    both_nan = np.isnan(left) & np.isnan(right)
    with np.errstate(all="ignore"):
        gap = np.where(left == right, 0.0, np.abs(left - right)).astype(np.float64)
        gap = np.where(np.isnan(gap), np.inf, gap)
        relative = np.where(gap == 0, 0.0, gap / np.abs(left).astype(np.float64))
        relative = np.where(np.isnan(relative), np.inf, relative)
    if tolerance is None or not is_float(dtype):
        wrong = _bits(expected) != _bits(actual)
    else:
        wrong = gap > tolerance.absolute + tolerance.relative * np.where(np.isfinite(left), np.abs(left), 0.0)
    same_nan = both_nan & ~wrong
    worst = None
    if wrong.any():
        flat = int(np.argmax(np.where(wrong, gap, -1.0)))
        index = tuple(int(one) for one in np.unravel_index(flat, wrong.shape))
        worst = Mismatch(index, str(decode(expected, dtype)[index]), str(decode(actual, dtype)[index]))
    apart = ~same_nan
    return Difference(
        values=int(apart.sum()),
        nans=int(same_nan.sum()),
        mismatched=int(wrong.sum()),
        max_abs=float(gap[apart].max(initial=0.0)),
        max_rel=float(relative[apart].max(initial=0.0)),
        worst=worst,
    )


def _wide(array: Array, dtype: str) -> Array:
    """Returns values that can be subtracted without overflow; integers beyond 2**53 are rounded."""
    return decode(array, dtype).astype(np.float64)


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
