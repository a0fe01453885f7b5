"""What a simplifier made of a skeleton, as edits of the model itself: what it loses on its way is still there."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnxfix.errors import SimplifyError
from onnxfix.model.attributes import attribute_value, tensor_value
from onnxfix.model.external import graphs_of
from onnxfix.model.graph import GraphView, Node
from onnxfix.model.scopes import capture_renames


class Merge:
    """The difference between a skeleton and its simplified version, made on the model itself.

    Nodes are recognised by the names of what they produce, which onnxsim keeps.
    """

    def __init__(self, view: GraphView, before: onnx.GraphProto, after: onnx.GraphProto) -> None:
        self.view = view
        self.before = {_key(proto.output): proto for proto in before.node}
        self.after = after
        self.produced = {name for proto in before.node for name in proto.output}
        self.known = {tensor.name: tensor for tensor in before.initializer}
        self.constants = {tensor.name: tensor for tensor in after.initializer}
        self.named: dict[str, str] = {}

    def run(self) -> None:
        """Makes the edits.

        Raises:
            SimplifyError: onnxsim changed a nested graph, or a node that has some.
            RewriteError: The result lacks a value. The model is as it was.
        """
        nodes = {_key(node.outputs): node for node in self.view.nodes}
        kept: list[tuple[Node, onnx.NodeProto]] = []
        new: list[onnx.NodeProto] = []
        for proto in self.after.node:
            node = nodes.get(_key(proto.output))
            if node is not None and self._is_same(proto):
                kept.append((node, proto))
            else:
                new.append(proto)
        staying = {id(node) for node, _ in kept}
        gone = [node for node in self.view.nodes if id(node) not in staying and _key(node.outputs) in self.before]
        freed = [name for node in gone for name in (*node.inputs, *node.captures)]
        for node in gone:
            self.view.remove_node(node)
        for proto in new:
            self._add(proto)
        for node, proto in kept:
            freed += self._rewire(node, proto)
        self.view.remove_dead(freed)
        self.view.commit()

    def _is_same(self, after: onnx.NodeProto) -> bool:
        """Says whether a node is what it was, but for the names of what it reads."""
        before = self.before.get(_key(after.output))
        return (
            before is not None
            and (before.op_type, before.domain) == (after.op_type, after.domain)
            and len(_trimmed(before.input)) == len(_trimmed(after.input))
            and (list(before.attribute) == list(after.attribute) or _attributes(before) == _attributes(after))
        )

    def _add(self, proto: onnx.NodeProto) -> None:
        if next(graphs_of(proto), None) is not None:
            # Its nested graphs are the skeleton's: the weights in them are stubs.
            raise SimplifyError(f"onnxsim rewrote the node {proto.name or proto.output[0]}, which has nested graphs")
        written = onnx.NodeProto()
        written.CopyFrom(proto)
        written.input[:] = [self._provided(name) for name in proto.input]
        before = self.before.get(_key(proto.output))
        if before is not None and before.op_type == proto.op_type:
            written.doc_string = before.doc_string
            written.metadata_props.extend(before.metadata_props)
        self.view.add_written_node(written)

    def _rewire(self, node: Node, proto: onnx.NodeProto) -> list[str]:
        """Lets a node read what its simplified version reads; returns what it reads no longer."""
        freed = []
        for index, read in enumerate(_trimmed(proto.input)):
            name = self._provided(read)
            if node.inputs[index] != name:
                freed.append(node.inputs[index])
                self.view.set_input(node, index, name)
        if node.has_graphs:
            renames = capture_renames(self.before[_key(proto.output)], proto)
            if renames is None:
                raise SimplifyError(
                    f"onnxsim changed a nested graph of the {node.op_type} `{node.name or node.outputs[0]}`"
                )
            provided = {old: self._provided(new) for old, new in renames.items()}
            freed += [old for old, new in provided.items() if old != new]
            self.view.set_captures(node, provided)
        return freed

    def _provided(self, name: str) -> str:
        """Returns the name of a value in the model, where it is added if it is a constant that onnxsim computed."""
        if name not in self.constants:
            return name
        if name not in self.named:
            self.named[name] = self._add_constant(self.constants[name])
        return self.named[name]

    def _add_constant(self, stored: onnx.TensorProto) -> str:
        known = self.known.get(stored.name)
        if known is not None and (known == stored or _content(known) == _content(stored)):
            return stored.name
        constant = onnx.TensorProto()
        constant.CopyFrom(stored)
        # A folded value keeps its name. Those that onnxsim made up are numbered by its inner state.
        if stored.name not in self.produced or self.view.has_value(stored.name):
            constant.name = self.view.fresh_name("folded")
        self.view.add_initializer(constant)
        return constant.name


def _content(tensor: onnx.TensorProto) -> tuple[int, tuple[int, ...], bytes]:
    value = tensor_value(tensor)
    content = tensor.SerializeToString() if value is None else value.tobytes()
    return tensor.data_type, tuple(tensor.dims), content


def _key(outputs: Sequence[str]) -> str:
    for name in outputs:
        if name:
            return name
    return ""


def _trimmed(names: Sequence[str]) -> Sequence[str]:
    """Leaves out the omitted inputs at the end, which may be written or not."""
    if names and names[-1]:
        return names
    trimmed = list(names)
    while trimmed and not trimmed[-1]:
        trimmed.pop()
    return trimmed


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    """Returns what attributes mean, not how they are written; nested graphs are left out."""
    meanings: dict[str, object] = {}
    for attribute in node.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            continue
        if attribute.type == onnx.AttributeProto.TENSOR:
            meanings[attribute.name] = _content(attribute.t)
            continue
        value = attribute_value(attribute)
        meanings[attribute.name] = attribute.SerializeToString() if value is None else value
    return meanings
