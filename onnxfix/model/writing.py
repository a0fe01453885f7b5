"""How edits get into a graph's message, with everything around them left in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, replace

import onnx
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer  # type: ignore[import-untyped]

from onnxfix.convention.signature import Port
from onnxfix.errors import RewriteError
from onnxfix.model.node import Value
from onnxfix.model.ports import describe, port_of


@dataclass
class PortEntry:
    """A graph input or output: its value, its message in the file if it has one, and what it shall become."""

    value: Value
    proto: onnx.ValueInfoProto | None
    wanted: Port | None = None

    @property
    def port(self) -> Port:
        """The port as it is or shall be."""
        known = self.wanted or port_of(self.proto or onnx.ValueInfoProto())
        return replace(known, name=self.value.name)

    def written(self) -> onnx.ValueInfoProto:
        """Returns the message, changed no more than is wanted.

        Raises:
            RewriteError: The port has a dtype that no tensor has.
        """
        written = onnx.ValueInfoProto()
        if self.proto is not None:
            written.CopyFrom(self.proto)
        try:
            describe(written, self.port)
        except KeyError:
            raise RewriteError(
                f"`{self.port.dtype}` is no dtype of a tensor", where=f"port `{self.port.name}`"
            ) from None
        return written


def write_ports(
    values: MutableSequence[onnx.ValueInfoProto], written: Sequence[onnx.ValueInfoProto], entries: Sequence[PortEntry]
) -> None:
    """Replaces a graph's inputs or outputs, and lets the entries know their new messages."""
    del values[:]
    values.extend(written)
    for entry, value in zip(entries, values, strict=True):
        entry.proto, entry.wanted = value, None


def arrange(nodes: RepeatedCompositeFieldContainer, order: Sequence[onnx.NodeProto]) -> None:
    """Puts a graph's nodes in this order, and removes those that are not in it.

    Sorting moves pointers: messages are neither copied nor changed.
    """
    places = {id(node): index for index, node in enumerate(order)}
    nodes.sort(key=lambda node: places.get(id(node), len(places)))
    del nodes[len(order) :]


def remove(values: RepeatedCompositeFieldContainer, gone: Collection[object]) -> None:
    """Removes messages from a field, recognised by identity."""
    identities = {id(value) for value in gone}
    for index in reversed([index for index, value in enumerate(values) if id(value) in identities] if gone else []):
        del values[index]


def write_annotations(
    graph: onnx.GraphProto, names: Mapping[str, str], gone: Collection[str], undescribed: Collection[str]
) -> None:
    """Renames or drops what a graph says of its values.

    Args:
        graph: The graph, changed in place.
        names: Old names and new ones.
        gone: Old names of values that are no more.
        undescribed: Old names of values that `value_info` shall not describe.
    """
    for index in reversed(range(len(graph.value_info))):
        value = graph.value_info[index]
        if value.name in undescribed:
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
