"""What the tables cannot write down: sizes that only a plan tells apart."""

from __future__ import annotations

from onnxfix.surgery.algebra import Views
from onnxfix.surgery.view import Join, Move


def test_dims_that_are_merged_with_different_sizes_are_not_joined_before() -> None:
    """Identity 6: `[2, x]` and `[2, z]`, merged to one dim, can be concatenated; as they are, they cannot."""
    views = Views()
    parts = [views.move(views.leaf(name, (2, f"{name}@1")), ((2,), (f"{name}@1",)), ((0, 1),)) for name in ("x", "z")]
    joined = views.join(parts, 0)
    assert isinstance(joined, Join)
    assert all(isinstance(part, Move) for part in joined.parts)


def test_dims_that_are_merged_with_one_size_are_joined_before() -> None:
    """As above, but of one size: the tokens are the same."""
    views = Views()
    parts = [views.move(views.leaf(name, (2, "t")), ((2,), ("t",)), ((0, 1),)) for name in ("x", "z")]
    joined = views.join(parts, 0)
    assert isinstance(joined, Move)
    assert isinstance(joined.of, Join)
