"""What flows where in a graph: which outputs an input has a say in, and which ones hand it on.

Everything is read from the main graph, node by node, without any weights; what nested graphs read from outside counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from onnxfix.model.scopes import captured_names

_MOVES = frozenset(
    (
        "Identity",
        "Cast",
        "Transpose",
        "Reshape",
        "Slice",
        "Split",
        "Gather",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
    )
)
"""Operators of `ai.onnx` that move their first input and do nothing else."""
_KEEPS_AXES = frozenset(("Identity", "Cast", "Slice", "Split"))
_UPDATES: Mapping[str, Mapping[int, int]] = {
    "Concat": {0: 0},
    "TensorScatter": {0: 0},
    "ScatterND": {0: 0},
    "ScatterElements": {0: 0},
    # The states of recurrent networks: hidden, cell.
    "LSTM": {5: 1, 6: 2},
    "GRU": {5: 1},
    "RNN": {5: 1},
    # Past keys and values: ai.onnx opset 23; com.microsoft in onnxruntime's docs/ContribOperators.md.
    "Attention": {4: 1, 5: 2},
    "GroupQueryAttention": {3: 1, 4: 2},
    "MultiHeadAttention": {6: 1, 7: 2},
    "DecoderMaskedMultiHeadAttention": {5: 1, 6: 2},
}
"""Operators that make the present of a past: which output that is, by the input that the past is."""


@dataclass(frozen=True)
class Update:
    """A place where something new comes to an input.

    Attributes:
        value: The value that holds both.
        op_type: The operator.
        axis: For a `Concat`, the axis of the input that grows; None where that is not known.
    """

    value: str
    op_type: str
    axis: int | None = None


def dependencies(graph: onnx.GraphProto) -> dict[str, frozenset[str]]:
    """Returns, for every output of a graph, the inputs that it depends on."""
    names = [value.name for value in graph.input]
    # One bit an input.
    depends = {name: 1 << index for index, name in enumerate(names)}
    for node in graph.node:
        mask = 0
        for name in (*node.input, *captured_names(node)):
            mask |= depends.get(name, 0)
        if mask:
            depends.update(dict.fromkeys(node.output, mask))
    return {
        value.name: frozenset(
            name for index, name in enumerate(names) if depends.get(value.name, 0) >> index & 1
        )
        for value in graph.output
    }  # fmt: skip


class Flow:
    """Follows values of a main graph through movement, forwards and backwards."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._producers: dict[str, onnx.NodeProto] = {}
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            self._producers.update(dict.fromkeys(node.output, node))
            for index, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, index))

    def updates(self, name: str, rank: int) -> list[Update]:
        """Returns where an input is updated: behind nothing but movement, the first place on each way.

        Args:
            name: The input.
            rank: Its number of axes.
        """
        found: dict[Update, None] = {}
        seen = {name}
        # Each value with the input's axis behind each of its own; None where movement has mixed them.
        queue: list[tuple[str, tuple[int, ...] | None]] = [(name, tuple(range(rank)))]
        while queue:
            value, axes = queue.pop(0)
            for node, index in self._readers.get(value, ()):
                if update := _update(node, index, axes):
                    found[update] = None
                elif _is_movement(node) and index == 0:
                    fresh = [one for one in node.output if one and one not in seen]
                    seen.update(fresh)
                    queue += [(one, _moved(node, axes)) for one in fresh]
        return list(found)

    def origins(self, name: str) -> set[str]:
        """Returns the values that an output is made of by movement and concatenation alone, itself among them."""
        found = {name}
        queue = [name]
        while queue:
            node = self._producers.get(queue.pop())
            if node is None or not (_is_movement(node) or node.op_type == "Concat"):
                continue
            fresh = {one for one in _moved_inputs(node) if one and one not in found}
            found |= fresh
            queue += sorted(fresh)
        return found


def _is_movement(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in _MOVES


def _moved_inputs(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input if node.op_type == "Concat" else node.input[:1]


def _update(node: onnx.NodeProto, index: int, axes: tuple[int, ...] | None) -> Update | None:
    """Returns what a node does to the past that its input `index` is; None if it does not update it."""
    slots = dict(_UPDATES.get(node.op_type, {}))
    if node.op_type == "Attention" and node.domain == "com.microsoft":
        slots = {4: 1}
    output = slots.get(index)
    if output is None or output >= len(node.output) or not node.output[output]:
        return None
    axis = None
    if node.op_type == "Concat" and axes is not None:
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
        axis = axes[axis] if -len(axes) <= axis < len(axes) else None
    return Update(node.output[output], node.op_type, axis)


def _moved(node: onnx.NodeProto, axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Returns the axes behind a movement node; None where they cannot be followed without values."""
    if axes is None or node.op_type in _KEEPS_AXES:
        return axes
    if node.op_type == "Transpose":
        perm = next(
            (tuple(entry.ints) for entry in node.attribute if entry.name == "perm"), tuple(reversed(range(len(axes))))
        )
        return tuple(axes[index] for index in perm) if sorted(perm) == list(range(len(axes))) else None
    return None
