"""A model's main graph, linked: who produces, reads and captures what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import onnx

from onnxfix.convention.signature import Dim, Port
from onnxfix.model import scopes
from onnxfix.model.attributes import Array, constant_value, tensor_value
from onnxfix.model.external import graphs_of
from onnxfix.model.model import Model
from onnxfix.model.node import Link, Node, Value
from onnxfix.model.ports import dtype_name, port_of
from onnxfix.model.writing import PortEntry


class Maker(Protocol):
    """Makes values and links that keep track of each other."""

    def value(self, name: str) -> Value:
        """Makes a value that nothing produces or reads yet."""

    def link(
        self, op_type: str, name: str, inputs: Sequence[Value], outputs: Sequence[Value], domain: str | None
    ) -> Link:
        """Makes a node's connections, and lets the values know."""


class LinkedGraph:
    """What can be read of a main graph, by names.

    Attributes:
        model: The model that is seen.
    """

    def __init__(self, model: Model, maker: Maker) -> None:
        self.model = model
        self._maker = maker
        self._tensors: dict[str, Value] = {}
        self._nodes: dict[Link, Node] = {}
        self._holders: list[Node] = []
        self._hidden: dict[str, list[Node]] = {}
        self._constants: dict[Value, Array | None] = {}
        self._read_graph(model.proto.graph)

    def _read_graph(self, graph: onnx.GraphProto) -> None:
        self._initializers: dict[Value, onnx.TensorProto | onnx.SparseTensorProto] = {}
        for tensor in graph.initializer:
            self._initializers[self._tensor(tensor.name)] = tensor
        for sparse in graph.sparse_initializer:
            self._initializers[self._tensor(sparse.values.name)] = sparse
        self._note_inputs([PortEntry(self._tensor(value.name), value) for value in graph.input])
        self._note_outputs([PortEntry(self._tensor(value.name), value) for value in graph.output])
        for proto in graph.node:
            self._note_node(proto)
        self._note_types(graph)

    def _note_node(self, proto: onnx.NodeProto) -> Node:
        names = list(proto.input)
        has_graphs = next(graphs_of(proto), None) is not None
        link = self._maker.link(
            proto.op_type,
            proto.name,
            inputs=[self._tensor(name) for name in ((*names, *scopes.captured_names(proto)) if has_graphs else names)],
            outputs=[self._tensor(name) for name in proto.output],
            domain=proto.domain if proto.HasField("domain") else None,
        )
        node = self._nodes[link] = Node(link, proto, len(names))
        if has_graphs:
            self._holders.append(node)
            for name in scopes.inner_names(proto):
                self._hidden.setdefault(name, []).append(node)
        return node

    def _tensor(self, name: str) -> Value:
        if not name:
            return self._maker.value("")
        tensor = self._tensors.get(name)
        if tensor is None:
            tensor = self._tensors[name] = self._maker.value(name)
        return tensor

    def _note_inputs(self, entries: list[PortEntry]) -> None:
        self._inputs = entries
        self._input_tensors = {entry.value for entry in entries}

    def _note_outputs(self, entries: list[PortEntry]) -> None:
        self._outputs = entries
        self._output_tensors = {entry.value for entry in entries}

    def _note_types(self, graph: onnx.GraphProto) -> None:
        """Remembers where types are described: few of them are ever asked for."""
        named = ((v.name, v) for values in (graph.value_info, graph.output, graph.input) for v in values)
        self._described = {self._tensors[name]: value for name, value in named if name in self._tensors}
        # What an earlier description said means nothing beside this one.
        self._types: dict[Value, Port] = {}

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return self.model.opset

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes: those of the file in its order, then added ones until `commit` places them."""
        return tuple(self._nodes.values())

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The graph's inputs, in order, without those that have an initializer."""
        return tuple(entry.port for entry in self._inputs if entry.value not in self._initializers)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The graph's outputs, in order."""
        return tuple(entry.port for entry in self._outputs)

    def has_value(self, name: str) -> bool:
        """Says whether the main graph has a value of that name: an input, an initializer, or a node's output."""
        tensor = self._tensors.get(name)
        return tensor is not None and self._is_provided(tensor)

    def is_input(self, name: str) -> bool:
        """Says whether the value is a graph input."""
        return self._tensors.get(name) in self._input_tensors

    def is_output(self, name: str) -> bool:
        """Says whether the value is a graph output."""
        return self._tensors.get(name) in self._output_tensors

    def producer(self, name: str) -> Node | None:
        """Returns the node that produces the value; None for inputs, initializers and unknown names."""
        tensor = self._tensors.get(name)
        return self._nodes[tensor.inputs[0]] if tensor is not None and tensor.inputs else None

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Returns the nodes that read the value themselves, each once, in no promised order."""
        return tuple([node for node in self._readers(name) if not node.has_captures or name in node.inputs])

    def capturers(self, name: str) -> tuple[Node, ...]:
        """Returns the nodes whose nested graphs read the value, each once."""
        return tuple([node for node in self._readers(name) if node.has_captures and name in node.captures])

    def constant(self, name: str) -> Array | None:
        """Returns a value that is known and small: of an initializer or a `Constant`; None for any other."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        if tensor not in self._constants:
            self._constants[tensor] = self._constant(tensor)
        return self._constants[tensor]

    def type_of(self, name: str) -> Port | None:
        """Returns dtype and dims of a value as declared or inferred; None where nothing is known."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        if tensor not in self._types and tensor in self._described:
            self._types[tensor] = port_of(self._described[tensor])
        if tensor in self._types:
            known = self._types[tensor]
            return known if known.name == name else replace(known, name=name)
        stored = self._initializers.get(tensor)
        if isinstance(stored, onnx.TensorProto):
            return Port(name, dtype_name(stored.data_type), tuple(stored.dims))
        value = self.constant(name)
        return None if value is None else Port(name, value.dtype.name, value.shape)

    def dims_of(self, name: str) -> tuple[Dim, ...] | None:
        """Returns the dims of a value as declared or inferred; None where not even the rank is known."""
        port = self.type_of(name)
        return None if port is None else port.dims

    def _readers(self, name: str) -> Iterable[Node]:
        tensor = self._tensors.get(name)
        return [] if tensor is None else [self._nodes[link] for link in dict.fromkeys(tensor.outputs)]

    def _is_provided(self, tensor: Value) -> bool:
        return bool(tensor.inputs) or tensor in self._initializers or tensor in self._input_tensors

    def _is_read(self, tensor: Value) -> bool:
        return bool(tensor.outputs) or tensor in self._output_tensors

    def _constant(self, tensor: Value) -> Array | None:
        stored = self._initializers.get(tensor)
        # From IR version 4 on, an initializer that is also an input is a default that the caller may override.
        if isinstance(stored, onnx.TensorProto) and (tensor not in self._input_tensors or self.model.ir_version < 4):
            value = tensor_value(stored)
        elif tensor.inputs and tensor.inputs[0].op == "Constant":
            value = constant_value(self._nodes[tensor.inputs[0]].proto)
        else:
            value = None
        if value is not None:
            value.setflags(write=False)
        return value
