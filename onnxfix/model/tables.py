"""Tables that inputs of indices are looked up in: how large a token, a speaker or a position may be."""

from __future__ import annotations

from pathlib import Path

from onnxfix.model.model import Model

_PASSING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Transpose"})
"""Operators behind which indices are still the same numbers."""


def table_size(path: Path, port: str) -> int | None:
    """Returns the rows of the smallest table that `Gather` (ONNX, any opset) looks an input up in; None without one.

    Args:
        path: The model; its weights are not read.
        port: The input.
    """
    graph = Model.load(path).proto.graph
    rows = {weight.name: weight.dims[0] for weight in graph.initializer if weight.dims}
    alike = {port}
    found = []
    for node in graph.node:  # sorted by what they need
        if node.op_type in _PASSING and node.input and node.input[0] in alike:
            alike |= set(node.output)
        elif node.op_type == "Gather" and len(node.input) == 2 and node.input[1] in alike and node.input[0] in rows:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            found += [rows[node.input[0]]] if axis == 0 else []
    return min(found, default=None)
