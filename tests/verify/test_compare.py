from __future__ import annotations

import math

import numpy as np
import pytest

from onnxfix.verify.compare import TOLERANCES, Mismatch, Tolerance, compare
from onnxfix.verify.dtypes import cast, decode, encode

NAN, INF = math.nan, math.inf


def f(*values: float, dtype: str = "float32") -> np.ndarray:
    return np.array(values, dtype)


# expected, actual, values compared, mismatched
EXACT = [
    (f(1, 2), f(1, 2), 2, 0),
    (f(), f(), 0, 0),
    (f(1, 2), f(1, np.nextafter(np.float32(2), np.float32(3))), 2, 1),
    (f(0.0), f(-0.0), 1, 1),
    (f(INF, -INF), f(INF, -INF), 2, 0),
    (f(INF), f(-INF), 1, 1),
    (f(INF), f(1), 1, 1),
    (f(NAN, 1), f(NAN, 1), 1, 0),
    (f(NAN, 1), f(1, NAN), 2, 2),
    (f(NAN), np.array([0x7FC00001], np.uint32).view(np.float32), 1, 1),
    (np.array([2**62, 1]), np.array([2**62 + 1, 1]), 2, 1),
    (np.array([True, False]), np.array([True, True]), 2, 1),
    (np.array(3), np.array(4), 1, 1),
]


@pytest.mark.parametrize(("expected", "actual", "values", "mismatched"), EXACT)
def test_without_a_tolerance_the_bits_decide(expected, actual, values, mismatched):
    found = compare(expected, actual, str(expected.dtype))

    assert (found.values, found.mismatched) == (values, mismatched)
    assert (found.worst is None) == (mismatched == 0)


# dtype, expected, actual, how many differ
TOLERANT = [
    ("float32", f(1.0), f(1.00005), 0),
    ("float32", f(1.0), f(1.001), 1),
    ("float32", f(0.0), f(-0.0), 0),
    ("float32", f(NAN), f(NAN), 1),
    ("float32", f(INF), f(INF), 0),
    ("float32", f(INF), f(1e38), 1),
    ("float64", f(1.0, dtype="float64"), f(1.00005, dtype="float64"), 1),
    ("float16", f(1.0, dtype="float16"), f(1.005, dtype="float16"), 0),
    ("bfloat16", encode(f(1.0), "bfloat16"), encode(f(1.0078125), "bfloat16"), 0),
    ("int64", np.array([5]), np.array([6]), 1),
    ("bool", np.array([True]), np.array([False]), 1),
]


@pytest.mark.parametrize(("dtype", "expected", "actual", "mismatched"), TOLERANT)
def test_with_a_tolerance_the_element_type_decides(dtype, expected, actual, mismatched):
    assert compare(expected, actual, dtype, TOLERANCES.get(dtype, Tolerance())).mismatched == mismatched


def test_the_worst_place_is_named():
    expected = np.zeros((2, 3), np.float32)
    actual = expected.copy()
    actual[0, 1], actual[1, 2] = 0.5, -2

    found = compare(expected, actual, "float32")

    assert found.worst == Mismatch((1, 2), "0.0", "-2.0")
    assert (found.mismatched, found.max_abs, found.max_rel) == (2, 2.0, INF)


@pytest.mark.parametrize(
    ("actual", "what", "shown"),
    [(np.zeros((3, 2), np.float32), "shape", "[3, 2]"), (np.zeros((2, 3)), "dtype", "float64")],
)
def test_another_shape_or_type_differs_even_where_the_bytes_agree(actual, what, shown):
    worst = compare(np.zeros((2, 3), np.float32), actual, "float32").worst

    assert worst is not None
    assert (worst.what, worst.actual) == (what, shown)


def test_an_empty_array_of_another_shape_differs():
    assert compare(np.zeros((0, 2), np.float32), np.zeros((0, 3), np.float32), "float32").mismatched


def test_bfloat16_rounds_to_the_nearest_even():
    single = f(1.0, 1.00390625, 1.01171875, -2.5, 3.4e38, INF, -0.0, NAN)

    bits = encode(single, "bfloat16")

    assert bits[:7].tolist() == [0x3F80, 0x3F80, 0x3F82, 0xC020, 0x7F80, 0x7F80, 0x8000]
    assert np.isnan(decode(bits, "bfloat16")[7])
    assert cast(bits[:1], "bfloat16", "int32").tolist() == [1]
