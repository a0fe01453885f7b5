"""Sizes: what is known of products and shares of numbers that only run time has."""

from __future__ import annotations

import pytest

from onnxfix.surgery.pattern import refine
from onnxfix.surgery.size import Size, is_made_of, product, quotient, share

HEADS, THIRD = product([3, "x@0"]), share("x@0", 3) or 0


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], 1), ([2, 3], 6), (["x@0"], "x@0"), ([1, "x@0"], "x@0"), (["x@0", 3], "3*x@0"), ([HEADS, 2], "6*x@0"),
        (["y@1", "x@0"], "x@0*y@1"), ([0, "x@0"], 0), ([THIRD, 3], "x@0"), ([THIRD, 2], "2*x@0/3"),
    ],
)  # fmt: skip
def test_products(sizes: list[Size], expected: Size) -> None:
    assert product(sizes) == expected


def test_equal_products_are_equal_tokens() -> None:
    assert product(["x@0", 2, "y@1"]) == product([product(["y@1", 2]), "x@0"])


def test_names_are_not_taken_apart() -> None:
    """Exporters call tensors `/layers.0/attention/Mul*2`."""
    name = "/layers.3/3*x@0/3"

    assert product([name, 3]) != "/layers.3/3*x@0"
    assert quotient(product([name, 3]), 3) == name


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (6, 4, None), (6, 0, None), ("x@0", 3, None), ("x@0", "y@0", None), (3, "x@0", None), (HEADS, 2, None),
        (HEADS, "y@0", None), (THIRD, "x@0", None), (0, "x@0", None),
        (6, 3, 2), (0, 3, 0), (HEADS, 3, "x@0"), (HEADS, "x@0", 3), (HEADS, HEADS, 1), ("x@0", THIRD, 3),
        (product(["x@0", "y@1"]), "y@1", "x@0"), (product([6, "x@0"]), HEADS, 2),
    ],
)  # fmt: skip
def test_quotients_that_hold_whatever_the_sizes(one: Size, other: Size, expected: Size | None) -> None:
    assert quotient(one, other) == expected


def test_what_a_size_is_computed_from() -> None:
    assert is_made_of(HEADS, ["x@0", 7])
    assert is_made_of(5, [])
    assert not is_made_of(product([HEADS, "y@0"]), ["x@0"])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((HEADS, 5), ("y@0", 15), None),
        ((0, 3), (3, "x@0"), None),
        ((HEADS, 5), ("x@0", 3, 5), [("x@0", 0, 0), (3, 0, 1), (5, 1, 2)]),
        (("x@0", 3, 5), (HEADS, 5), [("x@0", 0, 0), (3, 1, 0), (5, 2, 1)]),
        (("x@0", 15), (HEADS, 5), [("x@0", 0, 0), (3, 1, 0), (5, 1, 1)]),
    ],
)
def test_common_factors(
    one: tuple[Size, ...], other: tuple[Size, ...], expected: list[tuple[Size, int, int]] | None
) -> None:
    assert refine(one, other) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (7, 3, None), ("x@0", "y@0", None), ("x@0", 0, None),
        ("x@0", 3, "x@0/3"), (HEADS, 6, "x@0/2"), (product([4, "x@0"]), 8, "x@0/2"), (6, 3, 2), (THIRD, 2, "x@0/6"),
    ],
)  # fmt: skip
def test_shares_that_are_known_to_have_no_rest(one: Size, other: Size, expected: Size | None) -> None:
    assert share(one, other) == expected
