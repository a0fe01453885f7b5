"""Element types as numpy holds them: numpy has no bfloat16, so its bits travel as uint16."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

DRIVABLE = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
"""The element types that can be fed and fetched."""


def is_float(dtype: str) -> bool:
    """Whether values of this type may be NaN, and differ by a little."""
    return "float" in dtype


def storage(dtype: str) -> np.dtype[np.generic]:
    """Returns the numpy type that holds an element type.

    >>> storage("bfloat16")
    dtype('uint16')
    """
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)


def decode(array: Array, dtype: str) -> Array:
    """Returns values that numpy can compute with."""
    if dtype != "bfloat16":
        return array
    wide: Array = (np.asarray(array).astype(np.uint32) << 16).view(np.float32)
    return wide


def encode(array: Array, dtype: str) -> Array:
    """Returns values as `storage` holds them; to bfloat16 they are rounded to the nearest, ties to even."""
    if dtype != "bfloat16":
        return np.asarray(array).astype(dtype)
    single = np.asarray(array, np.float32, order="C")
    bits = single.reshape(-1).view(np.uint32).astype(np.uint64)
    rounded = np.where(np.isnan(single.reshape(-1)), bits >> 16 | 0x40, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    return rounded.astype(np.uint16).reshape(np.shape(array))


def count_nans(array: Array, dtype: str) -> int:
    """Returns how many values are NaN."""
    return int(np.isnan(decode(array, dtype)).sum()) if is_float(dtype) else 0


def cast(array: Array, before: str, after: str) -> Array:
    """Returns an array in another element type, as the ONNX operator Cast does it."""
    return array if before == after else encode(decode(array, before), after)
