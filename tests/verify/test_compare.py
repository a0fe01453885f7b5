from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxfix.errors import UsageError
from onnxfix.verify.compare import TOLERANCES, Difference, Mismatch, Tolerance, compare
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
    ("bool", np.array([True]), np.array([False]), 1),
]


@pytest.mark.parametrize(("dtype", "expected", "actual", "mismatched"), TOLERANT)
def test_with_a_tolerance_the_element_type_decides(dtype, expected, actual, mismatched):
    assert compare(expected, actual, dtype, TOLERANCES.get(dtype, Tolerance())).mismatched == mismatched


def wide(dtype: str, *values: float) -> np.ndarray:
    return encode(np.array(values), dtype)


MAX64 = float(np.finfo("float64").max)
# dtype, expected, actual: largest absolute and relative difference, mean, cosine, and what would have passed
STATISTICS = [
    ("float32", (3, 4), (3, 4), (0, 0, 0, 1, 0, 0)),
    ("float32", (0, 0), (0, 0), (0, 0, 0, None, 0, 0)),
    ("float32", (4, 0), (0, 4), (4, INF, 4, 0, 4, INF)),
    ("float32", (4, 8), (-4, -8), (16, 2, 12, -1, 16, 2)),
    ("float32", (4, 8, 2), (4, 10, 2), (2, 0.25, 2 / 3, None, 2, 0.25)),
    ("float16", (-60000, 1), (60000, 1), (120000, 2, 60000, None, 120000, 2)),
    ("bfloat16", (1, 2), (1, 3), (1, 0.5, 0.5, None, 1, 0.5)),
    ("float64", (MAX64, 0), (-MAX64, 0), (INF, INF, INF, -1, INF, INF)),
    ("float32", (NAN, 2), (NAN, 4), (2, 1, 2, None, 2, 1)),
    ("float32", (NAN, 2), (1, 2), (INF, INF, INF, None, INF, INF)),
    ("float32", (INF, 2), (INF, 4), (2, 1, 1, None, 2, 1)),
    ("float32", (0.0,), (-0.0,), (0, 0, 0, None, 0, 0)),
    ("int8", (-128, 1), (127, 1), (255, 255 / 128, 127.5, None, 255, 255 / 128)),
    ("uint8", (0, 9), (0, 9), (0, 0, 0, 1, 0, 0)),
    ("bool", (1, 1), (1, 0), (1, 1, 0.5, None, INF, INF)),
]


@pytest.mark.parametrize(("dtype", "expected", "actual", "facts"), STATISTICS)
def test_a_difference_has_its_statistics(dtype, expected, actual, facts):
    found = compare(wide(dtype, *expected), wide(dtype, *actual), dtype)

    *numbers, cosine, needed_abs, needed_rel = facts
    assert (found.max_abs, found.max_rel, found.mean_abs) == pytest.approx(tuple(numbers))
    assert (found.needed_abs, found.needed_rel) == pytest.approx((needed_abs, needed_rel))
    if cosine is not None:
        assert found.cosine == pytest.approx(cosine)
    elif found.cosine is not None:
        assert -1 < found.cosine < 1


def test_integers_are_subtracted_exactly():
    lowest, highest = np.array([-(2**63)]), np.array([2**63 - 1])

    assert compare(lowest, highest, "int64").max_abs == 2.0**64
    assert compare(np.array([2**60]), np.array([2**60 + 2]), "int64", Tolerance(1, 0)).mismatched == 1
    assert compare(np.array([2**60]), np.array([2**60 + 2]), "int64", Tolerance(2, 0)).mismatched == 0


def test_a_nan_is_no_evidence_where_the_bits_decide_and_a_difference_where_a_tolerance_does():
    both = f(NAN, 1)

    assert compare(both, both, "float32") == Difference(1, 1)
    tolerant = compare(both, both, "float32", Tolerance(1e9, 1e9))
    assert (tolerant.values, tolerant.nans, tolerant.mismatched, tolerant.place) == (2, 0, 1, (0,))


@pytest.mark.parametrize("number", [-1e-9, INF, NAN])
def test_a_tolerance_is_finite_and_not_negative(number):
    for pair in ((number, 0.0), (0.0, number)):
        with pytest.raises(UsageError, match="is no tolerance"):
            Tolerance(*pair)


SINGLE = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e-45, 3.4e38, -3.4e38]), st.floats(-4, 4, width=16)
)


@given(
    st.lists(st.tuples(SINGLE, SINGLE), min_size=1, max_size=6),
    st.sampled_from([0, 0.5, 3]),
    st.sampled_from([0, 0.25]),
)
def test_arrays_differ_as_their_values_do(pairs, atol, rtol):
    expected, actual = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    found = compare(expected, actual, "float32", Tolerance(atol, rtol))

    gaps = [gap_of(float(left), float(right)) for left, right in zip(expected, actual, strict=True)]
    bounds = [atol + rtol * abs(float(left)) if math.isfinite(left) else atol for left in expected]
    assert found.mismatched == sum(gap > bound for gap, bound in zip(gaps, bounds, strict=True))
    assert (found.values, found.nans) == (len(pairs), 0)
    assert found.max_abs == max(gaps)
    assert found.mean_abs == pytest.approx(sum(gaps) / len(gaps), rel=1e-12)
    if found.worst is not None:
        assert gaps[found.worst.index[0]] == max(gaps)


def gap_of(left: float, right: float) -> float:
    if left == right:
        return 0.0
    return abs(left - right) if math.isfinite(left) and math.isfinite(right) else INF


@given(st.lists(st.tuples(SINGLE, SINGLE), min_size=1, max_size=6))
def test_the_tolerance_that_would_have_passed_passes_and_no_smaller_one_does(pairs):
    expected, actual = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    found = compare(expected, actual, "float32", Tolerance())

    for needed, make in ((found.needed_abs, lambda x: Tolerance(x, 0)), (found.needed_rel, lambda x: Tolerance(0, x))):
        if math.isfinite(needed):
            assert compare(expected, actual, "float32", make(needed)).mismatched == 0
        else:
            assert compare(expected, actual, "float32", make(1e300)).mismatched > 0
        if 0 < needed < INF:
            assert compare(expected, actual, "float32", make(needed * (1 - 1e-12))).mismatched > 0


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
