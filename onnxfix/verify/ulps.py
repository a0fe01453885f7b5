"""Distances between floats, counted in floats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

_FAR = 1000


def ulps(expected: Array, actual: Array) -> str:
    """Returns by how many units in the last place two arrays of floats differ at most, in words; empty if by many.

    >>> ulps(np.float32([1.0, 2.0]), np.nextafter(np.float32([1.0, 2.0]), np.float32(9)))
    'by 1 ulp at most'
    """
    if expected.shape != actual.shape or expected.dtype != actual.dtype or expected.dtype.kind != "f":
        return ""
    kind = np.dtype(f"i{expected.dtype.itemsize}")
    left, right = (np.ascontiguousarray(one).view(kind) for one in (expected, actual))
    if ((left < 0) != (right < 0)).any():
        return ""
    # Bits of floats of one sign count upward with their size, and so do not overflow here.
    most = int(np.abs(left - right).max(initial=0))
    return f"by {most} ulp at most" if 0 < most < _FAR else ""
