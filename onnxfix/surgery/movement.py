"""Reads nodes as data movement: what a Slice, Split, Gather, ... of the graph is, as a view of its input.

A node that is more than movement, or whose parameters are not known before run time, is none: these functions return
None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onnxfix.surgery.algebra import Views
from onnxfix.surgery.integers import Integers
from onnxfix.surgery.size import Size, Term, is_made_of, product, share
from onnxfix.surgery.view import END, Bound, View

if TYPE_CHECKING:
    from onnxfix.model.graph import GraphView, Node


def outputs_of(
    node: Node, inputs: Sequence[View | None], graph: GraphView, views: Views, integers: Integers
) -> list[View] | None:  # fmt: skip
    """Returns the views of a node's outputs.

    Args:
        node: The node.
        inputs: The view of each input; None for an input that is no movement (a parameter).
        graph: The graph, for constants.
        views: Where views are made.
        integers: Evaluates parameters that are inputs.
    """
    read = _READERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if read is None or inputs[0] is None or not node.outputs:
        return None
    return read(_Reading(node, graph, views, integers), [view for view in inputs if view is not None])


def is_movement(node: Node) -> bool:
    """Whether the operator is one that moves data, whatever its parameters."""
    return node.op_type in _READERS and node.domain in ("", "ai.onnx")


class _Reading:
    """A node's parameters, from attributes or constant inputs, whichever its opset has."""

    def __init__(self, node: Node, graph: GraphView, views: Views, integers: Integers) -> None:
        self.integers = integers
        self.node = node
        self.inputs = node.inputs
        self.graph = graph
        self.views = views

    def name(self, index: int) -> str:
        return self.inputs[index] if index < len(self.inputs) else ""

    def has(self, index: int) -> bool:
        return bool(self.name(index))

    def numbers(self, index: int) -> tuple[int, ...] | None:
        """An input whose numbers are known before run time."""
        found = self.integers.of(self.name(index)) if self.has(index) else None
        return None if found is None else found.known

    def parameter(self, index: int, attribute: str) -> tuple[int, ...] | None:
        """A list that is an input in newer opsets and an attribute in older ones."""
        return self.numbers(index) if self.has(index) else self.node.integers(attribute)

    def axis(self, default: int, rank: int) -> int:
        axis = self.node.integer("axis", default)
        return axis + rank if axis < 0 else axis


def _identity(reading: _Reading, inputs: list[View]) -> list[View] | None:
    return [inputs[0]]


def _cast(reading: _Reading, inputs: list[View]) -> list[View] | None:
    """Cast; how 8-bit floats are saturated or rounded is left alone where it is said."""
    attributes = reading.node.attributes
    target = reading.node.integer("to", 0)
    is_plain = attributes.keys() <= {"to", "saturate"} and attributes.get("saturate", 1) == 1
    return [reading.views.cast(inputs[0], target)] if is_plain and target else None


def _slice(reading: _Reading, inputs: list[View]) -> list[View] | None:
    """Slice, opset 10 and newer. Bounds may be run-time values where one axis is cut."""
    view = inputs[0]
    if not reading.has(1):
        return None
    steps = reading.numbers(4) if reading.has(4) else None
    starts = _bounds(reading, 1)
    axes = reading.numbers(3) if reading.has(3) else tuple(range(len(starts or ())))
    if starts is None or axes is None or (reading.has(4) and steps is None):
        return None
    stops = _bounds(reading, 2, [view.dims[axis % len(view.dims)] for axis in axes])
    steps = steps or (1,) * len(starts)
    if stops is None or not len(starts) == len(stops) == len(axes) == len(steps) or min(steps, default=1) < 1:
        return None
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        view = reading.views.slice(view, axis % len(view.dims), start, stop, step)
    return [view]


def _bounds(reading: _Reading, index: int, whole: Sequence[Size] = ()) -> tuple[Bound, ...] | None:
    """Returns the numbers of a bound, or its name; a bound that is the whole size of its axis is the end."""
    found = reading.integers.of(reading.name(index))
    if found is not None:
        entries = found.entries
        if len(whole) == len(entries):
            entries = tuple(END if entry == size else entry for entry, size in zip(entries, whole, strict=True))
        numbers = tuple(entry for entry in entries if isinstance(entry, int))
        if len(numbers) == len(entries):
            return numbers
    port = reading.graph.type_of(reading.name(index))
    # The other parameters are written as int64, and ONNX wants all of one type.
    return (reading.name(index),) if port is not None and (port.dtype, port.dims) == ("int64", (1,)) else None


