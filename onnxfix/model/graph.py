"""A model's graph as something to walk and change.

onnx-graphsurgeon keeps who produces and who reads what; the model's own message stays the envelope. The view is built
here rather than by graphsurgeon's importer, which drops attributes and metadata it does not know and fails on optional
types; only new nodes are written by its exporter. What nobody touched is not written at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxfix.convention.signature import Dim, Port
from onnxfix.errors import RewriteError
from onnxfix.model import scopes
from onnxfix.model.attributes import Array, Attribute, attributes_of, constant_value, tensor_value
from onnxfix.model.external import graphs_of
from onnxfix.model.model import Model
from onnxfix.model.ports import dtype_name, port_of, set_type, value_info


class _Tensor(gs.Variable):  # type: ignore[misc]
    """A value of the main graph. Graphsurgeon compares tensors by name, which says nothing while names change."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class _Link(gs.Node):  # type: ignore[misc]
    """A node's connections. Graphsurgeon compares nodes by content, which takes time and confuses twins."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Node:
    """A node of the main graph; valid until it is removed.

    Attributes:
        op_type: The operator.
        domain: Its operator set; empty for ONNX's own.
        name: The node's name; may be empty.
    """

    def __init__(self, link: _Link, arity: int, proto: onnx.NodeProto | None) -> None:
        self._link = link
        self._arity = arity
        self._proto = proto
        self._attributes: dict[str, Attribute] | None = None
        self.op_type: str = link.op
        self.domain: str = link.domain or ""
        self.name: str = link.name

    def __repr__(self) -> str:
        return f"<{self.op_type} {self.name}: {', '.join(self.inputs)} -> {', '.join(self.outputs)}>"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what the node reads; empty for an optional input that is left out."""
        return tuple(tensor.name for tensor in self._link.inputs[: self._arity])

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what the node produces; empty for an optional output that is left out."""
        return tuple(tensor.name for tensor in self._link.outputs)

    @property
    def captures(self) -> tuple[str, ...]:
        """The names that the node's nested graphs read from the main graph, at any depth."""
        return tuple(tensor.name for tensor in self._link.inputs[self._arity :])

    @property
    def has_graphs(self) -> bool:
        """Says whether the node carries nested graphs (`If`, `Loop`, `Scan`)."""
        return self._proto is not None and next(graphs_of(self._proto), None) is not None

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """The attributes in plain Python, without graphs, types, and tensors that are weights."""
        if self._attributes is None:
            self._attributes = attributes_of(self._proto) if self._proto is not None else {}
        return self._attributes

    def int(self, name: str, default: int) -> int:
        """Returns an attribute that is one integer; `default` where the node has none of that name."""
        value = self.attributes.get(name)
        return value if isinstance(value, int) else default

    def ints(self, name: str) -> tuple[int, ...] | None:
        """Returns an attribute that is a list of integers; None where the node has none of that name."""
        value = self.attributes.get(name)
        return tuple(int(entry) for entry in value) if isinstance(value, list) else None

    def string(self, name: str, default: str) -> str:
        """Returns an attribute that is one string; `default` where the node has none of that name."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else default


@dataclass
class _Entry:
    """A graph input or output: its value, its message in the file, and what a caller wants it to be."""

    tensor: _Tensor
    proto: onnx.ValueInfoProto | None
    wanted: Port | None = None

    @property
    def port(self) -> Port:
        port = self.wanted or (port_of(self.proto) if self.proto is not None else Port(self.tensor.name, "float32", None))
        return replace(port, name=self.tensor.name)


class GraphView:
    """A model's main graph, by names.

    Reading shows pending edits at once; the model sees them at `commit`. Nested graphs are not walked, but what they
    capture is known, and follows renames.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        graph = model.proto.graph
        self._tensors: dict[str, _Tensor] = {}
        self._nodes: dict[int, Node] = {}
        self._taken = scopes.all_names(model.proto)
        self._counters: dict[str, int] = {}
        self._initializers: dict[_Tensor, onnx.TensorProto | onnx.SparseTensorProto] = {}
        for tensor in graph.initializer:
            self._initializers[self._tensor(tensor.name)] = tensor
        for sparse in graph.sparse_initializer:
            self._initializers[self._tensor(sparse.values.name)] = sparse
        self._inputs = [_Entry(self._tensor(value.name), value) for value in graph.input]
        self._outputs = [_Entry(self._tensor(value.name), value) for value in graph.output]
        for proto in graph.node:
            self._link(proto.op_type, proto.name, proto.domain, proto.input, scopes.captured_names(proto), proto.output, proto)
        self._types: dict[_Tensor, Port] = {}
        self._note_types(graph)
        self._constants: dict[_Tensor, Array | None] = {}
        self._added_constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._dangling = {tensor for tensor in self._tensors.values() if not self._is_provided(tensor)}
        self._touched: dict[int, Node] = {}
        self._removed: list[Node] = []
        self._dropped: list[_Tensor] = []
        self._renamed: dict[_Tensor, str] = {}
        self._new_initializers: list[onnx.TensorProto] = []
        self._ports_changed = False
