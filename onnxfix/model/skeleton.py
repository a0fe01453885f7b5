"""A model without its weights: small enough to copy, check, infer and simplify.

Weights of the main graph become graph inputs of the same name, type and dims, so that whoever reads them reads
something unknown. In nested graphs, which have no inputs of their own, a stub node with a number stands for each
weight. Both are distinct where the weights are: a tool that merges equal values finds none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from onnxfix.model.external import graphs_of, is_external, tensor_bytes

SMALL = 1024
"""Bytes up to which a tensor stays in the skeleton: shapes, indices, scalars, which constant folding needs."""

_STUB_DOMAIN = "onnxfix.skeleton"
_STUB_OP = "Weight"


@dataclass(frozen=True)
class Skeleton:
    """A model without its weights.

    Whatever is found out about it goes back into the model by the names of values, which are the same in both.

    Attributes:
        proto: The copy: it may be changed at will.
        hidden: Weights of the main graph that became graph inputs, besides those of the model.
    """

    proto: onnx.ModelProto
    hidden: frozenset[str]


def make_skeleton(model: onnx.ModelProto) -> Skeleton:
    """Copies a model without its weights; no weight is copied on the way.

    Training graphs are left out: they hold a second set of weights, and nothing here looks at them.
    """
    skeleton = onnx.ModelProto()
    _copy_fields(model, skeleton, besides=("graph", "training_info"))
    copy = _Copy(model)
    copy.main_graph(model.graph, skeleton.graph)
    if copy.stubs:
        skeleton.opset_import.add(domain=_STUB_DOMAIN, version=1)
    return Skeleton(skeleton, frozenset(copy.hidden))


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


def _type_of_constant(node: onnx.NodeProto) -> tuple[int, Iterable[int]]:
    """Returns element type and dims of what a `Constant` produces."""
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


class _Copy:
    """One copy in the making."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.hidden: list[str] = []
        self.stubs = 0
        # From IR version 4 on, an initializer that is also an input is a default that the caller may override.
        self.can_override = model.ir_version >= 4
        self.ports = {port.name for port in model.graph.input}

    def main_graph(self, source: onnx.GraphProto, target: onnx.GraphProto) -> None:
        """Copies the main graph; its weights become inputs."""
        _copy_fields(source, target, besides=("node", "initializer", "sparse_initializer"))
        for tensor in source.initializer:
            if is_weight(tensor) or (self.can_override and tensor.name in self.ports):
                self._hide(target, tensor.name, tensor.data_type, tensor.dims)
            else:
                target.initializer.append(tensor)
        for sparse in source.sparse_initializer:
            self._hide(target, sparse.values.name, sparse.values.data_type, sparse.dims)
        for node in source.node:
            if is_weight_node(node):
                self._hide(target, node.output[0], *_type_of_constant(node))
            else:
                self._node(node, target)

    def _hide(self, graph: onnx.GraphProto, name: str, elem_type: int, dims: Iterable[int]) -> None:
        self.hidden.append(name)
        if name not in self.ports:
            graph.input.append(onnx.helper.make_tensor_value_info(name, elem_type, list(dims)))

    def _node(self, node: onnx.NodeProto, target: onnx.GraphProto) -> None:
        if next(graphs_of(node), None) is None:
            target.node.append(node)
            return
        copy = target.node.add()
        _copy_fields(node, copy, besides=("attribute",))
        for attribute in node.attribute:
            written = copy.attribute.add()
            _copy_fields(attribute, written, besides=("g", "graphs"))
            if attribute.type == onnx.AttributeProto.GRAPH:
                self._nested_graph(attribute.g, written.g)
            for graph in attribute.graphs:
                self._nested_graph(graph, written.graphs.add())

    def _nested_graph(self, source: onnx.GraphProto, target: onnx.GraphProto) -> None:
        target.SetInParent()
        _copy_fields(source, target, besides=("node", "initializer", "sparse_initializer"))
        for tensor in source.initializer:
            if is_weight(tensor):
                self._stub(target, tensor.name, tensor.data_type, tensor.dims)
            else:
                target.initializer.append(tensor)
        for sparse in source.sparse_initializer:
            self._stub(target, sparse.values.name, sparse.values.data_type, sparse.dims)
        for node in source.node:
            if is_weight_node(node):
                self._stub(target, node.output[0], *_type_of_constant(node))
            else:
                self._node(node, target)

    def _stub(self, graph: onnx.GraphProto, name: str, elem_type: int, dims: Iterable[int]) -> None:
        graph.node.append(onnx.helper.make_node(_STUB_OP, [], [name], domain=_STUB_DOMAIN, number=self.stubs))
        self.stubs += 1
        if all(value.name != name for value in graph.value_info):
            graph.value_info.append(onnx.helper.make_tensor_value_info(name, elem_type, list(dims)))


def _copy_fields(source: Message, target: Message, besides: Sequence[str] = ()) -> None:
    for field, value in source.ListFields():
        if field.name in besides:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, field.name).CopyFrom(value)
        else:
            getattr(target, field.name).extend(value)
