"""A model's graph as something to walk and change.

onnx-graphsurgeon keeps who produces and who reads what; the model's own message stays the envelope. The view is built
here rather than by graphsurgeon's importer, which drops attributes and metadata it does not know and fails on optional
types; only new nodes are written by its exporter. What nobody touched is not written at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
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
from onnxfix.model.ports import describe, dtype_name, port_of
from onnxfix.model.shapes import infer_shapes


class _Tensor(gs.Variable):  # type: ignore[misc]
    """A value of the main graph. Graphsurgeon compares tensors by name, which says nothing while names change."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class _Link(gs.Node):  # type: ignore[misc]
    """A node's connections. Graphsurgeon compares nodes by content, which takes time and confuses twins."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Node:
    """A node of the main graph, until it is removed.

    Attributes:
        op_type: The operator.
        domain: Its operator set; empty for ONNX's own.
        name: The node's name; may be empty.
    """

    def __init__(self, link: _Link, proto: onnx.NodeProto, arity: int) -> None:
        self._link = link
        self._proto = proto
        # Graphsurgeon's node reads the inputs first, and then what its nested graphs capture.
        self._arity = arity
        self._written_captures = self.captures
        self._attributes: Mapping[str, Attribute] | None = None
        self.op_type: str = link.op
        self.domain: str = link.domain or ""
        self.name: str = link.name

    def __repr__(self) -> str:
        return f"<{self.op_type} `{self.name}`: {', '.join(self.inputs)} -> {', '.join(self.outputs)}>"

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
        return next(graphs_of(self._proto), None) is not None

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """The attributes in plain Python, without graphs, types, and tensors that are weights."""
        if self._attributes is None:
            self._attributes = attributes_of(self._proto)
        return self._attributes

    def integer(self, name: str, default: int) -> int:
        """Returns an attribute that is one integer; `default` where the node has none of that name."""
        value = self.attributes.get(name)
        return value if isinstance(value, int) else default

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Returns an attribute that is a list of integers; None where the node has none of that name."""
        value = self.attributes.get(name)
        return tuple(int(entry) for entry in value) if isinstance(value, list) else None

    def string(self, name: str, default: str) -> str:
        """Returns an attribute that is one string; `default` where the node has none of that name."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else default


@dataclass
class _Entry:
    """A graph input or output: its value, its message in the file, and what it shall become."""

    tensor: _Tensor
    proto: onnx.ValueInfoProto | None
    wanted: Port | None = None

    @property
    def port(self) -> Port:
        known = self.wanted or port_of(self.proto or onnx.ValueInfoProto())
        return replace(known, name=self.tensor.name)

    def written(self) -> onnx.ValueInfoProto:
        """Returns the message, changed no more than the caller wants."""
        value = onnx.ValueInfoProto()
        if self.proto is not None:
            value.CopyFrom(self.proto)
        describe(value, self.port)
        return value


class GraphView:
    """A model's main graph, by names.

    Every reading shows the edits made so far; the model itself changes at `commit`. Nested graphs are not walked, but
    what they capture is known, keeps its producer alive, and follows renames.

    Attributes:
        model: The model that is seen and changed.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._taken = scopes.all_names(model.proto)
        self._counters: dict[str, int] = {}
        self._tensors: dict[str, _Tensor] = {}
        self._nodes: dict[_Link, Node] = {}
        self._types: dict[_Tensor, Port] = {}
        self._constants: dict[_Tensor, Array | None] = {}
        self._shared: dict[tuple[str, tuple[int, ...], bytes], _Tensor] = {}
        self._read_graph(model.proto.graph)
        self._missing_before = {tensor for tensor in self._tensors.values() if not self._is_provided(tensor)}
        self._forget_edits()

    def _read_graph(self, graph: onnx.GraphProto) -> None:
        self._initializers: dict[_Tensor, onnx.TensorProto | onnx.SparseTensorProto] = {}
        for tensor in graph.initializer:
            self._initializers[self._tensor(tensor.name)] = tensor
        for sparse in graph.sparse_initializer:
            self._initializers[self._tensor(sparse.values.name)] = sparse
        self._note_inputs([_Entry(self._tensor(value.name), value) for value in graph.input])
        self._note_outputs([_Entry(self._tensor(value.name), value) for value in graph.output])
        for proto in graph.node:
            self._note_node(proto)
        self._note_types(graph)

    def _note_node(self, proto: onnx.NodeProto) -> Node:
        link = _Link(
            proto.op_type,
            proto.name,
            inputs=[self._tensor(name) for name in (*proto.input, *scopes.captured_names(proto))],
            outputs=[self._tensor(name) for name in proto.output],
            domain=proto.domain if proto.HasField("domain") else None,
        )
        node = self._nodes[link] = Node(link, proto, len(proto.input))
        return node

    def _forget_edits(self) -> None:
        self._touched: dict[_Link, None] = {}
        self._added: dict[_Link, None] = {}
        self._removed: list[Node] = []
        self._added_initializers: dict[_Tensor, onnx.TensorProto] = {}
        self._removed_initializers: list[onnx.TensorProto | onnx.SparseTensorProto] = []
        self._unplugged: dict[_Tensor, None] = {}
        self._renamed: dict[_Tensor, str] = {}
        self._ports_changed = False
        self._new_ports: set[str] = set()

    def _tensor(self, name: str) -> _Tensor:
        if not name:
            return _Tensor("")
        tensor = self._tensors.get(name)
        if tensor is None:
            tensor = self._tensors[name] = _Tensor(name)
        return tensor

    def _note_inputs(self, entries: list[_Entry]) -> None:
        self._inputs = entries
        self._input_tensors = {entry.tensor for entry in entries}

    def _note_outputs(self, entries: list[_Entry]) -> None:
        self._outputs = entries
        self._output_tensors = {entry.tensor for entry in entries}

    def _note_types(self, graph: onnx.GraphProto) -> None:
        for values in (graph.value_info, graph.output, graph.input):
            for value in values:
                if value.name in self._tensors:
                    self._types[self._tensors[value.name]] = port_of(value)

    # Reading

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
        return tuple(entry.port for entry in self._inputs if entry.tensor not in self._initializers)

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
        return tuple(node for node in self._readers(name) if name in node.inputs)

    def capturers(self, name: str) -> tuple[Node, ...]:
        """Returns the nodes whose nested graphs read the value, each once."""
        return tuple(node for node in self._readers(name) if name in node.captures)

    def is_used(self, name: str) -> bool:
        """Says whether anything reads the value: a node, a nested graph, or the caller as a graph output."""
        tensor = self._tensors.get(name)
        return tensor is not None and self._is_read(tensor)

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
        if tensor in self._types:
            return replace(self._types[tensor], name=name)
        stored = self._initializers.get(tensor)
        if isinstance(stored, onnx.TensorProto):
            return Port(name, dtype_name(stored.data_type), tuple(stored.dims))
        known = self.constant(name)
        return None if known is None else Port(name, known.dtype.name, known.shape)

    def dims_of(self, name: str) -> tuple[Dim, ...] | None:
        """Returns the dims of a value as declared or inferred; None where not even the rank is known."""
        port = self.type_of(name)
        return None if port is None else port.dims

    def infer_shapes(self) -> None:
        """Commits, and infers the types of all values; what cannot be inferred stays as declared.

        A size that is not known gets a name that begins with `unk__`. Within one inference, values with the same name
        have the same size there. Such names are nothing for a model's ports.
        """
        self.commit()
        try:
            inferred = infer_shapes(self.model.skeleton().proto)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return
        # Names of an earlier inference mean nothing beside those of this one.
        self._types.clear()
        self._note_types(inferred.graph)

    def _readers(self, name: str) -> Iterable[Node]:
        tensor = self._tensors.get(name)
        return [] if tensor is None else [self._nodes[link] for link in dict.fromkeys(tensor.outputs)]

    def _is_provided(self, tensor: _Tensor) -> bool:
        return bool(tensor.inputs) or tensor in self._initializers or tensor in self._input_tensors

    def _is_read(self, tensor: _Tensor) -> bool:
        return bool(tensor.outputs) or tensor in self._output_tensors

    def _constant(self, tensor: _Tensor) -> Array | None:
        stored = self._initializers.get(tensor)
        # From IR version 4 on, an initializer that is also an input is a default that the caller may override.
        if isinstance(stored, onnx.TensorProto) and (tensor not in self._input_tensors or self.model.ir_version < 4):
            value = tensor_value(stored)
        elif tensor.inputs and tensor.inputs[0].op == "Constant":
            value = constant_value(self._nodes[tensor.inputs[0]]._proto)
        else:
            value = None
        if value is not None:
            value.setflags(write=False)
        return value

    # Editing

    def fresh_name(self, hint: str) -> str:
        """Returns a name that no value and no node bears, at any depth, and reserves it."""
        name = hint
        while name in self._taken or not name:
            self._counters[hint] = self._counters.get(hint, 0) + 1
            name = f"{hint}_{self._counters[hint]}"
        self._taken.add(name)
        return name

    def add_node(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: int | Sequence[str] = 1,
        *,
        attributes: Mapping[str, Attribute] | None = None,
        name: str = "",
        domain: str = "",
    ) -> Node:
        """Adds a node; `commit` puts it before its first reader.

        Args:
            op_type: The operator.
            inputs: Names of existing values; empty for an optional input that is left out.
            outputs: How many new values it produces, or their names. A name may be that of a value that lost its
                producer: then whoever read it reads the new one.
            attributes: In plain Python; arrays become tensors.
            name: A hint for the names of node and outputs; the operator if empty.
            domain: The operator set; empty for ONNX's own.

        Raises:
            RewriteError: An input does not exist, or an output exists already.
        """
        name = self.fresh_name(name or op_type)
        if isinstance(outputs, int):
            outputs = [self.fresh_name(f"{name}_output_{index}") for index in range(outputs)]
        link = _Link(
            op_type,
            name,
            attrs={
                key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
                for key, value in (attributes or {}).items()
            },
            inputs=[self._known(entry) for entry in inputs],
            outputs=[self._unprovided(entry) for entry in outputs],
            domain=domain or None,
        )
        proto = OnnxExporter.export_node(link)
        link.attrs = {}
        node = self._nodes[link] = Node(link, proto, len(inputs))
        self._added[link] = None
        return node

    def add_written_node(self, proto: onnx.NodeProto) -> Node:
        """Adds a node as it is written, nested graphs included; `commit` puts it before its first reader.

        Raises:
            RewriteError: An input or a captured value does not exist, or an output exists already.
        """
        for name in (*proto.input, *scopes.captured_names(proto)):
            self._known(name)
        for name in proto.output:
            self._unprovided(name)
        node = self._note_node(proto)
        self._added[node._link] = None
        return node

    def add_constant(self, value: Array, name: str = "constant") -> str:
        """Adds a value and returns its name; equal values are added once."""
        key = (str(value.dtype), value.shape, value.tobytes())
        known = self._shared.get(key)
        if known is not None and self._is_provided(known):
            return str(known.name)
        added = self.fresh_name(name)
        self.add_initializer(numpy_helper.from_array(value, added))
        self._shared[key] = self._tensors[added]
        return added

    def add_initializer(self, stored: onnx.TensorProto) -> None:
        """Adds a value as it is written, under its own name.

        Below IR version 4 it becomes a `Constant` node, since there every initializer is a graph input too.

        Raises:
            RewriteError: The name is taken.
        """
        tensor = self._unprovided(stored.name)
        if self.model.ir_version < 4:
            self.add_written_node(onnx.helper.make_node("Constant", [], [stored.name], value=stored))
        else:
            self._initializers[tensor] = self._added_initializers[tensor] = stored

    def set_input(self, node: Node, index: int, name: str) -> None:
        """Lets a node read another value at one of its inputs.

        Raises:
            RewriteError: There is no such value.
        """
        if not 0 <= index < node._arity:
            raise IndexError(f"{node} has no input {index}")
        node._link.inputs[index] = self._known(name)
        self._touched[node._link] = None

    def set_captures(self, node: Node, names: Mapping[str, str]) -> None:
        """Lets a node's nested graphs read other values: old names and new ones.

        Raises:
            RewriteError: There is no such new value.
        """
        for index in range(node._arity, len(node._link.inputs)):
            old = node._link.inputs[index].name
            new = names.get(old, old)
            if new != old:
                node._link.inputs[index] = self._known(new)
                self._touched[node._link] = None

    def replace_uses(self, old: str, new: str) -> None:
        """Lets every node and nested graph that reads `old` read `new`; graph outputs stay what they are.

        Raises:
            RewriteError: There is no value `new`.
        """
        source, target = self._tensors.get(old), self._known(new)
        if source is None or source is target:
            return
        for link in dict.fromkeys(source.outputs):
            for index, tensor in enumerate(link.inputs):
                if tensor is source:
                    link.inputs[index] = target
            self._touched[link] = None

    def set_inputs(self, ports: Sequence[Port]) -> None:
        """Sets the graph's inputs, in order. Inputs that have an initializer are no ports, and stay.

        A port that exists keeps what else the file says of it. Values that lose their port need another producer, or
        no reader, before `commit`.

        Raises:
            RewriteError: A name is taken by another value, or occurs twice.
        """
        self._require_distinct(ports)
        valued = [entry for entry in self._inputs if entry.tensor in self._initializers]
        known = {entry.tensor.name: entry for entry in self._inputs if entry.tensor not in self._initializers}
        for port in ports:
            if port.name not in known:
                known[port.name] = _Entry(self._unprovided(port.name), None)
        # A valued input keeps its distance from the front, as far as there are that many ports.
        before = {id(entry): index for index, entry in enumerate(self._inputs)}
        entries = [self._wanted(known[port.name], port) for port in ports]
        for entry in valued:
            entries.insert(before[id(entry)], entry)
        self._note_inputs(entries)
        self._types.update({entry.tensor: entry.port for entry in entries})
        self._ports_changed = True

    def set_outputs(self, ports: Sequence[Port]) -> None:
        """Sets the graph's outputs, in order. A port that exists keeps what else the file says of it.

        Raises:
            RewriteError: There is no such value, or a name occurs twice.
        """
        self._require_distinct(ports)
        known = {entry.tensor.name: entry for entry in self._outputs}
        entries = (known.get(port.name) or _Entry(self._known(port.name), None) for port in ports)
        self._note_outputs([self._wanted(entry, port) for entry, port in zip(entries, ports, strict=True)])
        self._ports_changed = True

    def rename(self, names: Mapping[str, str]) -> None:
        """Renames values, all at once, so that two can exchange their names.

        Args:
            names: Old names and new ones.

        Raises:
            RewriteError: There is no such value, or a new name is taken by a value that keeps it.
        """
        moved = {self._known(old): new for old, new in names.items() if old != new}
        claimed: set[str] = set()
        for tensor, new in moved.items():
            holder = self._tensors.get(new)
            if not new or new in claimed or (holder is not None and holder not in moved):
                raise self._error(f"`{tensor.name}` cannot be renamed to `{new}`: another value has that name")
            claimed.add(new)
        for tensor in moved:
            del self._tensors[tensor.name]
        for tensor, new in moved.items():
            self._renamed.setdefault(tensor, tensor.name)
            tensor.name = new
            self._tensors[new] = tensor
            self._taken.add(new)
            self._touched.update(dict.fromkeys([*tensor.inputs, *tensor.outputs]))
            self._ports_changed = True

    def remove_dead(self, names: Iterable[str]) -> int:
        """Removes what produces these values, as far as nothing reads it any more, and what only that has read.

        Returns:
            The number of nodes removed. What was dead elsewhere stays.
        """
        removed = 0
        waiting = [self._tensors[name] for name in names if name in self._tensors]
        while waiting:
            tensor = waiting.pop()
            if self._is_read(tensor):
                continue
            if tensor in self._initializers and tensor not in self._input_tensors:
                self._remove_initializer(tensor)
            for link in [link for link in tensor.inputs if not any(self._is_read(other) for other in link.outputs)]:
                waiting.extend(link.inputs)
                self._remove(link)
                removed += 1
        return removed

    def remove_node(self, node: Node) -> None:
        """Removes a node. What it produced needs another producer, or no reader, before `commit`."""
        self._remove(node._link)

    def _remove(self, link: _Link) -> None:
        self._unplugged.update(dict.fromkeys(link.outputs))
        node = self._nodes.pop(link)
        link.inputs.clear()
        link.outputs.clear()
        self._touched.pop(link, None)
        if link in self._added:
            del self._added[link]
        else:
            self._removed.append(node)

    def _remove_initializer(self, tensor: _Tensor) -> None:
        stored = self._initializers.pop(tensor)
        self._unplugged[tensor] = None
        if self._added_initializers.pop(tensor, None) is None:
            self._removed_initializers.append(stored)

    def _known(self, name: str) -> _Tensor:
        if name and name not in self._tensors:
            raise self._error(f"the graph has no value `{name}`")
        return self._tensor(name)

    def _unprovided(self, name: str) -> _Tensor:
        if self.has_value(name):
            raise self._error(f"the name `{name}` is taken by another value of the graph")
        self._taken.add(name)
        tensor = self._tensor(name)
        self._constants.pop(tensor, None)
        return tensor

    def _require_distinct(self, ports: Sequence[Port]) -> None:
        names = [port.name for port in ports]
        for name in names:
            if names.count(name) > 1:
                raise self._error(f"two ports cannot both be named `{name}`")

    def _wanted(self, entry: _Entry, port: Port) -> _Entry:
        if entry.proto is None or entry.port != port:
            entry.wanted = port
            self._types[entry.tensor] = port
        return entry

    def _error(self, message: str) -> RewriteError:
        return RewriteError(message, where=self.model.name)

    # Writing

    @property
    def is_edited(self) -> bool:
        """Says whether there is anything to commit."""
        edits = (self._touched, self._added, self._removed, self._renamed, self._unplugged, self._added_initializers)
        return any(edits) or self._ports_changed

    def commit(self) -> None:
        """Writes the edits into the model; what they do not touch stays byte for byte.

        Raises:
            RewriteError: A node or graph output reads a value that nothing produces any more, or the edits made a
                cycle. The model is unchanged then.
        """
        if not self.is_edited:
            return
        self._require_complete()
        order = self._order()
        graph = self.model.proto.graph
        self._write_nodes(graph, order)
        self._write_initializers(graph)
        if self._ports_changed:
            self._write_ports(graph)
        self._write_annotations(graph)
        self._forget_edits()

    def _require_complete(self) -> None:
        for tensor in [*self._tensors.values()]:
            if self._is_provided(tensor) or tensor in self._missing_before or not self._is_read(tensor):
                continue
            reader = self._nodes[tensor.outputs[0]] if tensor.outputs else "a graph output"
            raise self._error(f"nothing produces `{tensor.name}` any more, which {reader} reads")

    def _order(self) -> list[Node]:
        """Keeps the file's order, but puts every producer before its first reader."""
        order: dict[_Link, None] = {}
        entered: set[_Link] = set()
        # Added nodes last: those that nobody reads, because they feed the graph's outputs, belong at the end.
        for root in self._nodes:
            stack = [root]
            while stack:
                link = stack[-1]
                if link in order:
                    stack.pop()
                    continue
                entered.add(link)
                above = [up for tensor in link.inputs for up in tensor.inputs if up not in order]
                if not above:
                    order[stack.pop()] = None
                elif any(up in entered for up in above):
                    raise self._error(f"the edits made a cycle through {self._nodes[link]}")
                else:
                    stack.extend(reversed(above))
        return [self._nodes[link] for link in order]

    def _write_nodes(self, graph: onnx.GraphProto, order: list[Node]) -> None:
        for link in self._added:
            node = self._nodes[link]
            graph.node.append(node._proto)
            node._proto = graph.node[-1]
        for link in {**self._touched, **self._added}:
            self._write_node(self._nodes[link])
        # Sorting moves pointers: messages are neither copied nor changed. The removed ones gather at the end.
        places = {id(node._proto): index for index, node in enumerate(order)}
        graph.node.sort(key=lambda proto: places.get(id(proto), len(places)))
        del graph.node[len(order) :]
        self._nodes = {node._link: node for node in order}

    def _write_node(self, node: Node) -> None:
        proto = node._proto
        if tuple(proto.input) != node.inputs:
            proto.input[:] = node.inputs
        if tuple(proto.output) != node.outputs:
            proto.output[:] = node.outputs
        pairs = zip(node._written_captures, node.captures, strict=True)
        scopes.rename_captures(proto, {old: new for old, new in pairs if old != new}, self.fresh_name)
        node._written_captures = node.captures

    def _write_initializers(self, graph: onnx.GraphProto) -> None:
        gone = {id(stored) for stored in self._removed_initializers}
        for stored in (graph.initializer, graph.sparse_initializer) if gone else ():
            for index in reversed([index for index, entry in enumerate(stored) if id(entry) in gone]):
                del stored[index]
        for tensor, proto in self._added_initializers.items():
            graph.initializer.append(proto)
            self._initializers[tensor] = graph.initializer[-1]
        for tensor in self._renamed:
            stored_as = self._initializers.get(tensor)
            if stored_as is not None:
                named = stored_as.values if isinstance(stored_as, onnx.SparseTensorProto) else stored_as
                named.name = tensor.name

    def _write_ports(self, graph: onnx.GraphProto) -> None:
        for entries, values in ((self._inputs, graph.input), (self._outputs, graph.output)):
            written = [entry.written() for entry in entries]
            self._new_ports.update(self._written_name(entry.tensor) for entry in entries if entry.proto is None)
            del values[:]
            values.extend(written)
            for entry, value in zip(entries, values, strict=True):
                entry.proto, entry.wanted = value, None

    def _written_name(self, tensor: _Tensor) -> str:
        return self._renamed.get(tensor, str(tensor.name))

    def _write_annotations(self, graph: onnx.GraphProto) -> None:
        """Renames or drops what the file says of values that were renamed, removed, or became ports."""
        names = {old: tensor.name for tensor, old in self._renamed.items()}
        gone = {self._written_name(tensor) for tensor in self._unplugged if not self._is_provided(tensor)}
        described = gone | self._new_ports
        for index in reversed(range(len(graph.value_info))):
            value = graph.value_info[index]
            if value.name in described:
                del graph.value_info[index]
            elif value.name in names:
                value.name = names[value.name]
        for index in reversed(range(len(graph.quantization_annotation))):
            annotation = graph.quantization_annotation[index]
            if annotation.tensor_name in gone:
                del graph.quantization_annotation[index]
                continue
            annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
            for parameter in annotation.quant_parameter_tensor_names:
                parameter.value = names.get(parameter.value, parameter.value)
