"""Answers Shape and Size of tensors that may go, from tensors that stay.

`Shape` of a packed cache would keep the packed tensor alive. Each of its sizes is a number, or the size of a new port
along one of its axes; those who ask for one size by Gather are pointed there, all others get the sizes put together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxfix.surgery.routes import extent_of
from onnxfix.surgery.size import Size

if TYPE_CHECKING:
    from onnxfix.model.graph import GraphView, Node
    from onnxfix.surgery.view import View

_RANGES = 15
"""The opset from which on Shape yields a range of dims (onnx/onnx: docs/Changelog.md, Shape-15)."""


def is_question(node: Node) -> bool:
    """Whether a node asks for the size of a tensor and nothing else."""
    return node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx")


def reroot(graph: GraphView, question: Node, view: View, made: str = "") -> bool:
    """Lets those who read a Shape or Size read the same of tensors that stay.

    Args:
        graph: The graph, edited in place.
        question: The Shape or Size.
        view: The tensor that it asks about.
        made: A tensor with the content of `view`, if there is one anyway.

    Returns:
        False where a size is that of no port, or the answer is an output of the graph: nothing was changed then.
    """
    answer = question.outputs[0]
    asked = _asked(question, view)
    is_told = all(isinstance(size, int) or _place(graph, size) for size in asked)
    if is_told and _is_asked_one_by_one(graph, question, asked):
        for node in graph.consumers(answer):
            _point(graph, node, asked)
    elif made:
        graph.set_input(question, 0, made)
    elif not is_told or graph.is_output(answer):
        return False
    else:
        told = _product(graph, asked) if question.op_type == "Size" else _vector(graph, asked)
        graph.replace_uses(answer, told)
    return True


def _asked(question: Node, view: View) -> tuple[Size, ...]:
    if question.op_type == "Size":
        return view.dims
    return view.dims[slice(question.integer("start", 0), question.integer("end", len(view.dims)))]


def _place(graph: GraphView, size: Size) -> tuple[str, int] | None:
    """Returns the tensor and its axis that have a size."""
    place = extent_of(size) if isinstance(size, str) else None
    return place if place is not None and graph.has_value(place[0]) else None


def _is_asked_one_by_one(graph: GraphView, question: Node, asked: Sequence[Size]) -> bool:
    """Whether all who read a whole Shape take one size of it by Gather."""
    answer = question.outputs[0]
    if question.op_type == "Size" or "start" in question.attributes or "end" in question.attributes:
        return False
    if graph.is_output(answer) or graph.capturers(answer):
        return False
    for node in graph.consumers(answer):
        index = graph.constant(node.inputs[1]) if node.op_type == "Gather" and node.inputs[0] == answer else None
        if index is None or index.size != 1:
            return False
        if isinstance(asked[int(index.reshape(-1)[0])], int) and graph.is_output(node.outputs[0]):
            return False
    return True


def _point(graph: GraphView, gather: Node, asked: Sequence[Size]) -> None:
    """Points a Gather of one size at the tensor that has it; a number takes its place."""
    index = graph.constant(gather.inputs[1])
    assert index is not None
    size = asked[int(index.reshape(-1)[0])]
    place = _place(graph, size)
    if place is None:
        graph.replace_uses(gather.outputs[0], graph.add_constant(np.full(index.shape, size, np.int64), "onnxfix_size"))
        graph.remove_node(gather)
        return
    graph.set_input(gather, 0, _shape_of(graph, place[0]))
    if int(index.reshape(-1)[0]) != place[1]:
        graph.set_input(gather, 1, graph.add_constant(np.full(index.shape, place[1], index.dtype), "onnxfix_axis"))


def _shape_of(graph: GraphView, name: str) -> str:
    """Returns the whole shape of a tensor, from one node for all who ask."""
    for node in graph.consumers(name):
        if node.op_type == "Shape" and not node.attributes:
            return node.outputs[0]
    return graph.add_node("Shape", [name], name="onnxfix_Shape").outputs[0]


def _vector(graph: GraphView, sizes: Sequence[Size]) -> str:
    """Returns a 1-D int64 tensor with these sizes."""
    pieces = []
    for name, run in itertools.groupby(sizes, lambda size: (_place(graph, size) or ("",))[0]):
        row = list(run)
        pieces.append(_run_of(graph, name, row) if name else _constant(graph, row))
    if len(pieces) < 2:
        return pieces[0] if pieces else _constant(graph, ())
    return _node(graph, "Concat", pieces, axis=0)


def _constant(graph: GraphView, sizes: Iterable[Size]) -> str:
    return graph.add_constant(np.array([int(size) for size in sizes], np.int64), "onnxfix_size")


def _run_of(graph: GraphView, name: str, sizes: Sequence[Size]) -> str:
    """Returns sizes that one tensor has: a range of its Shape where they are neighbours."""
    axes = [place[1] for size in sizes if (place := _place(graph, size)) is not None]
    if graph.opset >= _RANGES and axes == list(range(axes[0], axes[0] + len(axes))):
        return _node(graph, "Shape", [name], start=axes[0], end=axes[-1] + 1)
    index = graph.add_constant(np.array(axes, np.int64), "onnxfix_axis")
    return _node(graph, "Gather", [_shape_of(graph, name), index], axis=0)


def _product(graph: GraphView, sizes: Sequence[Size]) -> str:
    """Returns a scalar with the number of elements."""
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes):
        return graph.add_constant(np.array(np.prod(known, dtype=np.int64)), "onnxfix_size")
    return _node(graph, "ReduceProd", [_vector(graph, sizes)], keepdims=0)


def _node(graph: GraphView, op_type: str, inputs: Sequence[str], **attributes: int) -> str:
    return graph.add_node(op_type, inputs, attributes=attributes, name=f"onnxfix_{op_type}").outputs[0]
