"""Edits of a main graph: remembered until they are committed, and written with all around them left in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx

from onnxfix.convention.signature import Port
from onnxfix.errors import RewriteError
from onnxfix.model import scopes, writing
from onnxfix.model.linked import LinkedGraph, Maker
from onnxfix.model.model import Model
from onnxfix.model.node import Link, Node, Value, ordered
from onnxfix.model.writing import PortEntry


class EditedGraph(LinkedGraph):
    """A main graph whose values, ports and connections can be changed.

    Every reading shows the edits made so far; the model itself changes at `commit`.
    """

    def __init__(self, model: Model, maker: Maker) -> None:
        super().__init__(model, maker)
        self._taken = self._all_names()
        self._counters: dict[str, int] = {}
        self._missing_before = {tensor for tensor in self._tensors.values() if not self._is_provided(tensor)}
        self._forget_edits()

    def _all_names(self) -> set[str]:
        """Returns every name of a value or node, at any depth, functions included."""
        names = {node.name for node in self._nodes.values()}
        names.update(self._tensors, (value.name for value in self.model.proto.graph.value_info))
        names |= scopes.names_inside(node.proto for node in self._holders)
        return names | scopes.names_in_functions(self.model.proto)

    def _forget_edits(self) -> None:
        self._touched: dict[Link, None] = {}
        self._added: dict[Link, None] = {}
        self._removed: list[Node] = []
        self._added_initializers: dict[Value, onnx.TensorProto] = {}
        self._removed_initializers: list[onnx.TensorProto | onnx.SparseTensorProto] = []
        self._unplugged: dict[Value, None] = {}
        self._renamed: dict[Value, str] = {}
        self._claimed: dict[str, None] = {}
        self._ports_changed = False

    def fresh_name(self, hint: str) -> str:
        """Returns a name that no value and no node bears, at any depth, and reserves it."""
        name = hint
        while name in self._taken or not name:
            self._counters[hint] = self._counters.get(hint, 0) + 1
            name = f"{hint}_{self._counters[hint]}"
        self._taken.add(name)
        return name

    def set_input(self, node: Node, index: int, name: str) -> None:
        """Lets a node read another value at one of its inputs.

        Raises:
            RewriteError: There is no such value.
        """
        if not 0 <= index < node.arity:
            raise IndexError(f"{node} has no input {index}")
        node.link.inputs[index] = self._known(name)
        self._touched[node.link] = None

    def set_captures(self, node: Node, names: Mapping[str, str]) -> None:
        """Lets a node's nested graphs read other values: old names and new ones.

        Raises:
            RewriteError: There is no such new value.
        """
        for index in range(node.arity, len(node.link.inputs)):
            old = node.link.inputs[index].name
            new = names.get(old, old)
            if new != old:
                node.link.inputs[index] = self._known(new)
                self._touched[node.link] = None

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
        valued = [entry for entry in self._inputs if entry.value in self._initializers]
        known = {entry.value.name: entry for entry in self._inputs if entry.value not in self._initializers}
        for port in ports:
            if port.name not in known:
                known[port.name] = PortEntry(self._unprovided(port.name), None)
        # A valued input keeps its distance from the front, as far as there are that many ports.
        before = {id(entry): index for index, entry in enumerate(self._inputs)}
        entries = [self._wanted(known[port.name], port) for port in ports]
        for entry in valued:
            entries.insert(before[id(entry)], entry)
        staying = {entry.value for entry in entries}
        self._unplugged.update((entry.value, None) for entry in self._inputs if entry.value not in staying)
        self._note_inputs(entries)
        self._types.update({entry.value: entry.port for entry in entries})
        self._ports_changed = True

    def set_outputs(self, ports: Sequence[Port]) -> None:
        """Sets the graph's outputs, in order. A port that exists keeps what else the file says of it.

        Raises:
            RewriteError: There is no such value, or a name occurs twice.
        """
        self._require_distinct(ports)
        known = {entry.value.name: entry for entry in self._outputs}
        entries = (known.get(port.name) or PortEntry(self._known(port.name), None) for port in ports)
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
            self._claim(new)
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
            if tensor in self._initializers and not self._is_pinned(tensor):
                self._remove_initializer(tensor)
            for link in [link for link in tensor.inputs if not any(self._is_read(other) for other in link.outputs)]:
                waiting.extend(link.inputs)
                self._remove(link)
                removed += 1
        return removed

    def remove_node(self, node: Node) -> None:
        """Removes a node. What it produced needs another producer, or no reader, before `commit`."""
        self._remove(node.link)

    def _remove(self, link: Link) -> None:
        self._unplugged.update(dict.fromkeys(link.outputs))
        node = self._nodes.pop(link)
        link.inputs.clear()
        link.outputs.clear()
        self._touched.pop(link, None)
        if link in self._added:
            del self._added[link]
        else:
            self._removed.append(node)

    def _is_pinned(self, tensor: Value) -> bool:
        """Says whether an initializer is of use without being read: as an input's default, or in an annotation."""
        annotations = self.model.proto.graph.quantization_annotation
        return tensor in self._input_tensors or any(
            parameter.value == self._written_name(tensor)
            for annotation in annotations
            for parameter in annotation.quant_parameter_tensor_names
        )

    def _remove_initializer(self, tensor: Value) -> None:
        stored = self._initializers.pop(tensor)
        self._unplugged[tensor] = None
        if self._added_initializers.pop(tensor, None) is None:
            self._removed_initializers.append(stored)

    def _known(self, name: str) -> Value:
        if name and name not in self._tensors:
            raise self._error(f"the graph has no value `{name}`")
        return self._tensor(name)

    def _unprovided(self, name: str) -> Value:
        if self.has_value(name):
            raise self._error(f"the name `{name}` is taken by another value of the graph")
        self._claim(name)
        tensor = self._tensor(name)
        self._constants.pop(tensor, None)
        return tensor

    def _claim(self, name: str) -> None:
        self._taken.add(name)
        self._claimed[name] = None

    def _require_distinct(self, ports: Sequence[Port]) -> None:
        names = [port.name for port in ports]
        for name in names:
            if names.count(name) > 1:
                raise self._error(f"two ports cannot both be named `{name}`")

    def _wanted(self, entry: PortEntry, port: Port) -> PortEntry:
        if entry.proto is None or entry.port != port:
            entry.wanted = port
            self._types[entry.value] = port
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
            RewriteError: A node or graph output reads a value that nothing produces any more, the edits made a cycle,
                or the model was changed by others meanwhile. The model is as it was then.
        """
        if not self.is_edited:
            return
        graph = self.model.proto.graph
        self._require_complete()
        if len(graph.node) != len(self._nodes) - len(self._added) + len(self._removed):
            raise self._error("the graph was changed while it was viewed")
        nodes = [self._nodes[link] for link in ordered(self._nodes)]
        new_ports = {self._written_name(e.value) for e in (*self._inputs, *self._outputs) if e.proto is None}
        ports = [([entry.written() for entry in entries], entries) for entries in (self._inputs, self._outputs)]
        self._write_nodes(graph, nodes)
        self._write_initializers(graph)
        if self._ports_changed:
            writing.write_ports(graph.input, *ports[0])
            writing.write_ports(graph.output, *ports[1])
        gone = {self._written_name(tensor) for tensor in self._unplugged if not self._is_provided(tensor)}
        names = {old: tensor.name for tensor, old in self._renamed.items()}
        writing.write_annotations(graph, names, gone, undescribed=gone | new_ports)
        self._forget_edits()

    def _require_complete(self) -> None:
        for tensor in self._tensors.values():
            if self._is_provided(tensor) or tensor in self._missing_before or not self._is_read(tensor):
                continue
            reader = self._nodes[tensor.outputs[0]] if tensor.outputs else "a graph output"
            raise self._error(f"nothing produces `{tensor.name}` any more, which {reader} reads")

    def _write_nodes(self, graph: onnx.GraphProto, nodes: list[Node]) -> None:
        for link in self._added:
            graph.node.append(self._nodes[link].proto)
            self._nodes[link].proto = graph.node[-1]
        inner = self._inner_renames()
        for link in {**self._touched, **self._added, **dict.fromkeys(inner)}:
            self._nodes[link].write(inner.get(link, {}))
        writing.arrange(graph.node, [node.proto for node in nodes])
        self._nodes = {node.link: node for node in nodes}

    def _inner_renames(self) -> dict[Link, dict[str, str]]:
        """Finds values of nested graphs that would bear the name of a value of the main graph.

        Runtimes refuse that, but for the outputs of the very node whose nested graph it is (Optimum's merged decoders).
        """
        renames: dict[Link, dict[str, str]] = {}
        for name in [name for name in self._claimed if name in self._hidden and self.has_value(name)]:
            for node in [node for node in self._hidden[name] if node.link in self._nodes and name not in node.outputs]:
                renames.setdefault(node.link, {})[name] = new = self.fresh_name(name)
                self._hidden[name].remove(node)
                self._hidden.setdefault(new, []).append(node)
        return renames

    def _write_initializers(self, graph: onnx.GraphProto) -> None:
        for stored in (graph.initializer, graph.sparse_initializer):
            writing.remove(stored, self._removed_initializers)
        for tensor, proto in self._added_initializers.items():
            graph.initializer.append(proto)
            self._initializers[tensor] = graph.initializer[-1]
        for tensor in self._renamed:
            renamed = self._initializers.get(tensor)
            if renamed is not None:
                named = renamed.values if isinstance(renamed, onnx.SparseTensorProto) else renamed
                named.name = tensor.name

    def _written_name(self, tensor: Value) -> str:
        return self._renamed.get(tensor, str(tensor.name))
