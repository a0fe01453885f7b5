"""A model's bytes, a piece at a time.

Protobuf encodes a message as a whole, which for weights inside the model file takes three times their size in memory.
Here nodes and initializers are encoded one by one. The bytes are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import EncodeError, Message  # type: ignore[import-untyped]
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]

LIMIT = 2**31 - 1
"""Bytes: no larger message can be written or read."""

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_ONE_BY_ONE = frozenset({"node", "initializer"})


def encoded(model: onnx.ModelProto) -> Iterator[bytes]:
    """Yields the model's bytes, which together are `model.SerializeToString()`.

    Raises:
        EncodeError: The model takes more bytes than a message can have.
    """
    # Fields that onnx does not know have no place in the order of those that it knows.
    if UnknownFieldSet(model) or UnknownFieldSet(model.graph):
        yield model.SerializeToString()
        return
    graph_size = sum(_sizes(model.graph))
    if graph_size > LIMIT:
        raise EncodeError(f"the graph takes {graph_size} bytes")
    for field, value in model.ListFields():
        if field.number == _GRAPH:
            yield _header(_GRAPH, graph_size)
            yield from _graph(model.graph)
        else:
            yield _alone(model, field.name, value)


def _graph(graph: onnx.GraphProto) -> Iterator[bytes]:
    for field, value in graph.ListFields():
        if field.name not in _ONE_BY_ONE:
            yield _alone(graph, field.name, value)
            continue
        for message in value:
            content = message.SerializeToString()
            yield _header(field.number, len(content))
            yield content


def _sizes(graph: onnx.GraphProto) -> Iterable[int]:
    return (len(piece) for piece in _graph(graph))


def _alone(message: Message, name: str, value: object) -> bytes:
    """Encodes one field of a message."""
    shell = type(message)()
    if isinstance(value, (str, int)):
        setattr(shell, name, value)
    else:
        getattr(shell, name).extend(value)
    return bytes(shell.SerializeToString())


def _header(number: int, size: int) -> bytes:
    """Encodes what stands before a message in a field: number, kind (2: bytes of known length), and length."""
    return _varint(number << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
