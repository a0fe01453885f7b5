"""A model without its weights: small enough to copy, check, infer and simplify.

Weights of the main graph become graph inputs of the same name, type and dims, so that whoever reads them reads
something unknown. In nested graphs, which have no inputs of their own, a stub node with a number stands for each
weight. Both are distinct where the weights are: a tool that merges equal values finds none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from onnxfix.model.external import graphs_of, is_external, tensor_bytes

SMALL = 1024
"""Bytes up to which a tensor stays in the skeleton: shapes, indices, scalars, which constant folding needs."""

STUB_DOMAIN = "onnxfix.skeleton"
_STUB_OP = "Weight"

_Hidden = onnx.TensorProto | onnx.SparseTensorProto | onnx.NodeProto


@dataclass(frozen=True)
class Skeleton:
    """A model without its weights, and what is missing.

    Attributes:
        proto: The copy: it may be changed at will.
        hidden: Weights of the main graph that became graph inputs.
        stubs: Weights of nested graphs, by the number in their stub.
    """

    proto: onnx.ModelProto
    hidden: frozenset[str]
    stubs: tuple[_Hidden, ...]

    def fill(self, node: onnx.NodeProto) -> None:
        """Puts the weights back into the graphs that a node of the skeleton carries."""
        for graph in graphs_of(node):
            self._fill_graph(graph)

    def _fill_graph(self, graph: onnx.GraphProto) -> None:
        filled = onnx.GraphProto()
        for node in graph.node:
            self.fill(node)
            weight = self.stubs[node.attribute[0].i] if node.domain == STUB_DOMAIN else node
            if isinstance(weight, onnx.NodeProto):
                filled.node.append(weight)
            elif isinstance(weight, onnx.TensorProto):
                graph.initializer.append(weight)
            else:
                graph.sparse_initializer.append(weight)
        if any(node.domain == STUB_DOMAIN for node in graph.node):
            del graph.node[:]
            graph.node.MergeFrom(filled.node)


def make_skeleton(model: onnx.ModelProto) -> Skeleton:
    """Copies a model without its weights; neither is a weight copied on the way.

    Training graphs are left out: they hold a second set of weights, and nothing here looks at them.
    """
    skeleton = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name in ("graph", "training_info"):
            continue
        if isinstance(value, (str, int)):
            setattr(skeleton, field.name, value)
        else:
            getattr(skeleton, field.name).extend(value)
    stubs: list[_Hidden] = []
    hidden = _copy_main_graph(model.graph, skeleton.graph, stubs, can_override=model.ir_version >= 4)
    if stubs:
        skeleton.opset_import.add(domain=STUB_DOMAIN, version=1)
    return Skeleton(skeleton, frozenset(hidden), tuple(stubs))


def is_weight(tensor: onnx.TensorProto) -> bool:
    """Says whether a tensor is too large to be looked at, or lies in another file."""
    if is_external(tensor):
        return True
    size = tensor_bytes(tensor)
    return (tensor.ByteSize() if size is None else size) > SMALL


def is_weight_node(node: onnx.NodeProto) -> bool:
    """Says whether a node is a `Constant` whose value is a weight."""
    return node.op_type == "Constant" and any(
        (a.type == onnx.AttributeProto.TENSOR and is_weight(a.t)) or a.ByteSize() > 4 * SMALL for a in node.attribute
    )


def _copy_main_graph(
    source: onnx.GraphProto, target: onnx.GraphProto, stubs: list[_Hidden], *, can_override: bool
) -> list[str]:
    _copy_fields(source, target)
    ports = {port.name for port in source.input}
    hidden: list[str] = []

    def hide(name: str, elem_type: int, dims: Iterable[int] | None) -> None:
        hidden.append(name)
        if name not in ports:
            port = target.input.add(name=name)
            port.type.tensor_type.elem_type = elem_type
            if dims is not None:
                port.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=dim) for dim in dims)

    for tensor in source.initializer:
        # From IR version 4 on, an initializer that is also an input is a default that the caller may override.
        if is_weight(tensor) or (can_override and tensor.name in ports):
            hide(tensor.name, tensor.data_type, tensor.dims)
        else:
            target.initializer.append(tensor)
    for sparse in source.sparse_initializer:
        hide(sparse.values.name, sparse.values.data_type, sparse.dims)
    for node in source.node:
        if is_weight_node(node):
            hide(node.output[0], *_constant_type(node))
        else:
            _copy_node(node, target, stubs)
    return hidden


def _constant_type(node: onnx.NodeProto) -> tuple[int, Iterable[int] | None]:
    attribute = node.attribute[0]
    if attribute.type == onnx.AttributeProto.TENSOR:
        return attribute.t.data_type, attribute.t.dims
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        return attribute.sparse_tensor.values.data_type, attribute.sparse_tensor.dims
    if attribute.type == onnx.AttributeProto.FLOATS:
        return onnx.TensorProto.FLOAT, [len(attribute.floats)]
    if attribute.type == onnx.AttributeProto.INTS:
        return onnx.TensorProto.INT64, [len(attribute.ints)]
    return onnx.TensorProto.STRING, [len(attribute.strings)] if attribute.strings else []


def _copy_fields(source: onnx.GraphProto, target: onnx.GraphProto) -> None:
    for field, value in source.ListFields():
        if field.name in ("node", "initializer", "sparse_initializer"):
            continue
        if isinstance(value, str):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)


def _copy_node(node: onnx.NodeProto, target: onnx.GraphProto, stubs: list[_Hidden]) -> None:
    if not any(True for _ in graphs_of(node)):
        target.node.append(node)
        return
    copy = target.node.add()
    for field, value in node.ListFields():
        if field.name == "attribute":
            continue
        if isinstance(value, str):
            setattr(copy, field.name, value)
        else:
            getattr(copy, field.name).extend(value)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            nested = copy.attribute.add(name=attribute.name, type=attribute.type, doc_string=attribute.doc_string)
            _copy_nested_graph(attribute.g, nested.g, stubs)
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            nested = copy.attribute.add(name=attribute.name, type=attribute.type, doc_string=attribute.doc_string)
            for graph in attribute.graphs:
                _copy_nested_graph(graph, nested.graphs.add(), stubs)
        else:
            copy.attribute.append(attribute)


def _copy_nested_graph(source: onnx.GraphProto, target: onnx.GraphProto, stubs: list[_Hidden]) -> None:
    _copy_fields(source, target)
    for tensor in source.initializer:
        if is_weight(tensor):
            _add_stub(target, tensor.name, tensor, stubs)
        else:
            target.initializer.append(tensor)
    for sparse in source.sparse_initializer:
        _add_stub(target, sparse.values.name, sparse, stubs)
    for node in source.node:
        if is_weight_node(node):
            _add_stub(target, node.output[0], node, stubs)
        else:
            _copy_node(node, target, stubs)


def _add_stub(graph: onnx.GraphProto, output: str, weight: _Hidden, stubs: list[_Hidden]) -> None:
    number = onnx.AttributeProto(name="number", type=onnx.AttributeProto.INT, i=len(stubs))
    graph.node.add(op_type=_STUB_OP, domain=STUB_DOMAIN, output=[output], attribute=[number])
    stubs.append(weight)
