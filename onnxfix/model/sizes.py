"""What follows for one node from the integers that it reads: the sizes that it computes, and the dims that it gives."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import onnx

from onnxfix.convention.signature import Dim
from onnxfix.model.attributes import attributes_of


@dataclass(frozen=True)
class Sizes:
    """Integers that a small tensor holds, as far as they are known: a vector, or a scalar of one entry."""

    entries: tuple[Dim, ...]
    is_scalar: bool = False

    @property
    def integers(self) -> tuple[int, ...] | None:
        """All entries, where every one is a known integer."""
        known = tuple(entry for entry in self.entries if isinstance(entry, int))
        return known if len(known) == len(self.entries) else None


class Known(Protocol):
    """What is known of the values that nodes read."""

    def sizes_at(self, node: onnx.NodeProto, index: int) -> Sizes | None:
        """Returns what is known of the sizes that a node reads at an input."""

    def integers_at(self, node: onnx.NodeProto, index: int) -> tuple[int, ...] | None:
        """Returns the integers that a node reads at an input, where all are known."""

    def dims_at(self, node: onnx.NodeProto, index: int) -> tuple[Dim, ...] | None:
        """Returns the dims of what a node reads at an input."""


# The sizes that nodes compute


def _shape(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    dims = walk.dims_at(node, 0)
    attributes = attributes_of(node)
    start, end = attributes.get("start", 0), attributes.get("end")
    if dims is None or not isinstance(start, int) or not isinstance(end, int | None):
        return None
    return Sizes(dims[start:end])


def _gathered(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    sizes, picked = walk.sizes_at(node, 0), walk.sizes_at(node, 1)
    if sizes is None or sizes.is_scalar or picked is None or picked.integers is None:
        return None
    count = len(sizes.entries)
    if not all(-count <= index < count for index in picked.integers):
        return None
    return Sizes(tuple(sizes.entries[index] for index in picked.integers), picked.is_scalar)


def _concatenated(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    entries: tuple[Dim, ...] = ()
    for index in range(len(node.input)):
        sizes = walk.sizes_at(node, index)
        if sizes is None or sizes.is_scalar:
            return None
        entries += sizes.entries
    return Sizes(entries)


def _sliced(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    sizes = walk.sizes_at(node, 0)
    starts, ends = walk.integers_at(node, 1), walk.integers_at(node, 2)
    steps = walk.integers_at(node, 4) if len(node.input) > 4 else (1,)
    if sizes is None or sizes.is_scalar or starts is None or ends is None or steps is None or steps[0] == 0:
        return None
    # A descending slice ends before index 0 at the smallest integer, which for Python means the same as None.
    end = None if steps[0] < 0 and ends[0] < -len(sizes.entries) else ends[0]
    return Sizes(sizes.entries[starts[0] : end : steps[0]])


def _same(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    return walk.sizes_at(node, 0)


def _cast(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    kept = attributes_of(node).get("to") in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    return walk.sizes_at(node, 0) if kept else None


def _unsqueezed(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    sizes = walk.sizes_at(node, 0)
    return Sizes(sizes.entries) if sizes is not None and sizes.is_scalar else None


def _squeezed(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    sizes = walk.sizes_at(node, 0)
    return Sizes(sizes.entries, True) if sizes is not None and len(sizes.entries) == 1 else None


def _flattened(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    sizes = walk.sizes_at(node, 0)
    return Sizes(sizes.entries) if sizes is not None and walk.integers_at(node, 1) == (-1,) else None


def _computed(walk: Known, node: onnx.NodeProto) -> Sizes | None:
    left, right = walk.sizes_at(node, 0), walk.sizes_at(node, 1)
    if left is None or right is None:
        return None
    count = max(len(left.entries), len(right.entries))
    if {len(left.entries), len(right.entries)} - {1, count}:
        return None
    pairs = zip(_stretched(left, count), _stretched(right, count), strict=True)
    return Sizes(tuple(_result(node.op_type, *pair) for pair in pairs), left.is_scalar and right.is_scalar)


def _stretched(sizes: Sizes, count: int) -> tuple[Dim, ...]:
    return sizes.entries * count if len(sizes.entries) == 1 else sizes.entries


def _result(op_type: str, left: Dim, right: Dim) -> Dim:
    neutral = 1 if op_type in ("Mul", "Div") else 0
    if right == neutral:
        return left
    if left == neutral and op_type in ("Add", "Mul"):
        return right
    if not isinstance(left, int) or not isinstance(right, int):
        return None
    if op_type == "Div":
        # ONNX divides integers towards zero.
        return None if right == 0 else abs(left) // abs(right) * (1 if left * right >= 0 else -1)
    return {"Add": left + right, "Sub": left - right, "Mul": left * right}[op_type]


# The dims that follow


def _slice_dims(walk: Known, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
    dims, starts = walk.dims_at(node, 0), walk.sizes_at(node, 1)
    if not dims or starts is None:
        return None
    has_axes = len(node.input) > 3 and node.input[3]
    axes = walk.integers_at(node, 3) if has_axes else tuple(range(len(starts.entries)))
    if axes is None:
        return None
    bounds = [_bounds(walk, node, place) for place in range(len(axes))]
    sliced = list(dims)
    for axis, bound in zip(axes, bounds, strict=True):
        sliced[axis % len(dims)] = _slice_length(dims[axis % len(dims)], bound)
    return tuple(sliced)


def _bounds(walk: Known, node: onnx.NodeProto, place: int) -> tuple[int, int, int] | None:
    """Returns start, end and step of a slice along one of its axes, where all three are known."""
    rows = [walk.sizes_at(node, index) for index in (1, 2)]
    rows.append(walk.sizes_at(node, 4) if len(node.input) > 4 else Sizes((1,) * (place + 1)))
    entries = [row.entries[place] if row is not None and place < len(row.entries) else None for row in rows]
    start, end, step = entries
    if isinstance(start, int) and isinstance(end, int) and isinstance(step, int) and step:
        return start, end, step
    return None


def _slice_length(dim: Dim, bounds: tuple[int, int, int] | None) -> Dim:
    if bounds is None or not isinstance(dim, int):
        return None
    start, end, step = bounds
    # A descending slice ends before index 0 at any integer below -dim, which for Python means the same as None.
    stop = None if step < 0 and end < -dim else end
    return len(range(*slice(start, stop, step).indices(dim)))


def _reshape_dims(walk: Known, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
    target, dims = walk.sizes_at(node, 1), walk.dims_at(node, 0)
    if target is None:
        return None
    entries = list(target.entries)
    for axis, entry in enumerate(entries):
        if entry == 0 and not attributes_of(node).get("allowzero"):
            entries[axis] = dims[axis] if dims is not None and axis < len(dims) else None
    if -1 in entries:
        place = entries.index(-1)
        entries[place] = None if dims is None else _quotient(dims, entries[:place] + entries[place + 1 :])
    return tuple(entries)


def _quotient(dims: Sequence[Dim], others: Sequence[Dim]) -> Dim:
    """Returns the size that is left when the product of `dims` is divided by that of `others`."""
    if None in dims or None in others or 0 in others or -1 in others:
        return None
    above, below = (Counter(dim for dim in side if isinstance(dim, str)) for side in (dims, others))
    number, divisor = (_product(side) for side in (dims, others))
    left = list((above - below).elements())
    if below - above or number % divisor or len(left) > 1 or (left and number != divisor):
        return None
    return left[0] if left else number // divisor


def _product(dims: Sequence[Dim]) -> int:
    return prod(dim for dim in dims if isinstance(dim, int))


def _expand_dims(walk: Known, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
    target, dims = walk.sizes_at(node, 1), walk.dims_at(node, 0)
    if target is None or dims is None:
        return None
    return _broadcast(dims, target.entries)


def broadcast_dims(walk: Known, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
    """Returns the dims that an operator gives that computes element by element."""
    rows = [walk.dims_at(node, index) for index in range(len(node.input))]
    known = [row for row in rows if row is not None]
    return functools.reduce(_broadcast, known) if known and len(known) == len(rows) else None


@functools.lru_cache
def _broadcast(one: tuple[Dim, ...], other: tuple[Dim, ...]) -> tuple[Dim, ...]:
    if one == other:
        return one
    rank = max(len(one), len(other))
    sides = [(1,) * (rank - len(side)) + side for side in (one, other)]
    return tuple([_common(*pair) for pair in zip(*sides, strict=True)])


def _common(one: Dim, other: Dim) -> Dim:
    if one == 1 or one == other:
        return other
    if other == 1:
        return one
    return next((size for size in (one, other) if isinstance(size, int)), None)


def _filled_dims(walk: Known, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
    sizes = walk.sizes_at(node, 0)
    return None if sizes is None else sizes.entries


SIZES: dict[str, Callable[[Known, onnx.NodeProto], Sizes | None]] = {
    "Shape": _shape,
    "Gather": _gathered,
    "Concat": _concatenated,
    "Slice": _sliced,
    "Identity": _same,
    "Cast": _cast,
    "Unsqueeze": _unsqueezed,
    "Squeeze": _squeezed,
    "Reshape": _flattened,
    "Add": _computed,
    "Sub": _computed,
    "Mul": _computed,
    "Div": _computed,
}

SHAPES: dict[str, Callable[[Known, onnx.NodeProto], tuple[Dim, ...] | None]] = {
    "Slice": _slice_dims,
    "Reshape": _reshape_dims,
    "Expand": _expand_dims,
    "ConstantOfShape": _filled_dims,
}

BROADCASTING = frozenset(
    (
        "Abs", "Add", "And", "Cast", "Ceil", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Greater",
        "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log",
        "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign",
        "Sqrt", "Sub", "Tanh", "Where",
    )
)  # fmt: skip
"""Operators whose one output has the dims that all their inputs are broadcast to."""