def _split(reading: _Reading, inputs: list[View]) -> list[View] | None:
    view = inputs[0]
    axis = reading.axis(0, len(view.dims))
    sizes = reading.parameter(1, "split")
    count = len(reading.node.outputs)
    if reading.has(1) and sizes is None:
        return None
    if sizes is None:
        size = view.dims[axis]
        if not isinstance(size, int):
            return None
        # Opset 18: the last part is smaller where the size does not divide.
        part = -(-size // count)
        sizes = tuple(max(0, min(part, size - part * index)) for index in range(count))
    begins = [sum(sizes[:index]) for index in range(count)]
    return [reading.views.slice(view, axis, begin, begin + size) for begin, size in zip(begins, sizes, strict=True)]


def _gather(reading: _Reading, inputs: list[View]) -> list[View] | None:
    view = inputs[0]
    axis = reading.axis(0, len(view.dims))
    size = view.dims[axis]
    found = reading.integers.of(reading.name(1))
    if found is None or not found.known or not isinstance(size, int):
        return None
    indices = [index + (size if index < 0 else 0) for index in found.known]
    if not all(0 <= index < size for index in indices):
        return None
    if found.is_scalar:
        return [reading.views.pick(view, axis, indices[0])]
    parts = [reading.views.slice(view, axis, index, index + 1) for index in indices]
    return [reading.views.join(parts, axis)]


def _squeeze(reading: _Reading, inputs: list[View]) -> list[View] | None:
    view = inputs[0]
    axes = reading.parameter(1, "axes")
    if axes is None:
        if reading.has(1) or not all(isinstance(size, int) for size in view.dims):
            return None
        axes = tuple(index for index, size in enumerate(view.dims) if size == 1)
    axes = tuple(axis % len(view.dims) for axis in axes)
    if any(view.dims[axis] != 1 for axis in axes):
        return None
    return [reading.views.squeeze(view, axes)]


def _unsqueeze(reading: _Reading, inputs: list[View]) -> list[View] | None:
    axes = reading.parameter(1, "axes")
    if axes is None:
        return None
    rank = len(inputs[0].dims) + len(axes)
    return [reading.views.unsqueeze(inputs[0], [axis % rank for axis in axes])]


def _transpose(reading: _Reading, inputs: list[View]) -> list[View] | None:
    rank = len(inputs[0].dims)
    return [reading.views.transpose(inputs[0], reading.node.integers("perm") or tuple(reversed(range(rank))))]


def _reshape(reading: _Reading, inputs: list[View]) -> list[View] | None:
    view = inputs[0]
    wanted = reading.integers.of(reading.name(1))
    if wanted is None or wanted.is_scalar or (0 in wanted.entries and reading.node.integer("allowzero", 0)):
        return None
    shape: list[Size] = []
    for index, size in enumerate(wanted.entries):
        if size == 0 and index >= len(view.dims):
            return None
        shape.append(view.dims[index] if size == 0 else size)
    # A size of another tensor (exporters ask any cache for the batch) is what is left, too: no elements come or go.
    strange = [place for place, size in enumerate(shape) if size == -1 or not is_made_of(size, view.dims)]
    if len(strange) > 1:
        return None
    for place in strange:
        left = share(product(view.dims), product([*shape[:place], *shape[place + 1 :]]))
        # To merge dims of unknown size, -1 is the shortest that can be said.
        if left is None or (shape[place] == -1 and isinstance(left, Term) and left not in view.dims):
            return None
        shape[place] = left
    moved = reading.views.reshape(view, shape)
    return None if moved is None else [moved]


def _flatten(reading: _Reading, inputs: list[View]) -> list[View] | None:
    """Flatten merges the dims before an axis, and those behind it."""
    view = inputs[0]
    rank = len(view.dims)
    axis = reading.axis(1, rank)
    atoms = tuple((size,) for size in view.dims)
    return [reading.views.move(view, atoms, (tuple(range(axis)), tuple(range(axis, rank))))]


def _concat(reading: _Reading, inputs: list[View]) -> list[View] | None:
    if len(inputs) != len(reading.node.inputs):
        return None
    return [reading.views.join(inputs, reading.axis(0, len(inputs[0].dims)))]


_READERS: dict[str, Callable[[_Reading, list[View]], list[View] | None]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
