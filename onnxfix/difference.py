"""A model as text, one line per port, weight and node, and the difference of two."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import onnx

from onnxfix.convention.layout import show_dims
from onnxfix.convention.signature import Port

if TYPE_CHECKING:
    from onnxfix.model.model import Model


def difference(before: Model, after: Model, old: str, new: str) -> list[str]:
    """Returns the unified diff of two models' texts, three lines around each change.

    Args:
        before: The source.
        after: The result.
        old: What the source is called in the first line.
        new: What the result is called in the second.
    """
    lines = difflib.unified_diff(list(model_lines(before)), list(model_lines(after)), old, new, lineterm="")
    return list(lines)


def model_lines(model: Model) -> Iterator[str]:
    """Yields the text of a model: what stands around its graph, then the graph; weights are named, not written out."""
    proto = model.proto
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in proto.opset_import)
    yield f"ir {proto.ir_version}, opset {opsets}"
    yield from (f"metadata {entry.key} = {entry.value!r}" for entry in proto.metadata_props)
    signature = model.signature()
    yield from (f"input  {_port(port)}" for port in signature.inputs)
    yield from (f"output {_port(port)}" for port in signature.outputs)
    yield from _graph_lines(proto.graph, "")


def _port(port: Port) -> str:
    return f"{port.name}: {port.dtype}{show_dims(port.dims)}"


def _graph_lines(graph: onnx.GraphProto, indent: str) -> Iterator[str]:
    for tensor in graph.initializer:
        yield f"{indent}{tensor.name} = {_tensor(tensor)}"
    for node in graph.node:
        yield from _node_lines(node, indent)


def _node_lines(node: onnx.NodeProto, indent: str) -> Iterator[str]:
    """Yields one line and, for the graphs that the node carries, theirs below it."""
    domain = f"{node.domain}::" if node.domain not in ("", "ai.onnx") else ""
    attributes = ", ".join(f"{entry.name}={_attribute(entry)}" for entry in node.attribute if not _graphs(entry))
    text = f"{domain}{node.op_type}{f'<{attributes}>' if attributes else ''}({', '.join(node.input)})"
    yield f"{indent}{', '.join(node.output)} = {text}"
    for entry in node.attribute:
        for graph in _graphs(entry):
            yield f"{indent}  {entry.name}:"
            yield from _graph_lines(graph, f"{indent}    ")
            yield f"{indent}    -> {', '.join(value.name for value in graph.output)}"


def _graphs(entry: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [entry.g] if entry.type == onnx.AttributeProto.GRAPH else list(entry.graphs)


def _attribute(entry: onnx.AttributeProto) -> str:
    from onnxfix.model.attributes import attribute_value

    if entry.type == onnx.AttributeProto.TENSOR:
        return _tensor(entry.t)
    value = attribute_value(entry)
    return onnx.AttributeProto.AttributeType.Name(entry.type).lower() if value is None else str(value)


def _tensor(tensor: onnx.TensorProto) -> str:
    """Returns type and dims and, of what may be a shape, an index or a factor, the values."""
    from onnxfix.model.attributes import tensor_value
    from onnxfix.model.ports import dtype_name

    kind = f"{dtype_name(tensor.data_type)}{show_dims(tuple(tensor.dims))}"
    value = tensor_value(tensor)
    if value is None or (value.size > 1 and value.dtype.kind not in "biu"):
        return f"{kind} weight"
    return f"{kind} {' '.join(str(one) for one in value.ravel().tolist())}".rstrip()
